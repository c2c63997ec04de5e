use super::*;
use proptest::prelude::*;
use shoal_base::Rng;
use std::collections::{BTreeMap, BTreeSet};

fn swarms(config: SwarmsConfig) -> Swarms {
    Swarms::new(config, &mut Rng::from_seed(1))
}

fn open() -> SwarmsConfig {
    SwarmsConfig {
        peer_life: Duration::from_secs(800),
        max_torrents: usize::MAX,
        address_counts: None,
        limit_local: true,
    }
}

fn announce(torrent: u8, peer: &str, seeder: bool, event: AnnounceEvent) -> Announce {
    Announce {
        info_hash: InfoHash([torrent; 20]),
        peer: peer.parse().expect("an address"),
        seeder,
        event,
        num_want: 50,
    }
}

fn told(s: &mut Swarms, at: u64, a: &Announce) -> (ScrapeStats, BTreeSet<SocketAddr>) {
    let mut out = Vec::new();
    let stats = s.announce(Time::from_secs(at), a, 77, &mut out);
    let peers = if a.peer.ip().to_canonical().is_ipv4() {
        compact::decode_v4(&out).collect()
    } else {
        compact::decode_v6(&out).collect()
    };
    (stats.expect("not refused"), peers)
}

fn stats(seeders: u32, completed: u32, leechers: u32) -> ScrapeStats {
    ScrapeStats {
        seeders,
        completed,
        leechers,
    }
}

use AnnounceEvent::{Completed, None as Regular, Started, Stopped};

#[test]
fn peers_find_each_other_and_leave() {
    let mut s = swarms(open());
    let a = announce(1, "1.1.1.1:1", false, Started);
    let b = announce(1, "2.2.2.2:2", true, Started);
    assert_eq!(told(&mut s, 0, &a), (stats(0, 0, 1), [].into()));
    assert_eq!(told(&mut s, 0, &b), (stats(1, 0, 1), [a.peer].into()));
    let mapped = announce(1, "[::ffff:1.1.1.1]:1", false, Regular);
    assert_eq!(told(&mut s, 0, &mapped), (stats(1, 0, 1), [b.peer].into()));
    let done = announce(1, "1.1.1.1:1", true, Completed);
    assert_eq!(told(&mut s, 0, &done), (stats(2, 1, 0), [].into()));
    assert_eq!(told(&mut s, 0, &done), (stats(2, 1, 0), [].into()));
    let six = announce(1, "[2001:db8::1]:6", false, Started);
    assert_eq!(told(&mut s, 0, &six), (stats(0, 0, 1), [].into()));
    let gone = announce(1, "2.2.2.2:2", true, Stopped);
    assert_eq!(told(&mut s, 0, &gone), (stats(1, 1, 0), [].into()));
    let hash = InfoHash([1; 20]);
    assert_eq!(s.scrape(&hash, a.peer.ip()), stats(1, 1, 0));
    assert_eq!(s.scrape(&hash, six.peer.ip()), stats(0, 0, 1));
    assert_eq!(s.scrape(&InfoHash([2; 20]), a.peer.ip()), stats(0, 0, 0));
}

#[test]
fn port_zero_is_told_but_not_noted() {
    let mut s = swarms(open());
    let a = announce(1, "1.1.1.1:1", false, Started);
    told(&mut s, 0, &a);
    let mute = announce(1, "2.2.2.2:0", false, Started);
    assert_eq!(told(&mut s, 0, &mute), (stats(0, 0, 1), [a.peer].into()));
}

#[test]
fn silent_peers_and_empty_swarms_are_forgotten() {
    let mut s = swarms(open());
    told(&mut s, 0, &announce(1, "1.1.1.1:1", true, Started));
    told(&mut s, 600, &announce(2, "1.1.1.1:1", false, Started));
    told(&mut s, 600, &announce(2, "[::2]:1", true, Started));
    s.sweep(Time::from_secs(790));
    assert_eq!(s.census().peers_v4, 2);
    s.sweep(Time::from_secs(820));
    let census = s.census();
    assert_eq!(
        (census.torrents_v4, census.peers_v4, census.seeders),
        (1, 1, 1)
    );
    s.sweep(Time::from_secs(1500));
    assert_eq!(s.census(), Census::default());
}

