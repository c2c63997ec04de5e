//! Chord with an index of words: the core's lookups find who answers for a word, and who that is has
//! the records that were stored there and at its successors. The records are kept beside the nodes;
//! asking for them costs a message each way.

use super::super::Asked;
use super::super::library::{Library, name, word};
use super::super::servent::DELAY;
use super::nets::{Overlay, Question, State};
use crate::digest::Digest;
use crate::link::{Delay, Links};
use crate::overlay::{Key, Ring, Said};
use rustc_hash::FxHashMap;
use shoal_base::Time;
use shoal_dht::chord::{Config, Lookup, RingId, Route, Style, Want};
use shoal_dht::keywords::word_key;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nodes that keep each record, the owner included ([`shoal_dht::chord`]'s usual number).
const REPLICAS: usize = 4;
/// Bytes of a record besides its title: publisher, content, size, minutes, signature.
const RECORD: u64 = 32 + 20 + 8 + 4 + 64;
/// Bytes of a datagram besides its records, and of a question for them.
const DATAGRAM: u64 = 80;
/// Records of one answer.
const RECORDS: u64 = 100;

/// Chord.
pub(super) struct Words {
    ring: Ring,
    /// Who shares each content.
    holders: FxHashMap<u32, Vec<u32>>,
    /// For each content, who keeps its records.
    keepers: FxHashMap<u32, Vec<u32>>,
    /// Records at each node.
    records: Vec<u64>,
    loads: Vec<u64>,
    shot: BTreeSet<u32>,
}

/// The key of the word that names a content.
fn key(content: u32) -> Key {
    let id = word_key(&word(content));
    let first = id.0.first_chunk::<8>().copied().unwrap_or_default();
    Key::new(u64::from_be_bytes(first))
}

impl Words {
    pub(super) fn new(seed: u64, libraries: &[Library]) -> Self {
        let links = Links {
            delay: Delay::Constant {
                us: DELAY.as_micros() as u64,
            },
            ..Links::default()
        };
        let nodes = libraries.len() as u32;
        let ring = Ring::perfect(seed, nodes, true, Config::default(), links, |_, _| {});
        let mut holders: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for (node, library) in (0..).zip(libraries) {
            for content in &library.0 {
                holders.entry(*content).or_default().push(node);
            }
        }
        let mut records = vec![0; libraries.len()];
        let mut keepers = FxHashMap::default();
        // In order, for the map that is walked has none.
        let contents: BTreeSet<u32> = holders.keys().copied().collect();
        for content in contents {
            let owner = ring.owner(key(content)).unwrap_or(0);
            let kept: Vec<u32> = (0..REPLICAS as u32).map(|i| (owner + i) % nodes).collect();
            let published = holders.get(&content).map_or(0, Vec::len) as u64;
            kept.iter().for_each(|n| records[*n as usize] += published);
            keepers.insert(content, kept);
        }
        Self {
            ring,
            holders,
            keepers,
            records,
            loads: vec![0; libraries.len()],
            shot: BTreeSet::new(),
        }
    }

    /// Records of a content at a node, but the asker's own.
    fn records_at(&self, node: u32, content: u32, asker: u32) -> u64 {
        let kept = self.keepers.get(&content);
        if !kept.is_some_and(|kept| kept.contains(&node)) {
            return 0;
        }
        let holders = self.holders.get(&content).map_or(&[][..], Vec::as_slice);
        let others = holders.iter().filter(|h| **h != asker);
        // Whoever was shot does not publish again, but its records have not expired yet: they are
        // found and lead nowhere.
        let alive = others.filter(|h| !self.shot.contains(h));
        (alive.count() as u64).min(RECORDS)
    }
}

/// A lookup that ended: of which question, since when, when, and what it found: the owner, hops, the
/// nodes on the way and time-outs.
type Ended = (usize, Time, Time, Option<(u32, u32, Vec<u32>, u16)>);

impl Overlay for Words {
    fn ask(&mut self, questions: &[Question]) -> Vec<Asked> {
        let lookup = Lookup {
            route: Route::Fingers,
            style: Style::Recursive,
            want: Want::Owner,
            trace: true,
            ..Lookup::default()
        };
        let mut all = vec![Asked::default(); questions.len()];
        // By asker and its number of the lookup.
        let mut open: BTreeMap<(u32, u32), (usize, Time)> = BTreeMap::new();
        let mut ended: Vec<Ended> = Vec::new();
        let hear = |open: &mut BTreeMap<(u32, u32), (usize, Time)>,
                    ended: &mut Vec<Ended>,
                    at: Time,
                    node: u32,
                    said: Said| {
            if let Said::Lookup(number, result) = said
                && let Some((n, since)) = open.remove(&(node, number))
            {
                let found = result.ok().map(|found| {
                    let path = found.path.iter().map(|c| c.addr).collect();
                    (found.owner.addr, found.hops, path, found.timeouts)
                });
                ended.push((n, since, at, found));
            }
        };
        let pause = super::nets::PAUSE;
        for (n, (node, content)) in questions.iter().enumerate() {
            let key = key(*content);
            let number = self.ring.world.call(*node, |peer, ctx| {
                peer.act(ctx, |core, now, out| core.lookup(now, key, lookup, out))
            });
            let now = self.ring.world.now();
            open.insert((*node, number), (n, now));
            self.ring.world.run_until(now + pause, |at, node, said| {
                hear(&mut open, &mut ended, at, node, said);
            });
        }
        let end = self.ring.world.now() + Duration::from_secs(40);
        self.ring.world.run_until(end, |at, node, said| {
            hear(&mut open, &mut ended, at, node, said);
        });
        for (n, since, at, found) in ended {
            let (asker, content) = questions[n];
            let Some((owner, hops, path, timeouts)) = found else {
                continue;
            };
            let asked = &mut all[n];
            let records = self.records_at(owner, content, asker);
            let remote = u64::from(owner != asker);
            // Queries, each with a receipt, those in vain, and the answer; then the records.
            asked.messages = 2 * u64::from(hops) + u64::from(timeouts) + remote * 2;
            asked.answers = remote * 2;
            asked.reach = path.len() as u64;
            asked.found = records;
            // Headers and two places in a query, a place in each receipt and answer.
            let fixed = u64::from(hops) * (92 + 40) + remote * (92 + 2 * DATAGRAM);
            asked.bytes = fixed + records * (RECORD + name(content).len() as u64);
            asked.hops = Some(hops);
            let took = at.since(since) + DELAY * 2 * u32::from(owner != asker);
            asked.first_ms = (records > 0).then_some(took.as_secs_f64() * 1000.0);
            for node in path {
                self.loads[node as usize] += 1;
            }
            self.loads[owner as usize] += remote;
            self.loads[asker as usize] += remote * 2;
        }
        all
    }

    /// Those that most others know as a finger: the ones behind the greatest gaps.
    fn best(&self) -> Vec<u32> {
        let keys: Vec<(Key, u32)> = self.ring.truth.iter().map(|(k, n)| (*k, *n)).collect();
        let mut gaps: Vec<(u64, u32)> = Vec::new();
        for (i, (key, node)) in keys.iter().enumerate() {
            let before = keys[(i + keys.len() - 1) % keys.len()].0;
            gaps.push((before.distance(*key).number(), *node));
        }
        gaps.sort_by_key(|(gap, node)| (std::cmp::Reverse(*gap), *node));
        gaps.into_iter().map(|(_, node)| node).collect()
    }

    fn shoot(&mut self, nodes: &[u32]) {
        for node in nodes {
            self.ring.kill(*node);
            self.shot.insert(*node);
        }
    }

    fn wait(&mut self, time: Duration) -> bool {
        let until = self.ring.world.now() + time;
        self.ring.world.run_until(until, |_, _, _| {});
        true
    }

    fn take_loads(&mut self) -> Vec<u64> {
        let nothing = vec![0; self.loads.len()];
        std::mem::replace(&mut self.loads, nothing)
    }

    fn states(&self) -> Vec<State> {
        let nodes = self.ring.world.nodes().iter().zip(&self.records);
        nodes
            .map(|(peer, records)| {
                let fingers = peer.node.fingers().iter();
                let known = fingers.chain(peer.node.successors()).map(|c| c.addr);
                State {
                    links: known.collect::<BTreeSet<u32>>().len() as u64,
                    entries: *records,
                }
            })
            .collect()
    }

    fn events(&self) -> (u64, Digest) {
        (self.ring.world.counts().events, self.ring.world.digest())
    }
}
