//! Rings that grow, lose nodes and heal.

use super::world::World;
use shoal_base::Rng;
use shoal_dht::Id;
use shoal_dht::chord::{Config, JoinError, Lookup, LookupError, Point, Route, Style, Want};
use std::sync::Arc;
use std::time::Duration;

type P = Point<64>;

fn ids(rng: &mut Rng, n: usize) -> Vec<P> {
    (0..n).map(|_| P::new(rng.next_u64())).collect()
}

#[test]
fn a_ring_grown_one_by_one_becomes_ideal() {
    let config = Arc::new(Config {
        successors: 4,
        ..Config::default()
    });
    let mut world = World::new(1);
    let mut rng = Rng::from_seed(2);
    for i in 0..40 {
        let at = world.add(Id::random(&mut rng), &config);
        if i == 0 {
            world.with(at, |node, now, out| node.create(now, out));
        } else {
            let via = rng.below(i) as u32;
            world.with(at, |node, now, out| node.join(now, via, out));
        }
        world.run(Duration::from_secs(2));
    }
    assert!(world.joined.iter().all(|(_, result)| result.is_ok()));
    world.run(Duration::from_secs(15 * 60));
    assert_eq!(world.flaws(true), Vec::<String>::new());
    assert_eq!(world.members().len(), 40);
}

#[test]
fn all_joining_at_once_through_one_node_becomes_ideal() {
    let config = Arc::new(Config {
        successors: 4,
        ..Config::default()
    });
    for seed in 0..5 {
        let mut world = World::new(seed);
        let mut rng = Rng::from_seed(seed);
        for id in ids(&mut rng, 30) {
            let at = world.add(id, &config);
            world.with(at, |node, now, out| match at {
                0 => node.create(now, out),
                _ => node.join(now, 0, out),
            });
        }
        world.run(Duration::from_secs(30 * 60));
        assert_eq!(world.flaws(true), Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.members().len(), 30, "seed {seed}");
    }
}

#[test]
fn half_the_nodes_die_at_once_and_no_lookup_fails() {
    let seed = 7;
    let mut rng = Rng::from_seed(seed);
    let config = Arc::new(Config {
        successors: 20,
        attempts: 1,
        suspicion: Duration::ZERO,
        ..Config::still()
    });
    let mut world = World::new(seed);
    let ring = ids(&mut rng, 300);
    world.ideal(&ring, &config);
    for _ in 0..150 {
        let all: Vec<u32> = world.nodes.keys().copied().collect();
        world.nodes.remove(rng.pick(&all).expect("a node"));
    }
    let alive: Vec<u32> = world.nodes.keys().copied().collect();
    for style in [Style::Recursive, Style::Iterative] {
        let (mut hops, mut timeouts) = (0, 0);
        let mut asked = Vec::new();
        for _ in 0..400 {
            let key = P::new(rng.next_u64());
            let from = *rng.pick(&alive).expect("a node");
            let lookup = Lookup {
                style,
                want: Want::Owner,
                ..Lookup::default()
            };
            asked.push((key, world.start(from, key, lookup)));
        }
        world.run(Duration::from_secs(60));
        for (key, name) in asked {
            let found = world
                .results
                .remove(&name)
                .expect("it ended")
                .expect("found");
            assert_eq!(found.owner, world.owner(key));
            hops += found.hops;
            timeouts += u32::from(found.timeouts);
        }
        assert!(
            hops < 400 * 7 && timeouts > 400,
            "{hops} hops, {timeouts} timeouts"
        );
    }
}

