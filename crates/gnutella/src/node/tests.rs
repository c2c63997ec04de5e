//! Networks of nodes in virtual time.

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

/// A few files.
#[derive(Debug, Default)]
struct Files(Vec<SharedFile>);

impl Files {
    fn of(names: &[&str]) -> Self {
        let files = names.iter().zip(0..).map(|(name, index)| SharedFile {
            index,
            size: 1000,
            name: (*name).into(),
            sha1: Some(sha1(name)),
            tiger: None,
        });
        Self(files.collect())
    }
}

fn sha1(name: &str) -> Sha1 {
    let mut rng = Rng::from_seed(name.bytes().map(u64::from).sum());
    std::array::from_fn(|_| rng.next_u32() as u8)
}

impl Shared for Files {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        let found = self.0.iter().filter(|f| has_all(&f.name, words));
        out.extend(found.take(most).cloned());
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        self.0.iter().find(|f| f.sha1 == urn.sha1()).cloned()
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.0.iter().for_each(|f| each(&f.name, f.sha1));
    }

    fn size(&self) -> (u32, u32) {
        (self.0.len() as u32, self.0.len() as u32)
    }

    fn version(&self) -> u64 {
        self.0.len() as u64
    }
}

type End = (usize, ConnId);

/// Nodes joined by wires of 50 ms; every message goes through bytes.
struct Net {
    now: Time,
    nodes: Vec<Node<Files>>,
    wires: BTreeMap<End, End>,
    flying: Vec<(Time, End, Packet)>,
    /// When, from whom, to whom.
    datagrams: Vec<(Time, SocketAddrV4, SocketAddrV4, Packet)>,
    roles: Vec<(usize, Mode)>,
    found: Vec<(usize, Guid, Answer)>,
    gives: Vec<(usize, Push)>,
    byes: Vec<(usize, Bye)>,
    over: Vec<Guid>,
}

fn addr(n: usize) -> SocketAddrV4 {
    SocketAddrV4::new([44, 20, (n / 200) as u8, (n % 200) as u8 + 1].into(), 6346)
}

impl Net {
    fn new() -> Self {
        Self {
            now: Time::from_secs(1),
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            flying: Vec::new(),
            datagrams: Vec::new(),
            roles: Vec::new(),
            found: Vec::new(),
            gives: Vec::new(),
            byes: Vec::new(),
            over: Vec::new(),
        }
    }

    fn add(&mut self, mode: Mode, names: &[&str]) -> usize {
        let n = self.nodes.len();
        let config = Config {
            listen: Some(addr(n)),
            ..Config::of(mode)
        };
        self.add_with(config, names)
    }

    fn add_with(&mut self, config: Config, names: &[&str]) -> usize {
        let n = self.nodes.len();
        let rng = Rng::from_seed(n as u64);
        let node = Node::new(self.now, config, Files::of(names), rng);
        self.nodes.push(node);
        n
    }

    /// Joins two, as handshakes would.
    fn join(&mut self, a: usize, b: usize) -> (ConnId, ConnId) {
        let mut out = Vec::new();
        let (ga, gb) = (self.nodes[a].greeting(None), self.nodes[b].greeting(None));
        let ra = self.nodes[a].judge(&gb, Version::V06).unwrap();
        let rb = self.nodes[b].judge(&ga, Version::V06).unwrap();
        let ia = self.nodes[a].open(self.now, &gb, ra, addr(b), &mut out);
        self.act(a, &mut out);
        let ib = self.nodes[b].open(self.now, &ga, rb, addr(a), &mut out);
        self.wires.insert((a, ia), (b, ib));
        self.wires.insert((b, ib), (a, ia));
        self.act(b, &mut out);
        self.flush((a, ia));
        (ia, ib)
    }

    fn flush(&mut self, end: End) {
        let Some(to) = self.wires.get(&end).copied() else {
            return;
        };
        while let Some(packet) = self.nodes[end.0].pop(end.1) {
            let at = self.now + Duration::from_millis(50);
            self.flying.push((at, to, packet));
        }
    }

