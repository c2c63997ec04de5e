//! Keys of message integrity (RFC 8489 §9.1.1, 9.2.2) and the hash of a user's name (§14.4).

use md5::Md5;
use sha2::{Digest, Sha256};
use std::fmt;

/// How a long-term key is made from a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As before RFC 8489.
    Md5,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// Its number in PASSWORD-ALGORITHM (RFC 8489 §18.5.1).
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// The algorithm of that number, if it is known.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// What MESSAGE-INTEGRITY is keyed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key of a short-term credential: the password itself.
    pub fn short_term(password: &[u8]) -> Self {
        Self(password.to_vec())
    }

    /// The key of a long-term credential.
    pub fn long_term(algorithm: Algorithm, user: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let parts = [user, b":", realm, b":", password];
        match algorithm {
            Algorithm::Md5 => Self(hash::<Md5>(&parts)),
            Algorithm::Sha256 => Self(hash::<Sha256>(&parts)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn hash<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// What USERHASH holds instead of a name.
pub fn user_hash(user: &[u8], realm: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(user);
    hash.update(b":");
    hash.update(realm);
    hash.finalize().into()
}
