//! A relay, its clients and peers in virtual time.

mod world;

use super::*;
use crate::stun::{
    Algorithm, Attribute, Builder, Key, TransactionId, datagram_frame, kind, user_hash,
};
use crate::turn::credential::Credential;
use crate::turn::{FAMILY_IPV6, TRANSPORT_UDP};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use world::{
    ALICE, BOB, OTHER_PEER, PEER, SECRET, UNIX, User, World, address, channel, config,
    send_indication,
};

#[test]
fn data_goes_both_ways_by_channel_and_by_indication() {
    for (sha256, stream) in [(false, false), (true, false), (false, true)] {
        let mut w = World::new(config());
        let mut alice = User::new(ALICE, "alice");
        (alice.sha256, alice.stream) = (sha256, stream);
        let answer = w.allocate(&mut alice, &[]);
        assert_eq!(answer.code, 0);
        let relayed = answer.relayed();
        assert_eq!(answer.get(kind::LIFETIME), Some(Attribute::Lifetime(600)));
        let mapped = Attribute::XorMappedAddress(alice.at);
        assert_eq!(answer.get(kind::XOR_MAPPED_ADDRESS), Some(mapped));
        assert!((49152..=65535).contains(&relayed.port()));

        // Nothing passes that was not let in.
        let (client, at) = (alice.client(), alice.at);
        assert_eq!(
            w.client_says(client, at, &send_indication(PEER, b"hi")),
            None
        );
        assert_eq!(w.client_says(client, at, &channel(0x4000, b"hi")), None);
        assert_eq!(w.peer_says(relayed, address(PEER), b"hi"), None);

        assert_eq!(w.permit(&mut alice, &[PEER]), 0);
        let sent = w.client_says(client, at, &send_indication(PEER, b"hello"));
        assert_eq!(sent, Some((relayed, address(PEER), b"hello".to_vec())));
        // A permission is for all ports of an address.
        let (to, bytes) = w.peer_says(relayed, address(OTHER_PEER), b"hello").unwrap();
        assert_eq!(to, client);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(
            (message.class(), message.method()),
            (Class::Indication, Method::DATA)
        );
        let from = Attribute::XorPeerAddress(address(OTHER_PEER));
        assert_eq!(message.get(kind::XOR_PEER_ADDRESS), Some(Ok(from)));
        assert_eq!(message.value(kind::DATA), Some(&b"hello"[..]));

        assert_eq!(w.bind(&mut alice, 0x4001, PEER), 0);
        let sent = w.client_says(client, at, &channel(0x4001, b"hello"));
        assert_eq!(sent, Some((relayed, address(PEER), b"hello".to_vec())));
        let (_, bytes) = w.peer_says(relayed, address(PEER), b"hello").unwrap();
        let mut expected = channel(0x4001, b"hello");
        if stream {
            expected.extend([0; 3]);
        }
        assert_eq!(bytes, expected);
        assert_eq!(
            w.peer_says(relayed, address("8.8.4.5:4444"), b"hello"),
            None
        );

        let stats = w.server.stats();
        assert_eq!((stats.packets_up, stats.bytes_up), (2, 10));
        assert_eq!((stats.packets_down, stats.unwanted), (2, 4));
    }
}

