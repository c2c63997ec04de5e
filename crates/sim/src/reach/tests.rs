//! The same network, looked at by hand, and the experiment itself.

mod carrier;

use super::kind::Kind;
use super::machine::Ctx;
use super::net::{Net, PATIENCE, identity};
use super::*;
use crate::experiment::Silent;
use crate::link::{Delay, Links};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Links of 10 ms, mappings of 30 s.
fn net(relays: u32) -> Net {
    let links = Links {
        delay: Delay::Constant { us: 10_000 },
        ..Links::default()
    };
    Net::new(7, links, relays, secs(30))
}

/// Two nodes that know their relays.
fn two(net: &mut Net, a: Kind, b: Kind) -> [u32; 2] {
    let both = [net.add(a), net.add(b)];
    net.run(secs(3));
    both
}

impl Net {
    /// One calls another and both wait for a way; how long that took.
    fn meet(&mut self, a: u32, b: u32) -> Option<Duration> {
        self.call(a, b);
        let until = self.world.now() + PATIENCE;
        while self.world.now() < until && self.met(a, b).is_none() {
            self.run(Duration::from_millis(10));
        }
        self.met(a, b)
    }

    fn talks(&mut self, [a, b]: [u32; 2], span: Duration) {
        self.speak(a, b, true);
        self.run(span);
        self.speak(a, b, false);
    }

    fn hops(&self, n: u32) -> u8 {
        self.way(n).expect("a way").hops
    }
}

#[test]
fn every_pair_meets_and_directly_exactly_where_holes_can_be_punched() {
    let mut slowest = Duration::ZERO;
    for a in Kind::ALL {
        for b in Kind::ALL {
            let mut net = net(2);
            let both = two(&mut net, a, b);
            let [one, other] = both;
            let took = net.meet(one, other);
            let took = took.unwrap_or_else(|| {
                panic!("{a:?} and {b:?}: {}", net.home(one).endpoint.why_not(1))
            });
            slowest = slowest.max(took);
            net.talks(both, secs(5));
            net.speak(one, other, true);
            net.measure(&both);
            net.run(secs(5));
            for n in both {
                let direct = net.hops(n) == 0;
                assert_eq!(direct, a.meets(b), "{a:?} to {b:?}: {:?}", net.way(n));
                assert!(
                    net.gap(n) < Duration::from_millis(100),
                    "{a:?} to {b:?}: {:?}",
                    net.gap(n)
                );
            }
        }
    }
    assert!(slowest < Duration::from_millis(600), "{slowest:?}");
}

