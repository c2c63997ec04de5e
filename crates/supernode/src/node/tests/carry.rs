//! Letters by places: how many messages one costs, and what happens when a place does not hold.

use super::letters::public;
use super::*;

/// Messages that nodes exchange without any letter, in a second.
const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Supernodes, which stand in the ring if `finds`, and two peers of each.
    fn ring(supernodes: u32, finds: bool) -> Self {
        let mut w = Self::new();
        for n in 1..=supernodes {
            w.add(n, Role::Supernode, |c| {
                c.neighbours = 5;
                c.max_children = 4;
                // No child is moved while letters are counted.
                c.balance_at = 101;
            });
            w.with(n, |node, now, out| node.set_finds(now, finds, out));
            w.runs(Duration::from_millis(200));
        }
        w.runs(Duration::from_secs(60));
        for n in 0..2 * supernodes {
            w.add(1000 + n, Role::Peer, |_| {});
            w.runs(Duration::from_millis(50));
        }
        w.runs(Duration::from_secs(120));
        assert!(w.homes().values().all(Option::is_some));
        w
    }

    fn passed(&self) -> u64 {
        self.nodes.values().map(|n| n.stats().letters).sum()
    }

    fn floods(&self) -> u64 {
        self.nodes.values().map(|n| n.stats().floods).sum()
    }

    fn sought(&self) -> u64 {
        self.nodes.values().map(|n| n.stats().sought).sum()
    }

    /// Two peers whose supernodes have no link with each other, nor with one that has.
    fn far_apart(&self) -> (u32, u32) {
        let homes = self.homes();
        let near = |s: u32| -> BTreeSet<u32> {
            let node = &self.nodes[&s];
            let ids = node.neighbours();
            ids.filter_map(|id| node.links[&id].addr()).collect()
        };
        for (a, home) in &homes {
            let home = home.expect("a home");
            let mut reach = near(home);
            reach.extend(near(home).into_iter().flat_map(near));
            reach.insert(home);
            let far = homes
                .iter()
                .find(|(_, h)| !reach.contains(&h.expect("a home")));
            if let Some((b, _)) = far {
                return (*a, *b);
            }
        }
        panic!("nobody is three links from anybody");
    }
}

/// What letters cost between two who are far apart: how often one was given on, for the first, its answer, and
/// eight more; and links begun for all of them.
fn cost(supernodes: u32, finds: bool) -> (Vec<u64>, u64) {
    let mut w = World::ring(supernodes, finds);
    let (a, b) = w.far_apart();
    let (mut costs, dials) = (Vec::new(), w.dials);
    for n in 0..10u8 {
        let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
        let before = w.passed();
        w.write(from, to, &[n]);
        costs.push(w.passed() - before);
    }
    let sent = |from: u32, first: u8| -> Vec<(Key, Vec<u8>)> {
        let numbers = (first..10).step_by(2);
        numbers.map(|n| (public(from), vec![n])).collect()
    };
    assert_eq!(w.letters(b), sent(a, 0), "each once, in order");
    assert_eq!(w.letters(a), sent(b, 1), "each once, in order");
    (costs, w.dials - dials)
}

/// The measurement that [docs/protocols/supernode.md] tells: from the sender to its supernode, from there to the
/// recipient's, from there to the recipient, whatever the number of supernodes.
#[test]
fn a_letter_passes_two_supernodes_however_many_there_are() {
    for supernodes in [30, 90] {
        let (costs, dials) = cost(supernodes, true);
        assert_eq!(costs, [3; 10], "of {supernodes} supernodes");
        assert!(dials <= 1, "{dials} links for letters");
    }
    let (flooded, _) = cost(30, false);
    assert!(flooded[0] > 200, "a first letter was flooded: {flooded:?}");
}

#[test]
fn a_place_is_looked_for_once_and_its_link_ends_when_nobody_writes() {
    let mut w = World::ring(30, true);
    let (a, b) = w.far_apart();
    let before = w.sought();
    for n in 0..5 {
        w.write(a, b, &[n]);
        w.write(b, a, &[n]);
    }
    assert_eq!(
        w.sought() - before,
        1,
        "the answer's place came with the letter"
    );
    let home = w.homes()[&a].expect("a home");
    let carriers = |w: &World| w.nodes[&home].count(Stage::Carrier);
    assert_eq!(carriers(&w), 1);
    w.runs(Duration::from_secs(70));
    assert_eq!(carriers(&w), 0);
    // Whom only an overlay address is known of is found as well.
    let mut question = [0; 32];
    question[..15].copy_from_slice(&public(b)[..15]);
    w.with(a, |n, now, out| {
        n.write(now, question, vec![77], out);
    });
    w.runs(SECOND);
    assert_eq!(w.letters(b).last(), Some(&(public(a), vec![77])));
    assert_eq!(w.floods(), 0);
}

