//! Roles: who is measured, who is promoted, who goes back ([`super::balance`] says when).
//!
//! A supernode whose places fill up dials its children at the addresses they tell (which shows who
//! can be reached) and lets each send a few hundred kilobytes (which shows how fast). Of those that
//! are fast enough and have been here long enough the fastest is asked to become a supernode.

use std::time::Duration;

use shoal_base::Time;

use super::links::{Link, Stage};
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::wire::{Message, Purpose, Why};

/// Bytes of one chunk of a measurement.
const CHUNK: u32 = 16 << 10;
/// Bytes that anybody may ask us to send.
const MAX_PROBE: u32 = 1 << 20;
/// Measurements that a node takes part in at once, as the one measured.
const MAX_MEASURED: usize = 2;
/// How long a measurement may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// After how long a child that was asked to become a supernode may be asked again, or another.
const PROMOTE_AGAIN: Duration = Duration::from_secs(15);
/// After how long one that did not do it may be asked again.
const DECLINED: Duration = Duration::from_secs(600);
/// Children measured before the best of them is taken.
const SAMPLE: usize = 8;

/// One measurement over a link.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Bytes still to be sent, and when the next of them.
    sending: Option<(u32, Time)>,
    /// Bytes still awaited, all of them, and since when.
    awaiting: Option<(u32, u32, Time)>,
}

impl Probe {
    pub(super) fn next_chunk(&self) -> Option<Time> {
        self.sending.map(|(_, at)| at)
    }
}

impl<A: Address> Node<A> {
    /// Looks whether another supernode is wanted, or this one is not.
    pub(super) fn consider_roles(&mut self) {
        let children = self.of_stage(Stage::Child);
        if !children.is_empty() {
            self.childless_since = self.now;
        }
        let idle = self.now.since(self.childless_since) >= self.config.idle;
        if self.config.may_change && idle && self.count(Stage::Neighbour) > 0 {
            return self.demote();
        }
        if self.config.may_change && (self.is_slow() || self.is_one_too_many()) {
            return self.demote();
        }
        self.measure_neighbours();
        self.balance();
        if self.load() < self.config.promote_at || children.is_empty() {
            return;
        }
        let now = self.now;
        let asked = |l: &Link<A>| l.promoted.is_some_and(|at| now.since(at) < PROMOTE_AGAIN);
        if self.links.values().any(asked) {
            return;
        }
        let old = |l: &&Link<A>| now.since(l.since) >= self.config.min_uptime;
        let measured = children
            .iter()
            .filter_map(|id| self.links.get(id))
            .filter(|l| l.bandwidth.is_some())
            .count();
        let next = children.iter().find(|id| {
            let link = self.links.get(id);
            link.filter(old).is_some_and(|l| l.bandwidth.is_none())
        });
        if measured < SAMPLE
            && let Some(next) = next
        {
            let probing = self
                .links
                .values()
                .any(|l| l.purpose == Purpose::Probe && l.dialled.is_some());
            let dialling = self.dialling.values().any(|(p, _)| *p == Purpose::Probe);
            if !probing
                && !dialling
                && let Some(addr) = self.links.get(next).and_then(Link::addr)
            {
                self.dialling.insert(addr, (Purpose::Probe, now));
                self.out.push(Effect::Dial(addr));
            }
            return;
        }
        let best = children
            .iter()
            .filter_map(|id| Some((self.links.get(id)?, *id)))
            .filter(|(l, _)| l.bandwidth.is_some_and(|b| b >= self.config.min_bandwidth))
            .filter(|(l, _)| old(l))
            .filter(|(l, _)| l.promoted.is_none_or(|at| now.since(at) >= DECLINED))
            .max_by_key(|(l, id)| (l.bandwidth, std::cmp::Reverse(*id)))
            .map(|(_, id)| id);
        if let Some(id) = best {
            self.send(id, Message::Promote);
            if let Some(link) = self.links.get_mut(&id) {
                link.promoted = Some(now);
                // Who does not do it is measured again before it is asked again.
                link.bandwidth = None;
            }
        }
    }

    /// We dialled a child to measure it, and it let us in.
    pub(super) fn begin_measuring(&mut self, id: LinkId) {
        let (bytes, now) = (self.config.probe_bytes, self.now);
        if let Some(link) = self.links.get_mut(&id) {
            link.probe.awaiting = Some((bytes, bytes, now));
        }
        self.send(id, Message::Probe(bytes));
    }

