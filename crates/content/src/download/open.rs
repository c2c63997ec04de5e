//! Pieces begun and not yet verified: who was asked for which block, who sent it.

use crate::PieceIndex;
use shoal_base::Time;

/// No piece, source, address or slot.
pub(super) const NONE: u32 = u32::MAX;

const TAG: u32 = 0xc000_0000;
const REQUESTED: u32 = 0x4000_0000;
const RECEIVED: u32 = 0x8000_0000;
const EXTRAS: u32 = 0x2000_0000;
const VALUE: u32 = 0x1fff_ffff;

/// One block's state in four bytes: free, requested from a source, or received from an address;
/// and whether further sources were asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockState(u32);

impl BlockState {
    pub(super) const FREE: Self = Self(0);
    /// Stands for blocks that were on the disk before: nobody is to blame for them.
    pub(super) const FROM_DISK: u32 = VALUE;

    pub(super) fn requested(source: u32) -> Self {
        Self(REQUESTED | source & VALUE)
    }

    pub(super) fn received(address: u32) -> Self {
        Self(RECEIVED | address & VALUE)
    }

    pub(super) fn is_free(self) -> bool {
        self.0 & TAG == 0
    }

    pub(super) fn requester(self) -> Option<u32> {
        (self.0 & TAG == REQUESTED).then_some(self.0 & VALUE)
    }

    pub(super) fn sender(self) -> Option<u32> {
        (self.0 & TAG == RECEIVED).then_some(self.0 & VALUE)
    }

    pub(super) fn has_extras(self) -> bool {
        self.0 & EXTRAS != 0
    }

    fn with_extras(self) -> Self {
        Self(self.0 | EXTRAS)
    }
}

/// A source asked for a block beside (or before) the one its state names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extra {
    pub(super) n: u32,
    pub(super) source: u32,
    /// False once the request timed out: the block may still come, but is not counted on.
    pub(super) live: bool,
}

/// A piece in work.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) piece: PieceIndex,
    pub(super) states: Vec<BlockState>,
    pub(super) extras: Vec<Extra>,
    /// No block below this is free.
    next: u32,
    pub(super) free: u32,
    pub(super) received: u32,
    /// The source that has the piece to itself.
    pub(super) owner: u32,
    /// Until then nobody joins the owner.
    pub(super) exclusive_until: Time,
    /// The piece failed before with several suspects: one source alone fetches it.
    pub(super) single: bool,
    /// No longer wanted; kept for the blocks that are there.
    pub(super) parked: bool,
    /// In the list of pieces that any source may join.
    pub(super) listed: bool,
}

impl Open {
    pub(super) fn new() -> Self {
        Self {
            piece: NONE,
            states: Vec::new(),
            extras: Vec::new(),
            next: 0,
            free: 0,
            received: 0,
            owner: NONE,
            exclusive_until: Time::ZERO,
            single: false,
            parked: false,
            listed: false,
        }
    }

    /// Makes this the record of `piece`, keeping the buffers. `listed` stays: the list may still
    /// name the slot.
    pub(super) fn begin(&mut self, piece: PieceIndex, blocks: u32) {
        self.piece = piece;
        self.states.clear();
        self.states.resize(blocks as usize, BlockState::FREE);
        self.extras.clear();
        self.next = 0;
        self.free = blocks;
        self.received = 0;
        self.owner = NONE;
        self.exclusive_until = Time::ZERO;
        self.single = false;
        self.parked = false;
    }

    pub(super) fn is_used(&self) -> bool {
        self.piece != NONE
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received as usize == self.states.len()
    }

    pub(super) fn state(&self, n: u32) -> Option<BlockState> {
        self.states.get(n as usize).copied()
    }

    /// Whether `source` may be given free blocks of this piece at `now`.
    pub(super) fn admits(&self, source: u32, now: Time) -> bool {
        !self.parked
            && (self.owner == source
                || self.owner == NONE
                || (!self.single && now >= self.exclusive_until))
    }

