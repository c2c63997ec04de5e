//! The bit rate that a path bears.
//!
//! A path says that it is too narrow in two ways: packets wait longer and longer, or are lost. Some
//! paths lose packets whatever is sent (radio); sending less would only cost quality there. So when
//! loss does not fall after the rate did, it is taken for the path's own and no longer counts.

use shoal_base::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Bits a second at least.
pub const LEAST: u32 = 24_000;
/// Bits a second at most.
pub const MOST: u32 = 128_000;
/// Where a call begins.
pub const FIRST: u32 = 40_000;
/// Packets after which loss is judged.
const ENOUGH: u64 = 75;
/// Loss beyond what is the path's own that asks for a lower rate.
const EXCESS: f64 = 0.03;
/// And beyond this part of the path's own, which varies by chance.
const EXCESS_PART: f64 = 0.6;
/// Loss alone does not take the rate below this, where redundancy has no room left ...
const LOSS_FLOOR: f64 = 32_000.0;
/// ... unless it is above this.
const HEAVY: f64 = 0.15;
/// A lower rate helped if loss fell to this part.
const HELPED: f64 = 0.7;
/// Reductions after which that is judged.
const TRIES: u32 = 3;
/// Longer than the shortest round trip by this much: a queue grows.
const QUEUE: Duration = Duration::from_millis(60);
/// The shortest round trip counts for so long.
const WINDOW: Duration = Duration::from_secs(20);
/// How long a queue takes to drain at a lower rate.
const DRAIN: Duration = Duration::from_secs(5);
/// A rate that was too much is tried again after this.
const FORGET: Duration = Duration::from_secs(20);

/// What the other end and the path said lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathReport {
    /// Packets that should have arrived since the last report.
    pub expected: u64,
    /// Of them those that did not.
    pub lost: u64,
    /// Round trip, if known.
    pub rtt: Option<Duration>,
    /// How much longer the last packet *from* there took than the fastest: the part of the round
    /// trip's growth that is not our doing.
    pub incoming_queue: Duration,
}

/// Loss before reductions, and how many there were.
#[derive(Debug, Clone, Copy)]
struct Trial {
    loss: f64,
    rate: u32,
    tries: u32,
}

/// Chooses the bit rate.
#[derive(Debug)]
pub struct Adaptation {
    rate: u32,
    /// The highest rate that may be tried; grows with time.
    ceiling: u32,
    ceiling_at: Time,
    rtts: VecDeque<(Time, Duration)>,
    expected: u64,
    lost: u64,
    /// Loss that is the path's own.
    own: f64,
    loss: f64,
    trial: Option<Trial>,
    /// No second reduction for a queue before this: the first one's effect is under way.
    patience: Time,
}

impl Default for Adaptation {
    fn default() -> Self {
        Self {
            rate: FIRST,
            ceiling: MOST,
            ceiling_at: Time::ZERO,
            rtts: VecDeque::new(),
            expected: 0,
            lost: 0,
            own: 0.0,
            loss: 0.0,
            trial: None,
            patience: Time::ZERO,
        }
    }
}

impl Adaptation {
    /// Bits a second for the encoder.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Loss in percent, for the encoder's redundancy.
    pub fn loss_percent(&self) -> u8 {
        (self.loss * 100.0).round().clamp(0.0, 30.0) as u8
    }

    /// Takes a report.
    pub fn on_report(&mut self, now: Time, report: PathReport) {
        let congested = self.queue(now, &report).is_some_and(|q| q > QUEUE);
        self.expected += report.expected;
        self.lost += report.lost.min(report.expected);
        if congested && now >= self.patience {
            // What follows at once is the same queue, not yet drained.
            if self.ceiling == MOST || now.since(self.ceiling_at) > DRAIN {
                self.ceiling = self.rate.max(LEAST);
            }
            self.ceiling_at = now;
            self.set(f64::from(self.rate) * 0.7);
            self.patience = now + report.rtt.unwrap_or_default() + Duration::from_millis(800);
        }
        if self.expected >= ENOUGH {
            let loss = self.lost as f64 / self.expected as f64;
            (self.expected, self.lost) = (0, 0);
            // Bad news at once, good news slowly.
            self.loss = if loss > self.loss {
                loss
            } else {
                self.loss * 0.7 + loss * 0.3
            };
            self.judge(now, loss, congested || now < self.patience);
        }
    }

    fn queue(&mut self, now: Time, report: &PathReport) -> Option<Duration> {
        let rtt = report.rtt?;
        while self.rtts.back().is_some_and(|b| b.1 >= rtt) {
            self.rtts.pop_back();
        }
        self.rtts.push_back((now, rtt));
        while self.rtts.front().is_some_and(|f| now.since(f.0) > WINDOW) {
            self.rtts.pop_front();
        }
        let shortest = self.rtts.front()?.1;
        Some(
            rtt.saturating_sub(shortest)
                .saturating_sub(report.incoming_queue),
        )
    }

