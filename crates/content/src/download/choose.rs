//! What to ask of a source next.
//!
//! In this order: pieces with a deadline; the piece the source works on; open pieces that anyone
//! may join; a new piece; free blocks at the end of a slower source's piece; and when nothing is
//! free any more (the end game), a block that a much slower source was asked for.

use super::open::{NONE, Open};
use super::stretch;
use super::{Download, DownloadOutput, Mode, SourceId, SourceKind};
use crate::picker::{Order, Priority};
use crate::{BLOCK_LEN, PieceIndex};
use shoal_base::Time;
use std::time::Duration;

/// A source for which nothing was found is not searched for again this soon.
const IDLE: Duration = Duration::from_millis(20);
/// Sources waiting for blocks are served this long after blocks became free, all at once.
const FEED: Duration = Duration::from_millis(2);
/// Peers are asked for no more than comes in this time, all of them together …
const ENOUGH: Duration = Duration::from_secs(8);
/// … but each for as many blocks, so that it can show what it is able to.
const ALWAYS: u32 = 2;
/// How often timeouts are looked at.
pub(super) const SCAN: Duration = Duration::from_millis(500);
/// A source that needs longer than this for a piece shares it from the start.
const SLOW_PIECE: f64 = 4.0;
/// How long a source of unknown rate has a piece to itself.
const UNKNOWN: Duration = Duration::from_secs(2);
/// Sources asked for one block at once, at most.
const MAX_ASKED: usize = 2;
/// Pieces, or sources, that an idle source looks at for something to take over, from a random
/// place on: all of them in a small swarm.
const MAX_SAMPLE: usize = 64;
/// Blocks looked at per slower source in the end game.
const MAX_LOOKS: usize = 16;
/// Pieces with a deadline looked at.
const MAX_URGENT: usize = 64;

/// Requests, lapsed ones counted, that a stalled source may have for more to be sent.
const MAX_PROBES: usize = 8;

/// A block, and whether it is asked of somebody else already.
struct Choice {
    slot: u32,
    n: u32,
    again: bool,
}

impl Download {
    /// Asks `id` for blocks until its pipeline is full.
    pub(super) fn fill(&mut self, now: Time, id: u32, out: &mut Vec<DownloadOutput>) {
        loop {
            let Some(s) = self.source(id) else { return };
            if s.shut || (s.choked && (!s.fast || s.allowed.is_empty())) {
                return;
            }
            // A stalled source is only probed.
            if s.stalled && s.queue.len() >= MAX_PROBES {
                return;
            }
            let target = s.pipe.target();
            let ranged = s.kind.is_ranged();
            if s.live >= target && !(ranged && self.mid_piece(id)) {
                return;
            }
            let full = self.config.max_outstanding.is_some_and(|max| {
                self.outstanding > 0 && self.outstanding + u64::from(BLOCK_LEN) > max
            });
            if self.has_enough(id) {
                return;
            }
            if self.paused || full || now < s.hold_until || now < s.idle_until {
                self.mark_hungry(id);
                return;
            }
            let choice = if s.choked {
                self.next_allowed(now, id)
            } else {
                self.next_block(now, id)
            };
            let Some(choice) = choice else {
                let s = &mut self.sources[id as usize];
                s.idle_until = now + IDLE;
                if !s.choked {
                    self.mark_hungry(id);
                }
                return;
            };
            self.request(now, id, &choice, out);
        }
    }

    /// Whether so much is on its way to us that what is asked of this source now would only wait, at
    /// the source or before our downlink, while others might have sent it.
    pub(super) fn has_enough(&self, id: u32) -> bool {
        let s = &self.sources[id as usize];
        // Before anything came: what two sources are first asked for.
        let least = 2 * u64::from(self.config.initial_pipeline) * u64::from(BLOCK_LEN);
        s.kind == SourceKind::Peer
            && s.live >= ALWAYS
            && self.outstanding >= self.pace.bytes_in(ENOUGH, SCAN).max(least)
    }

