//! Letters over connections between two ends, which come and go, and boxes when there is none.

use super::*;

/// Connections, as the driver makes them.
#[derive(Default)]
pub(super) struct Links {
    /// Whether ends can reach each other at all.
    pub(super) on: bool,
    /// Pairs of users, the lower first, and of which runs.
    up: BTreeMap<(usize, usize), (u8, u8)>,
}

/// After how long an end that was killed is missed by its connections, at most.
const MISSED: Duration = Duration::from_secs(30);

impl World {
    fn of_key(&self, key: &Key) -> Option<usize> {
        self.users.iter().position(|u| public(u.n) == *key)
    }

    /// A connection to who has this key is wanted.
    pub(super) fn reach(&mut self, who: usize, key: Key) {
        let to = self
            .of_key(&key)
            .filter(|to| self.users[*to].chat.is_some());
        let Some(to) = to else {
            return self.later(Due::Link(who, key, false));
        };
        let pair = (who.min(to), who.max(to));
        let runs = (self.users[pair.0].starts, self.users[pair.1].starts);
        self.links.up.insert(pair, runs);
        let own = public(self.users[who].n);
        self.later(Due::Link(who, key, true));
        self.later(Due::Link(to, own, true));
    }

    /// A letter goes over a connection, and is lost if that is none any more.
    pub(super) fn hand(&mut self, who: usize, key: Key, envelope: Envelope) {
        let Some(to) = self.of_key(&key) else { return };
        let pair = (who.min(to), who.max(to));
        let runs = (self.users[pair.0].starts, self.users[pair.1].starts);
        let up = self.links.up.get(&pair) == Some(&runs);
        if up && self.users[to].chat.is_some() {
            let own = public(self.users[who].n);
            self.later(Due::Straight(to, own, envelope));
        }
    }

    /// An end is gone: others notice at once, or when their connections are silent for too long.
    pub(super) fn cut(&mut self, who: usize) {
        let own = public(self.users[who].n);
        let gone: Vec<_> = self.links.up.keys().copied().collect();
        for pair in gone.into_iter().filter(|p| p.0 == who || p.1 == who) {
            self.links.up.remove(&pair);
            let other = if pair.0 == who { pair.1 } else { pair.0 };
            let delay = MISSED.mul_f64(self.rng.unit() * f64::from(u8::from(self.rng.chance(0.5))));
            self.number += 1;
            let due = Due::Link(other, own, false);
            self.due.insert((self.now + delay, self.number), due);
        }
    }

    fn taken(&self) -> u64 {
        self.offices.values().map(|o| o.stats().taken).sum()
    }
}

#[test]
fn while_both_are_there_no_supernode_sees_a_letter() {
    for seed in 0..5 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.links.on = true;
        world.start(0, &[0, 1, 2]);
        world.start(1, &[2, 3, 4]);
        world.run(MINUTE);
        let buddy = |w: &mut World, who, of: &str| {
            w.act(who, |chat, now, out| chat.set_buddy(now, of, true, out));
        };
        world.write(0, "bob", "first");
        world.run(MINUTE);
        buddy(&mut world, 0, "bob");
        buddy(&mut world, 1, "alice");
        world.run(5 * MINUTE);
        assert_eq!(world.taken(), 0, "seed {seed}: boxes took letters");
        let mut wanted = [vec!["first".to_owned()], Vec::new()];
        for n in 0..40 {
            let (from, to) = (n % 2, ["bob", "alice"][n % 2]);
            let text = format!("text {n}");
            world.write(from, to, &text);
            wanted[from].push(text);
            let wait = Duration::from_millis(world.rng.below(3000) as u64);
            world.run(wait);
        }
        world.run(5 * MINUTE);
        assert_eq!(world.texts(1), wanted[0], "seed {seed}");
        assert_eq!(world.texts(0), wanted[1], "seed {seed}");
        assert!(world.heard(0, &Event::Delivered("bob".into(), 20)));
        assert!(world.heard(0, &Event::Presence("bob".into(), Status::Online)));
        assert_eq!(world.taken(), 0, "seed {seed}: boxes took letters");
    }
}

#[test]
fn who_went_without_a_word_finds_its_texts_in_boxes() {
    for seed in 0..10 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.links.on = true;
        world.start(0, &[0, 1, 2]);
        world.start(1, &[2, 3, 4]);
        world.run(MINUTE);
        world.write(0, "bob", "one");
        world.run(Duration::from_secs(10));
        world.stop(1);
        world.write(0, "bob", "two");
        world.run(Duration::from_secs(8));
        let stored = |e: &Event| matches!(e, Event::Stored(_, 1, 3));
        assert!(world.users[0].events.iter().any(stored), "seed {seed}");
        world.stop(0);
        world.run(10 * MINUTE);
        world.start(1, &[2, 3, 4]);
        world.run(Duration::from_secs(5));
        assert_eq!(world.texts(1), ["one", "two"], "seed {seed}");
    }
}

#[test]
fn both_ways_with_ends_that_are_killed_lose_and_double_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.links.on = true;
        world.loss = 0.1;
        world.start(0, &[0, 1, 2]);
        world.start(1, &[2, 3, 4]);
        world.run(MINUTE);
        let mut wanted = [Vec::new(), Vec::new()];
        for n in 0..80 {
            let who = world.rng.below(2);
            if world.rng.chance(0.15) {
                world.stop(who);
                let homes = if who == 0 { [0, 1, 2] } else { [2, 3, 4] };
                world.start(who, &homes);
            }
            let (to, text) = (["bob", "alice"][who], format!("{n} of {who}"));
            world.write(who, to, &text);
            wanted[1 - who].push(text);
            let wait = Duration::from_millis(world.rng.below(1500) as u64);
            world.run(wait);
        }
        world.run(30 * MINUTE);
        assert_eq!(world.texts(0), wanted[0], "seed {seed}");
        assert_eq!(world.texts(1), wanted[1], "seed {seed}");
    }
}
