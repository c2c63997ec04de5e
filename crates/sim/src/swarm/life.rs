//! `shoal sim swarm`: arrivals, departures and residence against the fluid model, the missing
//! piece, and what rarest-first is good for.

use super::club::{Club, ClubRun};
use super::diversity::{Diversity, DiversityRun};
use super::steady::{Steady, SteadyMean};
use super::{Content, too_large};
use crate::digest::Digest;
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_content::download::Mode;

const KIB: u64 = 1024;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Arrivals a second at which the steady state is measured.
    pub arrivals: Vec<f64>,
    /// Pieces of 64 KiB in the content.
    pub pieces: u32,
    /// A small run: a tenth of the peers, and wider tolerances.
    pub quick: bool,
}

/// What was found, part by part.
struct Found {
    digest: Digest,
    faults: u32,
}

impl Found {
    fn add(&mut self, digest: Digest, faults: u32) {
        self.digest.add(digest.value(), u64::from(faults));
        self.faults += faults;
    }
}

/// Who stays for these times the content's upload time, at the last rate of arrival; the plot's
/// point at 0.5 is that of the first part.
const RESIDENCES: [f64; 2] = [0.25, 0.75];
/// Runs of each steady state that differ in their seeds.
const RUNS: usize = 6;
/// Downloads each of them measures, about: luck in the stays of the seeds moves the mean of `n`
/// downloads by `1/√n`, so that as many are needed at a low rate of arrival as at a high one.
const DOWNLOADS: f64 = 600.0;
/// Runs of the steady states of the plot over residence.
const RESIDENCE_RUNS: usize = 3;
/// Arrivals in units of the pieces that the fixed seed uploads.
const LOADS: [f64; 4] = [0.4, 0.8, 1.6, 2.4];

impl Life {
    fn tolerance(&self) -> f64 {
        if self.quick { 0.25 } else { 0.10 }
    }

    fn steady(&self, lambda: f64, residence: f64) -> Steady {
        let steady = Steady {
            content: Content {
                pieces: self.pieces,
                piece_len: 64 * 1024,
                neighbours: 50,
            },
            up: 48 * KIB,
            down: None,
            lambda,
            residence,
            patience: None,
            settle: if self.quick { 2.0 } else { 4.0 },
            measure: 3.0,
        };
        if self.quick {
            return steady;
        }
        // One more, in which nobody is counted who comes.
        let measure = DOWNLOADS / (lambda * steady.upload_s()) + 1.0;
        Steady { measure, ..steady }
    }

    fn average(
        &self,
        steady: &Steady,
        runs: usize,
        seed: u64,
        host: &mut dyn Host,
        found: &mut Found,
    ) -> Result<SteadyMean, BadOptions> {
        let runs = if self.quick { 2 } else { runs };
        let mean = steady.average(seed, runs, host).ok_or_else(too_large)?;
        found.add(mean.digest, mean.faults);
        Ok(mean)
    }

    /// States what theory says, and that the whole confidence interval lies within the tolerance.
    fn check_time(&self, what: String, formula: &str, run: &SteadyMean, report: &mut Report) {
        let tolerance = self.tolerance();
        let luck = if self.quick { 0.0 } else { run.half_width_s };
        report.check(
            what,
            format!(
                "{formula} = {} s ± {:.0} %",
                number(run.theory_s),
                tolerance * 100.0
            ),
            format!(
                "{} s ± {} in 95 % ({:+.1} %; {} downloads in {} runs); uploads in use: leechers' η {:.3}, seeds' {:.3}; in vain {:.1} %; so {} s are due",
                number(run.mean_s),
                number(run.half_width_s),
                (run.mean_s / run.theory_s - 1.0) * 100.0,
                run.count,
                run.runs,
                run.eta,
                run.seed_use,
                run.waste * 100.0,
                number(run.balance_s),
            ),
            (run.mean_s - run.theory_s).abs() + luck <= tolerance * run.theory_s,
        );
    }

