//! How late packets come, and how long to wait for them.
//!
//! A packet's transit is the time of its arrival less the time of its sound: a figure with an unknown
//! constant in it, because the two clocks began at different moments. Its smallest value of the last
//! seconds is the floor; what a packet takes beyond the floor is its delay. So a clock that runs
//! 200 ppm apart moves the floor by 1.6 ms in the window, and nothing else notices.

use super::micros;
use shoal_base::Time;
use std::collections::VecDeque;

/// How long the smallest transit counts.
const WINDOW_MICROS: u64 = 8_000_000;
/// Width of a class of delays.
const CLASS_MICROS: i64 = 4_000;
/// Classes: up to 1.2 s.
const CLASSES: usize = 300;
/// Packets that the distribution remembers, about. A time of long delays is forgotten, down to what
/// need not be in time, after three and a half times as many: ten seconds.
const MEMORY: f64 = 150.0;
/// The part of the packets that shall come in time.
const IN_TIME: f64 = 0.97;
/// Never waited for less than this: what a busy machine's timers miss by.
const LEAST_MICROS: i64 = 15_000;
/// Nor longer than this.
const MOST_MICROS: i64 = 1_000_000;
/// What is expected before anything was measured.
const FIRST_MICROS: i64 = 40_000;

/// Measures delays.
#[derive(Debug)]
pub struct DelayMeter {
    /// Arrivals with transits that ascend: the first is the smallest of the window.
    floor: VecDeque<(Time, i64)>,
    /// Weights by class.
    classes: Vec<f64>,
    packets: u64,
    target: i64,
    /// Mean difference of successive transits (RFC 3550, 6.4.1), microseconds.
    jitter: f64,
    last_transit: Option<i64>,
}

impl Default for DelayMeter {
    fn default() -> Self {
        Self {
            floor: VecDeque::new(),
            classes: vec![0.0; CLASSES],
            packets: 0,
            target: FIRST_MICROS,
            jitter: 0.0,
            last_transit: None,
        }
    }
}

/// Arrival less media time, in microseconds.
fn transit(now: Time, samples: u64) -> i64 {
    let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    now.saturating_sub(i64::try_from(micros(samples)).unwrap_or(i64::MAX))
}

impl DelayMeter {
    /// A packet whose sound begins at `samples` arrived.
    pub fn on_packet(&mut self, now: Time, samples: u64) {
        let transit = transit(now, samples);
        while self.floor.back().is_some_and(|b| b.1 >= transit) {
            self.floor.pop_back();
        }
        self.floor.push_back((now, transit));
        while self
            .floor
            .front()
            .is_some_and(|f| now.since(f.0).as_micros() > u128::from(WINDOW_MICROS))
        {
            self.floor.pop_front();
        }
        if let Some(last) = self.last_transit.replace(transit) {
            self.jitter += ((transit - last).unsigned_abs() as f64 - self.jitter) / 16.0;
        }
        let delay = transit - self.floor();
        let class = usize::try_from(delay / CLASS_MICROS).unwrap_or(0);
        let keep = 1.0 - 1.0 / (self.packets as f64 + 2.0).min(MEMORY);
        self.packets += 1;
        for weight in &mut self.classes {
            *weight *= keep;
        }
        if let Some(weight) = self.classes.get_mut(class.min(CLASSES - 1)) {
            *weight += 1.0 - keep;
        }
        self.target = self.percentile().clamp(LEAST_MICROS, MOST_MICROS);
        // A few packets say little about the tail.
        if self.packets < 25 {
            self.target = self.target.max(FIRST_MICROS);
        }
    }

    fn percentile(&self) -> i64 {
        let all: f64 = self.classes.iter().sum();
        let mut seen = 0.0;
        for (edge, weight) in (1i64..).zip(&self.classes) {
            seen += weight;
            if seen >= all * IN_TIME {
                return edge * CLASS_MICROS;
            }
        }
        MOST_MICROS
    }

    fn floor(&self) -> i64 {
        self.floor.front().map_or(0, |f| f.1)
    }

    /// How far behind the fastest packet's arrival sound would be heard that begins at `samples` and
    /// is played at `now`; microseconds, negative if it could not be there.
    pub fn lag(&self, now: Time, samples: u64) -> i64 {
        transit(now, samples) - self.floor()
    }

    /// How far behind that sound should be played, microseconds.
    pub fn target(&self) -> i64 {
        self.target
    }

    /// How much longer the last packet took than the fastest of the window, microseconds.
    pub fn queue(&self) -> i64 {
        self.last_transit.map_or(0, |t| t - self.floor())
    }

    /// Mean change of the delay from packet to packet, microseconds.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_covers_nearly_all_packets() {
        let mut meter = DelayMeter::default();
        for i in 0..1000u64 {
            // One in fifty takes 70 ms longer, one in ten 30 ms.
            let late = match i {
                i if i % 50 == 0 => 70_000,
                i if i % 10 == 1 => 30_000,
                _ => 0,
            };
            meter.on_packet(Time::from_micros(5_000_000 + i * 20_000 + late), i * 960);
        }
        assert!((30_000..=36_000).contains(&meter.target()), "{meter:?}");
    }

    #[test]
    fn a_clock_that_runs_away_is_followed() {
        let mut meter = DelayMeter::default();
        for i in 0..30_000u64 {
            // 200 ppm slow: 120 ms in ten minutes.
            meter.on_packet(Time::from_micros(5_000_000 + i * 20_004), i * 960);
        }
        assert!(meter.target() <= 20_000, "{}", meter.target());
        assert!(meter.queue() <= 2_000);
    }
}
