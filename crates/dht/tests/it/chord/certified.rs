//! Values under names: what a ring with a judge keeps, refuses, and finds again when nodes die.

use super::net::{Net, address, settings};
use shoal_base::Time;
use shoal_dht::chord::{ITEM_LIFE, Settings};
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
