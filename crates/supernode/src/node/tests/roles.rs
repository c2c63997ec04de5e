//! Promotion and demotion.

use super::*;

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
