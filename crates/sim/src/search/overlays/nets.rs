//! The overlays, as one experiment sees them: nodes that ask, links that break, loads and states.

use super::super::directory::{self, HUB};
use super::super::graph::Graph;
use super::super::hierarchy::{self, End};
use super::super::library::Library;
use super::super::servent::{self, DELAY};
use super::super::walks::Walks;
use super::super::{Asked, ultrapeers};
use crate::digest::Digest;
use crate::rng_for;
use shoal_gnutella::node::{Config, Mode};
use std::collections::BTreeSet;
use std::time::Duration;

/// One question: who asks for what.
pub(super) type Question = (u32, u32);

/// Time between two questions.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Neighbours of a node in flat networks.
pub(super) const DEGREE: u32 = 4;
/// TTL of a flood.
pub(super) const TTL: u8 = 7;
/// Walkers of a question, and steps of each at most.
const WALK: (u32, u32) = (32, 1024);
/// Children of a supernode, in the mean (Liang 2006: 100 to 160).
pub(super) const CHILDREN: u32 = 100;
/// How long a dynamic query is waited for: less than a silent neighbour is.
const DYNAMIC: Duration = Duration::from_secs(120);

/// What a node keeps up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Links to others.
    pub(super) links: u64,
    /// What it keeps of others' files: entries of an index, words of a table, records.
    pub(super) entries: u64,
}

/// A network whose nodes, numbered from 0, share and ask.
pub(super) trait Overlay {
    /// Asks one question after the other and waits for all answers.
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked>;
    /// The nodes, those that most depends on first; there may be more than those that ask.
    fn best(&self) -> Vec<u32>;
    /// They are gone without a word.
    fn shoot(&mut self, nodes: &[u32]);
    /// Time passes. Whether anybody mends anything meanwhile.
    fn wait(&mut self, time: Duration) -> bool;
    /// Messages of questions that came to each node since it was last asked.
    fn take_loads(&mut self) -> Vec<u64>;
    /// What each node keeps up.
    fn states(&self) -> Vec<State>;
    /// Events so far, and their hash.
    fn events(&self) -> (u64, Digest);
}

/// Napster. The hub is numbered behind all users.
pub(super) struct Central {
    net: directory::Net,
    users: u32,
    loads: Vec<u64>,
}

impl Central {
    pub(super) fn new(seed: u64, libraries: &[Library]) -> Self {
        Self {
            net: directory::Net::new(seed, libraries),
            users: libraries.len() as u32,
            loads: vec![0; libraries.len() + 1],
        }
    }
}

impl Overlay for Central {
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked> {
        let mut all = Vec::new();
        for (node, content) in questions {
            let asked = self.net.ask((node + 1, *content));
            self.loads[self.users as usize] += asked.messages - asked.answers;
            self.loads[*node as usize] += asked.answers;
            all.push(asked);
        }
        all
    }

    fn best(&self) -> Vec<u32> {
        let users = 0..self.users;
        std::iter::once(self.users).chain(users).collect()
    }

    fn shoot(&mut self, nodes: &[u32]) {
        for node in nodes {
            let machine = if *node == self.users { HUB } else { node + 1 };
            self.net.world.crash(machine);
        }
    }

    fn wait(&mut self, _time: Duration) -> bool {
        false
    }

    fn take_loads(&mut self) -> Vec<u64> {
        let nothing = vec![0; self.loads.len()];
        std::mem::replace(&mut self.loads, nothing)
    }

    fn states(&self) -> Vec<State> {
        let user = State {
            links: 1,
            entries: 0,
        };
        let hub = State {
            links: u64::from(self.users),
            entries: self.net.indexed(),
        };
        let mut all = vec![user; self.users as usize];
        all.push(hub);
        all
    }

    fn events(&self) -> (u64, Digest) {
        (self.net.world.counts().events, self.net.world.digest())
    }
}

/// Gnutella: equals who flood, or ultrapeers with leaves.
pub(super) struct Routed {
    net: servent::Net,
    graph: Graph,
    ttl: u8,
    patience: Duration,
}

impl Routed {
    /// Equals, joined at random.
    pub(super) fn equals(seed: u64, libraries: Vec<Library>) -> Self {
        let mut rng = rng_for(seed, 1 << 45);
        let graph = Graph::regular(libraries.len() as u32, DEGREE, &mut rng);
        let mut net = servent::Net::new(seed, libraries, |_| Config {
            ultrapeers: DEGREE as usize,
            ..Config::of(Mode::Flood)
        });
        net.join_all(&graph);
        net.run(Duration::from_secs(2));
        Self::of(net, graph, TTL, DELAY * 2 * u32::from(TTL))
    }

    /// Ultrapeers and leaves.
    pub(super) fn ultrapeers(seed: u64, libraries: Vec<Library>) -> Self {
        let nodes = libraries.len() as u32;
        let graph = ultrapeers::graph(nodes, &mut rng_for(seed, 1 << 45));
        let net = ultrapeers::assemble(seed, &graph, libraries);
        Self::of(net, graph, 3, DYNAMIC)
    }

    fn of(mut net: servent::Net, graph: Graph, ttl: u8, patience: Duration) -> Self {
        net.loads = Some(vec![0; graph.0.len()]);
        Self {
            net,
            graph,
            ttl,
            patience,
        }
    }
}

