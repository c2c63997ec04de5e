//! Lookups while nodes join and die (ToN 2003, section VI.F).

use super::{Key, Ring, Said};
use crate::Digest;
use crate::experiment::{Host, Speed};
use crate::link::{Delay, Links};
use crate::stats::Tally;
use crate::world::{Counts, Step};
use shoal_base::Time;
use shoal_dht::chord::{Config, Lookup, Route, Style};
use std::time::Duration;

/// The paper's table III, N = 1000, stabilisation every 30 s: joins (and deaths) a second, mean
/// time-outs a lookup, failures in ten thousand lookups.
pub const PAPER: [(f64, f64, f64); 8] = [
    (0.05, 0.05, 0.0),
    (0.10, 0.11, 0.0),
    (0.15, 0.16, 2.0),
    (0.20, 0.23, 5.0),
    (0.25, 0.30, 6.0),
    (0.30, 0.34, 8.0),
    (0.35, 0.42, 16.0),
    (0.40, 0.46, 15.0),
];

/// What happens.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Nodes at the beginning.
    pub nodes: u32,
    /// Joins a second, and as many deaths, each at random times.
    pub rate: f64,
    /// Mean time between stabilisations, finger repairs and predecessor checks of a node.
    pub stabilise: Duration,
    /// r.
    pub successors: usize,
    /// One a second in the mean.
    pub lookups: u64,
    /// Who carries lookups on.
    pub style: Style,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Lookups that ended while their asker lived.
    pub ended: u64,
    /// Without an answer.
    pub failed: u64,
    /// With a node that was not the owner when the answer came.
    pub wrong: u64,
    /// Query messages on the way.
    pub hops: Tally,
    /// Queries that nobody answered.
    pub timeouts: Tally,
    /// From asking to the answer.
    pub millis: Tally,
    /// Nodes that joined.
    pub joined: u64,
    /// Nodes that could not.
    pub join_failed: u64,
    /// Nodes that died.
    pub died: u64,
    /// Members at the end.
    pub members: usize,
    /// The world's counts.
    pub counts: Counts,
    /// The hash of all events.
    pub digest: Digest,
    /// How fast the simulator was.
    pub speed: Speed,
}

impl Outcome {
    /// Failures and wrong answers in ten thousand lookups.
    pub fn failures_in_10_000(&self) -> f64 {
        (self.failed + self.wrong) as f64 * 1e4 / self.ended.max(1) as f64
    }
}

const LOOKUP: u64 = 0;
const JOIN: u64 = 1;
const DEATH: u64 = 2;

