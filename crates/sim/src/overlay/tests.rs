use super::*;
use shoal_dht::chord::Lookup;

#[test]
fn a_perfect_ring_is_ideal_and_finds_owners() {
    for count in [1, 2, 5, 300] {
        let config = Config {
            successors: 8,
            ..Config::still()
        };
        let mut ring = Ring::perfect(3, count, true, config, Links::default(), |_, _| {});
        assert_eq!(ring.check_ideal(), Ok(()));
        assert_eq!(ring.check_one_ring(), Ok(()));
        assert_eq!(ring.finger_accuracy(), 1.0, "{count} nodes");
        let key = ring.random_key();
        let expected = ring.owner(key);
        ring.world.call(0, |peer, ctx| {
            peer.act(ctx, |node, now, out| {
                node.lookup(now, key, Lookup::default(), out)
            })
        });
        let mut owner = None;
        ring.world.run_until(Time::from_secs(60), |_, _, said| {
            if let Said::Lookup(_, Ok(found)) = said {
                owner = Some(found.owner.addr);
            }
        });
        assert_eq!(owner, expected);
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let mut ring = Ring::perfect(3, 10, true, Config::still(), Links::default(), |_, _| {});
    ring.kill(4);
    assert!(ring.check_ideal().is_err());
    assert_eq!(ring.check_one_ring(), Ok(()), "the lists bridge the gap");
    // Two that know each other only, and whom nobody else knows, are a ring of their own.
    let contact = |n: u32| ring.world.node(n).node.me();
    let [one, two, three, five] = [1, 2, 3, 5].map(contact);
    for (me, other) in [(two, three), (three, two), (one, five)] {
        let config = ring.config.clone();
        let node = Node::with_tables(Time::ZERO, me, config, 1, Some(other), &[other], &[]);
        ring.world.call(me.addr, |peer, _| peer.node = node);
    }
    let violated = ring.check_one_ring().expect_err("two rings");
    assert!(violated.contains("another ring"), "{violated}");
    assert!(ring.finger_accuracy() < 1.0);
}
