//! Tokens, proofs, floods and forgeries.

use super::*;

#[test]
fn bad_old_and_foreign_tokens_are_refused() {
    let mut w = World::overlay(2);
    let cases = [
        (
            200,
            token(&own_key(7), 200, 1_000_000),
            "the token is not by our login server",
        ),
        (201, token(&server(), 201, 10), "the token has expired"),
        (
            202,
            token(&server(), 203, 1_000_000),
            "it is not signed by the token's owner",
        ),
    ];
    for (n, token, why) in cases {
        w.add_with(n, Role::Peer, token, |_| {});
        w.runs(Duration::from_secs(20));
        assert_eq!(w.nodes[&n].home(), None);
        let told = w.events.iter().any(|(_, at, e)| {
            *at == n && matches!(e, Event::Refused(_, w) if w.to_string() == why)
        });
        assert!(told, "{n} was not told {why}");
    }
}

#[test]
fn who_speaks_another_version_is_told_so() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |_| {});
    for version in [crate::wire::VERSION - 1, crate::wire::VERSION + 1] {
        let link = 4_200_000_000 + u32::from(version);
        w.with(1, |n, now, out| n.on_connected(now, link, None, 7, out));
        let hello = Message::Hello {
            version,
            purpose: Purpose::Neighbour,
            presence: Presence::new(&own_key(7), token(&server(), 7, 1_000_000), 7, None),
            nonce: [5; 32],
        };
        let mut out = Vec::new();
        let node = w.nodes.get_mut(&1).expect("there");
        node.on_message(w.now, link, hello, &mut out);
        let refused =
            |e: &Effect<u32>| matches!(e, Effect::Send(_, Message::Refuse(Why::Version, _)));
        assert!(out.iter().any(refused), "{out:?}");
        assert!(!node.links.contains_key(&link));
    }
}

#[test]
fn a_renewed_token_goes_on_where_the_old_one_ends() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |_| {});
    for n in [100, 101] {
        w.add_with(n, Role::Peer, token(&server(), n, 60), |_| {});
    }
    w.add(102, Role::Peer, |_| {});
    w.runs(Duration::from_secs(30));
    w.with(100, |n, now, out| {
        n.renew(now, token(&server(), 100, 1_000_000), out);
    });
    w.runs(Duration::from_secs(60));
    assert_eq!(w.homes()[&100], Some(1));
    assert_eq!(w.homes()[&101], None, "its token has expired");
    assert_eq!(w.finds(102, "number100"), [100]);
    assert_eq!(w.finds(102, "number101"), []);
}

#[test]
fn files_are_not_said_to_be_at_another_host() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |_| {});
    let link = 4_100_000_001;
    w.with(1, |n, now, out| n.on_connected(now, link, None, 7, out));
    let presence = Presence::new(
        &own_key(300),
        token(&server(), 300, 1_000_000),
        300,
        Some(300),
    );
    let mut out = Vec::new();
    let hello = Message::Hello {
        version: crate::wire::VERSION,
        purpose: Purpose::Child,
        presence,
        nonce: [5; 32],
    };
    let node = w.nodes.get_mut(&1).expect("there");
    node.on_message(w.now, link, hello, &mut out);
    let Some(Effect::Send(
        _,
        Message::Hello {
            nonce, presence, ..
        },
    )) = out.first()
    else {
        panic!("{out:?}");
    };
    let about = (*nonce, [5u8; 32], presence.token.key);
    let seal = crate::token::Sealed::new(&own_key(300), "link", &about);
    let mut out = Vec::new();
    node.on_message(w.now, link, Message::Proof(seal), &mut out);
    let refused =
        |e: &Effect<u32>| matches!(e, Effect::Send(_, Message::Refuse(Why::Elsewhere, _)));
    assert!(out.iter().any(refused), "{out:?}");
}

#[test]
fn floods_and_forged_hits_are_cut_off() {
    let mut w = World::overlay(10);
    let link = stranger(&mut w, 1, 300, Purpose::Child);
    assert!(w.nodes[&1].links[&link].stage == Stage::Child);
    for n in 0..1000u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let query = Message::Query {
            id,
            wanted: Wanted::Words("song".into()),
            ttl: 99,
        };
        w.with(1, |node, now, out| node.on_message(now, link, query, out));
    }
    let stats = w.nodes[&1].stats();
    assert!(stats.queries < 20 && stats.limited > 980, "{stats:?}");
    // A supernode that answers everything with hosts that never said so.
    let link = stranger(&mut w, 1, 301, Purpose::Neighbour);
    let honest = Presence::new(
        &own_key(301),
        token(&server(), 301, 1_000_000),
        301,
        Some(301),
    );
    let forged = Presence::new(&own_key(301), token(&server(), 302, 1_000_000), 9, Some(9));
    let hit = |path: &str, sharer: &Presence<u32>| Hit {
        file: file(path),
        sharer: sharer.clone(),
        elsewhere: None,
        standing: None,
    };
    let before = w.events.len();
    let mut id = None;
    w.with(1, |n, now, out| id = n.search(now, "rare thing", out));
    let id = id.expect("sent");
    let many = (0..90)
        .map(|n| hit(&format!("rare thing {n}"), &honest))
        .collect();
    let said = [
        Message::Hits(id, vec![hit("rare thing", &forged)]),
        Message::Hits(id, vec![hit("other thing", &honest)]),
        Message::Hits(id, many),
        Message::Hits([9; 16], vec![hit("rare thing", &honest)]),
        Message::Hits(id, vec![hit("rare thing", &forged)]),
    ];
    for message in said {
        w.with(1, |n, now, out| n.on_message(now, link, message, out));
    }
    let passed: usize = w.events[before..]
        .iter()
        .filter_map(|(_, _, e)| match e {
            Event::Hits(_, hits) => Some(hits.len()),
            _ => None,
        })
        .sum();
    assert_eq!(passed, 20, "of one sharer only so many, of the forged none");
    assert!(
        !w.nodes[&1].links.contains_key(&link),
        "the third forgery ends the link"
    );
    let link = 4_100_000_000;
    w.with(1, |n, now, out| n.on_connected(now, link, None, 301, out));
    let hello = Message::Hello {
        version: crate::wire::VERSION,
        purpose: Purpose::Neighbour,
        presence: honest,
        nonce: [5; 32],
    };
    w.with(1, |n, now, out| n.on_message(now, link, hello, out));
    assert!(!w.nodes[&1].links.contains_key(&link), "and bans its key");
}

#[test]
fn who_does_not_prove_its_key_or_says_nothing_is_dropped() {
    let mut w = World::overlay(2);
    let mute = 4_200_000_000;
    w.with(1, |n, now, out| n.on_connected(now, mute, None, 9, out));
    let thief = 4_200_000_001;
    w.with(1, |n, now, out| n.on_connected(now, thief, None, 9, out));
    let presence = Presence::new(&own_key(5), token(&server(), 5, 1_000_000), 5, None);
    let hello = Message::Hello {
        version: 1,
        purpose: Purpose::Child,
        presence,
        nonce: [0; 32],
    };
    w.with(1, |n, now, out| n.on_message(now, thief, hello, out));
    let seal = crate::token::Sealed::new(&own_key(6), "link", &0);
    w.with(1, |n, now, out| {
        n.on_message(now, thief, Message::Proof(seal), out);
    });
    assert!(!w.nodes[&1].links.contains_key(&thief));
    w.runs(Duration::from_secs(7));
    assert!(!w.nodes[&1].links.contains_key(&mute));
}