#[test]
fn who_hides_is_reached_by_relays_and_tells_no_address() {
    for other in Kind::ALL {
        let mut net = net(2);
        let both = [net.add(Kind::Open), net.add(other)];
        net.on_home(both[0], |home, _: &mut Ctx<'_>| home.endpoint.hide());
        net.run(secs(3));
        net.meet(both[1], both[0]).expect("they meet");
        net.talks(both, secs(5));
        net.speak(both[0], both[1], true);
        net.measure(&both);
        net.run(secs(5));
        for n in both {
            assert!(net.hops(n) > 0, "{other:?}: {:?}", net.way(n));
            assert!(net.gap(n) < Duration::from_millis(100), "{other:?}");
        }
        let own = net
            .world
            .space()
            .0
            .public_addr(both[0])
            .expect("it is open");
        let sent = &net.home(both[1]).sent_to;
        assert!(sent.iter().all(|to| to.ip() != own.ip()), "{sent:?}");
    }
}

#[test]
fn a_relay_that_dies_is_left_within_a_second_and_a_half() {
    for (a, b) in [
        (Kind::Sym, Kind::Sym),
        (Kind::Port, Kind::Sym),
        (Kind::NoUdp, Kind::Sym),
        (Kind::Web, Kind::NoUdp),
    ] {
        let mut net = net(3);
        let both = two(&mut net, a, b);
        net.meet(both[0], both[1]).expect("they meet");
        net.speak(both[0], both[1], true);
        net.run(secs(5));
        let mut killed = BTreeSet::new();
        // The relay in use, and then the next.
        for _ in 0..2 {
            let relay = net.relays_of(both[0])[0];
            assert!(
                killed.insert(relay),
                "{a:?} to {b:?}: a dead relay is in use"
            );
            net.measure(&both);
            net.kill(relay);
            net.run(secs(12));
            for n in both {
                let gap = net.gap(n);
                assert!(gap < Duration::from_millis(1500), "{a:?} to {b:?}: {gap:?}");
            }
        }
    }
}

#[test]
fn a_nat_that_forgets_costs_less_than_three_seconds() {
    for a in Kind::ALL.into_iter().filter(|a| a.has_udp()) {
        for b in [Kind::Port, Kind::Sym, Kind::Full] {
            let mut net = net(2);
            let both = two(&mut net, a, b);
            net.meet(both[0], both[1]).expect("they meet");
            net.speak(both[0], both[1], true);
            net.run(secs(6));
            for n in both {
                net.measure(&both);
                net.flush(n);
                net.run(secs(10));
                for n in both {
                    let gap = net.gap(n);
                    assert!(gap < secs(3), "{a:?} to {b:?}: {gap:?}");
                }
            }
        }
    }
}

#[test]
fn mappings_of_thirty_seconds_hold_through_silence() {
    for (a, b) in [
        (Kind::Port, Kind::Port),
        (Kind::Sym, Kind::Sym),
        (Kind::Addr, Kind::Sym),
    ] {
        let mut net = net(2);
        let both = two(&mut net, a, b);
        net.meet(both[0], both[1]).expect("they meet");
        net.talks(both, secs(3));
        net.run(secs(600));
        net.speak(both[0], both[1], true);
        net.measure(&both);
        net.run(secs(1));
        for n in both {
            let gap = net.gap(n);
            assert!(gap < Duration::from_millis(100), "{a:?} to {b:?}: {gap:?}");
        }
    }
}

#[test]
fn the_relay_with_the_shortest_way_is_taken() {
    let mut net = net(3);
    for (relay, ms) in net.relays.clone().into_iter().zip([280, 0, 80]) {
        net.world.set_slow(relay, Duration::from_millis(ms));
    }
    let both = two(&mut net, Kind::Sym, Kind::Sym);
    net.run(secs(1));
    net.meet(both[0], both[1]).expect("they meet");
    net.talks(both, secs(5));
    for n in both {
        let way = net.way(n).expect("a way");
        assert_eq!(way.hops, 1);
        assert_eq!(net.relays_of(n), [net.relays[1]]);
        assert!(way.rtt < Duration::from_millis(60), "{way:?}");
    }
}

#[test]
fn a_relay_that_loses_packets_is_left_for_another() {
    let mut net = net(2);
    let both = two(&mut net, Kind::Sym, Kind::Sym);
    net.meet(both[0], both[1]).expect("they meet");
    net.speak(both[0], both[1], true);
    net.run(secs(5));
    let session = net
        .talk(both[0])
        .and_then(|t| t.session)
        .expect("a session");
    let first = net.relays_of(both[0]);
    // What goes by the first relay is lost, and nothing else is.
    let carried = |net: &mut Net, lost| {
        for _ in 0..4 {
            let lost = if net.relays_of(both[0]) == first {
                lost
            } else {
                0
            };
            net.on_home(both[0], |home, ctx| {
                home.with(ctx, |e, now, out| {
                    e.on_carried(now, session, 100, lost, out);
                });
            });
            net.run(secs(1));
        }
    };
    carried(&mut net, 0);
    assert_eq!(net.relays_of(both[0]), first);
    carried(&mut net, 8);
    assert_ne!(net.relays_of(both[0]), first);
    // It stays so while the other is better.
    carried(&mut net, 8);
    assert_ne!(net.relays_of(both[0]), first);
}

#[test]
fn without_a_relay_open_nodes_and_neighbours_meet_and_others_hear_why_not() {
    for (a, b) in [(Kind::Open, Kind::Open), (Kind::Port, Kind::Open)] {
        let mut net = net(0);
        let both = two(&mut net, a, b);
        let took = net.meet(both[0], both[1]);
        assert!(took < Some(secs(2)), "{a:?} to {b:?}: {took:?}");
        net.talks(both, secs(5));
        assert_eq!(both.map(|n| net.hops(n)), [0, 0]);
    }
    // Neighbours behind one translator.
    let mut net = net(0);
    let nat = net.translator(Kind::Sym, [44, 2, 0, 1].into());
    let both = [2, 3].map(|n| {
        let own = ([192, 168, 1, n], 5000).into();
        net.settle_down(Kind::Sym, &[(own, nat)])
    });
    assert!(net.meet(both[0], both[1]) < Some(secs(2)));
    net.talks(both, secs(5));
    assert_eq!(both.map(|n| net.hops(n)), [0, 0]);
    // No hole can be punched: nobody has told the two where they are seen.
    let both = two(&mut net, Kind::Port, Kind::Port);
    assert_eq!(net.meet(both[0], both[1]), None);
    let why = net.home(both[0]).endpoint.why_not(1);
    assert!(why.starts_with("relays: none was offered"), "{why}");
}

#[test]
fn symmetric_nats_are_passed_by_ipv6_which_is_preferred() {
    for (a, b) in [(Kind::Sym, Kind::Sym), (Kind::Open, Kind::Open)] {
        let mut net = net(2);
        net.ipv6 = true;
        let both = two(&mut net, a, b);
        net.meet(both[0], both[1]).expect("they meet");
        net.talks(both, secs(8));
        for n in both {
            let way = net.way(n).expect("a way");
            assert!(way.hops == 0 && way.path.peer.is_ipv6(), "{a:?}: {way:?}");
        }
        // Without firewalls' holes all goes on by what is left, as after any death of a way.
        net.speak(both[0], both[1], true);
        net.measure(&both);
        net.flush(both[0]);
        net.run(secs(10));
        assert!(both.iter().all(|n| net.gap(*n) < secs(3)));
    }
}

#[test]
fn a_relay_tells_where_it_sees_us_by_ipv6() {
    let mut net = net(0);
    let ips = [[44, 1, 0, 1].into(), [0x2600, 1, 0, 0, 0, 0, 0, 1].into()];
    net.add_relay(&ips, None);
    // Of IPv4 symmetric; of IPv6 behind translators of prefixes (RFC 6296), which are full cones.
    let both = [1, 2].map(|n: u16| {
        let v4 = ([10, 0, n as u8, 2], 5000).into();
        let v6 = IpAddr::from([0xfd00, n, 0, 0, 0, 0, 0, 1]);
        let nat = net.translator(Kind::Sym, [44, 2, n as u8, 1].into());
        let prefix = net.translator(Kind::Full, [0x2600, 2, n, 0, 0, 0, 0, 1].into());
        net.settle_down(Kind::Sym, &[(v4, nat), ((v6, 5000).into(), prefix)])
    });
    net.run(secs(3));
    let seen: Vec<SocketAddr> = net.home(both[0]).endpoint.relays().seen().collect();
    assert!(
        seen.len() == 2 && seen[0].is_ipv4() && seen[1].is_ipv6(),
        "{seen:?}"
    );
    assert_eq!(net.home(both[0]).endpoint.relays().in_use().count(), 1);
    net.meet(both[0], both[1]).expect("they meet");
    net.talks(both, secs(5));
    assert_eq!(both.map(|n| net.hops(n)), [0, 0]);
}

#[test]
fn relays_that_are_offered_late_are_used() {
    let mut net = net(0);
    let both = two(&mut net, Kind::Sym, Kind::Sym);
    net.call(both[0], both[1]);
    net.run(secs(3));
    assert_eq!(net.met(both[0], both[1]), None);
    net.add_relay(&[[44, 1, 0, 1].into()], None);
    for n in both {
        net.offer(n);
    }
    net.run(secs(2));
    let took = net.met(both[0], both[1]).expect("they meet");
    assert!(took < secs(5), "{took:?}");
    assert_eq!(both.map(|n| net.hops(n)), [1, 1]);
}

#[test]
fn calls_leave_a_relay_that_says_it_is_full_until_it_is_not() {
    let mut net = net(0);
    // The nearest passes three calls of 16,000 bytes a second, the other all.
    let near = net.add_relay(&[[44, 1, 0, 1].into()], Some(48_000));
    let far = net.add_relay(&[[44, 1, 0, 2].into()], None);
    net.world.set_slow(far, Duration::from_millis(20));
    let calls: Vec<[u32; 2]> = (0..6)
        .map(|_| [net.add(Kind::Sym), net.add(Kind::Sym)])
        .collect();
    net.run(secs(3));
    for [a, b] in &calls {
        net.meet(*a, *b).expect("they meet");
        assert_eq!(net.relays_of(*a), [near]);
        net.speak(*a, *b, true);
    }
    net.run(secs(30));
    let counts = |net: &Net| {
        let talks = calls.iter().flatten().filter_map(|n| net.talk(*n));
        talks.fold((0, 0), |(s, h), t| (s + t.said, h + t.heard))
    };
    let (said, heard) = counts(&net);
    net.run(secs(10));
    let (more_said, more_heard) = counts(&net);
    let lost = 1.0 - (more_heard - heard) as f64 / (more_said - said) as f64;
    assert!(lost < 0.02, "{lost}");
    let by = |relay: u32| {
        let ends = calls.iter().flatten();
        ends.filter(|n| net.relays_of(**n) == [relay]).count()
    };
    // Some stay: nobody flees from a relay that is not full.
    assert!(by(near) > 0 && by(far) > 0, "{} and {}", by(near), by(far));
}

#[test]
fn who_is_not_there_is_named_as_the_reason() {
    let mut net = net(1);
    let one = net.add(Kind::Port);
    net.run(secs(3));
    let nobody = identity(7, 77).id();
    net.on_home(one, |home, ctx| home.begin(ctx, nobody, true));
    net.run(secs(20));
    let why = net.home(one).endpoint.why_not(1);
    assert!(why.starts_with("signalling"), "{why}");
}

#[test]
fn the_experiment_holds_over_several_seeds_and_replays() {
    let experiment = Reach {
        kinds: vec![Kind::Port, Kind::Sym, Kind::Web],
        copies: 1,
        relays: 3,
        delay_ms: 20,
        jitter_ms: 5,
        loss: 0.0,
        mapping_s: 30,
        ipv6: false,
        churn_s: 40,
        kills: 2,
        flushes: 6,
    };
    let run = |seed| experiment.run(seed, &mut Silent).expect("good options");
    let first = run(1);
    for report in [&first, &run(2), &run(3)] {
        assert!(report.holds(), "{}: {:#?}", report.seed, report.checks);
    }
    assert_eq!(run(1).json(), first.json());
    let none = Reach {
        relays: 0,
        ..experiment
    };
    assert!(none.run(1, &mut Silent).is_err());
}
