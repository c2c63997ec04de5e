//! One source as the download sees it: what it has, what was asked of it, how fast it is.

use super::{DownloadConfig, SourceKind, SourceOptions, open::NONE, pipeline::Pipeline};
use crate::PieceIndex;
use crate::picker::Has;
use shoal_base::{Bitfield, Time};
use std::collections::VecDeque;
use std::ops::Range;

/// Blocks that may come although nobody waits for them, at most: those cancelled under way.
const MAX_STRAYS: u32 = 4096;

/// One request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Req {
    pub(super) piece: PieceIndex,
    pub(super) n: u32,
    pub(super) sent: Time,
    /// Timed out: given to others, still welcome.
    pub(super) lapsed: bool,
}

/// The pieces of a source.
#[derive(Debug)]
pub(super) enum Pieces {
    None,
    All,
    Some(Bitfield),
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) used: bool,
    pub(super) address: u64,
    /// The address's number once it sent a block.
    pub(super) number: u32,
    pub(super) kind: SourceKind,
    pub(super) fast: bool,
    pub(super) pieces: Pieces,
    pub(super) choked: bool,
    pub(super) interested: bool,
    /// Banned or to be dropped: nothing more is asked of it.
    pub(super) shut: bool,
    pub(super) allowed: Vec<PieceIndex>,
    pub(super) queue: VecDeque<Req>,
    /// Requests in the queue that have not lapsed.
    pub(super) live: u32,
    /// The piece it works on.
    pub(super) current: PieceIndex,
    /// Pieces set aside for it, not begun yet: of a stream only.
    pub(super) stretch: Range<PieceIndex>,
    pub(super) pipe: Pipeline,
    /// Blocks that may still come after a cancel or a choke.
    pub(super) strays: u32,
    pub(super) unrequested: u32,
    pub(super) rejects: u32,
    pub(super) hold_until: Time,
    /// Nothing was found to ask for: no search before this.
    pub(super) idle_until: Time,
    /// The picker's epoch at which it had no candidate for this source.
    pub(super) dry: Option<u64>,
    pub(super) hungry: bool,
    /// When it last sent a block, or was asked for one after none were open.
    pub(super) progress: Time,
    /// How many blocks had come from all sources by then.
    pub(super) arrivals: u64,
    /// When the latest asked of those that came was asked for.
    pub(super) served: Time,
    /// The same as `progress`, without the time that was ours: what a snub is measured from.
    pub(super) owes_since: Time,
    pub(super) stalled: bool,
    pub(super) snubbed: bool,
}

impl Source {
    pub(super) fn new(config: &DownloadConfig, options: &SourceOptions) -> Self {
        Self {
            used: true,
            address: options.address,
            number: NONE,
            kind: options.kind,
            fast: options.fast,
            pieces: Pieces::None,
            choked: options.kind == SourceKind::Peer,
            interested: false,
            shut: false,
            allowed: Vec::new(),
            queue: VecDeque::new(),
            live: 0,
            current: NONE,
            stretch: 0..0,
            pipe: Pipeline::new(config, options.max_pipeline),
            strays: 0,
            unrequested: 0,
            rejects: 0,
            hold_until: Time::ZERO,
            idle_until: Time::ZERO,
            dry: None,
            hungry: false,
            progress: Time::ZERO,
            arrivals: 0,
            served: Time::ZERO,
            owes_since: Time::ZERO,
            stalled: false,
            snubbed: false,
        }
    }

    pub(super) fn has(&self, piece: PieceIndex) -> bool {
        match &self.pieces {
            Pieces::None => false,
            Pieces::All => true,
            Pieces::Some(bits) => bits.get(piece),
        }
    }

    /// What it has; none if that is nothing.
    pub(super) fn held(&self) -> Option<Has<'_>> {
        match &self.pieces {
            Pieces::None => None,
            Pieces::All => Some(Has::All),
            Pieces::Some(bits) => Some(Has::Some(bits)),
        }
    }

    /// Where the request of this block stands in the queue. Peers answer nearly in order, so it
    /// is nearly always the first.
    pub(super) fn position(&self, piece: PieceIndex, n: u32) -> Option<usize> {
        self.queue.iter().position(|r| r.piece == piece && r.n == n)
    }

    pub(super) fn add_strays(&mut self, n: u32) {
        self.strays = (self.strays + n).min(MAX_STRAYS);
    }
}
