//! Endpoints on datagrams: virtual time, delay, loss, and a stranger on the wire.

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::chord::{Config, Endpoint, MAX_DATAGRAM, Notice, RingId, Settings};
use shoal_dht::{Answer, Dht, Failure, Id, OpId, Outcome, Output, Request};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A network of endpoints.
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<SocketAddr, Endpoint>,
    pub(crate) rng: Rng,
    pub(crate) loss: f64,
    /// Nodes on different sides do not hear each other; those not named are on side 0.
    pub(crate) side: BTreeMap<SocketAddr, u8>,
    pub(crate) answers: BTreeMap<(SocketAddr, OpId), Vec<Answer>>,
    pub(crate) notices: Vec<(SocketAddr, Notice)>,
    /// Everything sent, if it is kept.
    pub(crate) log: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    pub(crate) sent: u64,
    /// What came for addresses at which there is no node.
    pub(crate) stray: BTreeMap<SocketAddr, Vec<(SocketAddr, Vec<u8>)>>,
    pub(crate) keys: BTreeMap<SocketAddr, [u8; 32]>,
    queue: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    number: u64,
}

pub(crate) fn settings() -> Settings {
    Settings {
        chord: Config {
            successors: 8,
            ..Config::default()
        },
        ..Settings::default()
    }
}

pub(crate) fn address(n: u16) -> SocketAddr {
    ([10, 0, (n >> 8) as u8, n as u8], 7000 + n).into()
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::from_secs(1000),
            nodes: BTreeMap::new(),
            rng: Rng::from_seed(seed),
            loss: 0.0,
            side: BTreeMap::new(),
            answers: BTreeMap::new(),
            notices: Vec::new(),
            log: None,
            sent: 0,
            stray: BTreeMap::new(),
            keys: BTreeMap::new(),
            queue: BTreeMap::new(),
            number: 0,
        }
    }

    /// A ring of `n`, a minute old.
    pub(crate) fn ring(seed: u64, n: u16, settings: &Settings) -> Self {
        let mut net = Self::new(seed);
        for i in 0..n {
            net.add(i, settings);
            net.run(Duration::from_secs(2));
        }
        net.run(Duration::from_secs(90));
        net
    }

    /// Adds a node; the first begins the ring, others join at the first.
    pub(crate) fn add(&mut self, n: u16, settings: &Settings) -> SocketAddr {
        let mut secret = [0; 32];
        self.rng.fill(&mut secret);
        let secret = SigningKey::from_bytes(&secret);
        self.keys
            .insert(address(n), secret.verifying_key().to_bytes());
        let node = Endpoint::new(secret, settings.clone(), self.rng.fork());
        let first = self.nodes.keys().next().copied();
        self.nodes.insert(address(n), node);
        self.with(address(n), |node, now, out| match first {
            None => node.create(now, out),
            Some(first) => node.join(now, &[first], out),
        });
        address(n)
    }

    /// Adds a guest that knows the first two nodes.
    pub(crate) fn guest(&mut self, n: u16, settings: &Settings) -> SocketAddr {
        let settings = Settings {
            guest: true,
            ..settings.clone()
        };
        let doors: Vec<_> = self.nodes.keys().take(2).copied().collect();
        let guest = self.add(n, &settings);
        self.with(guest, |node, now, out| node.join(now, &doors, out));
        guest
    }

    pub(crate) fn with<T>(
        &mut self,
        at: SocketAddr,
        act: impl FnOnce(&mut Endpoint, Time, &mut Vec<Output>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(&at).expect("the node lives");
        let result = act(node, self.now, &mut out);
        while let Some(notice) = node.notice() {
            self.notices.push((at, notice));
        }
        for output in out {
            match output {
                Output::Send { to, bytes } => self.post(at, to, bytes),
                Output::Answer { op, answer } => {
                    self.answers.entry((at, op)).or_default().push(answer);
                }
            }
        }
        result
    }

    pub(crate) fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= MAX_DATAGRAM, "{} bytes", bytes.len());
        self.sent += 1;
        if let Some(log) = &mut self.log {
            log.push((from, to, bytes.clone()));
        }
        let side = |a| self.side.get(a).copied().unwrap_or(0);
        if side(&from) == side(&to) && !self.rng.chance(self.loss) {
            let delay = Duration::from_millis(20).mul_f64(0.5 + self.rng.unit());
            self.number += 1;
            self.queue
                .insert((self.now + delay, self.number), (from, to, bytes));
        }
    }

    pub(crate) fn run(&mut self, for_: Duration) {
        let until = self.now + for_;
        loop {
            let mail = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.nodes.iter();
            let timer = timers.filter_map(|(a, n)| Some((n.deadline()?, *a))).min();
            match (mail, timer) {
                (mail, Some((at, addr))) if at <= until && mail.is_none_or(|m| at <= m) => {
                    self.now = self.now.max(at);
                    self.with(addr, |node, now, out| node.on_tick(now, out));
                    let next = self.nodes[&addr].deadline();
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "ticks make progress"
                    );
                }
                (Some(at), _) if at <= until => {
                    self.now = self.now.max(at);
                    let Some((_, (from, to, bytes))) = self.queue.pop_first() else {
                        continue;
                    };
                    if self.nodes.contains_key(&to) {
                        self.with(to, |node, now, out| {
                            node.on_datagram(now, from, &bytes, out);
                        });
                    } else {
                        self.stray.entry(to).or_default().push((from, bytes));
                    }
                }
                _ => break,
            }
        }
        self.now = until;
    }

    /// Asks and waits; gives the answers and the end.
    pub(crate) fn ask(
        &mut self,
        at: SocketAddr,
        request: Request,
    ) -> (Vec<Answer>, Result<Outcome, Failure>) {
        let op = self.with(at, |node, now, out| node.request(now, request, out));
        for _ in 0..600 {
            let answers = self.answers.entry((at, op)).or_default();
            if let Some(Answer::Done(_)) = answers.last() {
                let mut answers = std::mem::take(answers);
                let Some(Answer::Done(end)) = answers.pop() else {
                    unreachable!("it was there")
                };
                return (answers, end);
            }
            self.run(Duration::from_millis(100));
        }
        panic!("an operation ends within a minute");
    }

    /// Nodes that keep the item at `target`.
    pub(crate) fn holders(&self, target: Id) -> Vec<SocketAddr> {
        let holders = self.nodes.iter().filter(|(_, n)| n.holds(target));
        holders.map(|(a, _)| *a).collect()
    }

    /// The nodes in the order in which they should keep `key`.
    pub(crate) fn order(&self, key: Id) -> Vec<SocketAddr> {
        let mut ring: Vec<_> = (self.nodes.iter())
            .flat_map(|(a, n)| n.positions().iter().map(|p| (key.distance(p.me().id), *a)))
            .collect();
        ring.sort();
        let mut order = Vec::new();
        for (_, a) in ring {
            if !order.contains(&a) {
                order.push(a);
            }
        }
        order
    }
}
