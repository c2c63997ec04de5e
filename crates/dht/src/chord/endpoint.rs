//! A node of a Chord ring on datagrams: one or more ring positions, sessions with keys, storage
//! with replicas and repair, subscriptions, keywords; and the [`Dht`] interface over all of it.

mod doors;
mod ops;
mod questions;
mod repair;
mod serve;
mod topics;
mod words;

use super::config::Config;
use super::links::{Arrived, Event, Links, Waiting};
use super::message::{Contact, JoinError, Message, Output as RingOutput};
use super::node::Node;
use super::place::{Place, position};
use super::store::{Limits, Store};
use super::wire::{self, Ask, Body, Ends};
use crate::{Dht, Id, Judge, OpId, Output, Request};
use ed25519_dalek::SigningKey;
use ops::Op;
use repair::Transfers;
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use topics::Topic;

/// A socket address that nobody has: that of a ring position in this process.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// How often what has ended is thrown away.
const SWEEP: Duration = Duration::from_secs(60);

/// Notices kept until somebody takes them.
const MAX_NOTICES: usize = 64;

/// How an endpoint behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names the ring: nodes of other rings are not answered.
    pub ring: String,
    /// Who does not know it cannot join; empty for an open ring.
    pub secret: Vec<u8>,
    /// Asks, but joins no ring and keeps nothing for others: right for what runs but a moment.
    pub guest: bool,
    /// Ring positions of this process, 1 to 64. More of them even out the load.
    pub positions: u8,
    /// How many nodes keep each item, the owner included.
    pub replicas: u8,
    /// Lists and times of each position.
    pub chord: Config,
    /// How much is kept for others.
    pub limits: Limits,
    /// Makes it a ring of certified values, and of nothing else: says which hold, and how long.
    pub judge: Option<Judge>,
    /// How long one answer is waited for.
    pub timeout: Duration,
    /// How often a kept item is published again; each time from half to all of it.
    pub republish: Duration,
    /// How often a subscription is renewed, jittered alike.
    pub renew: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ring: "shoal".into(),
            secret: Vec::new(),
            guest: false,
            positions: 1,
            replicas: 4,
            chord: Config::default(),
            limits: Limits::default(),
            judge: None,
            timeout: Duration::from_secs(1),
            republish: Duration::from_secs(3600),
            renew: Duration::from_secs(30),
        }
    }
}

/// What besides [`Output`] is worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A ring was joined, or begun.
    Joined,
    /// Joining failed; it is tried again.
    NotJoined(JoinError),
}

/// A node of a ring on datagrams. See [`Dht`] for what to do with it.
pub struct Endpoint {
    settings: Settings,
    links: Links,
    nodes: Vec<Node<Id, Place>>,
    /// Members to join at; a guest's doors.
    bootstrap: Vec<SocketAddr>,
    /// Which door a guest tries first.
    turn: usize,
    rejoin: (Time, u32),
    /// When a member next tries a door, and how long after that, in multiples of the first wait.
    probe: (Time, u32),
    rng: Rng,
    store: Store,
    asked: BTreeMap<u32, Asked>,
    ops: BTreeMap<OpId, Op>,
    next_op: u32,
    /// Which operation a lookup of which position is for.
    lookups: BTreeMap<(usize, u32), OpId>,
    topics: BTreeMap<Id, Topic>,
    transfers: Transfers,
    sweep: Time,
    /// Between positions of this process: to, from, message.
    inner: VecDeque<(usize, usize, Message<Id, Place>)>,
    /// Questions to ourselves.
    own_questions: VecDeque<(u32, Ask)>,
    notices: VecDeque<Notice>,
    events: Vec<Event>,
}

/// A question that waits for its answer.
struct Asked {
    to: Place,
    /// Without a position the key at the address does not matter.
    any: bool,
    body: Vec<u8>,
    due: Time,
    sent: u8,
    purpose: Purpose,
}

