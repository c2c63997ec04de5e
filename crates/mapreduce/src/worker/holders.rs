//! Whom a reduce attempt may ask next: holders of outputs it wants, those that could not be reached
//! left alone for longer and longer. Asked for each request and each output that comes, with thousands
//! of holders, so nothing here looks at all of them.

use crate::id::WorkerId;
use shoal_base::{Rng, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The first pause after a holder could not be reached; it doubles with each failure.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Holders and the map tasks to ask each for.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// None is empty. May name map tasks that are on their way already.
    queues: BTreeMap<WorkerId, VecDeque<u32>>,
    /// Holders that could not be reached: how often, and when they are tried again.
    troubled: BTreeMap<WorkerId, (u32, Time)>,
    /// Holders with a queue that may be asked.
    ready: BTreeSet<WorkerId>,
    /// Holders with a queue that are left alone until then.
    paused: BTreeSet<(Time, WorkerId)>,
}

impl Holders {
    /// One more map task to ask this holder for.
    pub(super) fn push(&mut self, holder: WorkerId, map: u32) {
        let queue = self.queues.entry(holder).or_default();
        queue.push_back(map);
        if queue.len() == 1 {
            self.place(holder);
        }
    }

    /// Goes through a holder's queue from its front as long as `take` wants to.
    pub(super) fn drain(&mut self, holder: WorkerId, mut take: impl FnMut(u32) -> bool) {
        let Some(queue) = self.queues.get_mut(&holder) else {
            return;
        };
        while queue.front().is_some_and(|map| take(*map)) {
            queue.pop_front();
        }
        if queue.is_empty() {
            self.queues.remove(&holder);
            self.displace(holder);
        }
    }

    /// Forgets what to ask for, not who made trouble.
    pub(super) fn forget_queues(&mut self) {
        self.queues.clear();
        self.ready.clear();
        self.paused.clear();
    }

    /// A holder could not be reached or did not have what it should.
    pub(super) fn failed(&mut self, holder: WorkerId, now: Time) {
        self.displace(holder);
        let (failures, until) = self.troubled.entry(holder).or_insert((0, now));
        *until = now + (PAUSE * 2_u32.saturating_pow(*failures)).min(PAUSE_MAX);
        *failures = failures.saturating_add(1);
        if self.queues.contains_key(&holder) {
            self.place(holder);
        }
    }

    /// Something came from a holder.
    pub(super) fn worked(&mut self, holder: WorkerId) {
        if let Some((_, until)) = self.troubled.remove(&holder)
            && self.paused.remove(&(until, holder))
        {
            self.ready.insert(holder);
        }
    }

    /// The holder to ask next: any that may be asked and is not being asked. The first from a random
    /// name on, so that reduce tasks do not all ask the same one first.
    pub(super) fn next(
        &mut self,
        now: Time,
        rng: &mut Rng,
        is_asked: impl Fn(WorkerId) -> bool,
    ) -> Option<WorkerId> {
        self.wake(now);
        let (first, last) = (
            self.queues.first_key_value()?,
            self.queues.last_key_value()?,
        );
        let span = (last.0.0 - first.0.0).saturating_add(1);
        let start = WorkerId(first.0.0 + rng.next_u64() % span);
        let mut around = self.ready.range(start..).chain(self.ready.range(..start));
        around.find(|holder| !is_asked(**holder)).copied()
    }

    /// When the next pause ends of a holder that there is something to ask for.
    pub(super) fn next_retry(&mut self, now: Time) -> Option<Time> {
        self.wake(now);
        self.paused.first().map(|(until, _)| *until)
    }

    fn wake(&mut self, now: Time) {
        while let Some((until, holder)) = self.paused.pop_first() {
            if until > now {
                self.paused.insert((until, holder));
                break;
            }
            self.ready.insert(holder);
        }
    }

    /// Files a holder that has a queue under ready or paused.
    fn place(&mut self, holder: WorkerId) {
        match self.troubled.get(&holder) {
            Some((_, until)) => self.paused.insert((*until, holder)),
            None => self.ready.insert(holder),
        };
    }

    fn displace(&mut self, holder: WorkerId) {
        self.ready.remove(&holder);
        if let Some((_, until)) = self.troubled.get(&holder) {
            self.paused.remove(&(*until, holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    /// The same by looking at everything.
    #[derive(Default)]
    struct Plain {
        queues: BTreeMap<WorkerId, VecDeque<u32>>,
        troubled: BTreeMap<WorkerId, (u32, Time)>,
    }

    impl Plain {
        fn next(&self, now: Time, rng: &mut Rng, asked: WorkerId) -> Option<WorkerId> {
            let first = self.queues.keys().next()?.0;
            let last = self.queues.keys().next_back()?.0;
            let start = WorkerId(first + rng.next_u64() % (last - first + 1));
            let free = |h: &&WorkerId| {
                **h != asked && self.troubled.get(h).is_none_or(|(_, at)| now >= *at)
            };
            let around = self.queues.range(start..).chain(self.queues.range(..start));
            around.map(|(h, _)| h).find(free).copied()
        }

        fn next_retry(&self, now: Time) -> Option<Time> {
            let waits = self.troubled.iter();
            let waits = waits.filter(|(h, _)| self.queues.contains_key(h));
            waits.map(|(_, (_, at))| *at).filter(|at| *at > now).min()
        }
    }

    proptest! {
        #[test]
        fn the_next_holder_and_the_next_retry_are_those_of_a_look_at_all(
            steps in prop::collection::vec((0u8..12, 0u64..7, 0u64..3000), 1..200),
        ) {
            let (mut holders, mut plain) = (Holders::default(), Plain::default());
            let (mut a, mut b) = (Rng::from_seed(1), Rng::from_seed(1));
            let mut now = Time::ZERO;
            for (what, holder, by) in steps {
                let holder = WorkerId(holder);
                now += Duration::from_millis(by);
                match what {
                    0 => {
                        holders.forget_queues();
                        plain.queues.clear();
                    }
                    1..6 => {
                        holders.push(holder, by as u32);
                        plain.queues.entry(holder).or_default().push_back(by as u32);
                    }
                    6..8 => {
                        let mut left = by % 3;
                        holders.drain(holder, |_| {
                            left = left.saturating_sub(1);
                            left > 0
                        });
                        let queue = plain.queues.entry(holder).or_default();
                        for _ in 1..by % 3 {
                            queue.pop_front();
                        }
                        plain.queues.retain(|_, queue| !queue.is_empty());
                    }
                    8..11 => {
                        holders.failed(holder, now);
                        let (failures, until) = plain.troubled.entry(holder).or_insert((0, now));
                        *until = now + Duration::from_secs(1 << *failures.min(&mut 5)).min(PAUSE_MAX);
                        *failures += 1;
                    }
                    _ => {
                        holders.worked(holder);
                        plain.troubled.remove(&holder);
                    }
                }
                prop_assert_eq!(
                    holders.next(now, &mut a, |h| h.0 == by % 7),
                    plain.next(now, &mut b, WorkerId(by % 7))
                );
                prop_assert_eq!(holders.next_retry(now), plain.next_retry(now));
            }
        }
    }
}
