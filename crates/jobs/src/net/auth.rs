//! The handshake: a challenge in both directions, answered with HMAC-SHA-256 over the secret.
//!
//! ```text
//! client → server   "shoalmr1" | role (u8) | nonce (32)
//! server → client   nonce (32) | HMAC(secret, "server" | role | client's nonce | server's nonce)
//! client → server   HMAC(secret, "client" | role | client's nonce | server's nonce)
//! server → client   1 (u8)
//! ```
//!
//! Without a secret only loopback is let in. What follows is neither encrypted nor signed: run a
//! cluster inside a network whose wires you trust.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"shoalmr1";
/// Who does not get through the handshake in this time is not served.
const PATIENCE: Duration = Duration::from_secs(10);
/// A secret shorter than this could be guessed.
const SECRET_MIN: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker's messages to its master.
    Control,
    /// Bulk.
    Data,
    /// Submitting jobs and asking about them.
    Client,
}

impl Role {
    const fn number(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Data => 2,
            Self::Client => 3,
        }
    }

    const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Control),
            2 => Some(Self::Data),
            3 => Some(Self::Client),
            _ => None,
        }
    }
}

/// What the machines of a cluster share; possibly nothing.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(none)"
        } else {
            "Secret(…)"
        })
    }
}

impl Secret {
    /// Reads a secret from a file; white space at its ends does not count.
    ///
    /// # Errors
    /// When it cannot be read or is too short.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read(path)?;
        let secret = text.trim_ascii();
        if secret.len() < SECRET_MIN {
            let what = format!("a secret has at least {SECRET_MIN} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self(secret.to_vec()))
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    fn mac(&self, who: &[u8], role: Role, client: &[u8; 32], server: &[u8; 32]) -> Hmac<Sha256> {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            // HMAC takes keys of any length.
            Err(_) => unreachable_mac(),
        };
        mac.update(who);
        mac.update(&[role.number()]);
        mac.update(client);
        mac.update(server);
        mac
    }
}

fn unreachable_mac() -> Hmac<Sha256> {
    Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default())
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Ends the handshake's time limits.
fn settled(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}

/// Connects, and proves both ends to each other.
///
/// # Errors
/// When nobody answers, or one end does not know the other's secret.
pub fn connect(addr: &str, role: Role, secret: &Secret) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for addr in std::net::ToSocketAddrs::to_socket_addrs(addr)? {
        match connect_to(addr, role, secret) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn connect_to(addr: SocketAddr, role: Role, secret: &Secret) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    patient(&stream)?;
    let ours: [u8; 32] = crate::engine::random();
    let mut hello = MAGIC.to_vec();
    hello.push(role.number());
    hello.extend_from_slice(&ours);
    stream.write_all(&hello)?;
    let mut theirs = [0; 32];
    let mut proof = [0; 32];
    let no_answer = |e: io::Error| {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            refused("the other end refuses: no secret is shared")
        } else {
            e
        }
    };
    stream.read_exact(&mut theirs).map_err(no_answer)?;
    stream.read_exact(&mut proof).map_err(no_answer)?;
    let mac = secret.mac(b"server", role, &ours, &theirs);
    if mac.verify_slice(&proof).is_err() {
        return Err(refused("the other end does not know the secret"));
    }
    let mac = secret.mac(b"client", role, &ours, &theirs);
    stream.write_all(&mac.finalize().into_bytes())?;
    let mut ok = [0];
    stream.read_exact(&mut ok).map_err(no_answer)?;
    settled(&stream)?;
    Ok(stream)
}

/// Answers the handshake of somebody who connected.
///
/// # Errors
/// When they do not know the secret, or come from elsewhere while there is none.
pub fn accept(stream: &mut TcpStream, secret: &Secret) -> io::Result<Role> {
    if secret.is_none() && !stream.peer_addr()?.ip().to_canonical().is_loopback() {
        return Err(refused(
            "there is no secret, so only this machine is let in",
        ));
    }
    patient(stream)?;
    let mut hello = [0; 41];
    stream.read_exact(&mut hello)?;
    let (magic, rest) = hello.split_at(MAGIC.len());
    let role = rest.first().copied().and_then(Role::from_number);
    let (Some(role), true) = (role, magic == MAGIC) else {
        return Err(refused("this is no connection of a shoal cluster"));
    };
    let mut theirs = [0; 32];
    theirs.copy_from_slice(rest.get(1..).unwrap_or_default());
    let ours: [u8; 32] = crate::engine::random();
    let mac = secret.mac(b"server", role, &theirs, &ours);
    let mut answer = ours.to_vec();
    answer.extend_from_slice(&mac.finalize().into_bytes());
    stream.write_all(&answer)?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof)?;
    let mac = secret.mac(b"client", role, &theirs, &ours);
    if mac.verify_slice(&proof).is_err() {
        return Err(refused("they do not know the secret"));
    }
    stream.write_all(&[1])?;
    settled(stream)?;
    Ok(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn meet(client: &Secret, server: &Secret) -> (io::Result<()>, io::Result<Role>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound").to_string();
        std::thread::scope(|scope| {
            let accepted = scope.spawn(|| {
                let (mut stream, _) = listener.accept()?;
                accept(&mut stream, server)
            });
            let connected = connect(&addr, Role::Data, client).map(drop);
            (connected, accepted.join().expect("no panic"))
        })
    }

    #[test]
    fn only_those_who_know_the_secret_meet() {
        let (one, two) = (Secret(vec![1; 16]), Secret(vec![2; 16]));
        let (connected, accepted) = meet(&one, &one);
        connected.expect("both know it");
        assert_eq!(accepted.expect("both know it"), Role::Data);
        let (connected, accepted) = meet(&one, &two);
        assert!(connected.is_err() && accepted.is_err());
        let (connected, accepted) = meet(&Secret::default(), &two);
        assert!(connected.is_err() && accepted.is_err());
        let (connected, accepted) = meet(&Secret::default(), &Secret::default());
        assert!(connected.is_ok() && accepted.is_ok());
    }
}
