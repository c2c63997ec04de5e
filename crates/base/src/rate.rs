//! Measured rates: bytes a second over the recent past.

use crate::Time;
use std::time::Duration;

/// Width of a slot of the window.
const SLOT: Duration = Duration::from_millis(500);
/// Slots in the window: ten seconds in all.
const SLOTS: usize = 20;

/// Counts bytes over a sliding window of ten seconds. Fixed size, no allocation.
#[derive(Clone, Debug)]
pub struct RateMeter {
    slots: [u32; SLOTS],
    /// Number of the newest slot since the origin.
    newest: u64,
    /// When counting began; the window grows up to its full width from here.
    started: Time,
    total: u64,
}

impl RateMeter {
    /// A meter that starts counting at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            slots: [0; SLOTS],
            newest: Self::slot(now),
            started: now,
            total: 0,
        }
    }

    fn slot(now: Time) -> u64 {
        now.as_micros() / SLOT.as_micros() as u64
    }

    fn advance(&mut self, now: Time) {
        let slot = Self::slot(now);
        let steps = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for i in 0..steps {
            self.slots[((slot - i) % SLOTS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(slot);
    }

    /// Counts `bytes` at `now`.
    pub fn add(&mut self, now: Time, bytes: u64) {
        self.advance(now);
        let slot = &mut self.slots[(self.newest % SLOTS as u64) as usize];
        *slot = slot.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.total += bytes;
    }

    /// Bytes a second over the window, or since the start where that is shorter.
    pub fn rate(&mut self, now: Time) -> u64 {
        self.advance(now);
        let sum: u64 = self.slots.iter().map(|s| u64::from(*s)).sum();
        let span = now
            .since(self.started)
            .clamp(SLOT, SLOT * (SLOTS as u32 - 1))
            .as_secs_f64();
        (sum as f64 / span) as u64
    }

    /// All bytes ever counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_and_forgotten() {
        let mut meter = RateMeter::new(Time::from_secs(100));
        let mut now = Time::from_secs(100);
        for _ in 0..3000 {
            meter.add(now, 1000);
            now += Duration::from_millis(10);
        }
        let rate = meter.rate(now);
        assert!((95_000..=106_000).contains(&rate), "rate was {rate}");
        assert_eq!(meter.rate(now + Duration::from_secs(11)), 0);
        assert_eq!(meter.total(), 3_000_000);
    }

    #[test]
    fn a_young_meter_divides_by_its_age() {
        let mut meter = RateMeter::new(Time::ZERO);
        meter.add(Time::from_secs(1), 50_000);
        assert_eq!(meter.rate(Time::from_secs(2)), 25_000);
    }
}