    /// Who sends ranges is asked for long ones: not before half of the last ones came.
    pub(super) fn refill(&mut self, now: Time, id: u32, out: &mut Vec<DownloadOutput>) {
        if let Some(s) = self.source(id)
            && s.kind.is_ranged()
            && s.live > s.pipe.target() / 2
        {
            return;
        }
        self.fill(now, id, out);
    }

    fn mid_piece(&self, id: u32) -> bool {
        let s = &self.sources[id as usize];
        s.live < s.pipe.max()
            && s.has(s.current)
            && self
                .slot(s.current)
                .is_some_and(|slot| self.opens[slot as usize].free > 0)
    }

    fn request(&mut self, now: Time, id: u32, choice: &Choice, out: &mut Vec<DownloadOutput>) {
        let open = &mut self.opens[choice.slot as usize];
        if choice.again {
            open.request_again(choice.n, id);
        } else {
            open.request(choice.n, id);
        }
        let block = self.geometry.block(open.piece, choice.n);
        let s = &mut self.sources[id as usize];
        if s.live == 0 {
            s.pipe.restart(now);
            if !s.stalled && s.queue.is_empty() {
                s.progress = now;
                s.arrivals = self.arrivals;
                s.owes_since = now;
            }
        }
        if !choice.again {
            s.current = block.piece;
        }
        s.queue.push_back(super::source::Req {
            piece: block.piece,
            n: choice.n,
            sent: now,
            lapsed: false,
        });
        s.live += 1;
        self.outstanding += u64::from(block.len);
        if self.scan_at.is_none() {
            self.scan_at = Some(now + SCAN);
        }
        out.push(DownloadOutput::Request {
            source: SourceId(id),
            block,
        });
    }

    pub(super) fn mark_hungry(&mut self, id: u32) {
        let s = &mut self.sources[id as usize];
        s.pipe.starve();
        if !s.hungry {
            s.hungry = true;
            self.hungry.push(id);
        }
    }

    /// Blocks became free: those who wait for some are to be served soon.
    pub(super) fn kick(&mut self, now: Time) {
        if !self.hungry.is_empty() && self.feed_at.is_none() {
            self.feed_at = Some(now + FEED);
        }
    }

    /// Serves the sources that wait for blocks.
    pub(super) fn feed(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        self.feed_at = None;
        let mut waiting = std::mem::take(&mut self.hungry_spare);
        std::mem::swap(&mut waiting, &mut self.hungry);
        for id in waiting.drain(..) {
            if let Some(s) = self.sources.get_mut(id as usize)
                && s.used
                && s.hungry
            {
                s.hungry = false;
                s.idle_until = Time::ZERO;
                self.fill(now, id, out);
            }
        }
        self.hungry_spare = waiting;
    }

    fn next_block(&mut self, now: Time, id: u32) -> Option<Choice> {
        let first = self.urgent(now, id).or_else(|| self.current(id));
        if first.is_some() {
            return first;
        }
        // To join others elsewhere is a jump for a stream, and what can be taken from others at
        // the end are single blocks: it leaves those to the rest.
        if self.sources[id as usize].kind == SourceKind::Stream {
            return self.begin(now, id).or_else(|| self.join(now, id));
        }
        self.join(now, id)
            .or_else(|| self.begin(now, id))
            .or_else(|| self.steal(id))
            .or_else(|| self.again(id))
    }

    /// A block of an allowed-fast piece, for a source that chokes us (BEP 6).
    fn next_allowed(&mut self, now: Time, id: u32) -> Option<Choice> {
        for i in 0..self.sources[id as usize].allowed.len() {
            let piece = self.sources[id as usize].allowed[i];
            if let Some(choice) = self.of_piece(now, id, piece) {
                return Some(choice);
            }
        }
        None
    }

    /// A free block of `piece`, opening it if need be.
    fn of_piece(&mut self, now: Time, id: u32, piece: PieceIndex) -> Option<Choice> {
        let s = &self.sources[id as usize];
        if !self.missing.get(piece) || !s.has(piece) || self.avoids(now, id, piece) {
            return None;
        }
        let slot = match self.slot(piece) {
            Some(slot) => slot,
            None => {
                let slot = self.open(piece);
                self.list(slot);
                slot
            }
        };
        let open = &mut self.opens[slot as usize];
        if open.parked || (open.single && open.owner != NONE && open.owner != id) {
            return None;
        }
        let n = open.first_free(id)?;
        if open.single {
            open.owner = id;
        }
        Some(Choice {
            slot,
            n,
            again: false,
        })
    }

