//! The books: who was asked for what, which pieces are open, whom we are interested in.

use super::open::{NONE, Open};
use super::source::{Pieces, Req, Source};
use super::{Download, DownloadOutput, DropReason, SourceId, SourceKind};
use crate::PieceIndex;
use crate::picker::common;
use shoal_base::Time;

impl Download {
    pub(super) fn source(&self, id: u32) -> Option<&Source> {
        self.sources.get(id as usize).filter(|s| s.used)
    }

    pub(super) fn source_mut(&mut self, id: u32) -> Option<&mut Source> {
        self.sources.get_mut(id as usize).filter(|s| s.used)
    }

    /// The record of an open piece.
    pub(super) fn slot(&self, piece: PieceIndex) -> Option<u32> {
        self.slot_of
            .get(piece as usize)
            .copied()
            .filter(|s| *s != NONE)
    }

    pub(super) fn open(&mut self, piece: PieceIndex) -> u32 {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.opens.push(Open::new());
            self.opens.len() as u32 - 1
        });
        let open = &mut self.opens[slot as usize];
        open.begin(piece, self.geometry.blocks(piece));
        open.single = self.trust.has_failed(piece);
        self.slot_of[piece as usize] = slot;
        self.picker.remove(piece);
        slot
    }

    pub(super) fn close(&mut self, slot: u32) {
        let open = &mut self.opens[slot as usize];
        self.slot_of[open.piece as usize] = NONE;
        open.piece = NONE;
        self.vacant.push(slot);
    }

    /// Lets any source join the piece, if it has free blocks.
    pub(super) fn list(&mut self, slot: u32) {
        let open = &mut self.opens[slot as usize];
        if !open.listed && open.is_used() && open.free > 0 && !open.parked {
            open.listed = true;
            self.shared.push(slot);
        }
    }

    /// Takes a request out of a source's queue.
    pub(super) fn take_request(&mut self, id: u32, i: usize) -> Req {
        let s = &mut self.sources[id as usize];
        let req = if i == 0 {
            s.queue.pop_front()
        } else {
            s.queue.remove(i)
        }
        .expect("the caller found it there");
        if !req.lapsed {
            s.live -= 1;
            self.outstanding -= u64::from(self.geometry.block(req.piece, req.n).len);
        }
        req
    }

    /// Gives back the block of a request taken out of a queue.
    pub(super) fn release(&mut self, req: &Req, id: u32) {
        if let Some(slot) = self.slot(req.piece)
            && self.opens[slot as usize].release(req.n, id)
        {
            self.list(slot);
        }
    }

    pub(super) fn void_requests(&mut self, now: Time, id: u32) {
        while !self.sources[id as usize].queue.is_empty() {
            let req = self.take_request(id, 0);
            self.release(&req, id);
        }
        self.kick(now);
    }

    /// The source gives up the pieces it had to itself.
    pub(super) fn disown(&mut self, id: u32) {
        for slot in 0..self.opens.len() as u32 {
            let open = &mut self.opens[slot as usize];
            if open.is_used() && open.owner == id {
                open.owner = NONE;
                self.list(slot);
            }
        }
        let source = &mut self.sources[id as usize];
        source.current = NONE;
        source.stretch = 0..0;
    }

    pub(super) fn forget_pieces(&mut self, id: u32) {
        match std::mem::replace(&mut self.sources[id as usize].pieces, Pieces::None) {
            Pieces::None => {}
            Pieces::All => self.picker.remove_seed(),
            Pieces::Some(bits) => {
                for p in bits.iter() {
                    self.picker.subtract(p);
                }
            }
        }
    }

    pub(super) fn cancel(
        &mut self,
        id: u32,
        piece: PieceIndex,
        n: u32,
        out: &mut Vec<DownloadOutput>,
    ) {
        if let Some(i) = self.source(id).and_then(|s| s.position(piece, n)) {
            self.take_request(id, i);
            self.say_cancel(id, piece, n, out);
            let s = &mut self.sources[id as usize];
            if !s.hungry && !s.choked {
                s.hungry = true;
                self.hungry.push(id);
            }
        }
    }

    pub(super) fn say_cancel(
        &mut self,
        id: u32,
        piece: PieceIndex,
        n: u32,
        out: &mut Vec<DownloadOutput>,
    ) {
        self.sources[id as usize].add_strays(1);
        out.push(DownloadOutput::Cancel {
            source: SourceId(id),
            block: self.geometry.block(piece, n),
        });
    }

    /// Cancels every request for the piece.
    pub(super) fn cancel_piece(&mut self, slot: u32, out: &mut Vec<DownloadOutput>) {
        let open = &self.opens[slot as usize];
        let piece = open.piece;
        if open.extras.is_empty() && open.states.iter().all(|s| s.requester().is_none()) {
            return;
        }
        for id in 0..self.sources.len() as u32 {
            let mut i = 0;
            while let Some(req) = self.sources[id as usize].queue.get(i).copied() {
                if req.piece == piece {
                    self.take_request(id, i);
                    self.release(&req, id);
                    self.say_cancel(id, piece, req.n, out);
                } else {
                    i += 1;
                }
            }
        }
    }

    pub(super) fn wake(&mut self, id: u32) {
        let s = &mut self.sources[id as usize];
        s.dry = None;
        s.idle_until = Time::ZERO;
    }

    /// Asks every source again: pieces or permissions changed.
    pub(super) fn refill_all(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        for id in 0..self.sources.len() as u32 {
            if self.sources[id as usize].used {
                self.wake(id);
                self.refill(now, id, out);
            }
        }
    }

    /// Finds a missing piece that the source has, and says so if that changes our interest.
    pub(super) fn find_witness(&mut self, id: u32, out: &mut Vec<DownloadOutput>) {
        // From a random place on, so that sources do not all come to hang on one piece.
        let from = self.rng.below(self.missing.len() as usize) as u32;
        let Some(s) = self.source(id) else { return };
        let witness = match s.held() {
            Some(has) if self.missing.count() > 0 => common(&self.missing, has, from)
                .next()
                .or_else(|| common(&self.missing, has, 0).next()),
            _ => None,
        };
        self.witness[id as usize] = witness.unwrap_or(NONE);
        self.say_interest(id, witness.is_some(), out);
    }

    pub(super) fn say_interest(
        &mut self,
        id: u32,
        interested: bool,
        out: &mut Vec<DownloadOutput>,
    ) {
        let s = &mut self.sources[id as usize];
        if s.interested != interested {
            s.interested = interested;
            if s.kind == SourceKind::Peer {
                out.push(DownloadOutput::Interested {
                    source: SourceId(id),
                    interested,
                });
            }
        }
    }

    pub(super) fn check_finished(&mut self, out: &mut Vec<DownloadOutput>) {
        let finished = self.missing.count() == 0;
        if finished && !self.finished {
            out.push(DownloadOutput::Finished);
        }
        self.finished = finished;
    }

    pub(super) fn shut(&mut self, id: u32) {
        self.sources[id as usize].shut = true;
        let owed = self.sources[id as usize].queue.len() as u32;
        self.sources[id as usize].add_strays(owed);
        while !self.sources[id as usize].queue.is_empty() {
            let req = self.take_request(id, 0);
            self.release(&req, id);
        }
        self.disown(id);
    }

    pub(super) fn drop_source(&mut self, id: u32, why: DropReason, out: &mut Vec<DownloadOutput>) {
        if self.source(id).is_some_and(|s| !s.shut) {
            self.shut(id);
            let source = SourceId(id);
            out.push(DownloadOutput::Drop { source, why });
        }
    }

    pub(super) fn ban(&mut self, now: Time, address: u64, out: &mut Vec<DownloadOutput>) {
        out.push(DownloadOutput::Ban { address });
        for id in 0..self.sources.len() as u32 {
            if self.source(id).is_some_and(|s| s.address == address) {
                self.shut(id);
            }
        }
        self.kick(now);
    }
}