impl Overlay for Routed {
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked> {
        let mut guids = Vec::new();
        for (node, content) in questions {
            guids.push(self.net.ask(*node, *content, self.ttl));
            self.net.run(PAUSE);
        }
        self.net.run(self.patience + PAUSE);
        guids.into_iter().map(|guid| self.net.take(guid)).collect()
    }

    fn best(&self) -> Vec<u32> {
        self.graph.by_degree()
    }

    fn shoot(&mut self, nodes: &[u32]) {
        nodes.iter().for_each(|node| self.net.world.crash(*node));
    }

    /// Who is joined with whom is given here, so nobody mends.
    fn wait(&mut self, _time: Duration) -> bool {
        false
    }

    fn take_loads(&mut self) -> Vec<u64> {
        let nothing = vec![0; self.graph.0.len()];
        self.net.loads.replace(nothing).unwrap_or_default()
    }

    fn states(&self) -> Vec<State> {
        let nodes = self.net.world.nodes().iter();
        nodes
            .map(|servent| {
                let mut state = State::default();
                for link in servent.core.connections() {
                    state.links += 1;
                    state.entries += u64::from(link.words.unwrap_or(0));
                }
                state
            })
            .collect()
    }

    fn events(&self) -> (u64, Digest) {
        (self.net.world.counts().events, self.net.world.digest())
    }
}

/// Equals who send walkers.
pub(super) struct Walking {
    walks: Walks,
    graph: Graph,
}

impl Walking {
    pub(super) fn new(seed: u64, libraries: &[Library]) -> Self {
        let mut rng = rng_for(seed, 1 << 45);
        let graph = Graph::regular(libraries.len() as u32, DEGREE, &mut rng);
        Self {
            walks: Walks::new(seed, &graph, libraries),
            graph,
        }
    }
}

impl Overlay for Walking {
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked> {
        let mut numbers = Vec::new();
        for question in questions {
            numbers.push(self.walks.ask(*question, WALK, false));
            self.walks.run(PAUSE);
        }
        self.walks.run(DELAY * 2 * WALK.1);
        numbers.into_iter().map(|n| self.walks.take(n)).collect()
    }

    fn best(&self) -> Vec<u32> {
        self.graph.by_degree()
    }

    fn shoot(&mut self, nodes: &[u32]) {
        nodes.iter().for_each(|node| self.walks.world.crash(*node));
    }

    fn wait(&mut self, _time: Duration) -> bool {
        false
    }

    fn take_loads(&mut self) -> Vec<u64> {
        let nothing = vec![0; self.graph.0.len()];
        std::mem::replace(&mut self.walks.loads, nothing)
    }

    fn states(&self) -> Vec<State> {
        let links = self.graph.0.iter().map(|n| n.len() as u64);
        links.map(|links| State { links, entries: 0 }).collect()
    }

    fn events(&self) -> (u64, Digest) {
        (self.walks.world.counts().events, self.walks.world.digest())
    }
}

/// KaZaA's supernodes and their children.
pub(super) struct Hierarchy {
    net: hierarchy::Net,
    supernodes: u32,
    shot: BTreeSet<u32>,
}

/// How many of so many members are supernodes.
pub(super) fn supernodes(members: u32) -> u32 {
    (members / (CHILDREN + 1)).max(5)
}

impl Hierarchy {
    pub(super) fn new(seed: u64, libraries: Vec<Library>) -> Self {
        let supernodes = supernodes(libraries.len() as u32);
        let children = libraries.len().div_ceil(supernodes as usize);
        let mut net = hierarchy::Net::new(seed, supernodes, libraries, |config| {
            config.max_children = children * 2;
        });
        net.assemble(Duration::from_secs(40), Duration::from_secs(40));
        net.take_loads();
        Self {
            net,
            supernodes,
            shot: BTreeSet::new(),
        }
    }
}

impl Overlay for Hierarchy {
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked> {
        let mut ids = Vec::new();
        for (node, content) in questions {
            ids.push(self.net.ask(node + 1, *content));
            self.net.run(PAUSE);
        }
        self.net.run(Duration::from_secs(2));
        ids.into_iter()
            .map(|id| id.map_or_else(Asked::default, |id| self.net.take(id).0))
            .collect()
    }

    fn best(&self) -> Vec<u32> {
        let supernodes = self.net.graph().by_degree();
        let others = self.supernodes..self.net.members().count() as u32;
        supernodes.into_iter().chain(others).collect()
    }

    fn shoot(&mut self, nodes: &[u32]) {
        for node in nodes {
            self.net.end(node + 1, End::Gone);
            self.shot.insert(*node);
        }
    }

    fn wait(&mut self, time: Duration) -> bool {
        self.net.run(time);
        true
    }

    fn take_loads(&mut self) -> Vec<u64> {
        let loads = self.net.take_loads();
        loads.iter().map(|load| load.messages).collect()
    }

    fn states(&self) -> Vec<State> {
        let of = |node| {
            let (links, entries) = self.net.holds(node);
            State { links, entries }
        };
        self.net.members().map(of).collect()
    }

    fn events(&self) -> (u64, Digest) {
        (self.net.world.counts().events, self.net.world.digest())
    }
}
