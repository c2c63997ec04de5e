//! Ultrapeers and their leaves, by the core that runs on sockets: query routing tables between all of
//! them, and dynamic queries.

use super::graph::Graph;
use super::library::Library;
use super::servent::Net;
use shoal_base::Rng;
use shoal_gnutella::node::{Config, Mode};
use std::time::Duration;

/// Links of an ultrapeer to others (gtk-gnutella has 42 to 50; dynamic queries want 30).
pub(super) const LINKS: u32 = 32;
/// Ultrapeers of a leaf.
pub(super) const SHIELDS: usize = 3;
/// Leaves of an ultrapeer, over all.
pub(super) const LEAVES: u32 = 30;
/// How long tables take to travel.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a dynamic query goes on, when little is found.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// How many of so many nodes are ultrapeers: the first ones.
pub(super) fn count(nodes: u32) -> u32 {
    (nodes / (LEAVES + 1)).max(8)
}

/// The graph of everybody: ultrapeers among each other, and each leaf with its ultrapeers.
pub(super) fn graph(nodes: u32, rng: &mut Rng) -> Graph {
    let ultrapeers = count(nodes);
    let mut graph = Graph::regular(ultrapeers, LINKS.min(ultrapeers / 2), rng);
    graph.0.resize(nodes as usize, Vec::new());
    let mut turn: Vec<u32> = (0..ultrapeers).collect();
    let mut at = turn.len();
    for leaf in ultrapeers..nodes {
        // In turn, so that all have as many.
        if at + SHIELDS > turn.len() {
            rng.shuffle(&mut turn);
            at = 0;
        }
        for ultrapeer in turn.iter().skip(at).take(SHIELDS) {
            graph.0[leaf as usize].push(*ultrapeer);
            graph.0[*ultrapeer as usize].push(leaf);
        }
        at += SHIELDS;
    }
    graph.0.iter_mut().for_each(|n| n.sort_unstable());
    graph
}

/// Ultrapeers and leaves on such a graph, joined, with all tables told.
pub(super) fn assemble(seed: u64, graph: &Graph, libraries: Vec<Library>) -> Net {
    let ultrapeers = count(libraries.len() as u32);
    let places = |node: u32| graph.0[node as usize].len();
    let mut net = Net::new(seed, libraries, |node| match node < ultrapeers {
        true => Config {
            ultrapeers: LINKS as usize,
            leaves: places(node),
            ..Config::of(Mode::Ultrapeer)
        },
        false => Config {
            ultrapeers: SHIELDS,
            ..Config::of(Mode::Leaf)
        },
    });
    net.join_all(graph);
    net.run(SETTLE);
    net
}
