//! What goes into the download machine and what comes out of it.

use crate::{Block, PieceIndex};
use std::time::Duration;

/// A source of this download; given by [`super::Download::add_source`], reused after its removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(pub u32);

/// What a source is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceKind {
    /// A BitTorrent peer: says what it has, chokes and unchokes.
    Peer,
    /// An HTTP server, a Gnutella host: best asked for long ranges.
    Web,
    /// Whoever sends a file from an offset on and cannot be told where to end, as Napster's users do:
    /// each jump costs a new connection, so that it gets stretches of its own.
    Stream,
}

impl SourceKind {
    /// Whether it is asked for ranges of bytes, neither chokes nor hears of interest by itself.
    pub(super) fn is_ranged(self) -> bool {
        self != Self::Peer
    }
}

/// How a source is added.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Who it is for bans: the same for every connection to one address.
    pub address: u64,
    /// What it is.
    pub kind: SourceKind,
    /// Whether the fast extension is in use (BEP 6).
    pub fast: bool,
    /// Requests it lets stand open (`reqq`, BEP 10).
    pub max_pipeline: u32,
}

/// The limits of a download.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// Requests first sent to a source whose rate is unknown.
    pub initial_pipeline: u32,
    /// Requests open with one source, at most, whatever it allows.
    pub max_pipeline: u32,
    /// How long a source's queue is to last beyond what bandwidth × delay needs.
    pub queue_time: Duration,
    /// Bytes requested and not yet received, over all sources.
    pub max_outstanding: Option<u64>,
    /// Pieces begun and not yet verified.
    pub max_open: usize,
    /// Pieces chosen at random before the rarest come first.
    pub random_first: u32,
    /// How long a source may owe blocks before [`super::Download::is_snubbed`] says so.
    pub snub_after: Duration,
}

impl Default for DownloadConfig {
    fn default() -> Self {
        Self {
            initial_pipeline: 32,
            max_pipeline: 1024,
            queue_time: Duration::from_millis(100),
            max_outstanding: None,
            max_open: 16_384,
            random_first: 4,
            snub_after: Duration::from_secs(60),
        }
    }
}

/// In what order pieces are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The rarest first: best for the swarm.
    #[default]
    RarestFirst,
    /// From the first to the last: for reading along.
    Sequential,
    /// Any that the source has, however rare: what rarest-first is measured against. Worse for
    /// everyone where pieces are rare.
    Random,
}

/// What to do with a block that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Write it.
    Accept,
    /// Somebody else was faster, or it was cancelled.
    Duplicate,
    /// Nobody asked for it.
    Unrequested,
}

/// The SHA-1 of one block.
pub type BlockDigest = [u8; 20];

/// What hashing a piece gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PieceOutcome {
    /// The piece is good. Digests of its blocks in order are wanted if
    /// [`super::Download::wants_digests`] says so.
    Verified {
        /// One digest per block, if they were wanted.
        digests: Option<Vec<BlockDigest>>,
    },
    /// The piece is bad.
    Corrupt {
        /// One digest per block, in order.
        digests: Vec<BlockDigest>,
    },
}

/// Why a source is to be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// It sends blocks nobody asked for.
    Flood,
    /// It unchokes and then rejects every request.
    Rejects,
    /// Its bitfield is not of this content.
    Bitfield,
    /// It named a piece past the end.
    BadPiece,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownloadOutput {
    /// Ask `source` for `block`.
    Request {
        /// Whom.
        source: SourceId,
        /// What for.
        block: Block,
    },
    /// `block` is not wanted from `source` any more.
    Cancel {
        /// Whom to tell.
        source: SourceId,
        /// What.
        block: Block,
    },
    /// Tell `source` whether we are interested. Not said of web seeds.
    Interested {
        /// Whom.
        source: SourceId,
        /// Whether we are.
        interested: bool,
    },
    /// A piece was verified: tell everyone.
    Have(PieceIndex),
    /// The address sent bad blocks: drop its connections and take no more. Its sources are asked
    /// for nothing from now on; remove them.
    Ban {
        /// As given to [`super::Download::add_source`].
        address: u64,
    },
    /// Drop this source; remove it.
    Drop {
        /// Whom.
        source: SourceId,
        /// Why.
        why: DropReason,
    },
    /// Every wanted piece is there.
    Finished,
}

/// Bytes that were received in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waste {
    /// In blocks that another source had sent already, or that were cancelled.
    pub duplicate: u64,
    /// In blocks that nobody had asked for.
    pub unrequested: u64,
    /// In pieces that failed their hash.
    pub corrupt: u64,
}
