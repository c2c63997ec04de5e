//! An iterative lookup: who was asked, and who is asked next.

use super::super::message::{Address, Contact, LookupError, Message, Output, Query};
use super::super::node::{Node, Why};
use super::super::ring::RingId;
use super::{ALTERNATIVES, Asked};
use shoal_base::Time;
use std::collections::VecDeque;

/// How far an iterative lookup has come.
#[derive(Clone, Debug)]
pub(super) struct Walk<I, A> {
    /// Who answered, each told by the one before.
    pub(super) trail: Vec<Passed<I, A>>,
    /// How many of one's own next hops were tried.
    pub(super) skip: u16,
    /// Next hops not tried yet.
    pub(super) next: VecDeque<Contact<I, A>>,
    /// They are taken for the owner.
    pub(super) last: bool,
    pub(super) timeouts: u16,
}

/// A node that answered an iterative query.
#[derive(Clone, Debug)]
pub(super) struct Passed<I, A> {
    pub(super) node: Contact<I, A>,
    /// How many of its next hops were tried.
    pub(super) skip: u16,
    /// It was taken for the owner.
    pub(super) last: bool,
}

impl<I: RingId, A: Address> Node<I, A> {
    /// Takes the next step of an iterative lookup.
    pub(super) fn advance(&mut self, now: Time, number: u32, out: &mut Vec<Output<I, A>>) {
        let limit = self.config.hop_limit;
        let Some(active) = self.active_mut(number) else {
            return;
        };
        let walk = &mut active.walk;
        let trail = u32::try_from(walk.trail.len()).unwrap_or(u32::MAX);
        let (node, fresh, last, skip, hops);
        if let Some(next) = walk.next.pop_front() {
            if trail >= limit {
                return self.finish(now, number, Err(LookupError::HopLimit), out);
            }
            let tried = walk
                .trail
                .last_mut()
                .map_or(&mut walk.skip, |top| &mut top.skip);
            *tried = tried.saturating_add(1);
            (node, fresh, last, skip, hops) = (next, true, walk.last, 0, trail + 1);
        } else if let Some(top) = walk.trail.last() {
            (node, fresh, last, skip, hops) = (top.node, false, top.last, top.skip, trail);
        } else {
            return self.begin_walk(now, number, out);
        }
        let timeouts = walk.timeouts;
        let Some(active) = self.active(number) else {
            return;
        };
        let query = Query {
            last,
            skip,
            hops,
            timeouts,
            trace: None,
            ..self.own_query(active)
        };
        // Nobody else can be asked in a door's place.
        let only = fresh && trail == 0 && self.active(number).is_some_and(|a| a.via.is_some());
        let asked = Asked {
            node,
            fresh,
            only,
            query,
        };
        let first = asked.query(0);
        let message = |nonce, _: &Why<I, A>| Message::Query(Query { nonce, ..first });
        self.request(now, node.addr, Why::Ask(Box::new(asked)), message, out);
    }

    /// Asks one's own tables where an iterative lookup goes first, or goes when all else failed.
    pub(super) fn begin_walk(&mut self, now: Time, number: u32, out: &mut Vec<Output<I, A>>) {
        let Some(active) = self.active(number) else {
            return;
        };
        if let Some(via) = active.via {
            if active.walk.skip > 0 {
                return self.finish(now, number, Err(LookupError::DeadEnd), out);
            }
            // Where it stands on the circle is not known, nor does it matter.
            let door = Contact::new(active.key, via);
            if let Some(active) = self.active_mut(number) {
                active.walk.next.push_back(door);
            }
            return self.advance(now, number, out);
        }
        let mut query = self.own_query(active);
        query.skip = active.walk.skip;
        query.timeouts = active.walk.timeouts;
        query.trace = None;
        match self.guide(&query) {
            Message::Found { mut found, .. } => {
                if active.lookup.trace {
                    found.path.push(self.tables.me);
                }
                self.finish(now, number, Ok(found), out);
            }
            Message::Next { hops, last, .. } if !hops.is_empty() => {
                if let Some(active) = self.active_mut(number) {
                    active.walk.next = hops.into_vec().into();
                    active.walk.last = last;
                }
                self.advance(now, number, out);
            }
            _ => self.finish(now, number, Err(LookupError::DeadEnd), out),
        }
    }

    /// The node asked names the next hops.
    pub(in crate::chord) fn on_next(
        &mut self,
        now: Time,
        from: A,
        nonce: u32,
        hops: &[Contact<I, A>],
        last: bool,
        out: &mut Vec<Output<I, A>>,
    ) {
        let Some(Why::Ask(asked)) =
            self.take_request(from, nonce, |why| matches!(why, Why::Ask(_)))
        else {
            return;
        };
        let number = asked.query.number;
        let Some(active) = self.active_mut(number) else {
            return;
        };
        let walk = &mut active.walk;
        if asked.fresh {
            walk.trail.push(Passed {
                node: asked.node,
                skip: 0,
                last: asked.query.last,
            });
        }
        if hops.is_empty() {
            // It knows nobody else; the one before may.
            walk.trail.pop();
        }
        walk.next = hops.iter().take(ALTERNATIVES).copied().collect();
        walk.last = last;
        self.advance(now, number, out);
    }

    /// The node asked does not answer.
    pub(in crate::chord) fn on_asked_lost(
        &mut self,
        now: Time,
        asked: &Asked<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let number = asked.query.number;
        if let Some(active) = self.active_mut(number) {
            active.walk.timeouts = active.walk.timeouts.saturating_add(1);
            if !asked.fresh {
                active.walk.trail.pop();
            }
            self.advance(now, number, out);
        }
    }
}
