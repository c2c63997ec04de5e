//! Values under names: what a ring with a judge keeps, refuses, and finds again when nodes die.

use super::net::{Net, address, settings};
use ed25519_dalek::SigningKey;
use shoal_base::Time;
use shoal_dht::chord::{Endpoint, ITEM_LIFE, Settings};
use shoal_dht::{Answer, Certified, Failure, Item, Judge, Request};
use std::time::Duration;

const AUTHORITY: [u8; 32] = [3; 32];

/// A judge for whom a value is its number and the second at which it ends.
fn judged() -> Settings {
    let judge = Judge::new(|_, item: &Certified| {
        let (seq, end) = std::str::from_utf8(&item.value).ok()?.split_once(' ')?;
        let honest = item.authority == AUTHORITY && seq.parse() == Ok(item.seq);
        honest.then(|| Some(Time::from_secs(end.parse().ok()?)))?
    });
    Settings {
        judge: Some(judge),
        ..settings()
    }
}

fn item(name: &str, seq: i64, said: i64, end: u64) -> Item {
    Item::Certified(Box::new(Certified {
        authority: AUTHORITY,
        name: name.into(),
        seq,
        value: format!("{said} {end}").into_bytes(),
    }))
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

fn get(name: &str) -> Request {
    Request::GetCertified {
        authority: AUTHORITY,
        name: name.into(),
    }
}

#[test]
fn a_ring_keeps_what_its_judge_lets_pass_and_the_newest_of_it() {
    let mut net = Net::ring(21, 9, &judged());
    let end = net.now + Duration::from_secs(20 * 3600);
    let end = end.as_micros() / 1_000_000;
    let second = item("alice", 2, 2, end);
    let (_, stored) = net.ask(address(4), put(second.clone()));
    assert_eq!(stored.expect("kept").stored, 4);
    let (_, older) = net.ask(address(5), put(item("alice", 1, 1, end)));
    assert_eq!(older, Err(Failure::OlderThan(2)));
    for bad in [
        item("alice", 3, 9, end),
        item("bob", 1, 1, 5),
        Item::immutable(b"i1e".to_vec()).expect("fits"),
    ] {
        let (_, refused) = net.ask(address(6), put(bad));
        assert!(matches!(refused, Err(Failure::Invalid(_))), "{refused:?}");
    }
    let guest = net.guest(100, &judged());
    let (found, _) = net.ask(guest, get("alice"));
    assert_eq!(found, [Answer::Value(second.clone())]);

    // Its end is the judge's to say, not that of other items.
    net.run(ITEM_LIFE + Duration::from_secs(600));
    let (found, _) = net.ask(address(1), get("alice"));
    assert_eq!(found, [Answer::Value(second.clone())]);
    net.run(Duration::from_secs(18 * 3600));
    let (found, none) = net.ask(address(1), get("alice"));
    assert!(
        found.is_empty() && matches!(none, Err(Failure::NotFound(_))),
        "{none:?}"
    );
}

#[test]
fn every_storing_node_judges_for_itself() {
    // Who puts has no judge, so that nothing stops it before the ring does.
    let mut net = Net::ring(22, 6, &judged());
    let lax = Settings {
        judge: Some(Judge::new(|now, _| Some(now + Duration::from_secs(9999)))),
        ..settings()
    };
    let liar = net.guest(101, &lax);
    let far = net.now.as_micros() / 1_000_000 + 9999;
    for bad in [item("alice", 3, 9, far), item("alice", 3, 3, 5)] {
        let (_, refused) = net.ask(liar, put(bad));
        assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
    }
    assert!((0..6).all(|n| net.nodes[&address(n)].items() == 0));
}

#[test]
fn what_is_kept_survives_a_third_of_the_nodes_at_once() {
    for seed in 30..36 {
        let mut net = Net::ring(seed, 12, &judged());
        let end = net.now.as_micros() / 1_000_000 + 90_000;
        let names: Vec<String> = (0..30).map(|n| format!("name-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            let at = address(n as u16 % 12);
            let (_, stored) = net.ask(at, put(item(name, 1, 1, end)));
            assert!(stored.is_ok(), "{stored:?}");
        }
        let mut doomed: Vec<u16> = (0..12).collect();
        net.rng.shuffle(&mut doomed);
        for n in &doomed[..4] {
            net.nodes.remove(&address(*n));
        }
        // What a ring of sixteen successors needs to close its gaps.
        net.run(Duration::from_secs(60));
        let at = address(doomed[4]);
        let lost = names.iter().filter(|name| {
            let (found, _) = net.ask(at, get(name));
            found != [Answer::Value(item(name, 1, 1, end))]
        });
        let lost: Vec<_> = lost.collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
    }
}

/// A judge that lets pass what another one does not.
fn lying(judge: Judge) -> Settings {
    Settings {
        judge: Some(judge),
        ..settings()
    }
}

#[test]
fn two_of_four_that_answer_with_an_older_or_a_forged_value_are_outvoted() {
    let far = |now: Time| now + Duration::from_secs(90_000);
    for seed in 40..44 {
        // Of nine every third keeps the first value that it got, or any that claims a high number.
        let replayer = lying(Judge::new(move |now, item| {
            (item.seq < 2).then(|| far(now))
        }));
        let forger = lying(Judge::new(move |now, item| {
            (item.seq != 2).then(|| far(now))
        }));
        let mut net = Net::new(seed);
        for n in 0..9 {
            let settings = match n {
                2 | 5 => replayer.clone(),
                8 => forger.clone(),
                _ => judged(),
            };
            net.add(n, &settings);
            net.run(Duration::from_secs(2));
        }
        net.run(Duration::from_secs(90));
        let end = net.now.as_micros() / 1_000_000 + 90_000;
        let guest = net.guest(100, &judged());
        let lax = net.guest(101, &lying(Judge::new(move |now, _| Some(far(now)))));
        let mut outvoted = 0;
        for n in 0..30 {
            let name = format!("name-{n}");
            let newest = item(&name, 2, 2, end);
            for value in [item(&name, 1, 1, end), newest.clone()] {
                let (_, stored) = net.ask(address(0), put(value));
                assert!(stored.is_ok(), "{stored:?}");
            }
            // Forged: it says another number within.
            let _ = net.ask(lax, put(item(&name, 9, 1, end)));
            let holders = &net.order(newest.target())[..4];
            let liars = [2, 5, 8].map(address);
            let liars = holders.iter().filter(|h| liars.contains(h)).count();
            if liars > 2 {
                continue;
            }
            outvoted += liars;
            let (found, done) = net.ask(guest, get(&name));
            assert_eq!(
                found,
                [Answer::Value(newest)],
                "seed {seed}, {name}: {done:?}"
            );
        }
        assert!(outvoted > 10, "seed {seed}: {outvoted} lies");
    }
}

#[test]
fn a_guest_whose_first_doors_are_dead_does_not_wait_for_them() {
    let mut net = Net::ring(24, 9, &judged());
    let end = net.now.as_micros() / 1_000_000 + 90_000;
    let value = item("alice", 1, 1, end);
    let (_, stored) = net.ask(address(4), put(value.clone()));
    assert!(stored.is_ok(), "{stored:?}");
    net.run(Duration::from_secs(60));
    let guest = net.guest(100, &judged());
    net.with(guest, |node, now, _| node.add_doors(now, &[address(5)]));
    for dead in [0, 1] {
        net.nodes.remove(&address(dead));
    }
    let begun = net.now;
    let (found, _) = net.ask(guest, get("alice"));
    assert_eq!(found, [Answer::Value(value)]);
    let took = net.now.since(begun);
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn who_is_started_again_with_nothing_is_given_its_copies_again() {
    for seed in 50..54 {
        let mut net = Net::ring(seed, 5, &judged());
        let start = |net: &mut Net| {
            let secret = SigningKey::from_bytes(&[seed as u8; 32]);
            let rng = net.rng.fork();
            let node = Endpoint::new(secret, judged(), rng);
            net.nodes.insert(address(5), node);
            net.with(address(5), |n, now, out| n.join(now, &[address(0)], out));
        };
        start(&mut net);
        net.run(Duration::from_secs(90));
        let end = net.now.as_micros() / 1_000_000 + 90_000;
        let items: Vec<Item> = (0..20)
            .map(|n| item(&format!("name-{n}"), 1, 1, end))
            .collect();
        for item in &items {
            let (_, stored) = net.ask(address(1), put(item.clone()));
            assert!(stored.is_ok(), "{stored:?}");
        }
        net.run(Duration::from_secs(30));
        // So soon that nobody has missed it; then so late that all have.
        for away in [0, 1, 120] {
            net.nodes.remove(&address(5));
            net.run(Duration::from_secs(away));
            start(&mut net);
            net.run(Duration::from_secs(90));
            for item in &items {
                let order = &net.order(item.target())[..4];
                let lacking = order.iter().filter(|a| !net.nodes[a].holds(item.target()));
                let lacking: Vec<_> = lacking.collect();
                assert!(lacking.is_empty(), "seed {seed}, {away} s: {lacking:?}");
            }
        }
    }
}
