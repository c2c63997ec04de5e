//! Chord with finger tables: how long paths are, what half of the nodes dying at once does, how
//! churn tells, how even the load is.

use super::lookups::{self, Outcome, Plan};
use super::ring::{binned, sizes};
use super::{Ring, churn, load};
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use crate::{Links, rng_for};
use shoal_dht::chord::Lookup;
pub use shoal_dht::chord::{Route, Style, Want};
use std::time::Duration;

/// The paper's table II, N = 1000, r = 20: share that died, mean path, mean time-outs.
const PAPER_FAILURES: [(f64, f64, f64); 6] = [
    (0.0, 3.84, 0.0),
    (0.1, 4.03, 0.60),
    (0.2, 4.22, 1.17),
    (0.3, 4.44, 2.02),
    (0.4, 4.69, 3.23),
    (0.5, 5.09, 5.10),
];

/// Options of the experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chord {
    /// How many machines.
    pub nodes: u32,
    /// How many lookups (at each size, share or rate with `sweep`).
    pub lookups: u64,
    /// r: length of the successor list.
    pub successors: u32,
    /// Share of the machines that dies at once before the lookups.
    pub fail: f64,
    /// Joins a second, and as many deaths; zero for none.
    pub churn: f64,
    /// Under churn, seconds between stabilisations.
    pub stabilise_s: u64,
    /// Places on the circle of each machine.
    pub virtual_nodes: u32,
    /// Which links lookups follow.
    pub route: Route,
    /// Who carries lookups on.
    pub style: Style,
    /// What lookups end at. The paper's ½ log₂ N counts the hops to the key's predecessor; that the
    /// owner lives only the owner can say, one hop further.
    pub want: Want,
    /// Lookups begun in a second of the world's time; under churn one.
    pub rate: u64,
    /// Measures also at smaller sizes, or with `fail` or `churn` at smaller shares or rates.
    pub sweep: bool,
}