#[test]
fn after_losing_a_third_the_ring_heals_by_itself() {
    for seed in 0..4 {
        let mut rng = Rng::from_seed(seed);
        let config = Arc::new(Config {
            successors: 12,
            ..Config::default()
        });
        let mut world = World::new(seed);
        let ring = ids(&mut rng, 60);
        world.ideal(&ring, &config);
        for dead in 0..20 {
            world.nodes.remove(&(dead * 3));
        }
        world.run(Duration::from_secs(20 * 60));
        assert_eq!(world.flaws(true), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_node_that_leaves_is_gone_at_once() {
    let config = Arc::new(Config {
        successors: 4,
        ..Config::default()
    });
    let mut rng = Rng::from_seed(5);
    let mut world = World::new(5);
    let ring = ids(&mut rng, 20);
    world.ideal(&ring, &config);
    world.run(Duration::from_secs(60));
    let leaver = world.members()[7];
    world.with(leaver.addr, |node, _, out| node.leave(out));
    world.run(Duration::from_secs(1));
    let ring = world.members();
    assert_eq!(ring.len(), 19);
    let before = &world.nodes[&ring[6].addr];
    assert_eq!(before.successors()[0], ring[7]);
    assert_eq!(world.nodes[&ring[7].addr].predecessor(), Some(ring[6]));
    // Who has left answers nobody, and finds nobody.
    let lookup = world.look(leaver.addr, P::new(1), Lookup::default());
    assert_eq!(lookup, Err(LookupError::NotMember));
}

#[test]
fn loss_neither_breaks_the_ring_nor_the_lookups() {
    let config = Arc::new(Config {
        successors: 8,
        ..Config::default()
    });
    let mut rng = Rng::from_seed(6);
    let mut world = World::new(6);
    world.loss = 0.1;
    let ring = ids(&mut rng, 40);
    world.ideal(&ring, &config);
    let mut right = 0;
    for style in [Style::Recursive, Style::Iterative] {
        let mut asked = Vec::new();
        for _ in 0..200 {
            let key = P::new(rng.next_u64());
            let from = rng.below(40) as u32;
            let lookup = Lookup {
                style,
                ..Lookup::default()
            };
            asked.push((key, world.start(from, key, lookup)));
            world.run(Duration::from_secs(1));
        }
        world.run(Duration::from_secs(60));
        for (key, name) in asked {
            let result = world.results.remove(&name).expect("it ended");
            right += u32::from(result.is_ok_and(|f| f.owner == world.owner(key)));
        }
    }
    assert!(right >= 396, "{right} of 400");
    world.loss = 0.0;
    world.run(Duration::from_secs(20 * 60));
    assert_eq!(world.flaws(true), Vec::<String>::new());
}

#[test]
fn a_lookup_on_the_plain_ring_ends_at_its_hop_limit() {
    let config = Arc::new(Config {
        successors: 1,
        hop_limit: 10,
        ..Config::still()
    });
    let mut rng = Rng::from_seed(8);
    let mut world = World::new(8);
    let ring = ids(&mut rng, 40);
    world.ideal(&ring, &config);
    let members = world.members();
    let iterative = Lookup {
        route: Route::Ring,
        style: Style::Iterative,
        ..Lookup::default()
    };
    let recursive = Lookup {
        style: Style::Recursive,
        ..iterative
    };
    let (near, far) = (members[8].id, members[20].id);
    let from = members[0].addr;
    assert_eq!(world.look(from, near, recursive).expect("found").hops, 8);
    assert_eq!(world.look(from, near, iterative).expect("found").hops, 8);
    assert_eq!(world.look(from, far, recursive), Err(LookupError::Deadline));
    assert_eq!(world.look(from, far, iterative), Err(LookupError::HopLimit));
}

#[test]
fn joining_says_why_it_failed() {
    let config = Arc::new(Config::default());
    let mut world = World::new(9);
    let first = world.add(P::new(5), &config);
    world.with(first, |node, now, out| node.create(now, out));
    let second = world.add(P::new(9), &config);
    world.with(second, |node, now, out| node.join(now, first, out));
    world.run(Duration::from_secs(5));
    let same = world.add(P::new(9), &config);
    world.with(same, |node, now, out| node.join(now, first, out));
    let lost = world.add(P::new(11), &config);
    world.with(lost, |node, now, out| node.join(now, 99, out));
    world.run(Duration::from_secs(60));
    assert_eq!(
        world.joined[2..],
        [
            (same, Err(JoinError::Taken)),
            (lost, Err(JoinError::NoAnswer))
        ]
    );
}

#[test]
fn a_ring_of_two_survives_the_death_of_either_and_takes_it_back() {
    let config = Arc::new(Config::default());
    let mut world = World::new(10);
    for id in [5, 9] {
        let at = world.add(P::new(id), &config);
        world.with(at, |node, now, out| match at {
            0 => node.create(now, out),
            _ => node.join(now, 0, out),
        });
        world.run(Duration::from_secs(5));
    }
    assert_eq!(world.flaws(true), Vec::<String>::new());
    world.nodes.remove(&1);
    world.run(Duration::from_secs(120));
    assert_eq!(world.flaws(true), Vec::<String>::new());
    assert!(world.nodes[&0].successors().is_empty());
    let again = world.add(P::new(9), &config);
    world.with(again, |node, now, out| node.join(now, 0, out));
    world.run(Duration::from_secs(60));
    assert_eq!(world.flaws(true), Vec::<String>::new());
    assert_eq!(world.members().len(), 2);
}

#[test]
fn a_node_at_rest_is_small() {
    let config = Arc::new(Config {
        successors: 20,
        ..Config::still()
    });
    let mut rng = Rng::from_seed(11);
    let ring = ids(&mut rng, 4096);
    let mut world = World::new(11);
    world.ideal(&ring, &config);
    let bytes: usize = world.nodes.values().map(|n| n.memory()).sum();
    assert!(bytes / 4096 <= 800, "{} bytes a node", bytes / 4096);
}
