//! What strangers and misfortune do to a network, and what holds. SECURITY.md says the same in
//! words.

use super::world::{World, loopback, plain, public};
use ed25519_dalek::SigningKey;
use shoal_base::Rng;
use shoal_dht::mainline::krpc::{self, Body, Call, Put, Query, Signed};
use shoal_dht::mainline::{Health, bep42};
use shoal_dht::{Answer, Failure, Id, Item, Mutable, Request};
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn value(n: usize) -> Item {
    let text = format!("value {n}");
    Item::immutable(format!("{}:{text}", text.len()).into_bytes()).unwrap()
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

/// An address that is no node's.
fn stranger(i: u8) -> SocketAddr {
    ([99, i, 9, 9], 4000).into()
}

#[test]
fn nodes_learn_their_address_and_take_an_identifier_bound_to_it() {
    let world = World::internet(21, 40);
    for (addr, node) in &world.nodes {
        assert_eq!(node.status().external[0], Some(addr.ip()));
        assert!(bep42::is_valid(&node.id(false).unwrap(), addr.ip()));
        assert_eq!(node.status().health, Health::Online);
        let contacts = node.status().contacts[0];
        assert!(contacts >= 30, "{contacts} contacts");
    }
}

#[test]
fn with_a_tenth_of_all_datagrams_lost_everything_is_found() {
    let mut world = World::internet(22, 60);
    world.loss = 0.1;
    world.run(10 * MINUTE);
    let mut stored = 0;
    for n in 0..20 {
        let (writer, reader) = (world.any(), world.any());
        let (_, done) = world.ask(writer, put(value(n)));
        stored += done.unwrap().stored;
        let target = value(n).target();
        let (told, done) = world.ask(reader, Request::GetImmutable { target });
        assert_eq!(told, [Answer::Value(value(n))]);
        done.unwrap();
    }
    assert!(stored >= 150, "{stored} of 160 copies");
}

#[test]
fn when_half_the_nodes_die_at_once_the_rest_finds_what_they_held() {
    let mut world = World::internet(23, 80);
    for n in 0..20 {
        let writer = world.any();
        world.ask(writer, put(value(n))).1.unwrap();
    }
    for i in 0..40 {
        world.dead.insert(public(i * 2));
    }
    let mut slowest = Duration::ZERO;
    let mut found = 0;
    for n in 0..20 {
        let reader = world.any();
        let begun = world.now;
        let target = value(n).target();
        let (told, _) = world.ask(reader, Request::GetImmutable { target });
        found += told.len();
        slowest = slowest.max(world.now - begun);
    }
    // With eight copies one value in 256 has lost them all.
    assert!(found >= 19, "{found} of 20");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    world.run(30 * MINUTE);
    let dead = |world: &World, addr: &SocketAddr| {
        let known = world.nodes[addr].snapshot().contacts;
        known
            .iter()
            .filter(|n| world.dead.contains(&n.addr))
            .count()
    };
    let living = |i: u16| public(i * 2 + 1);
    let left: usize = (0..40).map(|i| dead(&world, &living(i))).sum();
    assert!(left <= 40, "{left} dead contacts in 40 tables");
}

#[test]
fn poison_takes_few_places_in_a_table_and_does_not_turn_lookups() {
    let mut world = World::internet(24, 60);
    // One owner of a whole /24, with an identifier next to each node's own for every address.
    let mut rng = Rng::from_seed(5);
    let victims: Vec<_> = world.nodes.keys().copied().collect();
    for i in 1..=254u8 {
        let victim = victims[usize::from(i) % victims.len()];
        let mut id = world.nodes[&victim].id(false).unwrap();
        id.0[19] ^= i;
        world.sybils.insert(([66, 6, 6, i], 6881).into(), id);
    }
    let all: Vec<_> = world.sybils.clone().into_iter().collect();
    for _ in 0..20 {
        for (addr, id) in &all {
            let mut query = plain(
                id.0,
                Call::FindNode {
                    target: Id::random(&mut rng),
                },
            );
            query.read_only = false;
            let victim = *rng.pick(&victims).unwrap();
            world.send(*addr, victim, krpc::query(b"evil", &query));
        }
        world.run(MINUTE);
    }
    for node in world.nodes.values() {
        let known = node.snapshot().contacts;
        let poisoned = known.iter().filter(|n| world.sybils.contains_key(&n.addr));
        assert!(poisoned.count() <= 10);
    }
    for n in 0..20 {
        let (writer, reader) = (world.any(), world.any());
        world.ask(writer, put(value(n))).1.unwrap();
        let target = value(n).target();
        let (told, _) = world.ask(reader, Request::GetImmutable { target });
        assert_eq!(told, [Answer::Value(value(n))]);
    }
}

#[test]
fn unbound_identifiers_around_a_key_displace_nobody() {
    let mut world = World::internet(25, 60);
    let item = value(1);
    let target = item.target();
    // Thirty machines in as many networks, all nearer to the key than any honest node.
    for i in 0..30u8 {
        let mut id = target;
        id.0[19] ^= i + 1;
        world.sybils.insert(([70, i, 1, 1], 6881).into(), id);
    }
    let all: Vec<_> = world.sybils.clone().into_iter().collect();
    let nodes: Vec<_> = world.nodes.keys().copied().collect();
    for (addr, id) in &all {
        for node in &nodes {
            let mut query = plain(id.0, Call::FindNode { target });
            query.read_only = false;
            world.send(*addr, *node, krpc::query(b"evil", &query));
        }
    }
    world.run(20 * MINUTE);
    for _ in 0..10 {
        let (writer, reader) = (world.any(), world.any());
        world.ask(writer, put(item.clone())).1.unwrap();
        let (told, _) = world.ask(reader, Request::GetImmutable { target });
        assert_eq!(told, [Answer::Value(item.clone())]);
        let announce = Request::Announce {
            key: target,
            port: None,
            seed: false,
            keep: false,
        };
        world.ask(writer, announce).1.unwrap();
        let (told, _) = world.ask(reader, Request::Peers { key: target });
        assert!(
            told.iter()
                .any(|a| matches!(a, Answer::Peers(p) if p.contains(&writer)))
        );
    }
}

fn code(answer: Option<Vec<u8>>) -> Option<i64> {
    match krpc::read(&answer?).ok()?.body {
        Body::Error { code, .. } => Some(code),
        Body::Response(_) => Some(0),
        Body::Query(_) => None,
    }
}

fn token(world: &mut World, from: SocketAddr, node: SocketAddr) -> Vec<u8> {
    let call = Call::GetPeers {
        info_hash: Id([1; 20]),
        noseed: false,
        scrape: false,
    };
    let answer = world.probe(from, node, &krpc::query(b"t", &plain([7; 20], call)));
    let answer = answer.expect("an answer");
    let Ok(Body::Response(reply)) = krpc::read(&answer).map(|m| m.body) else {
        panic!("not a response");
    };
    reply.token.expect("a token").to_vec()
}

fn announce(token: &[u8]) -> Vec<u8> {
    let call = Call::Announce {
        info_hash: Id([1; 20]),
        port: Some(80),
        seed: false,
        token,
    };
    krpc::query(b"a", &plain([7; 20], call))
}

#[test]
fn nothing_is_stored_without_a_token_given_to_that_address_lately() {
    let mut world = World::internet(26, 2);
    let node = public(0);
    let good = token(&mut world, stranger(1), node);
    for (from, token) in [
        (stranger(1), &b""[..]),
        (stranger(1), b"12345678"),
        (stranger(2), &good),
    ] {
        assert_eq!(code(world.probe(from, node, &announce(token))), Some(203));
    }
    assert_eq!(world.nodes[&node].status().peers, 0);
    world.run(5 * MINUTE);
    let answer = world.probe(stranger(1), node, &announce(&good));
    assert_eq!(code(answer), Some(0));
    world.run(6 * MINUTE);
    let answer = world.probe(stranger(1), node, &announce(&good));
    assert_eq!(code(answer), Some(203), "too old");
    assert_eq!(world.nodes[&node].status().peers, 1);
}

#[test]
fn a_flood_from_one_address_is_cut_and_others_are_served() {
    let mut world = World::internet(27, 20);
    let node = public(3);
    let bytes = krpc::query(b"flod", &plain([7; 20], Call::Ping));
    world.stray.clear();
    for _ in 0..10_000 {
        world.send(stranger(1), node, bytes.clone());
        world.run(Duration::from_millis(1));
    }
    let answered = world.stray.len();
    assert!((200..=270).contains(&answered), "{answered} in ten seconds");
    for i in 2..40 {
        let answer = world.probe(stranger(i), node, &bytes);
        assert_eq!(code(answer), Some(0));
    }
    // It still gets answers to what it asks itself, from whomever.
    let (_, done) = world.ask(node, put(value(1)));
    assert_eq!(done.unwrap().stored, 8);
}

#[test]
fn who_asks_in_anothers_name_gains_a_factor_of_eight_at_most() {
    let mut world = World::internet(28, 40);
    let node = public(3);
    let key = Id([1; 20]);
    // Much to tell: a hundred peers of one key, many keys, and a value as long as may be.
    let good = token(&mut world, stranger(1), node);
    for port in 1..=4 {
        for i in 0..60 {
            let token = token(&mut world, stranger(i), node);
            for info_hash in [key, Id::hash(&[i])] {
                let call = Call::Announce {
                    info_hash,
                    port: Some(port),
                    seed: false,
                    token: &token,
                };
                let query = krpc::query(b"a", &plain([7; 20], call));
                assert_eq!(code(world.probe(stranger(i), node, &query)), Some(0));
            }
        }
    }
    let long = format!("996:{}", "x".repeat(996)).into_bytes();
    let target = Id::hash(&long);
    let call = Call::Put(Box::new(Put {
        token: &good,
        value: long,
        signed: None,
        cas: None,
        target: None,
    }));
    let query = krpc::query(b"p", &plain([7; 20], call));
    assert_eq!(code(world.probe(stranger(1), node, &query)), Some(0));
    world.run(MINUTE);
    // The shortest queries there are.
    let id = "2:id20:aaaaaaaaaaaaaaaaaaaa";
    let ask = |method: &str, args: &[u8]| {
        let mut bytes = format!("d1:ad{id}").into_bytes();
        bytes.extend_from_slice(args);
        bytes.extend_from_slice(format!("e1:q{}:{method}1:t1:x1:y1:qe", method.len()).as_bytes());
        bytes
    };
    let with = |name: &str, id: &Id, more: &str| {
        let mut args = format!("{}:{name}20:", name.len()).into_bytes();
        args.extend_from_slice(&id.0);
        args.extend_from_slice(more.as_bytes());
        args
    };
    let scrape = [&b"9:info_hash20:"[..], &key.0, b"6:scrapei1e"].concat();
    let queries = [
        ask("ping", b""),
        ask("find_node", &with("target", &key, "")),
        ask("get_peers", &with("info_hash", &key, "")),
        ask("get_peers", &scrape),
        ask("get", &with("target", &key, "")),
        ask("sample_infohashes", &with("target", &key, "")),
        ask("find_node", b""),
        ask("nonsense", b""),
    ];
    for query in &queries {
        let answer = world.probe(stranger(200), node, query).expect("an answer");
        assert!(
            answer.len() <= 8 * query.len(),
            "{} bytes for {}",
            answer.len(),
            query.escape_ascii()
        );
    }
    // A stored value may be more, eight times at once and once a second.
    let query = ask("get", &with("target", &target, ""));
    let (mut answered, mut whole) = (0, 0);
    for _ in 0..400 {
        let answer = world.probe(stranger(201), node, &query);
        let len = answer.map_or(0, |a| a.len());
        answered += len;
        whole += usize::from(len > 1000);
        world.run(Duration::from_millis(10));
    }
    assert!((8..=60).contains(&whole), "{whole} values");
    let ratio = answered as f64 / (400 * query.len()) as f64;
    assert!(ratio <= 8.0, "{ratio}");
}

#[test]
fn wrong_puts_are_refused_by_their_code() {
    let mut world = World::internet(29, 2);
    let node = public(0);
    let from = stranger(1);
    let token = token(&mut world, from, node);
    let key = SigningKey::from_bytes(&[9; 32]);
    let signed = |seq: i64, text: &str| {
        let value = format!("{}:{text}", text.len()).into_bytes();
        Mutable::sign(&key, b"salt", seq, value).unwrap()
    };
    let mut send = |item: &Mutable, cas: Option<i64>| {
        let call = Call::Put(Box::new(Put {
            token: &token,
            value: item.value.clone(),
            signed: Some(Signed {
                key: item.key,
                salt: &item.salt,
                seq: item.seq,
                signature: item.signature,
            }),
            cas,
            target: None,
        }));
        let query: Query<'_> = plain([7; 20], call);
        code(world.probe(from, node, &krpc::query(b"p", &query)))
    };
    assert_eq!(send(&signed(4, "a"), None), Some(0));
    assert_eq!(send(&signed(3, "b"), None), Some(302));
    assert_eq!(send(&signed(4, "b"), None), Some(302));
    assert_eq!(send(&signed(6, "b"), Some(3)), Some(301));
    assert_eq!(send(&signed(6, "b"), Some(4)), Some(0));
    assert_eq!(send(&signed(5, "a"), None), Some(302), "it comes late");
    let forged = Mutable {
        seq: 9,
        ..signed(8, "c")
    };
    assert_eq!(send(&forged, None), Some(206));
    let long = Mutable {
        value: format!("1100:{}", "x".repeat(1100)).into_bytes(),
        ..signed(9, "d")
    };
    assert_eq!(send(&long, None), Some(205));
    let salted = Mutable {
        salt: vec![1; 65],
        ..signed(9, "d")
    };
    assert_eq!(send(&salted, None), Some(207));
    assert_eq!(world.nodes[&node].status().items, 1);
}

#[test]
fn a_forged_answer_is_not_taken() {
    let mut world = World::internet(30, 20);
    let reader = public(3);
    let key = Id([5; 20]);
    let op = world.request(reader, Request::Peers { key });
    // Off the path: the address is right, the transaction id must be guessed.
    for guess in 0..2000u32 {
        let reply = krpc::Reply {
            id: Id([1; 20]),
            values: vec![stranger(6)],
            ..krpc::Reply::default()
        };
        let bytes = krpc::response(&guess.to_be_bytes(), &reader, reply, 1400);
        world.send(public((guess % 20) as u16), reader, bytes);
    }
    let (told, done) = world.complete(reader, op);
    assert!(told.is_empty() && matches!(done, Err(Failure::NotFound(_))));
}

#[test]
fn every_node_of_loopback_is_served_whatever_it_asks() {
    let mut world = World::loopback(31, 3);
    let bytes = krpc::query(b"many", &plain([7; 20], Call::Ping));
    world.stray.clear();
    for _ in 0..1000 {
        world.send(loopback(900), loopback(0), bytes.clone());
    }
    world.run(MINUTE);
    assert_eq!(world.stray.len(), 1000);
}