    fn act(&mut self, n: usize, out: &mut Vec<Effect>) {
        for effect in std::mem::take(out) {
            match effect {
                Effect::Ready(id) => self.flush((n, id)),
                Effect::Close(id) => {
                    self.flush((n, id));
                    self.nodes[n].on_closed(self.now, id);
                    self.wires.remove(&(n, id));
                }
                Effect::Found { search, answer } => self.found.push((n, search, *answer)),
                Effect::Searched(guid) => self.over.push(guid),
                Effect::Give(push) => self.gives.push((n, push)),
                Effect::Farewell(_, bye) => self.byes.push((n, bye)),
                Effect::Datagram(to, packet) => {
                    let at = self.now + Duration::from_millis(50);
                    self.datagrams.push((at, addr(n), to, packet));
                }
                Effect::ConnectBack(to) => {
                    if let Some(n) = self.at(to) {
                        self.nodes[n].reached();
                    }
                }
                Effect::Role(mode) => self.roles.push((n, mode)),
                Effect::Dial(_) => {}
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut out = Vec::new();
        loop {
            // The earliest message, in the order of sending among equals.
            let next = self
                .flying
                .iter()
                .enumerate()
                .min_by_key(|(n, f)| (f.0, *n));
            let next = next.map(|(at, f)| (f.0, at));
            let tick = self.nodes.iter().map(Node::deadline).min().unwrap();
            let first = self
                .datagrams
                .iter()
                .map(|d| d.0)
                .min()
                .unwrap_or(Time::FAR);
            let at = next.map_or(tick, |(time, _)| time.min(tick));
            let at = at.min(first).max(self.now);
            if at > end {
                self.now = end;
                return;
            }
            self.now = at;
            if first <= at {
                self.datagram();
                continue;
            }
            match next.filter(|(time, _)| *time <= at) {
                Some((_, which)) => {
                    let (_, (n, id), packet) = self.flying.remove(which);
                    let mut reader = Reader::default();
                    reader.push(packet.bytes());
                    let (header, payload) = reader.message().unwrap().unwrap();
                    self.nodes[n].on_message(self.now, id, header, payload, &mut out);
                    self.act(n, &mut out);
                }
                None => {
                    for n in 0..self.nodes.len() {
                        if self.nodes[n].deadline() <= self.now {
                            self.nodes[n].on_tick(self.now, &mut out);
                            self.act(n, &mut out);
                        }
                    }
                }
            }
        }
    }

    fn at(&self, place: SocketAddrV4) -> Option<usize> {
        (0..self.nodes.len()).find(|n| addr(*n) == place)
    }

    /// The first datagram arrives.
    fn datagram(&mut self) {
        let (_, from, to, packet) = self.datagrams.remove(0);
        if let Some(n) = self.at(to) {
            let mut out = Vec::new();
            self.nodes[n].on_datagram(self.now, from, packet.bytes(), &mut out);
            self.act(n, &mut out);
        }
    }

    fn secs(&mut self, s: u64) {
        self.run(Duration::from_secs(s));
    }

    fn search(&mut self, n: usize, text: &str) -> Guid {
        self.search_for(n, text, Wanted::default())
    }

    fn search_for(&mut self, n: usize, text: &str, wanted: Wanted) -> Guid {
        let mut out = Vec::new();
        let guid = self.nodes[n].search(self.now, text, wanted, &mut out);
        self.act(n, &mut out);
        guid
    }

    fn names(&self) -> Vec<String> {
        let files = self.found.iter().flat_map(|(_, _, a)| &a.files);
        let mut names: Vec<String> = files.map(|f| f.name.clone()).collect();
        names.sort();
        names
    }

    /// Sends bytes to `n` as if the other end of `id` had.
    fn forge(&mut self, n: usize, id: ConnId, packet: &Packet) {
        let mut out = Vec::new();
        self.nodes[n].on_message(self.now, id, packet.header(), packet.payload(), &mut out);
        self.act(n, &mut out);
    }
}

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
