//! In which form a card's samples are asked for.

use cpal::{SampleFormat, SupportedBufferSize, SupportedStreamConfigRange};

use super::Which;
use shoal_node::call::RATE;

/// Turns of a card that are asked for, a second: 10 ms each.
const TURNS: u32 = 100;
/// Rates that are taken; a card that has none of them is of no use.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;

/// The form that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) sample: SampleFormat,
    pub(super) channels: u16,
    pub(super) rate: u32,
    /// Samples of a turn for each channel; none: as the card likes.
    pub(super) turn: Option<u32>,
}

/// The best of what a card offers: the call's rate if it has it, few channels, samples of 16 bits.
pub(super) fn choose(
    which: Which,
    offered: impl Iterator<Item = SupportedStreamConfigRange>,
) -> Option<Format> {
    let formats = offered.filter_map(|range| {
        let sample = rank(range.sample_format())?;
        let (low, high) = (range.min_sample_rate(), range.max_sample_rate());
        let rate = RATE.clamp(low, high.max(low));
        if !RATES.contains(&rate) || range.channels() == 0 {
            return None;
        }
        let wanted = match which {
            Which::Microphone => 1,
            Which::Loudspeaker => 2,
        };
        // What is too slow cannot be mended; what is too fast costs time.
        let slow = RATE.saturating_sub(rate);
        let rank = (slow, rate, range.channels().abs_diff(wanted), sample);
        let turn = match range.buffer_size() {
            SupportedBufferSize::Range { min, max } => {
                Some((rate / TURNS).clamp(*min, (*max).max(*min)))
            }
            SupportedBufferSize::Unknown => None,
        };
        let format = Format {
            sample: range.sample_format(),
            channels: range.channels(),
            rate,
            turn,
        };
        Some((rank, format))
    });
    formats.min_by_key(|(rank, _)| *rank).map(|(_, f)| f)
}

/// How much a form of samples is liked; none if it is not understood.
const fn rank(format: SampleFormat) -> Option<u8> {
    Some(match format {
        SampleFormat::I16 => 0,
        SampleFormat::F32 => 1,
        SampleFormat::I32 => 2,
        SampleFormat::U16 => 3,
        SampleFormat::F64 => 4,
        SampleFormat::U8 => 5,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(channels: u16, rates: (u32, u32), sample: SampleFormat) -> SupportedStreamConfigRange {
        let buffer = SupportedBufferSize::Range { min: 64, max: 8192 };
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, buffer, sample)
    }

    #[test]
    fn the_calls_rate_comes_before_all_else() {
        let offers = [
            offer(1, (44_100, 44_100), SampleFormat::I16),
            offer(2, (44_100, 96_000), SampleFormat::F32),
            offer(8, (48_000, 48_000), SampleFormat::I16),
        ];
        let format = choose(Which::Microphone, offers.into_iter()).expect("one");
        assert_eq!((format.rate, format.channels), (48_000, 2));
        assert_eq!((format.sample, format.turn), (SampleFormat::F32, Some(480)));
    }

    #[test]
    fn a_rate_that_is_too_high_is_better_than_one_that_is_too_low() {
        let offers = [
            offer(2, (16_000, 16_000), SampleFormat::I16),
            offer(2, (96_000, 192_000), SampleFormat::I32),
            offer(2, (8_000, 44_100), SampleFormat::I16),
        ];
        let format = choose(Which::Loudspeaker, offers.into_iter()).expect("one");
        assert_eq!((format.rate, format.turn), (96_000, Some(960)));
    }

    #[test]
    fn channels_are_as_few_as_it_takes() {
        let offers = || [1, 2, 6].map(|n| offer(n, (8_000, 192_000), SampleFormat::U16));
        let of = |which| choose(which, offers().into_iter()).map(|f| f.channels);
        assert_eq!(of(Which::Microphone), Some(1));
        assert_eq!(of(Which::Loudspeaker), Some(2));
    }

    #[test]
    fn what_is_not_understood_is_not_taken() {
        let offers = [
            offer(2, (2_822_400, 2_822_400), SampleFormat::DsdU8),
            offer(0, (48_000, 48_000), SampleFormat::I16),
            offer(1, (1_000, 4_000), SampleFormat::I16),
        ];
        assert_eq!(choose(Which::Microphone, offers.into_iter()), None);
    }
}