    /// The first free block that `source` was not asked for yet.
    pub(super) fn first_free(&mut self, source: u32) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        while self
            .states
            .get(self.next as usize)
            .is_some_and(|s| !s.is_free())
        {
            self.next += 1;
        }
        (self.next..self.states.len() as u32).find(|n| self.is_free_for(*n, source))
    }

    /// The last free block that `source` was not asked for yet: leaves the owner its order.
    pub(super) fn last_free(&self, source: u32) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        (self.next..self.states.len() as u32)
            .rev()
            .find(|n| self.is_free_for(*n, source))
    }

    fn is_free_for(&self, n: u32, source: u32) -> bool {
        let Some(state) = self.state(n) else {
            return false;
        };
        state.is_free() && !(state.has_extras() && self.has_extra(n, source))
    }

    pub(super) fn has_extra(&self, n: u32, source: u32) -> bool {
        self.extras.iter().any(|e| e.n == n && e.source == source)
    }

    /// How many sources' live requests are out for block `n`.
    pub(super) fn asked(&self, n: u32) -> usize {
        let Some(state) = self.state(n) else { return 0 };
        let live = if state.has_extras() {
            self.extras.iter().filter(|e| e.n == n && e.live).count()
        } else {
            0
        };
        live + usize::from(state.requester().is_some())
    }

    /// Free block `n` is asked of `source`.
    pub(super) fn request(&mut self, n: u32, source: u32) {
        if let Some(state) = self.states.get_mut(n as usize) {
            let extras = state.has_extras();
            *state = BlockState::requested(source);
            if extras {
                *state = state.with_extras();
            }
            self.free -= 1;
        }
    }

    /// Block `n`, asked of another source already, is asked of `source` too.
    pub(super) fn request_again(&mut self, n: u32, source: u32) {
        self.add_extra(n, source, true);
    }

    fn add_extra(&mut self, n: u32, source: u32, live: bool) {
        if let Some(state) = self.states.get_mut(n as usize) {
            *state = state.with_extras();
            self.extras.push(Extra { n, source, live });
        }
    }

    /// The request of block `n` from `source` is void. True if the block became free.
    pub(super) fn release(&mut self, n: u32, source: u32) -> bool {
        let Some(state) = self.state(n) else {
            return false;
        };
        if state.requester() != Some(source) {
            self.extras.retain(|e| !(e.n == n && e.source == source));
            return false;
        }
        let heir = self.extras.iter().position(|e| e.n == n && e.live);
        let next = match heir {
            Some(i) => BlockState::requested(self.extras.swap_remove(i).source),
            None => BlockState::FREE,
        };
        self.states[n as usize] = if state.has_extras() {
            next.with_extras()
        } else {
            next
        };
        if heir.is_none() {
            self.free += 1;
            self.next = self.next.min(n);
        }
        heir.is_none()
    }

    /// The request of block `n` from `source` timed out: others may be asked, though it may still
    /// come. True if the block became free.
    pub(super) fn lapse(&mut self, n: u32, source: u32) -> bool {
        let freed = self.release(n, source);
        if self.state(n).is_some_and(|s| s.sender().is_none()) {
            self.add_extra(n, source, false);
        }
        freed
    }

    /// Block `n` came from `address`; everyone asked for it but `source` goes to `others`.
    /// False if it was there already.
    pub(super) fn receive(
        &mut self,
        n: u32,
        source: u32,
        address: u32,
        others: &mut Vec<u32>,
    ) -> bool {
        let Some(state) = self.state(n) else {
            return false;
        };
        if state.sender().is_some() {
            return false;
        }
        if state.is_free() {
            self.free -= 1;
        }
        others.extend(state.requester().filter(|s| *s != source));
        if state.has_extras() {
            self.extras.retain(|e| {
                if e.n == n && e.source != source {
                    others.push(e.source);
                }
                e.n != n
            });
        }
        self.states[n as usize] = BlockState::received(address);
        self.received += 1;
        true
    }

    /// Block `n` did not reach the disk after all. True if it became free.
    pub(super) fn forget(&mut self, n: u32) -> bool {
        if self.state(n).and_then(BlockState::sender).is_none() {
            return false;
        }
        self.states[n as usize] = BlockState::FREE;
        self.received -= 1;
        self.free += 1;
        self.next = self.next.min(n);
        true
    }

    /// Panics if the counters disagree with the blocks.
    pub(super) fn check(&self) {
        let free = self.states.iter().filter(|s| s.is_free()).count();
        let received = self.states.iter().filter(|s| s.sender().is_some()).count();
        assert_eq!(self.free as usize, free, "piece {}", self.piece);
        assert_eq!(self.received as usize, received, "piece {}", self.piece);
        let first = self.states.iter().position(|s| s.is_free());
        assert!(first.is_none_or(|n| self.next as usize <= n));
        for e in &self.extras {
            let state = self.states[e.n as usize];
            assert!(state.has_extras() && state.sender().is_none());
            assert_ne!(state.requester(), Some(e.source));
            assert!(!e.live || state.requester().is_some());
        }
    }
}