    fn club(&self, load: f64, residence: f64) -> Club {
        let club = Club {
            content: Content {
                pieces: 16,
                piece_len: 64 * 1024,
                // In theory anybody may contact anybody; this is the node's own limit.
                neighbours: 500,
            },
            up: 16 * KIB,
            down: None,
            seed_up: 16 * KIB,
            club: if self.quick { 100 } else { 300 },
            lambda: 0.0,
            residence,
            mode: Mode::RarestFirst,
            watch_s: if self.quick { 600.0 } else { 1500.0 },
        };
        Club {
            lambda: load * club.seed_rate(),
            ..club
        }
    }

    fn diversity(&self, mode: Mode) -> Diversity {
        Diversity {
            content: Content {
                pieces: 128,
                piece_len: 64 * 1024,
                neighbours: 50,
            },
            up: 48 * KIB,
            seed_up: 48 * KIB,
            lambda: 0.2,
            mode,
            settle_s: if self.quick { 400.0 } else { 1000.0 },
            measure_s: if self.quick { 600.0 } else { 4000.0 },
        }
    }

    fn steady_state(
        &self,
        seed: u64,
        host: &mut dyn Host,
        report: &mut Report,
        found: &mut Found,
    ) -> Result<(), BadOptions> {
        let mut runs: Vec<(f64, SteadyMean)> = Vec::new();
        for lambda in &self.arrivals {
            let run = self.average(&self.steady(*lambda, 0.5), RUNS, seed, host, found)?;
            let what =
                format!("mean download time at {lambda} arrivals/s, half an upload time as seed");
            self.check_time(what, "1/μ - 1/γ", &run, report);
            runs.push((*lambda, run));
        }
        let times = || runs.iter().map(|(_, r)| r.mean_s);
        let (low, high) = (
            times().fold(f64::INFINITY, f64::min),
            times().fold(0.0, f64::max),
        );
        report.check(
            "the time does not depend on the rate of arrival",
            format!("largest / smallest ≤ {}", 1.0 + self.tolerance()),
            number(high / low),
            high / low <= 1.0 + self.tolerance(),
        );
        let points = |of: &dyn Fn(&SteadyMean) -> f64| -> Vec<(f64, f64)> {
            runs.iter().map(|(lambda, r)| (*lambda, of(r))).collect()
        };
        report.figure(
            "steady",
            serde_json::Value::from_iter(runs.iter().map(|(l, r)| steady_json(*l, 0.5, r))),
        );
        report.plots.push(Plot {
            title: "Download time against arrivals".into(),
            caption: format!(
                "More visitors, the same time: each brings the upload it needs. Above the line by \
                 the start-up and what leechers cannot use of their upload. Means of {} runs, with \
                 the bounds of their 95 % confidence intervals.",
                runs.first().map_or(0, |(_, r)| r.runs)
            ),
            x: Axis::log2("arrivals a second"),
            y: Axis::linear("mean download time, s"),
            series: vec![
                Series::theory("Qiu and Srikant, η = 1", points(&|r| r.theory_s)),
                Series::theory("what uploads add up to", points(&|r| r.balance_s)),
                Series::measured("measured", points(&|r| r.mean_s)),
                Series::points("upper bound", points(&|r| r.mean_s + r.half_width_s)),
                Series::points("lower bound", points(&|r| r.mean_s - r.half_width_s)),
            ],
        });
        if let Some((lambda, run)) = runs.last() {
            report.plots.push(self.path_plot(*lambda, run));
            report.plots.push(first_piece_plot(&run.first_piece_s));
            report.figure("first_piece_p50_s", quantile(&run.first_piece_s, 0.5));
            report.figure("first_piece_p90_s", quantile(&run.first_piece_s, 0.9));
        }
        self.residence(seed, host, runs.last(), report, found)
    }

