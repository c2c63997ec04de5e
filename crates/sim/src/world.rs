//! The world: nodes, the network between them, one queue of events, and the loop.

use crate::clock::Clock;
use crate::digest::Digest;
use crate::link::{Fate, Links, Network, Rate};
use crate::queue::Queue;
use crate::rng_for;
use crate::space::Space;
use shoal_base::{Rng, Time};
use std::collections::VecDeque;
use std::time::Duration;

/// A node: a protocol core and the little that binds it to the world.
///
/// Times it sees and gives are those of its own clock. A deadline that has passed calls
/// [`Process::on_tick`] once, a microsecond later at the earliest.
pub trait Process: Sized {
    /// Where its messages go.
    type Space: Space;
    /// What it sends.
    type Message: Clone;
    /// What it tells those who watch.
    type Event;

    /// It comes up, for the first time or after a crash.
    fn on_start(&mut self, ctx: &mut Context<'_, Self>);
    /// A message came.
    fn on_message(
        &mut self,
        ctx: &mut Context<'_, Self>,
        from: <Self::Space as Space>::Addr,
        message: Self::Message,
    );
    /// The clock reached the deadline.
    fn on_tick(&mut self, ctx: &mut Context<'_, Self>);
    /// When it next wants its tick.
    fn deadline(&self) -> Option<Time>;
}

type Addr<P> = <<P as Process>::Space as Space>::Addr;

/// What ends a call of [`World::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<E> {
    /// What [`World::schedule`] was given.
    Control(u64),
    /// A node told something.
    Told(u32, E),
    /// Nothing will ever happen again.
    Quiet,
}

/// Counts since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages delivered and ticks given: what `events` means in reports.
    pub events: u64,
    /// Messages sent.
    pub sent: u64,
    /// Bytes sent, as far as nodes said.
    pub bytes: u64,
    /// Messages lost on the way, cut off, kept out or sent to a node that was down.
    pub lost: u64,
    /// The most events that were pending at once.
    pub pending_max: u64,
}

enum Event<P: Process> {
    Message {
        from: Addr<P>,
        to: Addr<P>,
        node: u32,
        message: P::Message,
    },
    Tick(u32),
    Control(u64),
}

/// A part of a stream that waits for the partition to heal.
struct Held<P: Process> {
    from: u32,
    to: Addr<P>,
    bytes: u32,
    message: P::Message,
}

/// Everything but the nodes, so that a node and the rest can be borrowed together.
struct Core<P: Process> {
    now: Time,
    queue: Queue<Event<P>>,
    network: Network,
    space: P::Space,
    /// Draws what the network does.
    rng: Rng,
    counts: Counts,
    told: VecDeque<(u32, P::Event)>,
    held: Vec<Held<P>>,
    /// Clocks that are not the world's; empty until one is wrong.
    clocks: Vec<Clock>,
}

/// A node's hands while it reacts.
pub struct Context<'a, P: Process> {
    core: &'a mut Core<P>,
    me: u32,
    now: Time,
}

impl<P: Process> Context<'_, P> {
    /// The time by the node's clock.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The node's number.
    pub fn me(&self) -> u32 {
        self.me
    }

    /// Sends a datagram of `bytes` bytes: it may be lost, late, doubled or overtaken.
    pub fn send(&mut self, to: Addr<P>, message: P::Message, bytes: u32) {
        self.core.send(self.me, to, message, bytes, false);
    }

    /// Sends on a stream: in order, never lost while both ends are up; it waits for a partition to
    /// heal.
    pub fn send_stream(&mut self, to: Addr<P>, message: P::Message, bytes: u32) {
        self.core.send(self.me, to, message, bytes, true);
    }

    /// How long the node's access line will be busy with what it was given.
    pub fn uplink_backlog(&self) -> Duration {
        self.core.network.uplink_free(self.me).since(self.core.now)
    }

    /// Tells those who watch.
    pub fn tell(&mut self, event: P::Event) {
        self.core.told.push_back((self.me, event));
    }
}

impl<P: Process> Core<P> {
    fn send(&mut self, from: u32, to: Addr<P>, message: P::Message, bytes: u32, stream: bool) {
        self.counts.sent += 1;
        self.counts.bytes += u64::from(bytes);
        let Some((seen, node)) = self.space.depart(self.now, from, to) else {
            self.counts.lost += 1;
            return;
        };
        let fate = if stream {
            self.network
                .stream(self.now, from, node, bytes, &mut self.rng)
        } else {
            self.network
                .datagram(self.now, from, node, bytes, &mut self.rng)
        };
        match fate {
            Fate::Arrives(at, again) => {
                let event = |message| Event::Message {
                    from: seen,
                    to,
                    node,
                    message,
                };
                if let Some(again) = again {
                    self.queue.push(again, event(message.clone()));
                }
                self.queue.push(at, event(message));
            }
            Fate::Cut if stream => self.held.push(Held {
                from,
                to,
                bytes,
                message,
            }),
            Fate::Cut | Fate::Lost => self.counts.lost += 1,
        }
    }