#[test]
fn who_moved_is_found_at_the_new_home_and_who_left_is_not_flooded_for() {
    let mut w = World::ring(30, true);
    let (a, b) = w.far_apart();
    w.write(a, b, &[1]);
    // So long a home has to say that somebody is not there.
    w.runs(Duration::from_secs(7));
    let old = w.homes()[&b].expect("a home");
    // Its supernode dies while the sender's remembers the place.
    w.kill(old, false);
    w.runs(Duration::from_secs(5));
    let home = w.homes()[&b];
    assert!(home.is_some() && home != Some(old));
    w.write(a, b, &[2]);
    w.runs(Duration::from_secs(5));
    assert_eq!(w.letters(b).len(), 2, "found anew");
    // It comes back with another, and its supernode lives.
    let home = w.homes()[&b].expect("a home");
    let link = w.nodes[&b].parent.expect("a home");
    let (_, there) = w.wires[&(b, link)];
    w.with(home, |n, _, out| {
        n.refuse(there, Why::Full);
        n.config.max_children = n.count(Stage::Child);
        n.flush(out);
    });
    w.runs(Duration::from_secs(5));
    let new = w.homes()[&b];
    assert!(new.is_some() && new != Some(home));
    w.write(a, b, &[3]);
    assert_eq!(
        w.letters(b).len(),
        3,
        "its old home said that it is not there"
    );
    assert_eq!(w.floods(), 0);
    w.kill(b, false);
    w.runs(SECOND);
    let before = w.passed();
    w.write(a, b, &[4]);
    w.runs(Duration::from_secs(10));
    let cost = w.passed() - before;
    assert!(cost <= 3, "{cost} messages for who has left");
    assert_eq!(w.floods(), 0);
}

#[test]
fn without_a_place_a_letter_is_flooded_and_the_answer_is_not() {
    let mut w = World::ring(12, true);
    let (a, b) = (1000, 1023);
    w.places.clear();
    w.write(a, b, &[1]);
    assert_eq!(w.letters(b), [(public(a), vec![1])]);
    assert_eq!(w.floods(), 1);
    let before = w.passed();
    w.write(b, a, &[2]);
    assert_eq!(w.letters(a), [(public(b), vec![2])]);
    assert!(w.passed() - before <= 6, "the answer went back");
    // Nobody has such a key: each supernode floods a bounded number of letters for its children.
    for n in 0..200 {
        w.with(a, |node, now, out| {
            node.write(now, public(5000 + n), vec![1], out);
        });
        w.runs(Duration::from_millis(100));
    }
    assert!(w.floods() <= 100, "{} floods", w.floods());
}

#[test]
fn a_ring_that_does_not_answer_holds_no_letter_up_for_long() {
    let mut w = World::ring(12, true);
    w.deaf = true;
    let (a, b) = (1000, 1023);
    w.write(a, b, &[1]);
    assert_eq!(w.letters(b), []);
    w.runs(Duration::from_secs(2));
    assert_eq!(w.letters(b), [(public(a), vec![1])]);
    // The place of who wrote came with the letter.
    w.write(b, a, &[2]);
    assert_eq!(w.letters(a), [(public(b), vec![2])]);
    assert_eq!(w.floods(), 1);
}

#[test]
fn children_of_a_supernode_outside_the_ring_are_found_through_its_neighbours() {
    let mut w = World::ring(20, true);
    w.add(500, Role::Supernode, |c| {
        c.neighbours = 3;
        c.balance_at = 101;
    });
    w.runs(Duration::from_secs(10));
    // Nobody else has room.
    for n in 1..=20 {
        let node = w.nodes.get_mut(&n).expect("there");
        node.config.max_children = node.count(Stage::Child);
    }
    w.add(2000, Role::Peer, |_| {});
    w.runs(Duration::from_secs(60));
    assert_eq!(w.homes()[&2000], Some(500));
    let homes = w.homes();
    let near: Vec<u32> = {
        let node = &w.nodes[&500];
        let ids = node.neighbours();
        ids.filter_map(|id| node.links[&id].addr()).collect()
    };
    let far = homes
        .iter()
        .find(|(_, h)| !near.contains(&h.expect("a home")));
    let far = *far.expect("somebody").0;
    let before = w.passed();
    w.write(far, 2000, b"in");
    w.write(2000, far, b"out");
    assert_eq!(w.letters(2000), [(public(far), b"in".to_vec())]);
    assert_eq!(w.letters(far), [(public(2000), b"out".to_vec())]);
    assert_eq!(w.floods(), 0);
    let cost = w.passed() - before;
    assert!(cost <= 8, "{cost} messages for a letter and its answer");
}

