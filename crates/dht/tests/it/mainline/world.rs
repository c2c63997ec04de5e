//! A network without sockets: datagrams take time, some are lost, all are counted.

use shoal_base::{Rng, Time};
use shoal_dht::mainline::krpc::{self, Body, Call, Query, Reply, Want};
use shoal_dht::mainline::{Config, Mainline, Node};
use shoal_dht::{Answer, Dht, Failure, Id, OpId, Outcome, Output, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What passed through the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
}

impl std::ops::Sub for Count {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            datagrams: self.datagrams - other.datagrams,
            bytes: self.bytes - other.bytes,
        }
    }
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) nodes: BTreeMap<SocketAddr, Mainline>,
    /// Share of datagrams that are lost.
    pub(crate) loss: f64,
    /// Addresses that neither send nor receive.
    pub(crate) dead: BTreeSet<SocketAddr>,
    /// One-way delay.
    pub(crate) delay: Duration,
    pub(crate) sent: Count,
    /// Datagrams to addresses without a node.
    pub(crate) stray: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Nodes that answer every question with each other, give tokens, and store nothing.
    pub(crate) sybils: BTreeMap<SocketAddr, Id>,
    /// Further addresses of nodes.
    aliases: BTreeMap<SocketAddr, SocketAddr>,
    flying: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    count: u64,
    ticks: BTreeMap<SocketAddr, Time>,
    order: BTreeSet<(Time, SocketAddr)>,
    pub(crate) answers: BTreeMap<(SocketAddr, OpId), Vec<(Time, Answer)>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::from_secs(1),
            rng: Rng::from_seed(seed),
            nodes: BTreeMap::new(),
            loss: 0.0,
            dead: BTreeSet::new(),
            delay: Duration::from_micros(100),
            sent: Count::default(),
            stray: Vec::new(),
            sybils: BTreeMap::new(),
            aliases: BTreeMap::new(),
            flying: BTreeMap::new(),
            count: 0,
            ticks: BTreeMap::new(),
            order: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// `n` nodes on loopback, each knowing the first, twenty minutes after they started one by one.
    pub(crate) fn loopback(seed: u64, n: u16) -> Self {
        let mut world = Self::new(seed);
        for i in 0..n {
            world.add(
                loopback(i),
                Config {
                    bootstrap: vec![loopback(0)],
                    ..Config::default()
                },
            );
            world.run(Duration::from_millis(200));
        }
        world.run(Duration::from_secs(1200));
        world
    }

    /// The same on addresses of the Internet, each in a subnet of its own.
    pub(crate) fn internet(seed: u64, n: u16) -> Self {
        let mut world = Self::new(seed);
        world.delay = Duration::from_millis(25);
        for i in 0..n {
            world.add(
                public(i),
                Config {
                    bootstrap: (0..4).map(public).collect(),
                    ..Config::default()
                },
            );
            world.run(Duration::from_millis(200));
        }
        world.run(Duration::from_secs(1200));
        world
    }

    pub(crate) fn add(&mut self, addr: SocketAddr, config: Config) {
        let node = Mainline::new(self.now, config, None, self.rng.fork());
        self.insert(addr, node);
    }

    pub(crate) fn insert(&mut self, addr: SocketAddr, node: Mainline) {
        self.nodes.insert(addr, node);
        self.schedule(addr);
    }

    /// The node at `addr` is reached at `alias` too, and sends from there to addresses of its
    /// family.
    pub(crate) fn alias(&mut self, alias: SocketAddr, addr: SocketAddr) {
        self.aliases.insert(alias, addr);
    }

    fn schedule(&mut self, addr: SocketAddr) {
        let due = self.nodes.get(&addr).and_then(|n| n.deadline());
        let due = due.unwrap_or(Time::FAR);
        if let Some(old) = self.ticks.insert(addr, due) {
            self.order.remove(&(old, addr));
        }
        self.order.insert((due, addr));
    }

    /// Puts a datagram on its way, whoever really sends it.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1400, "{} bytes in one datagram", bytes.len());
        self.sent.datagrams += 1;
        self.sent.bytes += bytes.len() as u64;
        if self.dead.contains(&from) || self.rng.chance(self.loss) {
            return;
        }
        self.count += 1;
        let jitter = self.delay.mul_f64(1.0 + self.rng.unit() / 2.0);
        self.flying
            .insert((self.now + jitter, self.count), (from, to, bytes));
    }

    /// Does what a node wants done.
    fn settle(&mut self, addr: SocketAddr, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, bytes } => {
                    let same = |a: &SocketAddr| a.is_ipv6() == to.is_ipv6();
                    let alias = self.aliases.iter().find(|(a, n)| **n == addr && same(a));
                    let from = alias.map_or(addr, |(a, _)| *a);
                    self.send(if same(&addr) { addr } else { from }, to, bytes);
                }
                Output::Answer { op, answer } => {
                    let at = self.now;
                    self.answers
                        .entry((addr, op))
                        .or_default()
                        .push((at, answer));
                }
            }
        }
        self.schedule(addr);
    }

    /// Uses a node.
    pub(crate) fn with<T>(
        &mut self,
        addr: SocketAddr,
        f: impl FnOnce(&mut Mainline, Time, &mut Vec<Output>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(&addr).expect("a node is there");
        let result = f(node, self.now, &mut out);
        self.settle(addr, out);
        result
    }

    pub(crate) fn request(&mut self, addr: SocketAddr, request: Request) -> OpId {
        self.with(addr, |node, now, out| node.request(now, request, out))
    }

    /// The next thing happens, if it does before `end`.
    fn step(&mut self, end: Time) -> bool {
        let datagram = self.flying.keys().next().copied();
        let tick = self.order.first().copied();
        let tick_at = tick.map_or(Time::FAR, |(at, _)| at).max(self.now);
        let datagram_at = datagram.map_or(Time::FAR, |(at, _)| at);
        if datagram_at.min(tick_at) > end {
            self.now = end;
            return false;
        }
        if let Some(key) = datagram.filter(|_| datagram_at <= tick_at) {
            let (from, to, bytes) = self.flying.remove(&key).expect("it is flying");
            self.now = datagram_at;
            if self.dead.contains(&to) {
                return true;
            }
            let node = self.aliases.get(&to).copied().unwrap_or(to);
            if self.nodes.contains_key(&node) {
                self.with(node, |node, now, out| {
                    node.on_datagram(now, from, &bytes, out);
                });
            } else if let Some(id) = self.sybils.get(&to).copied() {
                self.sybil_answers(id, to, from, &bytes);
            } else {
                self.stray.push((from, to, bytes));
            }
        } else if let Some((_, addr)) = tick {
            self.now = tick_at;
            self.with(addr, |node, now, out| node.on_tick(now, out));
        }
        true
    }

    fn sybil_answers(&mut self, id: Id, addr: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Ok(message) = krpc::read(bytes) else {
            return;
        };
        let Body::Query(query) = message.body else {
            return;
        };
        let target = match query.call {
            Call::FindNode { target } | Call::Get { target, .. } | Call::Sample { target } => {
                target
            }
            Call::GetPeers { info_hash, .. } => info_hash,
            _ => id,
        };
        let mut nodes: Vec<_> = self
            .sybils
            .iter()
            .map(|(addr, id)| Node {
                id: *id,
                addr: *addr,
            })
            .collect();
        nodes.sort_by_key(|n| n.id.xor(&target));
        nodes.truncate(8);
        let reply = Reply {
            id,
            nodes,
            token: Some(b"anything"),
            ..Reply::default()
        };
        let bytes = krpc::response(message.tid, &to, reply, 1400);
        self.send(addr, to, bytes);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs an operation to its end and returns all it told.
    pub(crate) fn complete(
        &mut self,
        addr: SocketAddr,
        op: OpId,
    ) -> (Vec<Answer>, Result<Outcome, Failure>) {
        let end = self.now + Duration::from_secs(60);
        loop {
            let told = self.answers.get(&(addr, op));
            if told.is_some_and(|t| matches!(t.last(), Some((_, Answer::Done(_))))) {
                break;
            }
            assert!(self.step(end), "the operation does not end");
        }
        let told = self.answers.remove(&(addr, op)).unwrap_or_default();
        let mut told: Vec<_> = told.into_iter().map(|(_, a)| a).collect();
        let Some(Answer::Done(result)) = told.pop() else {
            unreachable!("the loop ended with it");
        };
        (told, result)
    }

    pub(crate) fn ask(
        &mut self,
        addr: SocketAddr,
        request: Request,
    ) -> (Vec<Answer>, Result<Outcome, Failure>) {
        let op = self.request(addr, request);
        self.complete(addr, op)
    }

    /// A node at random.
    pub(crate) fn any(&mut self) -> SocketAddr {
        let all: Vec<_> = self
            .nodes
            .keys()
            .filter(|a| !self.dead.contains(a))
            .copied()
            .collect();
        *self.rng.pick(&all).expect("there are nodes")
    }

    /// Every living node, by distance to `target`.
    pub(crate) fn truth(&self, target: &Id) -> Vec<Node> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .filter(|(addr, _)| !self.dead.contains(addr))
            .map(|(addr, node)| Node {
                id: node.id(addr.is_ipv6()).expect("it has one"),
                addr: *addr,
            })
            .collect();
        all.sort_by_key(|n| n.id.xor(target));
        all
    }

    /// Asks one node one thing from an address without a node, and returns the answer's bytes.
    pub(crate) fn probe(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        query: &[u8],
    ) -> Option<Vec<u8>> {
        self.stray.clear();
        self.send(from, to, query.to_vec());
        self.run(self.delay * 4);
        let at = self
            .stray
            .iter()
            .position(|(f, t, _)| *f == to && *t == from)?;
        Some(self.stray.swap_remove(at).2)
    }

    /// A lookup by a neutral client that knows one node: always the nearest three not yet asked,
    /// until the nearest eight known have answered.
    pub(crate) fn neutral_lookup(
        &mut self,
        client: SocketAddr,
        start: SocketAddr,
        target: Id,
    ) -> Vec<Node> {
        let mut known: Vec<(Option<Id>, SocketAddr)> = vec![(None, start)];
        let mut asked = BTreeSet::new();
        loop {
            known.sort_by_key(|(id, _)| id.map(|id| id.xor(&target)));
            let next: Vec<_> = known
                .iter()
                .take(8)
                .map(|(_, a)| *a)
                .filter(|a| !asked.contains(a))
                .take(3)
                .collect();
            if next.is_empty() {
                break;
            }
            for addr in next {
                asked.insert(addr);
                let bytes = krpc::query(b"nc", &plain([9; 20], Call::FindNode { target }));
                let answer = self.probe(client, addr, &bytes);
                let answer = answer.as_deref().and_then(|b| krpc::read(b).ok());
                let Some(Body::Response(reply)) = answer.map(|m| m.body) else {
                    known.retain(|(_, a)| *a != addr);
                    continue;
                };
                for (id, _) in known.iter_mut().filter(|(_, a)| *a == addr) {
                    *id = Some(reply.id);
                }
                for node in reply.nodes {
                    if known.iter().all(|(_, a)| *a != node.addr) {
                        known.push((Some(node.id), node.addr));
                    }
                }
            }
        }
        let nodes = known
            .into_iter()
            .filter_map(|(id, addr)| Some(Node { id: id?, addr }));
        nodes.take(8).collect()
    }
}

/// A query of somebody who is not of the network.
pub(crate) fn plain(id: [u8; 20], call: Call<'_>) -> Query<'_> {
    Query {
        id: Id(id),
        read_only: true,
        want: Want::default(),
        call,
    }
}

pub(crate) fn loopback(i: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 10_000 + i).into()
}

pub(crate) fn public(i: u16) -> SocketAddr {
    let [hi, lo] = i.to_be_bytes();
    (Ipv4Addr::new(50 + hi, lo, 1 + (i % 200) as u8, 7), 6881).into()
}

pub(crate) fn public6(i: u16) -> SocketAddr {
    let segments = [0x2a00, i + 1, 0, 0, 0, 0, 0, 1];
    (std::net::Ipv6Addr::from(segments), 6881).into()
}
