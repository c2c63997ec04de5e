//! Many nodes, one clock, links that delay and lose, nodes that die.

use shoal_base::{Rng, Time};
use shoal_dht::chord::{
    Config, Contact, Found, JoinError, Lookup, LookupError, Message, Node, Output, RingId, Standing,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A lookup's end.
pub(crate) type Result<I> = std::result::Result<Box<Found<I, u32>>, LookupError>;

/// From, to, what.
type Mail<I> = (u32, u32, Message<I, u32>);

/// A network in virtual time. Addresses are numbers.
pub(crate) struct World<I> {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u32, Node<I, u32>>,
    pub(crate) rng: Rng,
    /// Share of messages lost.
    pub(crate) loss: f64,
    /// Messages take from half to one and a half of this.
    pub(crate) delay: Duration,
    /// Pairs of nodes that cannot talk: those on different sides.
    pub(crate) side: BTreeMap<u32, u32>,
    pub(crate) sent: u64,
    pub(crate) results: BTreeMap<(u32, u32), Result<I>>,
    pub(crate) joined: Vec<(u32, std::result::Result<(), JoinError>)>,
    queue: BTreeMap<(Time, u64), Mail<I>>,
    /// When each node wants its tick, and the same by node.
    timers: BTreeSet<(Time, u32)>,
    armed: BTreeMap<u32, Time>,
    number: u64,
}

impl<I: RingId> World<I> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            rng: Rng::from_seed(seed),
            loss: 0.0,
            delay: Duration::from_millis(50),
            side: BTreeMap::new(),
            sent: 0,
            results: BTreeMap::new(),
            joined: Vec::new(),
            queue: BTreeMap::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            number: 0,
        }
    }

    /// Adds nodes whose tables are what they should be.
    pub(crate) fn ideal(&mut self, ids: &[I], config: &Arc<Config>) {
        let mut ring: Vec<_> = ids
            .iter()
            .zip(0u32..)
            .map(|(id, n)| Contact::new(*id, n))
            .collect();
        ring.sort();
        let n = ring.len();
        let owner = |key: I| ring[ring.partition_point(|c| c.id < key) % n];
        for (at, me) in ring.iter().enumerate() {
            let successors: Vec<_> = (1..n.min(config.successors + 1))
                .map(|i| ring[(at + i) % n])
                .collect();
            let fingers: Vec<_> = (0..I::BITS).map(|i| owner(me.id.plus_power(i))).collect();
            let before = Some(ring[(at + n - 1) % n]);
            let node = Node::with_tables(
                self.now,
                *me,
                config.clone(),
                self.rng.next_u64(),
                before,
                &successors,
                &fingers,
            );
            self.nodes.insert(me.addr, node);
            self.arm(me.addr);
        }
    }

    /// Adds a node that is in no ring yet.
    pub(crate) fn add(&mut self, id: I, config: &Arc<Config>) -> u32 {
        let addr = self.nodes.keys().last().map_or(0, |last| last + 1);
        let node = Node::new(Contact::new(id, addr), config.clone(), self.rng.next_u64());
        self.nodes.insert(addr, node);
        addr
    }

    /// Lets a node do something.
    pub(crate) fn with<T>(
        &mut self,
        at: u32,
        act: impl FnOnce(&mut Node<I, u32>, Time, &mut Vec<Output<I, u32>>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(&at).expect("the node lives");
        let result = act(node, self.now, &mut out);
        self.take(at, out);
        self.arm(at);
        result
    }

    fn arm(&mut self, at: u32) {
        if let Some(old) = self.armed.remove(&at) {
            self.timers.remove(&(old, at));
        }
        if let Some(due) = self.nodes.get(&at).and_then(Node::deadline) {
            self.armed.insert(at, due);
            self.timers.insert((due, at));
        }
    }

    fn take(&mut self, from: u32, out: Vec<Output<I, u32>>) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    self.sent += 1;
                    let lost = self.rng.chance(self.loss);
                    if !lost && self.side.get(&from) == self.side.get(&to) {
                        let delay = self.delay.mul_f64(0.5 + self.rng.unit());
                        self.number += 1;
                        let key = (self.now + delay, self.number);
                        self.queue.insert(key, (from, to, message));
                    }
                }
                Output::Lookup { number, result } => {
                    let twice = self.results.insert((from, number), result);
                    assert!(twice.is_none(), "a lookup ends once");
                }
                Output::Joined(result) => self.joined.push((from, result)),
                Output::Predecessor(_) | Output::Successors | Output::Alone => {}
            }
        }
    }

    /// Runs until nothing is due before `until`.
    pub(crate) fn run_until(&mut self, until: Time) {
        loop {
            let mail = self.queue.keys().next().map(|(at, _)| *at);
            let timer = self.timers.first().copied();
            match (mail, timer) {
                (mail, Some((at, addr))) if at <= until && mail.is_none_or(|m| at <= m) => {
                    self.now = self.now.max(at);
                    if self.nodes.contains_key(&addr) {
                        self.with(addr, |node, now, out| node.on_tick(now, out));
                    } else {
                        self.arm(addr);
                    }
                    let next = self.armed.get(&addr);
                    assert!(next.is_none_or(|next| *next > at), "ticks make progress");
                }
                (Some(at), _) if at <= until => {
                    self.now = self.now.max(at);
                    if let Some((_, (from, to, message))) = self.queue.pop_first()
                        && self.nodes.contains_key(&to)
                    {
                        self.with(to, |node, now, out| {
                            node.on_message(now, from, message, out);
                        });
                    }
                }
                _ => break,
            }
        }
        self.now = until;
    }

    pub(crate) fn run(&mut self, for_: Duration) {
        self.run_until(self.now + for_);
    }

    pub(crate) fn start(&mut self, at: u32, key: I, lookup: Lookup) -> (u32, u32) {
        let number = self.with(at, |node, now, out| node.lookup(now, key, lookup, out));
        (at, number)
    }

    /// Looks a key up and waits for the end.
    pub(crate) fn look(&mut self, at: u32, key: I, lookup: Lookup) -> Result<I> {
        let name = self.start(at, key, lookup);
        let deadline = self.nodes[&at].config().deadline;
        let end = self.now + deadline;
        while !self.results.contains_key(&name) && self.now < end {
            self.run(Duration::from_millis(20));
        }
        self.results
            .remove(&name)
            .expect("a lookup ends by its deadline")
    }

    /// The members in the order of the circle.
    pub(crate) fn members(&self) -> Vec<Contact<I, u32>> {
        let members = self
            .nodes
            .values()
            .filter(|n| n.standing() == Standing::Member);
        let mut ring: Vec<_> = members.map(Node::me).collect();
        ring.sort();
        ring
    }

    /// The member responsible for `key`.
    pub(crate) fn owner(&self, key: I) -> Contact<I, u32> {
        let ring = self.members();
        ring[ring.partition_point(|c| c.id < key) % ring.len()]
    }

    /// What keeps the ring from being ideal: true successors, predecessors and fingers.
    pub(crate) fn flaws(&self, fingers: bool) -> Vec<String> {
        let ring = self.members();
        let n = ring.len();
        let ids: BTreeSet<_> = ring.iter().map(|c| c.id).collect();
        let mut flaws = Vec::new();
        for (at, me) in ring.iter().enumerate() {
            let node = &self.nodes[&me.addr];
            let r = node.config().successors.min(n - 1);
            let successors: Vec<_> = (1..=r).map(|i| ring[(at + i) % n]).collect();
            if node.successors() != successors {
                flaws.push(format!("{me:?}: successors {:?}", node.successors()));
            }
            let before = (n > 1).then(|| ring[(at + n - 1) % n]);
            if node.predecessor() != before {
                flaws.push(format!("{me:?}: predecessor {:?}", node.predecessor()));
            }
            for i in 0..if fingers { I::BITS } else { 0 } {
                let start = me.id.plus_power(i);
                let first = ids.range(start..).chain(&ids).next();
                if first != Some(&node.finger(i).id) {
                    flaws.push(format!("{me:?}: finger {i} {:?}", node.finger(i)));
                }
            }
        }
        flaws
    }
}
