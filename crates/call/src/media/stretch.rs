//! The same sound a few milliseconds longer or shorter, by whole periods of the voice.
//!
//! Two stretches of sound that are one period apart look alike, so that fading from one into the other
//! is not heard. Both ends go on as they were, whatever is taken out or put in between.

/// Periods that are looked for: 2.5 to 15 ms.
const SHORTEST: usize = 120;
const LONGEST: usize = 720;
/// The search runs on every sixth sample (8 kHz).
const COARSE: usize = 6;
/// How alike two periods must be.
const ALIKE: f64 = 0.75;
/// Mean square below which there is nothing to be alike: 60 dB under full scale.
const QUIET: f64 = 1000.0;

/// Takes one period out; says how many samples that were. Zero if no place was found: `urgent` takes
/// whatever place is best.
pub fn shrink(sound: &mut Vec<i16>, urgent: bool) -> usize {
    let Some(period) = period(sound, urgent) else {
        return 0;
    };
    let (Some(first), Some(second)) = (sound.get(..period), sound.get(period..2 * period)) else {
        return 0;
    };
    let mut joined = blend(first, second);
    joined.extend_from_slice(sound.get(2 * period..).unwrap_or_default());
    *sound = joined;
    period
}

/// Puts one period in; says how many samples that are. Zero as for [`shrink`].
pub fn stretch(sound: &mut Vec<i16>, urgent: bool) -> usize {
    let Some(period) = period(sound, urgent) else {
        return 0;
    };
    let (Some(first), Some(second)) = (sound.get(..period), sound.get(period..2 * period)) else {
        return 0;
    };
    let mut joined = first.to_vec();
    joined.extend(blend(second, first));
    joined.extend_from_slice(sound.get(period..).unwrap_or_default());
    *sound = joined;
    period
}

/// From one into the other.
fn blend(from: &[i16], to: &[i16]) -> Vec<i16> {
    let n = from.len().max(1) as i32;
    let pairs = from.iter().zip(to);
    let mixed = (0i32..).zip(pairs).map(|(i, (&a, &b))| {
        let value = (i32::from(a) * (n - i) + i32::from(b) * i) / n;
        value as i16
    });
    mixed.collect()
}

/// The length of a period at the beginning of the sound, so that two of them fit in.
fn period(sound: &[i16], urgent: bool) -> Option<usize> {
    let longest = LONGEST.min(sound.len() / 2);
    if longest < SHORTEST {
        return None;
    }
    let head = sound.get(..2 * longest)?;
    if energy(head) / (head.len() as f64) < QUIET {
        return Some(longest);
    }
    let coarse: Vec<i16> = head
        .chunks_exact(COARSE)
        .map(|c| (c.iter().map(|&s| i32::from(s)).sum::<i32>() / COARSE as i32) as i16)
        .collect();
    let rough = best(&coarse, SHORTEST / COARSE, longest / COARSE)?.0 * COARSE;
    let from = rough.saturating_sub(COARSE).max(SHORTEST);
    let (lag, alike) = best(head, from, (rough + COARSE).min(longest))?;
    (urgent || alike >= ALIKE).then_some(lag)
}

/// The shift between `from` and `to` at which what comes after is most like what came before.
fn best(sound: &[i16], from: usize, to: usize) -> Option<(usize, f64)> {
    let mut found: Option<(usize, f64)> = None;
    for lag in from..=to {
        let (Some(a), Some(b)) = (sound.get(..lag), sound.get(lag..2 * lag)) else {
            break;
        };
        let product: f64 = a
            .iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum();
        let alike = product / (energy(a) * energy(b)).sqrt().max(1.0);
        if found.is_none_or(|f| alike > f.1) {
            found = Some((lag, alike));
        }
    }
    found
}

fn energy(sound: &[i16]) -> f64 {
    sound.iter().map(|&s| f64::from(s) * f64::from(s)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, samples: usize) -> Vec<i16> {
        let step = hertz * std::f64::consts::TAU / 48_000.0;
        (0..samples)
            .map(|i| ((i as f64 * step).sin() * 12_000.0) as i16)
            .collect()
    }

    /// The largest step between neighbours.
    fn steepest(sound: &[i16]) -> i32 {
        let steps = sound.windows(2).map(|w| match w {
            [a, b] => (i32::from(*a) - i32::from(*b)).abs(),
            _ => 0,
        });
        steps.max().unwrap_or(0)
    }

    #[test]
    fn a_period_comes_out_and_goes_in_without_a_click() {
        for hertz in [110.0, 150.0, 220.0, 333.0] {
            let original = tone(hertz, 1920);
            let mut shorter = original.clone();
            let out = shrink(&mut shorter, false);
            assert!(out >= SHORTEST, "{hertz}");
            assert_eq!(shorter.len() + out, original.len());
            let mut longer = original.clone();
            let put = stretch(&mut longer, false);
            assert_eq!(longer.len(), original.len() + put);
            let usual = steepest(&original);
            assert!(steepest(&shorter) <= usual + usual / 2, "{hertz}");
            assert!(steepest(&longer) <= usual + usual / 2, "{hertz}");
            assert_eq!(shorter.last(), original.last());
            assert_eq!(longer.first(), original.first());
        }
    }

    #[test]
    fn noise_is_left_alone_unless_it_is_urgent() {
        let mut state = 1u32;
        let noise: Vec<i16> = (0..960)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 8192
            })
            .collect();
        assert_eq!(shrink(&mut noise.clone(), false), 0);
        assert!(shrink(&mut noise.clone(), true) > 0);
        assert_eq!(stretch(&mut vec![0; 100], true), 0);
    }
}
