//! A torrent as the pool knows it: its files, its hashes and the pieces in progress.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;
use shoal_base::Bitfield;
use shoal_content::{Geometry, PieceHashes, PieceIndex};

use super::hashing::PieceProgress;
use super::job::BlockWrite;
use super::{TorrentKey, lock};
use crate::files::TorrentFiles;
use crate::resume::{Change, Entry, Resume, ResumeId};

/// What the pool must know of a torrent.
#[derive(Debug)]
pub struct Registration {
    /// Its files.
    pub files: Arc<TorrentFiles>,
    /// What its pieces must hash to.
    pub hashes: Arc<PieceHashes>,
    /// The pieces that are on disk and right.
    pub have: Bitfield,
    /// Pieces of which some blocks are on disk, with those blocks.
    pub partial: Vec<(PieceIndex, Bitfield)>,
    /// Its name in the resume database; none: nothing is recorded.
    pub resume: Option<ResumeId>,
}

/// A registered torrent.
pub(super) struct Torrent {
    pub(super) key: TorrentKey,
    pub(super) files: Arc<TorrentFiles>,
    pub(super) hashes: Arc<PieceHashes>,
    pub(super) geometry: Geometry,
    pub(super) pieces: Mutex<Pieces>,
    pub(super) resume: Option<ResumeId>,
    /// Whether any file is padding.
    pub(super) has_padding: bool,
    /// Set by the first failed write, cleared by a successful probe.
    faulted: AtomicBool,
}

/// The state of a torrent's pieces.
pub(super) struct Pieces {
    /// Verified.
    pub(super) have: Bitfield,
    /// Begun, or found corrupt once. A piece's own lock is taken after this one is let go.
    pub(super) open: FxHashMap<PieceIndex, Arc<Mutex<PieceProgress>>>,
}

impl Torrent {
    /// None if the hashes do not cover all pieces, or the bitfield is of another length.
    pub(super) fn new(key: TorrentKey, from: Registration) -> Option<Self> {
        let geometry = from.files.layout().geometry();
        let pieces = geometry.pieces();
        if from.have.len() != pieces || from.hashes.pieces() < pieces as usize {
            return None;
        }
        let mut open = FxHashMap::default();
        for (piece, blocks) in from.partial {
            if blocks.len() == geometry.blocks(piece) && !from.have.get(piece) {
                open.insert(
                    piece,
                    Arc::new(Mutex::new(PieceProgress::new(blocks, &from.hashes))),
                );
            }
        }
        let has_padding = from.files.layout().files().iter().any(|f| f.attr.pad);
        Some(Self {
            key,
            has_padding,
            files: from.files,
            hashes: from.hashes,
            geometry,
            pieces: Mutex::new(Pieces {
                have: from.have,
                open,
            }),
            resume: from.resume,
            faulted: AtomicBool::new(false),
        })
    }

    pub(super) fn is_faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire)
    }

    /// True the first time.
    pub(super) fn set_faulted(&self) -> bool {
        !self.faulted.swap(true, Ordering::AcqRel)
    }

    pub(super) fn clear_fault(&self) {
        self.faulted.store(false, Ordering::Release);
    }

    /// A journal entry for this torrent, if it is recorded at all.
    pub(super) fn entry(&self, change: Change) -> Option<Entry> {
        let torrent = self.resume?;
        Some(Entry { torrent, change })
    }

    /// Forgets the pieces whose files are gone or too short: those that were thought right, and
    /// the blocks of those in progress.
    pub(super) fn forget_missing(&self, resume: &Resume) -> (Vec<PieceIndex>, Vec<BlockWrite>) {
        let missing = self.files.missing_pieces();
        let (mut lost, mut begun) = (Vec::new(), Vec::new());
        {
            let mut pieces = lock(&self.pieces);
            for piece in missing {
                if pieces.have.clear(piece) {
                    lost.push(piece);
                } else if let Some(open) = pieces.open.get(&piece) {
                    begun.push((piece, Arc::clone(open)));
                }
            }
        }
        let mut blocks = Vec::new();
        for (piece, open) in &begun {
            let mut open = lock(open);
            let written = (0..self.geometry.blocks(*piece)).filter(|n| open.has(*n));
            blocks.extend(written.map(|n| self.lost_block(*piece, n)));
            open.forget();
        }
        let all = lost.iter().chain(begun.iter().map(|(piece, _)| piece));
        let entries: Vec<_> = all
            .filter_map(|piece| {
                self.entry(Change::Lost {
                    first: *piece,
                    count: 1,
                })
            })
            .collect();
        resume.record(&entries);
        (lost, blocks)
    }

    /// Block `n` of `piece` as one that is not on disk after all.
    pub(super) fn lost_block(&self, piece: PieceIndex, n: u32) -> BlockWrite {
        BlockWrite {
            torrent: self.key,
            block: self.geometry.block(piece, n),
            start: 0,
        }
    }

    /// Notes what the files look like, for the next start.
    pub(super) fn note_stamps(&self, resume: &Resume) {
        if let Some(id) = self.resume {
            // Not loaded any more: nothing to note.
            let _ = resume.set_stamps(id, self.files.stamps());
        }
    }
}
