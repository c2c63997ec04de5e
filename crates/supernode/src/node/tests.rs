//! Networks of nodes in virtual time: homes found and found again, queries, promotion, abuse.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;
use crate::list::{ListConfig, SupernodeList};
use crate::token::Token;
use crate::wire::Purpose;

const EPOCH: u64 = 1_000_000;
const DELAY: Duration = Duration::from_millis(10);

#[derive(Debug)]
enum Happening {
    Dialled(u32, u32),
    Message(u32, LinkId, Box<Message<u32>>),
    Closed(u32, LinkId),
    Listed(u32),
}

struct World {
    now: Time,
    nodes: BTreeMap<u32, Node<u32>>,
    list: SupernodeList<u32>,
    queue: BTreeMap<(Time, u64), Happening>,
    wires: BTreeMap<(u32, LinkId), (u32, LinkId)>,
    next: u64,
    events: Vec<(Time, u32, Event<u32>)>,
    /// Addresses that nobody can connect to.
    firewalled: BTreeSet<u32>,
}

fn server() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn own_key(n: u32) -> SigningKey {
    let mut secret = [9; 32];
    secret[..4].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&secret)
}

fn token(by: &SigningKey, n: u32, expires: u64) -> Token {
    let public = own_key(n).verifying_key().to_bytes();
    Token::issue(by, &format!("n{n}"), public, EPOCH + expires)
}

fn file(path: &str) -> File {
    File {
        path: path.into(),
        size: 5,
        sha1: [1; 20],
        tiger: Some([2; 24]),
    }
}

impl World {
    fn new() -> Self {
        let config = ListConfig {
            epoch: EPOCH,
            per_host: 1,
            ..ListConfig::default()
        };
        let trusted = server().verifying_key().to_bytes();
        Self {
            now: Time::from_secs(1),
            nodes: BTreeMap::new(),
            list: SupernodeList::new(config, trusted, Rng::from_seed(2)),
            queue: BTreeMap::new(),
            wires: BTreeMap::new(),
            next: 0,
            events: Vec::new(),
            firewalled: BTreeSet::new(),
        }
    }

    fn add(&mut self, n: u32, role: Role, change: impl FnOnce(&mut Config)) {
        self.add_with(n, role, token(&server(), n, 1_000_000), change);
    }

    fn add_with(&mut self, n: u32, role: Role, token: Token, change: impl FnOnce(&mut Config)) {
        let mut config = Config::new(server().verifying_key().to_bytes(), role);
        config.epoch = EPOCH;
        config.may_change = false;
        change(&mut config);
        let presence = Presence::new(&own_key(n), token, n, Some(n));
        let mut node = Node::new(config, own_key(n), presence, Rng::from_seed(n.into()));
        let mut out = Vec::new();
        node.share(
            self.now,
            vec![file(&format!("of/song number{n}.mp3"))],
            &mut out,
        );
        node.start(self.now, &mut out);
        self.nodes.insert(n, node);
        self.act(n, out);
    }

    fn later(&mut self, what: Happening) {
        self.next += 1;
        self.queue.insert((self.now + DELAY, self.next), what);
    }

    fn act(&mut self, at: u32, out: Vec<Effect<u32>>) {
        for effect in out {
            match effect {
                Effect::Dial(to) => self.later(Happening::Dialled(at, to)),
                Effect::Send(link, message) => {
                    if let Some((to, there)) = self.wires.get(&(at, link)).copied() {
                        self.later(Happening::Message(to, there, Box::new(message)));
                    }
                }
                Effect::Close(link) => {
                    if let Some((to, there)) = self.wires.remove(&(at, link)) {
                        self.later(Happening::Closed(to, there));
                    }
                }
                Effect::AskList => self.later(Happening::Listed(at)),
                Effect::Register(said) => {
                    let _ = self.list.register(self.now, at.into(), &said);
                }
                Effect::Event(event) => self.events.push((self.now, at, event)),
            }
        }
        if let Some(node) = self.nodes.get(&at) {
            node.check_invariants();
        }
    }

