//! What a machine waits for. Most of it comes in the order in which it was set, however much there is
//! (watches after a constant time, bytes on a line one after the other), and needs no sorting.

use super::Message;
use shoal_base::Time;
use shoal_mapreduce::id::AttemptId;
use std::collections::{BTreeMap, VecDeque};

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Timer {
    Done(AttemptId),
    ConnectTimeout(u64),
    /// The last byte of the answer to this request of that machine leaves.
    Sent(u32, u64, Message),
    /// The last byte of an answer is here.
    Arrived(Message),
    Watch(u64),
}

/// All of a machine's timers, in order of time, those of one time in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: u64,
    lines: [VecDeque<(Time, u64, Timer)>; 3],
    /// Those that come in any order.
    sorted: BTreeMap<(Time, u64), Timer>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Time, timer: Timer) {
        self.set += 1;
        let line = match &timer {
            Timer::Sent(..) => 0,
            Timer::Arrived(_) => 1,
            Timer::Watch(_) => 2,
            Timer::Done(_) | Timer::ConnectTimeout(_) => {
                self.sorted.insert((at, self.set), timer);
                return;
            }
        };
        if let Some(line) = self.lines.get_mut(line) {
            debug_assert!(line.back().is_none_or(|(last, ..)| *last <= at), "in order");
            line.push_back((at, self.set, timer));
        }
    }

    /// When the first one comes.
    pub(super) fn first(&self) -> Option<Time> {
        self.first_key().map(|(at, _)| at)
    }

    fn first_key(&self) -> Option<(Time, u64)> {
        let lines = self.lines.iter().filter_map(VecDeque::front);
        let lines = lines.map(|(at, set, _)| (*at, *set));
        lines.chain(self.sorted.keys().next().copied()).min()
    }

    /// Takes the first one out if its time has come.
    pub(super) fn pop(&mut self, now: Time) -> Option<Timer> {
        let key = self.first_key().filter(|(at, _)| *at <= now)?;
        let is_first = |line: &VecDeque<(Time, u64, Timer)>| {
            line.front().is_some_and(|(at, set, _)| (*at, *set) == key)
        };
        match self.lines.iter_mut().find(|line| is_first(line)) {
            Some(line) => line.pop_front().map(|(.., timer)| timer),
            None => self.sorted.remove(&key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_all_kinds_come_in_order_of_time_and_then_as_they_were_set() {
        let mut timers = Timers::default();
        let at = Time::from_secs;
        timers.set(at(3), Timer::Watch(0));
        timers.set(at(2), Timer::ConnectTimeout(1));
        timers.set(at(2), Timer::Arrived(Message::Open(2)));
        timers.set(at(1), Timer::Sent(0, 3, Message::Open(0)));
        timers.set(at(2), Timer::ConnectTimeout(4));
        timers.set(at(3), Timer::Watch(5));
        assert_eq!(timers.first(), Some(at(1)));
        assert!(timers.pop(Time::ZERO).is_none());
        let all: Vec<u64> = std::iter::from_fn(|| timers.pop(at(9)))
            .map(|timer| match timer {
                Timer::Watch(n) | Timer::ConnectTimeout(n) | Timer::Sent(_, n, _) => n,
                Timer::Arrived(Message::Open(n)) => n,
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(all, [3, 1, 2, 4, 0, 5]);
        assert_eq!(timers.first(), None);
    }
}
