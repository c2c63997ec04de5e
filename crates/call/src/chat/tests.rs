mod heads;
mod liars;
mod straight;
mod world;

use super::*;
use crate::mailbox::office::{LinkId, Office, OfficeConfig, Out};
use crate::mailbox::watch::Watch;
use crate::mailbox::wire::{Say, Told, ack, client_proof};
use shoal_base::Rng;
use world::{Due, EPOCH, SERVER, World, certificate, key, public};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn texts_come_at_once_and_are_receipted_and_no_supernode_reads_them() {
    let mut world = World::new(1, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[2, 3, 4]);
    world.write(0, "BOB", "the heron flies at dawn");
    world.run(Duration::from_secs(3));
    assert_eq!(world.texts(1), ["the heron flies at dawn"]);
    assert!(
        world.heard(0, &Event::Delivered("bob".into(), 0)),
        "{:?}",
        world.users[0].events
    );
    world.write(1, "alice", "understood");
    world.run(Duration::from_secs(3));
    assert_eq!(world.texts(0), ["understood"]);
    for word in [&b"heron"[..], b"alice", b"understood"] {
        let plain = world
            .seen
            .windows(word.len())
            .filter(|w| *w == word)
            .count();
        assert_eq!(plain, 0, "{}", String::from_utf8_lossy(word));
    }
    world.run(MINUTE);
    let left: u64 = world.offices.values().map(|o| o.stats().letters).sum();
    assert_eq!(left, 0, "nothing stays in the boxes");
}

/// Texts written to somebody who is away, at three supernodes; the sender goes; some supernodes die.
fn away(seed: u64, loss: f64, dead: usize) {
    let mut world = World::new(seed, &["alice", "bob"]);
    world.loss = loss;
    world.start(1, &[1, 2, 3]);
    world.run(MINUTE);
    world.stop(1);
    world.start(0, &[0, 1, 4]);
    let wanted: Vec<String> = (0..40).map(|n| format!("text {n}")).collect();
    for text in &wanted {
        world.write(0, "bob", text);
        let wait = Duration::from_millis(world.rng.below(400) as u64);
        world.run(wait);
    }
    world.run(5 * MINUTE);
    world.stop(0);
    let mut homes = vec![1, 2, 3];
    world.rng.shuffle(&mut homes);
    for home in &homes[..dead] {
        world.offices.remove(home);
    }
    world.run(Duration::from_secs(3600));
    world.start(1, &[1, 2, 3]);
    world.run(Duration::from_secs(5));
    assert_eq!(world.texts(1), wanted, "seed {seed}");
    // It is killed; what it told is not told again.
    world.stop(1);
    world.start(1, &[1, 2, 3]);
    world.run(5 * MINUTE);
    assert_eq!(world.texts(1), wanted, "seed {seed}: once");
    if loss == 0.0 {
        // The sender comes back, and hears of it.
        world.start(0, &[0, 1, 4]);
        world.run(5 * MINUTE);
        let delivered = world.users[0].events.iter().filter_map(|e| match e {
            Event::Delivered(_, upto) => Some(*upto),
            _ => None,
        });
        assert_eq!(delivered.max(), Some(39), "seed {seed}");
    }
}

#[test]
fn letters_wait_for_who_is_away_and_come_once_and_in_order_with_the_sender_gone() {
    for seed in 0..10 {
        away(seed, 0.0, 0);
        away(100 + seed, 0.0, 2);
        away(200 + seed, 0.2, 0);
    }
}

#[test]
fn both_ends_that_are_killed_at_any_time_lose_and_double_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.loss = 0.1;
        world.start(0, &[0, 1, 2]);
        world.start(1, &[2, 3, 4]);
        world.run(MINUTE);
        let mut wanted = [Vec::new(), Vec::new()];
        for n in 0..60 {
            let who = world.rng.below(2);
            if world.rng.chance(0.2) {
                world.stop(who);
                let homes = if who == 0 { [0, 1, 2] } else { [2, 3, 4] };
                world.start(who, &homes);
            }
            let (to, text) = (["bob", "alice"][who], format!("{n} of {who}"));
            world.write(who, to, &text);
            wanted[1 - who].push(text);
            let wait = Duration::from_millis(world.rng.below(800) as u64);
            world.run(wait);
        }
        world.run(30 * MINUTE);
        assert_eq!(world.texts(0), wanted[0], "seed {seed}");
        assert_eq!(world.texts(1), wanted[1], "seed {seed}");
    }
}