    fn path_plot(&self, lambda: f64, run: &SteadyMean) -> Plot {
        let run = &run.first;
        let fluid = self.steady(lambda, 0.5).fluid();
        let step = run.path.first().map_or(1.0, |p| p.0);
        let (_, seeds) = fluid.steady();
        let theory = fluid.path((0.0, seeds.ceil() + 1.0), step, run.path.len() + 1);
        let at = |of: fn(&(f64, f64)) -> f64| {
            (0..)
                .zip(&theory)
                .map(|(i, p)| (f64::from(i) * step, of(p)))
                .collect()
        };
        Plot {
            title: format!("Leechers and seeds at {lambda} arrivals a second"),
            caption:
                "From a few seeds and nobody else to the steady state. The fluid has no luck; \
                      peers come and go at random."
                    .into(),
            x: Axis::linear("seconds"),
            y: Axis::linear("peers"),
            series: vec![
                Series::theory("leechers, fluid", at(|p| p.0)),
                Series::theory("seeds, fluid", at(|p| p.1)),
                Series::line("leechers", run.path.iter().map(|p| (p.0, p.1)).collect()),
                Series::line("seeds", run.path.iter().map(|p| (p.0, p.2)).collect()),
            ],
        }
    }

    fn residence(
        &self,
        seed: u64,
        host: &mut dyn Host,
        half: Option<&(f64, SteadyMean)>,
        report: &mut Report,
        found: &mut Found,
    ) -> Result<(), BadOptions> {
        let lambda = half.map_or(0.1, |(lambda, _)| *lambda);
        let mut runs = Vec::new();
        for residence in RESIDENCES {
            let steady = self.steady(lambda, residence);
            let run = self.average(&steady, RESIDENCE_RUNS, seed, host, found)?;
            runs.push((residence, run));
        }
        runs.extend(half.map(|(_, run)| (0.5, run.clone())));
        // Seeds that stay longer than they need to give back what they took: the downlink limits.
        let steady = Steady {
            down: Some(96 * KIB),
            ..self.steady(lambda, 2.0)
        };
        let run = self.average(&steady, RESIDENCE_RUNS, seed, host, found)?;
        let what = "seeds stay for twice the upload time: the downlink alone limits";
        self.check_time(what.into(), "1/c", &run, report);
        runs.push((2.0, run));
        runs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let unit = steady.upload_s();
        let points = |of: fn(&SteadyMean) -> f64| -> Vec<(f64, f64)> {
            runs.iter().map(|(r, run)| (*r, of(run) / unit)).collect()
        };
        let (measured, theory) = (points(|r| r.mean_s), points(|r| r.theory_s));
        let figures: Vec<_> = runs
            .iter()
            .map(|(residence, run)| steady_json(lambda, *residence, run))
            .collect();
        report.figure("residence", serde_json::Value::from(figures));
        report.plots.push(Plot {
            title: "Download time against seed residence".into(),
            caption: "Who stays as a seed gives back. At 2 a downlink of twice the uplink is the \
                      limit; before, downlinks have none."
                .into(),
            x: Axis::linear("mean residence, in upload times of the content"),
            y: Axis::linear("mean download time, in the same unit"),
            series: vec![
                Series::theory("max(1/c, 1/μ - 1/γ)", theory),
                Series::measured("measured", measured),
            ],
        });
        Ok(())
    }

