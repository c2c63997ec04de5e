//! Swarms of real cores: that they complete, share fairly, find each other and survive liars.

use crate::world::{UPLINK, World};
use shoal_base::bencode::Encoder;
use shoal_base::{Bitfield, InfoHash, PeerId, Rng, Time};
use shoal_bittorrent::choker::Choking;
use shoal_bittorrent::extension::ExtensionHandshake;
use shoal_bittorrent::peers::Sources;
use shoal_bittorrent::torrent::{Output, Torrent, TorrentConfig};
use shoal_bittorrent::wire::Message;
use shoal_content::Info;
use shoal_content::download::Mode;
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn info(len: u64, piece_len: u32, private: bool) -> Info {
    let pieces = len.div_ceil(u64::from(piece_len)) as usize;
    let mut e = Encoder::new();
    e.dict(|d| {
        d.key("length").int(len as i64);
        d.key("name").bytes("content.bin");
        d.key("piece length").int(i64::from(piece_len));
        d.key("pieces").bytes(vec![7; pieces * 20]);
        if private {
            d.key("private").int(1);
        }
    });
    Info::parse(&e.into_bytes()).expect("a valid info dictionary")
}

fn swarm(seed: u64, len: u64, piece_len: u32, private: bool) -> (World, u32) {
    let info = info(len, piece_len, private);
    let pieces = info.geometry().pieces();
    (World::new(info, seed), pieces)
}

fn all_done(nodes: std::ops::Range<usize>) -> impl Fn(&World) -> bool {
    move |w| {
        nodes
            .clone()
            .all(|n| w.nodes[n].verified.is_full() && !w.nodes[n].verified.is_empty())
    }
}

#[test]
fn a_leecher_fetches_everything_from_a_seed() {
    for seed in 0..5 {
        let (mut w, pieces) = swarm(seed, 5_000_001, 65_536, false);
        w.add(Some(Bitfield::full(pieces)), UPLINK);
        w.add(Some(Bitfield::new(pieces)), UPLINK);
        w.introduce(1, 0);
        w.run_until(MINUTE, |w| w.nodes[1].finished_at.is_some());
        assert!(w.nodes[1].verified.is_full());
        assert!(w.nodes[0].uploaded < 5_100_000, "blocks were sent twice");
    }
}

#[test]
fn a_magnet_gets_its_metadata_and_then_the_content() {
    let (mut w, pieces) = swarm(7, 3_000_000, 16_384, false);
    w.add(Some(Bitfield::full(pieces)), UPLINK);
    w.add(None, UPLINK);
    w.introduce(1, 0);
    w.run_until(MINUTE, all_done(0..2));
    assert!(w.nodes[1].metadata);
}

#[test]
fn metadata_spreads_from_a_peer_that_got_it_from_a_peer() {
    let (mut w, pieces) = swarm(8, 2_000_000, 16_384, false);
    w.add(Some(Bitfield::full(pieces)), UPLINK);
    w.add(None, UPLINK);
    w.add(None, UPLINK);
    w.introduce(1, 0);
    w.introduce(2, 1);
    w.run_until(3 * MINUTE, all_done(0..3));
}

#[test]
fn five_leechers_share_what_one_seed_sends_once() {
    for seed in 0..3 {
        let len = 50_000_000;
        let (mut w, pieces) = swarm(seed, len, 262_144, false);
        w.add(Some(Bitfield::full(pieces)), UPLINK);
        for leecher in 1..=5 {
            w.add(Some(Bitfield::new(pieces)), UPLINK);
            for other in 0..leecher {
                w.introduce(leecher, other);
            }
        }
        let took = w.run_until(5 * MINUTE, all_done(0..6));
        let ideal = len as f64 / UPLINK as f64;
        let ratio = took.as_secs_f64() / ideal;
        let sent = w.nodes[0].uploaded as f64 / len as f64;
        assert!(ratio < 1.6, "seed {seed}: took {ratio:.2} of the ideal");
        assert!(
            sent < 1.3,
            "seed {seed}: the seed sent {sent:.2} of the payload"
        );
    }
}

#[test]
fn a_liar_among_honest_seeds_is_banned_and_the_rest_completes() {
    for seed in 0..5 {
        let (mut w, pieces) = swarm(seed, 8_000_000, 131_072, false);
        for _ in 0..4 {
            w.add(Some(Bitfield::full(pieces)), UPLINK);
        }
        w.nodes[2].lies = true;
        let leecher = w.add(Some(Bitfield::new(pieces)), UPLINK);
        for n in 0..4 {
            w.introduce(leecher, n);
        }
        w.run_until(5 * MINUTE, |w| w.nodes[4].finished_at.is_some());
        let liar = w.addr(2);
        assert_eq!(w.nodes[leecher].banned, [liar], "seed {seed}");
    }
}

#[test]
fn peers_meet_through_peer_exchange() {
    let (mut w, pieces) = swarm(3, 40_000_000, 262_144, false);
    w.add(Some(Bitfield::full(pieces)), UPLINK / 20);
    for n in 1..4 {
        w.add(Some(Bitfield::new(pieces)), UPLINK);
        w.introduce(n, 0);
    }
    w.run_until(5 * MINUTE, |w| {
        (1..4).all(|n| w.nodes[n].core.peer_addrs().count() == 3)
    });
}

