//! What strangers and misfortune do to a network, and what holds.

use super::world::{World, public};
use shoal_dht::mainline::{Health, bep42};

#[test]
fn nodes_learn_their_address_and_take_an_identifier_bound_to_it() {
    let world = World::internet(21, 40);
    for (addr, node) in &world.nodes {
        assert_eq!(node.status().external[0], Some(addr.ip()));
        assert!(bep42::is_valid(&node.id(false).unwrap(), addr.ip()));
        assert_eq!(node.status().health, Health::Online);
        assert!(
            node.status().contacts[0] >= 30,
            "{}",
            node.status().contacts[0]
        );
    }
    assert!(world.nodes.contains_key(&public(0)));
}