#[test]
fn torrents_and_peers_of_an_address_are_limited() {
    let mut s = swarms(SwarmsConfig {
        max_torrents: 1,
        ..open()
    });
    let mut out = Vec::new();
    told(&mut s, 0, &announce(1, "1.1.1.1:1", true, Started));
    let second = announce(2, "1.1.1.1:1", true, Started);
    assert_eq!(
        s.announce(Time::ZERO, &second, 0, &mut out),
        Err(Refusal::Full)
    );

    for (limit_local, ip, refused) in [
        (false, "10.0.0.1", false),
        (true, "10.0.0.1", true),
        (false, "9.9.9.9", true),
    ] {
        let counts = Arc::new(AddressCounts::new(2, &mut Rng::from_seed(3)));
        let mut s = swarms(SwarmsConfig {
            address_counts: Some(counts),
            limit_local,
            ..open()
        });
        let peer =
            |torrent, port: u16, event| announce(torrent, &format!("{ip}:{port}"), false, event);
        told(&mut s, 0, &peer(1, 1, Started));
        told(&mut s, 0, &peer(2, 1, Started));
        told(&mut s, 0, &peer(2, 1, Regular));
        for third in [peer(2, 2, Started), peer(3, 1, Started)] {
            let got = s.announce(Time::ZERO, &third, 0, &mut out);
            assert_eq!(got.is_err(), refused, "{ip} {limit_local}");
        }
        if refused {
            told(&mut s, 0, &peer(1, 1, Stopped));
            told(&mut s, 0, &peer(3, 1, Started));
            s.sweep(Time::from_secs(10_000));
            told(&mut s, 10_000, &peer(4, 1, Started));
            told(&mut s, 10_000, &peer(4, 2, Started));
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_plain_model(ops in prop::collection::vec((0u8..3, 0u16..6, any::<bool>(), 0u8..5), 0..200)) {
        let mut s = swarms(open());
        let mut model: BTreeMap<u8, BTreeMap<SocketAddr, bool>> = BTreeMap::new();
        for (torrent, port, seeder, op) in ops {
            let event = if op == 0 { Stopped } else { Regular };
            let a = announce(torrent, &format!("1.2.3.4:{}", port + 1), seeder, event);
            let (stats, peers) = told(&mut s, 0, &a);
            let swarm = model.entry(torrent).or_default();
            if event == Stopped {
                swarm.remove(&a.peer);
            } else {
                swarm.insert(a.peer, seeder);
                let want: BTreeSet<_> = swarm.iter()
                    .filter(|(p, s)| **p != a.peer && !(seeder && **s))
                    .map(|(p, _)| *p)
                    .collect();
                prop_assert_eq!(peers, want);
            }
            let seeders = swarm.values().filter(|s| **s).count();
            prop_assert_eq!(stats.seeders as usize, seeders);
            prop_assert_eq!(stats.leechers as usize, swarm.len() - seeders);
            let census = s.census();
            let all = model.values().flat_map(BTreeMap::values);
            prop_assert_eq!(census.peers_v4 as usize, all.clone().count());
            prop_assert_eq!(census.seeders as usize, all.filter(|s| **s).count());
        }
    }
}

/// The overlay addresses told to a peer that announces its own.
fn told_overlay(s: &mut Swarms, at: u64, a: &Announce, own: &str) -> BTreeSet<String> {
    let (own, mut out) = (own.parse().expect("an address"), Vec::new());
    s.announce_overlay(Time::from_secs(at), a, own, 7, &mut out)
        .expect("not refused");
    compact::decode_v6(&out).map(|a| a.to_string()).collect()
}

#[test]
fn overlay_addresses_are_told_to_who_has_one_whatever_the_family() {
    let mut s = swarms(open());
    let a = announce(1, "1.1.1.1:1", false, Started);
    let b = announce(1, "[2001:db8::1]:6", false, Started);
    assert!(told_overlay(&mut s, 0, &a, "[fc01::1]:1").is_empty());
    let [one, two] = ["[fc01::1]:1", "[fc02::2]:6"].map(str::to_owned);
    assert_eq!(told_overlay(&mut s, 0, &b, &two), [one.clone()].into());
    assert_eq!(told_overlay(&mut s, 0, &a, &one), [two.clone()].into());
    assert_eq!(s.census().peers_overlay, 2);
    // Who announces none is told of none, nor are they counted as peers.
    let plain = announce(1, "[2001:db8::2]:6", false, Started);
    assert_eq!(told(&mut s, 0, &plain), (stats(0, 0, 1), [].into()));
    // Of another torrent, of seeders to a seeder, nothing.
    let other = announce(2, "1.1.1.1:1", false, Started);
    assert!(told_overlay(&mut s, 0, &other, &one).is_empty());
    let seed = |peer| announce(1, peer, true, Completed);
    told_overlay(&mut s, 0, &seed("[2001:db8::1]:6"), &two);
    assert!(told_overlay(&mut s, 0, &seed("1.1.1.1:1"), &one).is_empty());
    // Who stops is gone at once, who is silent in time.
    let gone = announce(1, "[2001:db8::1]:6", true, Stopped);
    assert!(told_overlay(&mut s, 0, &gone, &two).is_empty());
    assert!(told_overlay(&mut s, 0, &a, &one).is_empty());
    assert_eq!(s.census().peers_overlay, 2);
    s.sweep(Time::from_secs(900));
    assert_eq!(s.census(), Census::default());
}

#[test]
fn overlay_addresses_count_against_who_announces_them() {
    let counts = Arc::new(AddressCounts::new(3, &mut Rng::from_seed(1)));
    let mut s = swarms(SwarmsConfig {
        address_counts: Some(counts),
        ..open()
    });
    let a = announce(1, "1.1.1.1:1", false, Started);
    told(&mut s, 0, &a);
    let mut out = Vec::new();
    let mut tell = |s: &mut Swarms, n: u16, at| {
        let own = SocketAddr::from(([0xfc01, 0, 0, 0, 0, 0, 0, n], 1));
        s.announce_overlay(Time::from_secs(at), &a, own, 7, &mut out)
    };
    assert_eq!([1, 2, 2].map(|n| tell(&mut s, n, 0)), [Ok(()); 3]);
    assert_eq!(tell(&mut s, 3, 0), Err(Refusal::TooManyFromAddress));
    s.sweep(Time::from_secs(900));
    assert_eq!(tell(&mut s, 3, 900), Ok(()));
}
