//! What is found, and by what.

use super::*;
use crate::wire::{Sound, Standing};

#[test]
fn a_file_of_any_peer_is_found_from_any_other() {
    let mut w = World::overlay(30);
    assert!(w.homes().values().all(Option::is_some), "{:?}", w.homes());
    let used: BTreeSet<_> = w.homes().into_values().collect();
    assert_eq!(used.len(), 6, "all supernodes have children");
    for n in 100..130 {
        let from = 100 + (n * 7) % 30;
        let found = w.finds(from, &format!("song number{n}"));
        let wanted = if from == n { Vec::new() } else { vec![n] };
        assert_eq!(
            found, wanted,
            "of {n} from {from}: once, by the one who has it"
        );
    }
    assert_eq!(w.finds(1, "number3"), [3], "supernodes share too");
    assert_eq!(w.finds(100, "number3 number4"), []);
    let sum =
        |w: &World, of: fn(&Stats) -> u64| w.nodes.values().map(|n| of(&n.stats())).sum::<u64>();
    assert!(sum(&w, |s| s.duplicates) > 0, "loops there are");
    assert_eq!(sum(&w, |s| s.forged), 0);
}

#[test]
fn a_file_is_found_by_its_hash_whatever_it_is_called() {
    let mut w = World::overlay(6);
    let named = |n: u32, path: &str| File {
        sha1: [n as u8; 20],
        ..file(path)
    };
    w.with(100, |n, now, out| {
        n.share(now, vec![named(77, "one name")], out);
    });
    w.with(101, |n, now, out| {
        n.share(now, vec![named(77, "another"), named(78, "a third")], out);
    });
    w.runs(Duration::from_secs(1));
    let before = w.events.len();
    w.with(102, |n, now, out| {
        assert!(n.seek(now, [77; 20], out).is_some());
    });
    w.runs(Duration::from_secs(2));
    let mut found: Vec<&str> = Vec::new();
    for (_, at, event) in &w.events[before..] {
        if let (102, Event::Hits(_, hits)) = (*at, event) {
            found.extend(hits.iter().map(|h| h.file.path.as_str()));
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["another", "one name"]);
}

#[test]
fn hits_carry_what_a_file_sounds_like_and_how_its_sharer_stands() {
    let mut w = World::overlay(6);
    let sound = Sound {
        bitrate: 192,
        frequency: 44_100,
        seconds: 61,
    };
    w.with(100, |n, now, out| {
        let heard = File {
            sound: Some(sound),
            ..file("a loud thing.mp3")
        };
        n.share(now, vec![heard, file("a loud picture")], out);
    });
    let standing = Standing {
        free: Some(2),
        waiting: 3,
        rate: Some(1 << 30),
    };
    w.with(100, |n, now, out| n.stand(now, standing, out));
    w.runs(Duration::from_secs(1));
    let hits = |w: &mut World| {
        let before = w.events.len();
        w.with(102, |n, now, out| {
            assert!(n.search(now, "loud", out).is_some());
        });
        w.runs(Duration::from_secs(2));
        let mut hits = Vec::new();
        for (_, at, event) in &w.events[before..] {
            if let (102, Event::Hits(_, found)) = (*at, event) {
                hits.extend(found.clone());
            }
        }
        hits.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        hits
    };
    let found = hits(&mut w);
    assert_eq!(found.len(), 2);
    assert_eq!(
        [found[0].file.sound, found[1].file.sound],
        [None, Some(sound)]
    );
    assert!(found.iter().all(|hit| hit.standing == Some(standing)));
    // What its supernode measured counts for more than its word.
    let home = w.nodes[&100].home().expect("it has one");
    let core = w.nodes.get_mut(&home).expect("a supernode");
    let mut children = core.links.values_mut();
    let child = children.find(|l| l.addr() == Some(100)).expect("its child");
    child.bandwidth = Some(70_000);
    let found = hits(&mut w);
    assert_eq!(
        found[0].standing.and_then(|s| s.rate),
        Some(70_000),
        "{found:?}"
    );
}

#[test]
fn another_network_answers_through_a_supernode_that_is_in_both() {
    let mut w = World::new();
    w.add(1, Role::Supernode, |_| {});
    w.add(2, Role::Supernode, |c| c.bridge = true);
    w.runs(Duration::from_secs(40));
    w.add(100, Role::Peer, |_| {});
    w.runs(Duration::from_secs(5));
    let before = w.events.len();
    w.with(100, |n, now, out| {
        assert!(n.search(now, "far song", out).is_some());
    });
    w.runs(Duration::from_secs(1));
    let asked = w.events[before..].iter().find_map(|(_, at, e)| match e {
        Event::Asked(id, wanted) if *at == 2 => Some((*id, wanted.clone())),
        _ => None,
    });
    let (id, wanted) = asked.expect("it is told of the query");
    assert_eq!(wanted, Wanted::Words("far song".into()));
    let found = (0..30).map(|n| (file(&format!("a far song {n}")), 5000 + n));
    let found = found.chain([(file("something else"), 6000)]).collect();
    w.with(2, |n, now, out| n.found_elsewhere(now, id, found, out));
    w.with(2, |n, now, out| {
        n.found_elsewhere(now, [9; 16], vec![(file("far song"), 1)], out);
    });
    w.runs(Duration::from_secs(1));
    let hits: Vec<&Hit<u32>> = w.events[before..]
        .iter()
        .filter_map(|(_, at, e)| match e {
            Event::Hits(of, hits) if *at == 100 && *of == id => Some(hits),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(hits.len(), 20, "of one teller only so many");
    assert!(
        hits.iter()
            .all(|h| h.sharer.links == 2 && h.elsewhere >= Some(5000))
    );
}
