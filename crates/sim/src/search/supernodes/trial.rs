//! One hierarchy that is asked, churned, orphaned and shot at.

use super::super::hierarchy::{DELAY, End, Net};
use super::super::library::{Library, Zipf};
use super::super::{Asked, Outcome};
use super::{AWAY, ENDED, LIVES_S, MEND, MOST, PAUSE, Supernodes, TTL};
use crate::churn::Sessions;
use crate::experiment::Host;
use crate::rng_for;
use crate::stats::{Summary, mean};
use rustc_hash::FxHashMap;
use serde_json::Value;
use shoal_base::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Questions that were asked, and what should come of each.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) asked: Vec<Asked>,
    /// Questions that nobody took: the asker had no supernode.
    pub(super) mute: usize,
    /// Those who have it, but the asker, and are in when it is asked.
    pub(super) holders: Vec<u64>,
    /// Those of them whose supernode is near enough for the question to come there.
    pub(super) near: Vec<u64>,
    /// Messages that the graph of supernodes says it takes, and supernodes it reaches.
    pub(super) theory: Vec<(u64, u64)>,
}

impl Round {
    /// Share of what could be found that was.
    pub(super) fn recall(&self) -> f64 {
        let pairs = self.asked.iter().zip(&self.holders);
        let (found, could) = pairs.fold((0, 0), |(found, could), (asked, holders)| {
            let most = (*holders).min(MOST);
            (found + asked.found.min(most), could + most)
        });
        found as f64 / could.max(1) as f64
    }

    pub(super) fn exact_cost(&self) -> bool {
        let mut pairs = self.asked.iter().zip(&self.theory);
        pairs.all(|(asked, theory)| (asked.messages, asked.reach) == *theory)
    }

    pub(super) fn exact_hits(&self) -> bool {
        let mut pairs = self.asked.iter().zip(&self.near);
        pairs.all(|(asked, near)| asked.found == (*near).min(MOST))
    }

    pub(super) fn json(&self) -> Value {
        let mut row = Outcome::of(&self.asked).json();
        row["recall"] = self.recall().into();
        row["mute"] = self.mute.into();
        row
    }
}

/// The hierarchy of a run, and what its questions are drawn from.
pub(super) struct Trial {
    pub(super) net: Net,
    pub(super) zipf: Zipf,
    pub(super) rng: Rng,
    /// Members that share each content.
    pub(super) holders: FxHashMap<u32, Vec<u32>>,
}

impl Trial {
    pub(super) fn new(options: &Supernodes, seed: u64, (supernodes, children): (u32, u32)) -> Self {
        let mut rng = rng_for(seed, 1 << 40);
        let zipf = Zipf::new(options.contents);
        let all = supernodes * (children + 1);
        let libraries: Vec<Library> = (0..all)
            .map(|_| Library::draw(options.files, &zipf, &mut rng))
            .collect();
        let mut holders: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for (node, library) in (1..).zip(&libraries) {
            for content in &library.0 {
                holders.entry(*content).or_default().push(node);
            }
        }
        let net = Net::new(seed, supernodes, libraries, |config| {
            // Room for those whose supernodes are shot.
            config.max_children = children as usize * 2 + 10;
            config.ttl = TTL;
            config.max_results = MOST as usize;
        });
        Self {
            net,
            zipf,
            rng,
            holders,
        }
    }

    /// Asks one question after the other, and waits for all answers.
    pub(super) fn ask(&mut self, questions: u32) -> Round {
        let mut round = Round::default();
        let graph = self.net.graph();
        let mut ids = Vec::new();
        let members = self.net.members().count();
        while ids.len() + round.mute < questions as usize {
            let node = 1 + self.rng.below(members) as u32;
            if !self.net.is_up(node) {
                continue;
            }
            let content = self.zipf.draw(&mut self.rng);
            let holders = self.holders.get(&content).map_or(&[][..], Vec::as_slice);
            let others = holders
                .iter()
                .filter(|h| **h != node && self.net.is_in(**h));
            let homes: Vec<u32> = others.filter_map(|h| self.net.supernode_of(*h)).collect();
            let home = self.net.supernode_of(node);
            match self.net.ask(node, content).zip(home) {
                Some((id, home)) => {
                    let (messages, reach) = graph.flood(home - 1, TTL);
                    let first = u64::from(home != node);
                    round.theory.push((first + messages, reach));
                    let reached = graph.reached(home - 1, TTL);
                    let near = homes.iter().filter(|h| reached.contains(&(**h - 1)));
                    round.near.push(near.count() as u64);
                    round.holders.push(homes.len() as u64);
                    ids.push(id);
                }
                None => round.mute += 1,
            }
            self.net.run(PAUSE);
        }
        self.net.run(DELAY * 2 * (u32::from(TTL) + 2));
        round.asked = ids.into_iter().map(|id| self.net.take(id).0).collect();
        round
    }

    /// Share of the members that run who have a supernode or are one.
    pub(super) fn housed(&self) -> f64 {
        let up = self.net.members().filter(|n| self.net.is_up(*n)).count();
        let inside = self.net.members().filter(|n| self.net.is_in(*n)).count();
        inside as f64 / up.max(1) as f64
    }

