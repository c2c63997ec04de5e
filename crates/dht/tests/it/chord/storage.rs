//! The DHT interface on a ring: items, replicas, peers, subscriptions, words.

use super::net::{Net, address, settings};
use ed25519_dalek::SigningKey;
use shoal_dht::chord::{ITEM_LIFE, Limits, Settings};
use shoal_dht::keywords::Record;
use shoal_dht::{Answer, Dht, Failure, Id, Item, Mutable, Request};
use std::net::SocketAddr;
use std::time::Duration;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

fn mutable(seq: i64, value: &str) -> Item {
    let value = format!("{}:{value}", value.len()).into_bytes();
    Item::Mutable(Box::new(
        Mutable::sign(&key(), b"salt", seq, value).expect("valid"),
    ))
}

fn immutable(n: usize) -> Item {
    Item::immutable(format!("i{n}e").into_bytes()).expect("valid")
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

fn get() -> Request {
    Request::GetMutable {
        key: key().verifying_key().to_bytes(),
        salt: b"salt".to_vec(),
        newer_than: None,
    }
}

#[test]
fn everybody_finds_what_anybody_put() {
    let mut net = Net::ring(1, 12, &settings());
    for i in 0..12 {
        let item = immutable(i);
        let (_, end) = net.ask(address(i as u16), put(item.clone()));
        assert_eq!(end.expect("stored").stored, 4);
        let order = net.order(item.target());
        let mut holders = net.holders(item.target());
        holders.sort_by_key(|h| order.iter().position(|o| o == h));
        assert_eq!(holders, order[..4], "the owner and its three successors");
        let target = item.target();
        for other in [0, 5, 11] {
            let (values, end) = net.ask(address(other), Request::GetImmutable { target });
            assert_eq!(values, [Answer::Value(item.clone())]);
            assert!(end.is_ok());
        }
    }
    let target = Id([9; 20]);
    let (_, end) = net.ask(address(3), Request::GetImmutable { target });
    assert_eq!(end, Err(Failure::NotFound(4)));
}

#[test]
fn a_newer_value_replaces_an_older_one_and_not_the_other_way_round() {
    let mut net = Net::ring(2, 8, &settings());
    let item = mutable(5, "five");
    assert!(net.ask(address(1), put(item.clone())).1.is_ok());
    assert!(
        net.ask(address(1), put(item.clone())).1.is_ok(),
        "the same again"
    );
    assert_eq!(
        net.ask(address(2), put(mutable(4, "four"))).1,
        Err(Failure::OlderThan(5))
    );
    assert_eq!(
        net.ask(address(2), put(mutable(5, "other"))).1,
        Err(Failure::OlderThan(5)),
        "one number, one value"
    );
    let cas = |cas, item| Request::Put {
        item,
        cas: Some(cas),
        keep: false,
    };
    assert_eq!(
        net.ask(address(2), cas(4, mutable(6, "six"))).1,
        Err(Failure::CasMismatch)
    );
    assert!(net.ask(address(2), cas(5, mutable(6, "six"))).1.is_ok());
    let (values, _) = net.ask(address(7), get());
    assert_eq!(values, [Answer::Value(mutable(6, "six"))]);
    let forged = match mutable(7, "seven") {
        Item::Mutable(mut m) => {
            m.seq = 8;
            Item::Mutable(m)
        }
        item => item,
    };
    assert!(matches!(
        net.ask(address(2), put(forged)).1,
        Err(Failure::Invalid(_))
    ));
}

#[test]
fn replicas_are_made_again_when_holders_die() {
    let mut net = Net::ring(3, 12, &settings());
    let items: Vec<_> = (0..10).map(immutable).collect();
    for item in &items {
        assert!(net.ask(address(0), put(item.clone())).1.is_ok());
    }
    // Three of four holders of the first item die at once; others lose some too.
    let order = net.order(items[0].target());
    for dead in &order[..3] {
        net.nodes.remove(dead);
    }
    let alive = *net.nodes.keys().next().expect("a node");
    net.run(Duration::from_secs(240));
    for item in &items {
        let target = item.target();
        let order = net.order(target);
        let holders = net.holders(target);
        assert!(
            order[..4].iter().all(|o| holders.contains(o)),
            "{target}: {holders:?}, should be {:?}",
            &order[..4]
        );
        let (values, _) = net.ask(alive, Request::GetImmutable { target });
        assert_eq!(values, [Answer::Value(item.clone())]);
    }
}

#[test]
fn a_newcomer_is_handed_its_keys_and_a_leaver_hands_over_its_own() {
    let one = Settings {
        replicas: 1,
        ..settings()
    };
    let mut net = Net::ring(4, 5, &one);
    let items: Vec<_> = (0..40).map(immutable).collect();
    for item in &items {
        assert!(net.ask(address(0), put(item.clone())).1.is_ok());
    }
    let new = net.add(40, &one);
    net.run(Duration::from_secs(60));
    let own = |net: &Net| {
        items
            .iter()
            .filter(|i| net.order(i.target())[0] == new)
            .count()
    };
    assert!(own(&net) > 0, "the seed gives it some");
    for item in &items {
        let owner = net.order(item.target())[0];
        assert!(net.holders(item.target()).contains(&owner));
    }
    let leaver = address(2);
    net.with(leaver, |node, now, out| node.leave(now, out));
    net.run(Duration::from_secs(2));
    net.nodes.remove(&leaver);
    net.run(Duration::from_secs(5));
    for item in &items {
        let owner = net.order(item.target())[0];
        assert!(net.holders(item.target()).contains(&owner));
    }
}

#[test]
fn items_end_unless_they_are_kept_up() {
    let mut net = Net::ring(5, 4, &settings());
    let (once, kept) = (immutable(1), mutable(1, "kept"));
    assert!(net.ask(address(0), put(once.clone())).1.is_ok());
    let keep = Request::Put {
        item: kept.clone(),
        cas: None,
        keep: true,
    };
    assert!(net.ask(address(0), keep).1.is_ok());
    net.run(ITEM_LIFE + Duration::from_secs(120));
    assert_eq!(net.holders(once.target()), []);
    assert_eq!(net.holders(kept.target()).len(), 4);
}

#[test]
fn peers_of_a_key_are_found_and_counted() {
    let mut net = Net::ring(6, 10, &settings());
    let key = Id::hash(b"content");
    for n in 0..5 {
        let announce = Request::Announce {
            key,
            port: (n > 0).then_some(9000 + n),
            seed: n < 2,
            keep: false,
        };
        assert!(net.ask(address(n), announce).1.is_ok());
    }
    let (answers, end) = net.ask(address(9), Request::Peers { key });
    assert!(end.is_ok());
    let mut peers = Vec::new();
    for answer in answers {
        match answer {
            Answer::Peers(more) => peers.extend(more),
            other => assert_eq!(
                other,
                Answer::Scrape {
                    seeds: 2,
                    leechers: 3
                }
            ),
        }
    }
    peers.sort();
    let mut expected = vec![address(0)];
    for n in 1..5 {
        let mut peer = address(n);
        peer.set_port(9000 + n);
        expected.push(peer);
    }
    assert_eq!(peers, expected);
    let nobody = Request::Peers { key: Id([1; 20]) };
    assert!(matches!(
        net.ask(address(9), nobody).1,
        Err(Failure::NotFound(_))
    ));
}

#[test]
fn one_publisher_cannot_fill_the_others_memory() {
    let small = Settings {
        limits: Limits {
            per_publisher: 5,
            ..Limits::default()
        },
        ..settings()
    };
    let mut net = Net::ring(7, 3, &small);
    let ends: Vec<_> = (0..8)
        .map(|i| net.ask(address(0), put(immutable(i))).1)
        .collect();
    assert!(ends[..5].iter().all(Result::is_ok));
    assert!(
        ends[5..]
            .iter()
            .all(|e| matches!(e, Err(Failure::Refused(_)))),
        "{ends:?}"
    );
    assert!(net.ask(address(1), put(immutable(9))).1.is_ok());
}

/// Sixteen nodes subscribe, hear of three values each within five seconds, and of a fourth after
/// the owner has died.
fn subscribers_hear(seed: u64, loss: f64) {
    let mut net = Net::ring(seed, 16, &settings());
    let subscribe = || Request::Subscribe {
        key: key().verifying_key().to_bytes(),
        salt: b"salt".to_vec(),
    };
    let mut ops = Vec::new();
    for n in 0..16 {
        let request = subscribe();
        ops.push(net.with(address(n), |node, now, out| node.request(now, request, out)));
    }
    net.run(Duration::from_secs(10));
    net.loss = loss;
    let hear = |net: &mut Net, seq: i64, without: Option<SocketAddr>| {
        let item = mutable(seq, "news");
        let writers = [3, 4].map(address);
        let writer = writers.into_iter().find(|w| Some(*w) != without);
        let end = net.ask(writer.expect("one lives"), put(item.clone())).1;
        assert!(end.is_ok(), "{end:?}, seed {seed}, loss {loss}");
        net.run(Duration::from_secs(5));
        for (n, op) in (0u16..).zip(&ops) {
            if Some(address(n)) != without {
                let heard = net.answers.remove(&(address(n), *op)).unwrap_or_default();
                let expected = [Answer::Value(item.clone())];
                assert_eq!(heard, expected, "node {n}, seed {seed}, loss {loss}");
            }
        }
    };
    for seq in 1..4 {
        hear(&mut net, seq, None);
    }
    // The node that carried most of the tree dies; the tree grows again.
    let owner = net.order(mutable(1, "").target())[0];
    net.loss = 0.0;
    net.nodes.remove(&owner);
    net.run(Duration::from_secs(90));
    hear(&mut net, 9, Some(owner));
}

#[test]
fn subscribers_hear_of_a_new_value_within_seconds() {
    subscribers_hear(8, 0.0);
    for seed in 1..41 {
        subscribers_hear(seed, 0.1);
    }
}

#[test]
fn a_ring_of_many_positions_works_as_one() {
    let many = Settings {
        positions: 4,
        ..settings()
    };
    let mut net = Net::ring(9, 6, &many);
    for n in 0..6 {
        let node = &net.nodes[&address(n)];
        assert_eq!(node.positions().len(), 4);
        assert!(node.positions().iter().all(|p| p.predecessor().is_some()));
    }
    for i in 0..12 {
        let item = immutable(i);
        let (_, end) = net.ask(address(i as u16 % 6), put(item.clone()));
        assert!(end.is_ok(), "{end:?}");
        let target = item.target();
        let (values, _) = net.ask(
            address((i as u16 + 3) % 6),
            Request::GetImmutable { target },
        );
        assert_eq!(values, [Answer::Value(item)]);
    }
    // Replicas are on different nodes.
    net.run(Duration::from_secs(60));
    for i in 0..12 {
        assert!(net.holders(immutable(i).target()).len() >= 4);
    }
}

#[test]
fn words_find_what_has_them_all() {
    let mut net = Net::ring(10, 10, &settings());
    let titles = [
        "Led Zeppelin IV",
        "Led Zeppelin live",
        "Zeppelin airships",
        "led lights",
    ];
    for (n, title) in (0u8..).zip(titles) {
        let record = Record::sign(&key(), Id([n; 20]), 100, 1, title);
        let request = Request::Publish {
            record,
            keep: false,
        };
        let (_, end) = net.ask(address(n.into()), request);
        let words = title.split(' ').count() as u32;
        assert_eq!(end.map(|o| o.stored), Ok(words), "words that took it");
    }
    let guest = net.guest(90, &settings());
    for asker in [address(7), guest] {
        found_by_words(&mut net, asker, &titles);
    }
}

fn found_by_words(net: &mut Net, asker: SocketAddr, titles: &[&str]) {
    let mut find = |query: &str| {
        let request = Request::Find {
            words: query.to_owned(),
            most: 20,
        };
        let (answers, end) = net.ask(asker, request);
        let mut titles = Vec::new();
        for answer in answers {
            let Answer::Records(records) = answer else {
                panic!("{answer:?}");
            };
            titles.extend(records.into_iter().map(|r| r.title));
        }
        titles.sort();
        end.map(|_| titles)
    };
    assert_eq!(
        find("LED zeppelin"),
        Ok(titles[..2].iter().map(|t| (*t).to_owned()).collect())
    );
    assert_eq!(find("airships zeppelin"), Ok(vec![titles[2].to_owned()]));
    assert!(matches!(find("led airships"), Err(Failure::NotFound(_))));
    assert!(matches!(find("nothing"), Err(Failure::NotFound(_))));
    assert!(matches!(find(" - "), Err(Failure::Invalid(_))));
}

/// A guest asks, announces and subscribes like a member, and leaves no trace in the ring.
#[test]
fn a_guest_does_all_without_joining() {
    let mut net = Net::ring(11, 10, &settings());
    let guest = net.guest(90, &settings());
    net.loss = 0.1;
    let item = immutable(3);
    let target = item.target();
    assert_eq!(
        net.ask(guest, put(item.clone())).1.map(|o| o.stored),
        Ok(4),
        "on four members"
    );
    let (values, _) = net.ask(address(4), Request::GetImmutable { target });
    assert_eq!(values, [Answer::Value(item.clone())]);
    let (values, _) = net.ask(guest, Request::GetImmutable { target });
    assert_eq!(values, [Answer::Value(item)]);
    let key = Id::hash(b"content");
    let announce = Request::Announce {
        key,
        port: Some(77),
        seed: true,
        keep: false,
    };
    assert!(net.ask(guest, announce).1.is_ok());
    let (answers, _) = net.ask(address(6), Request::Peers { key });
    let mut at = guest;
    at.set_port(77);
    assert_eq!(answers[0], Answer::Peers(vec![at]));
    let subscribe = Request::Subscribe {
        key: self::key().verifying_key().to_bytes(),
        salt: b"salt".to_vec(),
    };
    let op = net.with(guest, |node, now, out| node.request(now, subscribe, out));
    net.run(Duration::from_secs(5));
    let news = mutable(1, "news");
    assert!(net.ask(address(2), put(news.clone())).1.is_ok());
    net.run(Duration::from_secs(5));
    let heard = net.answers.remove(&(guest, op));
    assert_eq!(heard, Some(vec![Answer::Value(news)]));
    assert!(!net.nodes[&guest].is_member());
    assert_eq!(net.nodes[&guest].items(), 0);
    for n in 0..10 {
        let known = net.nodes[&address(n)].known();
        assert!(known.len() >= 8 && !known.contains(&guest), "{known:?}");
    }
}

#[test]
fn a_guest_finds_another_door_when_its_first_is_shut() {
    let mut net = Net::ring(12, 4, &settings());
    let guest = net.guest(90, &settings());
    let doors = [address(50), address(51), address(2)];
    net.with(guest, |node, now, out| node.join(now, &doors, out));
    let item = immutable(3);
    assert_eq!(net.ask(guest, put(item)).1.map(|o| o.stored), Ok(4));
    net.with(guest, |node, now, out| node.join(now, &doors[..2], out));
    assert_eq!(net.ask(guest, get()).1, Err(Failure::Offline(2)));
}
