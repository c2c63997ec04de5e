//! Two ends over a link in virtual time, with real ICE, DTLS and SRTP.

use super::*;
use std::collections::VecDeque;

const CALLER: &str = "192.0.2.1:5000";
const CALLEE: &str = "192.0.2.2:6000";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

struct Pair {
    ends: [Session; 2],
    flight: VecDeque<(Time, usize, Datagram)>,
    rng: Rng,
    now: Time,
    loss: f64,
    told: [Vec<Told>; 2],
    loudest: [i16; 2],
}

impl Pair {
    fn new(loss: f64) -> Self {
        let base = std::time::UNIX_EPOCH
            .elapsed()
            .map(|_| instant())
            .expect("a clock");
        let mut rng = Rng::from_seed(5);
        let now = Time::from_secs(1);
        let config = SessionConfig::default();
        let ours = [OurCandidate::Host(addr(CALLER))];
        let (mut a, offer) = Session::offer(base, now, config, &ours, &mut rng).expect("an offer");
        let theirs = [OurCandidate::Host(addr(CALLEE))];
        let (b, answer) =
            Session::answer(base, now, config, &theirs, &offer, &mut rng).expect("an answer");
        a.on_answer(now, &answer).expect("taken");
        Self {
            ends: [a, b],
            flight: VecDeque::new(),
            rng,
            now,
            loss,
            told: [Vec::new(), Vec::new()],
            loudest: [0; 2],
        }
    }

    /// Goes on for so many milliseconds; a buzz is spoken at both ends.
    fn run(&mut self, millis: u64) {
        for step in 0..millis {
            self.now += Duration::from_millis(1);
            let now = self.now;
            while self.flight.front().is_some_and(|f| f.0 <= now) {
                let Some((_, to, d)) = self.flight.pop_front() else {
                    break;
                };
                self.ends[to].on_datagram(now, d.source, d.destination, &d.bytes);
            }
            for (i, end) in self.ends.iter_mut().enumerate() {
                if end.deadline() <= now {
                    end.on_deadline(now);
                }
                if step % 20 == 0 {
                    let frame: Vec<i16> = (0..FRAME)
                        .map(|s| ((s as f64 * 0.02).sin() * 9000.0) as i16)
                        .collect();
                    end.record(now, &frame);
                    let mut out = [0; FRAME];
                    end.play(now, &mut out);
                    let loud = out.iter().map(|s| s.saturating_abs()).max().unwrap_or(0);
                    self.loudest[i] = self.loudest[i].max(loud);
                }
                for d in end.datagrams() {
                    if !self.rng.chance(self.loss) {
                        self.flight
                            .push_back((now + Duration::from_millis(20), 1 - i, d));
                    }
                }
                self.told[i].extend(end.told());
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "str0m wants some instant to count from"
)]
fn instant() -> Instant {
    Instant::now()
}

#[test]
fn two_ends_talk() {
    let mut pair = Pair::new(0.0);
    pair.run(3000);
    for (i, end) in pair.ends.iter().enumerate() {
        assert_eq!(end.leg(), Leg::Talking, "{:?}", pair.told);
        assert!(pair.loudest[i] > 3000, "{:?}", pair.loudest);
        let stats = end.stats();
        assert!(!stats.is_relayed());
        assert_eq!(stats.receiver.lost, 0);
        let rtt = stats.rtt.expect("a round trip").as_millis();
        assert!((38..60).contains(&rtt), "{rtt}");
        assert!(
            stats.mouth_to_ear_ms().expect("an estimate") < 120.0,
            "{stats:?}"
        );
        assert!(stats.reported > 50, "{stats:?}");
    }
    pair.ends[0].hang_up(pair.now);
    pair.run(1000);
    assert_eq!(pair.ends[0].ended(), Some(Ended::Local));
    assert_eq!(pair.ends[1].ended(), Some(Ended::Remote));
}

#[test]
fn loss_is_told_to_the_sender() {
    let mut pair = Pair::new(0.1);
    pair.run(15_000);
    let stats = pair.ends[0].stats();
    let loss = stats.reported_lost as f64 / stats.reported as f64;
    assert!((0.05..0.16).contains(&loss), "{stats:?}");
    assert!(stats.receiver.recovered > 10, "{stats:?}");
}

#[test]
fn each_leg_ends_with_its_reason() {
    let mut pair = Pair::new(1.0);
    pair.run(16_000);
    let ended = pair.ends[0].ended();
    assert_eq!(ended, Some(Ended::NoPath { pairs: 1 }));
    let mut pair = Pair::new(0.0);
    pair.run(3000);
    pair.loss = 1.0;
    pair.run(16_000);
    assert_eq!(pair.ends[1].ended(), Some(Ended::PathLost));
}

#[test]
fn another_certificate_is_refused() {
    let mut rng = Rng::from_seed(5);
    let (base, now) = (instant(), Time::from_secs(1));
    let config = SessionConfig::default();
    let ours = [OurCandidate::Host(addr(CALLER))];
    let (mut a, offer) = Session::offer(base, now, config, &ours, &mut rng).expect("an offer");
    let theirs = [OurCandidate::Host(addr(CALLEE))];
    let (b, answer) =
        Session::answer(base, now, config, &theirs, &offer, &mut rng).expect("an answer");
    // As whoever sits between would have it.
    let place = answer.find("sha-256 ").expect("a fingerprint") + 8;
    let mut forged = answer.clone();
    let other = if &answer[place..=place] == "A" {
        "B"
    } else {
        "A"
    };
    forged.replace_range(place..=place, other);
    a.on_answer(now, &forged).expect("taken");
    let mut pair = Pair {
        ends: [a, b],
        flight: VecDeque::new(),
        rng,
        now,
        loss: 0.0,
        told: [Vec::new(), Vec::new()],
        loudest: [0; 2],
    };
    pair.run(12_000);
    let ended = pair.ends[0].ended();
    assert!(
        matches!(ended, Some(Ended::Certificate | Ended::NoEncryption)),
        "{ended:?}"
    );
    assert_eq!(pair.loudest[0], 0);
}

#[test]
fn descriptions_that_are_none_are_refused() {
    let mut rng = Rng::from_seed(5);
    let now = Time::from_secs(1);
    for text in [
        "",
        "v=0",
        "\u{0}",
        "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
    ] {
        let config = SessionConfig::default();
        let result = Session::answer(instant(), now, config, &[], text, &mut rng);
        assert!(result.is_err(), "{text:?}");
    }
}