    /// Members come and go for a while; questions are asked meanwhile.
    pub(super) fn churn(&mut self, options: &Supernodes, host: &mut dyn Host) -> Churned {
        let lives = |mean_s: f64| Sessions::Exponential { mean_s };
        let (of_supernodes, of_children) = (lives(LIVES_S.0), lives(LIVES_S.1));
        let mut ends: BTreeMap<(Duration, u32), bool> = BTreeMap::new();
        for node in self.net.members() {
            let life = match self.net.is_supernode(node) {
                true => of_supernodes.draw(&mut self.rng),
                false => of_children.draw(&mut self.rng),
            };
            ends.insert((life, node), false);
        }
        let all = Duration::from_secs(options.churn_s.into());
        let mut churned = Churned::default();
        let mut housed = Vec::new();
        let rounds = options.churn_s.div_ceil(10).max(1);
        let mut at = Duration::ZERO;
        let began = self.net.world.now();
        for round in 0..rounds {
            host.progress("Churning", round.into(), rounds.into());
            let until = all * (round + 1) / rounds;
            while let Some(entry) = ends.first_entry().filter(|e| e.key().0 <= until) {
                let ((time, node), away) = entry.remove_entry();
                // Asking takes time, too.
                at = at.max(self.net.world.now().since(began));
                if time > at {
                    self.net.run(time - at);
                }
                let supernode = self.net.is_supernode(node);
                if away {
                    self.net.begin(node);
                    let life = match supernode {
                        true => of_supernodes.draw(&mut self.rng),
                        false => of_children.draw(&mut self.rng),
                    };
                    ends.insert((time + life, node), false);
                    continue;
                }
                // Half of them end their programs, the others' lines break.
                let how = match self.rng.chance(0.5) {
                    true => End::Killed,
                    false => End::Gone,
                };
                self.net.end(node, how);
                match supernode {
                    true => churned.supernodes += 1,
                    false => churned.children += 1,
                }
                ends.insert((time + AWAY, node), true);
            }
            let questions = options.questions.div_ceil(rounds);
            let asked = self.ask(questions);
            churned.round.asked.extend(asked.asked);
            churned.round.holders.extend(asked.holders);
            churned.round.mute += asked.mute;
            housed.push(self.housed());
        }
        // Who is away comes back.
        for ((_, node), away) in ends {
            if away {
                self.net.begin(node);
            }
        }
        self.net.run(MEND);
        churned.housed = mean(&housed);
        churned.homing = Summary::of(&mut std::mem::take(&mut self.net.homing_s));
        churned
    }

    /// Supernodes by their neighbours, those with most first.
    pub(super) fn best(&self) -> Vec<u32> {
        let by_degree = self.net.graph().by_degree();
        let up = by_degree.into_iter().map(|n| n + 1);
        up.filter(|n| self.net.is_up(*n)).collect()
    }

    /// Ends some supernodes at once and waits until all their children have others, at most as long
    /// as they may take; then the dead return.
    pub(super) fn orphan(&mut self, how: End, most_s: f64) -> Homing {
        let mut supernodes: Vec<u32> = self.best();
        self.rng.shuffle(&mut supernodes);
        let count = (supernodes.len() as f64 * ENDED).ceil() as usize;
        supernodes.truncate(count);
        self.net.homing_s.clear();
        supernodes.iter().for_each(|n| self.net.end(*n, how));
        let children = self.net.orphans();
        self.net.run(Duration::from_secs_f64(most_s));
        let late = self.net.orphans();
        let homing = Summary::of(&mut std::mem::take(&mut self.net.homing_s));
        supernodes.iter().for_each(|n| self.net.begin(*n));
        self.net.run(MEND);
        Homing {
            how,
            most_s,
            supernodes: count,
            children,
            late,
            homing,
        }
    }

    /// Shoots the best connected until so many of all are dead; asks at once, and when children had
    /// time to find others.
    pub(super) fn shoot(&mut self, options: &Supernodes, share: f64) -> Shot {
        let count = (f64::from(options.supernodes) * share).round() as usize;
        let best = self.best();
        let dead = options.supernodes as usize - best.len();
        let more = count.saturating_sub(dead);
        best.iter()
            .take(more)
            .for_each(|n| self.net.end(*n, End::Gone));
        let at_once = self.ask(options.questions / 4);
        self.net.run(MEND);
        let housed = self.housed();
        Shot {
            share,
            at_once,
            housed,
            mended: self.ask(options.questions / 4),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Churned {
    pub(super) round: Round,
    pub(super) supernodes: u32,
    pub(super) children: u32,
    pub(super) housed: f64,
    pub(super) homing: Summary,
}

#[derive(Debug)]
pub(super) struct Homing {
    pub(super) how: End,
    pub(super) most_s: f64,
    pub(super) supernodes: usize,
    pub(super) children: usize,
    pub(super) late: usize,
    pub(super) homing: Summary,
}

#[derive(Debug)]
pub(super) struct Shot {
    pub(super) share: f64,
    pub(super) at_once: Round,
    pub(super) housed: f64,
    pub(super) mended: Round,
}
