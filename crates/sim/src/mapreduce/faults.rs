//! Random faults on a small cluster, from a seed; then all is healed, and the job must end with
//! exact output.

use super::{Cluster, MASTER, Model};
use crate::Digest;
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::mapreduce::paper::MapReduce;
use crate::report::{Axis, Plot, Report, Series};
use crate::rng_for;
use crate::stats::Tally;
use shoal_base::{Rng, Time};
use std::time::Duration;

/// What may happen. Each seed leaves out about half of the kinds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A process dies, its kernel says so, and another starts later.
    Kill(u32),
    /// A machine is gone without a word, and comes back later with nothing.
    Crash(u32),
    Restart(u32),
    /// A process stands still for so many seconds.
    Stop(u32, u64),
    /// The network splits.
    Split(u64),
    Heal,
    Slow(u32, f64),
    Master,
    Corrupt(u32),
    DiskFull(u32),
    Flaky(f64),
}

/// What a seed stands for.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    model: Model,
    liars: Vec<u32>,
    faults: Vec<(Time, Fault)>,
    /// When all is healed.
    end: Time,
}

/// How long a job may take after the healing.
const PATIENCE: Duration = Duration::from_secs(6000);

impl Plan {
    fn random(seed: u64) -> Self {
        let mut rng = rng_for(seed, 0xfa);
        let workers = 6 + rng.below(9) as u32;
        let strangers = rng.chance(0.25);
        let model = Model {
            workers,
            maps: 10 + rng.below(50) as u32,
            reduces: 1 + rng.below(10) as u32,
            map_s: 2.0 + 18.0 * rng.unit(),
            reduce_s: 2.0 + 13.0 * rng.unit(),
            map_bytes: 10_000_000,
            rate: 10e6,
            replicas: rng.below(3) as u32,
            remote_s: 1.0,
            stragglers: Vec::new(),
            speculative: rng.chance(0.8),
            // Strangers leave no records out: with them alone such a job fails.
            poison: rng
                .chance(0.3)
                .then(|| (3, rng.next_u64() % 1000))
                .filter(|_| !strangers),
            strangers,
        };
        let liars = match strangers {
            true => (1..=workers / 4).collect(),
            false => Vec::new(),
        };
        let end_s = 60 + rng.below(200) as u64;
        let kinds: Vec<bool> = (0..9).map(|_| rng.chance(0.5)).collect();
        let mut faults = Vec::new();
        for _ in 0..3 + rng.below(20) {
            let at = Time::from_micros(rng.next_u64() % (end_s * 1_000_000));
            let kind = rng.below(kinds.len());
            if kinds[kind] {
                draw(kind, at, workers, &mut rng, &mut faults);
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            model,
            liars,
            faults,
            end: Time::from_secs(end_s),
        }
    }
}

fn draw(kind: usize, at: Time, workers: u32, rng: &mut Rng, out: &mut Vec<(Time, Fault)>) {
    let node = 1 + rng.below(workers as usize) as u32;
    let later = |rng: &mut Rng, s: usize| at + Duration::from_secs(1 + rng.below(s) as u64);
    match kind {
        0 => {
            out.push((at, Fault::Kill(node)));
            out.push((later(rng, 40), Fault::Restart(node)));
        }
        1 => {
            out.push((at, Fault::Crash(node)));
            out.push((later(rng, 60), Fault::Restart(node)));
        }
        2 => out.push((at, Fault::Stop(node, 1 + rng.below(60) as u64))),
        3 => {
            out.push((at, Fault::Split(rng.next_u64())));
            out.push((later(rng, 50), Fault::Heal));
        }
        4 => out.push((at, Fault::Slow(node, 2.0 + 20.0 * rng.unit()))),
        5 => out.push((at, Fault::Master)),
        6 => out.push((at, Fault::Corrupt(node))),
        7 => out.push((at, Fault::DiskFull(node))),
        _ => out.push((at, Fault::Flaky(0.2 * rng.unit()))),
    }
}

/// What a run that breaks no rule tells.
struct Passed {
    digest: u64,
    events: u64,
    /// Seconds from the healing to the end; 0 if it ended before.
    after_s: u64,
    masters: u64,
    lost: u64,
}

fn run_one(seed: u64) -> Result<Passed, String> {
    let plan = Plan::random(seed);
    let mut cluster = Cluster::new(plan.model.clone(), seed);
    for liar in &plan.liars {
        cluster.with_hand(*liar, |hand, _| hand.lies = true);
    }
    for (at, fault) in &plan.faults {
        if *at >= plan.end || cluster.ended.is_some() {
            break;
        }
        cluster.run_until(*at);
        apply(&mut cluster, *fault);
    }
    cluster.run_until(plan.end);
    cluster.world.heal();
    for node in 1..=plan.model.workers {
        cluster.with_hand(node, |hand, _| {
            hand.disk_full = false;
            hand.flaky = 0.0;
            hand.slow = 1.0;
        });
        cluster.restart(node);
    }
    let mut now = plan.end;
    while cluster.ended.is_none() && now < plan.end + PATIENCE {
        now += Duration::from_secs(10);
        cluster.run_until(now);
    }
    // The master may have told the end and not been heard: it stays told.
    let tally = cluster.verify()?;
    if plan.model.poison.is_some() && tally.skipped != 1 {
        return Err(format!("{} records were skipped, not 1", tally.skipped));
    }
    let ended = cluster.ended.as_ref().map_or(Time::ZERO, |(at, _)| *at);
    Ok(Passed {
        digest: cluster.digest().value(),
        events: cluster.world.counts().events,
        after_s: ended.since(plan.end).as_secs(),
        masters: tally.masters,
        lost: tally.lost,
    })
}

fn apply(cluster: &mut Cluster, fault: Fault) {
    match fault {
        Fault::Kill(node) => cluster.kill(node, true),
        Fault::Crash(node) => cluster.kill(node, false),
        Fault::Restart(node) => cluster.restart(node),
        Fault::Stop(node, seconds) => {
            let until = cluster.world.now() + Duration::from_secs(seconds);
            cluster.with_hand(node, |hand, _| hand.stop(until));
        }
        Fault::Split(bits) => {
            let nodes = cluster.model.workers as usize + 1;
            let side = (0..nodes).map(|n| u8::from(bits >> (n % 64) & 1 == 1));
            cluster.world.split(side.collect());
        }
        Fault::Heal => cluster.world.heal(),
        Fault::Slow(node, by) => cluster.with_hand(node, |hand, _| hand.slow = by),
        Fault::Master => {
            if cluster.world.is_up(MASTER) {
                cluster.crash_master();
            }
        }
        Fault::Corrupt(node) => cluster.with_hand(node, |hand, _| hand.corrupt()),
        Fault::DiskFull(node) => cluster.with_hand(node, |hand, _| hand.disk_full = true),
        Fault::Flaky(share) => {
            for node in 1..=cluster.model.workers {
                cluster.with_hand(node, |hand, _| hand.flaky = share);
            }
        }
    }
}

/// Failing seeds told in a report; more are only counted.
const TOLD: usize = 20;

/// Runs so many seeds.
pub(super) fn run(seed: u64, seeds: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
    if seeds == 0 {
        return Err(BadOptions("nothing to run".into()));
    }
    let mut digest = Digest::default();
    let mut speed = Speed::default();
    let (mut events, mut masters, mut lost) = (0, 0, 0);
    let mut failed: Vec<(u64, String)> = Vec::new();
    let mut after = Tally::default();
    speed.start(host, 0);
    for i in 0..seeds {
        let seed = seed.wrapping_add(i);
        match run_one(seed) {
            Ok(passed) => {
                digest.add(seed, passed.digest);
                events += passed.events;
                masters += passed.masters.saturating_sub(1);
                lost += passed.lost;
                after.add(passed.after_s);
            }
            Err(why) => {
                digest.add(seed, 0);
                failed.push((seed, why));
            }
        }
        host.progress("Running", i, seeds);
    }
    speed.stop(host, events);
    let experiment = MapReduce {
        workers: 0,
        faults: Some(seeds),
    };
    let mut report = Report::new("mapreduce", "Random faults on MapReduce", seed);
    report.summary = "Each seed plans which machines die, stand still, are cut off, slow, full or \
                      lying, and when the master does. Then all is healed: the job must end, with \
                      exact output."
        .to_owned();
    report.options = experiment.options();
    report.digest = digest;
    report.figure("failed", failed.len());
    report.figure("after_healing_s_p50", after.quantile(0.5));
    report.figure("after_healing_s_max", after.max());
    report.figure("master_restarts", masters);
    report.figure("outputs_lost", lost);
    report.figure("events", events);
    speed.tell(&mut report);
    failed.truncate(TOLD);
    report.check(
        format!("{seeds} seeds of faults"),
        "0 break a rule",
        format!("{} do: {failed:?}", failed.len()),
        failed.is_empty(),
    );
    let shares = after.shares().filter(|(_, share)| *share > 0.0);
    report.plots.push(Plot {
        title: "From the healing until the job ended".into(),
        caption: "0: it ended while faults went on.".into(),
        x: Axis::linear("seconds"),
        y: Axis::linear("share of the seeds, %"),
        series: vec![Series::bars(
            "seeds",
            shares.map(|(s, share)| (s as f64, share * 100.0)).collect(),
        )],
    });
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_end_with_exact_output_whatever_fails_and_runs_replay() {
        for seed in 0..30 {
            let first = run_one(seed).map_err(|why| format!("seed {seed}: {why}"));
            let first = first.expect("no rule is broken");
            if seed % 10 == 0 {
                let again = run_one(seed).expect("as before");
                assert_eq!((first.digest, first.events), (again.digest, again.events));
            }
        }
    }
}
