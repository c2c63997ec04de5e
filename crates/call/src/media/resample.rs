//! Sound at another rate: a windowed sine, as wide as it takes to keep out what the lower of the two
//! rates cannot hold. Two hundred lines instead of a crate with eight below it: all that is asked for is a file
//! at once, and a sound card's sound as it comes.

mod stream;

pub use stream::Resampler;

use super::RATE;

/// Zero crossings of the sine on each side.
const WIDTH: f64 = 16.0;
/// The pass band ends here, as a part of the lower rate's half.
const PASS: f64 = 0.94;
/// Rates that sound may have.
pub const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// The sound, taken at `from` samples a second, at [`RATE`] samples a second; as it is if `from` is
/// not in [`RATES`].
pub fn to_call_rate(sound: &[i16], from: u32) -> Vec<i16> {
    if from == RATE || !RATES.contains(&from) {
        return sound.to_vec();
    }
    // Every so many samples they lie to each other as before: only so many kernels are there.
    let common = gcd(from, RATE);
    let (up, down) = (u64::from(RATE / common), u64::from(from / common));
    // Going down, the sine is wider by as much as samples get fewer.
    let cut = PASS * (f64::from(RATE) / f64::from(from)).min(1.0);
    let reach = (WIDTH / cut).ceil();
    let taps = -(reach as i64)..=reach as i64 + 1;
    let kernels: Vec<Vec<f32>> = (0..up)
        .map(|phase| {
            let past = phase as f64 / up as f64;
            let values = taps.clone().map(|t| kernel(t as f64 - past, cut, reach));
            values.map(|v| v as f32).collect()
        })
        .collect();
    let samples = sound.len() as u64 * up / down;
    (0..samples)
        .map(|i| {
            let at = i * down;
            let kernel = usize::try_from(at % up).ok().and_then(|p| kernels.get(p));
            let first = (at / up) as i64 - reach as i64;
            // Before the beginning there is nothing.
            let skip = usize::try_from(-first).unwrap_or(0);
            let near = sound.get(usize::try_from(first).unwrap_or(0)..);
            let weights = kernel.and_then(|k| k.get(skip..)).unwrap_or_default();
            let pairs = near.unwrap_or_default().iter().zip(weights);
            let sum: f32 = pairs.map(|(&s, w)| f32::from(s) * w).sum();
            // What is out of range becomes its end.
            sum.round() as i16
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A sine that goes through `cut` of half the rate, under Blackman's window of `reach` samples each way.
fn kernel(x: f64, cut: f64, reach: f64) -> f64 {
    let angle = std::f64::consts::PI * x * cut;
    let sine = if x.abs() < 1e-9 {
        1.0
    } else {
        angle.sin() / angle
    };
    if x.abs() >= reach {
        return 0.0;
    }
    let place = std::f64::consts::PI * x / reach;
    let window = 0.42 + 0.5 * place.cos() + 0.08 * (2.0 * place).cos();
    sine * cut * window
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn tone(hertz: f64, rate: u32) -> Vec<i16> {
        let step = hertz * std::f64::consts::TAU / f64::from(rate);
        (0..rate / 2)
            .map(|i| ((f64::from(i) * step).sin() * 10_000.0) as i16)
            .collect()
    }

    #[test]
    fn a_tone_stays_what_it_is() {
        for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 96_000] {
            let got = to_call_rate(&tone(1000.0, rate), rate);
            let want = tone(1000.0, RATE);
            assert!(got.len().abs_diff(want.len()) <= 8, "{rate}");
            let inner = 2000..want.len() - 2000;
            let worst = inner
                .map(|i| (i32::from(got[i]) - i32::from(want[i])).abs())
                .max();
            assert!(worst.is_some_and(|w| w < 60), "{rate}: {worst:?}");
        }
    }

    #[test]
    fn what_does_not_fit_goes_away() {
        let got = to_call_rate(&tone(30_000.0, 96_000), 96_000);
        let inner = &got[2000..got.len() - 2000];
        assert!(inner.iter().all(|s| s.abs() < 60));
    }

    #[test]
    fn odd_rates_and_nothing_are_survived() {
        assert!(to_call_rate(&[], 8000).is_empty());
        assert_eq!(to_call_rate(&[1, 2], 0), [1, 2]);
        assert_eq!(to_call_rate(&[5], 4000).len(), 12);
    }
}