#[test]
fn ipv6_peers_are_reached_by_ipv6_and_both_can_be_had_at_once() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    let answer = w.allocate(
        &mut alice,
        &[Attribute::AdditionalAddressFamily(FAMILY_IPV6)],
    );
    let relayed: Vec<_> = answer
        .message()
        .attributes()
        .filter(|(k, _)| *k == kind::XOR_RELAYED_ADDRESS)
        .map(|(k, v)| Attribute::decode(k, v, &answer.message().id()).unwrap())
        .collect();
    assert_eq!((answer.code, relayed.len(), w.open.len()), (0, 2, 2));
    let peer = "[2600::9]:9";
    assert_eq!(w.permit(&mut alice, &[peer, PEER]), 0);
    let sent = w.client_says(alice.client(), alice.at, &send_indication(peer, b"6"));
    let (by, to, _) = sent.unwrap();
    assert!(by.is_ipv6() && to == address(peer));
    let (_, bytes) = w.peer_says(by, to, b"six").unwrap();
    let message = Message::decode(&bytes).unwrap();
    let from = Attribute::XorPeerAddress(to);
    assert_eq!(message.get(kind::XOR_PEER_ADDRESS), Some(Ok(from)));
    // One half is given back.
    let half = [
        Attribute::Lifetime(0),
        Attribute::RequestedAddressFamily(FAMILY_IPV6),
    ];
    assert_eq!(w.ask(&mut alice, Method::REFRESH, &half).code, 0);
    assert_eq!(w.permit(&mut alice, &[peer]), 443);
    assert_eq!((w.permit(&mut alice, &[PEER]), w.open.len()), (0, 1));

    let mut bob = User::new(BOB, "bob");
    let only = [Attribute::RequestedAddressFamily(FAMILY_IPV6)];
    assert!(w.allocate(&mut bob, &only).relayed().is_ipv6());
    assert_eq!(w.permit(&mut bob, &[PEER]), 443);
    let mut config = config();
    config.relay_v6 = None;
    let mut w = World::new(config);
    assert_eq!(w.allocate(&mut bob, &only).code, 440);
    let answer = w.allocate(&mut bob, &[Attribute::AdditionalAddressFamily(FAMILY_IPV6)]);
    assert!(answer.relayed().is_ipv4());
    assert!(matches!(
        answer.get(kind::ADDRESS_ERROR_CODE),
        Some(Attribute::AddressErrorCode { family: FAMILY_IPV6, reason }) if reason.code == 440
    ));
}

#[test]
fn nobody_without_credentials_gets_anything_or_leaves_anything() {
    let mut w = World::new(config());
    let transport = Attribute::RequestedTransport(TRANSPORT_UDP);
    let mut wrong: Vec<User> = ["alice"; 4].map(|n| User::new(ALICE, n)).into();
    wrong[0].password = "guess".into();
    wrong[1].name = format!("{UNIX}:alice");
    wrong[1].password = Credential::short_lived(SECRET, "alice", UNIX).password;
    wrong[2].name = "mallory".into();
    wrong[3].password = Credential::short_lived(b"south", "alice", UNIX + 1000).password;
    for mut user in wrong {
        assert_eq!(w.ask(&mut user, Method::ALLOCATE, &[transport]).code, 401);
    }
    // A nonce is its client's, and gets old.
    let mut alice = User::new(ALICE, "alice");
    assert_eq!(w.allocate(&mut alice, &[]).code, 0);
    let mut bob = User::new(BOB, "bob");
    bob.nonce = alice.nonce.clone();
    let id = w.id();
    let answer = w
        .ask_once(&bob, id, Method::ALLOCATE, &[transport])
        .unwrap();
    assert_eq!(answer.code, 438);
    bob.nonce = b"obMatJos2AAABnonsense".to_vec();
    let id = w.id();
    let answer = w
        .ask_once(&bob, id, Method::ALLOCATE, &[transport])
        .unwrap();
    assert_eq!(answer.code, 438);
    // An answer is at most so much longer than what was asked, and there are not many.
    let mut bare = Vec::new();
    Builder::new(
        &mut bare,
        Class::Request,
        Method::ALLOCATE,
        TransactionId([1; 12]),
    )
    .put(&transport);
    w.now += Duration::from_secs(1);
    w.replies.clear();
    for port in 0..1000 {
        let from = SocketAddr::new([198, 18, 7, 7].into(), port);
        w.client_says(Client::Udp(0, from), from, &bare);
    }
    assert_eq!(w.replies.len(), 200);
    assert!(w.replies.iter().all(|(_, r)| r.len() <= 4 * bare.len()));
    assert_eq!(w.server.stats().unanswered, 800);
    assert_eq!((w.server.allocations.len(), w.server.clients.len()), (1, 1));
}

