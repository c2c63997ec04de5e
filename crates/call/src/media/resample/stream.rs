//! Sound at another rate as it comes, a little faster or slower if need be.

use super::{PASS, RATES, WIDTH, kernel};
use crate::media::RATE;

/// Places between two samples for which the sine is known; between them it is drawn straight, which is wrong
/// by 95 dB less than the sound.
const PHASES: usize = 256;

/// Takes samples at one rate and gives them at another.
#[derive(Debug)]
pub struct Resampler {
    /// The sine at each phase, one after the other.
    kernels: Vec<Vec<f32>>,
    reach: usize,
    waiting: Vec<f32>,
    /// So many of them, from the first, have nothing but silence behind them.
    loud: usize,
    /// Where the next sample lies, as a place in `waiting`, at least `reach`.
    at: f64,
    step: f64,
    speed: f64,
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
            at: wide,
            step,
            speed: 1.0,
        }
    }

    /// From now on the sound goes by so many times as fast; between 0.5 and 2.
    pub fn set_speed(&mut self, speed: f64) {
        self.speed = speed.clamp(0.5, 2.0);
    }

    /// Appends sound.
    pub fn push(&mut self, sound: &[i16]) {
        if let Some(last) = sound.iter().rposition(|&s| s != 0) {
            self.loud = self.waiting.len() + last + 1;
        }
        self.waiting.extend(sound.iter().map(|&s| f32::from(s)));
    }

    fn stride(&self) -> f64 {
        self.step * self.speed
    }

    /// Samples that can be had now.
    pub fn ready(&self) -> usize {
        // The sine reaches past the sample after the place.
        let last = self.waiting.len() as f64 - (self.reach + 2) as f64;
        if last < self.at {
            return 0;
        }
        ((last - self.at) / self.stride()) as usize + 1
    }

    /// Fills `out`, with silence where there is nothing yet.
    pub fn pull(&mut self, out: &mut [i16]) {
        let ready = self.ready().min(out.len());
        let stride = self.stride();
        out.fill(0);
        for sample in out.iter_mut().take(ready) {
            *sample = self.sample();
            self.at += stride;
        }
        self.forget();
    }

    /// Leaves out so many samples, or as many as there are.
    pub fn skip(&mut self, samples: usize) {
        self.at += samples.min(self.ready()) as f64 * self.stride();
        self.forget();
    }

    fn sample(&self) -> i16 {
        let whole = self.at as usize;
        if whole >= self.loud + self.reach {
            return 0;
        }
        let between = (self.at - whole as f64) * PHASES as f64;
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
        let gone = (self.at as usize).saturating_sub(self.reach);
        let gone = gone.min(self.waiting.len());
        self.waiting.drain(..gone);
        self.loud = self.loud.saturating_sub(gone);
        self.at -= gone as f64;
    }
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
            prop_assert_eq!(whole.len(), parts.len());
            for (a, b) in whole.iter().zip(&parts) {
                prop_assert!((i32::from(*a) - i32::from(*b)).abs() <= 1);
            }
        }
    }
}