/// Runs it.
pub fn run(seed: u64, plan: &Plan, host: &mut dyn Host) -> Outcome {
    let config = Config {
        successors: plan.successors,
        stabilise: Some(plan.stabilise),
        fix_fingers: Some(plan.stabilise),
        check_predecessor: Some(plan.stabilise),
        // As in the paper.
        merge: None,
        nudge: None,
        timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let links = Links {
        delay: Delay::Exponential {
            low_us: 0,
            mean_us: 50_000,
        },
        ..Links::default()
    };
    let mut ring = Ring::perfect(seed, plan.nodes, true, config, links, |_, _| {});
    let mut outcome = Outcome::default();
    outcome.speed.start(host, 0);
    let lookup = Lookup {
        route: Route::Fingers,
        style: plan.style,
        ..Lookup::default()
    };
    // Exponential waits: each kind of event is a Poisson process of its own.
    let wait = |ring: &mut Ring, rate: f64| {
        Duration::from_secs_f64(-(1.0 - ring.rng.unit()).ln() / rate.max(1e-9))
    };
    for (token, rate) in [(LOOKUP, 1.0), (JOIN, plan.rate), (DEATH, plan.rate)] {
        if rate > 0.0 {
            let at = Time::ZERO + wait(&mut ring, rate);
            ring.world.schedule(at, token);
        }
    }
    let mut members: Vec<u32> = ring.truth.values().copied().collect();
    let mut asked = 0;
    // When each lookup under way began; only looked up.
    let mut begun = rustc_hash::FxHashMap::<(u32, u32), Time>::default();
    let mut drain_until = Time::FAR;
    while ring.world.now() < drain_until {
        match ring.world.advance() {
            Step::Control(LOOKUP) => {
                let key: Key = ring.random_key();
                if let Some(asker) = ring.rng.pick(&members).copied() {
                    let number = ring.world.call(asker, |peer, ctx| {
                        peer.act(ctx, |node, now, out| node.lookup(now, key, lookup, out))
                    });
                    begun.insert((asker, number), ring.world.now());
                }
                asked += 1;
                let more = asked < plan.lookups;
                if !more {
                    // The last ones may take until their deadline.
                    drain_until = ring.world.now() + Duration::from_secs(60);
                }
                let token = if more { LOOKUP } else { u64::MAX >> 3 };
                let next = if more {
                    wait(&mut ring, 1.0)
                } else {
                    Duration::from_secs(60)
                };
                ring.world.schedule(ring.world.now() + next, token);
                host.progress("Looking up", asked, plan.lookups);
            }
            Step::Control(JOIN) => {
                let key = ring.random_key();
                let via = ring.rng.pick(&members).copied();
                let newcomer = ring.newcomer(key);
                if let Some(via) = via {
                    ring.world.call(newcomer, |peer, ctx| {
                        peer.act(ctx, |node, now, out| node.join(now, via, out));
                    });
                }
                let next = wait(&mut ring, plan.rate);
                ring.world.schedule(ring.world.now() + next, JOIN);
            }
            Step::Control(DEATH) => {
                if members.len() > 1 {
                    let at = ring.rng.below(members.len());
                    let victim = members.swap_remove(at);
                    ring.kill(victim);
                    outcome.died += 1;
                }
                let next = wait(&mut ring, plan.rate);
                ring.world.schedule(ring.world.now() + next, DEATH);
            }
            Step::Control(_) => {}
            Step::Told(node, Said::Joined(Ok(()))) => {
                let key = ring.world.node(node).node.me().id;
                ring.truth.insert(key, node);
                members.push(node);
                outcome.joined += 1;
            }
            Step::Told(node, Said::Joined(Err(_))) => {
                ring.world.crash(node);
                outcome.join_failed += 1;
            }
            Step::Told(_, Said::Alone) => {}
            Step::Told(asker, Said::Lookup(number, result)) => {
                let Some(since) = begun.remove(&(asker, number)) else {
                    continue;
                };
                outcome.ended += 1;
                match result {
                    Ok(found) => {
                        outcome.hops.add(found.hops.into());
                        outcome.timeouts.add(found.timeouts.into());
                        let took = ring.world.now().since(since);
                        outcome.millis.add(took.as_millis() as u64);
                        let right = ring.owner(found.key) == Some(found.owner.addr);
                        outcome.wrong += u64::from(!right);
                    }
                    Err(_) => outcome.failed += 1,
                }
            }
            Step::Quiet => break,
        }
    }
    outcome.members = members.len();
    outcome.counts = ring.world.counts();
    outcome.digest = ring.world.digest();
    outcome.speed.stop(host, outcome.counts.events);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn few_lookups_fail_under_churn() {
        // A tenth of the paper's ring, joined and left ten times as fast for its size.
        let plan = Plan {
            nodes: 100,
            rate: 0.10,
            stabilise: Duration::from_secs(30),
            successors: 14,
            lookups: 400,
            style: Style::Recursive,
        };
        let outcome = run(1, &plan, &mut Silent);
        assert!(outcome.joined > 20 && outcome.died > 20, "{outcome:?}");
        assert!(outcome.failures_in_10_000() < 300.0, "{outcome:?}");
        assert_eq!(outcome.digest, run(1, &plan, &mut Silent).digest);
    }
}