#[test]
fn a_hash_stands_for_a_name_and_a_weaker_algorithm_cannot_be_slipped_in() {
    let mut w = World::new(config());
    let carol = User::new(ALICE, "x");
    let id = w.id();
    let transport = Attribute::RequestedTransport(TRANSPORT_UDP);
    let challenge = w
        .ask_once(&carol, id, Method::ALLOCATE, &[transport])
        .unwrap();
    let Some(Attribute::Nonce(nonce)) = challenge.get(kind::NONCE) else {
        panic!("a nonce");
    };
    assert_eq!(
        challenge.get(kind::PASSWORD_ALGORITHMS),
        Some(Attribute::PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0]))
    );
    let mut ask = |algorithms: &[u8]| {
        let mut bytes = Vec::new();
        let key = Key::long_term(Algorithm::Sha256, b"carol", b"shoal", b"pw");
        Builder::new(
            &mut bytes,
            Class::Request,
            Method::ALLOCATE,
            TransactionId([8; 12]),
        )
        .put(&transport)
        .put(&Attribute::UserHash(user_hash(b"carol", b"shoal")))
        .put(&Attribute::Realm(b"shoal"))
        .put(&Attribute::Nonce(nonce))
        .put(&Attribute::PasswordAlgorithms(algorithms))
        .put(&Attribute::PasswordAlgorithm(2))
        .integrity_sha256(&key)
        .fingerprint();
        w.replies.clear();
        w.client_says(carol.client(), carol.at, &bytes);
        let (_, reply) = w.replies.pop().unwrap();
        let message = Message::decode(&reply).unwrap();
        assert!(message.has_fingerprint());
        message.class()
    };
    assert_eq!(ask(&[0, 1, 0, 0]), Class::Error);
    assert_eq!(ask(&[0, 2, 0, 0, 0, 1, 0, 0]), Class::Success);
}

#[test]
fn an_allocation_is_its_makers_alone() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    assert_eq!(w.permit(&mut alice, &[PEER]), 437);
    let id = w.id();
    let transport = [Attribute::RequestedTransport(TRANSPORT_UDP)];
    let first = w.ask_once(&alice, id, Method::ALLOCATE, &transport);
    assert_eq!(first.unwrap().code, 0);
    // The same request again gets the same address, another one none.
    let again = w
        .ask_once(&alice, id, Method::ALLOCATE, &transport)
        .unwrap();
    assert_eq!(
        (again.code, again.relayed(), w.open.len()),
        (0, w.open[0].1, 1)
    );
    assert_eq!(w.allocate(&mut alice, &[]).code, 437);
    let mut mallory = User::new(ALICE, "mallory");
    assert_eq!(w.permit(&mut mallory, &[PEER]), 441);
    // From another address nobody has anything.
    let mut elsewhere = User::new(BOB, "alice");
    assert_eq!(w.permit(&mut elsewhere, &[PEER]), 437);
    // Credentials that expire do not end what was got with them.
    w.after(0);
    for _ in 0..4 {
        w.after(500);
        assert_eq!(w.ask(&mut alice, Method::REFRESH, &[]).code, 0);
    }
    let mut late = User::new(BOB, "alice");
    assert_eq!(w.allocate(&mut late, &[]).code, 401);
}

#[test]
fn everything_ends_in_its_time() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    let relayed = w
        .allocate(&mut alice, &[Attribute::Lifetime(100_000)])
        .relayed();
    let (client, at) = (alice.client(), alice.at);
    assert_eq!(w.bind(&mut alice, 0x4000, PEER), 0);
    let up = channel(0x4000, b"x");
    w.after(299);
    assert!(w.client_says(client, at, &up).is_some());
    assert!(w.peer_says(relayed, address(PEER), b"x").is_some());
    w.after(1);
    // The permission is over, the channel not.
    assert_eq!(w.client_says(client, at, &up), None);
    assert_eq!(w.peer_says(relayed, address(PEER), b"x"), None);
    assert_eq!(w.permit(&mut alice, &[PEER]), 0);
    assert!(w.client_says(client, at, &up).is_some());
    let (_, down) = w.peer_says(relayed, address(PEER), b"x").unwrap();
    assert_eq!(down, channel(0x4000, b"x"));
    w.after(299);
    assert_eq!(w.permit(&mut alice, &[PEER]), 0);
    w.after(1);
    // Now the channel is over, the permission not.
    assert_eq!(w.client_says(client, at, &up), None);
    let (_, down) = w.peer_says(relayed, address(PEER), b"x").unwrap();
    assert_eq!(Message::decode(&down).unwrap().method(), Method::DATA);
    w.after(3600 - 600 - 1);
    assert_eq!(w.server.stats().allocations, 1);
    w.after(1);
    assert_eq!((w.server.stats().allocations, w.open.len()), (0, 0));
    assert_eq!(w.server.deadline(), None);

    assert_eq!(
        w.allocate(&mut alice, &[]).code,
        401,
        "his name has expired"
    );
    let mut bob = User::new(BOB, "bob");
    bob.name = "carol".into();
    bob.password = "pw".into();
    assert_eq!(w.allocate(&mut bob, &[]).code, 0);
    let answer = w.ask(&mut bob, Method::REFRESH, &[Attribute::Lifetime(0)]);
    assert_eq!(answer.get(kind::LIFETIME), Some(Attribute::Lifetime(0)));
    assert_eq!((w.server.stats().allocations, w.open.len()), (0, 0));
    // A connection's end is its allocation's.
    bob.stream = true;
    assert_eq!(w.allocate(&mut bob, &[]).code, 0);
    let mut out = Effects::default();
    w.server.on_gone(bob.client(), &mut out);
    w.settle(out);
    assert_eq!((w.server.stats().users, w.open.len()), (0, 0));
}

