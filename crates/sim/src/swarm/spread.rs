//! How evenly pieces are spread over the peers.

use super::Swarm;

/// How the pieces are spread at one time, the seed's copies left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// When, in seconds.
    pub at_s: f64,
    /// Copies of the rarest piece.
    pub min: f64,
    /// Copies of a piece on average.
    pub mean: f64,
    /// Variance of the number of copies.
    pub variance: f64,
    /// Entropy of the copies' distribution over the pieces, as a share of the greatest possible.
    pub entropy: f64,
    /// Pieces that only the seed has.
    pub only_seed: f64,
    /// Peers that have everything.
    pub complete: f64,
}

impl Spread {
    /// Adds another look's numbers to these.
    pub(super) fn add(&mut self, other: &Self) {
        self.min += other.min;
        self.mean += other.mean;
        self.variance += other.variance;
        self.entropy += other.entropy;
        self.only_seed += other.only_seed;
        self.complete += other.complete;
    }

    /// Multiplies all numbers but the time.
    pub(super) fn scale(&mut self, by: f64) {
        self.min *= by;
        self.mean *= by;
        self.variance *= by;
        self.entropy *= by;
        self.only_seed *= by;
        self.complete *= by;
    }

    /// How they are spread now. The swarm has one fixed seed.
    pub fn of(swarm: &Swarm) -> Self {
        let copies: Vec<f64> = swarm
            .copies()
            .iter()
            .map(|n| f64::from(n.saturating_sub(1)))
            .collect();
        let n = copies.len().max(1) as f64;
        let all: f64 = copies.iter().sum();
        let mean = all / n;
        let bits = copies.iter().filter(|c| **c > 0.0).map(|c| {
            let p = c / all;
            -p * p.log2()
        });
        Self {
            at_s: swarm.now().as_secs_f64(),
            min: copies.iter().copied().fold(f64::INFINITY, f64::min),
            mean,
            variance: copies.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / n,
            entropy: bits.sum::<f64>().max(0.0) / n.log2().max(f64::MIN_POSITIVE),
            only_seed: copies.iter().filter(|c| **c == 0.0).count() as f64,
            complete: f64::from(swarm.census().completed),
        }
    }
}
