//! How busy a relay is, as it tells whoever asks.

use shoal_base::Time;
use std::time::Duration;

/// Over how long bytes are counted.
const SPAN: Duration = Duration::from_secs(1);

/// Bytes of late, beside what may pass.
#[derive(Debug)]
pub(super) struct Load {
    /// Bytes a second that may pass; none: nobody knows what can.
    most: Option<u64>,
    since: Time,
    bytes: u64,
    /// Thousandths of what may pass, over the last spans.
    share: u64,
}

impl Load {
    pub(super) fn new(most: Option<u64>) -> Self {
        Self {
            most,
            since: Time::ZERO,
            bytes: 0,
            share: 0,
        }
    }

    /// So many bytes wanted to pass, whether they could or not.
    pub(super) fn count(&mut self, now: Time, bytes: usize) {
        self.fold(now);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn fold(&mut self, now: Time) {
        let span = now.since(self.since);
        if span < SPAN {
            return;
        }
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let rate = self.bytes.saturating_mul(1000) / millis.max(1);
        let most = self.most.unwrap_or(u64::MAX).max(1);
        let fresh = (rate.saturating_mul(1000) / most).min(1000);
        // After a pause what was before says nothing.
        self.share = match span < SPAN * 4 {
            true => u64::midpoint(self.share, fresh),
            false => fresh,
        };
        (self.since, self.bytes) = (now, 0);
    }

    /// Thousandths of what may pass.
    pub(super) fn share(&mut self, now: Time) -> u16 {
        self.fold(now);
        u16::try_from(self.share).unwrap_or(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_passes_within_seconds() {
        let mut load = Load::new(Some(10_000));
        let mut now = Time::from_secs(100);
        let mut run = |load: &mut Load, bytes: usize| {
            for _ in 0..100 {
                now += Duration::from_millis(100);
                load.count(now, bytes / 10);
            }
            load.share(now)
        };
        assert!((480..=520).contains(&run(&mut load, 5_000)));
        assert!(run(&mut load, 50_000) > 970);
        assert!(run(&mut load, 0) < 30);
        assert_eq!(Load::new(None).share(now), 0);
    }
}