/// What a question is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Op(OpId),
    Transfer(Id),
    /// Whether a copy is where it should be.
    Check,
    Renew(Id),
    Push(Id),
}

impl Endpoint {
    /// A node that stands at the ring positions of `secret`'s key, in no ring yet. `rng` must not
    /// be guessable.
    pub fn new(secret: SigningKey, settings: Settings, mut rng: Rng) -> Self {
        let links = Links::new(secret, &settings.ring, &settings.secret, rng.fork());
        let mut chord = settings.chord.clone();
        chord.successors = chord.successors.clamp(1, wire::MAX_CONTACTS);
        let config = Arc::new(chord);
        let node = |index| {
            let id = position(&links.public, index);
            let place = Place {
                id,
                index,
                socket: HERE,
            };
            Node::new(Contact::new(id, place), config.clone(), rng.next_u64())
        };
        let nodes = (0..settings.positions.clamp(1, 64)).map(node).collect();
        Self {
            store: Store::new(settings.limits.clone(), settings.judge.clone()),
            settings,
            links,
            nodes,
            bootstrap: Vec::new(),
            turn: 0,
            rejoin: (Time::FAR, 0),
            probe: (Time::ZERO, 1),
            rng,
            asked: BTreeMap::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            lookups: BTreeMap::new(),
            topics: BTreeMap::new(),
            transfers: Transfers::default(),
            sweep: Time::ZERO,
            inner: VecDeque::new(),
            own_questions: VecDeque::new(),
            notices: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Its ring positions.
    pub fn positions(&self) -> &[Node<Id, Place>] {
        &self.nodes
    }

    /// How many items it keeps for others.
    pub fn items(&self) -> usize {
        self.store.items.len()
    }

    /// How many keys with peers it keeps, and how many peers.
    pub fn peers(&self) -> (usize, usize) {
        self.store.peer_counts()
    }

    /// How many words it keeps records under, and how many records.
    pub fn words(&self) -> (usize, usize) {
        self.store.word_counts()
    }

    /// Whether it keeps the item at `target`.
    pub fn holds(&self, target: Id) -> bool {
        self.store.items.contains_key(&target)
    }

    /// How many addresses it has sessions with.
    pub fn sessions(&self) -> usize {
        self.links.count()
    }

    /// Nothing waits for an answer from others.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.lookups.is_empty()
    }

    /// About how many bytes its tables and stores take.
    pub fn memory(&self) -> usize {
        let nodes: usize = self.nodes.iter().map(Node::memory).sum();
        nodes + self.links.memory() + self.store.memory()
    }

    /// What happened besides the outputs, the oldest first.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Lets a position do something and sees to what comes of it.
    fn at<T>(
        &mut self,
        now: Time,
        index: usize,
        act: impl FnOnce(&mut Node<Id, Place>, &mut Vec<RingOutput<Id, Place>>) -> T,
        out: &mut Vec<Output>,
    ) -> Option<T> {
        let mut outputs = Vec::new();
        let result = act(self.nodes.get_mut(index)?, &mut outputs);
        for output in outputs {
            self.on_ring(now, index, output, out);
        }
        Some(result)
    }

    fn on_ring(
        &mut self,
        now: Time,
        index: usize,
        output: RingOutput<Id, Place>,
        out: &mut Vec<Output>,
    ) {
        match output {
            RingOutput::Send { to, message } => {
                if let Some(own) = self.own(to.id) {
                    self.inner.push_back((own.into(), index, message));
                    return;
                }
                let body = Body::Ring {
                    to: to.index,
                    from: index as u8,
                    message,
                };
                let body = self.encode(&body);
                self.send(now, to, body, out);
            }
            RingOutput::Lookup { number, result } => {
                if let Some(op) = self.lookups.remove(&(index, number)) {
                    self.on_lookup(now, op, result, out);
                }
            }
            RingOutput::Joined(Ok(())) => {
                if index == 0 {
                    self.notify(Notice::Joined);
                    self.rejoin = (Time::FAR, 0);
                    let via = self.nodes.first().map(|n| n.me().addr);
                    for other in 1..self.nodes.len() {
                        if let Some(via) = via {
                            self.at(now, other, |n, outs| n.join(now, via, outs), out);
                        }
                    }
                }
                self.ring_changed(now);
            }
            RingOutput::Joined(Err(error)) => {
                if index == 0 {
                    self.notify(Notice::NotJoined(error));
                    self.rejoin_soon(now);
                } else if let Some(via) = self.nodes.first().map(|n| n.me().addr)
                    && self.is_member()
                {
                    self.at(now, index, |n, outs| n.join(now, via, outs), out);
                }
            }
            RingOutput::Predecessor(predecessor) => {
                self.predecessor_changed(now, index, predecessor);
            }
            RingOutput::Successors => self.ring_changed(now),
            RingOutput::Alone => {
                // It keeps what it has and is a ring of its own until it meets others again.
                self.ring_changed(now);
                self.probe = (now, 1);
            }
        }
    }

    /// Under which index a ring position is one of this process.
    fn own(&self, id: Id) -> Option<u8> {
        let at = self.nodes.iter().position(|n| n.me().id == id)?;
        u8::try_from(at).ok()
    }

    /// Keeps a notice for the driver; the oldest go if nobody takes them.
    fn notify(&mut self, notice: Notice) {
        if self.notices.len() >= MAX_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    fn encode(&self, body: &Body) -> Vec<u8> {
        wire::encode(body, &|id| self.own(id))
    }

    /// Sends a body to whoever proves to be at `to`.
    fn send(&mut self, now: Time, to: Place, body: Vec<u8>, out: &mut Vec<Output>) {
        let token = Some(to);
        match self.links.key_of(to.socket) {
            Some(key) if position(&key, to.index) != to.id => {
                self.events
                    .push(Event::Unreachable(to.socket, vec![Waiting { body, token }]));
            }
            _ => {
                let waiting = Waiting { body, token };
                self.links.send(now, to.socket, waiting, out);
            }
        }
    }

    /// Takes an authenticated body.
    fn on_body(&mut self, now: Time, from: SocketAddr, arrived: &Arrived, out: &mut Vec<Output>) {
        if arrived.fresh {
            self.began_anew(now, &arrived.key);
        }
        let ends = Ends {
            socket: from,
            key: &arrived.key,
        };
        let Ok(body) = wire::decode(&arrived.body, &ends) else {
            return;
        };
        match body {
            Body::Ring {
                to,
                from: index,
                message,
            } => {
                let id = position(&arrived.key, index);
                let from = Place {
                    id,
                    index,
                    socket: from,
                };
                self.at(
                    now,
                    to.into(),
                    |node, outs| node.on_message(now, from, message, outs),
                    out,
                );
            }
            Body::Ask { number, ask } => {
                let reply = self.answer(now, from, &arrived.key, ask, out);
                let body = self.encode(&Body::Reply { number, reply });
                let waiting = Waiting { body, token: None };
                self.links.send(now, from, waiting, out);
            }
            Body::Reply { number, reply } => {
                let fits = |a: &mut Asked| a.to.socket == from;
                if self.asked.get_mut(&number).is_some_and(fits)
                    && let Some(asked) = self.asked.remove(&number)
                {
                    self.on_reply(now, &asked, Some(reply), out);
                }
            }
        }
    }

    /// Does what the steps so far have left to do, until nothing is left.
    fn settle(&mut self, now: Time, out: &mut Vec<Output>) {
        loop {
            if let Some((to, from, message)) = self.inner.pop_front() {
                if let Some(from) = self.nodes.get(from).map(|n| n.me().addr) {
                    self.at(
                        now,
                        to,
                        |n, outs| n.on_message(now, from, message, outs),
                        out,
                    );
                }
            } else if let Some((number, ask)) = self.own_questions.pop_front() {
                let key = self.links.public;
                let reply = self.answer(now, HERE, &key, ask, out);
                if let Some(asked) = self.asked.remove(&number) {
                    self.on_reply(now, &asked, Some(reply), out);
                }
            } else if let Some(event) = self.events.pop() {
                self.on_event(now, event, out);
            } else {
                break;
            }
        }
    }

    fn on_event(&mut self, now: Time, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::Ready(socket, key, waiting) => {
                for waiting in waiting {
                    match waiting.token {
                        Some(place) => self.send(now, place, waiting.body, out),
                        None if waiting.body.is_empty() => {}
                        None => self.links.send(now, socket, waiting, out),
                    }
                }
                self.began_anew(now, &key);
                self.join_at(now, socket, &key, out);
                self.merge_at(now, socket, &key, out);
                self.at_door(now, socket, Some(&key), out);
            }
            Event::Unreachable(socket, waiting) => {
                let mut places: Vec<Place> = waiting.iter().filter_map(|w| w.token).collect();
                places.sort();
                places.dedup();
                for place in places {
                    for i in 0..self.nodes.len() {
                        self.at(
                            now,
                            i,
                            |n, outs| {
                                n.on_silent(now, place);
                                n.on_unreachable(now, place, outs);
                            },
                            out,
                        );
                    }
                    self.fail_questions(now, |a| !a.any && a.to == place, out);
                }
                self.fail_questions(now, |a| a.any && a.to.socket == socket, out);
                self.at_door(now, socket, None, out);
                if self.rejoin.0 != Time::FAR
                    && self.bootstrap.contains(&socket)
                    && !self.is_member()
                {
                    self.notify(Notice::NotJoined(JoinError::NoAnswer));
                    self.try_join(now, out);
                }
            }
        }
    }

    /// Uniformly from half to all of `period` after `now`, so that what began together does not
    /// stay together.
    fn later(&mut self, now: Time, period: Duration) -> Time {
        now + period.mul_f64(0.5 + self.rng.unit() / 2.0)
    }
}

impl Dht for Endpoint {
    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Output>) -> OpId {
        let op = self.begin(now, request, out);
        self.settle(now, out);
        op
    }

