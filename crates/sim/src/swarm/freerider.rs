//! `shoal sim freerider`: what peers get for what they give, and what those get that give nothing.

use super::incentives::{Dealings, Group, Trade, TradeRun};
use super::theory::free_ride;
use super::{Content, too_large};
use crate::digest::Digest;
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_bittorrent::choker::Choking;

const KIB: u64 = 1024;
/// Uplinks of the classes, in KiB/s.
const CLASSES: [u64; 4] = [24, 48, 96, 192];
/// Five slots: four for those who give most, one optimistic.
const UP: u64 = 48 * KIB;
/// Shares of free riders.
const SHARES: [f64; 4] = [0.1, 0.2, 0.3, 0.4];
/// Seeds that keep all uplinks busy. With one seed peers sometimes wait for the same piece, and slots
/// that nobody earns go to free riders.
const ENOUGH: usize = 5;
/// Seeds beside 10 % of free riders.
const SEEDS: [usize; 3] = [1, 5, 10];
/// The node's own limit. With fewer connections than peers, who stays long gathers more of them than
/// others have, and with them optimistic slots: free riders do.
const NEIGHBOURS: usize = 500;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeRider {
    /// Peers there are at any time, seeds aside.
    pub peers: usize,
    /// A small run: short, and with wider tolerances.
    pub quick: bool,
}

impl FreeRider {
    fn trade(&self, groups: Vec<Group>, choking: Choking, seeds: usize) -> Trade {
        Trade {
            content: Content {
                pieces: 256,
                piece_len: 64 * 1024,
                neighbours: NEIGHBOURS,
            },
            groups,
            choking,
            seeds,
            seed_up: UP,
            settle_s: if self.quick { 300.0 } else { 1000.0 },
            measure_s: if self.quick { 400.0 } else { 2500.0 },
        }
    }

    fn classes(&self, choking: Choking) -> Trade {
        let count = self.peers.div_ceil(CLASSES.len());
        let group = |up: u64| Group {
            count,
            up: up * KIB,
            shares: true,
        };
        self.trade(CLASSES.map(group).to_vec(), choking, 1)
    }

    fn riders(&self, share: f64, choking: Choking, seeds: usize) -> Trade {
        let riders = (self.peers as f64 * share).round() as usize;
        let group = |count, shares| Group {
            count,
            up: UP,
            shares,
        };
        let honest = self.peers.saturating_sub(riders);
        self.trade(
            vec![group(honest, true), group(riders, false)],
            choking,
            seeds,
        )
    }

    fn reciprocity(
        &self,
        host: &mut dyn Host,
        report: &mut Report,
        run: &mut impl FnMut(&Trade, &mut dyn Host) -> Result<TradeRun, BadOptions>,
    ) -> Result<(), BadOptions> {
        let tit_for_tat = run(&self.classes(Choking::TitForTat), host)?;
        let random = run(&self.classes(Choking::Random), host)?;
        let got = |run: &TradeRun, class| run.mean(class, Dealings::got) / KIB as f64;
        let rising = (1..CLASSES.len()).all(|i| got(&tit_for_tat, i) > got(&tit_for_tat, i - 1));
        let shown = |run: &TradeRun| {
            let all: Vec<_> = (0..CLASSES.len()).map(|i| number(got(run, i))).collect();
            all.join(", ")
        };
        report.check(
            "tit-for-tat: classes of uplinks 24, 48, 96, 192 KiB/s get more the more they give",
            "rising",
            format!("{} KiB/s", shown(&tit_for_tat)),
            rising,
        );
        let (with, without) = (tit_for_tat.correlation(), random.correlation());
        report.check(
            "correlation of got and given: tit-for-tat, and choking at random",
            "above 0.7, and below 0.3",
            format!("{with:.2}, and {without:.2}"),
            with > 0.7 && without < 0.3,
        );
        report.figure("correlation_tit_for_tat", with);
        report.figure("correlation_random", without);
        let classes: Vec<_> = (0..CLASSES.len())
            .map(|i| {
                serde_json::json!({
                    "up_kib_s": CLASSES[i],
                    "slots": Trade::slots(CLASSES[i] * KIB),
                    "got_tit_for_tat_kib_s": got(&tit_for_tat, i),
                    "got_random_kib_s": got(&random, i),
                    "gave_kib_s": tit_for_tat.mean(i, |d| d.gave) / KIB as f64,
                })
            })
            .collect();
        report.figure("classes", serde_json::Value::from(classes));
        let cloud = |run: &TradeRun| {
            let kib = KIB as f64;
            run.dealings
                .iter()
                .map(|d| (d.gave / kib, d.got() / kib))
                .collect()
        };
        let most = CLASSES[CLASSES.len() - 1] as f64;
        report.plots.push(Plot {
            title: "Got against given".into(),
            caption:
                "Each point is a peer. Under tit-for-tat who gives more gets more, but not in \
                      proportion: a fast uplink is cut in more slots, and finds few as fast. \
                      Choking at random gives everyone the same."
                    .into(),
            x: Axis::linear("sent, KiB/s"),
            y: Axis::linear("received, KiB/s"),
            series: vec![
                Series::theory("got = given", vec![(0.0, 0.0), (most, most)]),
                Series::points("tit-for-tat", cloud(&tit_for_tat)),
                Series::points("at random", cloud(&random)),
            ],
        });
        Ok(())
    }
}

