//! The paper's figures (Dean and Ghemawat, OSDI 2004, section 5): a sort with and without backup
//! tasks, with workers killed on the way, and with nearly all of them lost.

use super::{Cluster, MASTER, Model, PATIENCE, Sample, Tally};
use crate::Digest;
use crate::experiment::{BadOptions, Experiment, Host, Speed};
use crate::mapreduce::faults;
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_base::Time;
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::log::{Reader, Record};
use std::collections::BTreeMap;
use std::time::Duration;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct MapReduce {
    /// Worker machines.
    pub workers: u32,
    /// Instead of the paper's runs: so many seeds of random faults.
    pub faults: Option<u64>,
}

/// Map tasks for each worker.
const WAVES: u32 = 5;
/// The paper's cluster, of which 200 were killed, and 5 were stragglers.
const PAPER: u32 = 1746;
/// How many times slower a straggler's disk is.
const STRAGGLER: f64 = 4.0;
/// When the stragglers' disks go bad.
const SLOW_FROM: Time = Time::from_secs(60);

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Blow {
    None,
    /// Processes die and others start on their machines.
    Killed {
        at: Time,
        count: u32,
    },
    /// Machines are gone for good.
    Lost {
        at: Time,
        count: u32,
    },
}

/// One run.
struct Ran {
    seconds: f64,
    samples: Vec<Sample>,
    tally: Tally,
    digest: Digest,
    events: u64,
    /// Seconds from the blow that the work left needs on the machines left.
    least_s: f64,
}

impl MapReduce {
    fn model(&self) -> Model {
        Model {
            workers: self.workers,
            maps: self.workers * WAVES,
            reduces: self.workers,
            map_s: 20.0,
            reduce_s: 40.0,
            map_bytes: 115_000_000,
            rate: 50e6,
            replicas: 3,
            remote_s: 2.0,
            stragglers: Vec::new(),
            speculative: true,
            poison: None,
            strangers: false,
        }
    }

    fn part(&self, of_paper: u32) -> u32 {
        (u64::from(self.workers) * u64::from(of_paper) / u64::from(PAPER)).max(1) as u32
    }

    fn once(
        &self,
        seed: u64,
        name: &'static str,
        (speculative, blow): (bool, Blow),
        host: &mut dyn Host,
    ) -> Result<Ran, BadOptions> {
        let model = Model {
            speculative,
            ..self.model()
        };
        model.check()?;
        let mut cluster = Cluster::new(model, seed);
        let mut samples = Vec::new();
        let mut least_s = 0.0;
        let step = Duration::from_secs(2);
        let mut now = Time::ZERO;
        let mut controls: Vec<(Time, Blow)> = Vec::new();
        if let Blow::Killed { at, .. } | Blow::Lost { at, .. } = blow {
            controls.push((at, blow));
        }
        while cluster.ended.is_none() && now < Time::ZERO + PATIENCE {
            now += step;
            if now.since(SLOW_FROM) > Duration::ZERO && now.since(SLOW_FROM) <= step {
                for i in 0..self.part(5) {
                    // Spread over the cluster.
                    let node = 1 + (i * 337 + 11) % self.workers;
                    cluster.with_hand(node, |hand, _| hand.slow = STRAGGLER);
                }
            }
            cluster.run_until(now);
            if let Some((_, blow)) = controls.pop_if(|(at, _)| *at <= now) {
                least_s = self.strike(&mut cluster, blow);
            }
            samples.extend(cluster.sample());
            let last = samples.last().map_or(0.0, |s| (s.map + s.reduce) * 500.0);
            host.progress(name, last as u64, 1000);
        }
        let tally = cluster
            .verify()
            .map_err(|why| BadOptions(format!("{name}: {why}")))?;
        let end = cluster.ended.as_ref().map_or(now, |(at, _)| *at);
        Ok(Ran {
            seconds: end.as_secs_f64(),
            samples,
            tally,
            digest: cluster.digest(),
            events: cluster.world.counts().events,
            least_s,
        })
    }

    fn strike(&self, cluster: &mut Cluster, blow: Blow) -> f64 {
        let (Blow::Killed { count, .. } | Blow::Lost { count, .. }) = blow else {
            return 0.0;
        };
        let mut nodes: Vec<u32> = (1..=self.workers).collect();
        cluster.fresh_rng().shuffle(&mut nodes);
        nodes.truncate(count as usize);
        for node in &nodes {
            cluster.kill(*node, matches!(blow, Blow::Killed { .. }));
        }
        if matches!(blow, Blow::Killed { .. }) {
            for node in nodes {
                cluster.restart(node);
            }
        }
        least(cluster)
    }
}

/// Seconds that what is left to do takes on the machines that are left, if none ever waited: the
/// lost outputs of finished maps are to be made again.
fn least(cluster: &Cluster) -> f64 {
    let model = &cluster.model;
    let mut done: BTreeMap<_, String> = BTreeMap::new();
    for record in Reader::new(cluster.head().log()).into_iter().flatten() {
        match record {
            Record::Committed(commit) => {
                done.insert(commit.attempt.task, commit.addr);
            }
            Record::Lost { attempt } => {
                done.remove(&attempt.task);
            }
            _ => {}
        }
    }
    let alive = |addr: &String| addr.parse().is_ok_and(|node| cluster.world.is_up(node));
    let is_map = |kind: TaskKind| kind == TaskKind::Map;
    let maps = done
        .iter()
        .filter(|(t, addr)| is_map(t.kind) && alive(addr));
    let maps = f64::from(model.maps) - maps.count() as f64;
    let reduces = done.keys().filter(|t| !is_map(t.kind)).count();
    let reduces = f64::from(model.reduces) - reduces as f64;
    let up = cluster.world.live().filter(|n| *n != MASTER).count();
    let fetch_s =
        model.map_bytes as f64 * f64::from(model.maps) / f64::from(model.reduces) / model.rate;
    (maps * model.map_s + reduces * (fetch_s + model.reduce_s)) / up.max(1) as f64
}

