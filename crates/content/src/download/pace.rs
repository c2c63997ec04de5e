//! How fast everything comes, from all sources together.

use shoal_base::Time;
use std::time::Duration;

/// Bytes a second over the last seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    rate: f64,
    since: Time,
    bytes: u64,
}

impl Pace {
    pub(super) fn on_bytes(&mut self, len: u32) {
        self.bytes += u64::from(len);
    }

    /// Ends a stretch over which is measured. Rises at once, and falls by an eighth of the way.
    pub(super) fn measure(&mut self, now: Time) {
        let elapsed = now.since(self.since).as_secs_f64();
        if elapsed > 0.0 {
            let sample = self.bytes as f64 / elapsed;
            let share = if sample > self.rate { 1.0 } else { 0.125 };
            self.rate += (sample - self.rate) * share;
        }
        self.since = now;
        self.bytes = 0;
    }

    /// What comes in this time. A rate that just rose shows before the stretch ends, which is no
    /// longer than `stretch`.
    pub(super) fn bytes_in(&self, time: Duration, stretch: Duration) -> u64 {
        let rate = self.rate.max(self.bytes as f64 / stretch.as_secs_f64());
        (rate * time.as_secs_f64()) as u64
    }
}