    fn missing_piece(
        &self,
        seed: u64,
        host: &mut dyn Host,
        report: &mut Report,
        found: &mut Found,
    ) -> Result<(), BadOptions> {
        let mut runs: Vec<(Club, ClubRun)> = Vec::new();
        let loads = LOADS.map(|load| (load, 0.0));
        // Far beyond the seed's rate, but who is done stays for a while.
        for (load, residence) in loads.into_iter().chain([(2.4, STAYS)]) {
            let club = self.club(load, residence);
            let run = club.run(seed, host).ok_or_else(too_large)?;
            found.add(run.digest, run.faults);
            let stable = club.lambda < run.critical;
            report.check(
                if residence > 0.0 {
                    format!("a club that lacks one piece, {load} × the seed's rate arrive and stay for {residence} piece times")
                } else {
                    format!("a club that lacks one piece, {load} × the seed's rate arrive and leave when done")
                },
                if stable { "shrinks" } else { "grows" },
                format!("{:+.3} peers/s", run.growth),
                (run.growth < 0.0) == stable,
            );
            runs.push((club, run));
        }
        let leaving = || runs.iter().filter(|(c, _)| c.residence == 0.0);
        report.figure(
            "missing_piece",
            serde_json::Value::from_iter(runs.iter().map(|(club, run)| {
                serde_json::json!({
                    "arrivals": club.lambda,
                    "critical": if run.critical.is_finite() { Some(run.critical) } else { None },
                    "residence": club.residence,
                    "growth": run.growth,
                    "club_share": run.club_share,
                })
            })),
        );
        report.plots.push(Plot {
            title: "The missing piece: a club that drains or grows".into(),
            caption:
                "All but newcomers lack the same piece, and have it from one slow seed. Faster \
                      than the seed sends it, arrivals swell the club for ever; unless who has it \
                      stays for a while."
                    .into(),
            x: Axis::linear("seconds"),
            y: Axis::linear("leechers"),
            series: runs
                .iter()
                .map(|(club, run)| {
                    let stay = if club.residence > 0.0 {
                        ", staying"
                    } else {
                        ""
                    };
                    let name = format!("{:.1} × U{stay}", club.lambda / club.seed_rate());
                    Series::line(name, run.path.clone())
                })
                .collect(),
        });
        report.plots.push(Plot {
            title: "Growth of the club against arrivals".into(),
            caption: "Hajek and Zhu: arrivals less what the seed sends. Zero is crossed where \
                      arrivals equal the seed's pieces a second."
                .into(),
            x: Axis::linear("arrivals a second, in pieces the seed sends a second"),
            y: Axis::linear("growth, peers a second"),
            series: vec![
                Series::theory(
                    "λ - U",
                    leaving()
                        .map(|(c, r)| (c.lambda / c.seed_rate(), r.theory_growth))
                        .collect(),
                ),
                Series::measured(
                    "measured",
                    leaving()
                        .map(|(c, r)| (c.lambda / c.seed_rate(), r.growth))
                        .collect(),
                ),
            ],
        });
        Ok(())
    }

    fn selection(
        &self,
        seed: u64,
        host: &mut dyn Host,
        report: &mut Report,
        found: &mut Found,
    ) -> Result<(), BadOptions> {
        let mut run = |mode| -> Result<DiversityRun, BadOptions> {
            let run = self.diversity(mode).run(seed, host).ok_or_else(too_large)?;
            found.add(run.digest, run.faults);
            Ok(run)
        };
        let (rarest, random) = (run(Mode::RarestFirst)?, run(Mode::Random)?);
        report.check(
            "rarest first keeps more copies of the rarest piece than random selection does",
            "more",
            format!(
                "{} against {} of {} on average",
                number(rarest.mean.min),
                number(random.mean.min),
                number(rarest.mean.mean)
            ),
            rarest.mean.min > random.mean.min,
        );
        for (name, run) in [("rarest_first", &rarest), ("random", &random)] {
            report.figure(
                name,
                serde_json::json!({
                    "copies_min": run.mean.min,
                    "copies_mean": run.mean.mean,
                    "copies_variance": run.mean.variance,
                    "entropy": run.mean.entropy,
                    "pieces_only_seed": run.mean.only_seed,
                    "mean_time_s": run.took_s,
                    "first_piece_p50_s": quantile(&run.first_piece_s, 0.5),
                }),
            );
        }
        for (title, label, of) in VIEWS {
            let line = |run: &DiversityRun| run.path.iter().map(|s| (s.at_s, of(s))).collect();
            report.plots.push(Plot {
                title: title.into(),
                caption: "Peers arrive and leave when they are done; one seed with the uplink of \
                          one peer."
                    .into(),
                x: Axis::linear("seconds"),
                y: Axis::linear(label),
                series: vec![
                    Series::line("rarest first", line(&rarest)),
                    Series::line("random", line(&random)),
                ],
            });
        }
        Ok(())
    }
}

