//! What can go wrong, planned from a seed: which faults, when, to whom.
//!
//! A plan is data. It is printed before a run, can be shrunk while it still fails, and is kept as a
//! file (`crates/sim/regressions`) that a test replays. Each seed switches whole kinds of faults on
//! or off, so that some runs see one kind alone and others all together.

use crate::link::{Delay, Links};
use crate::rng_for;
use serde::{Deserialize, Serialize};
use shoal_base::Rng;

/// Something that goes wrong at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// The links become like this.
    Links(Links),
    /// A node dies; it comes back after so many microseconds, if at all, with or without its disk.
    Crash {
        /// Which.
        node: u32,
        /// When it starts again.
        back_us: Option<u64>,
        /// Whether it remembers.
        disk: bool,
    },
    /// A new node comes.
    Join,
    /// A node goes and says so.
    Leave {
        /// Which.
        node: u32,
    },
    /// The network falls apart.
    Split {
        /// Where each node is; beyond the end, side 0.
        side: Vec<u8>,
        /// Which side is not heard by which.
        cuts: Vec<(u8, u8)>,
        /// For how many microseconds.
        us: u64,
    },
    /// All that a node sends and receives waits.
    Clog {
        /// Which.
        node: u32,
        /// For how many microseconds.
        us: u64,
    },
    /// A node takes longer over everything.
    Slow {
        /// Which.
        node: u32,
        /// By how many microseconds.
        us: u64,
    },
    /// A clock is set.
    ClockJump {
        /// Whose.
        node: u32,
        /// Forward, or back when negative, in microseconds.
        us: i64,
    },
    /// A clock runs fast or slow.
    ClockDrift {
        /// Whose.
        node: u32,
        /// Parts per million.
        ppm: i32,
    },
    /// A node gets another address, or its translator forgets its mappings.
    Move {
        /// Which.
        node: u32,
    },
}

/// The kinds of faults that a plan draws from, and their bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Menu {
    /// Loss, duplication, reordering, long delays.
    pub links: bool,
    /// Deaths, some for good.
    pub crashes: bool,
    /// Newcomers and leavers.
    pub membership: bool,
    /// Partitions, for at most so many microseconds.
    pub splits: bool,
    /// See `splits`.
    pub split_us: u64,
    /// Clogged and slow nodes.
    pub clogs: bool,
    /// Clocks that jump and drift.
    pub clocks: bool,
    /// Addresses that change.
    pub moves: bool,
}

/// A run: who is there, and what goes wrong when. After `faulty_us` all is healed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Drives everything else in the run.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: u32,
    /// How long things go wrong.
    pub faulty_us: u64,
    /// When, in microseconds, and what; in order of time.
    pub faults: Vec<(u64, Fault)>,
}

/// Draws faults of a kind, among so many nodes, with splits of at most so many microseconds.
type Draw = fn(&mut Rng, u32, u64, &mut Vec<Fault>);

