//! What a peer gets for what it gives: tit-for-tat among classes of uplinks, and free riders.
//!
//! The population is constant: who leaves is replaced by a newcomer of its class.

use super::{Class, Content, Stay, Swarm};
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use shoal_base::Time;
use shoal_bittorrent::choker::{Choking, Upload};
use std::time::Duration;

/// Some of the peers.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// How many there are at any time.
    pub count: usize,
    /// Payload bytes a second out of each.
    pub up: u64,
    /// Whether they serve others.
    pub shares: bool,
}

/// A swarm of groups.
#[derive(Clone, Debug)]
pub struct Trade {
    /// What is shared.
    pub content: Content,
    /// The peers that fetch.
    pub groups: Vec<Group>,
    /// Whom they serve.
    pub choking: Choking,
    /// Seeds that stay for ever.
    pub seeds: usize,
    /// Payload bytes a second out of each seed.
    pub seed_up: u64,
    /// Seconds it settles.
    pub settle_s: f64,
    /// Seconds it is measured.
    pub measure_s: f64,
}

/// What one peer gave and got, in bytes a second of the time it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dealings {
    /// Which group it is of.
    pub group: usize,
    /// Sent.
    pub gave: f64,
    /// Came from leechers.
    pub got_from_leechers: f64,
    /// Came from seeds.
    pub got_from_seeds: f64,
}

impl Dealings {
    /// Came.
    pub fn got(&self) -> f64 {
        self.got_from_leechers + self.got_from_seeds
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct TradeRun {
    /// One entry for each peer that was there for long enough while it was measured.
    pub dealings: Vec<Dealings>,
    /// Seconds peers of each group needed for the content, of those who got it.
    pub took_s: Vec<Vec<f64>>,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// The hash of all events.
    pub digest: Digest,
}

impl TradeRun {
    /// The mean of `of` over the peers of `group`.
    pub fn mean(&self, group: usize, of: impl Fn(&Dealings) -> f64) -> f64 {
        let members = || self.dealings.iter().filter(|d| d.group == group);
        members().map(of).sum::<f64>() / members().count().max(1) as f64
    }

    /// How closely what peers got follows what they gave: the correlation coefficient.
    pub fn correlation(&self) -> f64 {
        let n = self.dealings.len().max(1) as f64;
        let mean = |of: fn(&Dealings) -> f64| self.dealings.iter().map(of).sum::<f64>() / n;
        let (gave, got) = (mean(|d| d.gave), mean(Dealings::got));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            let deviations = self.dealings.iter().map(|d| (d.gave - gave, d.got() - got));
            deviations.map(|(x, y)| of(x, y)).sum()
        };
        let both = sum(&|x, _| x * x) * sum(&|_, y| y * y);
        if both > 0.0 {
            sum(&|x, y| x * y) / both.sqrt()
        } else {
            0.0
        }
    }
}

impl Trade {
    /// Upload slots, the optimistic one among them, of a peer with `up` bytes a second.
    pub fn slots(up: u64) -> u32 {
        let limit = Some(up);
        Upload { limit, rate: 0 }.slots() as u32
    }

    /// Runs it; none if there is no such content.
    pub fn run(&self, seed: u64, host: &mut dyn Host) -> Option<TradeRun> {
        let mut swarm = Swarm::new(seed, self.content, Links::default())?;
        for group in &self.groups {
            swarm.class(Class {
                shares: group.shares,
                choking: self.choking,
                replaced: true,
                ..Class::new(group.up)
            });
        }
        let seeds = swarm.class(Class {
            stay: Stay::Forever,
            ..Class::new(self.seed_up)
        });
        for _ in 0..self.seeds {
            swarm.join_seed(seeds);
        }
        for (class, group) in self.groups.iter().enumerate() {
            // Spread out, so that they are at all stages of the download.
            let within = Duration::from_secs_f64(self.settle_s / 2.0);
            swarm.crowd(class, group.count, within);
        }
        let at = |s: f64| Time::ZERO + Duration::from_secs_f64(s);
        self.watch(&mut swarm, 0.0, self.settle_s, host);
        let before: Vec<_> = swarm.peers().iter().map(|p| p.record).collect();
        let end_s = self.settle_s + self.measure_s;
        self.watch(&mut swarm, self.settle_s, end_s, host);

        let mut run = TradeRun {
            took_s: vec![Vec::new(); self.groups.len()],
            ..TradeRun::default()
        };
        let (begin, end) = (at(self.settle_s), at(end_s));
        for (node, peer) in swarm.peers().iter().enumerate() {
            let record = peer.record;
            run.faults += record.faults;
            if record.class >= self.groups.len() || record.left.is_some_and(|t| t < begin) {
                continue;
            }
            let then = before.get(node).copied().unwrap_or_default();
            let from = begin.max(record.joined);
            let seconds = record.left.unwrap_or(end).since(from).as_secs_f64();
            // Too short a time says nothing of a rate.
            if seconds >= self.measure_s / 20.0 {
                let rate = |after: u64, before: u64| (after - before) as f64 / seconds;
                run.dealings.push(Dealings {
                    group: record.class,
                    gave: rate(record.given, then.given),
                    got_from_leechers: rate(record.from_leechers, then.from_leechers),
                    got_from_seeds: rate(record.from_seeds, then.from_seeds),
                });
            }
            if record.joined >= begin {
                run.took_s[record.class].extend(record.took());
            }
        }
        run.digest = swarm.digest();
        Some(run)
    }

    fn watch(&self, swarm: &mut Swarm, from_s: f64, to_s: f64, host: &mut dyn Host) {
        const STEPS: u64 = 50;
        let total = ((self.settle_s + self.measure_s) * 10.0) as u64;
        for i in 1..=STEPS {
            let at = from_s + (to_s - from_s) * i as f64 / STEPS as f64;
            swarm.run_until(Time::ZERO + Duration::from_secs_f64(at));
            host.progress("Trading", (at * 10.0) as u64, total);
        }
    }
}
