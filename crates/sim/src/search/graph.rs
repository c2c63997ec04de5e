//! Graphs without direction: random ones of one degree, those that grow by preferential attachment,
//! and what a flood does in them by theory.

use shoal_base::Rng;
use std::collections::{BTreeSet, VecDeque};

/// Neighbours of each node, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Graph(pub(super) Vec<Vec<u32>>);

impl Graph {
    fn of(nodes: u32, edges: &BTreeSet<(u32, u32)>) -> Self {
        let mut all = vec![Vec::new(); nodes as usize];
        for (a, b) in edges {
            all[*a as usize].push(*b);
            all[*b as usize].push(*a);
        }
        all.iter_mut().for_each(|n| n.sort_unstable());
        Self(all)
    }

    /// Every node has `degree` neighbours (one has one less if that cannot be), at random: ends are
    /// paired off, and pairs that would be loops or double edges trade ends with others.
    pub(super) fn regular(nodes: u32, degree: u32, rng: &mut Rng) -> Self {
        let mut ends: Vec<u32> = (0..nodes)
            .flat_map(|n| std::iter::repeat_n(n, degree as usize))
            .collect();
        rng.shuffle(&mut ends);
        let mut edges: BTreeSet<(u32, u32)> = BTreeSet::new();
        let mut list: Vec<(u32, u32)> = Vec::new();
        let mut odd: Vec<(u32, u32)> = Vec::new();
        for pair in ends.chunks_exact(2) {
            let edge = sorted(pair[0], pair[1]);
            if edge.0 != edge.1 && edges.insert(edge) {
                list.push(edge);
            } else {
                odd.push(edge);
            }
        }
        for (a, b) in odd {
            // Never for ever: a tiny dense graph may have no such trade.
            for _ in 0..10_000 {
                let at = rng.below(list.len().max(1));
                let Some(&(c, d)) = list.get(at) else { break };
                let (first, second) = (sorted(a, c), sorted(b, d));
                let fits = a != c && b != d && first != second;
                if fits && !edges.contains(&first) && !edges.contains(&second) {
                    edges.remove(&(c, d));
                    edges.insert(first);
                    edges.insert(second);
                    list[at] = first;
                    list.push(second);
                    break;
                }
            }
        }
        Self::of(nodes, &edges)
    }

    /// Each newcomer joins `links` of those who are there, the likelier the more neighbours they have
    /// (Barabási and Albert, 1999): few have very many.
    pub(super) fn preferential(nodes: u32, links: u32, rng: &mut Rng) -> Self {
        let mut edges = BTreeSet::new();
        // Each node as often as it has neighbours.
        let mut ends: Vec<u32> = Vec::new();
        for node in 1..nodes {
            let wanted = links.min(node) as usize;
            let mut chosen = BTreeSet::new();
            while chosen.len() < wanted {
                let drawn = match ends.is_empty() {
                    true => rng.below(node as usize) as u32,
                    false => ends[rng.below(ends.len())],
                };
                chosen.insert(drawn);
            }
            for other in chosen {
                edges.insert(sorted(node, other));
                ends.extend([node, other]);
            }
        }
        Self::of(nodes, &edges)
    }

    pub(super) fn edges(&self) -> u64 {
        self.0.iter().map(|n| n.len() as u64).sum::<u64>() / 2
    }

    pub(super) fn edge_list(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let all = (0..).zip(&self.0);
        all.flat_map(|(a, n)| n.iter().filter(move |b| a < **b).map(move |b| (a, *b)))
    }

    /// The nodes at each distance from `from`, of those that are `up`.
    fn layers(&self, from: u32, up: impl Fn(u32) -> bool) -> Vec<Vec<u32>> {
        let mut distance = vec![u32::MAX; self.0.len()];
        distance[from as usize] = 0;
        let mut queue = VecDeque::from([from]);
        let mut layers: Vec<Vec<u32>> = Vec::new();
        while let Some(node) = queue.pop_front() {
            let at = distance[node as usize];
            if layers.len() <= at as usize {
                layers.push(Vec::new());
            }
            layers[at as usize].push(node);
            for next in &self.0[node as usize] {
                if distance[*next as usize] == u32::MAX && up(*next) {
                    distance[*next as usize] = at + 1;
                    queue.push_back(*next);
                }
            }
        }
        layers
    }

