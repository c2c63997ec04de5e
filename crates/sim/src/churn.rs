//! How long nodes stay: session lengths drawn from the distributions that measurements give.

use serde::{Deserialize, Serialize};
use shoal_base::Rng;
use std::time::Duration;

/// A distribution of session lengths, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Sessions {
    /// Memoryless, as Chord's own evaluation has it.
    Exponential {
        /// Mean.
        mean_s: f64,
    },
    /// Heavy-tailed: `P(X > x) = (scale / x)^shape`.
    Pareto {
        /// The shortest session.
        scale_s: f64,
        /// Above 1 the mean is finite.
        shape: f64,
    },
    /// `P(X > x) = exp(-(x / scale)^shape)`; a shape below 1 gives many short sessions and few long
    /// ones.
    Weibull {
        /// The 63rd percentile.
        scale_s: f64,
        /// 1 is exponential.
        shape: f64,
    },
    /// Between measured points `(share of sessions that are shorter, seconds)`, in rising order;
    /// joined by straight lines on a logarithmic scale of time.
    Quantiles(Vec<(f64, f64)>),
}

impl Sessions {
    /// Draws a length.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        let u = rng.unit();
        let seconds = match self {
            Self::Exponential { mean_s } => -mean_s * (1.0 - u).ln(),
            Self::Pareto { scale_s, shape } => scale_s / (1.0 - u).powf(1.0 / shape),
            Self::Weibull { scale_s, shape } => scale_s * (-(1.0 - u).ln()).powf(1.0 / shape),
            Self::Quantiles(points) => interpolate(points, u),
        };
        // A thousand years is long enough for any tail.
        Duration::from_secs_f64(seconds.clamp(1e-6, 3e10))
    }

    /// The median.
    pub fn median(&self) -> Duration {
        let seconds = match self {
            Self::Exponential { mean_s } => mean_s * std::f64::consts::LN_2,
            Self::Pareto { scale_s, shape } => scale_s * 2f64.powf(1.0 / shape),
            Self::Weibull { scale_s, shape } => scale_s * std::f64::consts::LN_2.powf(1.0 / shape),
            Self::Quantiles(points) => interpolate(points, 0.5),
        };
        Duration::from_secs_f64(seconds.clamp(1e-6, 3e10))
    }
}

fn interpolate(points: &[(f64, f64)], u: f64) -> f64 {
    let behind = points.partition_point(|(share, _)| *share <= u);
    match (points[..behind].last(), points.get(behind)) {
        (Some((p0, s0)), Some((p1, s1))) if p1 > p0 => {
            let (l0, l1) = (s0.max(1e-6).ln(), s1.max(1e-6).ln());
            (l0 + (l1 - l0) * (u - p0) / (p1 - p0)).exp()
        }
        (Some((_, s)), _) | (None, Some((_, s))) => *s,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sessions: &Sessions, median_s: f64) {
        let mut rng = Rng::from_seed(11);
        let mut drawn: Vec<_> = (0..40_001).map(|_| sessions.draw(&mut rng)).collect();
        drawn.sort_unstable();
        let got = drawn[20_000].as_secs_f64();
        assert!((got / median_s - 1.0).abs() < 0.03, "{sessions:?}: {got} s");
        assert!((sessions.median().as_secs_f64() / median_s - 1.0).abs() < 1e-6);
    }

    #[test]
    fn medians_are_those_of_the_distributions() {
        check(&Sessions::Exponential { mean_s: 1000.0 }, 693.147_180_56);
        check(
            &Sessions::Pareto {
                scale_s: 60.0,
                shape: 1.0,
            },
            120.0,
        );
        check(
            &Sessions::Weibull {
                scale_s: 600.0,
                shape: 0.5,
            },
            600.0 * 0.480_453_013_9,
        );
        // KaZaA: half of the sessions end within 2.4 minutes.
        let kazaa = vec![(0.0, 10.0), (0.5, 144.0), (0.9, 3600.0), (1.0, 86_400.0)];
        check(&Sessions::Quantiles(kazaa), 144.0);
    }
}
