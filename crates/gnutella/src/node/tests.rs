//! Networks of nodes in virtual time.

mod world;

use std::collections::BTreeMap;

use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{Answer, Config, ConnId, Effect, Load, Mode, Node, Relation};
use crate::guid::Guid;
use crate::handshake::Version;
use crate::huge::{Sha1, Urn};
use crate::message::bye::{Bye, code};
use crate::message::hit::{Answerer, Status};
use crate::message::push::Push;
use crate::message::query::{self, Wanted};
use crate::message::{Header, Kind, Packet, Reader};
use crate::shared::{Shared, SharedFile};
use crate::words::has_all;
use shoal_base::{Rng, Time};
use std::net::SocketAddrV4;
use std::time::Duration;
use world::{End, Files, Net, addr, sha1};

/// Three ultrapeers in a row, a leaf at each: ultrapeers 0 to 2, leaves 3 to 5.
fn row() -> Net {
    let mut net = Net::new();
    for _ in 0..3 {
        net.add(Mode::Ultrapeer, &[]);
    }
    let libraries: [&[&str]; 3] = [
        &[],
        &["quite another thing.txt"],
        &["Rare Song (live).ogg", "common.txt"],
    ];
    for files in libraries {
        net.add(Mode::Leaf, files);
    }
    for (a, b) in [(0, 1), (1, 2), (3, 0), (4, 1), (5, 2)] {
        net.join(a, b);
    }
    net.secs(30);
    net
}

#[test]
fn a_leaf_finds_a_file_three_ultrapeers_away_by_words_and_by_hash() {
    let mut net = row();
    net.search(3, "rare LIVE");
    net.secs(10);
    assert_eq!(net.names(), ["Rare Song (live).ogg"]);
    let (_, _, answer) = &net.found[0];
    assert_eq!((answer.addr, answer.hops), (addr(5), 4));
    assert_eq!(answer.servent, net.nodes[5].servent());
    assert_eq!(answer.vendor, *b"SHOA");
    assert_eq!(
        net.nodes[4].stats().queries,
        0,
        "a leaf without the words is left alone"
    );
    net.found.clear();
    let urns = vec![Urn::Sha1(sha1("Rare Song (live).ogg"))];
    net.search_for(3, "", Wanted { urns, media: 0 });
    net.secs(10);
    assert_eq!(net.names(), ["Rare Song (live).ogg"]);
}

#[test]
fn tables_of_ultrapeers_have_their_leaves_words_and_spare_the_last_hop() {
    let mut net = row();
    let before = net.nodes[2].stats().queries;
    // Two hops: the second would be the last, and node 2's table has no such word.
    let mut config = Config::of(Mode::Ultrapeer);
    config.ttl = 2;
    config.listen = Some(addr(6));
    let asker = net.add_with(config, &[]);
    net.join(asker, 1);
    net.secs(20);
    net.search(asker, "nowhere");
    net.secs(60);
    assert_eq!(net.nodes[2].stats().queries, before);
    assert!(net.nodes[1].stats().shielded > 0);
    net.search(asker, "rare song");
    net.secs(60);
    assert_eq!(net.names(), ["Rare Song (live).ogg"]);
    // A leaf that leaves takes its words along.
    let (id, _) = {
        let info = net.nodes[2]
            .connections()
            .find(|c| c.relation == Relation::Leaf);
        (info.unwrap().id, ())
    };
    let mut out = Vec::new();
    net.nodes[2].bye(id, code::REPLACED, "test", &mut out);
    net.act(2, &mut out);
    net.secs(30);
    assert_eq!(net.byes.len(), 1);
    let seen = net.nodes[2].stats().queries;
    net.search(asker, "rare song");
    net.secs(60);
    assert_eq!(net.nodes[2].stats().queries, seen);
}

#[test]
fn in_a_ring_each_query_is_answered_once() {
    let mut net = Net::new();
    for n in 0..5 {
        net.add(
            Mode::Ultrapeer,
            if n == 2 { &["the file.txt"] } else { &[] },
        );
    }
    for n in 0..5 {
        net.join(n, (n + 1) % 5);
    }
    net.secs(30);
    net.search(0, "file");
    net.secs(60);
    assert_eq!(net.names(), ["the file.txt"]);
    let duplicates: u64 = net.nodes.iter().map(|n| n.stats().duplicates).sum();
    assert!(duplicates > 0);
}

