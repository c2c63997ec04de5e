//! What the user wants: priorities, order, deadlines, pauses; and what was there before.

use super::open::{BlockState, NONE};
use super::{Download, DownloadOutput, Mode};
use crate::PieceIndex;
use crate::picker::Priority;
use shoal_base::{Bitfield, Time};

impl Download {
    /// Sets the priority of every piece. Requests for what is no longer wanted are cancelled;
    /// blocks of it that are there stay.
    pub fn set_priorities(
        &mut self,
        now: Time,
        of: impl Fn(PieceIndex) -> Priority,
        out: &mut Vec<DownloadOutput>,
    ) {
        self.reprioritize(of);
        for slot in 0..self.opens.len() as u32 {
            let open = &mut self.opens[slot as usize];
            if !open.is_used() {
                continue;
            }
            open.parked = !self.missing.get(open.piece);
            if open.parked {
                self.cancel_piece(slot, out);
            } else {
                self.list(slot);
            }
        }
        for id in 0..self.sources.len() as u32 {
            self.find_witness(id, out);
        }
        self.refill_all(now, out);
        self.check_finished(out);
    }

    pub(super) fn reprioritize(&mut self, of: impl Fn(PieceIndex) -> Priority) {
        let (have, slot_of, geometry) = (&self.have, &self.slot_of, self.geometry);
        let mut missing = Bitfield::new(geometry.pieces());
        let mut wanted = 0;
        self.picker.reset(&mut self.rng, |p| {
            let priority = of(p);
            if priority != Priority::Skip {
                wanted += u64::from(geometry.piece_size(p));
                if !have.get(p) {
                    missing.set(p);
                }
            }
            (priority, !have.get(p) && slot_of[p as usize] == NONE)
        });
        self.missing = missing;
        self.bytes_wanted = wanted;
    }

    /// Changes the order of pieces not begun yet.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// `piece` is wanted by `at`: before all pieces without a deadline or with a later one.
    pub fn set_deadline(&mut self, piece: PieceIndex, at: Time) {
        self.deadlines.retain(|d| d.1 != piece);
        if self.missing.get(piece) {
            let i = self.deadlines.partition_point(|d| *d <= (at, piece));
            self.deadlines.insert(i, (at, piece));
        }
    }

    /// Forgets all deadlines.
    pub fn clear_deadlines(&mut self) {
        self.deadlines.clear();
    }

    /// While paused nothing is requested (the disk is full, buffers are); what is under way may
    /// come.
    pub fn set_paused(&mut self, now: Time, paused: bool, out: &mut Vec<DownloadOutput>) {
        let resumed = self.paused && !paused;
        self.paused = paused;
        if resumed {
            self.refill_all(now, out);
        }
    }

    /// Changes [`super::DownloadConfig::max_outstanding`].
    pub fn set_max_outstanding(&mut self, bytes: Option<u64>) {
        self.config.max_outstanding = bytes;
    }

    /// Takes over blocks of `piece` that are on the disk already. True if that is all of them:
    /// the piece is to be hashed then.
    pub fn restore_partial(&mut self, piece: PieceIndex, blocks: &Bitfield) -> bool {
        let count = self.geometry.blocks(piece);
        if piece >= self.geometry.pieces()
            || self.have.get(piece)
            || blocks.len() != count
            || blocks.count() == 0
            || self.slot(piece).is_some()
        {
            return false;
        }
        let slot = self.open(piece);
        let open = &mut self.opens[slot as usize];
        open.parked = !self.missing.get(piece);
        for n in blocks.iter() {
            open.receive(n, NONE, BlockState::FROM_DISK, &mut self.others);
        }
        let complete = open.is_complete();
        self.list(slot);
        complete
    }
}
