use super::*;

fn arrival(fate: Fate) -> Time {
    match fate {
        Fate::Arrives(at, _) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn delays_have_the_median_they_promise() {
    let mut rng = Rng::from_seed(3);
    for (delay, median) in [
        (Delay::Constant { us: 700 }, 700.0),
        (
            Delay::Uniform {
                low_us: 100,
                high_us: 300,
            },
            200.0,
        ),
        (
            Delay::Exponential {
                low_us: 1000,
                mean_us: 10_000,
            },
            7931.5,
        ),
        (
            Delay::LogNormal {
                median_us: 5000,
                sigma: 0.5,
            },
            5000.0,
        ),
    ] {
        let mut drawn: Vec<_> = (0..20_001).map(|_| delay.draw(1, 2, &mut rng)).collect();
        drawn.sort_unstable();
        let got = drawn[10_000] as f64;
        assert!((got / median - 1.0).abs() < 0.03, "{delay:?}: {got}");
    }
    let plane = Delay::Plane {
        low_us: 10,
        across_us: 1000,
    };
    let there = plane.draw(1, 2, &mut rng);
    assert_eq!(there, plane.draw(2, 1, &mut rng));
    assert_eq!(plane.draw(5, 5, &mut rng), 10);
    assert!((10..1500).contains(&there));
}

#[test]
fn loss_and_duplication_have_their_share() {
    let mut rng = Rng::from_seed(4);
    let mut net = Network {
        links: Links {
            loss: 0.2,
            duplicate: 0.1,
            ..Links::default()
        },
        ..Network::default()
    };
    let (mut lost, mut twice) = (0, 0);
    for _ in 0..20_000 {
        match net.datagram(Time::ZERO, 0, 1, 100, &mut rng) {
            Fate::Lost => lost += 1,
            Fate::Arrives(_, Some(_)) => twice += 1,
            _ => {}
        }
    }
    assert!((3800..4200).contains(&lost), "{lost}");
    assert!((1450..1750).contains(&twice), "{twice}");
}

#[test]
fn a_line_sends_at_its_rate_and_drops_what_its_queue_cannot_hold() {
    let mut rng = Rng::from_seed(5);
    let mut net = Network {
        links: Links {
            delay: Delay::Constant { us: 0 },
            ..Links::default()
        },
        ..Network::default()
    };
    net.set_rate(
        0,
        Rate {
            up: 1000,
            down: 0,
            queue: 3000,
        },
    );
    let times: Vec<_> = (0..3)
        .map(|_| arrival(net.datagram(Time::ZERO, 0, 1, 1000, &mut rng)).as_micros())
        .collect();
    assert_eq!(times, [1_000_000, 2_000_000, 3_000_000]);
    assert_eq!(net.datagram(Time::ZERO, 0, 1, 1000, &mut rng), Fate::Lost);
    assert_eq!(net.uplink_free(0), Time::from_secs(3));
    let stream = arrival(net.stream(Time::ZERO, 0, 1, 1000, &mut rng));
    assert_eq!(stream, Time::from_secs(4), "a stream waits");
    net.set_rate(
        1,
        Rate {
            up: 0,
            down: 500,
            queue: 0,
        },
    );
    let slow = arrival(net.datagram(Time::from_secs(10), 2, 1, 1000, &mut rng));
    assert_eq!(slow, Time::from_secs(12));
}

#[test]
fn streams_keep_their_order_and_lose_nothing() {
    let mut rng = Rng::from_seed(6);
    let mut net = Network {
        links: Links {
            jitter_us: 100_000,
            loss: 0.3,
            ..Links::default()
        },
        ..Network::default()
    };
    let times: Vec<_> = (0..500)
        .map(|i| arrival(net.stream(Time::from_micros(i * 1000), 0, 1, 100, &mut rng)))
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn partitions_cut_one_way_or_both_and_heal() {
    let mut net = Network::default();
    net.part(vec![0, 1, 2], &[(0, 1), (1, 2), (2, 1)]);
    assert!(!net.connected(0, 1) && net.connected(1, 0));
    assert!(!net.connected(1, 2) && !net.connected(2, 1));
    assert!(net.connected(0, 2) && net.connected(7, 0));
    net.heal();
    assert!(net.connected(0, 1));
}

#[test]
fn a_clogged_node_hears_and_says_everything_later() {
    let mut rng = Rng::from_seed(7);
    let mut net = Network::default();
    net.clog(1, Time::from_secs(9));
    let to = arrival(net.datagram(Time::ZERO, 0, 1, 1, &mut rng));
    assert_eq!(to, Time::from_secs(9));
    let from = arrival(net.datagram(Time::ZERO, 1, 0, 1, &mut rng));
    assert_eq!(from, Time::from_secs(9) + Duration::from_millis(50));
    net.unclog_all();
    net.set_slow(1, Duration::from_secs(1));
    let slow = arrival(net.datagram(Time::ZERO, 0, 1, 1, &mut rng));
    assert_eq!(slow.as_micros(), 1_050_000);
}
