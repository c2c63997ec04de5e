//! Piece diversity: peers come and leave at once when they are done, and the only seed is as slow
//! as one of them. What one leaves with must have been passed on before.

use super::spread::Spread;
use super::{Class, Content, Stay, Swarm};
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use shoal_base::Time;
use shoal_content::download::Mode;
use std::time::Duration;

/// A swarm whose pieces must keep alive.
#[derive(Clone, Copy, Debug)]
pub struct Diversity {
    /// What is shared.
    pub content: Content,
    /// Payload bytes a second out of each peer.
    pub up: u64,
    /// Payload bytes a second out of the seed.
    pub seed_up: u64,
    /// Arrivals a second.
    pub lambda: f64,
    /// In what order pieces are fetched.
    pub mode: Mode,
    /// Seconds it settles.
    pub settle_s: f64,
    /// Seconds it is measured.
    pub measure_s: f64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct DiversityRun {
    /// How the pieces were spread over time, from the beginning.
    pub path: Vec<Spread>,
    /// Means over the time measured (`at_s` aside).
    pub mean: Spread,
    /// Seconds to the content, mean of those who came after it settled.
    pub took_s: f64,
    /// Seconds to the first piece; in rising order.
    pub first_piece_s: Vec<f64>,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// The hash of all events.
    pub digest: Digest,
}

/// Seconds between looks.
const EVERY_S: f64 = 10.0;

impl Diversity {
    /// Runs it; none if there is no such content.
    pub fn run(&self, seed: u64, host: &mut dyn Host) -> Option<DiversityRun> {
        let mut swarm = Swarm::new(seed, self.content, Links::default())?;
        let fixed = swarm.class(Class {
            stay: Stay::Forever,
            ..Class::new(self.seed_up)
        });
        let class = swarm.class(Class {
            mode: self.mode,
            ..Class::new(self.up)
        });
        swarm.join_seed(fixed);
        swarm.arrive(class, self.lambda);
        let mut run = DiversityRun::default();
        let mut looks = 0.0;
        let steps = ((self.settle_s + self.measure_s) / EVERY_S) as u64;
        for i in 1..=steps {
            let at_s = i as f64 * EVERY_S;
            swarm.run_until(Time::ZERO + Duration::from_secs_f64(at_s));
            let spread = Spread::of(&swarm);
            run.path.push(spread);
            if at_s > self.settle_s {
                looks += 1.0;
                run.mean.add(&spread);
            }
            host.progress("Swarming", i, steps);
        }
        run.mean.scale(1.0 / f64::max(looks, 1.0));
        let mut took = Vec::new();
        for record in swarm.peers().iter().map(|p| p.record) {
            run.faults += record.faults;
            if record.class == class && record.joined.as_secs_f64() > self.settle_s {
                took.extend(record.took());
                let first = record.first_piece.map(|t| t.since(record.joined));
                run.first_piece_s.extend(first.map(|t| t.as_secs_f64()));
            }
        }
        run.took_s = took.iter().sum::<f64>() / took.len().max(1) as f64;
        run.first_piece_s.sort_by(f64::total_cmp);
        run.digest = swarm.digest();
        Some(run)
    }
}
