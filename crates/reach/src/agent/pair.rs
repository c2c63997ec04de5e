//! One way to the other node: from a socket or relay of ours to an address of theirs.

use super::Path;
use crate::stun::TransactionId;
use shoal_base::Time;
use std::time::Duration;

/// Checks whose answers may still come, at most.
const MAX_WAITING: usize = 8;
/// When a pair that never answered is checked, in milliseconds after the last time; thereafter like
/// the last.
const TRIES: [u64; 12] = [
    0, 60, 100, 200, 300, 400, 500, 1000, 2000, 4000, 8000, 15_000,
];
/// How long an answer is waited for at least, before a pair counts as dead.
const PATIENCE: Duration = Duration::from_millis(450);
/// How soon a check is repeated whose answer is late.
const HURRY: Duration = Duration::from_millis(120);

/// Checks that answer one of the other's are this far apart (RFC 8445 §14.2: Ta): many that come at once,
/// as after the kernel has waited for a neighbour's address, are not each answered by one, which would
/// be answered in turn, faster than answers are looked for.
const PACE: Duration = Duration::from_millis(50);

/// Packets after which it is said how many were lost of them.
const SAMPLE: u64 = 64;
/// For how long that is remembered of a way.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What each lost packet of a thousand counts as, beside the round trip.
const COST_OF_LOSS: Duration = Duration::from_millis(3);

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It never answered, or not since it died.
    Trying {
        /// Checks since then.
        tries: usize,
        /// Whether it worked before.
        died: bool,
    },
    /// It answers.
    Works {
        /// Since when.
        since: Time,
        /// Whether it died before: then it must prove itself.
        again: bool,
    },
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) path: Path,
    /// Relays on it.
    pub(super) hops: u8,
    pub(super) state: State,
    pub(super) rtt: Duration,
    /// Checks under way, oldest first.
    waiting: Vec<(TransactionId, Time)>,
    /// When the last check was answered.
    pub(super) answered: Time,
    /// When anything that the other proved was heard on it.
    pub(super) heard: Time,
    pub(super) next: Time,
    /// Packets of somebody above that went by it, and of these lost, since the last figure.
    carried: (u64, u64),
    /// Lost packets of a thousand, and when that was found.
    loss: (u64, Time),
}

impl Pair {
    pub(super) fn new(path: Path, hops: u8, now: Time) -> Self {
        Self {
            path,
            hops,
            state: State::Trying {
                tries: 0,
                died: false,
            },
            rtt: Duration::ZERO,
            waiting: Vec::new(),
            answered: Time::ZERO,
            heard: Time::ZERO,
            next: now,
            carried: (0, 0),
            loss: (0, Time::ZERO),
        }
    }

    pub(super) fn works(&self) -> bool {
        matches!(self.state, State::Works { .. })
    }

    /// Of what went by it so many were sent and so many lost since the last time; how many of a
    /// thousand that makes, when there is a new figure.
    pub(super) fn carries(&mut self, now: Time, sent: u64, lost: u64) -> Option<u64> {
        let (all, missing) = (self.carried.0 + sent, self.carried.1 + lost);
        self.carried = (all, missing);
        (all >= SAMPLE).then(|| {
            let fresh = missing.min(all) * 1000 / all;
            let old = match now.since(self.loss.1) < REMEMBERED {
                true => self.loss.0,
                false => fresh,
            };
            self.loss = ((old + fresh) / 2, now);
            self.carried = (0, 0);
            self.loss.0
        })
    }

    /// So many packets of a thousand are lost on a part of it.
    pub(super) fn loses(&mut self, now: Time, loss: u64) {
        self.loss = (loss, now);
    }

    /// The round trip, and what losses count for: the less the better.
    pub(super) fn cost(&self, now: Time) -> Duration {
        let remembered = now.since(self.loss.1) < REMEMBERED;
        let loss = u32::try_from(self.loss.0).unwrap_or(1000);
        self.rtt + COST_OF_LOSS * if remembered { loss } else { 0 }
    }

