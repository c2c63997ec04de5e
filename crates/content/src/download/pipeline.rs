//! How many requests to keep open with one source: bandwidth × delay, measured.
//!
//! Grows by one block per block (doubling every round trip) while the rate still rises, then
//! follows `rate × (1.5 × least delay + queue time + twice the delay's deviation)`. The queue time is what keeps the source busy
//! over its and our scheduling gaps; it is kept short, because whatever waits in one source's
//! queue cannot be fetched from another.

use super::DownloadConfig;
use crate::BLOCK_LEN;
use shoal_base::Time;
use std::time::Duration;

/// The shortest round over which the rate is measured.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds without a tenth more rate that end the doubling.
const FLAT_ROUNDS: u32 = 2;
/// The fewest requests to keep open with a source that delivers.
const FLOOR: u32 = 2;
const BLOCK: f64 = BLOCK_LEN as f64;

/// Rate, delay and window of one source.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    target: u32,
    max: u32,
    /// Bytes a second, zero until measured.
    rate: f64,
    /// Seconds from request to block: least, smoothed, and its mean deviation. Zero until measured.
    min_delay: f64,
    delay: f64,
    deviation: f64,
    growing: bool,
    flat: u32,
    round_start: Time,
    round_bytes: u64,
    round_min_delay: f64,
    /// In this round there was a time with fewer requests open than the target.
    starved: bool,
}

impl Pipeline {
    pub(super) fn new(config: &DownloadConfig, max: u32) -> Self {
        let max = max.clamp(1, config.max_pipeline.max(1));
        Self {
            target: config.initial_pipeline.clamp(1, max),
            max,
            rate: 0.0,
            min_delay: 0.0,
            delay: 0.0,
            deviation: 0.0,
            growing: true,
            flat: 0,
            round_start: Time::ZERO,
            round_bytes: 0,
            round_min_delay: f64::MAX,
            starved: false,
        }
    }

    pub(super) fn target(&self) -> u32 {
        self.target
    }

    pub(super) fn max(&self) -> u32 {
        self.max
    }

    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max.max(1);
        self.target = self.target.min(self.max);
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// The first request after none were open: a new round.
    pub(super) fn restart(&mut self, now: Time) {
        self.round_start = now;
        self.round_bytes = 0;
        self.round_min_delay = f64::MAX;
        self.starved = false;
    }

    /// Fewer requests are open than the target, for want of blocks to ask for.
    pub(super) fn starve(&mut self) {
        self.starved = true;
    }

    pub(super) fn on_block(&mut self, now: Time, sent: Time, len: u32, queue_time: Duration) {
        let sample = now.since(sent).as_secs_f64().max(1e-6);
        if self.delay == 0.0 {
            (self.delay, self.deviation, self.min_delay) = (sample, sample / 2.0, sample);
        } else {
            self.deviation += ((sample - self.delay).abs() - self.deviation) / 16.0;
            self.delay += (sample - self.delay) / 16.0;
            self.min_delay = self.min_delay.min(sample);
        }
        self.round_min_delay = self.round_min_delay.min(sample);
        self.round_bytes += u64::from(len);
        if self.growing {
            self.target = (self.target + 1).min(self.max);
        }
        let elapsed = now.since(self.round_start);
        if elapsed >= ROUND && elapsed.as_secs_f64() >= self.delay.min(1.0) {
            self.end_round(now, elapsed, queue_time);
        }
    }

    fn end_round(&mut self, now: Time, elapsed: Duration, queue_time: Duration) {
        let sample = self.round_bytes as f64 / elapsed.as_secs_f64();
        if self.growing {
            if sample < self.rate * 1.1 {
                self.flat += u32::from(!self.starved);
            } else {
                self.flat = 0;
            }
            self.rate = self.rate.max(sample);
            self.growing = self.flat < FLAT_ROUNDS;
        } else if sample > self.rate {
            self.rate += (sample - self.rate) / 2.0;
        } else if !self.starved {
            // Less than half is no bad round but another rate: what waits there is to go to others.
            let share = if sample < self.rate / 2.0 { 2.0 } else { 8.0 };
            self.rate += (sample - self.rate) / share;
        }
        if !self.growing {
            // The path got longer: with so few open, what is measured is the path, not our queue.
            if self.target <= 8 && self.round_min_delay < 4.0 {
                self.min_delay = self.min_delay.max(self.round_min_delay);
            }
            // A source that sends in bursts shows as deviation: the queue must last from one burst
            // to the next.
            let gaps = (2.0 * self.deviation).min(1.0);
            let horizon = self.min_delay.min(4.0) * 1.5 + queue_time.as_secs_f64() + gaps;
            let blocks = (self.rate * horizon / BLOCK).ceil() as u32 + FLOOR;
            // Shrink slowly: one bad round is no trend.
            let least = self.target - self.target / 4;
            self.target = blocks.max(least).clamp(FLOOR.min(self.max), self.max);
        }
        self.restart(now);
    }

