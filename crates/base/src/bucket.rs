//! Token buckets: how many bytes may be moved now.

use crate::Time;
use std::time::Duration;

/// Lets `rate` bytes a second pass, with bursts of up to a quarter second's worth.
///
/// Time comes from the caller; a bucket without a rate lets everything pass.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Option<u64>,
    tokens: f64,
    last: Time,
}

/// The smallest burst, so that a low limit still moves whole blocks.
const MIN_BURST: f64 = 16.0 * 1024.0;

impl TokenBucket {
    /// A bucket of `rate` bytes a second, or without a limit. Starts full.
    pub fn new(rate: Option<u64>) -> Self {
        let mut bucket = Self {
            rate,
            tokens: 0.0,
            last: Time::ZERO,
        };
        bucket.tokens = bucket.burst();
        bucket
    }

    /// The limit in bytes a second, if there is one.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Changes the limit; tokens in hand are kept up to the new burst.
    pub fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
        self.tokens = self.tokens.min(self.burst());
    }

    fn burst(&self) -> f64 {
        (self.rate.unwrap_or(0) as f64 / 4.0).max(MIN_BURST)
    }

    fn refill(&mut self, now: Time) {
        if let Some(rate) = self.rate {
            let gained = now.since(self.last).as_secs_f64() * rate as f64;
            self.tokens = (self.tokens + gained).min(self.burst());
        }
        self.last = self.last.max(now);
    }

    /// How many bytes may pass at `now`; `usize::MAX` without a limit.
    pub fn available(&mut self, now: Time) -> usize {
        self.refill(now);
        if self.rate.is_none() {
            usize::MAX
        } else {
            self.tokens.max(0.0) as usize
        }
    }

    /// Accounts for `bytes` that passed. May go into debt, which later time pays back.
    pub fn spend(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.tokens -= bytes as f64;
        }
    }

    /// When `bytes` (or a full burst, if less) will be available; `now` if they already are.
    pub fn ready_at(&mut self, now: Time, bytes: usize) -> Time {
        self.refill(now);
        let Some(rate) = self.rate else { return now };
        let missing = (bytes as f64).min(self.burst()) - self.tokens;
        if missing <= 0.0 {
            return now;
        }
        if rate == 0 {
            return Time::FAR;
        }
        now + Duration::from_secs_f64(missing / rate as f64) + Duration::from_micros(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_run_rate_is_the_limit() {
        let mut bucket = TokenBucket::new(Some(100_000));
        let (mut now, mut sent) = (Time::ZERO, 0);
        while now < Time::from_secs(100) {
            let n = bucket.available(now).min(16_384);
            bucket.spend(n);
            sent += n;
            now = bucket
                .ready_at(now, 16_384)
                .max(now + Duration::from_micros(10));
        }
        let rate = sent as f64 / 100.0;
        assert!((99_000.0..101_000.0).contains(&rate), "rate was {rate}");
    }

    #[test]
    fn no_limit_never_waits_and_zero_never_passes() {
        let mut free = TokenBucket::new(None);
        assert_eq!(free.available(Time::ZERO), usize::MAX);
        free.spend(1 << 40);
        assert_eq!(free.ready_at(Time::ZERO, 1 << 20), Time::ZERO);
        let mut shut = TokenBucket::new(Some(0));
        let burst = shut.available(Time::ZERO);
        shut.spend(burst);
        assert_eq!(shut.ready_at(Time::from_secs(5), 1), Time::FAR);
    }
}