    /// How many nodes lie at each distance from `from`, of those that are `up`.
    pub(super) fn rings(&self, from: u32, up: impl Fn(u32) -> bool) -> Vec<u64> {
        let layers = self.layers(from, up);
        layers.iter().map(|layer| layer.len() as u64).collect()
    }

    /// What a flood from `from` costs whose TTL is so great, and how many nodes it reaches, the first
    /// included: everybody it reaches before the TTL ends passes it on to all but one of his
    /// neighbours.
    pub(super) fn flood(&self, from: u32, ttl: u8) -> (u64, u64) {
        let layers = self.layers(from, |_| true);
        let reach: usize = layers.iter().take(usize::from(ttl) + 1).map(Vec::len).sum();
        let passers = layers.iter().take(usize::from(ttl)).flatten();
        let copies: usize = passers.map(|n| self.0[*n as usize].len()).sum();
        let others: usize = layers
            .iter()
            .take(usize::from(ttl))
            .skip(1)
            .map(Vec::len)
            .sum();
        ((copies - others) as u64, reach as u64)
    }

    /// The nodes that a flood with this TTL reaches, the first included.
    pub(super) fn reached(&self, from: u32, ttl: u8) -> BTreeSet<u32> {
        let layers = self.layers(from, |_| true).into_iter();
        layers.take(usize::from(ttl) + 1).flatten().collect()
    }

    /// How many nodes that are, of those that are `up`.
    pub(super) fn ball(&self, from: u32, ttl: u8, up: impl Fn(u32) -> bool) -> u64 {
        self.rings(from, up).iter().take(ttl as usize + 1).sum()
    }

    /// The nodes with most neighbours first.
    pub(super) fn by_degree(&self) -> Vec<u32> {
        let mut nodes: Vec<u32> = (0..self.0.len() as u32).collect();
        nodes.sort_by_key(|n| (std::cmp::Reverse(self.0[*n as usize].len()), *n));
        nodes
    }
}

fn sorted(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

/// Nodes that a flood reaches in a tree, the first not included: no graph of this degree does better.
pub(super) fn tree(degree: u32, ttl: u8) -> f64 {
    let d = f64::from(degree);
    (0..u32::from(ttl))
        .map(|i| d * (d - 1.0).powi(i as i32))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn random_graphs_have_the_degree_asked_for_and_no_loops(
            nodes in 20_u32..200, degree in 2_u32..6, seed in 0_u64..1000,
        ) {
            let graph = Graph::regular(nodes, degree, &mut Rng::from_seed(seed));
            let odd = nodes * degree % 2;
            prop_assert_eq!(graph.edges(), u64::from((nodes * degree - odd) / 2));
            for (node, neighbours) in (0..).zip(&graph.0) {
                prop_assert!(neighbours.is_sorted_by(|a, b| a < b));
                prop_assert!(!neighbours.contains(&node));
            }
            prop_assert_eq!(graph.edge_list().count() as u64, graph.edges());
        }

        #[test]
        fn grown_graphs_are_whole(nodes in 3_u32..200, seed in 0_u64..1000) {
            let graph = Graph::preferential(nodes, 2, &mut Rng::from_seed(seed));
            let all: u64 = graph.rings(0, |_| true).iter().sum();
            prop_assert_eq!(all, u64::from(nodes));
            prop_assert_eq!(graph.edges(), u64::from(2 * (nodes - 2) + 1));
        }
    }

    #[test]
    fn a_tree_of_degree_4_and_depth_7_has_4372_nodes() {
        assert_eq!(tree(4, 7), 4372.0);
        assert_eq!(tree(4, 5), 484.0);
        assert_eq!(tree(8, 7), 1_098_056.0);
    }

    #[test]
    fn a_ball_in_a_ring_grows_by_two_a_hop() {
        let edges = (0..10).map(|n| sorted(n, (n + 1) % 10)).collect();
        let ring = Graph::of(10, &edges);
        assert_eq!(ring.ball(3, 2, |_| true), 5);
        assert_eq!(ring.ball(3, 9, |n| n != 5), 9);
        assert_eq!(ring.rings(0, |_| true), [1, 2, 2, 2, 2, 1]);
        assert_eq!(ring.flood(0, 2), (4, 5));
        assert_eq!(ring.flood(0, 9), (2 * 10 - 10 + 1, 10));
    }
}
