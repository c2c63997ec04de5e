//! Between a sound card and a call. The card takes and gives samples when it likes, by a clock of its own,
//! in a thread that must not wait; the call does every 20 ms by the machine's.
//!
//! ```text
//!  ring         samples from one thread to the other
//!  intake       a microphone: what the card gave, until the call takes it
//!  outlet       a loudspeaker: what the call gave, until the card takes it
//!  pace         how much faster or slower than written samples are read
//! ```
//!
//! What lies between the two is measured as if both drew evenly, so that it tells how far the clocks are
//! apart and not where in a turn of the card it was looked. The sound is read a little faster or slower
//! (`resample::Resampler`) until there is as much of it as the card's turns need. What cannot be mended so
//! (a program that stood still, a card that was away) is: silence where there is nothing, old sound thrown
//! away where there is too much. Both are counted.

mod intake;
mod outlet;
mod pace;
mod ring;

pub use intake::{Intake, Microphone};
pub use outlet::{Loudspeaker, Outlet};
pub use ring::Ring;

/// What went wrong between a card and the call so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CardCounts {
    /// Times that there was no sound when it was asked for.
    pub gaps: u64,
    /// Milliseconds of sound that were thrown away since there was too much.
    pub dropped_ms: u64,
}

impl CardCounts {
    fn new(gaps: u64, dropped: u64, rate: u32) -> Self {
        Self {
            gaps,
            dropped_ms: dropped * 1000 / u64::from(rate.max(1)),
        }
    }
}

/// The mean of what was seen in the last ten turns or so.
fn smooth(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |m| m + (value - m) * 0.1));
}

#[cfg(test)]
mod tests;
