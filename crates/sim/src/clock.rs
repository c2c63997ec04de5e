//! Clocks that run fast or slow and jump. A node sees only its own.

use shoal_base::Time;

/// How a node's clock differs from the world's. It never runs backwards, as no monotonic clock
/// does: set back, it stands still until it is right again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// Microseconds ahead (behind when negative) at the origin.
    offset_us: i64,
    /// Parts per million that it runs fast (slow when negative).
    drift_ppm: i32,
    /// The latest time it has shown.
    shown: u64,
}

impl Clock {
    /// A clock ahead by `offset_us` that runs fast by `drift_ppm` parts per million.
    pub fn new(offset_us: i64, drift_ppm: i32) -> Self {
        Self {
            offset_us,
            drift_ppm: drift_ppm.clamp(-500_000, 500_000),
            shown: 0,
        }
    }

    /// Sets it forward, or back when negative.
    pub fn jump(&mut self, by_us: i64) {
        self.offset_us = self.offset_us.saturating_add(by_us);
    }

    /// Changes how fast it runs from `now` on, without a jump.
    pub fn set_drift(&mut self, now: Time, drift_ppm: i32) {
        let before = self.read(now);
        self.drift_ppm = drift_ppm.clamp(-500_000, 500_000);
        self.offset_us = self
            .offset_us
            .saturating_add((before - self.read(now)) as i64);
    }

    /// What it would show at `now` if it could run backwards.
    fn read(&self, now: Time) -> i128 {
        let us = i128::from(now.as_micros());
        us + us * i128::from(self.drift_ppm) / 1_000_000 + i128::from(self.offset_us)
    }

    /// What it shows at `now` of the world.
    pub fn show(&mut self, now: Time) -> Time {
        let read = u64::try_from(self.read(now).max(0)).unwrap_or(u64::MAX);
        self.shown = self.shown.max(read);
        Time::from_micros(self.shown)
    }

    /// When, by the world, it will show at least `local`.
    pub fn when(&self, local: Time) -> Time {
        let ahead = i128::from(local.as_micros()) - i128::from(self.offset_us);
        let rate = i128::from(1_000_000 + i64::from(self.drift_ppm));
        let us = (ahead.max(0) * 1_000_000 + rate - 1) / rate;
        let mut at = u64::try_from(us).unwrap_or(u64::MAX);
        // Rounding may leave it a microsecond short.
        if self.read(Time::from_micros(at)) < i128::from(local.as_micros()) {
            at = at.saturating_add(1);
        }
        Time::from_micros(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        for (offset, drift) in [(0, 0), (-5_000_000, 100), (7_000_000, -200), (1, 333_333)] {
            let mut clock = Clock::new(offset, drift);
            for secs in [10, 11, 4000, 100_000] {
                let local = Time::from_micros(secs * 1_000_000 + 13);
                let at = clock.when(local);
                let shown = clock.show(at);
                assert!(shown >= local, "{offset} {drift} {secs}");
                assert!(
                    shown.since(local).as_micros() <= 2,
                    "{offset} {drift} {secs}"
                );
            }
        }
    }

    #[test]
    fn set_back_it_stands_still() {
        let mut clock = Clock::default();
        assert_eq!(clock.show(Time::from_secs(10)), Time::from_secs(10));
        clock.jump(-4_000_000);
        assert_eq!(clock.show(Time::from_secs(12)), Time::from_secs(10));
        assert_eq!(clock.show(Time::from_secs(15)), Time::from_secs(11));
        clock.jump(60_000_000);
        assert_eq!(clock.show(Time::from_secs(15)), Time::from_secs(71));
    }

    #[test]
    fn a_change_of_pace_is_no_jump() {
        let mut clock = Clock::new(0, 1000);
        let before = clock.show(Time::from_secs(1000));
        clock.set_drift(Time::from_secs(1000), -1000);
        assert_eq!(clock.show(Time::from_secs(1000)), before);
        assert_eq!(
            clock.show(Time::from_secs(2000)).since(before).as_millis(),
            999_000
        );
    }
}