impl Chord {
    fn places(&self) -> u32 {
        self.nodes.saturating_mul(self.virtual_nodes)
    }

    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.nodes < 2 || self.lookups == 0 || self.virtual_nodes == 0 {
            return bad("two nodes, a lookup and a place on the circle for each are needed");
        }
        if u64::from(self.nodes) * u64::from(self.virtual_nodes) > 50_000_000 {
            return bad("more than fifty million places on the circle");
        }
        if !(1..=128).contains(&self.successors) {
            return bad("the successor list holds 1 to 128 nodes");
        }
        if !(0.0..=0.95).contains(&self.fail) || !(0.0..=1000.0).contains(&self.churn) {
            return bad("--fail is a share from 0 to 0.95, --churn a rate from 0 to 1000");
        }
        if self.fail > 0.0 && self.churn > 0.0 {
            return bad("--fail and --churn are two experiments");
        }
        if self.stabilise_s == 0 || self.rate == 0 {
            return bad("--stabilise and --rate are above zero");
        }
        let (failing, churning) = (self.fail > 0.0, self.churn > 0.0);
        if (failing || churning) && self.want != Want::Owner {
            return bad("only the owner can say that it lives: --find owner");
        }
        if churning && (self.virtual_nodes > 1 || self.route != Route::Fingers) {
            return bad("--churn takes neither --virtual-nodes nor --mode");
        }
        Ok(())
    }

    /// Lookups in a ring of `places` of whose machines the share `fail` has died.
    fn still(&self, seed: u64, places: u32, fail: f64, host: &mut dyn Host) -> (Outcome, Ring) {
        let longest = match self.route {
            Route::Ring | Route::BothWays => places + 1,
            Route::Shortcuts | Route::Fingers => 256,
        };
        let config = lookups::still(self.successors as usize, longest);
        let fingers = self.route == Route::Fingers;
        let mut ring = Ring::perfect(seed, places, fingers, config, Links::default(), |i, n| {
            host.progress("Building", i, n);
        });
        if fail > 0.0 {
            // Places are given to machines by lot; a machine dies with all of its places.
            let mut owners: Vec<u32> = (0..places).collect();
            ring.rng.shuffle(&mut owners);
            let dead = (f64::from(places) * fail).round() as usize;
            let dead = dead - dead % self.virtual_nodes as usize;
            for number in &owners[..dead] {
                ring.kill(*number);
            }
        }
        let plan = Plan {
            count: self.lookups,
            rate: self.rate,
            lookup: Lookup {
                route: self.route,
                style: self.style,
                want: self.want,
                ..Lookup::default()
            },
        };
        let outcome = lookups::run(&mut ring, &plan, host);
        (outcome, ring)
    }

    fn run_still(&self, seed: u64, host: &mut dyn Host, report: &mut Report) {
        let places = self.places();
        let (outcome, ring) = self.still(seed, places, self.fail, host);
        let counts = ring.world.counts();
        let memory: usize = ring.world.nodes().iter().map(|p| p.node.memory()).sum();
        report.digest = ring.world.digest();
        drop(ring);
        let mean = outcome.hops.mean();
        let bad = outcome.failed + outcome.wrong;
        report.figure("mean_hops", mean);
        report.figure("p1_hops", outcome.hops.quantile(0.01));
        report.figure("p99_hops", outcome.hops.quantile(0.99));
        report.figure("max_hops", outcome.hops.max());
        report.figure("mean_timeouts", outcome.timeouts.mean());
        report.figure("mean_ms", outcome.millis.mean());
        report.figure("failed", outcome.failed);
        report.figure("wrong", outcome.wrong);
        report.figure("events", counts.events);
        report.figure("messages", counts.sent);
        report.figure("pending_max", counts.pending_max);
        outcome.speed.tell(report);
        report.figure("node_bytes", memory as f64 / f64::from(places));
        if self.fail == 0.0 {
            self.check_path(report, places, mean);
        }
        // Otherwise some node is expected to lose its whole list.
        let lost = f64::from(places) * self.fail.powi(self.successors as i32);
        if lost < 1.0 {
            report.check(
                "every lookup finds the owner",
                "0 failed",
                bad.to_string(),
                bad == 0,
            );
        }
        report.plots.push(Plot {
            title: format!("Path lengths among {places} places"),
            caption: format!("Of {} lookups.", self.lookups),
            x: Axis::linear("hops"),
            y: Axis::linear("share of the lookups, %"),
            series: vec![Series::bars(
                "measured",
                binned(&outcome.hops.shares().collect::<Vec<_>>()),
            )],
        });
        if self.sweep && self.fail == 0.0 {
            self.sweep_sizes(seed, host, report, mean);
        } else if self.sweep {
            self.sweep_shares(seed, host, report);
        }
    }

    /// The mean path in a whole ring of `n` places, and in words. Fingers halve the distance left
    /// until the successor list tells the rest: ½ log₂ (N / r).
    fn theory(&self, n: f64) -> (String, f64) {
        let last = f64::from(u8::from(self.want == Want::Owner));
        let (words, hops) = match self.route {
            Route::Ring => ("N / 2".to_owned(), n / 2.0 - 1.5),
            Route::BothWays => ("N / 4".to_owned(), n / 4.0 - 1.0),
            Route::Shortcuts | Route::Fingers if self.successors == 1 => {
                ("½ log₂ N".to_owned(), n.log2() / 2.0)
            }
            Route::Shortcuts | Route::Fingers => {
                let r = self.successors;
                (format!("½ log₂ (N / {r})"), (n / f64::from(r)).log2() / 2.0)
            }
        };
        let words = if last > 0.0 {
            format!("{words} + 1")
        } else {
            words
        };
        (words, hops + last)
    }

    fn check_path(&self, report: &mut Report, places: u32, mean: f64) {
        let n = f64::from(places);
        let (what, theory) = self.theory(n);
        let tolerance = match self.route {
            Route::Fingers | Route::Shortcuts => (0.05 * theory).max(0.35),
            // Uniform up to twice the mean: five deviations of the mean of the lookups.
            Route::Ring | Route::BothWays => {
                1.5 + 5.0 * 2.0 * theory / (12.0 * self.lookups as f64).sqrt()
            }
        };
        report.figure("mean_hops_theory", theory);
        report.check(
            format!("mean path among {places}"),
            format!("{what} = {} ± {}", number(theory), number(tolerance)),
            number(mean),
            (mean - theory).abs() <= tolerance,
        );
    }

    fn sweep_sizes(&self, seed: u64, host: &mut dyn Host, report: &mut Report, last: f64) {
        let mut measured = Vec::new();
        for places in sizes(128, self.places()) {
            let mean = if places == self.places() {
                last
            } else {
                let (outcome, _) = self.still(seed, places, 0.0, host);
                let mean = outcome.hops.mean();
                self.check_path(report, places, mean);
                mean
            };
            measured.push((f64::from(places), mean));
        }
        let (words, whole) = self.theory(f64::from(self.places()));
        report.figure("mean_hops_theory", whole);
        report.figure("sweep", serde_json::json!(measured));
        let curve = measured.iter().map(|(n, _)| (*n, self.theory(*n).1));
        let theory = Series::theory(words, curve.collect());
        let plot = Plot {
            title: "Path length against the size of the ring".to_owned(),
            caption: "Fingers halve the distance left; a list of r successors tells the last \
                      ½ log₂ r steps at once."
                .to_owned(),
            x: Axis::log2("places on the circle"),
            y: Axis::linear("mean hops"),
            series: vec![theory, Series::measured("measured", measured)],
        };
        report.plots.insert(0, plot);
    }

    fn sweep_shares(&self, seed: u64, host: &mut dyn Host, report: &mut Report) {
        let (mut hops, mut timeouts) = (Vec::new(), Vec::new());
        for tenth in 0..10 {
            let share = f64::from(tenth) / 10.0;
            if share > self.fail + 1e-9 {
                break;
            }
            let (outcome, _) = self.still(seed, self.places(), share, host);
            hops.push((share, outcome.hops.mean()));
            timeouts.push((share, outcome.timeouts.mean()));
        }
        report.figure("sweep_hops", serde_json::json!(hops));
        report.figure("sweep_timeouts", serde_json::json!(timeouts));
        let column = |of: fn(&(f64, f64, f64)) -> f64| {
            let rows = PAPER_FAILURES
                .iter()
                .filter(|row| row.0 <= self.fail + 1e-9);
            rows.map(|row| (row.0, of(row))).collect()
        };
        report.plots.push(Plot {
            title: "After a share of the nodes died at once".to_owned(),
            caption: "Before any repair. The paper's table II is of 1,000 nodes with r = 20."
                .to_owned(),
            x: Axis::linear("share that died"),
            y: Axis::linear("a lookup"),
            series: vec![
                Series::measured("hops", hops),
                Series::measured("time-outs", timeouts),
                Series::theory("paper: hops", column(|row| row.1)),
                Series::theory("paper: time-outs", column(|row| row.2)),
            ],
        });
    }

    fn run_churn(&self, seed: u64, host: &mut dyn Host, report: &mut Report) {
        let plan = |rate| churn::Plan {
            nodes: self.nodes,
            rate,
            stabilise: Duration::from_secs(self.stabilise_s),
            successors: self.successors as usize,
            lookups: self.lookups,
            style: self.style,
        };
        let rates: Vec<f64> = churn::PAPER
            .iter()
            .map(|row| row.0)
            .filter(|rate| self.sweep && *rate < self.churn - 1e-9)
            .chain([self.churn])
            .collect();
        let (mut failures, mut timeouts) = (Vec::new(), Vec::new());
        for rate in rates {
            let outcome = churn::run(seed, &plan(rate), host);
            failures.push((rate, outcome.failures_in_10_000()));
            timeouts.push((rate, outcome.timeouts.mean()));
            let row = churn::PAPER.iter().find(|row| (row.0 - rate).abs() < 1e-9);
            if let (Some(row), 1000, 30) = (row, self.nodes, self.stabilise_s) {
                let most = 2.0 * row.2 + 5.0;
                report.check(
                    format!("failures in 10,000 lookups at {rate} joins a second"),
                    format!("paper: {}; at most {most}", row.2),
                    number(outcome.failures_in_10_000()),
                    outcome.failures_in_10_000() <= most,
                );
            }
            report.digest = outcome.digest;
            report.figure("mean_hops", outcome.hops.mean());
            report.figure("mean_timeouts", outcome.timeouts.mean());
            report.figure("mean_ms", outcome.millis.mean());
            report.figure("ended", outcome.ended);
            report.figure("failed", outcome.failed);
            report.figure("wrong", outcome.wrong);
            report.figure("joined", outcome.joined);
            report.figure("join_failed", outcome.join_failed);
            report.figure("died", outcome.died);
            report.figure("members", outcome.members);
            report.figure("events", outcome.counts.events);
            report.figure("messages", outcome.counts.sent);
            outcome.speed.tell(report);
        }
        report.figure("sweep_failures", serde_json::json!(failures));
        report.figure("sweep_timeouts", serde_json::json!(timeouts));
        let column = |of: fn(&(f64, f64, f64)) -> f64| {
            let rows = churn::PAPER.iter().filter(|row| row.0 <= self.churn + 1e-9);
            rows.map(|row| (row.0, of(row))).collect()
        };
        let plots = [
            (
                "Failures",
                "failures in 10,000 lookups",
                failures,
                column(|r| r.2),
            ),
            ("Time-outs", "time-outs a lookup", timeouts, column(|r| r.1)),
        ];
        for (title, label, measured, paper) in plots {
            report.plots.push(Plot {
                title: format!("{title} under churn"),
                caption: "The paper's table III: 1,000 nodes, stabilisation every 30 s.".to_owned(),
                x: Axis::linear("joins a second (and as many deaths)"),
                y: Axis::linear(label),
                series: vec![
                    Series::theory("paper", paper),
                    Series::measured("measured", measured),
                ],
            });
        }
    }

    fn run_load(&self, seed: u64, report: &mut Report) {
        // As the paper: ten thousand machines at most, a hundred keys each.
        let machines = self.nodes.min(10_000);
        let keys = u64::from(machines) * 100;
        let mut rng = rng_for(seed, u64::MAX - 2);
        let (mut p99, mut p1, mut t99, mut t1) = (vec![], vec![], vec![], vec![]);
        let mut counts = vec![1, 2, 5, 10, 20, self.virtual_nodes];
        counts.sort_unstable();
        counts.dedup();
        for places in counts {
            let got = load::measure(&mut rng, machines, places, keys);
            let x = f64::from(places);
            p99.push((x, got.p99));
            p1.push((x, got.p1));
            t99.push((x, load::quantile(places, 100.0, 0.99)));
            t1.push((x, load::quantile(places, 100.0, 0.01)));
            if places == self.virtual_nodes {
                report.figure("load_p99_over_mean", got.p99);
                report.figure("load_p1_over_mean", got.p1);
                report.figure("load_max_over_mean", got.max);
                // A percentile of few machines is one machine's luck.
                let theory = load::quantile(places, 100.0, 0.99);
                let tolerance = theory * (0.04 + 3.0 / f64::from(machines).sqrt());
                report.check(
                    format!("p99 of the load over the mean, {places} places each"),
                    format!("{} ± {}", number(theory), number(tolerance)),
                    number(got.p99),
                    (got.p99 - theory).abs() <= tolerance,
                );
            }
        }
        report.plots.push(Plot {
            title: format!("Keys on each of {machines} machines"),
            caption: "A hundred keys each in the mean; more places on the circle even them out."
                .to_owned(),
            x: Axis::log2("virtual nodes of each machine"),
            y: Axis::linear("over the mean"),
            series: vec![
                Series::theory("Gamma, 99 %", t99),
                Series::theory("Gamma, 1 %", t1),
                Series::measured("99th percentile", p99),
                Series::measured("1st percentile", p1),
            ],
        });
    }
}

