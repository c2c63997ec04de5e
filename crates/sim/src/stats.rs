//! Means, percentiles and counts of what was measured.

use serde::Serialize;

/// A sample of whole numbers, kept as counts: any number of values of a small range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: Vec<u64>,
}

/// A tally counts values below this apart; greater ones count as the greatest.
const MAX_TALLY: usize = 1 << 22;

impl Tally {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let i = (value as usize).min(MAX_TALLY);
        if self.counts.len() <= i {
            self.counts.resize(i + 1, 0);
        }
        self.counts[i] += 1;
    }

    /// How many values were counted.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The mean, zero of nothing.
    pub fn mean(&self) -> f64 {
        let sum: u64 = (0..).zip(&self.counts).map(|(v, n): (u64, _)| v * n).sum();
        sum as f64 / self.len().max(1) as f64
    }

    /// The least value that is not exceeded by the share `q` of all.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (q * self.len() as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (value, n) in (0..).zip(&self.counts) {
            below += n;
            if below >= rank {
                return value;
            }
        }
        0
    }

    /// The greatest value.
    pub fn max(&self) -> u64 {
        self.counts.len().saturating_sub(1) as u64
    }

    /// Each value and its share of all.
    pub fn shares(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let all = self.len().max(1) as f64;
        (0..)
            .zip(&self.counts)
            .map(move |(v, n)| (v, *n as f64 / all))
    }
}

/// What is said of a sample of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// 1 % lie below.
    pub p1: f64,
    /// Half lie below.
    pub p50: f64,
    /// 99 % lie below.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// Standard deviation.
    pub deviation: f64,
}

impl Summary {
    /// Sorts and sums up; all zero of nothing.
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64;
        let at = |q: f64| values[((count as f64 * q).ceil() as usize).clamp(1, count) - 1];
        Self {
            count,
            mean,
            min: *min,
            p1: at(0.01),
            p50: at(0.5),
            p99: at(0.99),
            max: *max,
            deviation: variance.sqrt(),
        }
    }
}

/// The mean, zero of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Half the width of the 95 % confidence interval of the mean of independent values, by Student's
/// t; infinite for fewer than two.
pub fn half_width_95(values: &[f64]) -> f64 {
    /// The 97.5th percentile of Student's t for 1, 2, … degrees of freedom.
    const T: [f64; 15] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131,
    ];
    let n = values.len();
    if n < 2 {
        return f64::INFINITY;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    // Beyond the table the last entry errs on the wide side.
    let t = T.get(n - 2).unwrap_or(&T[T.len() - 1]);
    t * (squares / (n - 1) as f64 / n as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_and_a_summary_agree() {
        let mut tally = Tally::default();
        let mut values: Vec<f64> = (1..=100).map(f64::from).collect();
        (1..=100).for_each(|v| tally.add(v));
        let summary = Summary::of(&mut values);
        assert_eq!(tally.mean(), summary.mean);
        assert_eq!(tally.quantile(0.99) as f64, summary.p99);
        assert_eq!(tally.quantile(0.5), 50);
        assert_eq!((tally.max(), tally.len()), (100, 100));
        assert!((summary.deviation - 28.866).abs() < 0.001);
        assert!((tally.shares().map(|(_, s)| s).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_confidence_interval_is_that_of_the_textbook() {
        // Four values: t(3) = 3.182, deviation 2.582, over the root of 4.
        let half = half_width_95(&[1.0, 3.0, 5.0, 7.0]);
        assert!((half - 3.182 * 2.582 / 2.0).abs() < 0.001, "{half}");
        assert_eq!(half_width_95(&[4.0; 40]), 0.0);
        assert_eq!(half_width_95(&[1.0]), f64::INFINITY);
        assert_eq!((mean(&[1.0, 2.0]), mean(&[])), (1.5, 0.0));
    }

    #[test]
    fn nothing_sums_up_to_nothing() {
        assert_eq!(Summary::of(&mut []), Summary::default());
        assert_eq!(Tally::default().quantile(0.5), 0);
        assert_eq!(Tally::default().mean(), 0.0);
    }
}
