//! A voice over links that lose, delay, reorder and run at another clock, in virtual time.

use super::*;
use proptest::prelude::*;
use shoal_base::{Rng, Time};

/// What a link does.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    loss: f64,
    /// Delay beyond the fixed 40 ms: up to this, evenly, microseconds.
    jitter: usize,
    /// Part of the packets that take 60 ms more, so that others overtake them.
    detours: f64,
    /// The sender's clock runs so many parts in a million fast.
    drift: i64,
    dtx: bool,
}

/// A voice-like sound: a buzz at 130 Hz whose loudness goes up and down four times a second.
fn voice(from: u64) -> Vec<i16> {
    let samples = (from..from + FRAME as u64).map(|i| {
        let t = i as f64 / 48_000.0;
        let swell = 0.55 + 0.45 * (t * 4.0 * std::f64::consts::TAU).sin();
        let buzz: f64 = (1..12)
            .map(|k| (t * 130.0 * f64::from(k) * std::f64::consts::TAU).sin() / f64::from(k))
            .sum();
        (buzz * swell * 7000.0) as i16
    });
    samples.collect()
}

/// Thirty seconds over the link; silence from second 10 to 12.
fn run(link: Link) -> (Vec<i16>, ReceiverStats, u64) {
    let mut rng = Rng::from_seed(11);
    let mut sender = Sender::new(32_000, link.dtx).expect("a sender");
    sender
        .tune(32_000, (link.loss * 100.0) as u8)
        .expect("tuned");
    let mut receiver = Receiver::new().expect("a receiver");
    let mut flight: Vec<(u64, Packet)> = Vec::new();
    let (mut heard, mut sent) = (Vec::new(), 0);
    let start = 1_000_000i64;
    for step in 0..3000u64 {
        let now = start as u64 + step * 10_000;
        if step % 2 == 0 {
            let i = step / 2;
            let frame = match i {
                500..600 => vec![0; FRAME],
                _ => voice(i * FRAME as u64),
            };
            if let Some(s) = sender.push(&frame).expect("a packet") {
                sent += 1;
                let at = now as i64 - (step as i64 * 10_000 * link.drift) / 1_000_000;
                let extra = rng.below(link.jitter + 1) as u64;
                let detour = u64::from(rng.chance(link.detours)) * 60_000;
                if !rng.chance(link.loss) {
                    let packet = Packet {
                        sequence: s.sequence,
                        time: s.time,
                        payload: s.payload,
                    };
                    flight.push((at as u64 + 40_000 + extra + detour, packet));
                }
            }
        }
        flight.sort_by_key(|f| f.0);
        while flight.first().is_some_and(|f| f.0 <= now) {
            let (at, packet) = flight.remove(0);
            receiver.on_packet(Time::from_micros(at), packet);
        }
        let mut out = [0; 480];
        receiver.pull(Time::from_micros(now), &mut out);
        heard.extend_from_slice(&out);
    }
    (heard, receiver.stats(), sent)
}

fn loudness(sound: &[i16]) -> f64 {
    (sound.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / sound.len().max(1) as f64).sqrt()
}

/// Windows of 100 ms in which nothing is heard though somebody speaks.
fn holes(heard: &[i16]) -> usize {
    let speech = heard.chunks(4800).enumerate().filter(|(i, _)| {
        let quiet = 98..=124;
        *i > 5 && !quiet.contains(i)
    });
    speech.filter(|(_, w)| loudness(w) < 150.0).count()
}

#[test]
fn a_clean_link_is_played_as_it_is() {
    let (heard, stats, sent) = run(Link::default());
    assert_eq!((stats.lost, stats.late, stats.bad), (0, 0, 0), "{stats:?}");
    assert!(sent - stats.received <= 3);
    assert!(stats.concealed_ms <= 40, "{stats:?}");
    assert!(stats.lag_ms <= 45.0, "{stats:?}");
    assert_eq!(holes(&heard), 0);
}

#[test]
fn loss_is_filled_mostly_from_the_packet_after() {
    for loss in [0.02, 0.05, 0.1, 0.2] {
        let link = Link {
            loss,
            ..Link::default()
        };
        let (heard, stats, _) = run(link);
        let rate = stats.lost as f64 / (stats.lost + stats.received) as f64;
        assert!((rate - loss).abs() < 0.03, "{loss}: {stats:?}");
        // Two in a row cannot all be recovered.
        let recovered = stats.recovered as f64 / stats.lost as f64;
        assert!(recovered > 0.65, "{loss}: {stats:?}");
        assert_eq!(holes(&heard), 0, "{loss}");
        assert!(stats.lag_ms < 80.0, "{stats:?}");
    }
}

