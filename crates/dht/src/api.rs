//! What a DHT does for its user, whichever overlay carries it: put, get, announce, peers,
//! subscribe, and finding by words.

use crate::keywords::Record;
use crate::{Id, Item};
use shoal_base::Time;
use std::net::SocketAddr;

/// Names an operation until its [`Answer::Done`], or, if it is kept up, until it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Stores an item near its target.
    Put {
        /// What to store; verified before anything is sent.
        item: Item,
        /// Stores only over the value with this sequence number (BEP 44 `cas`).
        cas: Option<i64>,
        /// Republishes until cancelled.
        keep: bool,
    },
    /// Looks for an immutable item.
    GetImmutable {
        /// SHA-1 of the bencoded value.
        target: Id,
    },
    /// Looks for the newest value of a key.
    GetMutable {
        /// Ed25519 public key.
        key: [u8; 32],
        /// At most 64 bytes; may be empty.
        salt: Vec<u8>,
        /// Only values newer than this are wanted.
        newer_than: Option<i64>,
    },
    /// Looks for the newest value of a name, on a ring whose nodes have a judge.
    GetCertified {
        /// Whose names they are.
        authority: [u8; 32],
        /// At most 64 bytes.
        name: Vec<u8>,
    },
    /// Says that this address can be asked about `key`.
    Announce {
        /// An info-hash, or any other key.
        key: Id,
        /// Where it listens; without it, the port its datagrams come from (BEP 5 `implied_port`).
        port: Option<u16>,
        /// Has all of the content, which scrapes tell apart (BEP 33).
        seed: bool,
        /// Announces again until cancelled.
        keep: bool,
    },
    /// Looks for peers of `key`.
    Peers {
        /// An info-hash, or any other key.
        key: Id,
    },
    /// Hears of each new value of a mutable key until cancelled.
    Subscribe {
        /// Ed25519 public key.
        key: [u8; 32],
        /// At most 64 bytes; may be empty.
        salt: Vec<u8>,
    },
    /// Keeps a record under each word of its title. [`Outcome::stored`] counts the words that took
    /// it.
    Publish {
        /// What is said about a content; verified before anything is sent.
        record: Record,
        /// Publishes again until cancelled.
        keep: bool,
    },
    /// Looks for records that have all the words of a text.
    Find {
        /// Words as [`crate::keywords::words_of`] has them.
        words: String,
        /// How many records at most.
        most: u8,
    },
}

/// What an operation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Peers not told before by this operation.
    Peers(Vec<SocketAddr>),
    /// A verified value, newer than those told before by this operation.
    Value(Item),
    /// An estimate of who is there (BEP 33), with the end of a lookup for peers.
    Scrape {
        /// Peers with all of the content.
        seeds: u32,
        /// Peers without.
        leechers: u32,
    },
    /// Keys that one node holds peers for (BEP 51).
    Samples {
        /// Some of them.
        keys: Vec<Id>,
        /// How many it holds in all.
        held: u32,
    },
    /// Verified records with all the words looked for.
    Records(Vec<Record>),
    /// The operation, or one round of a kept one, has ended.
    Done(Result<Outcome, Failure>),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Nodes that said they stored it.
    pub stored: u32,
    /// Nodes that answered on the way.
    pub answered: u32,
    /// Queries sent.
    pub queries: u32,
    /// Longest chain of nodes, each told by the one before.
    pub hops: u32,
}

/// Why an operation did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not one node is known.
    #[error("no node of the DHT is known: give one to start from")]
    NoContacts,
    /// Nodes are known, and none answers.
    #[error("none of {0} known nodes answers: this machine may be offline")]
    Offline(u32),
    /// All went well, and nobody has it.
    #[error("not found: {0} nodes near it were asked")]
    NotFound(u32),
    /// Nobody would store it.
    #[error("nobody stored it: {0}")]
    Refused(String),
    /// A newer value is stored already (BEP 44 error 302).
    #[error("a newer value is stored already, with sequence number {0}")]
    OlderThan(i64),
    /// `cas` did not match what is stored (BEP 44 error 301).
    #[error("the stored value is not the one expected")]
    CasMismatch,
    /// This overlay does not do that.
    #[error("this overlay {0}")]
    Unsupported(&'static str),
    /// What was asked for is malformed.
    #[error("{0}")]
    Invalid(String),
}

/// Whether a node has a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has asked and had no time to hear.
    Starting,
    /// Others answer.
    Online,
    /// Nodes are known and none answers.
    Offline,
    /// No node is known.
    Empty,
}

/// What a DHT core wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// Tell the user.
    Answer {
        /// Which operation.
        op: OpId,
        /// What it found.
        answer: Answer,
    },
}

/// One node of a DHT that speaks datagrams.
pub trait Dht {
    /// Begins an operation. Its answers come as [`Output::Answer`], never before this returns.
    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Output>) -> OpId;

    /// Ends an operation; nothing more is heard of it.
    fn cancel(&mut self, now: Time, op: OpId, out: &mut Vec<Output>);

    /// Takes a datagram.
    fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>);

    /// To be called when the clock reaches [`Dht::deadline`].
    fn on_tick(&mut self, now: Time, out: &mut Vec<Output>);

    /// When it next wants its tick.
    fn deadline(&self) -> Option<Time>;
}