#[test]
fn what_everybody_has_is_asked_of_few_and_what_nobody_has_of_all() {
    let mut net = Net::new();
    let hub = net.add(Mode::Ultrapeer, &[]);
    let many: Vec<String> = (0..60).map(|n| format!("common song {n}.ogg")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for _ in 0..30 {
        let n = net.add(Mode::Ultrapeer, &many);
        net.join(hub, n);
    }
    net.secs(30);
    let asked = |net: &Net| {
        net.nodes[1..]
            .iter()
            .filter(|n| n.stats().queries > 0)
            .count()
    };
    let guid = net.search(hub, "common");
    net.secs(300);
    assert_eq!(asked(&net), 3, "the probe brought enough");
    assert!(net.over.contains(&guid));
    let guid = net.search(hub, "unheard");
    net.secs(600);
    assert_eq!(asked(&net), 30);
    assert!(net.over.contains(&guid));
    assert_eq!(net.nodes[hub].stats().querying, 0);
}

#[test]
fn a_leaf_that_has_enough_ends_its_query() {
    let mut net = row();
    let guid = net.search(3, "nowhere");
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[0].stats().querying, 1);
    let mut out = Vec::new();
    net.nodes[3].end_search(guid, &mut out);
    net.act(3, &mut out);
    net.secs(1);
    assert_eq!(net.nodes[0].stats().querying, 0);
}

#[test]
fn a_push_goes_the_way_its_hit_came_and_by_proxy() {
    let mut net = row();
    net.search(3, "rare");
    net.secs(10);
    let answer = net.found[0].2.clone();
    let mut out = Vec::new();
    let back = addr(3);
    assert!(net.nodes[3].push(answer.servent, answer.files[0].index, back, &mut out));
    net.act(3, &mut out);
    net.secs(2);
    let want = Push {
        servent: answer.servent,
        index: answer.files[0].index,
        addr: back,
    };
    assert_eq!(net.gives, [(5, want)]);
    // The hit names the ultrapeer that passes Pushes on.
    assert_eq!(answer.proxies, [addr(2)]);
    net.gives.clear();
    assert!(net.nodes[2].proxy_push(answer.servent, back, &mut out));
    assert!(!net.nodes[1].proxy_push(answer.servent, back, &mut out));
    net.act(2, &mut out);
    net.secs(2);
    assert_eq!(net.gives, [(5, Push { index: 0, ..want })]);
    assert!(!net.nodes[3].push(Guid([1; 16]), 0, back, &mut out));
}

#[test]
fn pings_are_answered_from_the_cache() {
    let mut net = row();
    net.secs(120);
    // A leaf of one end has heard of the ultrapeers at the other.
    assert!(net.nodes[3].hosts().to_tell(10).contains(&addr(1)));
    let pings: u64 = net.nodes.iter().map(|n| n.stats().received).sum();
    assert!(pings < 600, "{pings} messages in a quiet network of six");
}

#[test]
fn a_flood_reaches_everybody_within_its_ttl_and_no_further() {
    let mut net = Net::new();
    for n in 0..10 {
        net.add(Mode::Flood, if n >= 6 { &["wanted.txt"] } else { &[] });
    }
    for n in 0..9 {
        net.join(n, n + 1);
    }
    net.secs(10);
    net.search(0, "wanted");
    net.secs(10);
    // TTL 7 reaches node 7; 6 and 7 have it.
    let hops: Vec<u8> = net.found.iter().map(|(_, _, a)| a.hops).collect();
    assert_eq!(hops, [6, 7]);
    assert_eq!(net.nodes[8].stats().queries, 0);
}

#[test]
fn answers_to_searches_that_others_took_the_place_of_are_nobodys_fault() {
    let mut net = Net::new();
    let asker = net.add(Mode::Flood, &[]);
    let sharer = net.add(Mode::Flood, &["wanted.txt"]);
    net.join(asker, sharer);
    net.secs(10);
    for _ in 0..200 {
        net.search(asker, "wanted");
    }
    net.secs(10);
    assert!(net.nodes[sharer].stats().answered > 40);
    assert_eq!(net.nodes[asker].stats().malformed, 0);
    assert_eq!(net.nodes[asker].stats().ultrapeers, 1);
}

