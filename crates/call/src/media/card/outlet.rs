//! A loudspeaker: what the call gave, until the card takes it.

use super::pace::Pace;
use super::ring::Ring;
use super::{CardCounts, smooth};
use crate::media::RATE;
use crate::media::resample::Resampler;
use shoal_base::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A card that took nothing for longer is away, milliseconds.
const AWAY: f64 = 200.0;

/// The card's side.
#[derive(Debug)]
pub struct Outlet {
    ring: Ring,
    rate: u32,
    /// What lies there may be taken; else the card gets silence.
    open: AtomicBool,
    /// Samples to be thrown away first.
    skip: AtomicUsize,
    gaps: AtomicU64,
    /// When the card took something last, and in how long the end of that is heard, microseconds.
    taken_at: AtomicU64,
    ahead: AtomicU64,
}

impl Outlet {
    /// For a card with so many samples a second; holds half a second.
    pub fn new(rate: u32) -> Self {
        Self {
            ring: Ring::new(rate as usize / 2),
            rate,
            open: AtomicBool::new(false),
            skip: AtomicUsize::new(0),
            gaps: AtomicU64::new(0),
            taken_at: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
        }
    }

    /// Gives the card a turn of so many samples, of which the first is heard after `ahead`: each of
    /// them to `each`, silence where there are none. Waits for nobody.
    pub fn take(&self, now: Time, ahead: Duration, samples: usize, mut each: impl FnMut(i16)) {
        let mut given = 0;
        if self.open.load(Ordering::Acquire) {
            let skip = self.skip.swap(0, Ordering::Relaxed);
            self.ring.read(skip, |_| ());
            given = self.ring.read(samples, &mut each);
            if given < samples {
                self.open.store(false, Ordering::Relaxed);
                self.gaps.fetch_add(1, Ordering::Release);
            }
        }
        (given..samples).for_each(|_| each(0));
        let spoken = samples as u64 * 1_000_000 / u64::from(self.rate.max(1));
        let ahead = u64::try_from(ahead.as_micros()).unwrap_or(u64::MAX);
        self.ahead
            .store(ahead.saturating_add(spoken), Ordering::Relaxed);
        self.taken_at.store(now.as_micros(), Ordering::Release);
    }
}

/// The call's side.
#[derive(Debug)]
pub struct Loudspeaker {
    outlet: Arc<Outlet>,
    resampler: Resampler,
    pace: Pace,
    batch: Vec<i16>,
    gaps: u64,
    /// Thrown away, samples of the card.
    dropped: u64,
    delay: Option<f64>,
}

impl Loudspeaker {
    /// Gives to the card what it takes.
    pub fn new(outlet: Arc<Outlet>) -> Self {
        Self {
            resampler: Resampler::new(RATE, outlet.rate),
            outlet,
            pace: Pace::default(),
            batch: Vec::new(),
            gaps: 0,
            dropped: 0,
            delay: None,
        }
    }

    /// Takes a frame. To be called every 20 ms.
    pub fn give(&mut self, now: Time, frame: &[i16]) {
        let outlet = &self.outlet;
        let taken_at = outlet.taken_at.load(Ordering::Acquire);
        let waited = now.as_micros().saturating_sub(taken_at) as f64 / 1000.0;
        if waited > AWAY {
            // Nobody hears it. What lies there is old when the card comes back.
            outlet.open.store(false, Ordering::Release);
            return;
        }
        let gaps = outlet.gaps.load(Ordering::Acquire);
        if gaps > self.gaps {
            self.gaps = gaps;
            self.pace.on_gap();
        }
        let per_ms = f64::from(outlet.rate) / 1000.0;
        let lies = outlet.ring.len() as f64;
        // As if the card took evenly.
        let beyond = lies / per_ms - waited - self.pace.margin();
        let closed = !outlet.open.load(Ordering::Acquire);
        if closed {
            self.pace.restart();
            let missing = (-beyond * per_ms).max(0.0) as usize;
            outlet.ring.write(std::iter::repeat_n(0, missing));
        }
        if (closed && beyond > 0.0) || (!closed && self.pace.on_turn(beyond)) {
            let dropped = (beyond * per_ms).min(lies).max(0.0) as usize;
            outlet.skip.store(dropped, Ordering::Relaxed);
            self.dropped += dropped as u64;
        }
        self.resampler.set_speed(1.0 + self.pace.change());
        self.resampler.push(frame);
        self.batch.clear();
        self.batch.resize(self.resampler.ready(), 0);
        self.resampler.pull(&mut self.batch);
        let refused = outlet.ring.write(self.batch.iter().copied());
        self.dropped += refused as u64;
        outlet.open.store(true, Ordering::Release);
        let ahead = outlet.ahead.load(Ordering::Relaxed) as f64 / 1000.0;
        smooth(&mut self.delay, lies / per_ms - waited + ahead);
    }

    /// In how long a frame's first sample is heard, on average; none before the card took any.
    pub fn delay(&self) -> Option<Duration> {
        self.delay
            .map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1000.0))
    }

    /// What went wrong so far.
    pub fn counts(&self) -> CardCounts {
        CardCounts::new(self.gaps, self.dropped, self.outlet.rate)
    }
}
