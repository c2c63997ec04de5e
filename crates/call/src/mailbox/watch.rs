//! Which of our homes hand over what the others do: one that does not is of no use to us, whether it
//! drops letters or nobody reaches it.
//!
//! Writers put a letter into all homes of a record, so that each of three should bring it. A letter that
//! two others brought, and one that was open all the while did not, counts against that one. Who writes
//! to us could leave one out on purpose: so only one home an hour is left, and what may still be there
//! is asked for all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_base::Time;
use shoal_supernode::Address;

use super::LetterId;

/// How long a letter may take by the slowest home: writers try again after 2, 4 and 8 s.
const GRACE: Duration = Duration::from_secs(20);
/// A letter missed counts as two brought; so much is too much.
const MISSED: u32 = 2;
const TOO_MUCH: u32 = 10;
/// How often a home is left at most.
const LEAVE: Duration = Duration::from_secs(3600);
/// Letters watched at once; more are not.
const MAX_LETTERS: usize = 1024;

#[derive(Debug, Default)]
struct Open {
    since: Time,
    missed: u32,
}

/// See the module's text. `A` is the address of a supernode.
#[derive(Debug)]
pub struct Watch<A> {
    open: BTreeMap<A, Open>,
    letters: BTreeMap<LetterId, (Time, BTreeSet<A>)>,
    left: Option<Time>,
}

impl<A: Address> Default for Watch<A> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            letters: BTreeMap::new(),
            left: None,
        }
    }
}

impl<A: Address> Watch<A> {
    /// Our box at a supernode is open from now on.
    pub fn opened(&mut self, now: Time, home: A) {
        let at = self.open.entry(home).or_default();
        at.since = now;
    }

    /// It is not any more.
    pub fn closed(&mut self, home: &A) {
        self.open.remove(home);
    }

    /// A home brought a letter, perhaps one that another brought before.
    pub fn brought(&mut self, now: Time, home: A, id: LetterId) {
        if self.letters.len() < MAX_LETTERS || self.letters.contains_key(&id) {
            let (_, by) = self
                .letters
                .entry(id)
                .or_insert_with(|| (now, BTreeSet::new()));
            by.insert(home);
        }
    }

    /// A home that is to be left for another; call it about once a second.
    pub fn tick(&mut self, now: Time) -> Option<A> {
        let open = &mut self.open;
        self.letters.retain(|_, (first, by)| {
            if now.since(*first) < GRACE {
                return true;
            }
            for (home, at) in open.iter_mut().filter(|(_, at)| at.since < *first) {
                if by.contains(home) {
                    at.missed = at.missed.saturating_sub(1);
                } else if by.len() >= 2 {
                    at.missed += MISSED;
                }
            }
            false
        });
        if self.left.is_some_and(|at| now.since(at) < LEAVE) {
            return None;
        }
        let worst = self.open.iter().max_by_key(|(_, at)| at.missed);
        let (home, _) = worst.filter(|(_, at)| at.missed >= TOO_MUCH)?;
        let home = *home;
        self.left = Some(now);
        self.open.remove(&home);
        Some(home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters that three homes bring, of which the third brings what `brings` says; when it is left.
    fn left(letters: u8, brings: impl Fn(u8) -> bool, late: bool) -> Option<u32> {
        let mut watch = Watch::<u32>::default();
        let mut now = Time::from_secs(5);
        let second = Duration::from_secs(1);
        for home in [1, 2] {
            watch.opened(now, home);
        }
        if !late {
            watch.opened(now, 3);
        }
        let mut left = None;
        for n in 0..letters + 30 {
            now += second;
            if n < letters {
                for home in [1, 2, 3] {
                    if home < 3 || brings(n) {
                        watch.brought(now, home, [n; 16]);
                    }
                }
            }
            if n == letters && late {
                watch.opened(now, 3);
            }
            left = left.or(watch.tick(now));
        }
        left
    }

    #[test]
    fn who_drops_what_two_others_bring_is_left_and_nobody_else() {
        assert_eq!(left(100, |_| false, false), Some(3));
        assert_eq!(left(100, |n| n % 2 == 0, false), Some(3), "half of them");
        assert_eq!(left(100, |_| true, false), None);
        assert_eq!(left(100, |n| n % 10 != 0, false), None, "a tenth is chance");
        assert_eq!(left(4, |_| false, false), None, "too few to tell");
        assert_eq!(left(100, |_| false, true), None, "it was not open");
    }

    #[test]
    fn one_home_alone_accuses_nobody_and_one_an_hour_is_left() {
        let mut watch = Watch::<u32>::default();
        let mut now = Time::from_secs(5);
        for home in [1, 2, 3, 4] {
            watch.opened(now, home);
        }
        let mut run = |watch: &mut Watch<u32>, by: &[u32], seconds: u64| {
            let mut left = Vec::new();
            for _ in 0..seconds {
                now += Duration::from_secs(1);
                let mut id = [0; 16];
                id[..8].copy_from_slice(&now.as_micros().to_le_bytes());
                by.iter().for_each(|home| watch.brought(now, *home, id));
                left.extend(watch.tick(now));
            }
            left
        };
        assert!(run(&mut watch, &[1], 100).is_empty());
        let first = run(&mut watch, &[1, 2], 1800);
        assert_eq!(first.len(), 1, "{first:?}");
        let both = run(&mut watch, &[1, 2], 3600);
        assert_eq!([&first[..], &both].concat().len(), 2, "{both:?}");
        assert!(!both.contains(&1) && !both.contains(&2));
    }
}