impl Experiment for FreeRider {
    fn name(&self) -> &'static str {
        "freerider"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("peers", self.peers.to_string()),
            ("quick", self.quick.to_string()),
            ("content", "16 MiB".into()),
            ("uplink", "48 KiB/s".into()),
            ("slots", Trade::slots(UP).to_string()),
            ("neighbours", NEIGHBOURS.to_string()),
            ("delay", "50 ms".into()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if !(20..=5000).contains(&self.peers) {
            return Err(BadOptions("between 20 and 5000 peers".into()));
        }
        let mut report = Report::new(self.name(), "Giving, getting and free riding", seed);
        report.summary = "Real chokers in a population that stays the same: who leaves with the \
                          content is replaced. Free riders never unchoke anybody."
            .into();
        let (mut digest, mut faults) = (Digest::default(), 0);
        let mut run = |trade: &Trade, host: &mut dyn Host| {
            let run = trade.run(seed, host).ok_or_else(too_large)?;
            digest.add(run.digest.value(), u64::from(run.faults));
            faults += run.faults;
            Ok(run)
        };
        self.reciprocity(host, &mut report, &mut run)?;

        let slots = Trade::slots(UP);
        let rate =
            |run: &TradeRun, group| run.mean(group, |d: &Dealings| d.got_from_leechers) / UP as f64;
        let near = NEIGHBOURS.min(self.peers) as f64;
        let (mut riders, mut honest, mut theory, mut rows) = (vec![], vec![], vec![], vec![]);
        for share in SHARES {
            let out = run(&self.riders(share, Choking::TitForTat, ENOUGH), host)?;
            let expected = free_ride(slots, 1.0 - share, near);
            let (got, fair) = (rate(&out, 1), rate(&out, 0));
            riders.push((share * 100.0, got));
            honest.push((share * 100.0, fair));
            theory.push((share * 100.0, expected));
            let tolerance = if self.quick { 0.15 } else { 0.10 };
            report.check(
                format!(
                    "free riders, {:.0} % of the peers, get the optimistic share of an uplink",
                    share * 100.0
                ),
                format!("{} ± {tolerance}", number(expected)),
                format!("{} (honest peers: {})", number(got), number(fair)),
                (got - expected).abs() <= tolerance && got < fair / 2.0,
            );
            rows.push(serde_json::json!({
                "share": share, "rider": got, "honest": fair, "theory": expected, "seeds": ENOUGH,
            }));
        }
        let random = run(&self.riders(0.1, Choking::Random, 1), host)?;
        report.check(
            "choking at random, 10 % free riders: they fare as well as the honest",
            "above 0.8 of what the honest get",
            number(rate(&random, 1) / rate(&random, 0)),
            rate(&random, 1) > 0.8 * rate(&random, 0),
        );
        report.figure("rider_random", rate(&random, 1));
        let mut seeded = Vec::new();
        for seeds in SEEDS {
            let out = run(&self.riders(0.1, Choking::TitForTat, seeds), host)?;
            let all = |group| out.mean(group, Dealings::got) / UP as f64;
            seeded.push((seeds as f64, all(1), all(0)));
            rows.push(serde_json::json!({
                "share": 0.1, "rider": all(1), "honest": all(0), "seeds": seeds,
            }));
        }
        report.figure("free_riders", serde_json::Value::from(rows));
        report.plots.push(Plot {
            title: "What free riders get from leechers".into(),
            caption: "One of five slots is optimistic, so who gives nothing gets about a fifth; \
                      less, the fewer give. Above theory: slots that nobody earned are given away \
                      too, and BEP 6 serves a few pieces without a slot."
                .into(),
            x: Axis::linear("free riders, % of the peers"),
            y: Axis::linear("rate, in uplinks of a peer"),
            series: vec![
                Series::theory("optimistic slots alone", theory),
                Series::measured("free riders", riders),
                Series::measured("honest peers", honest),
            ],
        });
        report.plots.push(Plot {
            title: "Seeds serve free riders too".into(),
            caption: "Ten percent free riders. A seed gives everyone its turn, whatever it gives."
                .into(),
            x: Axis::linear("seeds"),
            y: Axis::linear("rate, in uplinks of a peer"),
            series: vec![
                Series::measured("free riders", seeded.iter().map(|s| (s.0, s.1)).collect()),
                Series::measured("honest peers", seeded.iter().map(|s| (s.0, s.2)).collect()),
            ],
        });
        report.check(
            "rules of the wire broken",
            "0",
            faults.to_string(),
            faults == 0,
        );
        report.digest = digest;
        report.options = self.options();
        Ok(report)
    }
}
