//! The missing piece: a crowd that lacks one and the same piece, and a slow seed (Hajek and Zhu).
//!
//! Peers arrive with nothing and leave when they have everything (or stay for a while). A club of
//! peers lacks only piece 0; the fixed seed is its only source at the start. Theory: however pieces
//! are chosen, the club drains if arrivals are slower than [`theory::critical_rate`] and grows
//! without bound if they are faster.
//!
//! [`theory::critical_rate`]: super::theory::critical_rate

use super::theory::critical_rate;
use super::{Class, Content, Stay, Swarm};
use crate::Sessions;
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use shoal_base::{Bitfield, Time};
use shoal_content::download::Mode;
use std::time::Duration;

/// A swarm that begins with a club.
#[derive(Clone, Copy, Debug)]
pub struct Club {
    /// What is shared.
    pub content: Content,
    /// Payload bytes a second out of each peer.
    pub up: u64,
    /// Payload bytes a second into each peer; none: no limit.
    pub down: Option<u64>,
    /// Payload bytes a second out of the fixed seed.
    pub seed_up: u64,
    /// How many lack only piece 0 at the start.
    pub club: usize,
    /// Arrivals a second.
    pub lambda: f64,
    /// Mean stay of who has everything, in times a peer needs to upload one piece.
    pub residence: f64,
    /// In what order pieces are fetched.
    pub mode: Mode,
    /// Seconds it is watched.
    pub watch_s: f64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct ClubRun {
    /// The rate at which theory sees it turn unstable.
    pub critical: f64,
    /// By how many peers a second theory has it grow (negative: shrink), as long as the club is
    /// large.
    pub theory_growth: f64,
    /// By how many peers a second the number of leechers grew, from a straight line through the
    /// second half of the watch (or until the club was gone).
    pub growth: f64,
    /// Seconds and number of leechers.
    pub path: Vec<(f64, f64)>,
    /// Share of the leechers at the end that lack piece 0 and no other.
    pub club_share: f64,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// The hash of all events.
    pub digest: Digest,
}

const SAMPLES: usize = 100;

impl Club {
    /// Pieces a second that a peer uploads.
    pub fn mu(&self) -> f64 {
        self.up as f64 / f64::from(self.content.piece_len)
    }

    /// Pieces a second that the fixed seed uploads: `U_s`.
    pub fn seed_rate(&self) -> f64 {
        self.seed_up as f64 / f64::from(self.content.piece_len)
    }

    /// The critical arrival rate.
    pub fn critical(&self) -> f64 {
        critical_rate(self.seed_rate(), self.mu(), self.residence / self.mu())
    }

    /// Runs it; none if there is no such content.
    pub fn run(&self, seed: u64, host: &mut dyn Host) -> Option<ClubRun> {
        let mut swarm = Swarm::new(seed, self.content, Links::default())?;
        let fixed = swarm.class(Class {
            stay: Stay::Forever,
            ..Class::new(self.seed_up)
        });
        let mean_s = self.residence / self.mu();
        let peer = swarm.class(Class {
            down: self.down,
            mode: self.mode,
            stay: if self.residence > 0.0 {
                Stay::For(Sessions::Exponential { mean_s })
            } else {
                Stay::Leaves
            },
            ..Class::new(self.up)
        });
        swarm.join_seed(fixed);
        let mut lacks_one = Bitfield::full(self.content.pieces);
        lacks_one.clear(0);
        for _ in 0..self.club {
            swarm.join(peer, lacks_one.clone());
        }
        swarm.arrive(peer, self.lambda);

        let critical = self.critical();
        let mut run = ClubRun {
            critical,
            // While the club is large, who leaves it was served by the seed, or by one of those
            // whom the seed served and who stayed, or by one whom these served, and so on.
            theory_growth: self.lambda - critical,
            ..ClubRun::default()
        };
        for i in 1..=SAMPLES {
            let at = self.watch_s * i as f64 / SAMPLES as f64;
            swarm.run_until(Time::ZERO + Duration::from_secs_f64(at));
            let leechers = f64::from(swarm.census().leechers);
            run.path.push((at, leechers));
            host.progress("Swarming", i as u64, SAMPLES as u64);
        }
        // Once the club is gone there is nothing to drain.
        let large = self.club as f64 / 4.0;
        let gone = run.path.iter().position(|(_, n)| *n < large);
        let drained = &run.path[..gone.unwrap_or(SAMPLES)];
        run.growth = slope(&drained[drained.len() / 4..]);
        let here = swarm.peers().iter().filter_map(|p| p.torrent()?.download());
        let lacking: Vec<_> = here
            .map(|d| d.missing())
            .filter(|m| m.count() > 0)
            .collect();
        let members = lacking.iter().filter(|m| m.count() == 1 && m.get(0));
        run.club_share = members.count() as f64 / lacking.len().max(1) as f64;
        run.faults = swarm.peers().iter().map(|p| p.record.faults).sum();
        run.digest = swarm.digest();
        Some(run)
    }
}

/// Slope of the straight line through the points with the least squares; zero of less than two.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n.max(1.0);
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    if variance > 0.0 {
        covariance / variance
    } else {
        0.0
    }
}
