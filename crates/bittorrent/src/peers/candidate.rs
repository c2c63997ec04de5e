//! One candidate: when it may be tried again, and how it compares with others.

use super::{Ended, Sources};
use shoal_base::Time;
use std::cmp::Reverse;
use std::time::Duration;

/// Wait after the first failure; it triples with each further one …
const FIRST_BACKOFF: Duration = Duration::from_secs(15);
/// … up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);
/// A candidate that the user named is tried this often at first …
const FIRST_MANUAL_BACKOFF: Duration = Duration::from_secs(2);
/// … and at least this often.
const LONGEST_MANUAL_BACKOFF: Duration = Duration::from_secs(60);
/// Wait after a connection that worked.
const AFTER_USEFUL: Duration = Duration::from_secs(10);
/// Wait after a connection that was of no use.
const AFTER_USELESS: Duration = Duration::from_secs(120);
/// Given up after so many failures in a row.
const HOPELESS: u32 = 6;
/// A candidate last heard of within this time is fresh.
const FRESH: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Idle { retry_at: Time },
    Opening,
    Connected,
}

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) sources: Sources,
    pub(super) state: State,
    pub(super) last_heard: Time,
    /// It was connected at least once.
    pub(super) proven: bool,
    pub(super) seed: bool,
    /// Failures since it last worked.
    pub(super) failures: u32,
    /// Canonical priority (BEP 40).
    pub(super) priority: u32,
}

impl Candidate {
    pub(super) fn new(now: Time, sources: Sources, priority: u32) -> Self {
        Self {
            sources,
            state: State::Idle { retry_at: now },
            last_heard: now,
            proven: false,
            seed: false,
            failures: 0,
            priority,
        }
    }

    /// When it may be tried; none if it is in use or not wanted.
    pub(super) fn ready_at(&self, seeding: bool) -> Option<Time> {
        match self.state {
            State::Idle { retry_at } if !(seeding && self.seed) => Some(retry_at),
            _ => None,
        }
    }

    pub(super) fn is_ready(&self, now: Time, seeding: bool) -> bool {
        self.ready_at(seeding).is_some_and(|at| at <= now)
    }

    /// The order of trying, the smallest first: what the user named, what has not failed, what
    /// worked before, what is fresh; then by canonical priority.
    pub(super) fn rank(&self, now: Time) -> impl Ord + use<> {
        (
            !self.sources.has(Sources::MANUAL),
            self.failures,
            !self.proven,
            now.since(self.last_heard) > FRESH,
            Reverse(self.priority),
        )
    }

    /// What it is worth when there is no room for all; none if it must stay.
    pub(super) fn worth(&self) -> Option<(bool, Reverse<u32>, u8, Time)> {
        match self.state {
            State::Idle { .. } if !self.sources.has(Sources::MANUAL) => Some((
                self.proven,
                Reverse(self.failures),
                trust(self.sources),
                self.last_heard,
            )),
            _ => None,
        }
    }

    /// The worth of a candidate of which nothing is known but `sources`.
    pub(super) fn worth_of_new(sources: Sources) -> (bool, Reverse<u32>, u8, Time) {
        (false, Reverse(0), trust(sources), Time::FAR)
    }

    /// Notes how a connection ended; `jitter` is in `[0, 1)`. Gives the time of the next try.
    pub(super) fn end(&mut self, now: Time, how: Ended, jitter: f64) -> Time {
        let manual = self.sources.has(Sources::MANUAL);
        let wait = match how {
            Ended::Useful => AFTER_USEFUL,
            Ended::Useless if manual => AFTER_USEFUL,
            Ended::Useless => AFTER_USELESS,
            Ended::Failed => {
                self.failures += 1;
                let (first, longest) = if manual {
                    (FIRST_MANUAL_BACKOFF, LONGEST_MANUAL_BACKOFF)
                } else {
                    (FIRST_BACKOFF, LONGEST_BACKOFF)
                };
                (first * 3u32.pow((self.failures - 1).min(8))).min(longest)
            }
        };
        now + wait.mul_f64(0.8 + 0.4 * jitter)
    }

    /// Not worth keeping.
    pub(super) fn is_hopeless(&self) -> bool {
        self.failures >= HOPELESS && !self.sources.has(Sources::MANUAL)
    }
}

/// How far a source is trusted to name peers that exist.
fn trust(sources: Sources) -> u8 {
    let solid = [
        Sources::TRACKER,
        Sources::LSD,
        Sources::INCOMING,
        Sources::RESUME,
    ];
    if solid.into_iter().any(|s| sources.has(s)) {
        2
    } else {
        u8::from(sources.has(Sources::DHT))
    }
}
