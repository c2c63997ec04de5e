//! The steady state: peers arrive, fetch, stay for a while as seeds and leave (Qiu and Srikant).

use super::theory::Fluid;
use super::{Class, Content, Stay, Swarm};
use crate::Sessions;
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use crate::stats;
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

/// What came out of one run.
#[derive(Clone, Debug, Default)]
pub struct SteadyRun {
    /// Downloads measured: of peers that came after the swarm settled and got everything.
    pub count: usize,
    /// Their mean duration in seconds; with patience, the mean stay of all who came.
    pub mean_s: f64,
    /// Share of the leechers' upload that was in use.
    pub eta: f64,
    /// Share of the seeds' upload that was in use.
    pub seed_use: f64,
    /// Mean seconds that those who were measured were to stay as seeds, as drawn.
    pub stay_s: f64,
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

/// What came out of several runs, which differ in their seeds alone.
#[derive(Clone, Debug, Default)]
pub struct SteadyMean {
    /// The first of them.
    pub first: SteadyRun,
    /// How many.
    pub runs: usize,
    /// Downloads measured, in all.
    pub count: usize,
    /// The mean of the runs' means, in seconds.
    pub mean_s: f64,
    /// Half the width of its 95 % confidence interval, by Student's t over the runs' means.
    /// Downloads within one run have their luck in common, so they do not count one by one.
    pub half_width_s: f64,
    /// What the formula says with `η = 1`.
    pub theory_s: f64,
    /// What uploads add up to, with `η`, the seeds' use, waste and stays as they were: what comes
    /// in is what goes out, `1 / (1 - waste) = μ (η T + use · stay)`.
    pub balance_s: f64,
    /// Share of the leechers' upload that was in use.
    pub eta: f64,
    /// Share of the seeds' upload that was in use.
    pub seed_use: f64,
    /// Mean seconds that peers were to stay as seeds, as drawn.
    pub stay_s: f64,
    /// Mean number of leechers.
    pub leechers: f64,
    /// Mean number of seeds.
    pub seeds: f64,
    /// Payload received in vain, as a share of all.
    pub waste: f64,
    /// Seconds to the first piece, of all runs; in rising order.
    pub first_piece_s: Vec<f64>,
    /// Peers that came, in all.
    pub peers: usize,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// The hash of all runs' events.
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

    /// Runs it with `runs` seeds, `seed` the first; none if there is no such content.
    pub fn average(&self, seed: u64, runs: usize, host: &mut dyn Host) -> Option<SteadyMean> {
        let seeds = seed..seed.saturating_add(runs as u64);
        let all: Option<Vec<_>> = seeds.map(|seed| self.run(seed, host)).collect();
        let all = all?;
        let mean = |of: fn(&SteadyRun) -> f64| stats::mean(&all.iter().map(of).collect::<Vec<_>>());
        let means: Vec<_> = all.iter().map(|r| r.mean_s).collect();
        let mut out = SteadyMean {
            first: all.first()?.clone(),
            runs: all.len(),
            count: all.iter().map(|r| r.count).sum(),
            mean_s: stats::mean(&means),
            half_width_s: stats::half_width_95(&means),
            theory_s: self.fluid().time(),
            eta: mean(|r| r.eta),
            seed_use: mean(|r| r.seed_use),
            stay_s: mean(|r| r.stay_s),
            leechers: mean(|r| r.leechers),
            seeds: mean(|r| r.seeds),
            waste: mean(|r| r.waste),
            peers: all.iter().map(|r| r.peers).sum(),
            faults: all.iter().map(|r| r.faults).sum(),
            ..SteadyMean::default()
        };
        let copies = self.upload_s() / (1.0 - out.waste);
        out.balance_s = (copies - out.seed_use * out.stay_s) / out.eta;
        for run in &all {
            out.first_piece_s.extend(&run.first_piece_s);
            out.digest.add(run.digest.value(), u64::from(run.faults));
        }
        out.first_piece_s.sort_by(f64::total_cmp);
        Some(out)
    }

    /// Runs it once; none if there is no such content.
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

        let mut run = SteadyRun::default();
        let settled = Time::ZERO + Duration::from_secs_f64(self.settle * unit);
        let steps = ((self.settle + self.measure) * SAMPLES) as u64;
        let mut before = Given::default();
        let (mut leecher_s, mut seed_s) = (0.0, 0.0);
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
                before = Given::by(&swarm);
            } else {
                leecher_s += x * unit / SAMPLES;
                seed_s += y * unit / SAMPLES;
                run.leechers += x;
                run.seeds += y;
            }
            host.progress("Swarming", i, steps);
        }
        let samples = (self.measure * SAMPLES).max(1.0);
        run.leechers /= samples;
        run.seeds /= samples;
        let given = Given::by(&swarm);
        let used = |after: u64, before: u64, seconds: f64| {
            (after - before) as f64 / (seconds * self.up as f64)
        };
        run.eta = used(given.leechers, before.leechers, leecher_s);
        run.seed_use = used(given.seeds, before.seeds, seed_s);
        // Who comes in the last unit of time might not be done at the end: slow ones would be
        // missed.
        let last = swarm.now().as_secs_f64() - unit;
        self.sum_up(&swarm, settled, last, &mut run);
        Some(run)
    }

    fn sum_up(&self, swarm: &Swarm, settled: Time, last: f64, run: &mut SteadyRun) {
        let came = swarm.peers().iter().map(|p| p.record);
        let mut times = Vec::new();
        let mut stays_s = Vec::new();
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
            stays_s.extend(record.stays.map(|stay| stay.as_secs_f64()));
            times.extend(
                record
                    .took()
                    .or(gave_up.filter(|_| self.patience.is_some())),
            );
        }
        run.first_piece_s.sort_by(f64::total_cmp);
        run.waste = wasted as f64 / got.max(1) as f64;
        run.count = times.len();
        run.peers = swarm.peers().len();
        run.mean_s = stats::mean(&times);
        run.stay_s = stats::mean(&stays_s);
        run.digest = swarm.digest();
    }
}

/// Payload bytes sent so far.
#[derive(Clone, Copy, Default)]
struct Given {
    leechers: u64,
    seeds: u64,
}

impl Given {
    fn by(swarm: &Swarm) -> Self {
        swarm.peers().iter().fold(Self::default(), |sum, peer| {
            let as_leecher = peer.record.given_as_leecher;
            Self {
                leechers: sum.leechers + as_leecher,
                seeds: sum.seeds + peer.record.given - as_leecher,
            }
        })
    }
}
