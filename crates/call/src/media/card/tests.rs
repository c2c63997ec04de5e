//! A card with a clock of its own and a call, in virtual time.

use super::*;
use crate::media::{FRAME, RATE};
use proptest::prelude::*;
use shoal_base::Time;
use std::sync::Arc;
use std::time::Duration;

/// What a card does.
#[derive(Debug, Clone, Copy)]
struct Card {
    rate: u32,
    /// Parts in a million by which its clock is fast.
    ppm: f64,
    /// Samples of a turn.
    turn: usize,
    /// Turns that it takes at once.
    burst: usize,
    /// Turns of the card and of the call come by up to so much late, microseconds.
    late: u64,
}

const USUAL: Card = Card {
    rate: RATE,
    ppm: 0.0,
    turn: 480,
    burst: 1,
    late: 0,
};
/// What the driver of the microphone keeps, and that of the loudspeaker, before it is heard.
const DRIVER: Duration = Duration::from_millis(4);

/// Louder than this at that rate is a click that was made at the other.
fn click(to: u32, from: u32) -> i16 {
    (12_000.0 * (f64::from(to) / f64::from(from)).min(1.0)) as i16
}

/// Both sides of a card and of a call.
struct World {
    card: Card,
    intake: Arc<Intake>,
    outlet: Arc<Outlet>,
    microphone: Microphone,
    loudspeaker: Loudspeaker,
    /// Turns of the card, and of the call.
    turns: u64,
    ticks: u64,
    seed: u64,
    /// When each sample that the microphone heard as a click was there, and when the call got it.
    clicks: (Vec<f64>, Vec<f64>),
    /// The same of what the call said, and the loudspeaker.
    echoes: (Vec<f64>, Vec<f64>),
    /// Frames that were silence.
    silent: u64,
}

impl World {
    fn new(card: Card) -> Self {
        let intake = Arc::new(Intake::new(card.rate));
        let outlet = Arc::new(Outlet::new(card.rate));
        Self {
            card,
            microphone: Microphone::new(Arc::clone(&intake)),
            loudspeaker: Loudspeaker::new(Arc::clone(&outlet)),
            intake,
            outlet,
            turns: 0,
            ticks: 0,
            seed: 7,
            clicks: Default::default(),
            echoes: Default::default(),
            silent: 0,
        }
    }

    fn late(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.seed >> 33) % (self.card.late + 1)
    }

    /// When a sample of the card's clock is there, microseconds.
    fn at(&self, sample: u64) -> f64 {
        1e6 + sample as f64 * 1e6 / (f64::from(self.card.rate) * (1.0 + self.card.ppm * 1e-6))
    }

    /// Runs for so long; the card is away for the part of it.
    fn run(&mut self, seconds: u64, away: bool) {
        let until = self.ticks + seconds * 50;
        while self.ticks < until {
            let tick = 1_000_000 + self.ticks * 20_000;
            let of_burst = self.card.turn as u64 * self.card.burst as u64;
            let turn = self.at((self.turns + 1) * of_burst);
            if turn < tick as f64 {
                self.turns += 1;
                let now = Time::from_micros(turn as u64 + self.late());
                if !away {
                    self.card_turn(now);
                }
            } else {
                self.ticks += 1;
                let now = Time::from_micros(tick + self.late());
                self.call_turn(now, tick as f64);
            }
        }
    }

    /// A click each half second: what is loud for one sample.
    fn card_turn(&mut self, now: Time) {
        let turn = self.card.turn as u64;
        let of_burst = turn * self.card.burst as u64;
        let first = (self.turns - 1) * of_burst;
        let half = u64::from(self.card.rate) / 2;
        for piece in 0..self.card.burst as u64 {
            let from = first + piece * turn;
            let sound: Vec<i16> = (from..from + turn)
                .map(|n| if n % half == 0 { 30_000 } else { 0 })
                .collect();
            let clicks = (from..from + turn).filter(|n| n % half == 0);
            let known: Vec<f64> = clicks
                .map(|n| self.at(n) - DRIVER.as_micros() as f64)
                .collect();
            self.clicks.0.extend(known);
            let waiting = of_burst - piece * turn;
            let old = Duration::from_secs_f64(waiting as f64 / f64::from(self.card.rate));
            self.intake.give(now, old + DRIVER, sound.into_iter());
            let queued = piece * turn;
            let ahead = Duration::from_secs_f64(queued as f64 / f64::from(self.card.rate));
            let mut heard = Vec::new();
            let outlet = Arc::clone(&self.outlet);
            outlet.take(now, ahead + DRIVER, self.card.turn, |s| heard.push(s));
            let begins = self.at(first + of_burst + piece * turn) + DRIVER.as_micros() as f64;
            let per_sample = 1e6 / f64::from(self.card.rate);
            let loud = (0u32..)
                .zip(&heard)
                .filter(|(_, s)| **s > click(self.card.rate, RATE));
            self.echoes
                .1
                .extend(loud.map(|(n, _)| begins + f64::from(n) * per_sample));
        }
    }

    fn call_turn(&mut self, now: Time, tick: f64) {
        let mut frame = [0; FRAME];
        self.silent += u64::from(!self.microphone.take(now, &mut frame));
        let per_sample = 1e6 / f64::from(RATE);
        // The frame's end is now.
        let loud = (0u32..)
            .zip(&frame)
            .filter(|(_, s)| **s > click(RATE, self.card.rate));
        let newest = f64::from(FRAME as u32);
        self.clicks
            .1
            .extend(loud.map(|(n, _)| tick - (newest - f64::from(n)) * per_sample));
        let mut frame = [0; FRAME];
        if self.ticks.is_multiple_of(25) {
            frame[0] = 30_000;
            self.echoes.0.push(tick);
        }
        self.loudspeaker.give(now, &frame);
    }

    /// How long the clicks took in the last seconds, milliseconds: the microphone's, the loudspeaker's.
    fn delays(&self) -> (f64, f64) {
        let of = |(begun, ended): &(Vec<f64>, Vec<f64>)| {
            let last: Vec<f64> = ended
                .iter()
                .rev()
                .take(12)
                .map(|end| {
                    let begin = begun.iter().rfind(|b| *b <= end).expect("it began");
                    (end - begin) / 1000.0
                })
                .collect();
            assert!(!last.is_empty(), "nothing was heard");
            last.iter().sum::<f64>() / last.len() as f64
        };
        (of(&self.clicks), of(&self.echoes))
    }

    fn told(&self) -> (f64, f64) {
        let ms = |delay: Option<Duration>| delay.expect("known").as_secs_f64() * 1000.0;
        (ms(self.microphone.delay()), ms(self.loudspeaker.delay()))
    }

    fn counts(&self) -> [CardCounts; 2] {
        [self.microphone.counts(), self.loudspeaker.counts()]
    }
}

