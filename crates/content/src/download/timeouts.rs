//! What happens when nothing happens: requests that lapse, sources that stall or snub us.

use super::choose::SCAN;
use super::open::NONE;
use super::source::Source;
use super::{Download, DownloadOutput};
use shoal_base::Time;
use std::time::Duration;

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

    fn scan(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        let still = self.stands_still(now);
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
            let stalls = !s.stalled && s.live > 0 && quiet > s.pipe.stall_timeout();
            if stalls {
                s.stalled = true;
                s.pipe.shrink();
            }
            let timeout = s.pipe.block_timeout();
            let expiry = (timeout * 3).max(Duration::from_secs(30));
            let mut i = 0;
            while let Some(req) = self.sources[id as usize].queue.get(i).copied() {
                let age = now.since(req.sent);
                if !req.lapsed && (stalls || age > timeout) {
                    self.lapse(id, i);
                } else if age > expiry {
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
            if !s.shut && !s.choked && s.live < s.pipe.target() {
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
