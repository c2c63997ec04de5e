use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const ID: Id = Id(*b"abcdefghij0123456789");

fn from() -> SocketAddr {
    (Ipv4Addr::new(1, 2, 3, 4), 6881).into()
}

/// BEP 5's examples.
#[test]
fn the_published_examples_are_read() {
    let ping = read(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe").unwrap();
    assert_eq!(ping.tid, b"aa");
    let Body::Query(query) = ping.body else {
        panic!("a query")
    };
    assert_eq!((query.id, &query.call), (ID, &Call::Ping));
    let pong = read(b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re").unwrap();
    assert!(matches!(pong.body, Body::Response(r) if r.id == Id(*b"mnopqrstuvwxyz123456")));
    let error = read(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee").unwrap();
    assert!(matches!(error.body, Body::Error { code: 201, .. }));
    let peers = read(
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
    )
    .unwrap();
    let Body::Response(peers) = peers.body else {
        panic!("a response")
    };
    assert_eq!(peers.token, Some(&b"aoeusnth"[..]));
    assert_eq!(peers.values[0], "97.120.106.101:11893".parse().unwrap());
    let announce = read(
        b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
    )
    .unwrap();
    assert!(
        matches!(announce.body, Body::Query(q) if matches!(q.call, Call::Announce { port: None, seed: false, .. }))
    );
}

#[test]
fn what_is_wrong_with_a_query_is_told_by_its_code() {
    let of = |bytes: &[u8]| match read(bytes) {
        Err(Bad::Query { tid, code, .. }) => {
            assert_eq!(tid, b"x");
            code
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        of(b"d1:ad2:id20:abcdefghij0123456789e1:q3:foo1:t1:x1:y1:qe"),
        204
    );
    assert_eq!(of(b"d1:ad2:id3:abce1:q4:ping1:t1:x1:y1:qe"), 203);
    assert_eq!(of(b"d1:q4:ping1:t1:x1:y1:qe"), 203);
    assert_eq!(of(b"d1:ad2:id20:abcdefghij0123456789e1:t1:x1:y1:qe"), 203);
    assert_eq!(
        of(b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t1:x1:y1:qe"),
        203
    );
    let put = |v: &str, more: &str| {
        let text =
            format!("d1:ad2:id20:abcdefghij0123456789{more}5:token1:t1:v{v}e1:q3:put1:t1:x1:y1:qe");
        of(text.as_bytes())
    };
    assert_eq!(put(&format!("997:{}", "x".repeat(997)), ""), 205);
    let key = format!("1:k32:{}", "k".repeat(32));
    let sig = format!("3:sig64:{}", "s".repeat(64));
    let salt = format!("4:salt65:{}", "s".repeat(65));
    assert_eq!(put("i1e", &format!("{key}{salt}3:seqi1e{sig}")), 207);
    assert_eq!(put("i1e", &format!("{key}3:seqi-1e{sig}")), 203);
    assert_eq!(put("i1e", &key), 203);
    assert_eq!(put("d1:bi1e1:ai1ee", ""), 203);
    for junk in [
        &b""[..],
        b"i1e",
        b"d1:t0:1:y1:qe",
        b"d1:y1:qe",
        b"d1:t1:x1:y1:ze",
        b"d1:t33:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx1:y1:qe",
        b"d1:rd2:id3:abce1:t1:x1:y1:re",
    ] {
        assert_eq!(read(junk), Err(Bad::Junk), "{}", junk.escape_ascii());
    }
}

#[test]
fn keys_out_of_order_and_bytes_behind_are_borne() {
    let message = read(b"d1:y1:q1:t1:x1:q4:ping1:ad2:id20:abcdefghij0123456789eejunk").unwrap();
    assert!(matches!(message.body, Body::Query(q) if q.call == Call::Ping));
}

#[test]
fn an_answer_keeps_within_its_budget() {
    let node = |i: u8, addr: &str| Node {
        id: Id([i; 20]),
        addr: addr.parse().unwrap(),
    };
    let reply = Reply {
        id: ID,
        nodes: (0..8)
            .map(|i| node(i, "1.2.3.4:5"))
            .chain((0..8).map(|i| node(i, "[2001:db8::1]:5")))
            .collect(),
        token: Some(b"12345678"),
        values: vec![from(); 150],
        samples: Some(Samples {
            keys: vec![ID; 50],
            ..Samples::default()
        }),
        ..Reply::default()
    };
    for budget in [200, 400, 700, 1400, 9000] {
        let bytes = response(b"1234", &from(), reply.clone(), budget);
        assert!(bytes.len() <= budget, "{} of {budget}", bytes.len());
        let Body::Response(back) = read(&bytes).unwrap().body else {
            panic!("a response")
        };
        assert_eq!(back.nodes, reply.nodes[..back.nodes.len()]);
    }
}

fn ids() -> impl Strategy<Value = Id> {
    any::<[u8; 20]>().prop_map(Id)
}

fn calls() -> impl Strategy<Value = (Call<'static>, Want)> {
    let signed = (any::<[u8; 32]>(), 0..i64::MAX).prop_map(|(key, seq)| Signed {
        key,
        salt: b"salt",
        seq,
        signature: [7; 64],
    });
    let call = prop_oneof![
        Just(Call::Ping),
        ids().prop_map(|target| Call::FindNode { target }),
        ids().prop_map(|target| Call::Sample { target }),
        (ids(), any::<bool>(), any::<bool>()).prop_map(|(info_hash, noseed, scrape)| {
            Call::GetPeers {
                info_hash,
                noseed,
                scrape,
            }
        }),
        (ids(), prop::option::of(1..u16::MAX), any::<bool>()).prop_map(
            |(info_hash, port, seed)| Call::Announce {
                info_hash,
                port,
                seed,
                token: b"token"
            }
        ),
        (ids(), any::<Option<i64>>()).prop_map(|(target, seq)| Call::Get { target, seq }),
        (prop::option::of(signed), any::<Option<i64>>(), any::<i64>()).prop_map(
            |(signed, cas, n)| {
                let value = format!("l{}:{}i{n}ee", 3, "abc").into_bytes();
                let target = Some(Id::hash(&value));
                Call::Put(Box::new(Put {
                    token: b"t",
                    value,
                    signed,
                    cas,
                    target,
                }))
            }
        ),
    ];
    let want = (any::<bool>(), any::<bool>()).prop_map(|(v4, v6)| Want { v4, v6 });
    (call, want)
}

proptest! {
    #[test]
    fn queries_are_read_as_they_were_written(
        (call, want) in calls(), id in ids(), read_only: bool,
        tid in prop::collection::vec(any::<u8>(), 1..=32),
    ) {
        let sent = Query { id, read_only, want, call };
        let bytes = query(&tid, &sent);
        prop_assert!(bytes.len() <= MAX_SENT);
        let message = read(&bytes).expect("our own query is read");
        prop_assert_eq!(message.tid, &tid[..]);
        prop_assert_eq!(message.body, Body::Query(sent));
    }

    #[test]
    fn answers_are_read_as_they_were_written(
        id in ids(),
        nodes in prop::collection::vec((ids(), any::<[u8; 4]>(), any::<u16>()), 0..8),
        values in prop::collection::vec((any::<[u8; 16]>(), any::<u16>()), 0..8),
        seq: Option<i64>, token: Option<[u8; 8]>, filters: Option<u8>, keys in prop::collection::vec(ids(), 0..5),
    ) {
        let sent = Reply {
            id,
            nodes: nodes.into_iter().map(|(id, ip, port)| Node { id, addr: (ip, port).into() }).collect(),
            values: values.into_iter().map(SocketAddr::from).collect(),
            seq,
            token: token.as_ref().map(|t| &t[..]),
            filters: filters.map(|f| (Bloom(Box::new([f; 256])), Bloom::default())),
            samples: (!keys.is_empty()).then_some(Samples { interval: 60, num: 9, keys }),
            value: seq.map(|_| b"d1:ai1e1:bli2e0:ee".to_vec()),
            key: seq.map(|_| [3; 32]),
            signature: seq.map(|_| [4; 64]),
        };
        let bytes = response(b"aa", &from(), sent.clone(), 4000);
        let message = read(&bytes).expect("our own answer is read");
        prop_assert_eq!(message.ip, Some(from()));
        prop_assert_eq!(message.body, Body::Response(Box::new(sent)));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _outcome = read(&bytes);
        let mut framed = b"d1:a".to_vec();
        framed.extend_from_slice(&bytes);
        let _outcome = read(&framed);
    }
}
