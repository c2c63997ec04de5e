//! How much faster than they are written samples are read, by how many lie between.

/// Turns of 20 ms over which the level is averaged: half a second.
const TURNS: u32 = 25;
/// The part of the speed that a millisecond too much changes. So half of it is gone after seven seconds, and a
/// card whose clock is off by 200 parts in a million is followed two milliseconds beside the target.
const PER_MS: f64 = 1e-4;
/// The speed changes by this part at most: five hundredths of a semitone.
const MOST: f64 = 3e-3;
/// More than this beyond the target does not go away by itself soon enough, milliseconds.
const TOO_MUCH: f64 = 60.0;
/// Kept at hand beside what the card's turns need, milliseconds.
const MARGIN: f64 = 5.0;
/// Each gap adds to it, up to the most.
const MARGIN_STEP: f64 = 5.0;
const MOST_MARGIN: f64 = 60.0;
/// What gaps added goes away by so much each half second: a millisecond in half a minute.
const LESS: f64 = 1.0 / 60.0;

/// Follows the card's clock. Levels are milliseconds.
#[derive(Debug)]
pub(super) struct Pace {
    margin: f64,
    sum: f64,
    turns: u32,
    change: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            margin: MARGIN,
            sum: 0.0,
            turns: 0,
            change: 0.0,
        }
    }
}

impl Pace {
    /// What is to be at hand, beside what the card's turns need.
    pub(super) fn margin(&self) -> f64 {
        self.margin
    }

    /// There was nothing when it was needed: more shall be at hand from now on.
    pub(super) fn on_gap(&mut self) {
        self.margin = (self.margin + MARGIN_STEP).min(MOST_MARGIN);
        self.restart();
    }

    /// The level was set, and tells nothing of before.
    pub(super) fn restart(&mut self) {
        (self.sum, self.turns) = (0.0, 0);
    }

    /// Takes how far the level is beyond its target; says whether that is hopeless.
    pub(super) fn on_turn(&mut self, beyond: f64) -> bool {
        if beyond > TOO_MUCH {
            self.restart();
            return true;
        }
        self.sum += beyond;
        self.turns += 1;
        if self.turns == TURNS {
            let mean = self.sum / f64::from(TURNS);
            self.change = (mean * PER_MS).clamp(-MOST, MOST);
            self.margin = (self.margin - LESS).max(MARGIN);
            self.restart();
        }
        false
    }

    /// By what part of the usual speed reading is faster.
    pub(super) fn change(&self) -> f64 {
        self.change
    }
}
