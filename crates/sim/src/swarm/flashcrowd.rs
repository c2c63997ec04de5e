//! `shoal sim flashcrowd`: how long a crowd takes that comes all at once, against its size.

use super::crowd::{Crowd, CrowdRun};
use super::life::{first_piece_plot, quantile};
use super::theory::makespan;
use super::{Content, too_large};
use crate::digest::Digest;
use crate::experiment::{BadOptions, Experiment, Host};
use crate::report::{Axis, Plot, Report, Series, number};
use shoal_content::download::Mode;

const KIB: u64 = 1024;

/// Options of the experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlashCrowd {
    /// The largest crowd; every power of two from 16 to it is measured.
    pub peers: usize,
    /// Pieces of 64 KiB in the content.
    pub pieces: u32,
    /// Runs at each size.
    pub runs: u64,
}

/// Means over the runs at one size.
struct Sized {
    peers: usize,
    last: f64,
    mean: f64,
    all_out: f64,
    seed_sent: f64,
    first_piece: f64,
}

impl FlashCrowd {
    fn crowd(&self, peers: usize, mode: Mode) -> Crowd {
        Crowd {
            content: Content {
                pieces: self.pieces,
                piece_len: 64 * 1024,
                neighbours: 50,
            },
            peers,
            up: 48 * KIB,
            down: None,
            seed_up: 48 * KIB,
            within_s: 10.0,
            mode,
            stay: true,
            limit: 20.0,
        }
    }
}

/// Intercept and slope of the line with the least squares.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    let mx = points.iter().map(|p| p.0).sum::<f64>() / n;
    let my = points.iter().map(|p| p.1).sum::<f64>() / n;
    let both: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    let square: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let slope = if square > 0.0 { both / square } else { 0.0 };
    (my - slope * mx, slope)
}