    fn with(&mut self, at: u32, act: impl FnOnce(&mut Node<u32>, Time, &mut Vec<Effect<u32>>)) {
        let mut out = Vec::new();
        if let Some(node) = self.nodes.get_mut(&at) {
            act(node, self.now, &mut out);
        }
        self.act(at, out);
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Dialled(from, to) => {
                if !self.nodes.contains_key(&to) || self.firewalled.contains(&to) {
                    return self.with(from, |n, now, out| n.on_dial_failed(now, to, out));
                }
                self.next += 2;
                let (a, b) = (self.next as u32, self.next as u32 + 1);
                self.next += 1;
                self.wires.insert((from, a), (to, b));
                self.wires.insert((to, b), (from, a));
                self.with(to, |n, now, out| {
                    n.on_connected(now, b, None, from.into(), out);
                });
                self.with(from, |n, now, out| {
                    n.on_connected(now, a, Some(to), to.into(), out);
                });
            }
            Happening::Message(to, link, message) => {
                self.with(to, |n, now, out| n.on_message(now, link, *message, out));
            }
            Happening::Closed(to, link) => {
                self.wires.remove(&(to, link));
                self.with(to, |n, now, out| n.on_closed(now, link, out));
            }
            Happening::Listed(at) => {
                let entries = self.list.entries(self.now);
                self.with(at, |n, now, out| n.on_list(now, &entries, out));
            }
        }
    }

    fn runs(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let ticks = self
                .nodes
                .iter()
                .map(|(n, node)| (node.deadline(), *n))
                .min();
            let next = self.queue.keys().next().copied();
            let at = ticks
                .map_or(Time::FAR, |t| t.0)
                .min(next.map_or(Time::FAR, |n| n.0));
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            match next {
                Some(key) if key.0 <= at => {
                    let what = self.queue.remove(&key).expect("seen");
                    self.happen(what);
                }
                _ => {
                    let n = ticks.expect("a tick").1;
                    self.with(n, Node::on_tick);
                }
            }
        }
        self.now = end;
    }

    /// Kills a node: its connections break, or (`silently`) nothing is heard of it again.
    fn kill(&mut self, n: u32, silently: bool) {
        self.nodes.remove(&n);
        let ends: Vec<_> = self
            .wires
            .keys()
            .filter(|(at, _)| *at == n)
            .copied()
            .collect();
        for end in ends {
            if let Some((to, there)) = self.wires.remove(&end)
                && !silently
            {
                self.later(Happening::Closed(to, there));
            }
        }
    }

    fn homes(&self) -> BTreeMap<u32, Option<u32>> {
        let peers = self.nodes.iter().filter(|(_, n)| n.role() == Role::Peer);
        peers.map(|(n, node)| (*n, node.home())).collect()
    }

    /// Searches, waits two seconds; the addresses of who has it.
    fn finds(&mut self, at: u32, words: &str) -> Vec<u32> {
        let before = self.events.len();
        self.with(at, |n, now, out| {
            n.search(now, words, out);
        });
        self.runs(Duration::from_secs(2));
        let hits = self
            .events
            .iter()
            .skip(before)
            .filter_map(|(_, n, e)| match e {
                Event::Hits(_, hits) if *n == at => Some(hits),
                _ => None,
            });
        hits.flatten().map(|h| h.sharer.links).collect()
    }

    /// Six supernodes and so many peers, at home.
    fn overlay(peers: u32) -> Self {
        let mut w = Self::new();
        for n in 1..=6 {
            w.add(n, Role::Supernode, |c| c.neighbours = 3);
            w.runs(Duration::from_secs(1));
        }
        for n in 100..100 + peers {
            w.add(n, Role::Peer, |_| {});
        }
        w.runs(Duration::from_secs(40));
        w
    }
}