impl Plan {
    /// Draws a plan. `menu` says what may be drawn; the seed switches off some of it.
    pub fn random(seed: u64, nodes: (u32, u32), faulty_us: u64, menu: Menu) -> Self {
        let mut rng = rng_for(seed, 0xfa);
        let span = (nodes.1.saturating_sub(nodes.0) + 1) as usize;
        let count = nodes.0 + rng.below(span) as u32;
        let mut kinds: Vec<Draw> = Vec::new();
        let mut offer = |on: bool, kind: Draw| {
            // Drawn even when not offered, so that a menu changes nothing else.
            if rng.chance(0.6) && on {
                kinds.push(kind);
            }
        };
        offer(menu.links, links);
        offer(menu.crashes, crash);
        offer(menu.membership, membership);
        offer(menu.splits, split);
        offer(menu.clogs, clog);
        offer(menu.clocks, clock);
        offer(menu.moves, moved);
        let mut faults = Vec::new();
        if !kinds.is_empty() {
            let mut batch = Vec::new();
            for _ in 0..1 + rng.below(24) {
                let at = rng.below(faulty_us as usize) as u64;
                let kind = kinds[rng.below(kinds.len())];
                kind(&mut rng, count, menu.split_us, &mut batch);
                // What comes in a batch follows closely on itself.
                for fault in batch.drain(..) {
                    let later = rng.below(1_000_000) as u64;
                    faults.push(((at + later).min(faulty_us), fault));
                }
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            nodes: count,
            faulty_us,
            faults,
        }
    }

    /// The smallest plan found that still fails, by leaving out ever smaller runs of its faults.
    pub fn shrink(&self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut best = self.clone();
        let mut width = best.faults.len().div_ceil(2);
        while width > 0 && !best.faults.is_empty() {
            let mut at = 0;
            let mut shrunk = false;
            while at < best.faults.len() {
                let mut less = best.clone();
                less.faults.drain(at..(at + width).min(best.faults.len()));
                if fails(&less) {
                    best = less;
                    shrunk = true;
                } else {
                    at += width;
                }
            }
            width = match (width, shrunk) {
                (1, true) => 1,
                (1, false) => 0,
                _ => width.div_ceil(2),
            };
        }
        best
    }
}

/// Zero, or below `most` of 1024 parts: numbers that a file keeps to the last bit.
fn share(rng: &mut Rng, most: usize) -> f64 {
    if rng.chance(0.5) {
        rng.below(most) as f64 / 1024.0
    } else {
        0.0
    }
}

fn links(rng: &mut Rng, _: u32, _: u64, out: &mut Vec<Fault>) {
    out.push(Fault::Links(Links {
        delay: match rng.below(3) {
            0 => Delay::Constant {
                us: 1 + rng.below(100_000) as u64,
            },
            1 => Delay::Uniform {
                low_us: 1000,
                high_us: 1000 + rng.below(300_000) as u64,
            },
            _ => Delay::LogNormal {
                median_us: 1000 + rng.below(80_000) as u64,
                sigma: share(rng, 1024),
            },
        },
        jitter_us: rng.below(50_000) as u64,
        loss: share(rng, 300),
        duplicate: share(rng, 300),
        reorder: share(rng, 512),
        reorder_us: 1 + rng.below(1_000_000) as u64,
    }));
}

fn crash(rng: &mut Rng, nodes: u32, _: u64, out: &mut Vec<Fault>) {
    let back = rng.chance(0.7);
    out.push(Fault::Crash {
        node: rng.below(nodes as usize) as u32,
        back_us: back.then(|| 1000 + rng.below(20_000_000) as u64),
        disk: rng.chance(0.5),
    });
}

fn membership(rng: &mut Rng, nodes: u32, _: u64, out: &mut Vec<Fault>) {
    if rng.chance(0.6) {
        // Several at once meet in one arc now and then.
        out.extend((0..1 + rng.below(3)).map(|_| Fault::Join));
    } else {
        let node = rng.below(nodes as usize) as u32;
        out.push(Fault::Leave { node });
    }
}

fn split(rng: &mut Rng, nodes: u32, most_us: u64, out: &mut Vec<Fault>) {
    let sides = 2 + rng.below(2) as u8;
    let side = (0..nodes).map(|_| rng.below(sides.into()) as u8).collect();
    let one_way = rng.chance(0.3);
    let mut cuts = Vec::new();
    for a in 0..sides {
        for b in 0..sides {
            if a != b && (!one_way || a < b) {
                cuts.push((a, b));
            }
        }
    }
    out.push(Fault::Split {
        side,
        cuts,
        us: 1 + rng.below(most_us as usize) as u64,
    });
}

fn clog(rng: &mut Rng, nodes: u32, _: u64, out: &mut Vec<Fault>) {
    if rng.chance(0.3) {
        out.push(Fault::Slow {
            node: rng.below(nodes as usize) as u32,
            us: rng.below(400_000) as u64,
        });
        return;
    }
    // Swizzle-clog (FoundationDB): some are stopped one after the other, and go on in another order.
    for _ in 0..1 + rng.below(4) {
        out.push(Fault::Clog {
            node: rng.below(nodes as usize) as u32,
            us: 1 + rng.below(3_000_000) as u64,
        });
    }
}

fn clock(rng: &mut Rng, nodes: u32, _: u64, out: &mut Vec<Fault>) {
    let node = rng.below(nodes as usize) as u32;
    out.push(if rng.chance(0.5) {
        let us = rng.below(20_000_000) as i64 - 10_000_000;
        Fault::ClockJump { node, us }
    } else {
        let ppm = rng.below(200_000) as i32 - 100_000;
        Fault::ClockDrift { node, ppm }
    });
}

fn moved(rng: &mut Rng, nodes: u32, _: u64, out: &mut Vec<Fault>) {
    let node = rng.below(nodes as usize) as u32;
    out.push(Fault::Move { node });
}

/// What a run that violates nothing tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// The hash of all events.
    pub digest: u64,
    /// Events in all.
    pub events: u64,
    /// Microseconds from the healing until all was well.
    pub healed_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Menu = Menu {
        links: true,
        crashes: true,
        membership: true,
        splits: true,
        split_us: 1_000_000,
        clogs: true,
        clocks: true,
        moves: true,
    };

    #[test]
    fn plans_replay_and_survive_a_file() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::random(seed, (4, 9), 60_000_000, ALL);
            assert_eq!(plan, Plan::random(seed, (4, 9), 60_000_000, ALL));
            assert!((4..=9).contains(&plan.nodes));
            assert!(plan.faults.is_sorted_by_key(|(at, _)| *at));
            let text = serde_json::to_string(&plan).expect("plain data");
            assert_eq!(plan, serde_json::from_str(&text).expect("what was written"));
            kinds.extend(plan.faults.iter().map(|(_, f)| {
                let name = format!("{f:?}");
                name.split([' ', '(']).next().unwrap_or_default().to_owned()
            }));
        }
        assert_eq!(kinds.len(), 10, "every kind comes up: {kinds:?}");
    }

    #[test]
    fn shrinking_leaves_what_matters() {
        let plan = (0..).map(|seed| Plan::random(seed, (4, 9), 60_000_000, ALL));
        let has = |plan: &Plan| {
            let joins = plan.faults.iter().filter(|(_, f)| *f == Fault::Join);
            joins.count() >= 2
        };
        let failing = plan.into_iter().find(has).expect("joins are common");
        let small = failing.shrink(has);
        assert!(small.faults.iter().all(|(_, f)| *f == Fault::Join));
        assert_eq!(small.faults.len(), 2);
    }
}