impl Experiment for FlashCrowd {
    fn name(&self) -> &'static str {
        "flashcrowd"
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("peers", self.peers.to_string()),
            ("pieces", self.pieces.to_string()),
            ("runs", self.runs.to_string()),
            ("piece-length", "64 KiB".into()),
            ("uplink", "48 KiB/s, the seed's too".into()),
            ("arrive-within", "10 s".into()),
            ("neighbours", "50".into()),
            ("delay", "50 ms".into()),
        ]
    }

    fn run(&self, seed: u64, host: &mut dyn Host) -> Result<Report, BadOptions> {
        if !(16..=1 << 14).contains(&self.peers) || self.runs == 0 {
            return Err(BadOptions("between 16 and 16384 peers, and one run".into()));
        }
        let mut report = Report::new(self.name(), "A flash crowd", seed);
        report.summary = "All come within ten seconds and stay until the last is done; one seed, \
                          with the uplink of any of them, has the content."
            .into();
        let (mut digest, mut faults, mut unfinished) = (Digest::default(), 0, 0);
        let unit = self.crowd(16, Mode::RarestFirst).upload_s();
        let mut one = |peers, mode, seed: u64, host: &mut dyn Host| {
            let crowd = self.crowd(peers, mode);
            let run = crowd.run(seed, unit / 50.0, host).ok_or_else(too_large)?;
            digest.add(run.digest.value(), u64::from(run.faults));
            faults += run.faults;
            unfinished += peers - run.took_s.len();
            Ok::<CrowdRun, BadOptions>(run)
        };
        let powers = (4..=14).map(|i| 1usize << i);
        let sizes: Vec<usize> = powers.filter(|n| *n <= self.peers).collect();
        let (mut measured, mut largest): (Vec<Sized>, Option<CrowdRun>) = (Vec::new(), None);
        for peers in sizes {
            let n = self.runs as f64;
            let mut sum = Sized {
                peers,
                last: 0.0,
                mean: 0.0,
                all_out: 0.0,
                seed_sent: 0.0,
                first_piece: 0.0,
            };
            for i in 0..self.runs {
                let run = one(peers, Mode::RarestFirst, seed.wrapping_add(i), host)?;
                let mean = run.took_s.iter().sum::<f64>() / run.took_s.len().max(1) as f64;
                sum.last += run.last_s.unwrap_or(f64::INFINITY) / unit / n;
                sum.mean += mean / unit / n;
                sum.all_out += run.all_out_s.unwrap_or(f64::INFINITY) / unit / n;
                sum.seed_sent += run.seed_sent / n;
                sum.first_piece += quantile(&run.first_piece_s, 0.5) / n;
                largest = Some(run);
            }
            measured.push(sum);
        }
        let random = one(
            measured.last().map_or(16, |s| s.peers),
            Mode::Random,
            seed.wrapping_add(self.runs - 1),
            host,
        )?;

        let log = |s: &Sized| (s.peers as f64).log2();
        let of = |y: &dyn Fn(&Sized) -> f64| -> Vec<(f64, f64)> {
            measured.iter().map(|s| (s.peers as f64, y(s))).collect()
        };
        let logs: Vec<_> = measured.iter().map(|s| (log(s), s.last)).collect();
        let (at_one, slope) = line(&logs);
        let farthest = logs
            .iter()
            .map(|(x, y)| (y / (at_one + slope * x) - 1.0).abs());
        let farthest = farthest.fold(0.0, f64::max);
        if logs.len() >= 3 {
            report.check(
                "the last is done after a + b·log₂ N upload times, b small",
                "every size within 15 % of one such line, 0 < b < 0.3",
                format!(
                    "{at_one:.2} + {slope:.3}·log₂ N, within {:.1} %",
                    farthest * 100.0
                ),
                farthest < 0.15 && slope > 0.0 && slope < 0.3,
            );
        }
        let above = measured
            .iter()
            .all(|s| s.last >= makespan(s.peers as u32, self.pieces));
        report.check(
            "nobody beats the bound 1 + ⌊log₂ N⌋ / M",
            "never",
            if above { "never" } else { "beaten" },
            above,
        );
        report.check(
            "everyone gets everything",
            "0 unfinished",
            unfinished.to_string(),
            unfinished == 0,
        );
        report.check(
            "rules of the wire broken",
            "0",
            faults.to_string(),
            faults == 0,
        );
        report.figure("intercept", at_one);
        report.figure("slope", slope);
        let sizes: Vec<_> = measured
            .iter()
            .map(|s| {
                serde_json::json!({
                    "peers": s.peers, "last": s.last, "mean": s.mean,
                    "bound": makespan(s.peers as u32, self.pieces),
                    "all_out": s.all_out, "seed_sent": s.seed_sent,
                    "first_piece_p50_s": s.first_piece,
                })
            })
            .collect();
        report.figure("sizes", serde_json::Value::from(sizes));
        report.figure("upload_s", unit);
        report.plots.push(Plot {
            title: "Time until the last is done".into(),
            caption: "In times a peer needs to upload the content once. Everyone who has a piece \
                      serves it, so a crowd of twice the size needs one more step, not twice the time."
                .into(),
            x: Axis::log2("peers"),
            y: Axis::linear("upload times of the content"),
            series: vec![
                Series::theory("least possible", of(&|s| makespan(s.peers as u32, self.pieces))),
                Series::theory("a + b·log₂ N", of(&|s| at_one + slope * log(s))),
                Series::measured("last", of(&|s| s.last)),
                Series::measured("mean", of(&|s| s.mean)),
                Series::measured("every piece out", of(&|s| s.all_out)),
            ],
        });
        if let Some(run) = largest {
            report.plots.push(first_piece_plot(&run.first_piece_s));
            let missing =
                |run: &CrowdRun| run.spread.iter().map(|s| (s.at_s, s.only_seed)).collect();
            report.figure("seed_sent_rarest_first", run.seed_sent);
            report.figure("seed_sent_random", random.seed_sent);
            report.plots.push(Plot {
                title: "Pieces that only the seed has".into(),
                caption: format!(
                    "The seed had sent {} contents when all were out; {} had pieces been chosen at \
                     random.",
                    number(run.seed_sent),
                    number(random.seed_sent)
                ),
                x: Axis::linear("seconds"),
                y: Axis::linear("pieces"),
                series: vec![
                    Series::line("rarest first", missing(&run)),
                    Series::line("random", missing(&random)),
                ],
            });
        }
        report.digest = digest;
        report.options = self.options();
        Ok(report)
    }
}