#[test]
fn a_file_of_any_peer_is_found_from_any_other() {
    let mut w = World::overlay(30);
    assert!(w.homes().values().all(Option::is_some), "{:?}", w.homes());
    let used: BTreeSet<_> = w.homes().into_values().collect();
    assert_eq!(used.len(), 6, "all supernodes have children");
    for n in 100..130 {
        let from = 100 + (n * 7) % 30;
        let found = w.finds(from, &format!("song number{n}"));
        let wanted = if from == n { Vec::new() } else { vec![n] };
        assert_eq!(
            found, wanted,
            "of {n} from {from}: once, by the one who has it"
        );
    }
    assert_eq!(w.finds(1, "number3"), [3], "supernodes share too");
    assert_eq!(w.finds(100, "number3 number4"), []);
    let sum =
        |w: &World, of: fn(&Stats) -> u64| w.nodes.values().map(|n| of(&n.stats())).sum::<u64>();
    assert!(sum(&w, |s| s.duplicates) > 0, "loops there are");
    assert_eq!(sum(&w, |s| s.forged), 0);
}

#[test]
fn children_are_at_home_elsewhere_within_seconds_when_their_supernode_dies() {
    for silently in [false, true] {
        let mut w = World::overlay(12);
        let orphans: Vec<u32> = w
            .homes()
            .into_iter()
            .filter(|(_, home)| *home == Some(2))
            .map(|(n, _)| n)
            .collect();
        assert!(!orphans.is_empty());
        w.kill(2, silently);
        // A broken connection is seen at once, silence after six seconds.
        w.runs(Duration::from_secs(if silently { 9 } else { 2 }));
        for n in &orphans {
            let home = w.nodes[n].home();
            assert!(
                home.is_some_and(|h| h != 2),
                "{n} has {home:?}, silently: {silently}"
            );
        }
        for n in orphans.into_iter().take(3) {
            let from = if n == 100 { 101 } else { 100 };
            assert_eq!(
                w.finds(from, &format!("number{n}")),
                [n],
                "it registered again"
            );
        }
    }
}

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
fn the_fastest_child_that_can_be_reached_is_promoted() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |c| {
        c.max_children = 10;
        // Six children are enough for it, five are not: one is promoted, no more.
        c.promote_at = 60;
        c.min_uptime = Duration::from_secs(5);
    });
    for n in 100..106 {
        w.add(n, Role::Peer, |c| {
            c.may_change = true;
            c.up_limit = Some(match n {
                103 => 10_000_000,
                102 => 1_000_000,
                104 => 1_000,
                _ => 100_000,
            });
        });
    }
    // The fastest of all cannot be reached.
    w.firewalled.insert(103);
    w.runs(Duration::from_secs(120));
    let supers: Vec<u32> = w
        .nodes
        .iter()
        .filter(|(_, n)| n.role() == Role::Supernode)
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(supers, [1, 102]);
    let rate = |of| {
        w.events.iter().find_map(|(_, _, e)| match e {
            Event::Measured(at, rate) if *at == of => Some(*rate),
            _ => None,
        })
    };
    assert_eq!(rate(103), Some(0));
    let measured = rate(102).expect("measured");
    assert!(
        (600_000..1_200_000).contains(&measured),
        "{measured} B/s at 1,000,000"
    );
    assert_eq!(w.nodes[&102].stats().neighbours, 1);
    assert_eq!(
        w.finds(102, "number100"),
        [100],
        "it is linked with its old supernode"
    );
    assert!(
        w.list.entries(w.now).iter().any(|e| e.addr == 102),
        "and on the list"
    );
}

#[test]
fn a_supernode_without_children_becomes_a_peer() {
    let mut w = World::overlay(6);
    w.add(7, Role::Supernode, |c| {
        c.may_change = true;
        c.idle = Duration::from_secs(60);
    });
    w.runs(Duration::from_secs(90));
    assert_eq!(w.nodes[&7].role(), Role::Peer);
    assert!(w.nodes[&7].home().is_some());
    assert_eq!(w.finds(100, "number7"), [7]);
    assert!(w.list.entries(w.now).iter().all(|e| e.addr != 7));
}

