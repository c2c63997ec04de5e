//! What comes of requests: blocks, rejects, verified and corrupt pieces.

use super::open::NONE;
use super::{Arrival, Download, DownloadOutput, DropReason, PieceOutcome, SourceId};
use crate::picker::Priority;
use crate::{BLOCK_LEN, Block, PieceIndex};
use shoal_base::Time;
use shoal_base::time::earliest;
use std::time::Duration;

/// Blocks nobody asked for that a source may send before it is dropped.
const MAX_UNREQUESTED: u32 = 64;

impl Download {
    /// A block came from `id`. Write it only if the answer is [`Arrival::Accept`].
    pub fn on_block(
        &mut self,
        now: Time,
        id: SourceId,
        block: Block,
        out: &mut Vec<DownloadOutput>,
    ) -> Arrival {
        let n = block.begin / BLOCK_LEN;
        let Some(i) = self
            .source(id.0)
            .filter(|_| self.geometry.is_block(block))
            .and_then(|s| s.position(block.piece, n))
        else {
            return self.on_stray(id.0, block.len, out);
        };
        let req = self.take_request(id.0, i);
        self.arrivals += 1;
        self.pace.on_bytes(block.len);
        let s = &mut self.sources[id.0 as usize];
        s.progress = now;
        s.arrivals = self.arrivals;
        s.served = s.served.max(req.sent);
        s.owes_since = now;
        self.last_block = now;
        s.stalled = false;
        s.snubbed = false;
        s.rejects = 0;
        s.pipe
            .on_block(now, req.sent, block.len, self.config.queue_time);
        if s.number == NONE {
            s.number = self.trust.number(s.address);
        }
        let number = s.number;
        let mut others = std::mem::take(&mut self.others);
        let accepted = match self.slot(block.piece) {
            Some(slot) => self.opens[slot as usize].receive(n, id.0, number, &mut others),
            None => false,
        };
        for other in others.drain(..) {
            self.cancel(other, block.piece, n, out);
        }
        self.others = others;
        self.refill(now, id.0, out);
        if accepted {
            Arrival::Accept
        } else {
            self.waste.duplicate += u64::from(block.len);
            Arrival::Duplicate
        }
    }

    pub(super) fn on_stray(&mut self, id: u32, len: u32, out: &mut Vec<DownloadOutput>) -> Arrival {
        if let Some(s) = self.source_mut(id) {
            if s.strays > 0 {
                s.strays -= 1;
                self.waste.duplicate += u64::from(len);
                return Arrival::Duplicate;
            }
            s.unrequested += 1;
            if s.unrequested > MAX_UNREQUESTED {
                self.drop_source(id, DropReason::Flood, out);
            }
        }
        self.waste.unrequested += u64::from(len);
        Arrival::Unrequested
    }

    /// REJECT (BEP 6), or a web seed that failed to serve the block.
    pub fn on_reject(
        &mut self,
        now: Time,
        id: SourceId,
        block: Block,
        out: &mut Vec<DownloadOutput>,
    ) {
        let Some(s) = self.source(id.0) else { return };
        let Some(i) = s.position(block.piece, block.begin / BLOCK_LEN) else {
            let s = &mut self.sources[id.0 as usize];
            s.strays = s.strays.saturating_sub(1);
            return;
        };
        let req = self.take_request(id.0, i);
        self.release(&req, id.0);
        let s = &mut self.sources[id.0 as usize];
        if s.choked {
            s.allowed.retain(|p| *p != block.piece);
        } else {
            // It has too many, or is about to choke: ask less, later.
            let backoff = Duration::from_millis(100u64 << s.rejects.min(6));
            if s.hold_until <= now {
                s.rejects += 1;
                s.pipe.shrink();
            }
            s.hold_until = now + backoff;
            if s.rejects > 40 {
                self.drop_source(id.0, DropReason::Rejects, out);
            } else {
                self.feed_at = earliest(self.feed_at, Some(now + backoff));
                self.fill(now, id.0, out);
            }
        }
        self.kick(now);
    }

    /// A block that was accepted did not reach the disk: it is asked for again.
    pub fn on_write_failed(&mut self, now: Time, block: Block) {
        if let Some(slot) = self.slot(block.piece)
            && self.opens[slot as usize].forget(block.begin / BLOCK_LEN)
        {
            self.list(slot);
            self.kick(now);
        }
    }

    /// A piece was hashed.
    pub fn on_piece(
        &mut self,
        now: Time,
        piece: PieceIndex,
        outcome: &PieceOutcome,
        out: &mut Vec<DownloadOutput>,
    ) {
        if piece >= self.geometry.pieces() {
            return;
        }
        let mut banned = Vec::new();
        match outcome {
            PieceOutcome::Verified { digests } => {
                self.trust
                    .on_verified(piece, digests.as_deref(), &mut banned);
                self.verified(piece, out);
            }
            PieceOutcome::Corrupt { digests } => match self.slot(piece) {
                Some(slot) if self.opens[slot as usize].is_complete() => {
                    let states = &self.opens[slot as usize].states;
                    self.trust
                        .on_corrupt(now, piece, states, digests, &mut banned);
                    self.waste.corrupt += u64::from(self.geometry.piece_size(piece));
                    self.close(slot);
                    if self.missing.get(piece) {
                        self.picker.insert(piece);
                        self.kick(now);
                    }
                }
                Some(_) => {}
                None => self.on_piece_lost(now, piece, out),
            },
        }
        for address in banned {
            self.ban(now, address, out);
        }
    }

    pub(super) fn verified(&mut self, piece: PieceIndex, out: &mut Vec<DownloadOutput>) {
        if let Some(slot) = self.slot(piece) {
            self.cancel_piece(slot, out);
            self.close(slot);
        }
        self.picker.remove(piece);
        if !self.have.set(piece) {
            return;
        }
        self.bytes_done += u64::from(self.geometry.piece_size(piece));
        out.push(DownloadOutput::Have(piece));
        if !self.missing.clear(piece) {
            return;
        }
        self.deadlines.retain(|d| d.1 != piece);
        let mut from = 0;
        while let Some(id) = find(&self.witness, piece, from) {
            self.find_witness(id as u32, out);
            from = id + 1;
        }
        self.check_finished(out);
    }

    /// A piece that was there is not any more (its file was deleted, a recheck failed): it is
    /// fetched again if wanted.
    pub fn on_piece_lost(&mut self, now: Time, piece: PieceIndex, out: &mut Vec<DownloadOutput>) {
        if !self.have.clear(piece) {
            return;
        }
        self.bytes_done -= u64::from(self.geometry.piece_size(piece));
        if self.picker.priority(piece) != Priority::Skip {
            self.missing.set(piece);
            self.picker.insert(piece);
            self.finished = false;
            for id in 0..self.sources.len() as u32 {
                if self.witness[id as usize] == NONE
                    && self.sources[id as usize].used
                    && self.sources[id as usize].has(piece)
                {
                    self.witness[id as usize] = piece;
                    self.say_interest(id, true, out);
                }
            }
            self.refill_all(now, out);
        }
    }
}

/// Where `x` is in `all`, from `from` on. Compares in chunks that the compiler turns into vectors.
fn find(all: &[u32], x: u32, from: usize) -> Option<usize> {
    let mut at = from;
    for chunk in all.get(from..)?.chunks(64) {
        if chunk.iter().fold(false, |hit, w| hit | (*w == x)) {
            return Some(at + chunk.iter().position(|w| *w == x)?);
        }
        at += chunk.len();
    }
    None
}