#[test]
fn nobody_says_where_letters_to_another_are_taken() {
    let mut w = World::ring(6, true);
    let kept = w.places.len();
    let unix_ms = |w: &World| (EPOCH + w.now.as_micros() / 1_000_000) * 1000 + 500_000;
    let to = *w.homes().iter().next().expect("a peer").0;
    let home = w.homes()[&to].expect("a home");
    let liar = stranger(&mut w, 1, 300, Purpose::Neighbour);
    let thief = own_key(300).verifying_key().to_bytes();
    let stolen = Place::new(
        &own_key(300),
        token(&server(), to, 1_000_000),
        unix_ms(&w),
        thief,
        vec![300],
    );
    let own = Place::new(
        &own_key(300),
        token(&server(), 300, 1_000_000),
        unix_ms(&w),
        public(home),
        vec![home],
    );
    for place in [stolen.clone(), own] {
        w.with(1, |n, now, out| {
            n.on_message(now, liar, Message::Place(Box::new(place)), out);
        });
    }
    assert_eq!(w.places.len(), kept);
    // With a letter it is not believed either: the answer goes to whose place is signed.
    let letter = crate::wire::Letter {
        id: [8; 16],
        from: public(to),
        to: public(1),
        course: crate::wire::Course::To(public(1)),
        place: Some(Box::new(stolen)),
        sealed: vec![1],
    };
    w.with(1, |n, now, out| {
        n.on_message(now, liar, Message::Letter(Box::new(letter)), out);
    });
    w.write(1, to, b"answer");
    assert_eq!(w.letters(to), [(public(1), b"answer".to_vec())]);
}

#[test]
fn a_place_leads_nobody_into_his_own_network() {
    let inside = (1 << 31) + 7;
    for (door, dials) in [(inside, false), (77, true)] {
        let mut w = World::ring(6, true);
        let seq = (EPOCH + w.now.as_micros() / 1_000_000) * 1000 + 500_000;
        let token = token(&server(), 300, 1_000_000);
        let place = Place::new(&own_key(300), token, seq, public(301), vec![door]);
        w.with(1, |n, now, out| {
            n.write(now, public(300), vec![1], out);
            n.on_place(now, place.prefix(), Some(place), out);
            let dialled = |e: &Effect<u32>| matches!(e, Effect::Dial(to) if *to == door);
            assert_eq!(out.iter().any(dialled), dials, "{door}");
        });
    }
}

#[test]
fn a_link_for_letters_carries_nothing_else() {
    let mut w = World::ring(6, true);
    for message in [
        Message::Place(Box::new(Place::new(
            &own_key(300),
            token(&server(), 300, 1_000_000),
            1,
            public(1),
            vec![1],
        ))),
        Message::Query {
            id: [4; 16],
            wanted: Wanted::Words("song".into()),
            ttl: 3,
        },
        Message::Letter(Box::new(crate::wire::Letter {
            id: [5; 16],
            from: public(300),
            to: public(1000),
            course: crate::wire::Course::Flood(3),
            place: None,
            sealed: vec![1],
        })),
    ] {
        let link = stranger(&mut w, 1, 300, Purpose::Letters);
        assert!(w.nodes[&1].links[&link].stage == Stage::Carrier);
        for _ in 0..3 {
            let message = message.clone();
            w.with(1, |n, now, out| n.on_message(now, link, message, out));
        }
        assert!(!w.nodes[&1].links.contains_key(&link), "{message:?}");
        w.nodes.get_mut(&1).expect("there").banned.clear();
    }
    // Many such links push out each other, and no child.
    let children = w.nodes[&1].count(Stage::Child);
    for n in 0..300 {
        stranger(&mut w, 1, 3000 + n, Purpose::Letters);
    }
    let node = &w.nodes[&1];
    assert_eq!(node.count(Stage::Child), children);
    assert_eq!(
        node.count(Stage::Carrier),
        super::super::carry::MAX_CARRIERS
    );
}
