//! Partitions longer than anybody waits: each side becomes a ring of its own; healed, they become
//! one ring, and whatever was stored on either side is found from everywhere.

use super::net::{Net, address, settings};
use ed25519_dalek::SigningKey;
use shoal_dht::{Answer, Item, Mutable, Request};
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn item(text: &str) -> Item {
    Item::immutable(format!("{}:{text}", text.len()).into_bytes()).expect("valid")
}

fn put(item: Item) -> Request {
    Request::Put {
        item,
        cas: None,
        keep: false,
    }
}

/// Whether the nodes form the one ideal ring.
fn one_ring(net: &Net) -> Result<(), String> {
    let mut ring: Vec<_> = (net.nodes.values())
        .flat_map(|n| n.positions().iter().map(|p| p.me().id))
        .collect();
    ring.sort();
    for position in net.nodes.values().flat_map(|n| n.positions()) {
        let me = position.me().id;
        let at = ring.iter().position(|id| *id == me).expect("it is there");
        let after = ring[(at + 1) % ring.len()];
        let before = ring[(at + ring.len() - 1) % ring.len()];
        let head = position.successors().first().map(|s| s.id);
        let back = position.predecessor().map(|p| p.id);
        if (head, back) != (Some(after), Some(before)) {
            return Err(format!(
                "{me}: {back:?} {head:?}, should be {before} {after}"
            ));
        }
    }
    Ok(())
}

fn heals(seed: u64, nodes: u16, sides: u8) {
    let mut net = Net::ring(seed, nodes, &settings());
    let mut stored = Vec::new();
    let mut store = |net: &mut Net, from: SocketAddr, text: String| {
        let item = item(&text);
        let end = net.ask(from, put(item.clone())).1;
        assert!(end.is_ok(), "seed {seed}: {end:?}");
        stored.push(item);
    };
    for n in 0..nodes {
        store(&mut net, address(n), format!("before {n}"));
    }
    for n in 0..nodes {
        net.side.insert(address(n), n as u8 % sides);
    }
    net.run(5 * MINUTE);
    for n in 0..nodes {
        store(&mut net, address(n), format!("apart {n}"));
    }
    // One key, newer and newer on each side: the newest is to win everywhere.
    let key = SigningKey::from_bytes(&[9; 32]);
    let newest = |seq| {
        let signed = Mutable::sign(&key, b"", seq, b"1:x".to_vec()).expect("valid");
        Item::Mutable(Box::new(signed))
    };
    for n in 0..u16::from(sides) {
        assert!(net.ask(address(n), put(newest(i64::from(n)))).1.is_ok());
    }
    net.run(2 * MINUTE);
    net.side.clear();
    let mut minutes = 0;
    while let Err(why) = one_ring(&net) {
        net.run(MINUTE);
        minutes += 1;
        assert!(minutes <= 30, "seed {seed}: {why}");
    }
    // What each side had finds its owner in the whole.
    net.run(3 * MINUTE);
    for item in &stored {
        let target = item.target();
        let owner = net.order(target)[0];
        assert!(
            net.holders(target).contains(&owner),
            "seed {seed}: {item:?}"
        );
        let asker = address((target.0[0] % nodes as u8).into());
        let (values, _) = net.ask(asker, Request::GetImmutable { target });
        assert_eq!(values, [Answer::Value(item.clone())], "seed {seed}");
    }
    for n in 0..nodes {
        let get = Request::GetMutable {
            key: key.verifying_key().to_bytes(),
            salt: Vec::new(),
            newer_than: None,
        };
        let (values, _) = net.ask(address(n), get);
        let expected = newest(i64::from(sides) - 1);
        assert_eq!(values, [Answer::Value(expected)], "seed {seed}");
    }
}

#[test]
fn rings_that_a_long_partition_left_become_one_and_lose_nothing() {
    for seed in 0..8 {
        heals(seed, 12, 2);
        heals(100 + seed, 9, 3);
    }
}

/// Nodes that each know only another that is in no ring either: one begins, and if several do,
/// their rings become one.
#[test]
fn nodes_that_wait_for_each_other_begin_a_ring() {
    for seed in 0..4 {
        let mut net = Net::new(seed);
        for n in 0..4 {
            net.add(n, &settings());
        }
        for n in 0..4 {
            let other = address((n + 1) % 4);
            net.with(address(n), |node, now, out| {
                node.leave(now, out);
                node.join(now, &[other], out);
            });
        }
        let mut minutes = 0;
        while one_ring(&net).is_err() {
            net.run(MINUTE);
            minutes += 1;
            assert!(minutes <= 20, "seed {seed}: {:?}", one_ring(&net));
        }
    }
}
