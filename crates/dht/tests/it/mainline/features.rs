//! What one node says, another finds: every request, over both families, as time passes.

use super::world::{World, loopback, public, public6};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::mainline::{Config, Health, Mainline, Snapshot};
use shoal_dht::{Answer, Failure, Id, Item, Mutable, Request};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

fn signed(seq: i64, salt: &[u8]) -> Item {
    let value = format!("i{}e", seq * 100).into_bytes();
    Item::Mutable(Box::new(Mutable::sign(&key(), salt, seq, value).unwrap()))
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

fn read(salt: &[u8], newer_than: Option<i64>) -> Request {
    Request::GetMutable {
        key: key().verifying_key().to_bytes(),
        salt: salt.to_vec(),
        newer_than,
    }
}

#[test]
fn two_nodes_are_a_network() {
    let mut world = World::new(1);
    world.add(loopback(0), Config::default());
    let config = Config {
        bootstrap: vec![loopback(0)],
        ..Config::default()
    };
    world.add(loopback(1), config);
    // At once: the lookup itself begins with the node to start from.
    let (_, done) = world.ask(loopback(1), put(signed(1, b"")));
    assert_eq!(done.unwrap().stored, 1);
    let (told, done) = world.ask(loopback(0), read(b"", None));
    assert_eq!(told, [Answer::Value(signed(1, b""))]);
    done.unwrap();
    let (told, _) = world.ask(loopback(1), read(b"", None));
    assert_eq!(told, [Answer::Value(signed(1, b""))]);
    let announce = Request::Announce {
        key: Id([1; 20]),
        port: None,
        seed: true,
        keep: false,
    };
    world.ask(loopback(1), announce).1.unwrap();
    let (told, _) = world.ask(loopback(0), Request::Peers { key: Id([1; 20]) });
    assert_eq!(told[0], Answer::Peers(vec![loopback(1)]));
    assert_eq!(world.nodes[&loopback(0)].status().health, Health::Online);
}

#[test]
fn a_node_alone_says_that_it_knows_nobody_and_one_cut_off_that_it_is_offline() {
    let mut world = World::new(2);
    world.add(loopback(0), Config::default());
    let (_, done) = world.ask(loopback(0), Request::Peers { key: Id([1; 20]) });
    assert_eq!(done, Err(Failure::NoContacts));
    world.run(MINUTE);
    assert_eq!(world.nodes[&loopback(0)].status().health, Health::Empty);
    assert!(world.nodes[&loopback(0)].wants_contacts());
    let config = Config {
        bootstrap: vec![loopback(50), loopback(51)],
        ..Config::default()
    };
    world.add(loopback(1), config);
    let (_, done) = world.ask(loopback(1), Request::Peers { key: Id([1; 20]) });
    assert_eq!(done, Err(Failure::Offline(2)));
    world.run(MINUTE);
    assert_eq!(world.nodes[&loopback(1)].status().health, Health::Offline);
    // Given somebody who is there, it is no longer alone.
    world.with(loopback(1), |node, now, _| {
        node.add_contacts(now, &[loopback(0)]);
    });
    world.run(MINUTE);
    assert_eq!(world.nodes[&loopback(1)].status().health, Health::Online);
    let (_, done) = world.ask(loopback(1), Request::Peers { key: Id([1; 20]) });
    assert_eq!(done, Err(Failure::NotFound(1)));
}

#[test]
fn mutable_items_rise_in_sequence_and_cas_guards_them() {
    let mut world = World::loopback(3, 30);
    world.ask(loopback(3), put(signed(5, b"a"))).1.unwrap();
    let (_, done) = world.ask(loopback(9), put(signed(4, b"a")));
    assert_eq!(done, Err(Failure::OlderThan(5)));
    let guarded = |cas| Request::Put {
        item: signed(7, b"a"),
        cas: Some(cas),
        keep: false,
    };
    let (_, done) = world.ask(loopback(9), guarded(4));
    assert_eq!(done, Err(Failure::CasMismatch));
    let (_, done) = world.ask(loopback(9), guarded(5));
    assert_eq!(done.unwrap().stored, 8);
    let (told, done) = world.ask(loopback(20), read(b"a", Some(5)));
    done.unwrap();
    assert_eq!(told, [Answer::Value(signed(7, b"a"))]);
    let (told, done) = world.ask(loopback(20), read(b"a", Some(7)));
    assert!(told.is_empty() && matches!(done, Err(Failure::NotFound(_))));
    let (_, done) = world.ask(loopback(20), read(b"b", None));
    assert!(matches!(done, Err(Failure::NotFound(_))), "another salt");
    let mut forged = signed(9, b"a");
    if let Item::Mutable(item) = &mut forged {
        item.seq = 10;
    }
    let (_, done) = world.ask(loopback(9), put(forged));
    assert!(matches!(done, Err(Failure::Invalid(_))));
}

#[test]
fn peers_are_counted_by_scrapes() {
    let mut world = World::internet(4, 30);
    let key = Id::hash(b"counted");
    for i in 0..20 {
        let announce = Request::Announce {
            key,
            port: Some(7000),
            seed: i < 5,
            keep: false,
        };
        world.ask(public(i), announce).1.unwrap();
    }
    let reader = public(25);
    let (told, _) = world.ask(reader, Request::Peers { key });
    let count = |told: &[Answer]| match told.last() {
        Some(Answer::Scrape { seeds, leechers }) => (*seeds, *leechers),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&told), (5, 15));
    let op = world.with(reader, |node, now, out| node.scrape(now, key, out));
    let (told, done) = world.complete(reader, op);
    done.unwrap();
    assert_eq!(count(&told), (5, 15));
}

