//! The examples of the textbook (Kurose and Ross, Computer Networking, "Distributed Hash Tables"):
//! four-bit identifiers, each key on its closest successor.

use super::world::World;
use shoal_dht::chord::{Config, Contact, Lookup, Point, Route, Style, Want};
use std::sync::Arc;

type Peer = Point<4>;

/// Peers that know their predecessor and successor only.
fn circle(peers: &[u64]) -> World<Peer> {
    let config = Arc::new(Config {
        successors: 1,
        ..Config::still()
    });
    let ids: Vec<_> = peers.iter().map(|p| Peer::new(*p)).collect();
    let mut world = World::new(1);
    world.ideal(&ids, &config);
    world
}

fn contact(peers: &[u64], peer: u64) -> Contact<Peer, u32> {
    let at = peers.iter().position(|p| *p == peer).expect("a peer");
    Contact::new(Peer::new(peer), at as u32)
}

/// The path, the owner and the query messages of a lookup.
fn ask(
    world: &mut World<Peer>,
    at: Contact<Peer, u32>,
    key: u64,
    route: Route,
    style: Style,
    want: Want,
) -> (Vec<u64>, u64, u32) {
    let lookup = Lookup {
        route,
        style,
        want,
        trace: true,
        ..Lookup::default()
    };
    let found = world.look(at.addr, Peer::new(key), lookup).expect("found");
    assert_eq!(found.timeouts, 0);
    let path = found.path.iter().map(|c| c.id.number()).collect();
    (path, found.owner.id.number(), found.hops)
}

const RING: [u64; 8] = [1, 3, 4, 5, 8, 10, 12, 15];

#[test]
fn key_1110_asked_at_peer_1_takes_six_messages_around_the_ring() {
    for style in [Style::Recursive, Style::Iterative] {
        let mut world = circle(&RING);
        let (path, owner, messages) = ask(
            &mut world,
            contact(&RING, 1),
            0b1110,
            Route::Ring,
            style,
            Want::Named,
        );
        assert_eq!(path, [1, 3, 4, 5, 8, 10, 12], "{style:?}");
        assert_eq!((owner, messages), (15, 6), "{style:?}");
    }
}

#[test]
fn key_1110_asked_at_peer_1_takes_two_messages_with_shortcuts() {
    for style in [Style::Recursive, Style::Iterative] {
        let mut world = circle(&RING);
        // A shortcut from peer 1 to 8 and one from 8 to 12, among others that do not help.
        for (from, to) in [(1, 8), (8, 12), (4, 10), (3, 8), (10, 1)] {
            let to = contact(&RING, to);
            let from = contact(&RING, from).addr;
            world.with(from, |node, _, _| node.set_shortcuts(&[to]));
        }
        let (path, owner, messages) = ask(
            &mut world,
            contact(&RING, 1),
            0b1110,
            Route::Shortcuts,
            style,
            Want::Named,
        );
        assert_eq!(path, [1, 8, 12], "{style:?}");
        assert_eq!((owner, messages), (15, 2), "{style:?}");
    }
}

#[test]
fn the_other_way_round_it_takes_two_messages_and_the_owner_answers() {
    let mut world = circle(&RING);
    let from = contact(&RING, 1);
    let (path, owner, messages) = ask(
        &mut world,
        from,
        0b1110,
        Route::BothWays,
        Style::Recursive,
        Want::Named,
    );
    // 15 is the predecessor of 1 and knows itself that 14 is its own.
    assert_eq!(path, [1, 15]);
    assert_eq!((owner, messages), (15, 1));
}

#[test]
fn the_owner_itself_is_one_hop_further() {
    for style in [Style::Recursive, Style::Iterative] {
        let mut world = circle(&RING);
        let from = contact(&RING, 1);
        let (path, owner, messages) =
            ask(&mut world, from, 0b1110, Route::Ring, style, Want::Owner);
        assert_eq!(path, [1, 3, 4, 5, 8, 10, 12, 15]);
        assert_eq!((owner, messages), (15, 7));
    }
}

const CLOSEST: [u64; 8] = [1, 3, 4, 5, 8, 10, 12, 14];

#[test]
fn key_13_is_on_peer_14_its_closest_successor() {
    for peer in CLOSEST {
        let mut world = circle(&CLOSEST);
        let from = contact(&CLOSEST, peer);
        let (_, owner, _) = ask(
            &mut world,
            from,
            13,
            Route::Ring,
            Style::Recursive,
            Want::Named,
        );
        assert_eq!(owner, 14, "asked at {peer}");
    }
}

#[test]
fn key_15_is_on_peer_1_round_the_circle() {
    for peer in CLOSEST {
        let mut world = circle(&CLOSEST);
        let from = contact(&CLOSEST, peer);
        let (_, owner, _) = ask(
            &mut world,
            from,
            15,
            Route::Ring,
            Style::Recursive,
            Want::Named,
        );
        assert_eq!(owner, 1, "asked at {peer}");
    }
}

/// Every key, asked at every peer, by every route, style and want.
#[test]
fn all_ways_find_the_closest_successor() {
    let config = Arc::new(Config {
        successors: 2,
        ..Config::still()
    });
    for peers in [&RING[..], &CLOSEST, &[7], &[2, 9], &[0, 15], &[0, 1, 2, 3]] {
        let ids: Vec<_> = peers.iter().map(|p| Peer::new(*p)).collect();
        let mut world = World::new(2);
        world.ideal(&ids, &config);
        for peer in peers {
            for key in 0..16 {
                let owner = peers.iter().find(|p| **p >= key).unwrap_or(&peers[0]);
                for route in [
                    Route::Ring,
                    Route::BothWays,
                    Route::Shortcuts,
                    Route::Fingers,
                ] {
                    for style in [Style::Recursive, Style::Iterative] {
                        for want in [Want::Named, Want::Owner, Want::Predecessor] {
                            let from = contact(peers, *peer);
                            let (path, found, hops) =
                                ask(&mut world, from, key, route, style, want);
                            assert_eq!(found, *owner, "{peer} {key} {route:?} {want:?}");
                            assert_eq!(path.len() as u32, hops + 1);
                        }
                    }
                }
            }
        }
    }
}
