//! Whether the books agree with each other, for tests.

use super::Download;
use super::open::NONE;
use crate::picker::Priority;

impl Download {
    /// Panics if the parts disagree with each other. For tests; slow.
    pub fn check_invariants(&self) {
        self.picker.check_invariants();
        let mut outstanding = 0;
        for (id, s) in (0u32..).zip(&self.sources) {
            if !s.used {
                assert!(s.queue.is_empty() && self.witness[id as usize] == NONE);
                continue;
            }
            let live = s.queue.iter().filter(|r| !r.lapsed).count();
            assert_eq!(s.live as usize, live, "source {id}");
            for r in &s.queue {
                let slot = self.slot(r.piece).expect("requested of an open piece");
                let open = &self.opens[slot as usize];
                let state = open.state(r.n).expect("a block of the piece");
                assert!(state.sender().is_none(), "requested but received");
                if r.lapsed {
                    assert!(
                        open.extras
                            .iter()
                            .any(|e| e.n == r.n && e.source == id && !e.live)
                    );
                } else {
                    outstanding += u64::from(self.geometry.block(r.piece, r.n).len);
                    let extra = open
                        .extras
                        .iter()
                        .any(|e| e.n == r.n && e.source == id && e.live);
                    assert!(extra != (state.requester() == Some(id)));
                }
            }
            let witness = self.witness[id as usize];
            let any = (0..self.geometry.pieces()).any(|p| s.has(p) && self.missing.get(p));
            assert_eq!(witness != NONE, any, "source {id}");
            assert!(!any || (s.has(witness) && self.missing.get(witness)));
            assert_eq!(s.interested, any);
        }
        assert_eq!(self.outstanding, outstanding);
        let mut asked = 0;
        for (slot, open) in (0u32..).zip(&self.opens) {
            if !open.is_used() {
                continue;
            }
            open.check();
            assert_eq!(self.slot(open.piece), Some(slot));
            assert!(!self.have.get(open.piece) && !self.picker.candidates().get(open.piece));
            asked += open.extras.len();
            asked += open
                .states
                .iter()
                .filter(|s| s.requester().is_some())
                .count();
            let reachable = open.listed || open.parked || open.owner != NONE;
            assert!(open.free == 0 || reachable, "piece {} is lost", open.piece);
            assert_eq!(open.listed, self.shared.contains(&slot));
        }
        let queued: usize = self.sources.iter().map(|s| s.queue.len()).sum();
        assert_eq!(asked, queued);
        let open = self.opens.len() - self.vacant.len();
        assert_eq!(self.slot_of.iter().filter(|s| **s != NONE).count(), open);
        for p in 0..self.geometry.pieces() {
            let wanted = self.picker.priority(p) != Priority::Skip;
            assert_eq!(self.missing.get(p), wanted && !self.have.get(p));
            let candidate = self.missing.get(p) && self.slot(p).is_none();
            assert_eq!(self.picker.candidates().get(p), candidate, "piece {p}");
        }
    }
}