#[test]
fn a_private_torrent_does_not_exchange_peers() {
    let (mut w, pieces) = swarm(3, 10_000_000, 262_144, true);
    w.add(Some(Bitfield::full(pieces)), UPLINK / 20);
    for n in 1..4 {
        w.add(Some(Bitfield::new(pieces)), UPLINK);
        w.introduce(n, 0);
    }
    w.run_until(5 * MINUTE, all_done(0..4));
    assert!((1..4).all(|n| w.nodes[n].core.peer_addrs().count() <= 1));
}

#[test]
fn a_node_does_not_talk_to_itself() {
    let (mut w, pieces) = swarm(3, 1_000_000, 262_144, false);
    let seed = w.add(Some(Bitfield::full(pieces)), UPLINK);
    let leecher = w.add(Some(Bitfield::new(pieces)), UPLINK);
    w.introduce(leecher, leecher);
    w.introduce(leecher, seed);
    w.run_until(MINUTE, all_done(0..2));
}

#[test]
fn two_behind_walls_meet_by_the_overlay_through_somebody_both_know() {
    let (mut w, pieces) = swarm(3, 5_000_001, 65_536, false);
    let seed = w.add(Some(Bitfield::full(pieces)), UPLINK);
    let [leecher, third, plain] = [(); 3].map(|()| w.add(Some(Bitfield::new(pieces)), UPLINK));
    let places = [seed, leecher, third].map(|n| w.join_overlay(n));
    w.nodes[seed].walled = true;
    w.nodes[leecher].walled = true;
    for node in [seed, leecher, plain] {
        w.introduce(node, third);
    }
    let met = |w: &World| {
        let mut peers = w.nodes[leecher].core.peer_addrs();
        peers.any(|a| a.ip() == places[0].ip())
            || w.nodes[seed]
                .core
                .peer_addrs()
                .any(|a| a.ip() == places[1].ip())
    };
    w.run_until(MINUTE, met);
    w.run_until(2 * MINUTE, all_done(1..4));
    // Nobody who is not on the overlay hears of its addresses, and who is connected as it is dials nobody so.
    assert!(w.nodes[plain].dialed.iter().all(|a| a.is_ipv4()));
    for node in [seed, leecher] {
        assert!(!w.nodes[node].dialed.contains(&places[2]));
    }
}

/// A node that dials a peer which then connects to it: what is asked for besides, and whether the
/// incoming connection stays.
fn crossed_dial(ours: u8, theirs: u8) -> (Vec<SocketAddr>, bool) {
    let (hash, rng, now) = (InfoHash([1; 20]), Rng::from_seed(1), Time::from_secs(1));
    let config = TorrentConfig {
        max_peers: 10,
        max_half_open: 10,
        listen_port: Some(6881),
        up_limit: None,
        mode: Mode::default(),
        choking: Choking::default(),
        client: "test".into(),
    };
    let mut core = Torrent::with_hash(now, config, PeerId([ours; 20]), hash, rng);
    let listens: SocketAddr = "10.0.0.2:6881".parse().unwrap();
    let mut out = Vec::new();
    core.on_peers(now, Sources::TRACKER, &[listens]);
    core.on_tick(now, &mut out);
    assert!(matches!(out[..], [Output::Connect(a)] if a == listens));
    out.clear();
    let mut handshake = core.handshake();
    handshake.peer_id = PeerId([theirs; 20]);
    let from = SocketAddr::new(listens.ip(), 40_000);
    core.on_connected(now, 1, from, false, &handshake, &mut out);
    let mut payload = Vec::new();
    ExtensionHandshake {
        port: Some(listens.port()),
        ..ExtensionHandshake::default()
    }
    .encode(&mut payload);
    let message = Message::Extended {
        id: 0,
        payload: &payload,
    };
    core.on_message(now, 1, &message, &mut out);
    let given_up = out.iter().filter_map(|o| match o {
        Output::GiveUpDial(addr) => Some(*addr),
        _ => None,
    });
    let stays = !out.iter().any(|o| matches!(o, Output::Close { .. }));
    (given_up.collect(), stays)
}

#[test]
fn a_dial_is_given_up_for_the_same_peers_connection_if_the_duplicate_rule_says_so() {
    // Of two connections the one that the higher id opened stays.
    let (given_up, stays) = crossed_dial(1, 2);
    assert_eq!(given_up, ["10.0.0.2:6881".parse().unwrap()]);
    assert!(stays);
    // Ours would: but until it has come to handshakes it is no reason to close theirs.
    assert_eq!(crossed_dial(2, 1), (Vec::new(), true));
}

#[test]
fn a_newcomer_finds_a_place_among_peers_that_know_more_than_they_can_take() {
    for seed in 0..4 {
        let (mut w, pieces) = swarm(seed, 2_000_000, 65_536, false);
        w.max_peers = 6;
        // Slow enough that nobody is done and gone when the newcomer comes.
        for node in 0..20 {
            let have = Bitfield::new(pieces);
            let have = if node == 0 {
                Bitfield::full(pieces)
            } else {
                have
            };
            w.add(Some(have), UPLINK / 200);
        }
        for (node, other) in (0..20).flat_map(|n| (0..20).map(move |o| (n, o))) {
            w.introduce(node, other);
        }
        let joined = w.now + Duration::from_secs(10);
        w.run_until(MINUTE, |w| w.now >= joined);
        let newcomer = w.add(Some(Bitfield::new(pieces)), UPLINK / 200);
        for other in 4..8 {
            w.introduce(newcomer, other);
        }
        let joined = w.now + Duration::from_secs(5);
        w.run_until(MINUTE, |w| w.now >= joined);
        let places = w.nodes[newcomer].core.peer_addrs().count();
        assert!(places >= 2, "seed {seed}: {places} of 4 had room");
    }
}
