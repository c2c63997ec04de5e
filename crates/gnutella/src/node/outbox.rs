//! What waits to be sent to one neighbour: bounded, and the least useful goes first.

use std::collections::VecDeque;

use crate::message::{Kind, Packet};

/// How much a message is worth while others wait; the first is sent first and never dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Tables, vendor messages, Bye.
    Control,
    /// Hits and pushes: much was spent to find them.
    Answer,
    /// Queries.
    Query,
    /// Pings and pongs.
    Ping,
}

const CLASSES: usize = 4;

impl Class {
    fn of(packet: &Packet) -> Self {
        match packet.header().known() {
            Some(Kind::Hit | Kind::Push) => Self::Answer,
            Some(Kind::Query) => Self::Query,
            Some(Kind::Ping | Kind::Pong) => Self::Ping,
            _ => Self::Control,
        }
    }
}

/// A neighbour's queue.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queues: [VecDeque<Packet>; CLASSES],
    bytes: usize,
    /// Our user was told that something waits.
    pub(super) told: bool,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether messages wait that must not be dropped.
    pub(super) fn has_control(&self) -> bool {
        self.queues.first().is_some_and(|q| !q.is_empty())
    }

    /// Adds a message, and drops the least useful until `most` bytes wait. Says how many were
    /// dropped; none if what must not be dropped is too much.
    pub(super) fn push(&mut self, packet: Packet, most: usize) -> Option<u64> {
        let class = Class::of(&packet);
        self.bytes += packet.bytes().len();
        if let Some(queue) = self.queues.get_mut(class as usize) {
            queue.push_back(packet);
        }
        let mut dropped = 0;
        while self.bytes > most {
            // The oldest of the lowest class: fresh queries find those who still wait for answers.
            let (_, droppable) = self.queues.split_first_mut()?;
            let queue = droppable.iter_mut().rev().find(|q| !q.is_empty())?;
            let packet = queue.pop_front()?;
            self.bytes -= packet.bytes().len();
            dropped += 1;
        }
        Some(dropped)
    }

    /// The next message to send.
    pub(super) fn pop(&mut self) -> Option<Packet> {
        let queue = self.queues.iter_mut().find(|q| !q.is_empty())?;
        let packet = queue.pop_front()?;
        self.bytes -= packet.bytes().len();
        Some(packet)
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        self.queues = Default::default();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guid::Guid;

    fn packet(kind: Kind, n: u8) -> Packet {
        Packet::ours(kind, Guid([n; 16]), 1, &[n; 77])
    }

    #[test]
    fn what_is_worth_least_is_dropped_first() {
        let mut out = Outbox::default();
        for n in 0..4 {
            assert_eq!(out.push(packet(Kind::Ping, n), 1000), Some(0));
            assert_eq!(out.push(packet(Kind::Query, n), 1000), Some(0));
        }
        for n in 0..6 {
            out.push(packet(Kind::Hit, n), 1000);
        }
        assert!(out.bytes() <= 1000);
        out.push(packet(Kind::Route, 9), 1000);
        let order: Vec<u8> = std::iter::from_fn(|| out.pop())
            .map(|p| p.header().kind)
            .collect();
        assert_eq!(order[0], Kind::Route.byte());
        assert_eq!(order.iter().filter(|k| **k == Kind::Hit.byte()).count(), 6);
        assert_eq!(
            order.iter().filter(|k| **k == Kind::Query.byte()).count(),
            3
        );
        assert_eq!(order.len(), 10);
        assert_eq!(out.bytes(), 0);
    }

    #[test]
    fn what_must_not_be_dropped_says_so() {
        let mut out = Outbox::default();
        let all: Option<u64> = (0..11)
            .map(|n| out.push(packet(Kind::Route, n), 1000))
            .sum();
        assert_eq!(all, None);
    }
}
