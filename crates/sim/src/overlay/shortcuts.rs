//! The ring with shortcuts: each node also knows a few far ones, drawn at random.
//!
//! Greedy routing goes one way round and so meets each node at most once: every step draws fresh
//! shortcuts. That makes the mean exact by a recursion over the distance left.

use super::Ring;
use super::lookups::{self, Plan};
use super::ring::{Sized, binned, sizes};
use crate::Links;
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_base::Rng;
use shoal_dht::chord::{Lookup, Route, Want};

/// How far shortcuts lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Anywhere, equally likely: about 2 √(N / k) hops.
    Uniform,
    /// With probability ∝ 1 / distance (Kleinberg; Symphony): about ln² N / k hops.
    Harmonic,
}

impl Draw {
    fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Harmonic => "harmonic",
        }
    }

    /// The share of shortcuts that lead at most each distance below `n`; index 0 is distance 0.
    fn shares(self, n: usize) -> Vec<f64> {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (0..n)
            .map(|d| {
                sum += match self {
                    _ if d == 0 => 0.0,
                    Self::Uniform => 1.0,
                    Self::Harmonic => 1.0 / d as f64,
                };
                sum
            })
            .collect();
        shares.iter_mut().for_each(|s| *s /= sum);
        shares
    }
}

/// Options of the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcuts {
    /// How many nodes.
    pub nodes: u32,
    /// How many lookups at each size.
    pub lookups: u64,
    /// Shortcuts of each node.
    pub shortcuts: u32,
    /// How they are drawn.
    pub draw: Draw,
}

/// The recursion takes N² steps.
const MAX_THEORY: usize = 1 << 14;

impl Shortcuts {
    fn ring(&self, seed: u64, nodes: u32) -> Ring {
        let config = lookups::still(1, nodes + 1);
        let mut ring = Ring::perfect(seed, nodes, false, config, Links::default(), |_, _| {});
        let members: Vec<_> = ring.world.nodes().iter().map(|p| p.node.me()).collect();
        let shares = self.draw.shares(members.len());
        let mut rng: Rng = ring.rng.fork();
        for (i, me) in members.iter().enumerate() {
            let far: Vec<_> = (0..self.shortcuts)
                .map(|_| {
                    let u = rng.unit();
                    let distance = shares.partition_point(|s| *s <= u);
                    members[(i + distance) % members.len()]
                })
                .collect();
            ring.world
                .call(me.addr, |peer, _| peer.node.set_shortcuts(&far));
        }
        ring
    }
}

/// The mean hops among `n` nodes. To the node before the key, at distance d, it takes
/// `E(d) = 1 + Σ P(the best link leads j on) E(d - j)`, and one more to the owner, of whom only the
/// node before it knows that it is; uniform over all distances.
fn theory(shares: &[f64], shortcuts: u32) -> f64 {
    let n = shares.len();
    let k = shortcuts as i32;
    let mut mean = vec![0.0; n];
    for d in 1..n {
        // Links beyond d are of no use; the best leads at most j on with this probability.
        let within = |j: usize| (1.0 - (shares[d] - shares[j])).powi(k);
        let mut below = 0.0;
        let mut sum = 1.0;
        for j in 1..=d {
            let upto = within(j);
            sum += (upto - below) * mean[d - j];
            below = upto;
        }
        mean[d] = sum;
    }
    let to_owner = mean[..n - 1].iter().map(|before| before + 1.0);
    to_owner.sum::<f64>() / n as f64
}

impl Experiment for Shortcuts {
    fn name(&self) -> &'static str {
        "shortcuts"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("nodes", self.nodes.to_string()),
            ("lookups", self.lookups.to_string()),
            ("shortcuts", self.shortcuts.to_string()),
            ("draw", self.draw.name().to_owned()),
            ("delay", "50 ms".to_owned()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if self.nodes < 3 || self.lookups == 0 || self.shortcuts > 256 {
            let why = "three nodes, a lookup and at most 256 shortcuts are needed";
            return Err(BadOptions(why.to_owned()));
        }
        let mut report = Report::new(self.name(), "A ring with shortcuts", seed);
        report.summary = "Each node knows its successor and some far nodes.".to_owned();
        let (mut measured, mut expected) = (Vec::new(), Vec::new());
        for nodes in sizes(16, self.nodes) {
            let mut ring = self.ring(seed, nodes);
            let plan = Plan {
                count: self.lookups,
                rate: 1000,
                lookup: Lookup {
                    route: Route::Shortcuts,
                    want: Want::Owner,
                    ..Lookup::default()
                },
            };
            let outcome = lookups::run(&mut ring, &plan, host);
            let mean = outcome.hops.mean();
            measured.push(Sized { nodes, mean });
            let should = (nodes as usize <= MAX_THEORY)
                .then(|| theory(&self.draw.shares(nodes as usize), self.shortcuts));
            expected.extend(should.map(|mean| (f64::from(nodes), mean)));
            if nodes < self.nodes {
                continue;
            }
            report.digest = ring.world.digest();
            report.figure("mean_hops", mean);
            report.figure("max_hops", outcome.hops.max());
            report.figure("failed", outcome.failed + outcome.wrong);
            report.figure("events", ring.world.counts().events);
            outcome.speed.tell(&mut report);
            if let Some(should) = should {
                report.figure("mean_hops_theory", should);
                // One draw of all shortcuts differs from the next, small rings more.
                let error =
                    should / (self.lookups as f64).sqrt() + should / f64::from(nodes).sqrt();
                let tolerance = (4.0 * error).max(0.05 * should).max(0.2);
                report.check(
                    "mean hops",
                    format!(
                        "exact recursion: {} ± {}",
                        number(should),
                        number(tolerance)
                    ),
                    number(mean),
                    (mean - should).abs() <= tolerance,
                );
            }
            report.check(
                "every lookup finds the owner",
                "0 failed",
                (outcome.failed + outcome.wrong).to_string(),
                outcome.failed + outcome.wrong == 0,
            );
            report.plots.push(Plot {
                title: format!("Hops among {nodes} nodes"),
                caption: String::new(),
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
                caption: "Theory is exact: greedy routing never meets a node twice, so each step \
                      draws its shortcuts anew."
                    .to_owned(),
                x: Axis::log2("nodes"),
                y: Axis::linear("mean hops"),
                series: vec![
                    Series::theory("exact recursion", expected),
                    Series::measured("measured", points(&|s| s.mean)),
                    Series::theory(
                        "½ log₂ N (Chord)",
                        points(&|s| f64::from(s.nodes).log2() / 2.0),
                    ),
                ],
            },
        );
        report.options = self.options();
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Silent;

    #[test]
    fn without_shortcuts_theory_is_the_plain_ring() {
        let shares = Draw::Uniform.shares(101);
        assert!((theory(&shares, 0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn hops_are_what_the_recursion_says() {
        for draw in [Draw::Uniform, Draw::Harmonic] {
            let experiment = Shortcuts {
                nodes: 400,
                lookups: 500,
                shortcuts: 3,
                draw,
            };
            let report = experiment.run(2, &mut Silent).expect("good options");
            assert!(report.holds(), "{:?}", report.checks);
        }
    }
}