    fn judge(&mut self, now: Time, loss: f64, congested: bool) {
        let excess = loss - self.own;
        let bearable = EXCESS.max(self.own * EXCESS_PART);
        let rate = f64::from(self.rate);
        let floor = if loss > HEAVY { 0.0 } else { LOSS_FLOOR };
        let lower = (rate * 0.8).max(floor.min(rate));
        match self.trial {
            _ if congested => {}
            Some(trial) if loss <= trial.loss * HELPED || excess <= bearable => {
                // The rate was the reason, or there is no trouble any more.
                self.trial = None;
                self.ceiling = trial.rate;
                self.ceiling_at = now;
            }
            // The rate falls no further, and it was not the reason.
            Some(trial) if trial.tries >= TRIES || lower >= rate => {
                self.own = (trial.loss + loss) / 2.0;
                self.trial = None;
                self.set(f64::from(trial.rate));
            }
            Some(trial) => {
                self.trial = Some(Trial {
                    tries: trial.tries + 1,
                    ..trial
                });
                self.set(lower);
            }
            None if excess > bearable => {
                self.trial = Some(Trial {
                    loss,
                    rate: self.rate,
                    tries: 1,
                });
                self.set(lower);
            }
            None => {
                // The path's own loss may end, too.
                self.own = self.own.min(self.own * 0.9 + loss * 0.1);
                if now.since(self.ceiling_at) > FORGET {
                    self.ceiling = (self.ceiling + self.ceiling / 10).min(MOST);
                    self.ceiling_at = now;
                }
                // Short of the rate that was too much, until that is tried again.
                let near = if self.ceiling < MOST {
                    f64::from(self.ceiling) * 0.85
                } else {
                    f64::from(MOST)
                };
                self.set((rate * 1.08).min(near.max(rate)));
            }
        }
    }

    fn set(&mut self, rate: f64) {
        self.rate = (rate as u32).clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What packets cost besides their sound: addresses, RTP, SRTP, at fifty a second.
    const OVERHEAD: f64 = 50.0 * 8.0 * 58.0;

    /// Runs a minute over a link of `capacity` bit/s with `queue` seconds of buffer that loses
    /// `loss` of the packets by itself; gives rate and loss of each second.
    fn minute(capacity: f64, queue: f64, loss: f64) -> Vec<(u32, f64)> {
        let mut rng = shoal_base::Rng::from_seed(4);
        let mut adapt = Adaptation::default();
        let (mut waiting, mut seconds) = (0.0f64, Vec::new());
        let mut lost_second = 0;
        for step in 0..120u64 {
            let mut lost = 0;
            for _ in 0..25 {
                let bits = (f64::from(adapt.rate()) + OVERHEAD) / 50.0;
                waiting = (waiting - 0.02 * capacity).max(0.0);
                if waiting + bits > capacity * queue || rng.chance(loss) {
                    lost += 1;
                } else {
                    waiting += bits;
                }
            }
            lost_second += lost;
            let rtt = Duration::from_secs_f64(0.04 + waiting / capacity);
            let report = PathReport {
                expected: 25,
                lost,
                rtt: Some(rtt),
                incoming_queue: Duration::ZERO,
            };
            adapt.on_report(Time::from_micros((step + 1) * 500_000), report);
            if step % 2 == 1 {
                seconds.push((adapt.rate(), lost_second as f64 / 50.0));
                lost_second = 0;
            }
        }
        seconds
    }

    fn mean_loss(seconds: &[(u32, f64)]) -> f64 {
        seconds.iter().map(|s| s.1).sum::<f64>() / seconds.len() as f64
    }

    #[test]
    fn a_wide_path_gets_the_best_rate() {
        let seconds = minute(1e6, 0.2, 0.0);
        assert_eq!(seconds.last().map(|s| s.0), Some(MOST), "{seconds:?}");
    }

    #[test]
    fn a_link_of_64_kbit_is_found_within_ten_seconds() {
        for queue in [0.06, 0.3, 1.0] {
            let seconds = minute(64_000.0, queue, 0.0);
            let after = &seconds[10..];
            assert!(mean_loss(after) <= 0.05, "{queue}: {seconds:?}");
            let rates = after.iter().map(|s| f64::from(s.0)).sum::<f64>() / after.len() as f64;
            assert!(rates > 26_000.0, "{queue}: {seconds:?}");
        }
    }

    #[test]
    fn loss_that_does_not_depend_on_us_costs_little_rate() {
        for loss in [0.05, 0.1, 0.2] {
            let seconds = minute(1e6, 0.2, loss);
            let late = &seconds[20..];
            let rates = late.iter().map(|s| f64::from(s.0)).sum::<f64>() / late.len() as f64;
            assert!(rates > 30_000.0, "{loss}: {seconds:?}");
        }
    }
}