#[test]
fn children_go_to_a_supernode_with_more_room_and_are_never_without_one() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |c| c.max_children = 20);
    for n in 100..116 {
        w.add(n, Role::Peer, |_| {});
    }
    w.runs(Duration::from_secs(40));
    assert_eq!(w.nodes[&1].stats().children, 16);
    let before = w.events.len();
    for n in [2, 3] {
        w.add(n, Role::Supernode, |c| c.max_children = 20);
    }
    w.runs(Duration::from_secs(120));
    let children: Vec<u64> = (1..=3).map(|n| w.nodes[&n].stats().children).collect();
    assert_eq!(children.iter().sum::<u64>(), 16);
    assert!(children.iter().all(|n| (3..=9).contains(n)), "{children:?}");
    let lost = w.events[before..]
        .iter()
        .any(|(_, n, e)| *n >= 100 && matches!(e, Event::Home(None)));
    assert!(!lost, "a move is made before the old link is broken");
    for n in 100..116 {
        let from = if n == 100 { 101 } else { 100 };
        assert_eq!(w.finds(from, &format!("number{n}")), [n]);
    }
}

#[test]
fn a_supernode_that_grows_slow_or_cannot_be_reached_becomes_a_peer() {
    let mut w = World::new();
    for n in 1..=5 {
        w.add(n, Role::Supernode, |c| {
            c.neighbours = 4;
            c.may_change = true;
            c.check_every = Duration::from_secs(20);
            // The second sends too slowly for a supernode.
            c.up_limit = Some(if n == 2 { 10_000 } else { 10_000_000 });
        });
    }
    w.runs(Duration::from_secs(40));
    for n in 100..110 {
        w.add(n, Role::Peer, |_| {});
    }
    w.runs(Duration::from_secs(200));
    let supers = |w: &World| -> Vec<u32> {
        let of = w.nodes.iter().filter(|(_, n)| n.role() == Role::Supernode);
        of.map(|(n, _)| *n).collect()
    };
    assert_eq!(supers(&w), [1, 3, 4, 5]);
    // A firewall comes up before the third.
    w.firewalled.insert(3);
    w.runs(Duration::from_secs(300));
    assert_eq!(supers(&w), [1, 4, 5]);
    assert!(w.homes().values().all(Option::is_some), "{:?}", w.homes());
    assert_eq!(w.finds(100, "number3"), [3]);
}

#[test]
fn one_liar_brings_no_supernode_down() {
    let mut w = World::new();
    for n in 1..=4 {
        w.add(n, Role::Supernode, |c| {
            c.neighbours = 3;
            c.may_change = true;
            c.check_every = Duration::from_secs(20);
        });
    }
    w.runs(Duration::from_secs(200));
    let link = stranger(&mut w, 1, 300, Purpose::Neighbour);
    for _ in 0..100 {
        let lie = Message::Measured(0);
        w.with(1, |n, now, out| n.on_message(now, link, lie, out));
        w.with(1, |n, now, out| n.on_message(now, link, Message::Ping, out));
        w.runs(Duration::from_secs(1));
    }
    assert_eq!(w.nodes[&1].role(), Role::Supernode);
}

#[test]
fn of_too_many_supernodes_the_youngest_become_peers() {
    let mut w = World::new();
    for n in 1..=5 {
        w.add(n, Role::Supernode, |c| {
            c.neighbours = 4;
            c.may_change = true;
            c.idle = Duration::from_secs(100);
        });
        w.runs(Duration::from_secs(5));
    }
    for n in 100..120 {
        w.add(n, Role::Peer, |_| {});
    }
    w.runs(Duration::from_secs(600));
    let supers = w.nodes.iter().filter(|(_, n)| n.role() == Role::Supernode);
    let supers: Vec<u32> = supers.map(|(n, _)| *n).collect();
    assert_eq!(supers, [1, 2], "with one neighbour only nobody gives way");
    assert!(w.homes().values().all(Option::is_some), "{:?}", w.homes());
    for n in [101, 119, 4] {
        assert_eq!(w.finds(100, &format!("number{n}")), [n]);
    }
}

