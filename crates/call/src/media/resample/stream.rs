//! Sound at another rate as it comes, a little faster or slower if need be.

use super::{PASS, RATES, WIDTH, kernel};
use crate::media::RATE;

/// Places between two samples for which the sine is known; between them it is drawn straight, which is wrong
/// by 95 dB less than the sound.
const PHASES: usize = 256;
/// Places and strides are whole numbers of this part of a sample: sums of them are exact, so that it makes no
/// difference in how many pieces the sound comes.
const ONE: f64 = (1u64 << FRACTION) as f64;
const FRACTION: u32 = 32;

/// Takes samples at one rate and gives them at another.
#[derive(Debug)]
pub struct Resampler {
    /// The sine at each phase, one after the other.
    kernels: Vec<Vec<f32>>,
    reach: usize,
    waiting: Vec<f32>,
    /// So many of them, from the first, have nothing but silence behind them.
    loud: usize,
    /// Where the next sample lies, as a place in `waiting` in parts of a sample, at least `reach`.
    at: u64,
    step: f64,
    /// From one sample to the next, in parts of a sample.
    stride: u64,
}

impl Resampler {
    /// From so many samples a second to so many; the call's rate in place of what is not in
    /// [`RATES`].
    pub fn new(from: u32, to: u32) -> Self {
        let known = |rate: u32| if RATES.contains(&rate) { rate } else { RATE };
        let step = f64::from(known(from)) / f64::from(known(to));
        // Going down, the sine is wider by as much as samples get fewer.
        let cut = PASS * (1.0 / step).min(1.0);
        let wide = (WIDTH / cut).ceil();
        let reach = wide as usize;
        let kernels = (0..=PHASES).map(|phase| {
            let past = phase as f64 / PHASES as f64;
            let taps = 0..2 * reach + 2;
            let values = taps.map(|t| kernel(t as f64 - wide - past, cut, wide) as f32);
            values.collect()
        });
        Self {
            kernels: kernels.collect(),
            reach,
            // Before the beginning there is nothing.
            waiting: vec![0.0; reach],
            loud: 0,
            at: (reach as u64) << FRACTION,
            step,
            stride: parts(step),
        }
    }

    /// From now on the sound goes by so many times as fast; between 0.5 and 2.
    pub fn set_speed(&mut self, speed: f64) {
        self.stride = parts(self.step * speed.clamp(0.5, 2.0));
    }

    /// Appends sound.
    pub fn push(&mut self, sound: &[i16]) {
        if let Some(last) = sound.iter().rposition(|&s| s != 0) {
            self.loud = self.waiting.len() + last + 1;
        }
        self.waiting.extend(sound.iter().map(|&s| f32::from(s)));
    }

    /// Samples that can be had now.
    pub fn ready(&self) -> usize {
        // The sine reaches past the sample after the place.
        let last = self.waiting.len().checked_sub(self.reach + 2);
        let room = last.and_then(|last| ((last as u64) << FRACTION).checked_sub(self.at));
        room.map_or(0, |room| (room / self.stride) as usize + 1)
    }

    /// The sample that the next one lies on or after.
    fn whole(&self) -> usize {
        (self.at >> FRACTION) as usize
    }

    /// Fills `out`, with silence where there is nothing yet.
    pub fn pull(&mut self, out: &mut [i16]) {
        let ready = self.ready().min(out.len());
        out.fill(0);
        for sample in out.iter_mut().take(ready) {
            *sample = self.sample();
            self.at += self.stride;
        }
        self.forget();
    }

    /// Leaves out so many samples, or as many as there are.
    pub fn skip(&mut self, samples: usize) {
        self.at += samples.min(self.ready()) as u64 * self.stride;
        self.forget();
    }

    fn sample(&self) -> i16 {
        let whole = self.whole();
        if whole >= self.loud + self.reach {
            return 0;
        }
        let past = self.at & ((1 << FRACTION) - 1);
        let between = past as f64 / ONE * PHASES as f64;
        let phase = between as usize;
        let part = (between - phase as f64) as f32;
        let near = self.waiting.get(whole - self.reach.min(whole)..);
        let near = near.unwrap_or_default();
        let under = |phase: usize| -> f32 {
            let weights = self.kernels.get(phase).map_or(&[][..], Vec::as_slice);
            near.iter().zip(weights).map(|(s, w)| s * w).sum()
        };
        let (a, b) = (under(phase), under(phase + 1));
        // What is out of range becomes its end.
        (a + (b - a) * part).round() as i16
    }

    fn forget(&mut self) {
        let gone = self.whole().saturating_sub(self.reach);
        let gone = gone.min(self.waiting.len());
        self.waiting.drain(..gone);
        self.loud = self.loud.saturating_sub(gone);
        self.at -= (gone as u64) << FRACTION;
    }
}

/// So many samples in parts of a sample, one at least.
fn parts(samples: f64) -> u64 {
    ((samples * ONE).round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tone;
    use super::*;
    use proptest::prelude::*;

    /// All of it, in pieces of a card's.
    fn through(sound: &[i16], from: u32, to: u32, piece: usize) -> Vec<i16> {
        let (mut resampler, mut got) = (Resampler::new(from, to), Vec::new());
        for piece in sound.chunks(piece) {
            resampler.push(piece);
            let mut out = vec![0; resampler.ready()];
            resampler.pull(&mut out);
            got.extend(out);
        }
        got
    }

    #[test]
    fn a_tone_stays_what_it_is_both_ways() {
        for rate in [8_000, 16_000, 44_100, 48_000, 96_000] {
            for (from, to) in [(rate, RATE), (RATE, rate)] {
                let got = through(&tone(1000.0, from), from, to, 441);
                let want = tone(1000.0, to);
                assert!(want.len().abs_diff(got.len()) < 150, "{from} to {to}");
                let worst = (200..got.len())
                    .map(|i| (i32::from(got[i]) - i32::from(want[i])).abs())
                    .max();
                assert!(worst.is_some_and(|w| w < 60), "{from} to {to}: {worst:?}");
            }
        }
    }

    #[test]
    fn faster_is_shorter_and_higher() {
        let sound = tone(1000.0, RATE);
        let mut resampler = Resampler::new(RATE, RATE);
        resampler.set_speed(1.003);
        resampler.push(&sound);
        let mut got = vec![0; resampler.ready()];
        resampler.pull(&mut got);
        let expected = sound.len() as f64 / 1.003;
        assert!((got.len() as f64 - expected).abs() < 40.0);
        let want = tone(1003.0, RATE);
        let worst = (200..got.len()).map(|i| (i32::from(got[i]) - i32::from(want[i])).abs());
        assert!(worst.max().is_some_and(|w| w < 60));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(piece in 1usize..700, from in 4_000u32..100_000) {
            let sound = tone(440.0, from);
            let sound = &sound[..sound.len().min(3000)];
            let (whole, parts) = (through(sound, from, RATE, 3000), through(sound, from, RATE, piece));
            prop_assert_eq!(whole, parts);
        }
    }
}