    fn local(&mut self, node: u32) -> Time {
        match self.clocks.get_mut(node as usize) {
            Some(clock) => clock.show(self.now),
            None => self.now,
        }
    }

    fn global(&self, node: u32, local: Time) -> Time {
        match self.clocks.get(node as usize) {
            Some(clock) => clock.when(local),
            None => local,
        }
    }
}

/// Never armed.
const NEVER: u64 = u64::MAX;

/// Nodes, network and time.
pub struct World<P: Process> {
    seed: u64,
    nodes: Vec<P>,
    up: Vec<bool>,
    /// When the earliest tick filed for each node comes; later ones are stale.
    armed: Vec<u64>,
    core: Core<P>,
    digest: Digest,
}

impl<P: Process> World<P> {
    /// An empty world in which all chance comes from `seed`.
    pub fn new(seed: u64, space: P::Space, links: Links) -> Self {
        Self {
            seed,
            nodes: Vec::new(),
            up: Vec::new(),
            armed: Vec::new(),
            core: Core {
                now: Time::ZERO,
                queue: Queue::new(),
                network: Network::new(links),
                space,
                rng: rng_for(seed, u64::MAX),
                counts: Counts::default(),
                told: VecDeque::new(),
                held: Vec::new(),
                clocks: Vec::new(),
            },
            digest: Digest::default(),
        }
    }

    /// The stream of node `index`: give it to the core that will be that node.
    pub fn rng(&self, index: u32) -> Rng {
        rng_for(self.seed, u64::from(index))
    }

    /// Makes room for nodes that will come.
    pub fn reserve(&mut self, nodes: usize) {
        self.nodes.reserve_exact(nodes);
        self.up.reserve_exact(nodes);
        self.armed.reserve_exact(nodes);
    }

    /// Adds a node that is down until [`World::start`]; its number is the count of those before.
    pub fn add(&mut self, process: P) -> u32 {
        self.nodes.push(process);
        self.up.push(false);
        self.armed.push(NEVER);
        self.nodes.len() as u32 - 1
    }

    /// A node comes up: its timer runs and messages reach it.
    pub fn start(&mut self, node: u32) {
        if !std::mem::replace(&mut self.up[node as usize], true) {
            self.digest
                .add(self.core.now.as_micros(), u64::from(node) << 3 | 3);
            self.call(node, P::on_start);
        }
    }

    /// A node goes down without a word. What it knew can still be looked at.
    pub fn crash(&mut self, node: u32) {
        if std::mem::replace(&mut self.up[node as usize], false) {
            self.digest
                .add(self.core.now.as_micros(), u64::from(node) << 3 | 4);
            self.armed[node as usize] = NEVER;
        }
    }

    /// Puts another core in the place of a node that is down, as a restart from disk or from
    /// nothing does; gives back the old one.
    pub fn replace(&mut self, node: u32, process: P) -> P {
        debug_assert!(!self.up[node as usize], "crash it first");
        std::mem::replace(&mut self.nodes[node as usize], process)
    }