    /// The source stalled or said it has too many requests: start again from little.
    pub(super) fn shrink(&mut self) {
        self.target = FLOOR.min(self.max);
        self.growing = true;
        self.flat = 0;
        self.rate /= 4.0;
    }

    /// Seconds until a block asked for now would be here, `open` requests being before it.
    pub(super) fn eta(&self, open: usize) -> f64 {
        if self.rate <= 0.0 {
            return 1.0 + open as f64 * 0.1;
        }
        self.min_delay + (open + 1) as f64 * BLOCK / self.rate
    }

    /// How long a request may be out before the block is asked of another source.
    pub(super) fn block_timeout(&self) -> Duration {
        let seconds = if self.delay == 0.0 {
            10.0
        } else {
            (self.delay * 1.5 + 4.0 * self.deviation).clamp(3.0, 60.0)
        };
        Duration::from_secs_f64(seconds)
    }

    /// How long a source with open requests may send no block before it counts as stalled.
    pub(super) fn stall_timeout(&self) -> Duration {
        if self.rate <= 0.0 {
            return self.block_timeout();
        }
        let seconds = (self.min_delay + 4.0 * BLOCK / self.rate).clamp(2.0, 30.0);
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Runs a source of `rate` bytes a second and `rtt` seconds for `secs`; gives the target at
    /// the end and the mean rate of the second half.
    fn run(rate: f64, rtt: f64, secs: f64, max: u32) -> (u32, f64) {
        let config = DownloadConfig::default();
        let mut p = Pipeline::new(&config, max);
        let (mut now, mut busy_until) = (0.0f64, 0.0f64);
        let mut queue: VecDeque<(f64, f64)> = VecDeque::new();
        let time = |s: f64| Time::from_micros((s * 1e6) as u64);
        let mut late = 0.0;
        p.restart(time(0.0));
        while now < secs {
            while queue.len() < p.target() as usize {
                busy_until = busy_until.max(now + rtt) + BLOCK / rate;
                queue.push_back((now, busy_until));
            }
            let (sent, at) = queue.pop_front().expect("target is at least one");
            now = at;
            if now > secs / 2.0 {
                late += BLOCK;
            }
            p.on_block(time(now), time(sent), BLOCK_LEN, config.queue_time);
        }
        (p.target(), late / (secs / 2.0))
    }

    #[test]
    fn window_fits_bandwidth_times_delay() {
        for (rate, rtt) in [
            (50e3, 0.05),
            (1e6, 0.3),
            (10e6, 0.02),
            (20e6, 0.2),
            (8e6, 0.6),
        ] {
            let (target, got) = run(rate, rtt, 60.0, 1024);
            let bdp = rate * rtt / BLOCK;
            assert!(got > rate * 0.9, "{rate} B/s, {rtt} s: got {got}");
            let most = bdp * 2.0 + rate * 0.3 / BLOCK + 16.0;
            assert!(
                f64::from(target) < most,
                "{rate} B/s, {rtt} s: {target} > {most}"
            );
        }
    }

    #[test]
    fn a_source_that_sends_in_bursts_is_kept_busy() {
        for (rate, period) in [(1e6, 0.25), (4e6, 0.25), (20e6, 0.1), (1e6, 0.5)] {
            let config = DownloadConfig::default();
            let mut p = Pipeline::new(&config, 1024);
            let time = |s: f64| Time::from_micros((s * 1e6) as u64);
            let mut queue: VecDeque<f64> = VecDeque::new();
            let (mut quota, mut late, secs) = (0.0f64, 0.0, 60.0);
            p.restart(time(0.0));
            let mut now = 0.0;
            while now < secs {
                quota = (quota + rate * period).min(rate * period * 2.0);
                while queue.len() < p.target() as usize {
                    queue.push_back(now);
                }
                now += period;
                while quota >= BLOCK
                    && let Some(sent) = queue.pop_front()
                {
                    quota -= BLOCK;
                    p.on_block(time(now), time(sent), BLOCK_LEN, config.queue_time);
                    if now > secs / 2.0 {
                        late += BLOCK;
                    }
                }
            }
            let got = late / (secs / 2.0);
            assert!(got > rate * 0.8, "{rate} B/s every {period} s: {got}");
        }
    }

    #[test]
    fn window_stays_below_what_the_peer_allows() {
        assert_eq!(run(1e9, 0.1, 5.0, 250).0, 250);
    }
}
