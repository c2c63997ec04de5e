//! Any sequence of messages.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;
use crate::wire::Standing;

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
                    standing: None,
                }],
            )
        }),
        any::<u32>().prop_map(Message::Probe),
        (any::<u8>(), any::<u32>()).prop_map(|(load, uptime)| Message::State {
            load,
            uptime,
            finds: load % 2 == 0,
        }),
        any::<u64>().prop_map(Message::Measured),
        any::<u16>().prop_map(|free| Message::Standing(Standing {
            free: Some(free),
            ..Standing::default()
        })),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// A node keeps in mind when the first of its links has something to send: whatever is asked of
    /// it, comes and goes, that is what a walk over all links finds, or sooner when a link ended.
    #[test]
    fn the_deadline_is_what_a_walk_over_all_links_finds(
        steps in proptest::collection::vec((0usize..4, 0u32..200_000, 0u64..400), 1..40),
    ) {
        let mut w = World::new();
        w.add(1, Role::Supernode, |c| c.up_limit = Some(50_000));
        let links: Vec<_> = (0..4).map(|n| stranger(&mut w, 1, 300 + n, Purpose::Probe)).collect();
        for (n, bytes, wait_ms) in steps {
            w.with(1, |node, now, out| match bytes % 7 {
                0 => node.on_closed(now, links[n], out),
                _ => node.on_message(now, links[n], Message::Probe(bytes), out),
            });
            let node = &w.nodes[&1];
            let walk = node.first_chunk().map_or(node.next_tick, |at| at.min(node.next_tick));
            assert!(node.deadline() <= walk, "never late");
            w.runs(Duration::from_millis(wait_ms));
            let deadline = w.nodes[&1].deadline();
            w.runs(deadline.since(w.now));
            let node = &w.nodes[&1];
            let walk = node.first_chunk().map_or(node.next_tick, |at| at.min(node.next_tick));
            assert_eq!(node.deadline(), walk, "exact once it has come");
        }
    }
}