#[test]
fn it_is_no_open_relay() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    let alices = w.allocate(&mut alice, &[]).relayed();
    for peer in [
        "127.0.0.1:22",
        "10.0.0.1:80",
        "192.168.1.1:80",
        "169.254.169.254:80",
        "224.0.0.1:5",
        "255.255.255.255:5",
        "0.0.0.0:5",
        "[::1]:22",
        "[fe80::1]:22",
        "[ff02::1]:22",
        "[::ffff:127.0.0.1]:22",
        "[64:ff9b::a00:1]:22",
    ] {
        assert_eq!(w.permit(&mut alice, &[PEER, peer]), 403, "{peer}");
        assert_eq!(w.bind(&mut alice, 0x4000, peer), 403, "{peer}");
    }
    // All or none.
    let sent = w.client_says(alice.client(), alice.at, &send_indication(PEER, b"x"));
    assert_eq!(sent, None);
    // Its own address serves to reach others that are relayed, and nothing else.
    let mut bob = User::new(BOB, "bob");
    let bobs = w.allocate(&mut bob, &[]).relayed().to_string();
    assert_eq!(w.permit(&mut alice, &["5.5.5.5:22"]), 0);
    assert_eq!(w.bind(&mut alice, 0x4000, "5.5.5.5:22"), 0);
    assert_eq!(w.bind(&mut alice, 0x4001, &bobs), 0);
    let (client, at) = (alice.client(), alice.at);
    assert_eq!(
        w.client_says(client, at, &send_indication("5.5.5.5:22", b"x")),
        None
    );
    assert_eq!(w.client_says(client, at, &channel(0x4000, b"x")), None);
    assert!(w.client_says(client, at, &channel(0x4001, b"x")).is_some());
    assert!(
        w.client_says(client, at, &send_indication(&bobs, b"x"))
            .is_some()
    );
    assert_eq!(
        w.ask(&mut bob, Method::REFRESH, &[Attribute::Lifetime(0)])
            .code,
        0
    );
    assert_eq!(w.client_says(client, at, &channel(0x4001, b"x")), None);
    assert!(w.open.iter().any(|(_, a)| *a == alices));
}

#[test]
fn channels_are_bound_as_the_rfc_says() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    w.allocate(&mut alice, &[]);
    for number in [0, 0x3fff, 0x8000, 0xffff] {
        assert_eq!(w.bind(&mut alice, number, PEER), 400, "{number:#x}");
    }
    assert_eq!(w.bind(&mut alice, 0x7fff, PEER), 0);
    assert_eq!(w.bind(&mut alice, 0x7fff, PEER), 0);
    assert_eq!(w.bind(&mut alice, 0x7fff, OTHER_PEER), 400);
    assert_eq!(w.bind(&mut alice, 0x4000, PEER), 400);
    assert_eq!(w.ask(&mut alice, Method::CHANNEL_BIND, &[]).code, 400);
    assert_eq!(w.ask(&mut alice, Method::CREATE_PERMISSION, &[]).code, 400);
    for n in 1..256 {
        assert_eq!(w.bind(&mut alice, 0x4000 + n, &format!("8.8.4.4:{n}")), 0);
    }
    assert_eq!(w.bind(&mut alice, 0x4900, "8.8.4.4:900"), 508);
    let mut most: Vec<String> = (0..60).map(|n| format!("9.9.9.{n}:1")).collect();
    let mut crowd = |w: &mut World, from: &str| {
        most.iter_mut()
            .for_each(|p| *p = p.replacen("9.9.9", from, 1));
        let peers: Vec<_> = most.iter().map(String::as_str).collect();
        let code = w.permit(&mut alice, &peers);
        most.iter_mut()
            .for_each(|p| *p = p.replacen(from, "9.9.9", 1));
        code
    };
    let codes = ["9.1.1", "9.1.2", "9.1.3", "9.1.4", "9.1.5"].map(|f| crowd(&mut w, f));
    assert_eq!(codes, [0, 0, 0, 0, 508]);
}