#[test]
fn jitter_is_waited_for() {
    let link = Link {
        jitter: 60_000,
        ..Link::default()
    };
    let (heard, stats, sent) = run(link);
    assert!((stats.late as f64) < sent as f64 * 0.04, "{stats:?}");
    assert!((50.0..110.0).contains(&stats.lag_ms), "{stats:?}");
    assert_eq!(holes(&heard), 0);
}

#[test]
fn packets_that_overtake_are_put_in_order() {
    let link = Link {
        detours: 0.1,
        ..Link::default()
    };
    let (heard, stats, sent) = run(link);
    assert!((stats.late as f64) < sent as f64 * 0.03, "{stats:?}");
    assert_eq!(holes(&heard), 0);
}

#[test]
fn other_clocks_are_followed() {
    for drift in [-200, 200] {
        let link = Link {
            drift,
            loss: 0.02,
            ..Link::default()
        };
        let (heard, stats, _) = run(link);
        assert!(stats.lag_ms < 80.0, "{drift}: {stats:?}");
        assert!(stats.concealed_ms < 400, "{drift}: {stats:?}");
        assert_eq!(holes(&heard), 0);
    }
}

#[test]
fn silence_needs_no_packets_and_is_no_loss() {
    let link = Link {
        dtx: true,
        ..Link::default()
    };
    let (heard, stats, sent) = run(link);
    assert!(sent < 1460, "{sent}");
    assert_eq!(stats.lost, 0, "{stats:?}");
    assert_eq!(holes(&heard), 0);
    assert!(stats.lag_ms < 60.0, "{stats:?}");
}

#[test]
fn a_path_that_stands_still_is_caught_up_with() {
    let mut sender = Sender::new(32_000, false).expect("a sender");
    let mut receiver = Receiver::new().expect("a receiver");
    let mut held = Vec::new();
    for i in 0..500u64 {
        let now = Time::from_micros(1_000_000 + i * FRAME_MICROS);
        let s = sender.push(&voice(i * 960)).expect("made").expect("sent");
        let packet = Packet {
            sequence: s.sequence,
            time: s.time,
            payload: s.payload,
        };
        held.push(packet);
        // Three seconds without a packet; then all at once.
        if !(100..250).contains(&i) {
            for packet in held.drain(..) {
                receiver.on_packet(now, packet);
            }
        }
        receiver.pull(now, &mut [0; FRAME]);
    }
    let stats = receiver.stats();
    assert!(stats.lag_ms < stats.target_ms + 60.0, "{stats:?}");
}

#[test]
fn a_source_that_begins_anew_is_heard() {
    let mut receiver = Receiver::new().expect("a receiver");
    let mut now = 1_000_000;
    for start in [4_000_000_000u64, 7] {
        let mut sender = Sender::new(32_000, false).expect("a sender");
        let mut loud = 0.0f64;
        for i in 0..100u64 {
            now += FRAME_MICROS;
            let s = sender.push(&voice(i * 960)).expect("made").expect("sent");
            let packet = Packet {
                sequence: s.sequence + start,
                time: s.time + start,
                payload: s.payload,
            };
            receiver.on_packet(Time::from_micros(now), packet);
            let mut out = [0; FRAME];
            receiver.pull(Time::from_micros(now), &mut out);
            loud = loud.max(loudness(&out));
        }
        assert!(loud > 1000.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes, sound comes out, and nothing grows.
    #[test]
    fn nonsense_is_survived(
        packets in prop::collection::vec(
            (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..200), 0u64..60_000),
            1..60,
        ),
        near in any::<bool>(),
    ) {
        let mut receiver = Receiver::new().expect("a receiver");
        let mut now = 0;
        for (sequence, time, payload, wait) in packets {
            now += wait;
            let (sequence, time) = if near {
                (sequence % 50, time % 48_000)
            } else {
                (sequence >> 1, time >> 1)
            };
            let packet = Packet { sequence, time, payload };
            receiver.on_packet(Time::from_micros(now), packet);
            receiver.pull(Time::from_micros(now), &mut [0; FRAME]);
            prop_assert!(receiver.sound.len() <= 3 * 5760);
        }
    }
}