#[test]
fn a_flood_of_links_takes_no_place_and_lets_newcomers_in() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |c| {
        c.max_children = 10;
        c.links_per_host = 3;
        c.knocks_per_minute = 60;
    });
    for n in 100..105 {
        w.add(n, Role::Peer, |_| {});
    }
    w.runs(Duration::from_secs(10));
    assert_eq!(w.nodes[&1].stats().children, 5);
    // A thousand from one host: three are looked at.
    let mut link = 4_000_000_000;
    let before = w.nodes[&1].stats().refused;
    for _ in 0..1000 {
        link += 1;
        w.with(1, |n, now, out| n.on_connected(now, link, None, 666, out));
    }
    assert_eq!(w.nodes[&1].stats().refused - before, 997);
    // Ten thousand from as many hosts, in ten seconds; meanwhile somebody honest comes.
    w.add(105, Role::Peer, |_| {});
    for n in 0..10_000 {
        link += 1;
        w.with(1, |node, now, out| {
            node.on_connected(now, link, None, 1_000_000 + n, out);
        });
        w.runs(Duration::from_millis(1));
        assert!(w.nodes[&1].links.len() <= 6 + 64 + 3);
    }
    assert_eq!(
        w.nodes[&1].stats().children,
        6,
        "the old ones and the newcomer"
    );
}

#[test]
fn a_full_supernode_names_others() {
    let mut w = World::new();
    for n in 1..=3 {
        w.add(n, Role::Supernode, |c| c.max_children = 4);
    }
    w.runs(Duration::from_secs(40));
    for n in 100..112 {
        w.add(n, Role::Peer, |_| {});
    }
    w.runs(Duration::from_secs(60));
    assert!(w.homes().values().all(Option::is_some), "{:?}", w.homes());
}

