//! Strangers on the wire: who is not of the ring gets nothing, keeps nothing here, and breaks
//! nothing.

use super::net::{Net, address, settings};
use proptest::prelude::*;
use shoal_dht::chord::{Notice, Settings};
use shoal_dht::{Dht, Output};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn who_does_not_know_the_secret_stays_outside() {
    let private = Settings {
        secret: b"between us".to_vec(),
        ..settings()
    };
    let mut net = Net::ring(1, 3, &private);
    let sessions: usize = net.nodes.values().map(|n| n.sessions()).sum();
    for (n, other) in [
        (10, settings()),
        (
            11,
            Settings {
                ring: "another".into(),
                ..private.clone()
            },
        ),
    ] {
        let stranger = net.add(n, &other);
        net.run(Duration::from_secs(120));
        assert!(!net.nodes[&stranger].is_member());
        assert_eq!(net.nodes[&stranger].sessions(), 0);
        let said =
            |(at, notice): &(_, Notice)| *at == stranger && matches!(notice, Notice::NotJoined(_));
        assert!(net.notices.iter().any(said), "it is told");
    }
    let after = (0..3)
        .map(|n| net.nodes[&address(n)].sessions())
        .sum::<usize>();
    assert_eq!(after, sessions, "nothing is kept for strangers");
    let friend = net.add(12, &private);
    net.run(Duration::from_secs(30));
    assert!(net.nodes[&friend].is_member());
}

#[test]
fn a_node_joins_when_its_bootstrap_node_comes_up_later() {
    let mut net = Net::ring(2, 1, &settings());
    let first = net.nodes.remove(&address(0)).expect("it was there");
    net.add(5, &settings());
    let second = address(5);
    net.with(second, |node, now, out| {
        node.leave(now, out);
        node.join(now, &[address(0)], out);
    });
    net.run(Duration::from_secs(30));
    assert!(!net.nodes[&second].is_member());
    net.nodes.insert(address(0), first);
    net.run(Duration::from_secs(400));
    assert!(net.nodes[&second].is_member());
    assert_eq!(net.nodes[&second].positions()[0].successors().len(), 1);
}

#[test]
fn replayed_forged_and_moved_datagrams_change_nothing() {
    let mut net = Net::ring(3, 4, &settings());
    net.log = Some(Vec::new());
    net.run(Duration::from_secs(60));
    let log = net.log.take().expect("kept");
    assert!(log.len() > 20);
    for (from, to, bytes) in &log {
        let mut out = Vec::new();
        let now = net.now;
        let node = net.nodes.get_mut(to).expect("a node");
        // The same again, with one bit changed, and from elsewhere.
        node.on_datagram(now, *from, bytes, &mut out);
        assert_eq!(out, [], "a replay is not answered");
        for at in [4, 12, 20, bytes.len() - 1] {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            node.on_datagram(now, *from, &forged, &mut out);
        }
        node.on_datagram(now, address(99), bytes, &mut out);
        for output in out.drain(..) {
            let Output::Send { bytes: answer, .. } = output else {
                panic!("{output:?}");
            };
            // At most a reset, of eight bytes.
            assert!(answer.len() <= 8 && answer.len() < bytes.len());
        }
    }
}

#[test]
fn no_answer_to_a_stranger_is_longer_than_the_question() {
    let mut net = Net::new(4);
    net.log = Some(Vec::new());
    for n in 0..6 {
        net.add(n, &settings());
        net.run(Duration::from_secs(5));
    }
    let log = net.log.take().expect("kept");
    // Before an address has returned a cookie: hello (0) and challenge (1).
    let lengths: BTreeMap<u8, usize> = log.iter().map(|(_, _, b)| (b[3], b.len())).collect();
    assert!(lengths[&1] <= lengths[&0], "{lengths:?}");
    assert!(lengths[&3] <= lengths[&2], "{lengths:?}");
    // A flood of hellos from spoofed addresses leaves no state.
    let hello = log
        .iter()
        .find(|(_, _, b)| b[3] == 0)
        .expect("a hello")
        .2
        .clone();
    let sessions = net.nodes[&address(0)].sessions();
    let mut out = Vec::new();
    for n in 0..5000 {
        let now = net.now;
        let node = net.nodes.get_mut(&address(0)).expect("a node");
        node.on_datagram(now, address(n), &hello, &mut out);
    }
    assert_eq!(net.nodes[&address(0)].sessions(), sessions);
    assert!(out.len() <= 5000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever comes from outside, the node neither panics nor keeps anything.
    #[test]
    fn noise_is_ignored(noise in proptest::collection::vec(
        (proptest::collection::vec(any::<u8>(), 0..200), 0u8..7, any::<bool>()), 0..200
    )) {
        let mut net = Net::ring(5, 1, &settings());
        let node = net.nodes.get_mut(&address(0)).expect("a node");
        let mut out = Vec::new();
        for (bytes, kind, framed) in noise {
            let mut datagram = if framed { vec![0xc5, b'R', 1, kind] } else { Vec::new() };
            datagram.extend(bytes);
            node.on_datagram(net.now, address(3), &datagram, &mut out);
        }
        prop_assert_eq!(node.sessions(), 0);
        prop_assert_eq!(node.items(), 0);
    }
}
