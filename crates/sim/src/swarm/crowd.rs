//! A flash crowd: all come at once, and one seed has what they want.

use super::spread::Spread;
use super::{Class, Content, Stay, Swarm};
use crate::digest::Digest;
use crate::experiment::Host;
use crate::link::Links;
use shoal_base::Time;
use shoal_content::download::Mode;
use std::time::Duration;

/// A crowd.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// What is shared.
    pub content: Content,
    /// How many come.
    pub peers: usize,
    /// Payload bytes a second out of each.
    pub up: u64,
    /// Payload bytes a second into each; none: no limit.
    pub down: Option<u64>,
    /// Payload bytes a second out of the seed.
    pub seed_up: u64,
    /// Within how many seconds they come.
    pub within_s: f64,
    /// In what order they fetch pieces.
    pub mode: Mode,
    /// Whether they stay until all have everything; if not they leave when they have.
    pub stay: bool,
    /// When to stop, in times a peer needs to upload the content once.
    pub limit: f64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct CrowdRun {
    /// When each got everything, in seconds after it came; in rising order.
    pub took_s: Vec<f64>,
    /// When the last had everything, from the first second on; none if that did not come to pass.
    pub last_s: Option<f64>,
    /// Seconds to the first piece; in rising order.
    pub first_piece_s: Vec<f64>,
    /// When every piece was at some peer, in seconds.
    pub all_out_s: Option<f64>,
    /// How many times over the seed had sent the content by then.
    pub seed_sent: f64,
    /// How the pieces were spread over time.
    pub spread: Vec<Spread>,
    /// Broken rules; zero unless there is a bug.
    pub faults: u32,
    /// The hash of all events.
    pub digest: Digest,
}

impl Crowd {
    /// Seconds a peer needs to upload the content once.
    pub fn upload_s(&self) -> f64 {
        self.content.bytes() as f64 / self.up as f64
    }

    /// Runs it, looking every `every_s` seconds; none if there is no such content.
    pub fn run(&self, seed: u64, every_s: f64, host: &mut dyn Host) -> Option<CrowdRun> {
        let mut swarm = Swarm::new(seed, self.content, Links::default())?;
        let source = swarm.class(Class {
            stay: Stay::Forever,
            ..Class::new(self.seed_up)
        });
        let class = swarm.class(Class {
            down: self.down,
            mode: self.mode,
            stay: if self.stay {
                Stay::Forever
            } else {
                Stay::Leaves
            },
            ..Class::new(self.up)
        });
        swarm.join_seed(source);
        swarm.crowd(class, self.peers, Duration::from_secs_f64(self.within_s));
        let mut run = CrowdRun::default();
        let limit_s = self.limit * self.upload_s();
        let mut at_s = 0.0;
        let peers = self.peers as u32;
        while at_s < limit_s && swarm.census().completed < peers {
            at_s += every_s;
            swarm.run_until(Time::ZERO + Duration::from_secs_f64(at_s));
            let spread = Spread::of(&swarm);
            if run.all_out_s.is_none() && spread.only_seed == 0.0 {
                run.all_out_s = Some(at_s);
                let sent = swarm.peers().first().map_or(0, |p| p.record.given);
                run.seed_sent = sent as f64 / self.content.bytes() as f64;
            }
            run.spread.push(spread);
            host.progress(
                "Swarming",
                u64::from(swarm.census().completed),
                u64::from(peers),
            );
        }
        let seconds = |t: Time| t.as_secs_f64();
        for record in swarm.peers().iter().map(|p| p.record) {
            run.faults += record.faults;
            if record.class == class {
                run.took_s.extend(record.took());
                let first = record
                    .first_piece
                    .map(|t| seconds(t) - seconds(record.joined));
                run.first_piece_s.extend(first);
            }
        }
        if swarm.census().completed == peers {
            let ends = swarm.peers().iter().filter_map(|p| p.record.finished);
            run.last_s = ends.max().map(seconds);
        }
        run.took_s.sort_by(f64::total_cmp);
        run.first_piece_s.sort_by(f64::total_cmp);
        run.digest = swarm.digest();
        Some(run)
    }
}