#[test]
fn a_file_is_found_by_its_hash_whatever_it_is_called() {
    let mut w = World::overlay(6);
    let named = |n: u32, path: &str| File {
        sha1: [n as u8; 20],
        ..file(path)
    };
    w.with(100, |n, now, out| {
        n.share(now, vec![named(77, "one name")], out);
    });
    w.with(101, |n, now, out| {
        n.share(now, vec![named(77, "another"), named(78, "a third")], out);
    });
    w.runs(Duration::from_secs(1));
    let before = w.events.len();
    w.with(102, |n, now, out| {
        assert!(n.seek(now, [77; 20], out).is_some());
    });
    w.runs(Duration::from_secs(2));
    let mut found: Vec<&str> = Vec::new();
    for (_, at, event) in &w.events[before..] {
        if let (102, Event::Hits(_, hits)) = (*at, event) {
            found.extend(hits.iter().map(|h| h.file.path.as_str()));
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["another", "one name"]);
}

#[test]
fn another_network_answers_through_a_supernode_that_is_in_both() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |_| {});
    w.add(2, Role::Supernode, |c| c.bridge = true);
    w.runs(Duration::from_secs(40));
    w.add(100, Role::Peer, |_| {});
    w.runs(Duration::from_secs(5));
    let before = w.events.len();
    w.with(100, |n, now, out| {
        assert!(n.search(now, "far song", out).is_some());
    });
    w.runs(Duration::from_secs(1));
    let asked = w.events[before..].iter().find_map(|(_, at, e)| match e {
        Event::Asked(id, wanted) if *at == 2 => Some((*id, wanted.clone())),
        _ => None,
    });
    let (id, wanted) = asked.expect("it is told of the query");
    assert_eq!(wanted, Wanted::Words("far song".into()));
    let found = (0..30).map(|n| (file(&format!("a far song {n}")), 5000 + n));
    let found = found.chain([(file("something else"), 6000)]).collect();
    w.with(2, |n, now, out| n.found_elsewhere(now, id, found, out));
    w.with(2, |n, now, out| {
        n.found_elsewhere(now, [9; 16], vec![(file("far song"), 1)], out);
    });
    w.runs(Duration::from_secs(1));
    let hits: Vec<&Hit<u32>> = w.events[before..]
        .iter()
        .filter_map(|(_, at, e)| match e {
            Event::Hits(of, hits) if *at == 100 && *of == id => Some(hits),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(hits.len(), 20, "of one teller only so many");
    assert!(
        hits.iter()
            .all(|h| h.sharer.links == 2 && h.elsewhere >= Some(5000))
    );
}

/// The query of the last hits that a node heard of, and who shares.
fn last_hit(w: &World, at: u32) -> (QueryId, Key) {
    let hit = w.events.iter().rev().find_map(|(_, n, e)| match e {
        Event::Hits(id, hits) if *n == at => Some((*id, hits[0].sharer.token.key)),
        _ => None,
    });
    hit.expect("a hit")
}

#[test]
fn a_sharer_that_cannot_be_reached_is_asked_by_the_way_its_hit_came() {
    let mut w = World::overlay(12);
    let (home, other) = (w.homes()[&100], w.homes());
    let far = other
        .iter()
        .find(|(_, h)| **h != home)
        .expect("one elsewhere");
    let far = *far.0;
    assert_eq!(w.finds(100, &format!("number{far}")), [far]);
    let (query, sharer) = last_hit(&w, 100);
    let before = w.events.len();
    w.with(100, |n, now, out| {
        assert!(n.push(now, query, &sharer, [1; 20], out));
        assert!(
            !n.push(now, [0; 16], &sharer, [1; 20], out),
            "no such query"
        );
    });
    w.runs(Duration::from_secs(2));
    let asked = w.events[before..].iter().filter_map(|(_, at, e)| match e {
        Event::Push(sha1, to) => Some((*at, *sha1, *to)),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(far, [1; 20], 100)]);
}

#[test]
fn nobody_makes_a_sharer_connect_to_somebody_else() {
    let mut w = World::overlay(6);
    let home = w.homes()[&100].expect("at home");
    let link = stranger(&mut w, home, 300, Purpose::Child);
    let query = Message::Query {
        id: [3; 16],
        wanted: Wanted::Words("number100".into()),
        ttl: 0,
    };
    w.with(home, |n, now, out| n.on_message(now, link, query, out));
    let sharer = own_key(100).verifying_key().to_bytes();
    let own = |links, n| Presence::new(&own_key(300), token(&server(), n, 1_000_000), links, None);
    let push = |query, from| Message::Push {
        query,
        sharer,
        sha1: [1; 20],
        from: Box::new(from),
    };
    let told = [
        // Another's address in one's own name, and one's own address in another's.
        push([3; 16], own(101, 300)),
        push([3; 16], own(300, 301)),
    ];
    for message in told {
        w.with(home, |n, now, out| n.on_message(now, link, message, out));
    }
    // By the way of a query that somebody else asked.
    let thief = stranger(&mut w, home, 302, Purpose::Child);
    let mine = Presence::new(
        &own_key(302),
        token(&server(), 302, 1_000_000),
        302,
        Some(302),
    );
    w.with(home, |n, now, out| {
        n.on_message(now, thief, push([3; 16], mine), out);
    });
    w.runs(Duration::from_secs(2));
    let pushed = w
        .events
        .iter()
        .any(|(_, _, e)| matches!(e, Event::Push(..)));
    assert!(!pushed);
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

/// Two nodes joined by hand: the second is driven by the test.
fn stranger(w: &mut World, at: u32, n: u32, purpose: Purpose) -> LinkId {
    let link = 4_000_000_000 + n;
    w.with(at, |node, now, out| {
        node.on_connected(now, link, None, n.into(), out);
    });
    let presence = Presence::new(&own_key(n), token(&server(), n, 1_000_000), n, Some(n));
    let hello = Message::Hello {
        version: crate::wire::VERSION,
        purpose,
        presence,
        nonce: [5; 32],
    };
    let mut out = Vec::new();
    let node = w.nodes.get_mut(&at).expect("there");
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
    let theirs = presence.token.key;
    let seal = crate::token::Sealed::new(&own_key(n), "link", &(*nonce, [5u8; 32], theirs));
    w.with(at, |node, now, out| {
        node.on_message(now, link, Message::Proof(seal), out);
    });
    link
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

fn any_message() -> impl Strategy<Value = Message<u32>> {
    let entry = any::<(u32, u8, u32)>().prop_map(|(addr, load, age)| Entry { addr, load, age });
    let entries = proptest::collection::vec(entry, 0..5);
    let moves = entries.clone();
    let words = prop_oneof![Just("song".to_owned()), "[a-z ]{0,9}"];
    let n = 0u32..5;
    // Signed once: signing costs milliseconds in a debug build.
    let sharer = |n| Presence::new(&own_key(n), token(&server(), n, 1_000_000), n, None);
    let sharers: Vec<_> = (0..5).map(sharer).collect();
    let (askers, renewed) = (sharers.clone(), sharers.clone());
    prop_oneof![
        Just(Message::Ping),
        Just(Message::Pong),
        Just(Message::Promote),
        entries.clone().prop_map(Message::Welcome),
        entries.prop_map(Message::Spares),
        "[a-z/ ]{0,12}".prop_map(|p| Message::Share(vec![file(&p)])),
        "[a-z/ ]{0,12}".prop_map(|p| Message::Unshare(vec![p])),
        (any::<u8>(), words, any::<u8>()).prop_map(|(id, words, ttl)| Message::Query {
            id: [id; 16],
            wanted: Wanted::Words(words),
            ttl
        }),
        any::<u8>().prop_map(|id| Message::Query {
            id: [id; 16],
            wanted: Wanted::Sha1([1; 20]),
            ttl: id,
        }),
        (any::<u8>(), n.clone(), n.clone()).prop_map(move |(id, n, from)| Message::Push {
            query: [id; 16],
            sharer: own_key(n).verifying_key().to_bytes(),
            sha1: [1; 20],
            from: Box::new(askers[from as usize].clone()),
        }),
        n.clone()
            .prop_map(move |n| Message::Renewed(Box::new(renewed[n as usize].clone()))),
        (any::<u8>(), n).prop_map(move |(id, n)| {
            let sharer = sharers[n as usize].clone();
            Message::Hits(
                [id; 16],
                vec![Hit {
                    file: file("a song"),
                    sharer,
                    elsewhere: (id % 2 == 0).then_some(7),
                }],
            )
        }),
        any::<u32>().prop_map(Message::Probe),
        (any::<u8>(), any::<u32>()).prop_map(|(load, uptime)| Message::State { load, uptime }),
        any::<u64>().prop_map(Message::Measured),
        moves.prop_map(Message::Move),
        any::<Vec<u8>>().prop_map(Message::Chunk),
        Just(Message::Refuse(Why::Full, Vec::new())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever three links say in whatever order, the tables hold (checked after each message).
    #[test]
    fn no_sequence_of_messages_breaks_a_node(
        steps in proptest::collection::vec((0usize..3, any_message()), 1..60),
        role in prop_oneof![Just(Role::Peer), Just(Role::Supernode)],
    ) {
        let mut w = World::new();
        w.add(1, Role::Supernode, |_| {});
        w.add(2, role, |c| c.may_change = true);
        w.runs(Duration::from_secs(3));
        let purposes = [Purpose::Child, Purpose::Neighbour, Purpose::Probe];
        let links: Vec<_> = (0..3).map(|n| stranger(&mut w, 2, 300 + n as u32, purposes[n])).collect();
        for (n, message) in steps {
            w.with(2, |node, now, out| node.on_message(now, links[n], message, out));
            if n == 2 {
                w.runs(Duration::from_millis(700));
            }
        }
        w.runs(Duration::from_secs(10));
    }
}