#[test]
fn ports_are_even_or_kept_and_taken_ones_are_passed_over() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    // Three of four ports are taken, among them every other odd one.
    w.taken = |port| port % 8 != 2 && port % 8 != 3;
    let answer = w.allocate(&mut alice, &[Attribute::EvenPort(true)]);
    let relayed = answer.relayed();
    let Some(Attribute::ReservationToken(token)) = answer.get(kind::RESERVATION_TOKEN) else {
        panic!("a token");
    };
    assert_eq!((relayed.port() % 2, w.open.len()), (0, 2));
    let mut bob = User::new(BOB, "bob");
    let wrong = Attribute::ReservationToken([0; 8]);
    assert_eq!(w.allocate(&mut bob, &[wrong]).code, 508);
    let right = Attribute::ReservationToken(token);
    assert_eq!(
        w.allocate(&mut bob, &[right, Attribute::EvenPort(false)])
            .code,
        400
    );
    let bobs = w.allocate(&mut bob, &[right]).relayed();
    assert_eq!(bobs, SocketAddr::new(relayed.ip(), relayed.port() + 1));
    // What nobody fetches is given up.
    let mut carol = User::new("198.18.1.3:3", "carol");
    assert_eq!(w.allocate(&mut carol, &[Attribute::EvenPort(true)]).code, 0);
    assert_eq!(w.open.len(), 4);
    w.after(30);
    assert_eq!(w.open.len(), 3);
    // Where no port is free, nothing stays behind.
    w.taken = |_| true;
    let mut dave = User::new("198.18.1.4:4", "dave");
    assert_eq!(w.allocate(&mut dave, &[]).code, 508);
    assert_eq!(
        (w.server.stats().allocations, w.server.stats().users),
        (3, 3)
    );
}

#[test]
fn quotas_hold_for_users_and_for_all() {
    let mut config = config();
    config.max_allocations = 3;
    config.max_allocations_per_user = 2;
    let mut w = World::new(config.clone());
    let mut codes = Vec::new();
    for n in 0..5 {
        let name = if n < 3 { "alice" } else { "bob" };
        let mut user = User::new(&format!("198.18.2.{n}:1"), name);
        // Another credential does not make another user.
        let credential = Credential::short_lived(SECRET, name, UNIX + 1000 + n);
        (user.name, user.password) = (credential.name, credential.password);
        codes.push(w.allocate(&mut user, &[]).code);
    }
    assert_eq!(codes, [0, 0, 486, 0, 508]);
    config.alternate = Some(address("192.0.2.200:3478"));
    config.max_allocations = 0;
    let mut w = World::new(config);
    let answer = w.allocate(&mut User::new(ALICE, "alice"), &[]);
    assert_eq!(answer.code, 300);
    assert_eq!(
        answer.get(kind::ALTERNATE_SERVER),
        Some(Attribute::AlternateServer(address("192.0.2.200:3478")))
    );
}

