//! A login server that shows two logs.

use super::*;
use shoal_supernode::names::log::{Tree, extends, leaf};

/// The log that is shown to each user, if any is.
pub(super) type Logs = BTreeMap<usize, Tree>;

/// A log of so many entries, of which those from `other` on are of another history.
fn log(entries: u64, other: u64) -> Tree {
    let mut tree = Tree::default();
    for n in 0..entries {
        let history = u8::from(n >= other);
        tree.push(leaf(&[&n.to_be_bytes()[..], &[history]].concat()));
    }
    tree
}

impl World {
    fn head(&self, who: usize) -> Head {
        let log = &self.logs[&who];
        let root = log.root(log.len()).expect("its own size");
        Head::sign(&key(SERVER), log.len(), root, EPOCH)
    }

    /// The login server proves to a user what it can: by the log that it shows to that user.
    pub(super) fn compare(&mut self, who: usize, name: &str, theirs: &Head) {
        let (ours, log) = (self.head(who), &self.logs[&who]);
        let (short, long) = if ours.size < theirs.size {
            (&ours, theirs)
        } else {
            (theirs, &ours)
        };
        let proof = log.consistency(short.size, long.size).unwrap_or_default();
        let same = extends((short.size, &short.root), (long.size, &long.root), &proof);
        let theirs = theirs.clone();
        self.act(who, |chat, _, out| {
            chat.on_compared(name, theirs, same, out);
        });
    }

    fn shown(&mut self, logs: [Tree; 2]) {
        self.logs.extend(logs.into_iter().enumerate());
        for who in 0..2 {
            let head = self.head(who);
            self.act(who, |chat, _, _| chat.set_head(head));
        }
    }

    fn forks(&self, who: usize) -> usize {
        let of = self.users[who].events.iter();
        let forks = of.filter_map(|e| match e {
            Event::Forked(fork) => Some(fork),
            _ => None,
        });
        forks
            .inspect(|fork| {
                assert!(
                    fork.is_by(&public(SERVER)),
                    "evidence against the login server"
                );
                assert!(!fork.is_by(&public(77)), "and against nobody else");
                assert_eq!(fork.is_proof(), fork.ours.size == fork.theirs.size);
            })
            .count()
    }
}

/// Two users who were shown these logs write to each other; how many found that they are two.
fn found(logs: [Tree; 2]) -> usize {
    let mut world = World::new(7, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[2, 3, 4]);
    world.shown(logs);
    world.write(0, "bob", "hello");
    world.run(MINUTE);
    assert_eq!(world.texts(1), ["hello"]);
    (0..2).filter(|who| world.forks(*who) > 0).count()
}

#[test]
fn a_login_server_that_shows_two_logs_is_found_out_by_two_who_write_to_each_other() {
    assert_eq!(found([log(20, 99), log(20, 15)]), 2, "of one length");
    assert_eq!(found([log(20, 99), log(33, 15)]), 2, "of two lengths");
    assert_eq!(
        found([log(33, 99), log(20, 0)]),
        2,
        "from the first entry on"
    );
}

#[test]
fn one_log_that_grew_meanwhile_is_no_other() {
    assert_eq!(found([log(20, 99), log(20, 99)]), 0);
    // Who has the shorter one is shown the longer one first, as is asked of a driver.
    let mut world = World::new(8, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[2, 3, 4]);
    world.shown([log(20, 99), log(33, 99)]);
    world.logs.insert(0, log(40, 99));
    world.logs.insert(1, log(40, 99));
    world.write(0, "bob", "hello");
    world.run(MINUTE);
    assert_eq!((world.forks(0), world.forks(1)), (0, 0));
}

#[test]
fn heads_that_the_login_server_did_not_sign_accuse_nobody() {
    let mut world = World::new(9, &["alice", "bob"]);
    world.start(0, &[0, 1, 2]);
    world.start(1, &[2, 3, 4]);
    world.shown([log(20, 99), log(20, 99)]);
    let forged = Head::sign(&key(77), 20, [6; 32], EPOCH);
    if let Some(chat) = &mut world.users[1].chat {
        chat.head = Some(forged.clone());
        // Its own check would not have let it in.
        chat.set_head(Head::sign(&key(78), 20, [6; 32], EPOCH));
        assert_eq!(chat.head(), Some(&forged));
    }
    world.write(1, "alice", "look what I was shown");
    world.run(MINUTE);
    assert_eq!(world.forks(0), 0);
    let why = "a head of the log that the login server did not sign";
    assert!(world.heard(0, &Event::Unreadable(why)));
}