    fn urgent(&mut self, now: Time, id: u32) -> Option<Choice> {
        for i in 0..self.deadlines.len().min(MAX_URGENT) {
            let (_, piece) = self.deadlines[i];
            if let Some(choice) = self.of_piece(now, id, piece) {
                return Some(choice);
            }
        }
        None
    }

    fn current(&mut self, id: u32) -> Option<Choice> {
        let s = &self.sources[id as usize];
        let slot = self.slot(s.current).filter(|_| s.has(s.current))?;
        let open = &mut self.opens[slot as usize];
        if open.parked || (open.single && open.owner != id) {
            return None;
        }
        let n = open.first_free(id)?;
        Some(Choice {
            slot,
            n,
            again: false,
        })
    }

    /// The open piece that is nearest to its end among those anyone may join.
    fn join(&mut self, now: Time, id: u32) -> Option<Choice> {
        let mut best: Option<((Priority, u32), u32)> = None;
        let mut i = 0;
        while let Some(&slot) = self.shared.get(i) {
            let open = &mut self.opens[slot as usize];
            if !open.is_used() || open.free == 0 || open.parked {
                open.listed = false;
                self.shared.swap_remove(i);
                continue;
            }
            i += 1;
            let piece = open.piece;
            let rank = match self.mode {
                Mode::RarestFirst | Mode::Random => open.free,
                Mode::Sequential => piece,
            };
            let key = (self.picker.priority(piece), u32::MAX - rank);
            if best.is_none_or(|b| b.0 < key)
                && open.admits(id, now)
                && self.sources[id as usize].has(piece)
                && open.first_free(id).is_some()
                && !self.avoids(now, id, piece)
            {
                best = Some((key, slot));
            }
        }
        let (_, slot) = best?;
        let of_stream = self
            .source(self.opens[slot as usize].owner)
            .is_some_and(|owner| owner.kind == SourceKind::Stream);
        let open = &mut self.opens[slot as usize];
        if open.single {
            open.owner = id;
        }
        let n = match of_stream && open.owner != id {
            true => open.last_free(id)?,
            false => open.first_free(id)?,
        };
        Some(Choice {
            slot,
            n,
            again: false,
        })
    }

    /// A piece not begun yet.
    fn begin(&mut self, now: Time, id: u32) -> Option<Choice> {
        let s = &self.sources[id as usize];
        let epoch = self.picker.epoch();
        if s.dry == Some(epoch) || self.opens.len() - self.vacant.len() >= self.config.max_open {
            return None;
        }
        let order = if s.kind.is_ranged() {
            Order::After(s.current)
        } else if self.mode == Mode::Sequential {
            Order::Lowest
        } else if self.mode == Mode::Random || self.have.count() < self.config.random_first {
            Order::Random
        } else {
            Order::Rarest
        };
        let aside = self.set_aside(id);
        let (picker, trust) = (&self.picker, &self.trust);
        let (number, stalled) = (s.number, s.stalled);
        let (held, mut avoided) = (s.held()?, false);
        let mut admits = |p| {
            let bad = trust.avoids(p, number, now) || (stalled && trust.has_failed(p));
            let avoid = bad && picker.availability(p) > 1;
            avoided |= avoid;
            !avoid
        };
        let free = |p: &PieceIndex| !aside.iter().any(|stretch| stretch.contains(p));
        let picked = picker
            .pick(held, order, &mut self.rng, |p| free(&p) && admits(p))
            // Nothing else is left: streams keep the pieces they come to first.
            .or_else(|| {
                stretch::last_of(&aside, |p| {
                    picker.candidates().get(p) && held.get(p) && admits(p)
                })
            });
        let Some(piece) = picked else {
            if !avoided {
                self.sources[id as usize].dry = Some(epoch);
            }
            return None;
        };
        let piece = self.settle_stretch(id, piece, &aside);
        let slot = self.open(piece);
        let s = &self.sources[id as usize];
        let size = f64::from(self.geometry.piece_size(piece));
        let rate = s.pipe.rate();
        let alone = if rate <= 0.0 {
            UNKNOWN
        } else if size / rate <= SLOW_PIECE {
            Duration::from_secs_f64(2.0 * size / rate + s.pipe.eta(0).min(2.0) + 0.5)
        } else {
            Duration::ZERO
        };
        let open = &mut self.opens[slot as usize];
        if open.single {
            // Listed all the same: nobody else is let in until the time is over.
            open.owner = id;
            open.exclusive_until = now + alone.max(Duration::from_secs(10));
            self.list(slot);
        } else if alone.is_zero() {
            self.list(slot);
        } else {
            open.owner = id;
            open.exclusive_until = now + alone;
        }
        let n = self.opens[slot as usize].first_free(id)?;
        Some(Choice {
            slot,
            n,
            again: false,
        })
    }