#[test]
fn presence_is_for_buddies_alone_and_ends_by_itself() {
    let mut world = World::new(3, &["alice", "bob", "mallory"]);
    for (who, homes) in [[0, 1, 2], [1, 2, 3], [2, 3, 4]].iter().enumerate() {
        world.start(who, homes);
    }
    world.run(MINUTE);
    let buddy = |world: &mut World, who, of: &str| {
        world.act(who, |chat, now, out| chat.set_buddy(now, of, true, out));
    };
    buddy(&mut world, 0, "bob");
    buddy(&mut world, 2, "alice");
    world.run(MINUTE);
    assert!(
        world.heard(1, &Event::Asks("alice".into())),
        "bob did not say yes yet"
    );
    assert!(world.heard(0, &Event::Asks("mallory".into())));
    buddy(&mut world, 1, "alice");
    world.run(3 * MINUTE);
    let online = Event::Presence("bob".into(), Status::Online);
    assert!(world.heard(0, &online), "{:?}", world.users[0].events);
    assert!(world.heard(1, &Event::Presence("alice".into(), Status::Online)));
    let shown = |w: &World, who: usize| {
        w.users[who]
            .events
            .iter()
            .any(|e| matches!(e, Event::Presence(..)))
    };
    assert!(!shown(&world, 2), "mallory hears nothing");
    world.act(1, |chat, now, out| chat.set_status(now, Status::Away, out));
    world.run(Duration::from_secs(5));
    assert!(world.heard(0, &Event::Presence("bob".into(), Status::Away)));
    // Killed without a word: over by itself.
    world.stop(1);
    world.run(4 * MINUTE);
    assert!(world.heard(0, &Event::Presence("bob".into(), Status::Offline)));
    let buddies = world.users[0].chat.as_ref().expect("runs").buddies();
    assert_eq!(buddies, [("bob".to_owned(), Status::Offline)]);
}

#[test]
fn a_changed_key_is_told_and_an_older_one_counts_no_more() {
    let mut world = World::new(4, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[1, 2, 3]);
    world.write(0, "bob", "one");
    world.run(Duration::from_secs(5));
    world.stop(1);
    (world.users[1].n, world.users[1].generation) = (40, 1);
    world.run(6 * MINUTE);
    world.start(1, &[1, 2, 3]);
    world.run(Duration::from_secs(5));
    world.write(0, "bob", "two");
    world.run(5 * MINUTE);
    assert!(world.heard(0, &Event::KeyChanged("bob".into(), public(40))));
    assert_eq!(world.texts(1), ["one", "two"]);
    // Whoever has the old key writes as bob.
    world.stop(1);
    (world.users[1].n, world.users[1].generation) = (11, 0);
    world.start(1, &[3, 4]);
    world.write(1, "alice", "it is me");
    world.run(5 * MINUTE);
    assert!(world.texts(0).is_empty());
    assert!(world.heard(0, &Event::Unreadable("by a key that the name had before")));
}

#[test]
fn prekeys_are_replaced_and_forgotten() {
    let mut world = World::new(5, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[1, 2, 3]);
    let days = |world: &World| world.users[1].chat.as_ref().expect("runs").prekeys.len();
    for day in 0..20 {
        world.write(0, "bob", &format!("day {day}"));
        world.run(Duration::from_secs(30));
        assert_eq!(world.texts(1).len(), day + 1, "day {day}");
        // Nothing is due meanwhile that matters here.
        world.now += Duration::from_secs(86_400);
        world.users.iter_mut().for_each(|u| u.nonces.clear());
        for who in 0..2 {
            world.stop(who);
            world.start(who, &[1, 2, 3]);
        }
        assert!(days(&world) <= 16);
    }
}

#[test]
fn the_record_of_a_later_run_wins_within_a_second_too() {
    let mut world = World::new(21, &["alice"]);
    for homes in [[0, 1, 2], [2, 3, 4], [1, 2, 3]] {
        // The clock of the test stands still meanwhile.
        world.start(0, &homes);
        let bytes = &world.records["allce"];
        let record =
            Record::<u32>::check(&public(SERVER), "allce", bytes, EPOCH).expect("it holds");
        let kept: Vec<u32> = record.homes.iter().map(|h| h.addr).collect();
        assert_eq!(kept, homes);
        world.stop(0);
    }
    let numbers = world.users[0].journal.iter();
    let numbers: Vec<u64> = numbers
        .filter_map(|e| match e {
            Entry::Published(seq) => Some(*seq),
            _ => None,
        })
        .collect();
    assert!(
        numbers.len() >= 3 && numbers.is_sorted_by(|a, b| a < b),
        "{numbers:?}"
    );
    // A number of a clock that went wrong is not counted on from: nobody would believe what follows.
    world.users[0].journal.push(Entry::Published(EPOCH * 2));
    world.start(0, &[2, 3, 4]);
    let last = world.users[0].journal.iter().rev().find_map(|e| match e {
        Entry::Published(seq) => Some(*seq),
        _ => None,
    });
    assert!(last.is_some_and(|seq| seq <= EPOCH + 60), "{last:?}");
}
