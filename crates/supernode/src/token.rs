//! Who somebody is: a name bound to a key, signed by the login server, and where its owner is,
//! signed by the owner.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::Address;

/// An Ed25519 public key.
pub type Key = [u8; 32];

/// Letters of a name at most.
pub const MAX_NAME: usize = 32;

/// An Ed25519 signature, in two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sealed([[u8; 32]; 2]);

impl Sealed {
    /// Signs `what`, which is one of `about` (so that no signature serves for something else).
    ///
    /// `what` must be plain data, whose encoding cannot fail.
    pub fn new(key: &SigningKey, about: &str, what: &impl Serialize) -> Self {
        let bytes = key.sign(&signed(about, what)).to_bytes();
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(bytes.first_chunk::<32>().unwrap_or(&[0; 32]));
        second.copy_from_slice(bytes.last_chunk::<32>().unwrap_or(&[0; 32]));
        Self([first, second])
    }

    /// Whether the key's owner signed it.
    pub fn is_by(&self, key: &Key, about: &str, what: &impl Serialize) -> bool {
        let mut bytes = [0; 64];
        bytes
            .iter_mut()
            .zip(self.0.iter().flatten())
            .for_each(|(to, from)| *to = *from);
        VerifyingKey::from_bytes(key).is_ok_and(|key| {
            key.verify_strict(&signed(about, what), &Signature::from_bytes(&bytes))
                .is_ok()
        })
    }
}

fn signed(about: &str, what: &impl Serialize) -> Vec<u8> {
    let mut bytes = format!("shoal supernode {about}\0").into_bytes();
    bytes.extend(postcard::to_allocvec(what).unwrap_or_default());
    bytes
}

/// Why a token or a presence does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Invalid {
    /// The login server did not sign it.
    #[error("the token is not by our login server")]
    Foreign,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// The owner of its key did not sign what it says.
    #[error("it is not signed by the token's owner")]
    Forged,
    /// The name is empty, too long, or has letters that names may not have.
    #[error("the name is not allowed")]
    Name,
}

/// Whether a name is allowed: 1 to 32 letters, digits, `-`, `_`, `.`.
pub fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(letter)
}

/// A login server's word that a name belongs to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The name.
    pub name: String,
    /// Whose it is.
    pub key: Key,
    /// Until when, in Unix seconds.
    pub expires: u64,
    seal: Sealed,
}

const TOKEN: &str = "token";

impl Token {
    /// Binds a name to a key.
    pub fn issue(server: &SigningKey, name: &str, key: Key, expires: u64) -> Self {
        let seal = Sealed::new(server, TOKEN, &(name, key, expires));
        Self {
            name: name.to_owned(),
            key,
            expires,
            seal,
        }
    }

    /// Whether it holds at `unix` (seconds) for those who trust `server`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, server: &Key, unix: u64) -> Result<(), Invalid> {
        if !is_name(&self.name) {
            return Err(Invalid::Name);
        }
        let what = (self.name.as_str(), self.key, self.expires);
        if !self.seal.is_by(server, TOKEN, &what) {
            return Err(Invalid::Foreign);
        }
        if unix >= self.expires {
            return Err(Invalid::Expired);
        }
        Ok(())
    }
}

/// Where somebody is, as they say themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Presence<A> {
    /// Who.
    pub token: Token,
    /// Where others connect to for links.
    pub links: A,
    /// Where others fetch files from; none if they cannot.
    pub files: Option<A>,
    seal: Sealed,
}

const PRESENCE: &str = "presence";

impl<A: Address> Presence<A> {
    /// Says where the key's owner is.
    pub fn new(key: &SigningKey, token: Token, links: A, files: Option<A>) -> Self {
        let seal = Sealed::new(key, PRESENCE, &(&token, links, files));
        Self {
            token,
            links,
            files,
            seal,
        }
    }

    /// Whether the token holds and its owner says so.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, server: &Key, unix: u64) -> Result<(), Invalid> {
        self.token.check(server, unix)?;
        let what = (&self.token, self.links, self.files);
        if self.seal.is_by(&self.token.key, PRESENCE, &what) {
            Ok(())
        } else {
            Err(Invalid::Forged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn public(n: u8) -> Key {
        key(n).verifying_key().to_bytes()
    }

    #[test]
    fn bad_old_and_foreign_tokens_do_not_hold() {
        let token = Token::issue(&key(1), "alice", public(2), 100);
        assert_eq!(token.check(&public(1), 99), Ok(()));
        assert_eq!(token.check(&public(1), 100), Err(Invalid::Expired));
        assert_eq!(token.check(&public(3), 99), Err(Invalid::Foreign));
        let mut renamed = token.clone();
        renamed.name = "bob".into();
        assert_eq!(renamed.check(&public(1), 99), Err(Invalid::Foreign));
        let mut longer = token.clone();
        longer.expires = 1000;
        assert_eq!(longer.check(&public(1), 99), Err(Invalid::Foreign));
        let mut theirs = token;
        theirs.key = public(4);
        assert_eq!(theirs.check(&public(1), 99), Err(Invalid::Foreign));
        let odd = Token::issue(&key(1), "a b", public(2), 100);
        assert_eq!(odd.check(&public(1), 99), Err(Invalid::Name));
    }

    #[test]
    fn only_a_keys_owner_says_where_it_is() {
        let token = Token::issue(&key(1), "alice", public(2), 100);
        let honest = Presence::new(&key(2), token.clone(), 7u32, Some(8));
        assert_eq!(honest.check(&public(1), 99), Ok(()));
        let mut moved = honest;
        moved.files = Some(9);
        assert_eq!(moved.check(&public(1), 99), Err(Invalid::Forged));
        let thief = Presence::new(&key(3), token, 7u32, Some(8));
        assert_eq!(thief.check(&public(1), 99), Err(Invalid::Forged));
    }
}
