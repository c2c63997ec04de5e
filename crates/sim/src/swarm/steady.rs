//! The steady state: peers arrive, fetch, stay for a while as seeds and leave (Qiu and Srikant).

use super::theory::Fluid;
use super::{Class, Content, Stay, Swarm};
use crate::Sessions;
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use shoal_base::Time;
use std::time::Duration;

/// A swarm in which arrivals and departures balance.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// What is shared.
    pub content: Content,
    /// Payload bytes a second out of each peer.
    pub up: u64,
    /// Payload bytes a second into each peer; none: no limit.
    pub down: Option<u64>,
    /// Arrivals a second.
    pub lambda: f64,
    /// Mean residence of seeds, in times a peer needs to upload the content once (`μ/γ`).
    pub residence: f64,
    /// Mean patience of leechers, in the same unit; none: nobody gives up.
    pub patience: Option<f64>,
    /// How long it settles, in the same unit.
    pub settle: f64,
    /// How long it is measured, in the same unit.
    pub measure: f64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct SteadyRun {
    /// Downloads measured: of peers that came after the swarm settled and got everything.
    pub count: usize,
    /// Their mean duration in seconds; with patience, the mean stay of all who came.
    pub mean_s: f64,
    /// Standard error of that mean.
    pub error_s: f64,
    /// What the formula says with `η = 1`.
    pub theory_s: f64,
    /// Share of the leechers' upload that was in use.
    pub eta: f64,
    /// Mean number of leechers.
    pub leechers: f64,
    /// Mean number of seeds.
    pub seeds: f64,
    /// Seconds to the first piece, of all who came after it settled; in rising order.
    pub first_piece_s: Vec<f64>,
    /// Leechers and seeds over all the run: seconds, leechers, seeds.
    pub path: Vec<(f64, f64, f64)>,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// Payload received in vain, as a share of all.
    pub waste: f64,
    /// Peers that came.
    pub peers: usize,
    /// The hash of all events.
    pub digest: Digest,
}

/// Samples of the census in one upload time.
const SAMPLES: f64 = 40.0;

impl Steady {
    /// Seconds a peer needs to upload the content once: `1/μ`.
    pub fn upload_s(&self) -> f64 {
        self.content.bytes() as f64 / self.up as f64
    }

    /// The fluid model of it, `η` being 1.
    pub fn fluid(&self) -> Fluid {
        let mu = 1.0 / self.upload_s();
        Fluid {
            lambda: self.lambda,
            mu,
            c: self.down.map_or(f64::INFINITY, |down| {
                down as f64 / self.content.bytes() as f64
            }),
            theta: self.patience.map_or(0.0, |p| mu / p),
            gamma: mu / self.residence,
            eta: 1.0,
        }
    }

    /// Runs it; none if there is no such content.
    pub fn run(&self, seed: u64, host: &mut dyn Host) -> Option<SteadyRun> {
        let mut swarm = Swarm::new(seed, self.content, Links::default())?;
        let unit = self.upload_s();
        let exponential = |mean_s| Sessions::Exponential { mean_s };
        let class = swarm.class(Class {
            down: self.down,
            stay: Stay::For(exponential(self.residence * unit)),
            patience: self.patience.map(|p| exponential(p * unit)),
            ..Class::new(self.up)
        });
        // The seeds of the steady state, so that there is something to fetch.
        let (_, seeds) = self.fluid().steady();
        for _ in 0..seeds.ceil() as usize {
            swarm.join_seed(class);
        }
        // One more, so that the content is not lost before the first have it; it leaves halfway to
        // the settled state.
        let origin = swarm.class(Class {
            stay: Stay::Forever,
            ..Class::new(self.up)
        });
        let origin = swarm.join_seed(origin);
        swarm.arrive(class, self.lambda);

        let mut run = SteadyRun {
            theory_s: self.fluid().time(),
            ..SteadyRun::default()
        };
        let settled = Time::ZERO + Duration::from_secs_f64(self.settle * unit);
        let steps = ((self.settle + self.measure) * SAMPLES) as u64;
        let (mut given_before, mut leecher_s) = (0, 0.0);
        for i in 1..=steps {
            swarm.run_until(Time::ZERO + Duration::from_secs_f64(i as f64 * unit / SAMPLES));
            if i == (self.settle * SAMPLES / 2.0) as u64
                && let Some(origin) = origin
            {
                swarm.depart(origin);
            }
            let census = swarm.census();
            let (x, y) = (f64::from(census.leechers), f64::from(census.seeds));
            run.path.push((swarm.now().as_secs_f64(), x, y));
            if swarm.now() <= settled {
                given_before = given_as_leecher(&swarm);
            } else {
                leecher_s += x * unit / SAMPLES;
                run.leechers += x;
                run.seeds += y;
            }
            host.progress("Swarming", i, steps);
        }
        let samples = (self.measure * SAMPLES).max(1.0);
        run.leechers /= samples;
        run.seeds /= samples;
        let given = given_as_leecher(&swarm) - given_before;
        run.eta = given as f64 / (leecher_s * self.up as f64);
        // Who comes in the last unit of time might not be done at the end: slow ones would be
        // missed.
        let last = swarm.now().as_secs_f64() - unit;
        self.sum_up(&swarm, settled, last, &mut run);
        Some(run)
    }

    fn sum_up(&self, swarm: &Swarm, settled: Time, last: f64, run: &mut SteadyRun) {
        let came = swarm.peers().iter().map(|p| p.record);
        let mut stays = Vec::new();
        let (mut got, mut wasted) = (0, 0);
        for record in came.filter(|r| r.brought == 0) {
            run.faults += record.faults;
            if record.left.is_some() {
                got += record.got();
                wasted += record.wasted;
            }
            if record.joined < settled || record.joined.as_secs_f64() > last {
                continue;
            }
            let first = record.first_piece.map(|t| t.since(record.joined));
            run.first_piece_s.extend(first.map(|t| t.as_secs_f64()));
            let gave_up = record.left.map(|t| t.since(record.joined).as_secs_f64());
            stays.extend(
                record
                    .took()
                    .or(gave_up.filter(|_| self.patience.is_some())),
            );
        }
        run.first_piece_s.sort_by(f64::total_cmp);
        run.waste = wasted as f64 / got.max(1) as f64;
        run.count = stays.len();
        run.peers = swarm.peers().len();
        let n = stays.len().max(1) as f64;
        run.mean_s = stays.iter().sum::<f64>() / n;
        let variance = stays.iter().map(|s| (s - run.mean_s).powi(2)).sum::<f64>() / n;
        run.error_s = (variance / n).sqrt();
        run.digest = swarm.digest();
    }
}

fn given_as_leecher(swarm: &Swarm) -> u64 {
    let records = swarm.peers().iter().map(|p| p.record);
    records.map(|r| r.given_as_leecher).sum()
}
