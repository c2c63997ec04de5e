//! `shoal supernode node` as real processes: who is promoted, and who is a peer again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::process::LONG;
use crate::supernode::{Node, Overlay, all_find_all, finds, home};

fn becomes(node: &mut Node, role: &str) {
    node.run
        .wait_for("the role", |v| v["event"] == "role" && v["role"] == role);
}

/// The supernodes that the list names.
fn listed(overlay: &Overlay) -> BTreeSet<String> {
    let list = ["supernode", "list", "--list", &overlay.at, "--json"];
    let entries = overlay.world.run(&list).json();
    let addrs = entries.iter().filter_map(|v| v["addr"].as_str());
    addrs.map(str::to_owned).collect()
}

#[test]
fn the_peer_with_the_better_bandwidth_is_promoted() {
    let overlay = Overlay::new();
    let few = ["--supernode", "--keep-role", "--max-children", "6"];
    let soon = [
        "--promote-at",
        "60",
        "--min-uptime",
        "2",
        "--probe",
        "128KiB",
    ];
    let mut old = overlay.node("old", &[&few[..], &soon].concat());
    let rates = [("p0", "100KiB"), ("p1", "2MiB"), ("p2", "200KiB")];
    let mut peers: Vec<Node> = rates
        .iter()
        .map(|(name, rate)| overlay.node(name, &["--up-limit", rate]))
        .collect();
    // It would send the fastest, but only who needs no relay gets to it, by its overlay address; and whether others
    // would, it cannot know without relays.
    peers.push(overlay.node("p3", &["--firewalled"]));
    for peer in &mut peers {
        assert_eq!(home(peer), old.addr);
    }
    let promoted = &mut peers[1];
    promoted.run.wait_for("the role", |v| {
        v["event"] == "role" && v["role"] == "supernode"
    });
    promoted
        .run
        .wait_for("its old supernode as a neighbour", |v| {
            v["event"] == "supernode_stats" && v["neighbours"] == 1
        });
    let addr = promoted.addr.clone();
    let until = Instant::now() + Duration::from_secs(1);
    while old.run.next_until(until).is_some() {}
    let seen = old.run.seen.iter();
    let (beyond, rates): (BTreeMap<String, u64>, BTreeMap<String, u64>) = seen
        .filter(|v| v["event"] == "measured")
        .map(|v| (v["addr"].to_string(), v["rate"].as_u64().expect("a rate")))
        .partition(|(addr, _)| addr.starts_with("\"[fc"));
    assert_eq!(beyond.len(), 1, "{beyond:?}");
    let risen = |v: &serde_json::Value| v["event"] == "role";
    assert!(!peers[3].run.seen.iter().any(risen), "it rose");
    let best = rates
        .iter()
        .max_by_key(|(_, rate)| **rate)
        .expect("measured");
    assert_eq!(*best.0, format!("\"{addr}\""), "{rates:?}");
    // It is on the list, and takes children.
    let begun = Instant::now();
    loop {
        let ran = overlay
            .world
            .run(&["supernode", "list", "--list", &overlay.at, "--json"]);
        if ran.json().iter().any(|v| v["addr"] == addr.as_str()) {
            break;
        }
        assert!(begun.elapsed() < LONG, "not on the list");
    }
    all_find_all(&mut peers[1..]);
}

#[test]
fn a_supernode_that_nobody_needs_becomes_a_peer_and_is_found_as_one() {
    let overlay = Overlay::new();
    let mut stays = overlay.supernodes(1).pop().expect("one");
    let mut goes = overlay.node("goes", &["--supernode", "--idle", "2s"]);
    becomes(&mut goes, "peer");
    assert_eq!(home(&mut goes), stays.addr);
    let both = BTreeSet::from(["goes".to_owned()]);
    finds(&mut stays, &both);
    finds(&mut goes, &BTreeSet::from([stays.name.clone()]));
    // It told the list that it leaves.
    let begun = Instant::now();
    while listed(&overlay).contains(&goes.addr) {
        assert!(begun.elapsed() < LONG, "still on the list");
    }
}

#[test]
fn a_supernode_that_its_neighbours_find_slow_becomes_a_peer_and_its_children_have_another() {
    let overlay = Overlay::new();
    let often = ["--supernode", "--check-every", "1s", "--probe", "64KiB"];
    let stay = [&often[..], &["--keep-role"]].concat();
    let mut fast: Vec<Node> = ["fast1", "fast2"]
        .iter()
        .map(|name| overlay.node(name, &stay))
        .collect();
    let slow = [&often[..], &["--up-limit", "32KiB"]].concat();
    let mut slow = overlay.node("slow", &slow);
    let mut peers: Vec<Node> = (0..4)
        .map(|n| overlay.node(&format!("p{n}"), &[]))
        .collect();
    for peer in &mut peers {
        let _ = home(peer);
    }
    becomes(&mut slow, "peer");
    let at = home(&mut slow);
    assert!(fast.iter().any(|f| f.addr == at), "{at}");
    all_find_all(&mut peers);
    finds(&mut fast[0], &BTreeSet::from(["slow".to_owned()]));
}