#[test]
fn keys_are_sampled_and_no_node_is_asked_before_its_interval() {
    let mut world = World::loopback(5, 30);
    for i in 0..10u8 {
        let announce = Request::Announce {
            key: Id::hash(&[i]),
            port: Some(1),
            seed: false,
            keep: false,
        };
        world.ask(loopback(i.into()), announce).1.unwrap();
    }
    let sample = |world: &mut World| {
        let target = Id::hash(&[0]);
        let op = world.with(loopback(20), |node, now, out| node.sample(now, target, out));
        let (told, done) = world.complete(loopback(20), op);
        done.unwrap();
        let keys = told.iter().flat_map(|a| match a {
            Answer::Samples { keys, .. } => keys.clone(),
            other => panic!("{other:?}"),
        });
        keys.collect::<Vec<_>>()
    };
    assert!(sample(&mut world).contains(&Id::hash(&[0])));
    assert!(sample(&mut world).is_empty(), "too soon");
    world.run(11 * MINUTE);
    assert!(!sample(&mut world).is_empty());
}

#[test]
fn what_is_kept_outlives_its_expiry_and_its_first_holders() {
    let mut world = World::loopback(6, 40);
    let keeper = loopback(7);
    let kept = world.request(
        keeper,
        Request::Put {
            item: signed(1, b""),
            cas: None,
            keep: true,
        },
    );
    let key = Id::hash(b"kept");
    let announced = world.request(
        keeper,
        Request::Announce {
            key,
            port: Some(9),
            seed: false,
            keep: true,
        },
    );
    world.run(MINUTE);
    for target in [signed(1, b"").target(), key] {
        for node in world.truth(&target).into_iter().take(8) {
            if node.addr != keeper {
                world.dead.insert(node.addr);
            }
        }
    }
    world.run(3 * 60 * MINUTE);
    let reader = world.any();
    let (told, done) = world.ask(reader, read(b"", None));
    done.unwrap();
    assert_eq!(told, [Answer::Value(signed(1, b""))]);
    let (told, _) = world.ask(reader, Request::Peers { key });
    assert_eq!(told[0], Answer::Peers(vec![([127, 0, 0, 1], 9).into()]));
    // One round an hour for the item and about two for the peer.
    let rounds = |op| {
        let told = &world.answers[&(keeper, op)];
        let ends = told.iter().filter(|(_, a)| matches!(a, Answer::Done(_)));
        ends.count()
    };
    assert!((3..=5).contains(&rounds(kept)), "{}", rounds(kept));
    assert!(
        (6..=9).contains(&rounds(announced)),
        "{}",
        rounds(announced)
    );
    world.with(keeper, |node, now, out| {
        use shoal_dht::Dht;
        node.cancel(now, kept, out);
        node.cancel(now, announced, out);
    });
    world.run(3 * 60 * MINUTE);
    let (_, done) = world.ask(reader, read(b"", None));
    assert!(matches!(done, Err(Failure::NotFound(_))));
    let (_, done) = world.ask(reader, Request::Peers { key });
    assert!(matches!(done, Err(Failure::NotFound(_))));
}

#[test]
fn a_subscriber_hears_of_a_new_value_within_seconds_at_little_cost() {
    let mut world = World::loopback(7, 40);
    let salt = b"news".to_vec();
    let subscribe = Request::Subscribe {
        key: key().verifying_key().to_bytes(),
        salt: salt.clone(),
    };
    world.ask(loopback(1), put(signed(1, &salt))).1.unwrap();
    let readers: Vec<_> = (10..15).map(loopback).collect();
    let ops: Vec<_> = readers
        .iter()
        .map(|r| (*r, world.request(*r, subscribe.clone())))
        .collect();
    world.run(10 * MINUTE);
    let before = world.sent;
    world.run(10 * MINUTE);
    let idle = (world.sent - before).datagrams as f64;
    let reads = idle / 600.0 - 0.33 * 40.0;
    assert!(reads / 5.0 < 0.35, "{reads} datagrams a second for five");
    for seq in 2..6 {
        let written = world.now;
        world.ask(loopback(1), put(signed(seq, &salt))).1.unwrap();
        world.run(Duration::from_secs(15));
        for reader in &ops {
            let (at, told) = world.answers[reader].last().unwrap();
            assert_eq!(*told, Answer::Value(signed(seq, &salt)));
            assert!(at.since(written) < Duration::from_secs(14));
        }
        world.run(3 * MINUTE);
    }
    // A write by the same node does not wait for the next read.
    let written = world.now;
    world.ask(readers[0], put(signed(9, &salt))).1.unwrap();
    let (at, told) = world.answers[&ops[0]].last().unwrap();
    assert_eq!(*told, Answer::Value(signed(9, &salt)));
    assert!(at.since(written) < Duration::from_secs(1));
}

