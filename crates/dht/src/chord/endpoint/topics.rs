//! Subscriptions: a tree towards the key's owner (as Scribe does it, Rowstron et al. 2001).
//!
//! Who subscribes tells the next node on the way to the owner, which keeps it as a child and
//! subscribes in its turn, so that the owner has few children however many subscribe. A new value
//! runs down the tree. Leases are renewed to whoever is the next node by then; a renewal names the
//! sequence number known, and is answered by a newer value if one was missed.

use super::super::message::{Route, Want};
use super::super::place::Place;
use super::super::wire::{Ask, Refusal, Reply};
use super::super::{RingId, Standing};
use super::{Endpoint, HERE, Purpose};
use crate::{Answer, Id, Item, OpId, Output};
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a child is kept without a renewal.
const LEASE: Duration = Duration::from_secs(100);
/// Most topics.
const MAX_TOPICS: usize = 4096;
/// Most children of one topic.
const MAX_CHILDREN: usize = 64;
/// The first wait before a value is pushed again to children that did not answer at all; each is
/// twice as long, and the lease of a child that died ends them.
const PUSH_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_PUSH_AGAIN: Duration = Duration::from_secs(16);

/// One key that somebody here or below wants to hear of.
#[derive(Default)]
pub(super) struct Topic {
    children: BTreeMap<SocketAddr, Time>,
    /// Our own subscriptions.
    pub(super) local: Vec<OpId>,
    /// The newest value known.
    last: Option<Item>,
    renew: Time,
    /// Children that the last value was pushed to in vain, when they are tried again, and how long
    /// after that.
    missed: BTreeSet<SocketAddr>,
    again: Option<(Time, Duration)>,
}

impl Topic {
    /// When it next wants something done.
    fn due(&self) -> Time {
        let again = self.again.map_or(Time::FAR, |(at, _)| at);
        self.renew.min(again)
    }
}

impl Endpoint {
    /// A subscription of our own begins.
    pub(super) fn subscribe(&mut self, now: Time, target: Id, op: OpId, out: &mut Vec<Output>) {
        let topic = self.topics.entry(target).or_default();
        topic.local.push(op);
        if let Some(item) = &topic.last {
            let answer = Answer::Value(item.clone());
            out.push(Output::Answer { op, answer });
        }
        topic.renew = now;
        self.renew(now, target, out);
    }

    /// Somebody subscribes, or renews.
    pub(super) fn subscribed(
        &mut self,
        now: Time,
        from: SocketAddr,
        target: Id,
        seq: Option<i64>,
        out: &mut Vec<Output>,
    ) -> Reply {
        let held = self.store.items.get(&target).map(|h| h.item.clone());
        let full = self.topics.len() >= MAX_TOPICS && !self.topics.contains_key(&target);
        if full || from == HERE {
            return Reply::Refused(Refusal::Full);
        }
        let fresh = !self.topics.contains_key(&target);
        let topic = self.topics.entry(target).or_default();
        if topic.last.is_none() {
            topic.last = held;
        }
        let room = topic.children.len() < MAX_CHILDREN || topic.children.contains_key(&from);
        if room {
            topic.children.insert(from, now + LEASE);
            // The answer brings it what it missed.
            topic.missed.remove(&from);
        }
        let newer = topic.last.clone().filter(|item| item.seq() > seq);
        if fresh {
            self.renew(now, target, out);
        }
        if room {
            Reply::Value(newer)
        } else {
            Reply::Refused(Refusal::Full)
        }
    }

    /// Subscribes at the next node towards the owner; the owner has nobody to tell.
    fn renew(&mut self, now: Time, target: Id, out: &mut Vec<Output>) {
        let next = self.later(now, self.settings.renew);
        let hop = match self.towards(target) {
            Some(place) => Some((place, false)),
            // Through a door, whoever is there.
            None if self.settings.guest => self.door().map(|socket| {
                let id = target;
                let index = 0;
                (Place { id, index, socket }, true)
            }),
            None => None,
        };
        let held = self.store.items.get(&target).map(|h| h.item.clone());
        let Some(topic) = self.topics.get_mut(&target) else {
            return;
        };
        topic.renew = next;
        let seq = topic.last.as_ref().and_then(Item::seq);
        match hop {
            Some((to, any)) => {
                let ask = Ask::Subscribe { target, seq };
                self.ask(now, to, any, ask, Purpose::Renew(target), out);
            }
            None => {
                if let Some(item) = held {
                    self.news(now, &item, HERE, out);
                }
                if !self.is_member() {
                    self.not_heard(now, target, out);
                }
            }
        }
    }

    /// The next node on the way to a key's owner; none if that is here, or nobody is known.
    fn towards(&self, target: Id) -> Option<Place> {
        let members = || {
            let nodes = self.nodes.iter();
            nodes.filter(|n| n.standing() == Standing::Member)
        };
        if members().any(|n| n.owns(target)) {
            return None;
        }
        // From the position nearest before the key, so that each hop comes nearer.
        let nearest = members().min_by_key(|n| n.me().id.distance(target))?;
        let hop = nearest.next_hop(target, Route::Fingers, Want::Owner)?;
        Some(hop.addr)
    }

