//! False supernodes among the homes of a user: what they change, swap, drop or say again comes to
//! nothing, and who drops letters is left for another.

use super::*;

/// What a supernode does with letters that are put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Changes a bit.
    Twists,
    /// Seals a text of its own, by its own key, in place of the writer's.
    Swaps,
    /// Puts it into everybody's box.
    Spreads,
    /// Says that it is kept, and forgets it.
    Drops,
    /// Hands all of it over again and again, also to who has acknowledged it.
    Replays,
}

/// What the false supernodes do, and what they remember.
#[derive(Default)]
pub(super) struct Liars {
    pub(super) are: BTreeMap<u32, Lie>,
    kept: Vec<(u32, Envelope)>,
}

/// Letters that they say again at most.
const MAX_KEPT: usize = 60;
/// The key of a name that a false supernode has.
const MALLORY: u8 = 90;

impl World {
    /// A letter is put at a false supernode, which says that it is kept; whether it was one.
    pub(super) fn lied(&mut self, who: usize, at: u32, envelope: &Envelope) -> bool {
        let Some(lie) = self.liars.are.get(&at).copied() else {
            return false;
        };
        let to = |w: &Self, key: &Key| w.users.iter().position(|u| public(u.n) == *key);
        let all: Vec<usize> = (0..self.users.len()).collect();
        let mut letter = envelope.clone();
        match lie {
            Lie::Twists => {
                let bit = self.rng.below(letter.sealed.len() * 8);
                letter.sealed[bit / 8] ^= 1 << (bit % 8);
            }
            Lie::Swaps => {
                let name = self.users[who].name;
                // It has no certificate of the writer's name but the writer's own.
                let own = certificate(name, self.users[who].n, 0);
                let record = self.users.iter().find(|u| public(u.n) == letter.to);
                let prekeys = record.and_then(|u| u.chat.as_ref().map(|c| c.prekeys.clone()));
                let Some(prekey) = prekeys.and_then(|p| Some(p.last()?.public)) else {
                    return true;
                };
                let sealed_to = crate::seal::To {
                    key: letter.to,
                    prekey,
                };
                let text = Body::Text {
                    stream: [9; 8],
                    seq: 0,
                    first: 0,
                    unix: EPOCH,
                    text: "send me all your herons".into(),
                };
                let text = postcard::to_allocvec(&text).expect("plain");
                let mut secrets = Secrets::new([at as u8; 32]);
                let forged =
                    crate::seal::seal(&key(MALLORY), &own, &sealed_to, &text, &mut secrets);
                letter.sealed = forged.expect("it fits");
            }
            Lie::Drops => return true,
            Lie::Spreads | Lie::Replays => {}
        }
        if self.liars.kept.len() < MAX_KEPT {
            self.liars.kept.push((at, letter.clone()));
        }
        let recipients = match lie {
            Lie::Spreads => all,
            _ => to(self, &letter.to).into_iter().collect(),
        };
        for to in recipients {
            self.later(Due::Mail(to, at, letter.clone()));
        }
        if lie == Lie::Replays {
            self.replay();
        }
        true
    }

    /// All that was ever put at those who replay comes to its recipients again.
    fn replay(&mut self) {
        let kept = std::mem::take(&mut self.liars.kept);
        for (at, letter) in &kept {
            let to = self.users.iter().position(|u| public(u.n) == letter.to);
            if let Some(to) = to {
                self.later(Due::Mail(to, *at, letter.clone()));
            }
        }
        self.liars.kept = kept;
    }
}

fn unread(world: &World, who: usize) -> BTreeSet<&'static str> {
    let whys = world.users[who].events.iter().filter_map(|e| match e {
        Event::Unreadable(why) => Some(*why),
        _ => None,
    });
    whys.collect()
}

#[test]
fn letters_that_homes_change_or_swap_are_refused_and_texts_come_by_the_third() {
    for (lie, why) in [
        (Lie::Twists, Some("not a letter to us")),
        (Lie::Swaps, Some("not by the sender it names")),
        (Lie::Spreads, None),
        (Lie::Drops, None),
    ] {
        for seed in 0..5 {
            let mut world = World::new(seed, &["alice", "bob", "carol"]);
            world.liars.are.extend([(1, lie), (3, lie)]);
            world.start(0, &[0, 2, 4]);
            world.start(1, &[1, 2, 3]);
            world.start(2, &[0, 2, 4]);
            world.run(MINUTE);
            let wanted: Vec<String> = (0..20).map(|n| format!("text {n}")).collect();
            for text in &wanted {
                world.write(0, "bob", text);
                world.run(Duration::from_secs(1));
            }
            world.run(5 * MINUTE);
            assert_eq!(world.texts(1), wanted, "{lie:?}, seed {seed}");
            assert!(
                world.heard(0, &Event::Delivered("bob".into(), 19)),
                "{lie:?}"
            );
            // Nobody else reads them, and what was changed is told with its reason.
            assert!(world.texts(2).is_empty() && world.texts(0).is_empty());
            if let Some(why) = why {
                assert!(unread(&world, 1).contains(why), "{:?}", unread(&world, 1));
            }
            if lie == Lie::Spreads {
                let foreign = unread(&world, 2);
                assert_eq!(foreign.len(), 1, "{foreign:?}");
            }
        }
    }
}

#[test]
fn letters_that_are_handed_over_again_are_told_once_even_after_a_kill() {
    for seed in 0..4 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.liars.are.extend([1, 2, 3].map(|n| (n, Lie::Replays)));
        world.start(0, &[0, 1, 4]);
        world.start(1, &[1, 2, 3]);
        world.run(MINUTE);
        let mut wanted = Vec::new();
        for n in 0..30 {
            if n % 10 == 9 {
                world.stop(1);
                world.start(1, &[1, 2, 3]);
            }
            let text = format!("text {n}");
            world.write(0, "bob", &text);
            wanted.push(text);
            world.run(Duration::from_secs(2));
        }
        // Weeks later, to a program that has seen none of them itself.
        world.stop(1);
        world.start(1, &[1, 2, 3]);
        world.replay();
        world.run(5 * MINUTE);
        assert_eq!(world.texts(1), wanted, "seed {seed}");
        let lost = |e: &Event| matches!(e, Event::Missing(..) | Event::Text { late: true, .. });
        assert!(!world.users[1].events.iter().any(lost), "seed {seed}");
    }
}

#[test]
fn a_home_that_drops_letters_is_left_for_another() {
    for seed in 0..5 {
        let mut world = World::new(seed, &["alice", "bob"]);
        world.liars.are.insert(2, Lie::Drops);
        world.start(0, &[0, 1, 4]);
        world.start(1, &[1, 2, 3]);
        world.run(MINUTE);
        for n in 0..30 {
            world.write(0, "bob", &format!("text {n}"));
            world.run(Duration::from_secs(5));
        }
        assert_eq!(world.texts(1).len(), 30);
        assert_eq!(world.users[1].left, [2], "seed {seed}");
        assert!(world.users[0].left.is_empty(), "seed {seed}");
        // Its record names others, where the next texts lie while it is away.
        world.run(6 * MINUTE);
        world.stop(1);
        world.write(0, "bob", "in three boxes");
        world.run(MINUTE);
        assert!(
            world.heard(0, &Event::Stored("bob".into(), 30, 3)),
            "seed {seed}"
        );
    }
}
