//! Chord: arbitrary bytes come to a live member of a ring with
//! operations under way, as plain datagrams, as bodies within the session of a member that lies,
//! and as datagrams of an honest member with bits turned. Nothing panics, nothing that is sent
//! exceeds a datagram, what is kept stays within its limits, and time always goes on.

#![no_main]

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use shoal_base::{Rng, Time};
use shoal_dht::chord::{Config, Endpoint, Limits, MAX_DATAGRAM, Settings, raw};
use shoal_dht::keywords::Record;
use shoal_dht::{Dht, Id, Item, Mutable, Output, Request};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

fn at(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 7000).into()
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

struct World {
    now: Time,
    victim: Endpoint,
    honest: Endpoint,
    liar: raw::Line,
    mail: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Numbers of what the victim asked the liar last, for answers to use.
    asked: VecDeque<[u8; 4]>,
}

impl World {
    fn post(&mut self, from: SocketAddr, out: Vec<Output>) {
        for output in out {
            if let Output::Send { to, bytes } = output {
                assert!(bytes.len() <= MAX_DATAGRAM);
                self.mail.push_back((from, to, bytes));
            }
        }
    }

    /// Delivers what is on its way, and what comes of it, within reason. `turn` damages some.
    fn settle(&mut self, turn: Option<(u8, u8)>) {
        for n in 0..256u32 {
            let Some((from, to, mut bytes)) = self.mail.pop_front() else {
                return;
            };
            if let Some((where_, what)) = turn.filter(|_| n == 0) {
                let at = usize::from(where_) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= what;
                }
            }
            let mut out = Vec::new();
            if to == at(1) {
                self.victim.on_datagram(self.now, from, &bytes, &mut out);
            } else if to == at(2) {
                self.honest.on_datagram(self.now, from, &bytes, &mut out);
            } else if to == at(3)
                && let Some(body) = self.liar.hear(self.now, from, &bytes, &mut out)
            {
                // A message's nonce follows its kind; a question's number the body's.
                let number = match body.first() {
                    Some(0) => body.get(4..8),
                    _ => body.get(1..5),
                };
                if let Some(number) = number.and_then(|n| n.try_into().ok()) {
                    self.asked.push_back(number);
                    self.asked.truncate(64);
                }
            }
            self.post(to, out);
        }
        self.mail.clear();
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        let mut out = Vec::new();
        self.victim.on_tick(self.now, &mut out);
        assert!(self.victim.deadline().is_none_or(|due| due > self.now));
        self.post(at(1), std::mem::take(&mut out));
        self.honest.on_tick(self.now, &mut out);
        self.post(at(2), out);
    }
}

fn world() -> World {
    let settings = Settings {
        secret: b"s".to_vec(),
        chord: Config {
            successors: 4,
            ..Config::default()
        },
        limits: Limits {
            items: 20,
            per_publisher: 10,
            peer_keys: 8,
            peers_per_key: 8,
            words: 8,
            records_per_word: 8,
            per_word_publisher: 4,
        },
        ..Settings::default()
    };
    let now = Time::from_secs(100);
    let mut world = World {
        now,
        victim: Endpoint::new(key(1), settings.clone(), Rng::from_seed(1)),
        honest: Endpoint::new(key(2), settings, Rng::from_seed(2)),
        liar: raw::Line::new(key(3), "shoal", b"s", Rng::from_seed(3)),
        mail: VecDeque::new(),
        asked: VecDeque::new(),
    };
    let mut out = Vec::new();
    world.victim.create(now, &mut out);
    world.honest.join(now, &[at(1)], &mut out);
    world.post(at(2), std::mem::take(&mut out));
    // The liar has a session, and is known as a neighbour.
    let place = world.liar.place(at(3));
    let notify = shoal_dht::chord::Message::Notify { id: place.id };
    world.liar.say(now, at(1), raw::ring(0, 0, notify), &mut out);
    world.post(at(3), out);
    world.settle(None);
    let mut out = Vec::new();
    let key = key(9).verifying_key().to_bytes();
    for request in [
        Request::Peers { key: Id([1; 20]) },
        Request::GetMutable { key, salt: Vec::new(), newer_than: None },
        Request::Subscribe { key, salt: b"s".to_vec() },
        Request::Announce { key: Id([2; 20]), port: None, seed: true, keep: true },
        Request::Put {
            item: Item::Mutable(Box::new(
                Mutable::sign(&self::key(9), b"s", 1, b"i1e".to_vec()).expect("valid"),
            )),
            cas: None,
            keep: true,
        },
        Request::Publish {
            record: Record::sign(&self::key(9), Id([3; 20]), 1, 1, "some words here"),
            keep: true,
        },
        Request::Find { words: "some words".into(), most: 9 },
    ] {
        world.victim.request(now, request, &mut out);
    }
    world.post(at(1), out);
    world
}

fuzz_target!(|data: &[u8]| {
    let mut world = world();
    let mut rest = data;
    // Each step: what, how much time, how long; then the bytes.
    while let Some((&[kind, wait, len], after)) = rest.split_first_chunk::<3>() {
        let (body, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        let mut turn = None;
        let mut out = Vec::new();
        match kind % 4 {
            // A plain datagram from anywhere.
            0 => {
                let from = at(kind / 4 % 5 + 1);
                world.victim.on_datagram(world.now, from, body, &mut out);
                world.post(at(1), out);
            }
            // The liar says it.
            1 => {
                world.liar.say(world.now, at(1), body.to_vec(), &mut out);
                world.post(at(3), out);
            }
            // The liar answers with it what it was asked.
            2 => {
                let Some(number) = world.asked.pop_front() else {
                    continue;
                };
                let split = body.len().min(4);
                let (head, tail) = body.split_at(split);
                let body = match head.first().is_some_and(|b| b & 1 == 1) {
                    true => [&[2][..], &number, tail].concat(),
                    false => [&[0, 0, 0][..], head.get(1..2).unwrap_or(&[5]), &number, tail].concat(),
                };
                world.liar.say(world.now, at(1), body, &mut out);
                world.post(at(3), out);
            }
            // What is on its way is damaged.
            _ => turn = body.split_first_chunk::<2>().map(|(&[a, b], _)| (a, b)),
        }
        world.settle(turn);
        world.pass(Duration::from_millis(u64::from(wait) * u64::from(wait)));
        assert!(world.victim.items() <= 20);
        assert!(world.victim.peers().1 <= 64 && world.victim.words().1 <= 64);
        assert!(world.victim.memory() < 1_000_000);
    }
});
