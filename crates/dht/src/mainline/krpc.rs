//! KRPC: bencoded queries, responses and errors, one datagram each (BEP 5), with the fields that
//! BEPs 32, 33, 42, 43, 44 and 51 add.
//!
//! Reading bears with keys out of order and with fields it does not know; writing is canonical.

mod read;
mod write;

pub use read::{Bad, read};
pub use write::{error, query, response};

use super::bloom::Bloom;
use super::node::Node;
use crate::Id;
use std::net::SocketAddr;

/// Longest datagram that is sent: fits any path without fragments.
pub const MAX_SENT: usize = 1400;
/// Longest datagram that is read; others have sent a value with all nodes beside it.
pub const MAX_READ: usize = 4096;
/// Longest transaction id that is echoed.
pub const MAX_TID: usize = 32;

/// Error codes (BEP 5, BEP 44).
pub mod code {
    /// Generic error.
    pub const GENERIC: i64 = 201;
    /// Malformed packet, invalid arguments, bad token.
    pub const PROTOCOL: i64 = 203;
    /// Method unknown.
    pub const UNKNOWN_METHOD: i64 = 204;
    /// `v` is too big.
    pub const TOO_BIG: i64 = 205;
    /// Invalid signature.
    pub const BAD_SIGNATURE: i64 = 206;
    /// The salt is too big.
    pub const SALT_TOO_BIG: i64 = 207;
    /// The `cas` hash mismatched: re-read and try again.
    pub const CAS_MISMATCH: i64 = 301;
    /// The sequence number is less than the current.
    pub const OLD_SEQ: i64 = 302;
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Transaction id, 1 to 32 bytes.
    pub tid: &'a [u8],
    /// The receiver's address as the sender sees it (BEP 42).
    pub ip: Option<SocketAddr>,
    /// Query, response or error.
    pub body: Body<'a>,
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// A question.
    Query(Query<'a>),
    /// An answer.
    Response(Box<Reply<'a>>),
    /// A refusal.
    Error {
        /// See [`code`].
        code: i64,
        /// In words.
        text: String,
    },
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// Who asks.
    pub id: Id,
    /// It serves nobody and is in no table (BEP 43).
    pub read_only: bool,
    /// Which nodes the answer shall list (BEP 32); none means the family it came by.
    pub want: Want,
    /// What is asked.
    pub call: Call<'a>,
}

/// Families of addresses (BEP 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// IPv4 nodes.
    pub v4: bool,
    /// IPv6 nodes.
    pub v6: bool,
}

/// The methods and their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call<'a> {
    /// Are you there (BEP 5)?
    Ping,
    /// Which nodes are near (BEP 5)?
    FindNode {
        /// Near what.
        target: Id,
    },
    /// Which peers are there (BEP 5)?
    GetPeers {
        /// Of what.
        info_hash: Id,
        /// Without those that have everything (BEP 33).
        noseed: bool,
        /// With filters to count them by (BEP 33).
        scrape: bool,
    },
    /// I am a peer (BEP 5).
    Announce {
        /// Of what.
        info_hash: Id,
        /// At which port; none means the port this came from.
        port: Option<u16>,
        /// Has everything (BEP 33).
        seed: bool,
        /// The answerer's token.
        token: &'a [u8],
    },
    /// Which item is stored (BEP 44)?
    Get {
        /// Under which name.
        target: Id,
        /// Only if newer than this.
        seq: Option<i64>,
    },
    /// Store an item (BEP 44).
    Put(Box<Put<'a>>),
    /// Which keys have peers (BEP 51)?
    Sample {
        /// Which nodes to list beside them.
        target: Id,
    },
}

/// The arguments of `put` (BEP 44).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put<'a> {
    /// The answerer's token.
    pub token: &'a [u8],
    /// The bencoded value.
    pub value: Vec<u8>,
    /// What only mutable items have.
    pub signed: Option<Signed<'a>>,
    /// Store only over this sequence number.
    pub cas: Option<i64>,
    /// The item's name; not in the BEP, but some nodes drop puts without it.
    pub target: Option<Id>,
}

/// What a mutable item has beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// Public key.
    pub key: [u8; 32],
    /// May be empty.
    pub salt: &'a [u8],
    /// Sequence number.
    pub seq: i64,
    /// Signature.
    pub signature: [u8; 64],
}

/// An answer. Which fields are there depends on the question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply<'a> {
    /// Who answers.
    pub id: Id,
    /// Nodes near the target, of both families.
    pub nodes: Vec<Node>,
    /// To be given back when storing.
    pub token: Option<&'a [u8]>,
    /// Peers.
    pub values: Vec<SocketAddr>,
    /// Filters of seeds and of other peers (BEP 33).
    pub filters: Option<(Bloom, Bloom)>,
    /// The bencoded value (BEP 44).
    pub value: Option<Vec<u8>>,
    /// Public key of a mutable item.
    pub key: Option<[u8; 32]>,
    /// Its signature.
    pub signature: Option<[u8; 64]>,
    /// Its sequence number; may come without the value.
    pub seq: Option<i64>,
    /// Keys that have peers (BEP 51).
    pub samples: Option<Samples>,
}

/// A part of the keys that have peers (BEP 51).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Samples {
    /// Seconds until a new part can be asked for, at most 21,600.
    pub interval: u32,
    /// How many keys there are in all.
    pub num: u32,
    /// Some of them.
    pub keys: Vec<Id>,
}

#[cfg(test)]
mod tests;