    /// The next node answered a subscription.
    pub(super) fn renewed(
        &mut self,
        now: Time,
        target: Id,
        reply: Option<Reply>,
        out: &mut Vec<Output>,
    ) {
        match reply {
            Some(Reply::Value(Some(item))) => {
                if item.target() == target && self.store.until(now, &item, Time::FAR).is_some() {
                    // As if pushed.
                    self.own_questions.push_back((0, Ask::Push { item }));
                }
            }
            Some(Reply::Value(None)) => {}
            reply => {
                self.turn = self.turn.wrapping_add(1);
                if reply.is_none() && !self.is_member() {
                    return self.not_heard(now, target, out);
                }
                self.renew_soon(now, target);
            }
        }
    }

    /// The next node is not there, or full: soon again, perhaps elsewhere.
    fn renew_soon(&mut self, now: Time, target: Id) {
        let soon = self.later(now, Duration::from_secs(4));
        if let Some(topic) = self.topics.get_mut(&target) {
            topic.renew = topic.renew.min(soon);
        }
    }

    /// In no ring, and nobody answers: our own subscribers are told, and it is tried again.
    fn not_heard(&mut self, now: Time, target: Id, out: &mut Vec<Output>) {
        let why = self.outside();
        for op in self.topics.get(&target).iter().flat_map(|t| &t.local) {
            let answer = Answer::Done(Err(why.clone()));
            out.push(Output::Answer { op: *op, answer });
        }
        self.renew_soon(now, target);
    }

    /// A child answered a push, or did not. Silence may be loss: it is tried again, and forgotten
    /// when its lease ends. Whoever says no is no child any more.
    pub(super) fn pushed(
        &mut self,
        now: Time,
        target: Id,
        child: SocketAddr,
        reply: Option<&Reply>,
    ) {
        let Some(topic) = self.topics.get_mut(&target) else {
            return;
        };
        match reply {
            Some(Reply::Refused(_)) => {
                topic.children.remove(&child);
            }
            None if topic.children.get(&child).is_some_and(|end| *end > now) => {
                topic.missed.insert(child);
                let first = (now + PUSH_AGAIN, PUSH_AGAIN * 2);
                topic.again.get_or_insert(first);
            }
            _ => {}
        }
    }

    /// Pushes the last value again to the children that missed it.
    fn push_again(&mut self, now: Time, target: Id, pause: Duration, out: &mut Vec<Output>) {
        let Some(topic) = self.topics.get_mut(&target) else {
            return;
        };
        let missed = std::mem::take(&mut topic.missed);
        topic.again = None;
        let live = |c: &SocketAddr| topic.children.get(c).is_some_and(|end| *end > now);
        let missed: Vec<_> = missed.into_iter().filter(live).collect();
        let Some(item) = topic.last.clone().filter(|_| !missed.is_empty()) else {
            return;
        };
        // Whoever misses this too waits longer.
        topic.again = Some((now + pause, (pause * 2).min(LONGEST_PUSH_AGAIN)));
        for child in missed {
            self.push(now, target, child, &item, out);
        }
    }

    fn push(
        &mut self,
        now: Time,
        target: Id,
        socket: SocketAddr,
        item: &Item,
        out: &mut Vec<Output>,
    ) {
        let to = Place {
            id: target,
            index: 0,
            socket,
        };
        let ask = Ask::Push { item: item.clone() };
        self.ask(now, to, true, ask, Purpose::Push(target), out);
    }

    /// Tells a value on, if it is newer than the last: to our own subscribers and down the tree.
    pub(super) fn news(&mut self, now: Time, item: &Item, from: SocketAddr, out: &mut Vec<Output>) {
        let target = item.target();
        let Some(topic) = self.topics.get_mut(&target) else {
            return;
        };
        if topic
            .last
            .as_ref()
            .is_some_and(|last| item.seq() <= last.seq())
        {
            return;
        }
        topic.last = Some(item.clone());
        // What was missed is out of date.
        topic.missed.clear();
        topic.again = None;
        for op in &topic.local {
            let answer = Answer::Value(item.clone());
            out.push(Output::Answer { op: *op, answer });
        }
        let children = topic
            .children
            .iter()
            .filter(|(c, end)| **c != from && **end > now);
        let children: Vec<SocketAddr> = children.map(|(c, _)| *c).collect();
        for socket in children {
            self.push(now, target, socket, item, out);
        }
    }

    pub(super) fn topics_deadline(&self) -> Option<Time> {
        self.topics.values().map(Topic::due).min()
    }

    pub(super) fn tick_topics(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self.topics.iter().filter(|(_, t)| t.due() <= now);
        let due: Vec<Id> = due.map(|(target, _)| *target).collect();
        for target in due {
            let Some(topic) = self.topics.get_mut(&target) else {
                continue;
            };
            if let Some((_, pause)) = topic.again.filter(|(at, _)| *at <= now) {
                self.push_again(now, target, pause, out);
            }
            let Some(topic) = self.topics.get_mut(&target) else {
                continue;
            };
            if topic.renew > now {
                continue;
            }
            topic.children.retain(|_, end| *end > now);
            if topic.children.is_empty() && topic.local.is_empty() {
                self.topics.remove(&target);
            } else {
                self.renew(now, target, out);
            }
        }
    }
}