type View = (
    &'static str,
    &'static str,
    fn(&super::spread::Spread) -> f64,
);

const VIEWS: [View; 3] = [
    ("Copies of the rarest piece", "copies", |s| s.min),
    (
        "How unevenly pieces are spread",
        "deviation of the copies, as a share of their mean",
        |s| s.variance.sqrt() / s.mean,
    ),
    (
        "Entropy of the pieces",
        "share of the greatest possible",
        |s| s.entropy,
    ),
];

/// Stays of the club run that is stable however many arrive, in piece times.
const STAYS: f64 = 4.0;

fn steady_json(lambda: f64, residence: f64, run: &SteadyMean) -> serde_json::Value {
    serde_json::json!({
        "arrivals": lambda,
        "residence": residence,
        "runs": run.runs,
        "downloads": run.count,
        "mean_time_s": run.mean_s,
        "half_width_s": run.half_width_s,
        "theory_s": run.theory_s,
        "balance_s": run.balance_s,
        "eta": run.eta,
        "seed_use": run.seed_use,
        "stay_s": run.stay_s,
        "leechers": run.leechers,
        "seeds": run.seeds,
        "waste": run.waste,
        "peers": run.peers,
    })
}

/// The value that the share `q` of `sorted` does not exceed; zero of nothing.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Share of the peers that had a piece after so many seconds.
pub(super) fn first_piece_plot(sorted: &[f64]) -> Plot {
    let points = (1..=100).map(|i| {
        let q = f64::from(i) / 100.0;
        (quantile(sorted, q), q * 100.0)
    });
    Plot {
        title: "A newcomer's first piece".into(),
        caption: "From joining to the first verified piece: dialling, then an optimistic slot, a \
                  seed's turn for newcomers, or pieces allowed without one (BEP 6)."
            .into(),
        x: Axis::linear("seconds"),
        y: Axis::linear("share of the newcomers, %"),
        series: vec![Series::measured("measured", points.collect())],
    }
}

impl Experiment for Life {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let arrivals: Vec<_> = self.arrivals.iter().map(f64::to_string).collect();
        vec![
            ("arrivals", arrivals.join(",")),
            ("pieces", self.pieces.to_string()),
            ("quick", self.quick.to_string()),
            ("piece-length", "64 KiB".into()),
            ("uplink", "48 KiB/s".into()),
            ("neighbours", "50".into()),
            ("delay", "50 ms".into()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        let sane = |lambda: &f64| (0.001..=10.0).contains(lambda);
        if self.arrivals.is_empty() || !self.arrivals.iter().all(sane) {
            return Err(BadOptions(
                "arrivals are between 0.001 and 10 a second".into(),
            ));
        }
        let mut report = Report::new(self.name(), "The life of a swarm", seed);
        report.summary = "Real torrents, chokers, pickers and a real tracker in virtual time: \
                          arrivals and departures against the fluid model, the missing piece, and \
                          what rarest-first is good for."
            .into();
        let mut found = Found {
            digest: Digest::default(),
            faults: 0,
        };
        self.steady_state(seed, host, &mut report, &mut found)?;
        self.missing_piece(seed, host, &mut report, &mut found)?;
        self.selection(seed, host, &mut report, &mut found)?;
        report.check(
            "rules of the wire broken",
            "0",
            found.faults.to_string(),
            found.faults == 0,
        );
        report.digest = found.digest;
        report.options = self.options();
        Ok(report)
    }
}
