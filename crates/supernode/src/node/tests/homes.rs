//! Peers and their supernodes: found, found again, exchanged, and kept through a flood.

use super::*;

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
fn two_supernodes_that_call_each_other_at_once_keep_one_link() {
    for (a, b) in (1..9).map(|n| (n, n + 10)) {
        let mut w = World::new();
        // Both hear of each other at the same moment.
        w.add(a, Role::Supernode, |_| {});
        w.add(b, Role::Supernode, |_| {});
        w.runs(Duration::from_secs(120));
        for n in [a, b] {
            assert_eq!(w.nodes[&n].neighbours().count(), 1, "of {n}");
        }
        let ends = |n: u32| w.wires.keys().filter(|(at, _)| *at == n).count();
        assert_eq!((ends(a), ends(b)), (1, 1), "{a} and {b}");
    }
}

#[test]
fn the_link_that_the_smaller_key_dialled_stays() {
    let public = |n: u32| own_key(n).verifying_key().to_bytes();
    for n in 300..308 {
        let mut w = World::new();
        w.add(1, Role::Supernode, |_| {});
        w.add(n, Role::Supernode, |_| {});
        w.runs(Duration::from_millis(200));
        let dialled = |at: u32| {
            let node = &w.nodes[&at];
            node.links.values().filter(|l| l.dialled.is_some()).count()
        };
        let first = usize::from(public(1) < public(n));
        assert_eq!((dialled(1), dialled(n)), (first, 1 - first), "{n}");
    }
}