#[test]
fn a_host_cache_answers_datagrams() {
    let mut net = row();
    net.secs(60);
    let mut out = Vec::new();
    let stranger = addr(77);
    let config = Config::of(Mode::Leaf);
    let mut asker = Node::new(net.now, config, Files::default(), Rng::from_seed(99));
    asker.ask_cache(net.now, addr(0), &mut out);
    let Some(Effect::Datagram(_, ping)) = out.pop() else {
        panic!("a ping");
    };
    net.nodes[0].on_datagram(net.now, stranger, ping.bytes(), &mut out);
    let Some(Effect::Datagram(to, pong)) = out.pop() else {
        panic!("a pong");
    };
    assert_eq!(to, stranger);
    assert!(pong.bytes().len() < 6 * ping.bytes().len(), "no amplifier");
    // Only what was asked for is believed.
    let mut other = Node::new(
        net.now,
        Config::of(Mode::Leaf),
        Files::default(),
        Rng::from_seed(1),
    );
    other.on_datagram(net.now, addr(0), pong.bytes(), &mut out);
    assert!(other.hosts().is_empty());
    asker.on_datagram(net.now, addr(0), pong.bytes(), &mut out);
    let known = asker.hosts().to_tell(10);
    assert!(known.contains(&addr(0)) && known.contains(&addr(1)));
    asker.on_tick(net.now, &mut out);
    assert!(out.iter().any(|e| matches!(e, Effect::Dial(_))));
}

#[test]
fn places_are_limited_and_refusals_name_hosts() {
    let mut net = row();
    net.secs(60);
    let mut config = Config::of(Mode::Ultrapeer);
    config.leaves = 1;
    config.listen = Some(addr(50));
    let full = net.add_with(config, &[]);
    net.join(full, 0);
    let leaf = net.add(Mode::Leaf, &[]);
    net.join(leaf, full);
    net.secs(10);
    let greeting = net.nodes[3].greeting(None);
    let refusal = net.nodes[full].judge(&greeting, Version::V06).unwrap_err();
    assert_eq!(refusal.code, 503);
    assert!(refusal.hosts.contains(&addr(0)));
    // Leaves do not take leaves.
    assert!(net.nodes[3].judge(&greeting, Version::V06).is_err());
}

#[test]
fn who_falls_silent_is_let_go() {
    let mut net = row();
    // Node 5's messages do not arrive any more.
    let wires: Vec<End> = net.wires.keys().filter(|(n, _)| *n == 5).copied().collect();
    for end in wires {
        net.wires.remove(&end);
    }
    net.secs(400);
    assert_eq!(net.nodes[2].stats().leaves, 0);
    assert_eq!(net.nodes[2].stats().ultrapeers, 1);
}

proptest! {
    #[test]
    fn arbitrary_messages_break_nothing(
        messages in prop::collection::vec(
            (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)),
            0..60),
        mode in prop::sample::select(&[Mode::Ultrapeer, Mode::Leaf, Mode::Flood][..]),
    ) {
        let mut net = Net::new();
        let a = net.add(mode, &["a file.txt"]);
        let b = net.add(if mode == Mode::Flood { mode } else { Mode::Ultrapeer }, &[]);
        let (id, _) = net.join(a, b);
        let kinds = [0, 1, 2, 0x30, 0x31, 0x32, 0x40, 0x80, 0x81];
        for (kind, ttl, hops, guid, payload) in messages {
            let kind = kinds.get(usize::from(kind)).copied().unwrap_or(kind);
            let header = Header {
                guid: Guid([guid; 16]), kind, ttl: ttl % 9, hops: hops % 9, len: payload.len(),
            };
            net.forge(a, id, &Packet::new(header, &payload));
        }
        net.secs(100);
        let stats = net.nodes[a].stats();
        prop_assert!(stats.routes < 400 && stats.hosts < 200);
        prop_assert!(net.nodes[a].waiting(id) == 0);
    }
}
mod abuse;
mod datagrams;