#[test]
fn both_families_are_found_from_either() {
    let mut world = World::new(8);
    world.delay = Duration::from_millis(10);
    // Here a node of both families is two nodes of the map behind one core each; so one core with
    // both tables stands on its IPv4 address, and its IPv6 address is an alias.
    for i in 0..24u16 {
        let config = Config {
            v4: true,
            v6: true,
            bootstrap: vec![public(0)],
            ..Config::default()
        };
        world.add(public(i), config);
        world.alias(public6(i), public(i));
        world.run(Duration::from_millis(500));
    }
    // IPv6 contacts can only come from answers over IPv4, and first of all from one given one.
    world.with(public(1), |node, now, _| {
        node.add_contacts(now, &[public6(0)]);
    });
    world.run(20 * MINUTE);
    let sizes: Vec<_> = world.nodes.values().map(|n| n.status().contacts).collect();
    assert!(
        sizes.iter().all(|[v4, v6]| *v4 >= 12 && *v6 >= 12),
        "{sizes:?}"
    );
    let key = Id::hash(b"both");
    let announce = Request::Announce {
        key,
        port: Some(5),
        seed: false,
        keep: false,
    };
    let (_, done) = world.ask(public(3), announce);
    assert_eq!(done.unwrap().stored, 16);
    let (told, _) = world.ask(public(9), Request::Peers { key });
    let mut peers: Vec<_> = told
        .iter()
        .filter_map(|a| match a {
            Answer::Peers(peers) => Some(peers.clone()),
            _ => None,
        })
        .flatten()
        .map(|p| p.ip())
        .collect();
    peers.sort();
    assert_eq!(peers, [public(3).ip(), public6(3).ip()]);
}

#[test]
fn a_read_only_node_uses_the_network_and_is_in_no_table() {
    let mut world = World::loopback(9, 20);
    let config = Config {
        read_only: true,
        bootstrap: vec![loopback(0)],
        ..Config::default()
    };
    world.add(loopback(100), config);
    world.run(20 * MINUTE);
    assert!(world.nodes[&loopback(100)].status().contacts[0] >= 19);
    let (_, done) = world.ask(loopback(100), put(signed(1, b"")));
    assert_eq!(done.unwrap().stored, 8);
    for node in world.nodes.values() {
        let known = node.snapshot().contacts;
        assert!(known.iter().all(|n| n.addr != loopback(100)));
    }
}

#[test]
fn a_node_starts_again_from_its_snapshot_alone() {
    let mut world = World::loopback(10, 30);
    let old = world.nodes[&loopback(5)].snapshot();
    let bytes = old.to_bytes();
    let snapshot = Snapshot::from_bytes(&bytes).unwrap();
    assert_eq!(snapshot, old);
    let node = Mainline::new(
        world.now,
        Config::default(),
        Some(snapshot),
        Rng::from_seed(1),
    );
    world.insert(loopback(5), node);
    world.run(MINUTE);
    let status = world.nodes[&loopback(5)].status();
    assert_eq!(world.nodes[&loopback(5)].id(false), old.id4);
    assert_eq!(status.health, Health::Online);
    assert!(status.contacts[0] >= 20, "{}", status.contacts[0]);
}

#[test]
fn the_network_is_joined_again_when_it_returns_and_nothing_is_forgotten_meanwhile() {
    let mut world = World::loopback(11, 30);
    let cut = loopback(5);
    let before = world.nodes[&cut].status().contacts[0];
    world.dead.insert(cut);
    world.run(2 * 60 * MINUTE);
    let status = world.nodes[&cut].status();
    assert_eq!(status.health, Health::Offline);
    assert_eq!(status.contacts[0], before, "nobody is to blame");
    let sent = world.sent;
    let hour = world.now;
    world.run(10 * MINUTE);
    assert!(hour > Time::ZERO && world.sent.datagrams > sent.datagrams);
    world.dead.remove(&cut);
    world.run(2 * MINUTE);
    assert_eq!(world.nodes[&cut].status().health, Health::Online);
    let (_, done) = world.ask(cut, put(signed(1, b"")));
    assert_eq!(done.unwrap().stored, 8);
    // The others have dropped it, and take it again.
    world.run(5 * MINUTE);
    let knows = |n: &Mainline| n.snapshot().contacts.iter().any(|c| c.addr == cut);
    assert!(world.nodes.values().filter(|n| knows(n)).count() >= 15);
}
