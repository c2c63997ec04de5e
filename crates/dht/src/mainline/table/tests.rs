use super::*;
use proptest::prelude::*;
use shoal_base::Rng;
use std::net::Ipv4Addr;

fn node(rng: &mut Rng) -> Node {
    // Private, so that any identifier is bound.
    let ip = Ipv4Addr::from(0x0a00_0000 | rng.next_u32() >> 8);
    Node {
        id: Id::random(rng),
        addr: (ip, 6881).into(),
    }
}

#[test]
fn the_closest_are_the_closest_of_all() {
    let mut rng = Rng::from_seed(3);
    let mut table = Table::new(Id::random(&mut rng), Exempt::default());
    for _ in 0..2000 {
        table.answered(Time::ZERO, node(&mut rng));
    }
    for _ in 0..100 {
        let target = Id::random(&mut rng);
        let mut all: Vec<_> = table.contacts().map(|c| c.node).collect();
        all.sort_by_key(|n| n.id.xor(&target));
        all.truncate(8);
        assert_eq!(table.closest(&target, 8), all);
    }
}

#[test]
fn a_full_bucket_keeps_who_answers_and_replaces_who_does_not() {
    let mut rng = Rng::from_seed(5);
    let own = Id::default();
    let mut table = Table::new(own, Exempt::default());
    let far = |rng: &mut Rng| {
        let mut n = node(rng);
        n.id.0[0] |= 0x80;
        n
    };
    let first: Vec<_> = (0..64).map(|_| far(&mut rng)).collect();
    for n in &first {
        assert!(table.wants(n) && table.answered(Time::ZERO, *n));
    }
    let late = far(&mut rng);
    assert!(!table.wants(&late));
    assert!(!table.answered(Time::ZERO, late), "it is only kept aside");
    assert_eq!(table.len(), 64);
    table.failed(&first[0]);
    assert_eq!(table.len(), 64);
    let ids: Vec<_> = table.contacts().map(|c| c.node).collect();
    assert!(ids.contains(&late) && !ids.contains(&first[0]));
    // Without a spare a contact may miss one query, and is not told of meanwhile.
    table.failed(&first[1]);
    assert_eq!(table.len(), 64);
    assert!(!table.closest(&first[1].id, 8).contains(&first[1]));
    table.failed(&first[1]);
    assert_eq!(table.len(), 63);
}

#[test]
fn an_identifier_is_not_taken_from_a_contact_that_answers() {
    let mut rng = Rng::from_seed(6);
    let mut table = Table::new(Id::default(), Exempt::default());
    let honest = node(&mut rng);
    assert!(table.answered(Time::ZERO, honest));
    let thief = Node {
        addr: "99.1.1.1:1".parse().unwrap(),
        ..honest
    };
    assert!(!table.answered(Time::ZERO, thief));
    assert_eq!(table.contacts().next().unwrap().node, honest);
    table.failed(&honest);
    assert!(table.answered(Time::ZERO, thief));
    assert!(table.contacts().all(|c| c.node == thief));
}

#[test]
fn one_subnet_gets_two_places_in_a_bucket_and_ten_in_all() {
    let mut rng = Rng::from_seed(7);
    let mut table = Table::new(Id::default(), Exempt::default());
    for i in 0..=255u8 {
        for _ in 0..4 {
            let mut id = Id::random(&mut rng);
            // Spread over all buckets, as one would who wants to fill the table.
            let prefix = rng.below(100);
            id.0[..prefix / 8].fill(0);
            id.0[prefix / 8] &= 0xff >> (prefix % 8);
            let addr = ([9, 9, 9, i], 1).into();
            table.answered(Time::ZERO, Node { id, addr });
        }
    }
    assert!(table.len() <= 10);
    for bucket in &table.buckets {
        assert!(bucket.live.len() <= 2);
    }
    let mut table = Table::new(Id::default(), Exempt::default());
    for port in 1..30 {
        let addr = ([127, 0, 0, 1], port).into();
        let id = Id::random(&mut rng);
        table.answered(Time::ZERO, Node { id, addr });
    }
    assert_eq!(table.len(), 29, "loopback is exempt");
}