    /// Lets the outside act on a node, up or down: a user's request, or a look with hands. What it
    /// sends is sent.
    pub fn call<R>(&mut self, node: u32, act: impl FnOnce(&mut P, &mut Context<'_, P>) -> R) -> R {
        let now = self.core.local(node);
        let mut ctx = Context {
            core: &mut self.core,
            me: node,
            now,
        };
        let process = &mut self.nodes[node as usize];
        let result = act(process, &mut ctx);
        self.arm(node);
        result
    }

    /// Files a tick for a node's deadline unless an earlier one is filed: the earlier one will find
    /// the later deadline. So a deadline that moves back and forth costs nothing.
    fn arm(&mut self, node: u32) {
        let i = node as usize;
        if !self.up[i] {
            return;
        }
        let Some(deadline) = self.nodes[i].deadline() else {
            return;
        };
        let at = self.core.global(node, deadline);
        let at = at.max(self.core.now + Duration::from_micros(1));
        if at.as_micros() < self.armed[i] {
            self.armed[i] = at.as_micros();
            self.core.queue.push(at, Event::Tick(node));
        }
    }

    /// Has [`World::advance`] return `Step::Control(token)` at `at`, after all that was filed for that
    /// time before.
    pub fn schedule(&mut self, at: Time, token: u64) {
        self.core.queue.push(at, Event::Control(token));
    }

    /// Runs until a node tells something, a scheduled control comes up, or nothing is left.
    pub fn advance(&mut self) -> Step<P::Event> {
        loop {
            if let Some((node, event)) = self.core.told.pop_front() {
                return Step::Told(node, event);
            }
            let pending = self.core.queue.len() as u64;
            self.core.counts.pending_max = self.core.counts.pending_max.max(pending);
            let Some((at, event)) = self.core.queue.pop() else {
                return Step::Quiet;
            };
            self.core.now = at;
            match event {
                Event::Message {
                    from,
                    to,
                    node,
                    message,
                } => self.deliver(from, to, node, message),
                Event::Tick(node) => self.tick(node),
                Event::Control(token) => {
                    self.digest.add(at.as_micros(), token << 3 | 2);
                    return Step::Control(token);
                }
            }
        }
    }

    fn deliver(&mut self, from: Addr<P>, to: Addr<P>, node: u32, message: P::Message) {
        let i = node as usize;
        let up = self.up.get(i).copied().unwrap_or(false);
        if !up || !self.core.space.arrive(self.core.now, from, to) {
            self.core.counts.lost += 1;
            return;
        }
        self.core.counts.events += 1;
        self.digest
            .add(self.core.now.as_micros(), u64::from(node) << 3);
        self.call(node, |process, ctx| process.on_message(ctx, from, message));
    }

    fn tick(&mut self, node: u32) {
        let i = node as usize;
        if self.armed[i] != self.core.now.as_micros() {
            return;
        }
        self.armed[i] = NEVER;
        let due = self.nodes[i]
            .deadline()
            .is_some_and(|deadline| deadline <= self.core.local(node));
        if !due {
            return self.arm(node);
        }
        self.core.counts.events += 1;
        self.digest
            .add(self.core.now.as_micros(), u64::from(node) << 3 | 1);
        self.call(node, P::on_tick);
    }

    /// Runs until `until`, giving all that nodes tell to `hear`. Controls scheduled by others are
    /// passed over, so use one or the other.
    pub fn run_until(&mut self, until: Time, mut hear: impl FnMut(Time, u32, P::Event)) {
        const END: u64 = u64::MAX >> 3;
        self.schedule(until, END);
        loop {
            match self.advance() {
                Step::Control(END) | Step::Quiet => return,
                Step::Told(node, event) => hear(self.core.now, node, event),
                Step::Control(_) => {}
            }
        }
    }

    /// The world's time.
    pub fn now(&self) -> Time {
        self.core.now
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The hash of all events so far.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        self.core.counts
    }

    /// Events that wait.
    pub fn pending(&self) -> usize {
        self.core.queue.len()
    }

    /// How many nodes there are, up or down.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: u32) -> bool {
        self.up.get(node as usize).copied().unwrap_or(false)
    }

    /// The nodes that are up.
    pub fn live(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.up)
            .filter_map(|(node, up)| up.then_some(node))
    }

    /// A look into a node.
    pub fn node(&self, node: u32) -> &P {
        &self.nodes[node as usize]
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> &[P] {
        &self.nodes
    }

    /// The addresses.
    pub fn space(&mut self) -> &mut P::Space {
        &mut self.core.space
    }

    /// What links do, from now on.
    pub fn links(&mut self) -> &mut Links {
        &mut self.core.network.links
    }

    /// Limits what a node sends and receives.
    pub fn set_rate(&mut self, node: u32, rate: Rate) {
        self.core.network.set_rate(node, rate);
    }

    /// Makes a node take this much longer over each message.
    pub fn set_slow(&mut self, node: u32, by: Duration) {
        self.core.network.set_slow(node, by);
    }

    /// Holds back all that a node sends and receives until `until`.
    pub fn clog(&mut self, node: u32, until: Time) {
        self.core.network.clog(node, until);
    }

    /// Splits the network: `side` says where each node is (beyond its end: side 0), `cuts` which
    /// side is not heard by which. One-way unless both are named.
    pub fn partition(&mut self, side: Vec<u8>, cuts: &[(u8, u8)]) {
        self.core.network.part(side, cuts);
    }

    /// Splits the network in two that hear nothing of each other.
    pub fn split(&mut self, side: Vec<u8>) {
        self.partition(side, &[(0, 1), (1, 0)]);
    }

    /// Ends the partition, clogs and slowness; streams that waited go on.
    pub fn heal(&mut self) {
        self.core.network.heal();
        self.core.network.unclog_all();
        for held in std::mem::take(&mut self.core.held) {
            self.core.counts.sent -= 1;
            self.core.counts.bytes -= u64::from(held.bytes);
            self.core
                .send(held.from, held.to, held.message, held.bytes, true);
        }
    }

    /// Changes a node's clock.
    pub fn adjust_clock(&mut self, node: u32, adjust: impl FnOnce(Time, &mut Clock)) {
        let clocks = &mut self.core.clocks;
        if clocks.len() <= node as usize {
            clocks.resize(node as usize + 1, Clock::default());
        }
        adjust(self.core.now, &mut clocks[node as usize]);
        // A tick filed by the old clock may be too late.
        self.armed[node as usize] = NEVER;
        self.arm(node);
    }
}

#[cfg(test)]
mod tests;
