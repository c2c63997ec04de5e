//! Names that people keep: who has which, and a public log of it that nobody can rewrite unseen.
//!
//! ```text
//!  fold       which spellings are one name      log        a Merkle tree over entries, proofs, signed heads
//!  register   who has which name, as logged     certificate  a name bound to a key, for a month
//! ```

pub mod certificate;
pub mod fold;
pub mod log;
pub mod register;

use serde::{Deserialize, Serialize};

use crate::token::{Key, Sealed};
use certificate::Certificate;
use log::{Hash, Head};
use register::Entry;

/// Entries of one answer at most.
pub const MAX_ENTRIES: usize = 500;

/// What is said to the login server about names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameAsk {
    /// This name shall be this key's, or is already. Answered by a challenge.
    Claim {
        /// The name.
        name: String,
        /// The key.
        key: Key,
        /// Who may take the name back when the key is lost or stolen.
        recovery: Option<Key>,
    },
    /// This name shall be another key's. Answered by a challenge.
    Change {
        /// The name.
        name: String,
        /// The new key.
        key: Key,
        /// Another recovery key; none: it stays.
        recovery: Option<Key>,
    },
    /// The last challenge, signed.
    Prove {
        /// By the key that has the name, or its recovery key.
        by: Sealed,
        /// By the key that shall have it.
        new: Sealed,
    },
    /// How long the log is, and its root.
    Head,
    /// Entries of the log, from this one on.
    Entries {
        /// The first.
        from: u64,
    },
    /// Proves that an entry is in the log of this size.
    Inclusion {
        /// Which.
        index: u64,
        /// Entries of the log.
        size: u64,
    },
    /// Proves that a longer log begins with a shorter one.
    Consistency {
        /// Entries of the shorter.
        from: u64,
        /// Of the longer.
        to: u64,
    },
    /// The last entry of a name.
    Owner {
        /// The name.
        name: String,
    },
}

/// What the login server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameAnswer {
    /// Sign this; the server's own key is told too.
    Challenge([u8; 32], Key),
    /// The name is the key's.
    Certified(Certificate),
    /// The log's head.
    Head(Head),
    /// Entries of the log.
    Entries(Vec<Entry>),
    /// A proof.
    Proof(Vec<Hash>),
    /// The last entry of the name and its number, or nobody has the name.
    Owner(Option<(u64, Entry)>),
}

/// What a challenge of the login server is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// [`NameAsk::Claim`].
    Claim,
    /// [`NameAsk::Change`].
    Change,
}

/// What is signed to claim a name or to change its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement<'a> {
    /// Which of them.
    pub act: Act,
    /// The challenge.
    pub nonce: &'a [u8; 32],
    /// The login server's key.
    pub server: &'a Key,
    /// The name.
    pub name: &'a str,
    /// The key that shall have it.
    pub key: &'a Key,
    /// The recovery key asked for.
    pub recovery: Option<Key>,
}

impl Statement<'_> {
    const ABOUT: &'static str = "name";

    /// Signs it.
    pub fn sign(&self, by: &ed25519_dalek::SigningKey) -> Sealed {
        Sealed::new(by, Self::ABOUT, self)
    }

    /// Whether this key signed it.
    pub fn is_by(&self, key: &Key, seal: &Sealed) -> bool {
        seal.is_by(key, Self::ABOUT, self)
    }
}
