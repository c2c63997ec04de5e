//! The running hash of a piece in progress.
//!
//! Blocks are hashed from memory when they come in order. One that comes early is only marked as
//! written, and read back when its turn comes.

use std::io::IoSliceMut;

use sha1::{Digest, Sha1};
use shoal_base::Bitfield;
use shoal_content::tiger::TreeBuilder;
use shoal_content::{BLOCK_LEN, PieceDigest, PieceHashes, PieceIndex};

use super::torrent::Torrent;
use crate::error::StoreError;
use shoal_content::BlockDigest;

/// Bytes read back at a time.
pub(super) const READ_BACK_LEN: usize = 128 * 1024;

/// A running hash of the kind that a content's pieces have.
pub(super) enum PieceHasher {
    Sha1(Sha1),
    Tiger(Box<TreeBuilder>),
    Unknown,
}

impl PieceHasher {
    pub(super) fn new(hashes: &PieceHashes) -> Self {
        match hashes {
            PieceHashes::Tiger(_) => Self::Tiger(Box::default()),
            PieceHashes::Unknown(_) => Self::Unknown,
            _ => Self::Sha1(Sha1::new()),
        }
    }

    /// The hash of bytes that are all at hand.
    pub(super) fn digest(hashes: &PieceHashes, bytes: &[u8]) -> PieceDigest {
        let mut hasher = Self::new(hashes);
        hasher.update(bytes);
        hasher.finish()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Tiger(builder) => builder.update(bytes),
            Self::Unknown => {}
        }
    }

    /// The hash of what came; a new one begins.
    pub(super) fn finish(&mut self) -> PieceDigest {
        match self {
            Self::Sha1(hasher) => PieceDigest::Sha1(hasher.finalize_reset().into()),
            Self::Tiger(builder) => {
                PieceDigest::Tiger(std::mem::take(&mut **builder).finish().root().0)
            }
            Self::Unknown => PieceDigest::Unknown,
        }
    }
}

/// A piece of which not all blocks are there.
pub(super) struct PieceProgress {
    hasher: PieceHasher,
    /// The first block not hashed yet.
    next: u32,
    /// The blocks on disk.
    written: Bitfield,
    /// Whether the piece failed before.
    was_corrupt: bool,
}

impl PieceProgress {
    /// A piece of which `written` is on disk.
    pub(super) fn new(written: Bitfield, hashes: &PieceHashes) -> Self {
        Self {
            hasher: PieceHasher::new(hashes),
            next: 0,
            written,
            was_corrupt: false,
        }
    }

    /// Starts anew after the piece was found corrupt.
    pub(super) fn restart(&mut self) {
        self.forget();
        self.was_corrupt = true;
    }

    /// Starts anew.
    pub(super) fn forget(&mut self) {
        self.hasher.finish();
        self.next = 0;
        self.written = Bitfield::new(self.written.len());
    }

    pub(super) fn was_corrupt(&self) -> bool {
        self.was_corrupt
    }

    /// Whether block number `n` is on disk.
    pub(super) fn has(&self, n: u32) -> bool {
        self.written.get(n)
    }

    /// Whether any block is on disk.
    pub(super) fn has_any(&self) -> bool {
        self.written.count() > 0
    }

    pub(super) fn mark_written(&mut self, n: u32) {
        self.written.set(n);
    }

    /// Hashes on as far as blocks are there. `in_memory` gives a block's bytes if they are at
    /// hand; others are read back through `scratch`. The digest when the piece is complete.
    pub(super) fn advance<'b>(
        &mut self,
        torrent: &Torrent,
        piece: PieceIndex,
        in_memory: impl Fn(u32) -> Option<&'b [u8]>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<PieceDigest>, StoreError> {
        if let PieceHasher::Unknown = self.hasher {
            // Nothing to hash, and nothing to read back for it.
            let whole = self.written.is_full();
            return Ok(whole.then_some(PieceDigest::Unknown));
        }
        while self.written.get(self.next) {
            if let Some(bytes) = in_memory(self.next) {
                self.hasher.update(bytes);
                self.next += 1;
                continue;
            }
            let most = self.next + (READ_BACK_LEN as u32 / BLOCK_LEN);
            let mut end = self.next + 1;
            while end < most && self.written.get(end) && in_memory(end).is_none() {
                end += 1;
            }
            let bytes = read_blocks(torrent, piece, self.next, end, scratch)?;
            self.hasher.update(bytes);
            self.next = end;
        }
        if self.next < self.written.len() {
            return Ok(None);
        }
        Ok(Some(self.hasher.finish()))
    }
}

/// Reads blocks `first..end` of `piece` into `scratch`.
fn read_blocks<'s>(
    torrent: &Torrent,
    piece: PieceIndex,
    first: u32,
    end: u32,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], StoreError> {
    let size = u64::from(torrent.geometry.piece_size(piece));
    let from = u64::from(first) * u64::from(BLOCK_LEN);
    let to = (u64::from(end) * u64::from(BLOCK_LEN)).min(size);
    let len = to.saturating_sub(from) as usize;
    if scratch.len() < len {
        scratch.resize(len.max(READ_BACK_LEN), 0);
    }
    let (bytes, _) = scratch.split_at_mut(len);
    let offset = torrent.geometry.piece_start(piece) + from;
    torrent
        .files
        .read_at(offset, &mut [IoSliceMut::new(bytes)])?;
    Ok(bytes)
}

/// SHA-1 of every block of `piece` as it is on disk.
pub(super) fn block_digests(
    torrent: &Torrent,
    piece: PieceIndex,
    scratch: &mut Vec<u8>,
) -> Result<Vec<BlockDigest>, StoreError> {
    let blocks = torrent.geometry.blocks(piece);
    let step = READ_BACK_LEN as u32 / BLOCK_LEN;
    let mut digests = Vec::with_capacity(blocks as usize);
    let mut first = 0;
    while first < blocks {
        let end = (first + step).min(blocks);
        let bytes = read_blocks(torrent, piece, first, end, scratch)?;
        let blocks = bytes.chunks(BLOCK_LEN as usize);
        digests.extend(blocks.map(|block| BlockDigest::from(Sha1::digest(block))));
        first = end;
    }
    Ok(digests)
}