    /// Whether it is a direct way by IPv4: one by IPv6 is preferred if round trips are alike (RFC 8445
    /// §5.1.2.2, RFC 8421 §4), as it has no translator that forgets.
    pub(super) fn is_older(&self) -> bool {
        self.hops == 0 && self.path.peer.is_ipv4()
    }

    /// A check leaves; the next one follows after `every` if this pair works.
    pub(super) fn sent(&mut self, now: Time, id: TransactionId, every: Duration) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.remove(0);
        }
        self.waiting.push((id, now));
        let wait = match &mut self.state {
            State::Trying { tries, .. } => {
                *tries += 1;
                let last = TRIES.last().copied().unwrap_or_default();
                Duration::from_millis(TRIES.get(*tries).copied().unwrap_or(last))
            }
            State::Works { .. } => every,
        };
        self.next = now + wait;
    }

    /// An answer came: the round trip if it is one to a check of ours.
    pub(super) fn on_answer(&mut self, now: Time, id: TransactionId) -> bool {
        let Some(at) = self.waiting.iter().position(|(i, _)| *i == id) else {
            return false;
        };
        let Some((_, sent)) = self.waiting.get(at).copied() else {
            return false;
        };
        // Earlier ones may be lost; they say nothing any more.
        self.waiting.drain(..=at);
        let rtt = now.since(sent);
        (self.answered, self.heard) = (now, now);
        match self.state {
            State::Works { .. } => self.rtt = (self.rtt * 3 + rtt) / 4,
            State::Trying { died, .. } => {
                self.rtt = rtt;
                self.state = State::Works {
                    since: now,
                    again: died,
                };
            }
        }
        true
    }

    fn patience(&self) -> Duration {
        PATIENCE.max(self.rtt * 2 + Duration::from_millis(250))
    }

    /// The check that has waited longest since anything was heard.
    fn unanswered(&self) -> Option<Time> {
        let mut since = self.waiting.iter().map(|(_, at)| *at);
        since.find(|at| *at >= self.heard)
    }

    /// Whether answers have been missing for too long.
    pub(super) fn is_dead(&self, now: Time) -> bool {
        let late = |at: Time| now.since(at) >= self.patience();
        self.works() && self.waiting.len() >= 2 && self.unanswered().is_some_and(late)
    }

    pub(super) fn die(&mut self, now: Time) {
        self.state = State::Trying {
            tries: 3,
            died: true,
        };
        self.next = now + Duration::from_millis(250);
    }

    /// The other has checked: that is answered by a check of ours.
    pub(super) fn answer_by_check(&mut self, now: Time) {
        let last = self.waiting.last().map(|(_, at)| *at + PACE);
        self.next = self.next.min(last.unwrap_or(now).max(now));
    }

    /// Begins to be tried as if it were new.
    pub(super) fn retry(&mut self, now: Time) {
        if let State::Trying { tries, .. } = &mut self.state {
            *tries = 0;
            self.next = now;
        }
    }

    /// When there is something to do: the next check, sooner if an answer is late, or dying.
    pub(super) fn deadline(&self) -> Time {
        let hurry = self.works().then(|| self.unanswered()).flatten();
        let Some(since) = hurry else {
            return self.next;
        };
        let last = self.waiting.last().map_or(since, |(_, at)| *at);
        let dies = since + self.patience();
        let again = last + self.rtt * 3 / 2 + HURRY;
        if self.waiting.len() >= 2 {
            self.next.min(dies).min(again)
        } else {
            self.next.min(again)
        }
    }

    /// Whether a check is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        let late = || {
            let last = self.waiting.last().map(|(_, at)| *at);
            let missing = self.works() && self.unanswered().is_some();
            missing && last.is_some_and(|at| now >= at + self.rtt * 3 / 2 + HURRY)
        };
        now >= self.next || late()
    }
}
