//! What the pool is asked and what it answers.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use shoal_base::Bitfield;
use shoal_content::{Block, PieceIndex};

use crate::error::StoreError;
use shoal_content::PieceOutcome;

/// A running torrent's short name, given by whoever registers it.
pub type TorrentKey = u32;

/// A block to be written, and where it lies in its batch's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockWrite {
    /// Which torrent.
    pub torrent: TorrentKey,
    /// Which block; one that [`Geometry::is_block`](shoal_content::Geometry::is_block) accepts.
    pub block: Block,
    /// Offset of its first byte in [`WriteBatch::buf`].
    pub start: usize,
}

/// Blocks to be written from one buffer, which may hold other bytes between them.
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// The buffer; comes back with [`Done::Written`].
    pub buf: Vec<u8>,
    /// The blocks in it. A block is submitted once, and again only after it failed or its piece
    /// was found corrupt or lost.
    pub blocks: Vec<BlockWrite>,
}

/// A block to be read, and where it is to go in the job's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPart {
    /// Any range inside a piece.
    pub block: Block,
    /// Offset of its first byte in the buffer.
    pub start: usize,
}

/// What the pool is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Write blocks and hash the pieces they belong to.
    Write(WriteBatch),
    /// Read blocks into a buffer.
    Read {
        /// Which torrent.
        torrent: TorrentKey,
        /// Comes back with the answer.
        token: u64,
        /// The buffer, long enough for all parts; its other bytes are left alone.
        buf: Vec<u8>,
        /// What goes where; starts rise and parts do not overlap.
        parts: Vec<ReadPart>,
    },
    /// Read pieces and compare them with their hashes, behind all reads and writes.
    Check {
        /// Which torrent.
        torrent: TorrentKey,
        /// Which pieces; none: all.
        pieces: Option<Bitfield>,
    },
    /// After a fault: look whether files can be read and written again.
    Probe {
        /// Which torrent.
        torrent: TorrentKey,
    },
    /// Make empty files and links, and reserve room if the files were opened so.
    Prepare {
        /// Which torrent.
        torrent: TorrentKey,
        /// The files wanted, by number; none: all.
        wanted: Option<Vec<usize>>,
    },
    /// Everything is there: set the files' attributes.
    Finish {
        /// Which torrent.
        torrent: TorrentKey,
    },
    /// Make what was written durable.
    Sync {
        /// Which torrent.
        torrent: TorrentKey,
    },
    /// Fold the journal into the resume database.
    Checkpoint {
        /// Make all torrents' data durable first, so that it is believed after a power loss.
        sync: bool,
    },
    /// Close a torrent's files and forget it, once the writes already submitted are done.
    Close {
        /// Which torrent.
        torrent: TorrentKey,
    },
    /// A [`Job::Close`] on its way through every lane.
    #[doc(hidden)]
    CloseLane {
        #[doc(hidden)]
        torrent: TorrentKey,
        #[doc(hidden)]
        lanes: Arc<AtomicUsize>,
    },
}

/// What the pool answers.
#[derive(Debug)]
pub enum Done {
    /// A batch is dealt with. The answers for its pieces follow.
    Written {
        /// The buffer.
        buf: Vec<u8>,
        /// What is on disk and recorded, sorted by torrent and place.
        blocks: Vec<BlockWrite>,
        /// What is not: request it anew. A [`Done::Fault`] before it tells why, once. Blocks
        /// of earlier batches are among them (with a start of zero) if they could not be read
        /// back to be hashed.
        failed: Vec<BlockWrite>,
    },
    /// All blocks of a piece were there and it was hashed.
    Piece {
        /// Which torrent.
        torrent: TorrentKey,
        /// Which piece.
        piece: PieceIndex,
        /// Whether it is right.
        outcome: PieceOutcome,
    },
    /// A read is done.
    Read {
        /// Which torrent.
        torrent: TorrentKey,
        /// From the job.
        token: u64,
        /// From the job, filled if the result says so.
        buf: Vec<u8>,
        /// From the job.
        parts: Vec<ReadPart>,
        /// Whether all parts were read.
        result: Result<(), StoreError>,
    },
    /// Part of a check is done.
    CheckProgress {
        /// Which torrent.
        torrent: TorrentKey,
        /// The pieces found right just now.
        good: Vec<PieceIndex>,
        /// Pieces checked up to now, right or not.
        checked: u32,
        /// Pieces to be checked in all.
        total: u32,
    },
    /// A check is over.
    Checked {
        /// Which torrent.
        torrent: TorrentKey,
        /// All pieces known to be right now, whether of this check or before.
        have: Bitfield,
        /// Whether it ended early.
        cancelled: bool,
        /// The first error that was not just a missing or short file.
        error: Option<StoreError>,
    },
    /// A torrent's files cannot be written (or synced): pause it, tell the reason, and probe if
    /// the error may recover. Until a probe succeeds its writes fail at once.
    Fault {
        /// Which torrent.
        torrent: TorrentKey,
        /// Why.
        error: StoreError,
    },
    /// The answer to [`Job::Probe`].
    Probed {
        /// Which torrent.
        torrent: TorrentKey,
        /// Whether writing is possible again.
        result: Result<(), StoreError>,
        /// Pieces thought right whose files are gone or too short; they are forgotten now.
        lost: Vec<PieceIndex>,
        /// Blocks of unfinished pieces that are gone with them: request them anew.
        failed: Vec<BlockWrite>,
    },
    /// The answer to [`Job::Prepare`].
    Prepared {
        /// Which torrent.
        torrent: TorrentKey,
        /// Whether all could be made.
        result: Result<(), StoreError>,
    },
    /// The answer to [`Job::Finish`]. If files that were written are gone, a [`Done::Fault`] comes
    /// before it.
    Finished {
        /// Which torrent.
        torrent: TorrentKey,
        /// Whether all attributes could be set.
        result: Result<(), StoreError>,
    },
    /// The answer to [`Job::Sync`].
    Synced {
        /// Which torrent.
        torrent: TorrentKey,
        /// Whether all is durable.
        result: Result<(), StoreError>,
    },
    /// The answer to [`Job::Checkpoint`].
    Checkpointed {
        /// Whether it is saved, or why not. The journal is kept until one succeeds.
        result: Result<(), String>,
    },
    /// The answer to [`Job::Close`].
    Closed {
        /// Which torrent.
        torrent: TorrentKey,
    },
}