    /// Bytes of a measurement came.
    pub(super) fn measure(&mut self, id: LinkId, bytes: usize) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some((left, all, since)) = &mut link.probe.awaiting else {
            return self.strike(id);
        };
        *left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        if *left > 0 {
            return;
        }
        let took = now.since(*since).as_secs_f64().max(1e-4);
        let rate = (f64::from(*all) / took) as u64;
        link.bandwidth = Some(rate);
        self.close(id);
    }

    /// A measurement that we made is over, well or not: the child that is meant remembers it, a
    /// neighbour is told.
    pub(super) fn probe_ended(&mut self, link: &Link<A>) {
        let Some(theirs) = &link.theirs else {
            return;
        };
        let (key, rate) = (theirs.token.key, link.bandwidth.unwrap_or(0));
        let addr = theirs.links;
        let of = |l: &Link<A>, stage| {
            l.stage == stage && l.theirs.as_ref().is_some_and(|p| p.token.key == key)
        };
        let child = self.links.values_mut().find(|l| of(l, Stage::Child));
        if let Some(child) = child {
            child.bandwidth = Some(rate);
            self.tell(Event::Measured(addr, rate));
        }
        let neighbour = self.links.iter().find(|(_, l)| of(l, Stage::Neighbour));
        if let Some(id) = neighbour.map(|(id, _)| *id) {
            self.send(id, Message::Measured(rate));
        }
    }

    /// A child or a neighbour cannot be reached at the address it tells.
    pub(super) fn unreachable(&mut self, addr: A) {
        // Several that cannot be reached may tell the same address: that none listens at.
        let of = |l: &&mut Link<A>| l.stage == Stage::Child && l.addr() == Some(addr);
        for child in self.links.values_mut().filter(of) {
            child.bandwidth = Some(0);
        }
        let neighbours = self.of_stage(Stage::Neighbour).into_iter();
        let there = |id: &LinkId| self.links.get(id).and_then(Link::addr) == Some(addr);
        for id in neighbours.filter(there).collect::<Vec<_>>() {
            self.send(id, Message::Measured(0));
        }
        self.tell(Event::Measured(addr, 0));
    }

    /// Somebody measures us.
    pub(super) fn be_measured(&mut self, id: LinkId, bytes: u32) {
        let busy = self
            .links
            .values()
            .filter(|l| l.probe.sending.is_some())
            .count();
        let now = self.now;
        if let Some(link) = self.links.get_mut(&id)
            && link.dialled.is_none()
            && busy < MAX_MEASURED
        {
            link.probe.sending = Some((bytes.min(MAX_PROBE), now));
            self.send_chunks();
        } else {
            self.strike(id);
        }
    }

    /// Sends what of the measurements is due.
    pub(super) fn send_chunks(&mut self) {
        let now = self.now;
        let limit = self.config.up_limit;
        let mut chunks = Vec::new();
        let mut late = Vec::new();
        for (id, link) in &mut self.links {
            while let Some((left, at)) = link.probe.sending.filter(|(_, at)| *at <= now) {
                let n = left.min(CHUNK);
                chunks.push((*id, n));
                let wait = limit.map_or(0.0, |rate| f64::from(n) / (rate.max(1) as f64));
                let next = at + Duration::from_secs_f64(wait);
                link.probe.sending = (left > n).then_some((left - n, next));
            }
            if link.stage == Stage::Probe && now.since(link.since) >= PATIENCE {
                late.push(*id);
            }
        }
        for (id, n) in chunks {
            self.send(id, Message::Chunk(vec![0; n as usize]));
        }
        late.into_iter().for_each(|id| self.close(id));
        self.next_chunk = self.first_chunk();
    }

    /// Whether it becomes a supernode when it is asked to: who knows that others cannot reach it does not.
    pub fn set_may_rise(&mut self, may: bool) {
        self.may_rise = may;
    }

    /// Our supernode asks us to become one: it is the first neighbour.
    pub(super) fn promoted(&mut self, parent: LinkId) {
        if !self.config.may_change || !self.may_rise {
            return;
        }
        let home = self.home();
        self.role = Role::Supernode;
        self.role_since = self.now;
        self.childless_since = self.now;
        self.next_tell = self.now;
        self.next_ask = self.now;
        self.parent = None;
        self.index_own();
        self.forget_doors();
        self.close(parent);
        if let Some(home) = home {
            self.dialling.insert(home, (Purpose::Neighbour, self.now));
            self.out.push(Effect::Dial(home));
        }
        self.renew_place();
        self.tell(Event::Role(Role::Supernode));
    }

    /// Nobody needs this supernode: it is an ordinary peer again.
    fn demote(&mut self) {
        self.register(u8::MAX);
        self.role = Role::Peer;
        self.index_own();
        self.measured.clear();
        self.forget_doors();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.refuse(id, Why::Leaving);
        }
        self.tell(Event::Role(Role::Peer));
        self.forgive();
        self.find_links();
    }
}
