//! Queries that wait for their answer: transaction ids, round-trip estimates, timeouts.

use super::node::Node;
use super::ops::Purpose;
use crate::Id;
use rustc_hash::FxHashMap;
use shoal_base::{Rng, Time};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// An answer that has not come by now will not.
const LOST: Duration = Duration::from_secs(8);
/// Bounds of the time after which a lookup goes on without waiting, though the answer still counts.
const SLOW_MIN: Duration = Duration::from_millis(100);
const SLOW_MAX: Duration = Duration::from_secs(2);
/// Most queries in flight.
const MAX_PENDING: usize = 512;

/// A query in flight.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Whom it went to.
    pub to: SocketAddr,
    /// Whom we expect there, if we know.
    pub id: Option<Id>,
    /// What the answer is for.
    pub purpose: Purpose,
    /// When it was sent.
    pub sent: Time,
    /// When its time is up.
    pub timer: Time,
    /// Its answer is late.
    pub slow: bool,
    /// The datagram, if it is to be sent once more when the answer is late.
    pub again: Option<Vec<u8>>,
}

impl Pending {
    /// The node asked, if its identifier was known.
    pub(super) fn node(&self) -> Option<Node> {
        self.id.map(|id| Node { id, addr: self.to })
    }
}

/// What became of a query without an answer.
#[derive(Debug)]
pub(super) enum Late {
    /// It takes longer than most. The query is still in flight.
    Slow(Pending),
    /// It will not be answered.
    Lost(Pending),
}

/// All queries in flight.
#[derive(Debug)]
pub(super) struct Rpc {
    pending: FxHashMap<u32, Pending>,
    timers: BTreeSet<(Time, u32)>,
    /// Smoothed round trip and its deviation in microseconds (RFC 6298).
    srtt: Option<(f64, f64)>,
}

impl Rpc {
    /// Nothing in flight.
    pub(super) fn new() -> Self {
        Self {
            pending: FxHashMap::default(),
            timers: BTreeSet::new(),
            srtt: None,
        }
    }

    /// Whether another query may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// How many queries are in flight.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// After how long a lookup stops waiting.
    pub(super) fn patience(&self) -> Duration {
        match self.srtt {
            None => Duration::from_secs(1),
            Some((srtt, var)) => {
                Duration::from_micros((srtt + 4.0 * var) as u64).clamp(SLOW_MIN, SLOW_MAX)
            }
        }
    }

    /// An unused transaction id, not to be guessed.
    pub(super) fn tid(&self, rng: &mut Rng) -> u32 {
        loop {
            let tid = rng.next_u32();
            if !self.pending.contains_key(&tid) {
                return tid;
            }
        }
    }

    /// Notes a query as sent.
    pub(super) fn sent(&mut self, tid: u32, mut pending: Pending) {
        pending.timer = pending.sent + self.patience();
        self.timers.insert((pending.timer, tid));
        self.pending.insert(tid, pending);
    }

    /// Matches an answer to its query: the transaction id and the address must both fit.
    pub(super) fn answered(&mut self, now: Time, from: SocketAddr, tid: &[u8]) -> Option<Pending> {
        let tid = u32::from_be_bytes(tid.try_into().ok()?);
        if self.pending.get(&tid)?.to != from {
            return None;
        }
        let pending = self.pending.remove(&tid)?;
        self.timers.remove(&(pending.timer, tid));
        // A query that was sent twice does not tell which was answered (Karn).
        if pending.again.is_none() || !pending.slow {
            let rtt = now.since(pending.sent).as_micros() as f64;
            self.srtt = Some(match self.srtt {
                None => (rtt, rtt / 2.0),
                Some((srtt, var)) => (
                    srtt * 0.875 + rtt * 0.125,
                    var * 0.75 + (srtt - rtt).abs() * 0.25,
                ),
            });
        }
        Some(pending)
    }

    /// The next query whose time is up at `now`.
    pub(super) fn expire(&mut self, now: Time) -> Option<(u32, Late)> {
        let (at, tid) = self.timers.first().copied()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        if let Some(pending) = self.pending.get_mut(&tid)
            && !pending.slow
        {
            pending.slow = true;
            pending.timer = pending.sent + LOST;
            self.timers.insert((pending.timer, tid));
            return Some((tid, Late::Slow(pending.clone())));
        }
        Some((tid, Late::Lost(self.pending.remove(&tid)?)))
    }

    /// When the next time is up.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }
}