    /// The last free block of the piece whose owner would come to it last.
    fn steal(&mut self, id: u32) -> Option<Choice> {
        let first = self.rng.below(self.opens.len());
        let s = &self.sources[id as usize];
        let own = s.pipe.eta(s.live as usize);
        let mut best: Option<(f64, Choice)> = None;
        for slot in around(self.opens.len(), first).take(MAX_SAMPLE) {
            let open = &self.opens[slot];
            if !open.is_used() || open.free == 0 || open.parked || open.single {
                continue;
            }
            if open.owner == id || !s.has(open.piece) {
                continue;
            }
            let eta = self
                .source(open.owner)
                .map_or(f64::MAX, |o| o.pipe.eta((o.live + open.free) as usize));
            if eta > own
                && best.as_ref().is_none_or(|b| b.0 < eta)
                && let Some(n) = open.last_free(id)
            {
                let (slot, again) = (slot as u32, false);
                best = Some((eta, Choice { slot, n, again }));
            }
        }
        best.map(|b| b.1)
    }

    /// End game: a block asked of a source that needs more than twice as long as this one.
    fn again(&mut self, id: u32) -> Option<Choice> {
        if self.picker.candidates().count() > 0 {
            return None;
        }
        let first = self.rng.below(self.sources.len());
        let s = &self.sources[id as usize];
        let own = s.pipe.eta(s.live as usize) * 2.0 + 0.05;
        let mut best: Option<(f64, Choice)> = None;
        for other in around(self.sources.len(), first).take(MAX_SAMPLE) {
            let b = &self.sources[other];
            if !b.used || other == id as usize || b.live == 0 {
                continue;
            }
            let drain = b.pipe.eta(b.live as usize);
            for (i, req) in b.queue.iter().enumerate().rev().take(MAX_LOOKS) {
                let eta = drain * (i + 1) as f64 / b.queue.len() as f64;
                if eta < own || best.as_ref().is_some_and(|b| b.0 >= eta) {
                    break;
                }
                if !req.lapsed
                    && s.has(req.piece)
                    && let Some(slot) = self.slot(req.piece)
                    && may_ask_again(&self.opens[slot as usize], req.n, id)
                {
                    let (n, again) = (req.n, true);
                    best = Some((eta, Choice { slot, n, again }));
                    break;
                }
            }
        }
        best.map(|b| b.1)
    }

    fn avoids(&self, now: Time, id: u32, piece: PieceIndex) -> bool {
        self.trust
            .avoids(piece, self.sources[id as usize].number, now)
            && self.picker.availability(piece) > 1
    }
}

/// Every index below `len` once, from `first` on.
fn around(len: usize, first: usize) -> impl Iterator<Item = usize> {
    (first..len).chain(0..first)
}

fn may_ask_again(open: &Open, n: u32, id: u32) -> bool {
    !open.parked
        && !open.single
        && open.asked(n) < MAX_ASKED
        && open.state(n).and_then(|s| s.requester()) != Some(id)
        && !open.has_extra(n, id)
}
