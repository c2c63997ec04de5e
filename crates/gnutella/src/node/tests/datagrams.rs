//! What goes by datagrams: answers out of band, probes, crawlers, Pushes; and roles, which follow from
//! being reached.

use super::*;
use crate::message::probe::{CrawlPing, HeadPing};
use crate::message::vendor::Vendor;
use crate::node::Promotion;

fn with_oob(n: usize, mode: Mode) -> Config {
    Config {
        listen: Some(addr(n)),
        oob: true,
        ..Config::of(mode)
    }
}

/// As [`row`], of nodes that answer out of band.
fn oob_row() -> Net {
    let mut net = Net::new();
    for n in 0..3 {
        net.add_with(with_oob(n, Mode::Ultrapeer), &[]);
    }
    net.add_with(with_oob(3, Mode::Leaf), &[]);
    let names: Vec<String> = (0..40).map(|n| format!("Rare Song {n}.ogg")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    net.add_with(with_oob(4, Mode::Leaf), &names);
    for (a, b) in [(0, 1), (1, 2), (3, 0), (4, 2)] {
        net.join(a, b);
    }
    net.secs(30);
    net
}

fn vendor(n: usize, guid: Guid, message: &Vendor) -> (SocketAddrV4, Packet) {
    let packet = Packet::ours(Kind::Vendor, guid, 1, &message.write());
    (addr(n), packet)
}

impl Net {
    /// A datagram from a stranger; what the node sends in answer, and to whom.
    fn tell(
        &mut self,
        n: usize,
        (from, packet): (SocketAddrV4, Packet),
    ) -> Vec<(SocketAddrV4, Packet)> {
        let mut out = Vec::new();
        self.nodes[n].on_datagram(self.now, from, packet.bytes(), &mut out);
        let sent = out.into_iter().filter_map(|e| match e {
            Effect::Datagram(to, packet) => Some((to, packet)),
            _ => None,
        });
        sent.collect()
    }
}

#[test]
fn neighbours_find_out_whether_one_is_reached() {
    let net = oob_row();
    assert!(net.nodes.iter().all(|n| n.is_reached() == (true, true)));
}

#[test]
fn who_is_on_the_overlay_is_behind_a_firewall_until_somebody_connects() {
    for walled in [false, true] {
        let mut net = Net::new();
        net.add(Mode::Ultrapeer, &[]);
        let place = "[fc01::1]:6346".parse().ok();
        let sharer = Config {
            listen: Some(addr(1)),
            overlay: place,
            ..Config::of(Mode::Leaf)
        };
        net.add_with(sharer, &["rare song.ogg"]);
        net.add(Mode::Leaf, &[]);
        net.walled.extend(walled.then_some(1));
        net.join(1, 0);
        net.join(2, 0);
        net.secs(30);
        net.search(2, "rare song");
        net.secs(10);
        let (_, _, answer) = &net.found[0];
        assert_eq!(answer.status.firewalled, Some(walled));
        assert_eq!((answer.overlay, answer.addr), (place, addr(1)));
    }
}

#[test]
fn answers_come_out_of_band_and_not_through_the_ultrapeers() {
    let mut net = oob_row();
    net.search(3, "rare song");
    net.secs(10);
    assert_eq!(net.names().len(), 40);
    assert!(
        net.found
            .iter()
            .all(|(_, _, a)| a.addr == addr(4) && a.hops == 1)
    );
    assert_eq!(net.nodes[0].stats().hits + net.nodes[1].stats().hits, 0);
    // More than one datagram: none is longer than what travels in one piece.
    assert!(net.found.len() > 1);
}

#[test]
fn nobody_answers_under_an_address_that_is_not_his() {
    let mut net = oob_row();
    let guid = net.search(3, "rare song");
    let offer = Vendor::OobReplies {
        count: 5,
        reachable: true,
        secure: true,
    };
    // A stranger at 90 offers; the searcher takes it, with a token only that address hears of.
    let taken = net.tell(3, vendor(90, guid, &offer));
    let Ok(Vendor::OobAck { wanted: 5, token }) = Vendor::read(taken[0].1.payload()) else {
        panic!("not taken: {taken:?}");
    };
    assert!(taken[0].0 == addr(90) && !token.is_empty());
    let files = Files::of(&["Rare Song.mp3"]).0;
    let answerer = Answerer {
        addr: addr(90),
        speed: 1,
        vendor: *b"EVIL",
        status: Status::default(),
        proxies: Vec::new(),
        browsable: false,
        tls: false,
        overlay: None,
        servent: Guid([9; 16]),
    };
    let hit = |token: &[u8]| {
        let mut hits = Vec::new();
        answerer.write_parts(&files, 900, token, |payload| {
            hits.push(Packet::ours(Kind::Hit, guid, 1, payload));
        });
        hits.remove(0)
    };
    let mut out = Vec::new();
    for (from, token) in [(90, &[][..]), (90, &[1; 8]), (91, &token)] {
        let packet = hit(token);
        net.nodes[3].on_datagram(net.now, addr(from), packet.bytes(), &mut out);
    }
    assert!(out.is_empty(), "{out:?}");
    net.nodes[3].on_datagram(net.now, addr(90), hit(&token).bytes(), &mut out);
    assert!(matches!(out[..], [Effect::Found { .. }]));
    // For a query that nobody asked nothing is taken.
    assert!(net.tell(3, vendor(90, Guid([5; 16]), &offer)).is_empty());
}

#[test]
fn a_query_cannot_make_us_write_to_our_own_network() {
    let mut net = oob_row();
    for ip in [
        "10.0.0.1:6346",
        "127.0.0.1:53",
        "0.0.0.0:1",
        "255.255.255.255:9",
    ] {
        let guid = super::super::oob::name(Guid([3; 16]), ip.parse().unwrap());
        let mut out = Vec::new();
        let files = Files::of(&["Rare Song.mp3"]).0;
        assert!(
            !net.nodes[4].offer(net.now, guid, &files, true, &mut out),
            "{ip}"
        );
        assert!(out.is_empty());
    }
}

#[test]
fn an_ultrapeer_hands_a_head_ping_to_the_leaf_that_is_meant() {
    let mut net = oob_row();
    let sha1 = Files::of(&["Rare Song 7.ogg"]).0[0].sha1.unwrap();
    let servent = net.nodes[4].servent();
    net.nodes[4].set_load(Load::Busy, &mut Vec::new());
    let mut pongs = |servent| {
        let ping = Vendor::HeadPing(HeadPing {
            sha1,
            alternates: false,
            servent: Some(servent),
            second: true,
        });
        let (from, packet) = vendor(90, Guid([7; 16]), &ping);
        let mut out = Vec::new();
        net.nodes[2].on_datagram(net.now, from, packet.bytes(), &mut out);
        net.act(2, &mut out);
        // To the leaf and back; what goes to the stranger then is still on its way.
        net.run(Duration::from_millis(120));
        let sent = net.datagrams.iter().filter(|(_, _, to, _)| *to == addr(90));
        let pongs = sent.filter_map(|(_, _, _, packet)| match Vendor::read(packet.payload()) {
            Ok(Vendor::HeadPong(pong)) => Some((pong.complete, pong.queue)),
            _ => None,
        });
        let pongs: Vec<_> = pongs.collect();
        net.secs(1);
        pongs
    };
    assert_eq!(pongs(servent), [(true, 0)], "it has no slot free");
    assert_eq!(pongs(Guid([9; 16])), [], "nobody of that name is there");
}

#[test]
fn head_pings_and_crawlers_are_answered() {
    let mut net = oob_row();
    let sha1 = Files::of(&["Rare Song 7.ogg"]).0[0].sha1.unwrap();
    for (second, sha1, has) in [
        (false, sha1, true),
        (true, sha1, true),
        (true, [1; 20], false),
    ] {
        let ping = Vendor::HeadPing(HeadPing {
            sha1,
            alternates: true,
            servent: None,
            second,
        });
        let sent = net.tell(4, vendor(90, Guid([1; 16]), &ping));
        let Ok(Vendor::HeadPong(pong)) = Vendor::read(sent[0].1.payload()) else {
            panic!("no pong: {sent:?}");
        };
        assert_eq!(
            (pong.complete, pong.second, pong.firewalled),
            (has, second, false)
        );
    }
    let ping = Vendor::CrawlPing(CrawlPing {
        ultrapeers: 255,
        leaves: 255,
        minutes: true,
    });
    net.secs(120);
    let sent = net.tell(2, vendor(90, Guid([1; 16]), &ping));
    let Ok(Vendor::CrawlPong(pong)) = Vendor::read(sent[0].1.payload()) else {
        panic!("no pong: {sent:?}");
    };
    assert_eq!(pong.ultrapeers, [(addr(1), 2)]);
    assert_eq!(pong.leaves, [(addr(4), 2)]);
    // It is a long answer to a short question.
    let more = (0..20).map(|_| net.tell(2, vendor(90, Guid([1; 16]), &ping)).len());
    assert!(more.sum::<usize>() < 6);
}

#[test]
fn a_push_by_datagram_goes_to_a_leaf_and_only_back_to_its_sender() {
    let mut net = oob_row();
    let servent = net.nodes[4].servent();
    for (back, goes) in [(addr(90), true), (addr(91), false)] {
        let push = Push {
            servent,
            index: 0,
            addr: back,
        };
        let packet = Packet::ours(Kind::Push, Guid([1; 16]), 1, &push.write());
        let mut out = Vec::new();
        net.nodes[2].on_datagram(net.now, addr(90), packet.bytes(), &mut out);
        net.act(2, &mut out);
        net.secs(1);
        assert_eq!(net.gives.drain(..).count() == 1, goes);
    }
}

#[test]
fn a_leaf_becomes_an_ultrapeer_and_a_leaf_again() {
    let mut net = Net::new();
    net.add_with(with_oob(0, Mode::Ultrapeer), &[]);
    let promotion = Promotion {
        uptime: Duration::from_secs(600),
        speed: 50,
    };
    let config = Config {
        promotion: Some(promotion),
        ..with_oob(1, Mode::Leaf)
    };
    net.add_with(config.clone(), &[]);
    // Nobody reaches this one.
    net.add_with(
        Config {
            firewalled: true,
            ..config
        },
        &[],
    );
    net.join(1, 0);
    net.join(2, 0);
    net.secs(500);
    assert!(net.roles.is_empty());
    net.secs(200);
    assert_eq!(net.roles, [(1, Mode::Ultrapeer)]);
    assert!(net.byes.iter().any(|(n, bye)| *n == 0 && bye.code == 203));
    // As an ultrapeer it is one to others.
    net.join(1, 0);
    let link = net.nodes[0].connections().find(|l| l.addr == addr(1));
    assert_eq!(link.map(|l| l.relation), Some(Relation::Peer));
    net.secs(1500);
    assert_eq!(net.roles.len(), 1);
    net.secs(600);
    assert_eq!(net.roles, [(1, Mode::Ultrapeer), (1, Mode::Leaf)]);
}