impl Experiment for MapReduce {
    fn name(&self) -> &'static str {
        "mapreduce"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        match self.faults {
            Some(seeds) => vec![("faults", seeds.to_string())],
            None => vec![("workers", self.workers.to_string())],
        }
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if let Some(seeds) = self.faults {
            return faults::run(seed, seeds, host);
        }
        if self.workers < 10 {
            return Err(BadOptions("at least 10 workers are wanted".into()));
        }
        let mut speed = Speed::default();
        speed.start(host, 0);
        let normal = self.once(seed, "As usual", (true, Blow::None), host)?;
        let no_backup = self.once(seed, "No backup tasks", (false, Blow::None), host)?;
        // The paper killed them "several minutes into" a run of fifteen.
        let at = Time::from_micros((normal.seconds * 0.4e6) as u64);
        let count = self.part(200);
        let blow = Blow::Killed { at, count };
        let killed = self.once(seed, "Killed", (true, blow), host)?;
        let count = self.workers * 8 / 9;
        let at = Time::from_micros((normal.seconds * 0.5e6) as u64);
        let lost = self.once(seed, "Lost", (true, Blow::Lost { at, count }), host)?;
        let events = [&normal, &no_backup, &killed, &lost]
            .iter()
            .map(|r| r.events)
            .sum();
        speed.stop(host, events);

        let mut report = Report::new(self.name(), "MapReduce on a cluster that fails", seed);
        report.summary =
            "The master and worker cores sort on virtual machines, as in section 5 of \
                          the paper. In every run the output is exact: checked outside."
                .to_owned();
        report.options = self.options();
        let mut digest = Digest::default();
        for run in [&normal, &no_backup, &killed, &lost] {
            digest.add(run.digest.value(), run.events);
        }
        report.digest = digest;
        let percent = |run: &Ran| (run.seconds / normal.seconds - 1.0) * 100.0;
        let ideal = at.as_secs_f64() + lost.least_s;
        report.figure("normal_s", normal.seconds);
        report.figure("no_backup_s", no_backup.seconds);
        report.figure("no_backup_percent", percent(&no_backup));
        report.figure("killed_s", killed.seconds);
        report.figure("killed_percent", percent(&killed));
        report.figure("killed_outputs_lost", killed.tally.lost);
        report.figure("lost_s", lost.seconds);
        report.figure("lost_least_s", ideal);
        report.figure("lost_over_least", lost.seconds / ideal);
        report.figure("lost_outputs_lost", lost.tally.lost);
        report.figure("commits", normal.tally.commits);
        report.figure("events", events);
        speed.tell(&mut report);
        report.check(
            "without backup tasks a tail of stragglers",
            "20 % or more longer (paper 44 %)",
            format!("{} % longer", number(percent(&no_backup))),
            percent(&no_backup) >= 20.0,
        );
        report.check(
            format!("{} of {} workers killed", self.part(200), self.workers),
            "up to 15 % longer (paper 5 %)",
            format!("{} % longer", number(percent(&killed))),
            (0.0..=15.0).contains(&percent(&killed)),
        );
        report.check(
            format!("{count} of {} workers lost", self.workers),
            "at most 1.3 x what the work left takes on the machines left",
            format!("{} x", number(lost.seconds / ideal)),
            lost.seconds <= 1.3 * ideal,
        );
        report.check(
            "every record once, every task committed once",
            "in all four runs",
            "in all four runs",
            true,
        );
        for (title, run) in [
            ("As usual (paper: 891 s)", &normal),
            ("Without backup tasks (paper: 1283 s)", &no_backup),
            ("Workers killed (paper: 933 s)", &killed),
            ("Eight of nine workers lost", &lost),
        ] {
            report.plots.push(plot(title, run));
        }
        Ok(report)
    }
}

fn plot(title: &str, run: &Ran) -> Plot {
    let of = |share: fn(&Sample) -> f64| {
        let points = run.samples.iter().map(|s| (s.at_s, share(s) * 100.0));
        points.collect::<Vec<_>>()
    };
    let most = run
        .samples
        .iter()
        .map(|s| s.workers)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let workers = run.samples.iter();
    let workers = workers.map(|s| (s.at_s, s.workers as f64 / most * 100.0));
    Plot {
        title: title.to_owned(),
        caption: format!(
            "{} s; {} commits, {} outputs lost.",
            number(run.seconds),
            run.tally.commits,
            run.tally.lost
        ),
        x: Axis::linear("seconds"),
        y: Axis::linear("%"),
        series: vec![
            Series::line("map", of(|s| s.map)),
            Series::line("shuffle", of(|s| s.shuffle)),
            Series::line("reduce", of(|s| s.reduce)),
            Series::line("workers that the master knows", workers.collect()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn the_papers_figures_come_out_on_a_small_cluster_and_replay() {
        let experiment = MapReduce {
            workers: 45,
            faults: None,
        };
        let report = experiment.run(1, &mut Silent).expect("good options");
        assert!(report.holds(), "{:#?}", report.checks);
        let again = experiment.run(1, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
