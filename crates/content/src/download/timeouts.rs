//! What happens when nothing happens: requests that lapse, sources that stall or snub us.

use super::choose::SCAN;
use super::open::NONE;
use super::source::Source;
use super::{Download, DownloadOutput, Mode};
use crate::PieceIndex;
use shoal_base::Time;
use std::time::Duration;

/// How many times each of the other busy sources may send before one that does not is out of turn.
const TURNS: u64 = 8;
/// Silence that no queue before our downlink explains.
const LONGEST_QUEUE: Duration = Duration::from_secs(60);
/// How long no source may send anything before it is taken for our own fault, and until when.
const STILL: Duration = Duration::from_secs(1);
const MAX_STILL: Duration = Duration::from_secs(10);

impl Download {
    /// Looks at timeouts and serves sources that wait. To be called when
    /// [`Download::deadline`] is reached; more often does no harm.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan(now, out);
            self.feed(now, out);
            let busy = self.outstanding > 0
                || !self.hungry.is_empty()
                || self.sources.iter().any(|s| s.used && !s.queue.is_empty());
            self.scan_at = busy.then_some(now + SCAN);
        } else if self.feed_at.is_some_and(|at| at <= now) {
            self.feed(now, out);
        }
    }

    /// Whether the fault is ours: when several sources fall silent at the same moment, it is we
    /// who do not read (the disk is behind, the machine slept). For a while their requests do
    /// not age then.
    fn stands_still(&self, now: Time) -> bool {
        let quiet = now.since(self.last_block);
        let busy = |s: &&Source| s.used && s.live > 0 && !s.stalled;
        (STILL..MAX_STILL).contains(&quiet) && self.sources.iter().filter(busy).nth(1).is_some()
    }

    /// Blocks that come from others while a source that sends as fast as they do waits for its turns
    /// in the queue before our downlink. When that is full, silence tells of the queue and not of the
    /// source.
    fn turns(&self) -> u64 {
        let busy = self.sources.iter().filter(|s| s.used && s.live > 0);
        TURNS * (busy.count() as u64).saturating_sub(1)
    }

    /// Whether a source that does send had nothing to be asked for when last looked at.
    fn has_idle(&self) -> bool {
        self.hungry
            .iter()
            .filter_map(|id| self.source(*id))
            .any(|s| s.hungry && !s.choked && !s.stalled && s.idle_until > Time::ZERO)
    }

    fn scan(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        let still = self.stands_still(now);
        self.pace.measure(now);
        let turns = self.turns();
        let silent = now.since(self.last_block) >= MAX_STILL;
        let idle = self.has_idle();
        for id in 0..self.sources.len() as u32 {
            let s = &mut self.sources[id as usize];
            if !s.used || s.queue.is_empty() {
                continue;
            }
            if now.since(s.owes_since) >= self.config.snub_after {
                s.snubbed = true;
            }
            if still {
                s.progress += SCAN;
                for req in &mut s.queue {
                    req.sent += SCAN;
                }
                continue;
            }
            let quiet = now.since(s.progress);
            let passed_over = idle || self.arrivals - s.arrivals >= turns;
            let stalls = !s.stalled
                && s.live > 0
                && quiet > s.pipe.stall_timeout()
                && (passed_over || silent || quiet > LONGEST_QUEUE);
            if stalls {
                s.stalled = true;
                s.pipe.shrink();
            }
            let timeout = s.pipe.block_timeout();
            let expiry = (timeout * 3).max(Duration::from_secs(30));
            let (stalled, served) = (s.stalled, s.served);
            let mut i = 0;
            while let Some(req) = self.sources[id as usize].queue.get(i).copied() {
                let age = now.since(req.sent);
                // A source that goes on sending comes to it in its turn, however late, unless it
                // came already to what was asked later. That is too late where somebody else could
                // send it now, or somebody waits for it.
                let due = idle || stalled || req.sent < served || self.is_urgent(req.piece);
                let overdue = due && age > timeout;
                if !req.lapsed && (stalls || overdue) {
                    self.lapse(id, i);
                } else if req.lapsed && age > expiry {
                    self.take_request(id, i);
                    self.release(&req, id);
                    self.say_cancel(id, req.piece, req.n, out);
                    continue;
                } else if !req.lapsed {
                    break;
                }
                i += 1;
            }
            let s = &mut self.sources[id as usize];
            if s.live == 0 && !s.queue.is_empty() && !s.stalled {
                s.stalled = true;
                s.pipe.shrink();
            }
            // Who is asked for long ranges waits for nothing before half of the last ones came.
            let enough = match s.kind.is_ranged() {
                true => s.pipe.target() / 2 + 1,
                false => s.pipe.target(),
            };
            if !s.shut && !s.choked && s.live < enough && !self.has_enough(id) {
                self.mark_hungry(id);
            }
        }
        for slot in 0..self.opens.len() as u32 {
            let open = &mut self.opens[slot as usize];
            if open.is_used() && open.free > 0 && now >= open.exclusive_until {
                // An owner of a piece that failed before had its time; the rest is for anyone.
                if open.single {
                    open.owner = NONE;
                }
                self.list(slot);
            }
        }
    }

    /// Whether somebody waits for the piece, so that it is worth asking twice.
    fn is_urgent(&self, piece: PieceIndex) -> bool {
        self.mode == Mode::Sequential || self.deadlines.iter().any(|d| d.1 == piece)
    }

    pub(super) fn lapse(&mut self, id: u32, i: usize) {
        let s = &mut self.sources[id as usize];
        let Some(req) = s.queue.get_mut(i) else {
            return;
        };
        req.lapsed = true;
        let (piece, n) = (req.piece, req.n);
        s.live -= 1;
        self.outstanding -= u64::from(self.geometry.block(piece, n).len);
        if let Some(slot) = self.slot(piece) {
            let open = &mut self.opens[slot as usize];
            open.lapse(n, id);
            if open.owner == id {
                open.owner = NONE;
            }
            self.list(slot);
        }
    }
}