const NOTHING_WRONG: [CardCounts; 2] = [CardCounts {
    gaps: 0,
    dropped_ms: 0,
}; 2];

/// Half an hour with a clock that is off: no gaps, and the delay at the end is that of the beginning.
fn half_an_hour(card: Card) {
    let mut world = World::new(card);
    world.run(60, false);
    let (mouth, ear) = world.delays();
    let silent = world.silent;
    assert!(silent < 10, "{silent} frames before it began");
    world.run(29 * 60, false);
    let (mouth_then, ear_then) = world.delays();
    assert!((mouth - mouth_then).abs() < 4.0, "{mouth} {mouth_then}");
    assert!((ear - ear_then).abs() < 4.0, "{ear} {ear_then}");
    assert_eq!(world.counts(), NOTHING_WRONG);
    assert_eq!(world.silent, silent);
}

#[test]
fn a_fast_card_is_followed() {
    half_an_hour(Card {
        ppm: 200.0,
        ..USUAL
    });
}

#[test]
fn a_slow_card_with_long_turns_is_followed() {
    half_an_hour(Card {
        ppm: -200.0,
        turn: 960,
        ..USUAL
    });
}

#[test]
fn delays_are_told_as_they_are() {
    for rate in [16_000, 44_100, RATE] {
        for turn in [rate / 200, rate / 50, rate / 20] {
            for burst in [1, 2] {
                let turn = turn as usize;
                let mut world = World::new(Card {
                    rate,
                    turn,
                    burst,
                    late: 500,
                    ..USUAL
                });
                world.run(20, false);
                let ((mouth, ear), (said, heard)) = (world.delays(), world.told());
                let what = format!("{rate}/{turn}x{burst}");
                assert!((mouth - said).abs() < 2.0, "{what} mouth {mouth} {said}");
                assert!((ear - heard).abs() < 2.0, "{what} ear {ear} {heard}");
                assert_eq!(world.counts(), NOTHING_WRONG, "{what}");
            }
        }
    }
}

#[test]
fn a_card_that_was_away_is_silence_and_comes_back() {
    let mut world = World::new(USUAL);
    world.run(10, false);
    let (mouth, ear) = world.delays();
    world.run(5, true);
    assert!(world.silent > 200);
    let silent = world.silent;
    world.run(30, false);
    assert!(world.silent - silent < 10);
    let (mouth_then, ear_then) = world.delays();
    // A gap makes both more careful by five milliseconds.
    assert!((mouth_then - mouth).abs() < 8.0, "{mouth} {mouth_then}");
    assert!((ear_then - ear).abs() < 8.0, "{ear} {ear_then}");
    assert_eq!(world.microphone.counts().gaps, 1);
}

#[test]
fn what_was_said_before_the_call_is_not_heard_late() {
    let mut world = World::new(USUAL);
    // The microphone is open, and nobody asks.
    for turn in 1..=200 {
        world.turns = turn;
        let at = world.at(turn * 480) as u64;
        world.card_turn(Time::from_micros(at));
    }
    world.ticks = 100;
    world.run(5, false);
    let (mouth, _) = world.delays();
    assert!(mouth < 60.0, "{mouth}");
    assert_eq!(world.microphone.counts(), CardCounts::default());
}

#[test]
fn a_ring_keeps_order_and_refuses_what_it_has_no_room_for() {
    let ring = Ring::new(8);
    assert_eq!(ring.write(0..5), 0);
    assert_eq!(ring.write(5..11), 3);
    let mut got = Vec::new();
    assert_eq!(ring.read(3, |s| got.push(s)), 3);
    assert_eq!(ring.write([100, 101]), 0);
    assert_eq!(ring.read(100, |s| got.push(s)), 7);
    assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7, 100, 101]);
    assert!(ring.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_card_makes_gaps_once_it_is_known(
        rate in prop::sample::select(vec![8_000u32, 16_000, 44_100, 48_000, 96_000]),
        turn_ms in 2u32..60,
        burst in 1usize..3,
        ppm in -300.0f64..300.0,
        late in 0u64..3_000,
    ) {
        let turn = (rate * turn_ms / 1000) as usize;
        let mut world = World::new(Card { rate, ppm, turn, burst, late });
        // The first seconds show how long the turns are.
        world.run(10, false);
        let before = world.counts();
        world.run(20, false);
        prop_assert_eq!(world.counts(), before);
        prop_assert!(before.iter().all(|c| c.gaps <= 2), "{:?}", before);
    }
}