impl Experiment for Chord {
    fn name(&self) -> &'static str {
        "chord"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let route = match self.route {
            Route::Ring => "ring",
            Route::BothWays => "both-ways",
            Route::Shortcuts => "shortcuts",
            Route::Fingers => "fingers",
        };
        let style = match self.style {
            Style::Recursive => "recursive",
            Style::Iterative => "iterative",
        };
        let want = match self.want {
            Want::Predecessor => "predecessor",
            Want::Owner | Want::Named => "owner",
        };
        let mut options = vec![
            ("nodes", self.nodes.to_string()),
            ("lookups", self.lookups.to_string()),
            ("successors", self.successors.to_string()),
            ("mode", route.to_owned()),
            ("style", style.to_owned()),
            ("find", want.to_owned()),
        ];
        if self.churn > 0.0 {
            options.push(("churn", format!("{}/s", self.churn)));
            options.push(("stabilise", format!("{} s", self.stabilise_s)));
            options.push(("rate", "1/s".to_owned()));
            options.push(("delay", "exponential, 50 ms in the mean".to_owned()));
        } else {
            options.push(("virtual-nodes", self.virtual_nodes.to_string()));
            options.push(("fail", self.fail.to_string()));
            options.push(("rate", format!("{}/s", self.rate)));
            options.push(("delay", "50 ms".to_owned()));
        }
        options
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        self.check()?;
        let mut report = Report::new(self.name(), "Lookups in Chord", seed);
        report.options = self.options();
        if self.churn > 0.0 {
            report.title = "Chord under churn".to_owned();
            self.run_churn(seed, host, &mut report);
        } else {
            self.run_still(seed, host, &mut report);
            self.run_load(seed, &mut report);
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