#[test]
fn rates_hold_within_a_twentieth() {
    for (own, all) in [(Some(100_000), None), (None, Some(100_000))] {
        let mut config = config();
        (config.max_rate_per_user, config.max_rate) = (own, all);
        let mut w = World::new(config);
        let mut alice = User::new(ALICE, "alice");
        w.allocate(&mut alice, &[]);
        w.bind(&mut alice, 0x4000, PEER);
        let frame = channel(0x4000, &[7; 1000]);
        let mut passed = 0;
        for _ in 0..20_000 {
            w.now += Duration::from_millis(1);
            passed += w
                .client_says(alice.client(), alice.at, &frame)
                .map_or(0, |p| p.2.len());
        }
        assert!(
            (1_950_000..2_100_000).contains(&passed),
            "{passed} bytes in 20 s"
        );
        assert!(w.server.stats().over_rate > 17_000);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut w = World::new(config());
    let mut alice = User::new(ALICE, "alice");
    assert_eq!(w.ask(&mut alice, Method::ALLOCATE, &[]).code, 400);
    let tcp = [Attribute::RequestedTransport(6)];
    assert_eq!(w.ask(&mut alice, Method::ALLOCATE, &tcp).code, 442);
    assert_eq!(w.allocate(&mut alice, &[Attribute::DontFragment]).code, 420);
    assert_eq!(
        w.allocate(&mut alice, &[Attribute::RequestedAddressFamily(7)])
            .code,
        440
    );
    let both = [
        Attribute::RequestedAddressFamily(FAMILY_IPV6),
        Attribute::AdditionalAddressFamily(FAMILY_IPV6),
    ];
    assert_eq!(w.allocate(&mut alice, &both).code, 400);
    let unknown = Attribute::Other {
        kind: 0x7000,
        value: b"",
    };
    let answer = w.allocate(&mut alice, &[unknown]);
    let kinds = Attribute::UnknownAttributes(&[0x70, 0]);
    assert_eq!(
        (answer.code, answer.get(kind::UNKNOWN_ATTRIBUTES)),
        (420, Some(kinds))
    );
    assert_eq!(w.open.len(), 0);
    // A Binding request needs no credentials.
    let mut ask = Vec::new();
    binding::request(TransactionId([3; 12]), &mut ask);
    w.replies.clear();
    w.client_says(alice.client(), alice.at, &ask);
    let (_, reply) = w.replies.pop().unwrap();
    let mapped = binding::mapped_address(&Message::decode(&reply).unwrap());
    assert_eq!(mapped, Some(alice.at));
}

proptest! {
    /// Any sequence of frames, true and nonsensical, breaks nothing and leaves nothing behind.
    #[test]
    fn nothing_that_comes_breaks_it(
        steps in proptest::collection::vec((0u8..9, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60)), 1..60),
    ) {
        let mut config = config();
        config.max_allocations = 3;
        let mut w = World::new(config);
        let mut users = [User::new(ALICE, "alice"), User::new(BOB, "bob")];
        users[1].stream = true;
        for (what, n, bytes) in steps {
            let user = &mut users[usize::from(n % 2)];
            let peer = SocketAddr::new([8, 8, 4, (n >> 8) as u8 % 4].into(), n % 4 + 1);
            let text = peer.to_string();
            let number = 0x4000 + n % 5;
            match what {
                0 => drop(w.allocate(user, &[Attribute::EvenPort(n % 4 < 2)])),
                1 => drop(w.ask(user, Method::REFRESH, &[Attribute::Lifetime(u32::from(n % 3) * 300)])),
                2 => drop(w.permit(user, &[&text])),
                3 => drop(w.bind(user, number, &text)),
                4 => drop(w.client_says(user.client(), user.at, &channel(number, &bytes))),
                5 => drop(w.client_says(user.client(), user.at, &bytes)),
                6 => w.after(u64::from(n % 400)),
                7 => {
                    let relayed: Vec<_> = w.open.iter().map(|(_, a)| *a).collect();
                    for relayed in relayed {
                        if let Some((_, got)) = w.peer_says(relayed, peer, &bytes) {
                            prop_assert!(got.windows(bytes.len().max(1)).any(|g| g == bytes) || bytes.is_empty());
                        }
                    }
                }
                _ => {
                    let mut out = Effects::default();
                    w.server.on_gone(user.client(), &mut out);
                    w.settle(out);
                }
            }
            let allocations = w.server.allocations.len();
            prop_assert_eq!(w.server.clients.len(), allocations);
            prop_assert_eq!(w.server.expiry.len(), allocations);
            prop_assert_eq!(w.open.len(), allocations + w.server.ports.reserved.len());
        }
        w.after(4000);
        prop_assert_eq!((w.open.len(), w.server.stats().users), (0, 0));
    }
}
