//! How evenly keys fall on machines, with one or more places on the circle for each.

use crate::stats::Summary;
use shoal_base::Rng;

/// Keys on each of `machines` machines with `places` random places each, as multiples of the mean.
pub fn shares(rng: &mut Rng, machines: u32, places: u32, keys: u64) -> Vec<f64> {
    let mut circle: Vec<(u64, u32)> = (0..machines)
        .flat_map(|machine| (0..places).map(move |_| machine))
        .map(|machine| (rng.next_u64(), machine))
        .collect();
    circle.sort_unstable();
    let mut held = vec![0u64; machines as usize];
    for _ in 0..keys {
        let key = rng.next_u64();
        let owner = circle.partition_point(|(place, _)| *place < key);
        if let Some((_, machine)) = circle.get(owner).or(circle.first()) {
            held[*machine as usize] += 1;
        }
    }
    let mean = keys as f64 / f64::from(machines);
    held.into_iter().map(|n| n as f64 / mean).collect()
}

/// What theory gives for the share `q` of machines: arcs are exponential, the sum of `places` of
/// them is a Gamma variable, and `keys` of them in the mean add a Poisson's spread. By Wilson and
/// Hilferty's cube root, good to a percent where it is used.
pub fn quantile(places: u32, keys_each: f64, q: f64) -> f64 {
    let shape = 1.0 / (1.0 / f64::from(places) + 1.0 / keys_each);
    let z = normal_quantile(q);
    let ninth = 1.0 / (9.0 * shape);
    (1.0 - ninth + z * ninth.sqrt()).max(0.0).powi(3)
}

/// The normal distribution's quantile (Abramowitz and Stegun, 26.2.23; off by at most 4.5e-4).
fn normal_quantile(q: f64) -> f64 {
    let tail = q.min(1.0 - q).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let top = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let bottom = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - top / bottom;
    if q < 0.5 { -z } else { z }
}

/// The load of machines with this many places, summed up.
pub fn measure(rng: &mut Rng, machines: u32, places: u32, keys: u64) -> Summary {
    Summary::of(&mut shares(rng, machines, places, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's figure: 10^4 machines; p99 of 4.6, 2.3 and 1.6 means with 1, 5 and 20 places.
    #[test]
    fn load_is_as_the_paper_and_gamma_say() {
        let mut rng = Rng::from_seed(9);
        for (places, p99) in [(1, 4.6), (5, 2.3), (20, 1.6)] {
            let got = measure(&mut rng, 4000, places, 400_000);
            let theory = quantile(places, 100.0, 0.99);
            assert!(
                (got.p99 / theory - 1.0).abs() < 0.1,
                "{places}: {} {theory}",
                got.p99
            );
            assert!(
                (got.p99 / p99 - 1.0).abs() < 0.1,
                "{places}: {} {p99}",
                got.p99
            );
            assert!((got.mean - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn quantiles_are_known_ones() {
        assert!((normal_quantile(0.99) - 2.326).abs() < 1e-3);
        assert!((normal_quantile(0.01) + 2.326).abs() < 1e-3);
        assert!((quantile(1, 1e9, 0.99) - 4.605).abs() < 0.02);
    }
}
