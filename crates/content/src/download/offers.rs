//! Sources come and go and say what they have, and whether we may ask.

use super::open::NONE;
use super::source::{Pieces, Source};
use super::{Download, DownloadOutput, DropReason, SourceId, SourceOptions};
use crate::PieceIndex;
use shoal_base::{Bitfield, Time};

/// Allowed-fast pieces remembered per source; BEP 6 sends ten.
const MAX_ALLOWED: usize = 64;

impl Download {
    /// Adds a source. A web seed has everything and is asked at once after
    /// [`Download::on_unchoke`] or the next tick; a peer has nothing and chokes us.
    pub fn add_source(&mut self, now: Time, options: &SourceOptions) -> SourceId {
        let mut source = Source::new(&self.config, options);
        source.shut = self.trust.is_banned(options.address);
        source.progress = now;
        source.owes_since = now;
        let id = match self.unused.pop() {
            Some(id) => {
                self.sources[id as usize] = source;
                self.witness[id as usize] = NONE;
                id
            }
            None => {
                self.sources.push(source);
                self.witness.push(NONE);
                self.sources.len() as u32 - 1
            }
        };
        if options.kind.is_ranged() {
            self.sources[id as usize].pieces = Pieces::All;
            self.picker.add_seed();
            self.find_witness(id, &mut Vec::new());
            self.sources[id as usize].hungry = true;
            self.hungry.push(id);
            self.kick(now);
        }
        SourceId(id)
    }

    /// Removes a source; what it owed is asked of others.
    pub fn remove_source(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let _ = out;
        if self.source(id.0).is_none() {
            return;
        }
        self.void_requests(now, id.0);
        self.disown(id.0);
        self.forget_pieces(id.0);
        let s = &mut self.sources[id.0 as usize];
        s.used = false;
        s.hungry = false;
        s.allowed = Vec::new();
        s.queue = Default::default();
        self.witness[id.0 as usize] = NONE;
        self.unused.push(id.0);
        self.kick(now);
    }

    /// The peer told how many requests it lets stand open (BEP 10 `reqq`).
    pub fn set_max_pipeline(&mut self, id: SourceId, max: u32) {
        let most = self.config.max_pipeline;
        if let Some(s) = self.source_mut(id.0) {
            s.pipe.set_max(max.min(most));
        }
    }

    /// The peer's BITFIELD.
    pub fn on_bitfield(
        &mut self,
        now: Time,
        id: SourceId,
        bits: &Bitfield,
        out: &mut Vec<DownloadOutput>,
    ) {
        if self.source(id.0).is_none() {
            return;
        }
        if bits.len() != self.geometry.pieces() {
            self.drop_source(id.0, DropReason::Bitfield, out);
            return;
        }
        if bits.is_full() {
            self.on_have_all(now, id, out);
            return;
        }
        self.forget_pieces(id.0);
        for p in bits.iter() {
            self.picker.add(p);
        }
        self.sources[id.0 as usize].pieces = Pieces::Some(bits.clone());
        self.pieces_changed(now, id.0, out);
    }

    /// HAVE ALL (BEP 6).
    pub fn on_have_all(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        if self.source(id.0).is_none() {
            return;
        }
        self.forget_pieces(id.0);
        self.picker.add_seed();
        self.sources[id.0 as usize].pieces = Pieces::All;
        self.pieces_changed(now, id.0, out);
    }

    pub(super) fn pieces_changed(&mut self, now: Time, id: u32, out: &mut Vec<DownloadOutput>) {
        self.wake(id);
        self.find_witness(id, out);
        self.fill(now, id, out);
    }

    /// HAVE.
    pub fn on_have(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if piece >= pieces {
            self.drop_source(id.0, DropReason::BadPiece, out);
            return;
        }
        let new = match &mut s.pieces {
            Pieces::All => false,
            Pieces::Some(bits) => bits.set(piece),
            none @ Pieces::None => {
                let mut bits = Bitfield::new(pieces);
                bits.set(piece);
                *none = Pieces::Some(bits);
                true
            }
        };
        if !new {
            return;
        }
        s.dry = None;
        let waiting = s.hungry;
        self.picker.add(piece);
        if self.missing.get(piece) {
            if self.witness[id.0 as usize] == NONE {
                self.witness[id.0 as usize] = piece;
                self.say_interest(id.0, true, out);
            }
            if waiting {
                self.wake(id.0);
                self.fill(now, id.0, out);
            }
        }
    }

    /// The peer lost a piece (`lt_donthave`, BEP 54): what it owed of it is asked of others.
    pub fn on_lost(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if piece >= pieces || !s.has(piece) {
            return;
        }
        if matches!(s.pieces, Pieces::All) {
            s.pieces = Pieces::Some(Bitfield::full(pieces));
            self.picker.remove_seed();
            for p in 0..pieces {
                self.picker.add(p);
            }
        }
        if let Some(s) = self.source_mut(id.0)
            && let Pieces::Some(bits) = &mut s.pieces
        {
            bits.clear(piece);
        }
        self.picker.subtract(piece);
        let mut i = 0;
        while let Some(req) = self.sources[id.0 as usize].queue.get(i).copied() {
            if req.piece == piece {
                self.take_request(id.0, i);
                self.release(&req, id.0);
                self.sources[id.0 as usize].add_strays(1);
            } else {
                i += 1;
            }
        }
        if let Some(slot) = self.slot(piece)
            && self.opens[slot as usize].owner == id.0
        {
            self.opens[slot as usize].owner = NONE;
            self.list(slot);
        }
        if self.witness[id.0 as usize] == piece {
            self.find_witness(id.0, out);
        }
        self.kick(now);
        self.fill(now, id.0, out);
    }

    /// CHOKE: without the fast extension it voids every open request (BEP 3); with it each will
    /// be served or rejected (BEP 6).
    pub fn on_choke(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        s.choked = true;
        if !s.fast {
            let owed = s.queue.len() as u32;
            s.add_strays(owed);
            self.void_requests(now, id.0);
        }
        self.disown(id.0);
        self.kick(now);
        self.fill(now, id.0, out);
    }

    /// UNCHOKE.
    pub fn on_unchoke(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if s.choked {
            s.choked = false;
            s.stalled = false;
            s.rejects = 0;
            s.hold_until = Time::ZERO;
            s.progress = now;
            s.owes_since = now;
        }
        self.wake(id.0);
        self.fill(now, id.0, out);
    }

    /// ALLOWED FAST (BEP 6): this piece may be asked for while choked.
    pub fn on_allowed_fast(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if s.fast && piece < pieces && s.allowed.len() < MAX_ALLOWED && !s.allowed.contains(&piece)
        {
            s.allowed.push(piece);
            if s.choked {
                self.wake(id.0);
                self.fill(now, id.0, out);
            }
        }
    }
}