    fn cancel(&mut self, now: Time, op: OpId, out: &mut Vec<Output>) {
        self.ops.remove(&op);
        for topic in self.topics.values_mut() {
            topic.local.retain(|local| *local != op);
        }
        self.settle(now, out);
    }

    fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        let mut events = std::mem::take(&mut self.events);
        let arrived = self.links.on_datagram(now, from, bytes, &mut events, out);
        self.events = events;
        if let Some(arrived) = arrived {
            self.on_body(now, from, &arrived, out);
        }
        self.settle(now, out);
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut events = std::mem::take(&mut self.events);
        self.links.on_tick(now, &mut events, out);
        self.events = events;
        self.settle(now, out);
        for i in 0..self.nodes.len() {
            if self
                .nodes
                .get(i)
                .and_then(Node::deadline)
                .is_some_and(|d| d <= now)
            {
                self.at(now, i, |n, outs| n.on_tick(now, outs), out);
            }
        }
        self.settle(now, out);
        if self.rejoin.0 <= now {
            self.try_join(now, out);
        }
        self.probe_doors(now, out);
        self.tick_questions(now, out);
        self.tick_ops(now, out);
        self.tick_topics(now, out);
        self.tick_repair(now, out);
        if self.sweep <= now {
            self.sweep = now + SWEEP;
            self.store.expire(now);
            self.links.sweep(now);
        }
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let nodes = self.nodes.iter().filter_map(Node::deadline).min();
        let asked = self.asked.values().map(|a| a.due).min();
        let rest = [
            self.links.deadline(),
            asked,
            self.ops_deadline(),
            self.topics_deadline(),
            self.repair_deadline(),
            Some(self.rejoin.0.min(self.sweep).min(self.probe.0)),
        ];
        rest.into_iter().fold(nodes, earliest)
    }
}
