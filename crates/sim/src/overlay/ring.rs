//! The circular DHT: each node knows its neighbours only, so a lookup passes half of them, or a
//! quarter when it may go both ways round.

use super::Ring;
use super::lookups::{self, Plan};
use crate::Links;
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_dht::chord::{Lookup, Route, Want};

/// Options of the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRing {
    /// How many nodes.
    pub nodes: u32,
    /// How many lookups at each size.
    pub lookups: u64,
    /// Go whichever way is shorter.
    pub both_ways: bool,
}

/// A size of the sweep and what was measured there.
pub(super) struct Sized {
    pub(super) nodes: u32,
    pub(super) mean: f64,
}

/// The powers of two from `low` up to `high`, and `high`.
pub(super) fn sizes(low: u32, high: u32) -> Vec<u32> {
    let powers = (0..32).map(|i| 1u32 << i);
    let mut sizes: Vec<_> = powers.filter(|n| *n >= low && *n < high).collect();
    sizes.push(high);
    sizes
}

impl Experiment for PlainRing {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("nodes", self.nodes.to_string()),
            ("lookups", self.lookups.to_string()),
            ("both-ways", self.both_ways.to_string()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if self.nodes < 2 || self.lookups == 0 {
            return Err(BadOptions("a ring needs two nodes and a lookup".to_owned()));
        }
        let (route, divisor) = match self.both_ways {
            true => (Route::BothWays, 4.0),
            false => (Route::Ring, 2.0),
        };
        let mut report = Report::new(self.name(), "Lookups around a plain ring", seed);
        report.summary = "Each node knows its successor and predecessor only.".to_owned();
        let mut measured = Vec::new();
        for nodes in sizes(16, self.nodes) {
            let config = lookups::still(1, nodes + 1);
            let mut ring = Ring::perfect(seed, nodes, false, config, Links::default(), |_, _| {});
            let plan = Plan {
                count: self.lookups,
                rate: 1000,
                lookup: Lookup {
                    route,
                    want: Want::Owner,
                    ..Lookup::default()
                },
            };
            let outcome = lookups::run(&mut ring, &plan, host);
            let mean = outcome.hops.mean();
            measured.push(Sized { nodes, mean });
            if nodes < self.nodes {
                continue;
            }
            report.digest = ring.world.digest();
            report.figure("mean_hops", mean);
            report.figure("max_hops", outcome.hops.max());
            report.figure("failed", outcome.failed + outcome.wrong);
            report.figure("events", ring.world.counts().events);
            outcome.speed.tell(&mut report);
            // Hops are uniform up to twice the mean: deviation of the mean of n lookups.
            let theory = f64::from(nodes) / divisor;
            let error = 2.0 * theory / (12.0 * self.lookups as f64).sqrt();
            let tolerance = (5.0 * error).max(1.0);
            report.check(
                "mean hops",
                format!("N / {divisor} = {} ± {}", number(theory), number(tolerance)),
                number(mean),
                (mean - theory).abs() <= tolerance,
            );
            report.check(
                "every lookup finds the owner",
                "0 failed",
                (outcome.failed + outcome.wrong).to_string(),
                outcome.failed + outcome.wrong == 0,
            );
            report.plots.push(Plot {
                title: format!("Hops among {nodes} nodes"),
                caption: "Every distance around the ring is equally likely.".to_owned(),
                x: Axis::linear("hops"),
                y: Axis::linear("share of the lookups, %"),
                series: vec![Series::bars(
                    "measured",
                    binned(&outcome.hops.shares().collect::<Vec<_>>()),
                )],
            });
        }
        let points = |of: &dyn Fn(&Sized) -> f64| {
            measured
                .iter()
                .map(|s| (f64::from(s.nodes), of(s)))
                .collect()
        };
        report.plots.insert(
            0,
            Plot {
                title: "Hops against the size of the ring".to_owned(),
                caption: "A straight line: a ring of twice the size is twice as slow.".to_owned(),
                x: Axis::linear("nodes"),
                y: Axis::linear("mean hops"),
                series: vec![
                    Series::theory(
                        format!("N / {divisor}"),
                        points(&|s| f64::from(s.nodes) / divisor),
                    ),
                    Series::measured("measured", points(&|s| s.mean)),
                ],
            },
        );
        report.options = self.options();
        Ok(report)
    }
}

/// Shares in percent, of at most about 60 bars.
pub(super) fn binned(shares: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let width = shares.len().div_ceil(60).max(1);
    shares
        .chunks(width)
        .map(|bin| {
            let middle = bin.iter().map(|(v, _)| *v as f64).sum::<f64>() / bin.len() as f64;
            (middle, 100.0 * bin.iter().map(|(_, s)| s).sum::<f64>())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn a_lookup_passes_half_of_the_ring_or_a_quarter_both_ways() {
        for both_ways in [false, true] {
            let experiment = PlainRing {
                nodes: 100,
                lookups: 300,
                both_ways,
            };
            let report = experiment.run(5, &mut Silent).expect("good options");
            assert!(report.holds(), "{:?}", report.checks);
        }
    }
}
