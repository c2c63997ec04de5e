//! Many lookups in a ring that nobody joins or leaves: how many hops, how many in vain.

use super::{Key, Ring, Said};
use crate::experiment::{Host, Speed};
use crate::stats::Tally;
use crate::world::Step;
use shoal_base::Time;
use shoal_dht::chord::{Config, Lookup};
use std::time::Duration;

/// How lookups are made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many.
    pub count: u64,
    /// How many begin in a second of the world's time, evenly.
    pub rate: u64,
    /// How each is done.
    pub lookup: Lookup,
}

/// What came of them.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Query messages on the way to the owner.
    pub hops: Tally,
    /// Queries that nobody answered.
    pub timeouts: Tally,
    /// Microseconds from asking to the answer, in milliseconds.
    pub millis: Tally,
    /// Ended without an answer.
    pub failed: u64,
    /// Ended with another node than the owner.
    pub wrong: u64,
    /// How fast the simulator was.
    pub speed: Speed,
}

/// Settings for a ring that is left alone: nothing is lost, so one attempt tells the dead, and no
/// lookup remembers them for the next.
pub fn still(successors: usize, longest_path: u32) -> Config {
    // Each hop takes at most a few round trips and time-outs.
    let patience = Duration::from_secs(60 + u64::from(longest_path));
    Config {
        successors,
        timeout: Duration::from_millis(500),
        attempts: 1,
        suspicion: Duration::ZERO,
        hop_limit: longest_path.max(128),
        restart: patience,
        deadline: patience,
        ..Config::still()
    }
}

/// Asks for random keys at random live nodes.
pub fn run(ring: &mut Ring, plan: &Plan, host: &mut dyn Host) -> Outcome {
    let mut outcome = Outcome::default();
    let live: Vec<u32> = ring.world.live().collect();
    if live.is_empty() || plan.count == 0 {
        return outcome;
    }
    outcome.speed.start(host, ring.world.counts().events);
    let begin = ring.world.now();
    let interval = 1_000_000 / plan.rate.clamp(1, 1_000_000);
    let at = |i: u64| begin + Duration::from_micros(i.saturating_mul(interval));
    ring.world.schedule(begin, 0);
    let mut ended = 0;
    // When each lookup under way began, by asker and number; only looked up.
    let mut begun = rustc_hash::FxHashMap::<(u32, u32), Time>::default();
    while ended < plan.count {
        match ring.world.advance() {
            Step::Control(i) => {
                let key: Key = ring.random_key();
                let asker = live[ring.rng.below(live.len())];
                let number = ring.world.call(asker, |peer, ctx| {
                    peer.act(ctx, |node, now, out| {
                        node.lookup(now, key, plan.lookup, out)
                    })
                });
                begun.insert((asker, number), ring.world.now());
                if i + 1 < plan.count {
                    ring.world.schedule(at(i + 1), i + 1);
                }
            }
            Step::Told(asker, Said::Lookup(number, result)) => {
                ended += 1;
                let since = begun.remove(&(asker, number)).unwrap_or(begin);
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
                if ended % 1024 == 0 {
                    host.progress("Looking up", ended, plan.count);
                }
            }
            Step::Told(..) => {}
            // Cannot be while lookups are under way: each has a deadline.
            Step::Quiet => break,
        }
    }
    outcome.failed += plan.count - ended;
    outcome.speed.stop(host, ring.world.counts().events);
    outcome
}
