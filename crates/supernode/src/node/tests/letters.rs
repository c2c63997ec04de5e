//! Letters and relays.

use super::*;

pub(super) fn public(n: u32) -> Key {
    own_key(n).verifying_key().to_bytes()
}

impl World {
    pub(super) fn letters(&self, at: u32) -> Vec<(Key, Vec<u8>)> {
        let of = self.events.iter().filter(|(_, n, _)| *n == at);
        of.filter_map(|(_, _, e)| match e {
            Event::Letter(from, text) => Some((*from, text.clone())),
            _ => None,
        })
        .collect()
    }

    pub(super) fn write(&mut self, from: u32, to: u32, text: &[u8]) {
        self.with(from, |n, now, out| {
            n.write(now, public(to), text.to_vec(), out);
        });
        self.runs(Duration::from_secs(1));
    }
}

#[test]
fn a_letter_finds_its_reader_once_and_the_answer_goes_straight_back() {
    let mut w = World::overlay(30);
    w.write(100, 117, b"hello");
    assert_eq!(w.letters(117), [(public(100), b"hello".to_vec())]);
    let passed = |w: &World| -> u64 { w.nodes.values().map(|n| n.stats().letters).sum() };
    let before = passed(&w);
    w.write(117, 100, b"yes?");
    assert_eq!(w.letters(100), [(public(117), b"yes?".to_vec())]);
    assert!(passed(&w) - before <= 3, "the answer was not flooded");
    // To and from supernodes themselves.
    w.write(3, 100, b"a");
    w.write(100, 3, b"b");
    assert_eq!(w.letters(100).len(), 2);
    assert_eq!(w.letters(3), [(public(100), b"b".to_vec())]);
    // Nobody else heard any of it.
    let all = w.events.iter();
    assert_eq!(
        all.filter(|(_, _, e)| matches!(e, Event::Letter(..)))
            .count(),
        4
    );
}

#[test]
fn who_writes_too_much_or_in_anothers_name_is_stopped() {
    let mut w = World::overlay(6);
    for _ in 0..200 {
        w.with(100, |n, now, out| {
            n.write(now, public(101), vec![1], out);
        });
    }
    w.runs(Duration::from_secs(2));
    let came = w.letters(101).len();
    assert!(
        (20..=30).contains(&came),
        "{came} letters of 200 came at once"
    );
    // In another's name.
    let forged = crate::wire::Letter {
        id: [3; 16],
        from: public(102),
        to: public(101),
        course: crate::wire::Course::Find,
        place: None,
        sealed: vec![2],
    };
    let (link, home) = {
        let node = &w.nodes[&100];
        (node.parent.expect("a home"), node.home().expect("a home"))
    };
    let (to, there) = w.wires[&(100, link)];
    assert_eq!(to, home);
    let message = Message::Letter(Box::new(forged));
    w.with(to, |n, now, out| n.on_message(now, there, message, out));
    w.runs(Duration::from_secs(1));
    assert_eq!(w.letters(101).len(), came);
}

#[test]
fn children_hear_of_their_supernodes_relay_and_of_its_neighbours() {
    let mut w = World::new();
    let at = |n: u8| -> std::net::SocketAddr { ([10, 0, 0, n], 3478).into() };
    for n in 1..=2u8 {
        w.add(n.into(), Role::Supernode, |c| {
            let (secret, at) = (vec![n], vec![at(n)]);
            c.relay = Some(RelayOffer { secret, at });
        });
        w.runs(Duration::from_secs(1));
    }
    w.runs(Duration::from_secs(5));
    w.add(100, Role::Peer, |_| {});
    w.runs(Duration::from_secs(10));
    let told = w.events.iter().rev().find_map(|(_, n, e)| match e {
        Event::Relays(relays) if *n == 100 => Some(relays.clone()),
        _ => None,
    });
    let told = told.expect("told of relays");
    let mut places: Vec<_> = told.iter().flat_map(|r| r.at.clone()).collect();
    places.sort_unstable();
    assert_eq!(places, [at(1), at(2)]);
    let expires: u64 = told[0].name.split(':').next().unwrap().parse().unwrap();
    assert!(expires > EPOCH + 3000, "{}", told[0].name);
}