#[test]
fn half_of_every_answer_is_kept_for_identifiers_bound_to_their_address() {
    let mut rng = Rng::from_seed(9);
    let mut table = Table::new(Id::default(), Exempt::default());
    let target = Id([0x80; 20]);
    let mut add = |id: Id, net: u8, i: u8| {
        let addr = ([net, i, 1, 1], 1).into();
        table.answered(Time::ZERO, Node { id, addr });
    };
    for i in 0..20 {
        let mut near = target;
        near.0[19] ^= i;
        add(near, 9, i);
        add(Id::random(&mut rng), 10, i);
    }
    let found = table.closest(&target, 8);
    let private = |n: &&Node| n.addr.ip().to_string().starts_with("10.");
    assert_eq!((found.len(), found.iter().filter(private).count()), (8, 4));
    assert!(found.is_sorted_by_key(|n| n.id.xor(&target)));
}

#[test]
fn another_identifier_of_ours_keeps_the_contacts() {
    let mut rng = Rng::from_seed(8);
    let mut table = Table::new(Id::random(&mut rng), Exempt::default());
    for _ in 0..20 {
        table.answered(Time::ZERO, node(&mut rng));
    }
    let before = table.len();
    table.rekey(Id::random(&mut rng));
    assert!(table.len() + 4 >= before && table.len() <= before);
}

#[derive(Debug, Clone)]
enum Event {
    Answered(u8, u8),
    Failed(u8, u8),
    Heard(u8, u8),
    Rekey(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => any::<(u8, u8)>().prop_map(|(i, a)| Event::Answered(i, a)),
        2 => any::<(u8, u8)>().prop_map(|(i, a)| Event::Failed(i, a)),
        1 => any::<(u8, u8)>().prop_map(|(i, a)| Event::Heard(i, a)),
        1 => any::<u8>().prop_map(Event::Rekey),
    ];
    prop::collection::vec(event, 0..400)
}

/// Ids with long common prefixes and few addresses, so that everything collides.
fn made(id: u8, addr: u8) -> Node {
    let mut bytes = [0; 20];
    bytes[usize::from(id / 64)] = id % 64;
    // Of odd addresses no identifier here is bound.
    let net = if addr.is_multiple_of(2) { 10 } else { 5 };
    let addr = ([net, 5, addr / 8, addr % 8], 1).into();
    Node {
        id: Id(bytes),
        addr,
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold(events in events()) {
        let mut table = Table::new(Id::default(), Exempt::default());
        for (n, event) in events.iter().enumerate() {
            let now = Time::from_secs(n as u64);
            match *event {
                Event::Answered(i, a) => { table.answered(now, made(i, a)); }
                Event::Failed(i, a) => table.failed(&made(i, a)),
                Event::Heard(i, a) => table.heard(now, &made(i, a)),
                Event::Rekey(i) => table.rekey(made(i, 0).id),
            }
            let mut subnets = std::collections::BTreeMap::new();
            let mut seen = std::collections::BTreeSet::new();
            for (index, bucket) in table.buckets.iter().enumerate() {
                prop_assert!(bucket.live.len() <= capacity(index) && bucket.spare.len() <= SPARES);
                let unbound = bucket.live.iter().filter(|c| !c.bound).count();
                prop_assert!(unbound <= capacity(index) / 2);
                for c in bucket.live.iter() {
                    prop_assert_eq!(table.own.common_prefix(&c.node.id) as usize, index);
                    prop_assert!(seen.insert(c.node.addr), "one contact for each address");
                    *subnets.entry((index, Subnet::of(c.node.addr.ip()))).or_insert(0) += 1;
                }
            }
            prop_assert!(subnets.values().all(|n| *n <= SUBNET_PER_BUCKET));
        }
    }
}
