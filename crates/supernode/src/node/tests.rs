//! Networks of nodes in virtual time: homes found and found again, queries, promotion, abuse.

mod anything;
mod carry;
mod homes;
mod letters;
mod pushes;
mod queries;
mod roles;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::list::{ListConfig, SupernodeList};
use crate::place::{Place, Prefix};
use crate::token::Token;
use crate::wire::{Hit, Purpose, Wanted};

const EPOCH: u64 = 1_000_000;
const DELAY: Duration = Duration::from_millis(10);

#[derive(Debug)]
enum Happening {
    Dialled(u32, u32),
    Message(u32, LinkId, Box<Message<u32>>),
    Closed(u32, LinkId),
    Listed(u32),
    Found(u32, Prefix),
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
    /// What the ring keeps, and whether it answers nobody.
    deaf: bool,
    places: BTreeMap<Prefix, Place<u32>>,
    /// Links for letters that were begun.
    dials: u64,
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
        sound: None,
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
            deaf: false,
            places: BTreeMap::new(),
            dials: 0,
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
                Effect::Dial(to) => {
                    let of = self.nodes.get(&at).and_then(|n| n.dialling.get(&to));
                    self.dials += u64::from(of.is_some_and(|(p, _)| *p == Purpose::Letters));
                    self.later(Happening::Dialled(at, to));
                }
                Effect::Find(_) if self.deaf => {}
                Effect::Find(of) => self.later(Happening::Found(at, of)),
                Effect::Keep(place) => self.keep(*place),
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

    /// The ring's nodes check what they keep, as [`Place::read`] does.
    fn keep(&mut self, place: Place<u32>) {
        let unix = EPOCH + self.now.as_micros() / 1_000_000;
        let (of, server) = (place.prefix(), server().verifying_key().to_bytes());
        let read = Place::<u32>::read(&server, &of, &place.to_bytes(), unix);
        let older = self
            .places
            .get(&of)
            .is_some_and(|p| p.rank() >= place.rank());
        if read.is_ok() && !older {
            self.places.insert(of, place);
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
            Happening::Found(at, of) => {
                let place = self.places.get(&of).cloned();
                self.with(at, |n, now, out| n.on_place(now, of, place, out));
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
