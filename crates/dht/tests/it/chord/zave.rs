//! Orders of events that break the Chord of 2001, as Zave found ("Using Lightweight Modeling to
//! Understand Chord", CCR 2012; "Reasoning about Identifier Spaces", TSE 2017), each played on our
//! nodes; and a random run at a thousand.

use super::world::World;
use shoal_base::Rng;
use shoal_dht::chord::{Config, Contact, Message, Node, Output, Point, Standing};
use std::sync::Arc;
use std::time::Duration;

type P = Point<8>;
type Out = Vec<Output<P, u32>>;

const NOW: shoal_base::Time = shoal_base::Time::ZERO;

fn contact(n: u32) -> Contact<P, u32> {
    Contact::new(P::new(n.into()), n)
}

fn still(successors: usize) -> Arc<Config> {
    Arc::new(Config {
        successors,
        attempts: 1,
        suspicion: Duration::ZERO,
        ..Config::still()
    })
}

fn node(me: u32, before: u32, after: &[u32], r: usize) -> Node<P, u32> {
    let after: Vec<_> = after.iter().copied().map(contact).collect();
    let before = Some(contact(before));
    Node::with_tables(
        NOW,
        contact(me),
        still(r),
        u64::from(me),
        before,
        &after,
        &[],
    )
}

/// Answers the question that `out` ends with on behalf of a member with these neighbours.
fn answer(node: &mut Node<P, u32>, out: &mut Out, before: u32, after: &[u32]) -> u32 {
    let Some(Output::Send {
        to,
        message: Message::GetNeighbours { nonce },
    }) = out.pop()
    else {
        panic!("a question was expected");
    };
    let message = Message::Neighbours {
        nonce,
        predecessor: Some(contact(before)),
        successors: after.iter().copied().map(contact).collect(),
    };
    out.clear();
    node.on_message(NOW, to, message, out);
    to
}

fn successors(node: &Node<P, u32>) -> Vec<u32> {
    node.successors().iter().map(|s| s.addr).collect()
}

/// In a ring of two, the second entry of the successor list is oneself; when the other dies, a
/// node that takes its list's word becomes its own successor while others still are there.
#[test]
fn a_member_of_a_ring_of_two_never_becomes_its_own_successor() {
    let mut a = node(10, 20, &[20], 2);
    let mut out = Out::new();
    a.stabilise(NOW, &mut out);
    answer(&mut a, &mut out, 10, &[10, 20]);
    assert_eq!(successors(&a), [20], "the list ends before it comes round");
    // A third one joins between 20 and 10 and is known as predecessor only; then 20 dies.
    a.on_message(NOW, 30, Message::Notify { id: P::new(30) }, &mut out);
    assert_eq!(a.predecessor(), Some(contact(30)));
    a.stabilise(NOW, &mut out);
    out.clear();
    a.on_unreachable(NOW, 20, &mut out);
    assert_eq!(successors(&a), [0; 0]);
    answer(&mut a, &mut out, 20, &[10]);
    assert_eq!(
        successors(&a),
        [30],
        "the ring goes on through the predecessor"
    );
}

/// A node that joins at one that has only just joined knew, by the rules of 2001, that one alone;
/// when it died the newcomer hung in the air.
#[test]
fn joining_at_a_joining_node_takes_over_its_whole_list() {
    let config = still(3);
    let mut world: World<P> = World::new(1);
    let ids: Vec<_> = [10, 40, 80, 120].into_iter().map(P::new).collect();
    world.ideal(&ids, &config);
    let join = |world: &mut World<P>, id| {
        let at = world.add(P::new(id), &config);
        world.with(at, |n, now, out| n.join(now, 1, out));
        world.run(Duration::from_secs(2));
        assert_eq!(world.nodes[&at].standing(), Standing::Member);
        at
    };
    let first = join(&mut world, 20);
    let second = join(&mut world, 15);
    // Nobody but the two has stabilised yet.
    let list = |world: &World<P>, at: u32| -> Vec<u64> {
        let successors = world.nodes[&at].successors();
        successors.iter().map(|s| s.id.number()).collect()
    };
    let known = list(&world, second);
    assert_eq!(known.len(), 3, "a whole list: {known:?}");
    world.nodes.remove(&first);
    for _ in 0..4 {
        for at in [second, 0, 1, 2, 3] {
            world.with(at, |n, now, out| n.stabilise(now, out));
            world.run(Duration::from_secs(3));
        }
    }
    assert_eq!(list(&world, second), [40, 80, 120]);
    assert_eq!(list(&world, 0), [15, 40, 80]);
}

