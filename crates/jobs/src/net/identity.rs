//! Who strangers are: Ed25519 keys, and the handshake in which both ends prove theirs.
//!
//! ```text
//! client → server   "shoalmrs" | role (u8) | nonce (32) | client's key (32)
//! server → client   nonce (32) | server's key (32) | signature (64)
//! client → server   signature (64)
//! server → client   1 (u8)
//! ```
//!
//! A signature is over "shoal mapreduce server" or "shoal mapreduce client", the role, both nonces
//! and both keys, the client's first. As with the secret, what follows is neither encrypted nor
//! signed.

use super::auth::{Role, no_answer, refused, settled};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use shoal_base::id::{from_hex, to_hex};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(super) const MAGIC: &[u8; 8] = b"shoalmrs";

/// A public key.
pub type Key = [u8; 32];

/// A key pair. Its secret half is never printed.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", to_hex(&self.key()))
    }
}

impl Identity {
    /// The key pair of this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// One that nobody had before.
    pub fn fresh() -> Self {
        Self::new(&crate::engine::random())
    }

    /// The public half.
    pub fn key(&self) -> Key {
        self.0.verifying_key().to_bytes()
    }
}

/// Splits `KEY@HOST:PORT`; without a key, the address alone.
///
/// # Errors
/// When what stands before the `@` is no key.
pub fn split_addr(addr: &str) -> io::Result<(Option<Key>, &str)> {
    let Some((key, addr)) = addr.split_once('@') else {
        return Ok((None, addr));
    };
    match from_hex(key) {
        Ok(key) => Ok((Some(key), addr)),
        Err(_) => {
            let what = format!("{key:?} is no key: 64 hexadecimal digits stand before the @");
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

/// An address at which the owner of `key` is to be found.
pub fn addr_of(key: &Key, addr: SocketAddr) -> String {
    format!("{}@{addr}", to_hex(key))
}

/// What both ends sign.
struct Transcript {
    role: Role,
    nonces: [[u8; 32]; 2],
    keys: [Key; 2],
}

impl Transcript {
    fn bytes(&self, who: &str) -> Vec<u8> {
        let mut bytes = format!("shoal mapreduce {who}").into_bytes();
        bytes.push(self.role.number());
        bytes.extend_from_slice(&self.nonces.concat());
        bytes.extend_from_slice(&self.keys.concat());
        bytes
    }

    fn sign(&self, who: &str, identity: &Identity) -> [u8; 64] {
        identity.0.sign(&self.bytes(who)).to_bytes()
    }

    fn check(&self, who: &str, key: &Key, signature: &[u8; 64]) -> io::Result<()> {
        VerifyingKey::from_bytes(key)
            .and_then(|key| {
                let signature = Signature::from_bytes(signature);
                key.verify_strict(&self.bytes(who), &signature)
            })
            .map_err(|_| refused("the other end does not prove its key"))
    }
}

/// Greets a stranger, or as one; `expected` is who must be there.
pub(super) fn greet(
    mut stream: TcpStream,
    role: Role,
    identity: &Identity,
    expected: Option<&Key>,
) -> io::Result<TcpStream> {
    let ours = crate::engine::random();
    let mut hello = MAGIC.to_vec();
    hello.push(role.number());
    hello.extend_from_slice(&ours);
    hello.extend_from_slice(&identity.key());
    stream.write_all(&hello)?;
    let (mut theirs, mut key, mut proof) = ([0; 32], [0; 32], [0; 64]);
    let none = |e| no_answer(e, "the other end takes no strangers");
    stream.read_exact(&mut theirs).map_err(none)?;
    stream.read_exact(&mut key).map_err(none)?;
    stream.read_exact(&mut proof).map_err(none)?;
    if expected.is_some_and(|expected| *expected != key) {
        return Err(refused("somebody else is at that address"));
    }
    let all = Transcript {
        role,
        nonces: [ours, theirs],
        keys: [identity.key(), key],
    };
    all.check("server", &key, &proof)?;
    stream.write_all(&all.sign("client", identity))?;
    let mut ok = [0];
    stream.read_exact(&mut ok).map_err(none)?;
    settled(&stream)?;
    Ok(stream)
}

/// Answers a stranger of whose greeting all but the key was read.
pub(super) fn accept(
    stream: &mut TcpStream,
    role: Role,
    theirs: [u8; 32],
    identity: &Identity,
) -> io::Result<Key> {
    let mut key = [0; 32];
    stream.read_exact(&mut key)?;
    let ours: [u8; 32] = crate::engine::random();
    let all = Transcript {
        role,
        nonces: [theirs, ours],
        keys: [key, identity.key()],
    };
    let mut answer = ours.to_vec();
    answer.extend_from_slice(&identity.key());
    answer.extend_from_slice(&all.sign("server", identity));
    stream.write_all(&answer)?;
    let mut proof = [0; 64];
    stream.read_exact(&mut proof)?;
    all.check("client", &key, &proof)?;
    Ok(key)
}
