//! Neighbours that forge, flood and send nonsense, and queries that would go too far.

use super::*;

fn hit(guid: Guid, servent: Guid, ttl: u8) -> Packet {
    let answerer = Answerer {
        addr: addr(99),
        speed: 1,
        vendor: *b"EVIL",
        status: Status::default(),
        proxies: Vec::new(),
        browsable: false,
        tls: false,
        overlay: None,
        servent,
    };
    let mut packet = None;
    answerer.write(&Files::of(&["rare thing.exe"]).0, |payload| {
        packet = Some(Packet::ours(Kind::Hit, guid, ttl, payload));
    });
    packet.unwrap()
}

#[test]
fn a_servents_way_cannot_be_stolen() {
    let mut net = row();
    let evil = net.add(Mode::Ultrapeer, &[]);
    let (_, at_0) = net.join(evil, 0);
    let guid = net.search(3, "rare");
    net.secs(10);
    let answer = net.found[0].2.clone();
    // Another neighbour claims the servent's name in a hit of its own.
    net.forge(0, at_0, &hit(guid, answer.servent, 4));
    net.secs(1);
    let mut out = Vec::new();
    net.nodes[3].push(answer.servent, 0, addr(3), &mut out);
    net.act(3, &mut out);
    net.secs(2);
    assert_eq!(net.gives.first().map(|(n, _)| *n), Some(5));
}

#[test]
fn results_that_were_not_asked_for_do_not_get_through() {
    let mut net = row();
    let guid = net.search(3, "quite other words");
    net.run(Duration::from_millis(200));
    let info = net.nodes[3].connections().next().unwrap();
    net.forge(3, info.id, &hit(guid, Guid([9; 16]), 1));
    net.forge(3, info.id, &hit(Guid([8; 16]), Guid([9; 16]), 1));
    assert!(net.found.is_empty());
    let stats = net.nodes[3].stats();
    assert_eq!((stats.mismatched, stats.unasked), (1, 1));
}

#[test]
fn who_only_sends_nonsense_is_let_go_and_nobody_else() {
    let mut net = row();
    let (_, at_1) = {
        let evil = net.add(Mode::Ultrapeer, &[]);
        net.join(evil, 1)
    };
    for n in 0..200_u8 {
        let packet = Packet::ours(Kind::Query, Guid([n; 16]), 0, &[0, 0]);
        net.forge(1, at_1, &packet);
    }
    net.secs(1);
    assert_eq!(net.byes.len(), 1);
    assert_eq!(net.byes[0].1.code, code::MALFORMED);
    assert_eq!(net.nodes[1].connections().count(), 3);
    net.search(3, "rare");
    net.secs(10);
    assert_eq!(net.names().len(), 1);
}

#[test]
fn a_leaf_that_asks_too_much_is_not_passed_on() {
    let mut net = row();
    let id = net.nodes[0]
        .connections()
        .find(|c| c.relation == Relation::Leaf);
    let id = id.unwrap().id;
    for n in 0..500_u32 {
        let mut guid = [7; 16];
        guid[..4].copy_from_slice(&n.to_le_bytes());
        let payload = query::write(0, b"spam", &Wanted::default());
        net.forge(0, id, &Packet::ours(Kind::Query, Guid(guid), 4, &payload));
    }
    let stats = net.nodes[0].stats();
    assert!(stats.too_fast > 400, "{stats:?}");
    assert!(stats.querying <= 10);
}

#[test]
fn a_leaf_that_has_no_place_left_gets_no_queries_until_it_has() {
    let mut net = row();
    let asked = |net: &mut Net| {
        net.search(3, "rare");
        net.secs(10);
        net.nodes[5].stats().queries
    };
    assert_eq!(asked(&mut net), 1);
    let mut out = Vec::new();
    net.nodes[5].set_load(Load::Busy, &mut out);
    assert!(out.is_empty(), "ultrapeers need not know");
    net.nodes[5].set_load(Load::Full, &mut out);
    net.act(5, &mut out);
    net.secs(1);
    assert_eq!(asked(&mut net), 1, "it is spared");
    net.nodes[5].set_load(Load::Free, &mut out);
    net.act(5, &mut out);
    net.secs(1);
    assert_eq!(asked(&mut net), 2);
}

#[test]
fn a_query_goes_four_hops_however_far_it_would() {
    let mut net = row();
    let evil = net.add(Mode::Ultrapeer, &[]);
    let (_, at_0) = net.join(evil, 0);
    let mut send = |n: u8, ttl: u8, hops: u8| {
        let payload = query::write(0, b"rare", &Wanted::default());
        let header = Header {
            guid: Guid([n; 16]),
            kind: Kind::Query.byte(),
            ttl,
            hops,
            len: 0,
        };
        net.forge(0, at_0, &Packet::new(header, &payload));
        net.secs(1);
        let queries = |n: usize| net.nodes[n].stats().queries;
        (net.nodes[0].stats().far, queries(1), queries(2))
    };
    assert_eq!(send(1, 4, 3), (0, 0, 0), "one hop was left");
    assert_eq!(send(2, 7, 1), (0, 1, 1), "three were");
    assert_eq!(send(3, 7, 4), (1, 1, 1), "none was");
}
