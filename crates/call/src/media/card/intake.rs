//! A microphone: what the card gave, until the call takes it.

use super::pace::Pace;
use super::ring::Ring;
use super::{CardCounts, smooth};
use crate::media::RATE;
use crate::media::resample::Resampler;
use shoal_base::Time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Turns of 20 ms in which the longest wait for the card counts: ten seconds.
const MEMORY: u32 = 500;
/// A card that gave nothing for longer is away, milliseconds: that says nothing of its turns.
const AWAY: f64 = 200.0;
/// Waits that exceed a turn by more are those of a machine that stood still, and none to be ready for.
const LATE: f64 = 20.0;
/// Turns that follow each other so soon are one, microseconds.
const AT_ONCE: u64 = 1_000;

/// The card's side.
#[derive(Debug)]
pub struct Intake {
    ring: Ring,
    rate: u32,
    refused: AtomicU64,
    /// When the card gave something last, and how old the newest of it was, microseconds.
    given_at: AtomicU64,
    age: AtomicU64,
    /// What it gave at once last, and the most so far, samples.
    at_once: AtomicUsize,
    turn: AtomicUsize,
}

impl Intake {
    /// For a card with so many samples a second; holds half a second.
    pub fn new(rate: u32) -> Self {
        Self {
            ring: Ring::new(rate as usize / 2),
            rate,
            refused: AtomicU64::new(0),
            given_at: AtomicU64::new(0),
            age: AtomicU64::new(0),
            at_once: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// Takes a turn's samples from the card; the first of them was `old` when it was given. Waits for
    /// nobody.
    pub fn give(&self, now: Time, old: Duration, sound: impl ExactSizeIterator<Item = i16>) {
        let samples = sound.len();
        let refused = self.ring.write(sound);
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
        let before = self.given_at.load(Ordering::Relaxed);
        let mut at_once = samples;
        if now.as_micros().saturating_sub(before) < AT_ONCE {
            at_once += self.at_once.load(Ordering::Relaxed);
        }
        self.at_once.store(at_once, Ordering::Relaxed);
        self.turn.fetch_max(at_once, Ordering::Relaxed);
        let spoken = samples as u64 * 1_000_000 / u64::from(self.rate.max(1));
        let old = u64::try_from(old.as_micros()).unwrap_or(u64::MAX);
        self.age
            .store(old.saturating_sub(spoken), Ordering::Relaxed);
        self.given_at.store(now.as_micros(), Ordering::Release);
    }
}

/// The call's side.
#[derive(Debug)]
pub struct Microphone {
    intake: Arc<Intake>,
    resampler: Resampler,
    pace: Pace,
    running: bool,
    /// The longest wait for the card of late, and of the time before, milliseconds; for how many turns.
    longest: (f64, f64),
    turns: u32,
    batch: Vec<i16>,
    gaps: u64,
    /// Thrown away, samples of the call.
    dropped: u64,
    delay: Option<f64>,
    /// Refused before the call asked for sound, which nobody misses.
    unheard: u64,
}

impl Microphone {
    /// Takes what the card gives.
    pub fn new(intake: Arc<Intake>) -> Self {
        Self {
            resampler: Resampler::new(intake.rate, RATE),
            intake,
            pace: Pace::default(),
            running: false,
            longest: (0.0, 0.0),
            turns: 0,
            batch: Vec::new(),
            gaps: 0,
            dropped: 0,
            delay: None,
            unheard: 0,
        }
    }

    /// Fills a frame; with silence while the card gave too little. To be called every 20 ms; says
    /// whether it is the card's sound.
    pub fn take(&mut self, now: Time, frame: &mut [i16]) -> bool {
        let given_at = self.intake.given_at.load(Ordering::Acquire);
        let waited = now.as_micros().saturating_sub(given_at) as f64 / 1000.0;
        self.batch.clear();
        let batch = &mut self.batch;
        self.intake.ring.read(usize::MAX, |s| batch.push(s));
        self.resampler.push(batch);
        let per_ms = f64::from(RATE) / 1000.0;
        let waited = waited.min(AWAY);
        let target = self.target();
        let at_hand = self.resampler.ready() as f64 - frame.len() as f64;
        // As if the card gave evenly.
        let beyond = at_hand / per_ms + waited - target;
        if self.running && at_hand < 0.0 {
            self.running = false;
            self.gaps += 1;
            self.pace.on_gap();
        }
        let ready = self.running || (beyond >= 0.0 && at_hand >= 0.0);
        if !ready {
            frame.fill(0);
            return false;
        }
        if !self.running || self.pace.on_turn(beyond) {
            // Nobody has heard what came before the call began.
            let dropped = (beyond * per_ms).min(at_hand).max(0.0) as usize;
            self.resampler.skip(dropped);
            if self.running {
                self.dropped += dropped as u64;
            }
            self.pace.restart();
        }
        if self.delay.is_none() {
            self.unheard = self.intake.refused.load(Ordering::Relaxed);
        }
        self.running = true;
        self.on_wait(waited);
        self.resampler.set_speed(1.0 + self.pace.change());
        self.resampler.pull(frame);
        let left = self.resampler.ready() as f64 / per_ms;
        let age = self.intake.age.load(Ordering::Relaxed) as f64 / 1000.0;
        smooth(&mut self.delay, left + waited + age);
        true
    }

    /// What is to lie here on average: what the card's longest turn takes, and something at hand.
    fn target(&self) -> f64 {
        let turn = self.intake.turn.load(Ordering::Relaxed);
        let turn = turn as f64 * 1000.0 / f64::from(self.intake.rate.max(1));
        let turn = turn.min(AWAY);
        let longest = self.longest.0.max(self.longest.1);
        longest.clamp(turn, turn + LATE) + self.pace.margin()
    }

    /// Remembers how long a card that works was waited for.
    fn on_wait(&mut self, waited: f64) {
        self.longest.0 = self.longest.0.max(waited);
        self.turns += 1;
        if self.turns >= MEMORY {
            self.turns = 0;
            self.longest = (0.0, self.longest.0);
        }
    }

    /// How old the newest sample of a frame is when the call gets it, on average; none before sound came.
    pub fn delay(&self) -> Option<Duration> {
        self.delay
            .map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1000.0))
    }

    /// What went wrong so far.
    pub fn counts(&self) -> CardCounts {
        let refused = self.intake.refused.load(Ordering::Relaxed);
        let refused = match self.delay {
            Some(_) => refused.saturating_sub(self.unheard),
            None => 0,
        };
        let refused = refused * u64::from(RATE) / u64::from(self.intake.rate.max(1));
        CardCounts::new(self.gaps, self.dropped + refused, RATE)
    }
}
