//! The event queue: a hierarchical timing wheel with a resolution of one microsecond that keeps the
//! exact order (time, then order of arrival).
//!
//! ```text
//!   near     [ . . . ]                 sorted, served from the front
//!   level 0  64 slots of      1 us
//!   level 1  64 slots of     64 us     an event lies on the level of the highest
//!   level 2  64 slots of   4096 us     base-64 digit in which its time differs from `base`
//!   …
//! ```
//!
//! Opening a slot spreads its events over the levels below, or, when it holds few, sorts them into
//! `near`. Events of one time never overtake each other: a slot is filled in order of arrival, and
//! is only ever spread over slots that are empty. So nothing but the time needs to be stored, and
//! an event is moved at most once a level, where a heap would compare it twenty times among a
//! million. `docs/simulator.md` has the figures of both.

use shoal_base::Time;
use std::collections::VecDeque;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64usize.div_ceil(BITS as usize);
/// A slot with this many events or fewer is sorted rather than spread.
const FEW: usize = 32;
/// An emptied slot keeps its memory up to this many events.
const KEEP: usize = 1024;

/// Events ordered by time, and those of one time by arrival.
#[derive(Debug)]
pub struct Queue<T> {
    /// All events before `near_end`, sorted.
    near: VecDeque<(u64, T)>,
    near_end: u64,
    /// The time last popped; nothing is filed before it.
    last: u64,
    /// What the digits are compared with: the beginning of the slot last opened.
    base: u64,
    slots: Vec<Vec<(u64, T)>>,
    /// For each level a bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            near: VecDeque::new(),
            near_end: 0,
            last: 0,
            base: 0,
            slots: (0..LEVELS * SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; LEVELS],
            len: 0,
        }
    }
}

impl<T> Queue<T> {
    /// An empty queue at the origin of time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files an event. A time before the one last popped counts as that one.
    pub fn push(&mut self, at: Time, event: T) {
        let at = at.as_micros().max(self.last);
        self.len += 1;
        if at >= self.near_end {
            return self.file(at, event);
        }
        let behind = self.near.partition_point(|(t, _)| *t <= at);
        self.near.insert(behind, (at, event));
        if self.near.len() > 2 * FEW && self.near_end > self.last + 1 {
            self.spill();
        }
    }

    /// Takes the first event.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        while self.near.is_empty() {
            self.open()?;
        }
        let (at, event) = self.near.pop_front()?;
        self.last = at;
        self.len -= 1;
        Some((Time::from_micros(at), event))
    }

    fn file(&mut self, at: u64, event: T) {
        let differ = at ^ self.base;
        let level = (63 - (differ | 1).leading_zeros()) / BITS;
        let slot = (at >> (level * BITS)) as usize % SLOTS;
        self.occupied[level as usize] |= 1 << slot;
        self.slots[level as usize * SLOTS + slot].push((at, event));
    }

    /// Opens the earliest slot: its events come to lie in `near` or on lower levels.
    fn open(&mut self) -> Option<()> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        self.occupied[level] &= !(1 << slot);
        let mut events = std::mem::take(&mut self.slots[level * SLOTS + slot]);

        let shift = level as u32 * BITS;
        let above = self
            .base
            .checked_shr(shift + BITS)
            .map_or(0, |digits| digits << (shift + BITS));
        self.base = above | (slot as u64) << shift;
        if level == 0 || events.len() <= FEW {
            if level > 0 {
                events.sort_by_key(|(at, _)| *at);
            }
            self.near_end = self.base.saturating_add(1 << shift);
            self.near.extend(events.drain(..));
        } else {
            self.near_end = self.base;
            for (at, event) in events.drain(..) {
                self.file(at, event);
            }
        }
        if events.capacity() <= KEEP {
            self.slots[level * SLOTS + slot] = events;
        }
        Some(())
    }

    /// Files what lies in `near` anew when it has become too long to insert into. The levels below
    /// the slot it came from are empty, so order is kept.
    fn spill(&mut self) {
        self.base = self.last;
        self.near_end = self.last + 1;
        let stay = self.near.partition_point(|(at, _)| *at == self.last);
        for (at, event) in self.near.split_off(stay) {
            self.file(at, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Runs the same pushes and pops on the wheel and on a heap of (time, sequence).
    fn check(steps: &[(u64, bool)]) {
        let mut wheel = Queue::new();
        let mut heap = BinaryHeap::new();
        let mut now = 0;
        let mut pop = |wheel: &mut Queue<u64>, heap: &mut BinaryHeap<Reverse<(u64, u64)>>| {
            let expected = heap.pop().map(|Reverse(e)| e);
            let got = wheel.pop().map(|(at, seq)| (at.as_micros(), seq));
            assert_eq!(got, expected);
            expected.map_or(now, |(at, _)| {
                now = at;
                at
            })
        };
        let mut at = 0;
        for (seq, (delay, pops)) in (0..).zip(steps) {
            let when = at + delay;
            wheel.push(Time::from_micros(when), seq);
            heap.push(Reverse((when, seq)));
            if *pops {
                at = pop(&mut wheel, &mut heap);
            }
            assert_eq!(wheel.len(), heap.len());
        }
        while !heap.is_empty() {
            pop(&mut wheel, &mut heap);
        }
        assert_eq!(wheel.pop(), None);
        assert!(wheel.is_empty());
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_heap(
            steps in prop::collection::vec((prop_oneof![0u64..3, 0u64..300, 0u64..100_000_000], any::<bool>()), 0..600)
        ) {
            check(&steps);
        }

        #[test]
        fn crowds_keep_the_order(
            crowd in prop::collection::vec(0u64..50, 200..400),
            later in prop::collection::vec((0u64..70, any::<bool>()), 0..400)
        ) {
            let mut steps: Vec<_> = crowd.into_iter().map(|d| (d * 1000, false)).collect();
            steps.extend(later);
            check(&steps);
        }
    }

    #[test]
    fn a_sparse_slot_that_grows_is_filed_anew() {
        // One event far away opens a slot sixteen seconds wide, which then fills up.
        let mut steps = vec![(40_000_000, false), (41_000_000, true)];
        steps.extend((0..1000u64).map(|i| (i * 7919 % 900_000, i % 3 == 0)));
        check(&steps);
    }

    #[test]
    fn the_end_of_time_and_the_past_are_no_trouble() {
        let mut queue = Queue::new();
        queue.push(Time::FAR, 2);
        queue.push(Time::from_secs(5), 0);
        assert_eq!(queue.pop(), Some((Time::from_secs(5), 0)));
        queue.push(Time::ZERO, 1);
        assert_eq!(queue.pop(), Some((Time::from_secs(5), 1)));
        assert_eq!(queue.pop(), Some((Time::FAR, 2)));
        assert_eq!(queue.pop(), None);
    }
}