/// Stabilise must not adopt the successor's predecessor on hearsay: it may be dead, and a list
/// that begins with it can be all dead.
#[test]
fn a_dead_predecessor_of_the_successor_is_not_adopted() {
    let mut a = node(10, 90, &[40, 90], 2);
    let mut out = Out::new();
    a.stabilise(NOW, &mut out);
    assert_eq!(answer(&mut a, &mut out, 30, &[90, 10]), 40);
    // It asks 30, which does not answer.
    a.on_unreachable(NOW, 30, &mut out);
    assert_eq!(successors(&a), [40, 90]);
    assert!(matches!(
        out[..],
        [
            ..,
            Output::Send {
                to: 40,
                message: Message::Notify { .. }
            }
        ]
    ));
}

/// And if it lives, its list comes with it, so that no member is skipped by a list put together
/// from two times.
#[test]
fn a_nearer_successor_is_adopted_with_its_own_list() {
    let mut a = node(10, 90, &[40, 90], 3);
    let mut out = Out::new();
    a.stabilise(NOW, &mut out);
    assert_eq!(answer(&mut a, &mut out, 30, &[90, 10]), 40);
    assert_eq!(answer(&mut a, &mut out, 10, &[40, 60, 90]), 30);
    assert_eq!(successors(&a), [30, 40, 60]);
}

/// Rectify: by the rules of 2001 a dead predecessor stays, because the one that notifies is
/// farther; the ring never becomes ideal.
#[test]
fn a_farther_notifier_replaces_a_dead_predecessor_only() {
    let mut a = node(100, 90, &[120], 2);
    let mut out = Out::new();
    a.on_message(NOW, 50, Message::Notify { id: P::new(50) }, &mut out);
    let Some(Output::Send {
        to: 90,
        message: Message::Ping { nonce },
    }) = out.pop()
    else {
        panic!("the predecessor is asked whether it lives");
    };
    a.on_message(NOW, 90, Message::Pong { nonce }, &mut out);
    assert_eq!(a.predecessor(), Some(contact(90)), "it lives and stays");
    a.on_message(NOW, 50, Message::Notify { id: P::new(50) }, &mut out);
    a.on_unreachable(NOW, 90, &mut out);
    assert_eq!(a.predecessor(), Some(contact(50)));
}

/// A successor list is replaced as a whole; merging old entries with new ones brings the dead back
/// and the order out of order.
#[test]
fn old_entries_do_not_survive_in_a_successor_list() {
    let mut a = node(10, 90, &[20, 30, 40], 3);
    let mut out = Out::new();
    a.stabilise(NOW, &mut out);
    answer(&mut a, &mut out, 10, &[50, 60, 70]);
    assert_eq!(successors(&a), [20, 50, 60]);
}

/// A thousand nodes, a tenth of them failing and as many joining in random order and time; then
/// quiet, then ideal.
#[test]
fn a_thousand_nodes_under_random_joins_and_failures_become_ideal() {
    let seed = std::env::var("SEED").map_or(0x5eed, |s| s.parse().expect("a number"));
    let mut rng = Rng::from_seed(seed);
    let config = Arc::new(Config {
        successors: 12,
        fix_fingers: None,
        ..Config::default()
    });
    let mut world: World<Point<64>> = World::new(seed);
    let ids: Vec<_> = (0..1000).map(|_| Point::new(rng.next_u64())).collect();
    world.ideal(&ids, &config);
    for _ in 0..100 {
        let alive: Vec<u32> = world.members().iter().map(|m| m.addr).collect();
        world.nodes.remove(rng.pick(&alive).expect("a member"));
        let via = *rng.pick(&alive).expect("a member");
        let at = world.add(Point::new(rng.next_u64()), &config);
        world.with(at, |n, now, out| n.join(now, via, out));
        world.run(Duration::from_millis(500));
    }
    world.run(Duration::from_secs(240));
    // Who asked a node that had just died is still outside.
    assert!(world.members().len() >= 980, "seed {seed}");
    assert_eq!(world.flaws(false), Vec::<String>::new(), "seed {seed}");
}
