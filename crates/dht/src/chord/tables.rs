//! What a node knows of its ring: predecessor, successor list, distinct fingers, shortcuts; and
//! which of them is the next hop for a key.

use super::message::{Address, Contact, Route, Want};
use super::ring::RingId;

/// A node's routing state. Vectors hold exactly what is known, so a million of them fit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tables<I, A> {
    pub(crate) me: Contact<I, A>,
    pub(crate) predecessor: Option<Contact<I, A>>,
    /// Nearest first, in strictly growing distance, without this node.
    pub(crate) successors: Vec<Contact<I, A>>,
    /// Distinct fingers, nearest first. Two fingers never have the same [`RingId::log2`] of their
    /// distance: the nearer one would be the finger of all powers up to it, the farther one of
    /// higher powers, none of which it reaches. So the table is at most one contact a power.
    pub(crate) fingers: Vec<Contact<I, A>>,
    /// Nearest first.
    pub(crate) shortcuts: Vec<Contact<I, A>>,
}

impl<I: RingId, A: Address> Tables<I, A> {
    pub(crate) fn new(me: Contact<I, A>) -> Self {
        Self {
            me,
            predecessor: None,
            successors: Vec::new(),
            fingers: Vec::new(),
            shortcuts: Vec::new(),
        }
    }

    /// How far clockwise from here `id` is.
    pub(crate) fn distance(&self, id: I) -> I {
        self.me.id.distance(id)
    }

    /// Knows neither predecessor nor successor: owns the whole circle.
    pub(crate) fn alone(&self) -> bool {
        self.successors.is_empty() && self.predecessor.is_none()
    }

    /// Whether this node is, as far as it knows, the successor of `key`.
    pub(crate) fn owns(&self, key: I) -> bool {
        key == self.me.id
            || match self.predecessor {
                Some(predecessor) => key.between(predecessor.id, self.me.id),
                None => self.successors.is_empty(),
            }
    }

    /// Tries next hops for a key that is not this node's own, the best first, until `accept` takes
    /// one. Its second argument, also returned, says that the hop is taken for the owner.
    pub(crate) fn next_hop(
        &self,
        key: I,
        route: Route,
        want: Want,
        mut accept: impl FnMut(&Contact<I, A>, bool) -> bool,
    ) -> Option<(Contact<I, A>, bool)> {
        let reach = self.distance(key);
        // Everybody comes before one's own identifier.
        let precedes = |c: &Contact<I, A>| key == self.me.id || self.distance(c.id) < reach;
        // Successors before it precede the key; it and those after it may own the key.
        let owner = self.successors.partition_point(precedes);
        let links = match route {
            Route::Ring | Route::BothWays => {
                let nearer = key == self.me.id || key.distance(self.me.id) < reach;
                let backwards = route == Route::BothWays && nearer && owner > 0;
                if backwards
                    && let Some(p) = &self.predecessor
                    && accept(p, false)
                {
                    return Some((*p, false));
                }
                let found = (self.successors.iter().enumerate())
                    .find(|(i, s)| accept(s, *i >= owner))
                    .map(|(i, s)| (*s, i >= owner));
                return found;
            }
            Route::Shortcuts => &self.shortcuts[..],
            Route::Fingers => &self.fingers[..],
        };
        let (before, owners) = self.successors.split_at(owner);
        // Whoever wants the predecessor goes to the nearest node before the key, not past it.
        let owners_first = want != Want::Predecessor || before.is_empty();
        if owners_first && let Some(s) = owners.iter().find(|s| accept(s, true)) {
            return Some((*s, true));
        }
        let (links, _) = links.split_at(links.partition_point(precedes));
        let (mut near, mut far) = (
            before.iter().rev().peekable(),
            links.iter().rev().peekable(),
        );
        loop {
            let hop = match (near.peek(), far.peek()) {
                (Some(a), Some(b)) if a.id == b.id => {
                    far.next();
                    near.next()
                }
                (Some(a), Some(b)) if self.distance(a.id) < self.distance(b.id) => far.next(),
                (Some(_), _) => near.next(),
                (None, _) => far.next(),
            };
            match hop {
                Some(hop) if accept(hop, false) => return Some((*hop, false)),
                Some(_) => {}
                None => break,
            }
        }
        if owners_first {
            return None;
        }
        let owner = owners.iter().find(|s| accept(s, true));
        owner.map(|s| (*s, true))
    }

    /// Takes `head` and its own successors as the new list of at most `r`. What is out of order,
    /// and all from this node on, is left off: a list never goes round more than once. Says
    /// whether anything changed.
    pub(crate) fn adopt(&mut self, head: Contact<I, A>, rest: &[Contact<I, A>], r: usize) -> bool {
        let mut list = Vec::with_capacity(r.min(rest.len() + 1));
        let mut reached = self.me.id;
        for contact in std::iter::once(&head).chain(rest).take(r) {
            let onwards =
                reached == self.me.id || self.distance(contact.id) > self.distance(reached);
            if contact.id == self.me.id || !onwards {
                break;
            }
            reached = contact.id;
            list.push(*contact);
        }
        let changed = !list.is_empty() && list != self.successors;
        if changed {
            self.successors = list;
            self.prune_fingers();
        }
        changed
    }

    /// Drops the fingers of powers that the successor list tells.
    pub(crate) fn prune_fingers(&mut self) {
        let (me, first) = (self.me.id, self.first_power());
        self.fingers
            .retain(|f| me.distance(f.id).log2() >= Some(first));
    }

    /// Notes that `finger` is the first node at distance 2^`power` or more, or that there is none
    /// short of coming round. Says which power to look up next, none when the table is complete.
    pub(crate) fn put_finger(&mut self, power: u32, finger: Contact<I, A>) -> Option<u32> {
        let reach = self.distance(finger.id).log2().filter(|r| *r >= power);
        let me = self.me.id;
        let power_of = |c: &Contact<I, A>| me.distance(c.id).log2().unwrap_or(0);
        // From `power` up to its reach nobody else stands; without reach, nobody at all.
        let upto = reach.unwrap_or(I::BITS);
        let from = self.fingers.partition_point(|f| power_of(f) < power);
        let to = self.fingers.partition_point(|f| power_of(f) <= upto);
        let replaced = self.fingers.get(from..to).unwrap_or_default();
        if replaced != reach.map(|_| finger).as_slice() {
            self.fingers
                .splice(from..to.max(from), reach.map(|_| finger));
        }
        reach.map(|r| r + 1).filter(|next| *next < I::BITS)
    }

    /// The first power whose finger the successor list does not already tell.
    pub(crate) fn first_power(&self) -> u32 {
        let last = self.successors.last();
        last.and_then(|s| self.distance(s.id).log2())
            .map_or(0, |p| p + 1)
    }

    /// Finger `i`: the first known node at distance 2^`i` or more, this node when there is none.
    pub(crate) fn finger(&self, i: u32) -> Contact<I, A> {
        let enough = |c: &&Contact<I, A>| self.distance(c.id).log2() >= Some(i);
        let near = self.successors.iter().find(enough);
        let far = self.fingers.iter().find(enough);
        match (near, far) {
            (Some(a), Some(b)) if self.distance(b.id) < self.distance(a.id) => *b,
            (Some(a), _) => *a,
            (None, Some(b)) => *b,
            (None, None) => self.me,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chord::Point;
    use proptest::prelude::*;

    type P = Point<8>;

    fn contact(n: u64) -> Contact<P, u64> {
        Contact::new(P::new(n), n)
    }

    fn order(tables: &Tables<P, u64>, key: u64, route: Route, want: Want) -> Vec<(u64, bool)> {
        let mut seen = Vec::new();
        tables.next_hop(P::new(key), route, want, |c, last| {
            seen.push((c.addr, last));
            false
        });
        seen
    }

    fn example() -> Tables<P, u64> {
        Tables {
            predecessor: Some(contact(250)),
            successors: [10, 20, 30].map(contact).to_vec(),
            fingers: [20, 40, 70, 140].map(contact).to_vec(),
            shortcuts: [100].map(contact).to_vec(),
            ..Tables::new(contact(0))
        }
    }

    #[test]
    fn next_hops_come_best_first() {
        let t = example();
        assert_eq!(
            order(&t, 80, Route::Fingers, Want::Owner),
            [
                (70, false),
                (40, false),
                (30, false),
                (20, false),
                (10, false)
            ]
        );
        assert_eq!(
            order(&t, 25, Route::Fingers, Want::Owner),
            [(30, true), (20, false), (10, false)]
        );
        assert_eq!(
            order(&t, 25, Route::Fingers, Want::Predecessor),
            [(20, false), (10, false), (30, true)]
        );
        assert_eq!(
            order(&t, 25, Route::Ring, Want::Owner),
            [(10, false), (20, false), (30, true)]
        );
        assert_eq!(
            order(&t, 200, Route::BothWays, Want::Owner)[0],
            (250, false)
        );
        assert_eq!(order(&t, 100, Route::BothWays, Want::Owner)[0], (10, false));
        assert_eq!(
            order(&t, 101, Route::Shortcuts, Want::Owner)[0],
            (100, false)
        );
        assert_eq!(
            order(&t, 100, Route::Shortcuts, Want::Owner)[0],
            (30, false)
        );
        assert!(t.owns(P::new(251)) && t.owns(P::new(0)) && !t.owns(P::new(250)));
    }

    #[test]
    fn a_list_ends_before_it_comes_round_or_goes_back() {
        let mut t = Tables::new(contact(100));
        assert!(t.adopt(contact(120), &[130, 125, 140].map(contact), 8));
        assert_eq!(t.successors, [120, 130].map(contact));
        assert!(!t.adopt(contact(120), &[contact(130)], 8));
        assert!(t.adopt(contact(200), &[10, 100, 120].map(contact), 8));
        assert_eq!(t.successors, [200, 10].map(contact));
        assert!(t.adopt(contact(110), &[120, 130].map(contact), 2));
        assert_eq!(t.successors, [110, 120].map(contact));
        assert!(!t.adopt(contact(100), &[contact(1)], 2), "never oneself");
    }

    proptest! {
        /// Looking up power after power as the table says fills it with exactly the distinct
        /// fingers that the definition gives, whatever stood in it before.
        #[test]
        fn a_table_filled_finger_by_finger_is_the_definition(
            mut ring in proptest::collection::btree_set(1u64..256, 0..40),
            stale in proptest::collection::vec((0u32..8, 0u64..256), 0..20),
        ) {
            ring.insert(0);
            let successor = |key: u64| *ring.range(key..).next().unwrap_or(&0);
            let mut t = Tables::new(contact(0));
            for (power, id) in stale {
                t.put_finger(power, contact(id));
                prop_assert!(t.fingers.len() <= 8);
            }
            let mut power = Some(0);
            while let Some(p) = power {
                power = t.put_finger(p, contact(successor(1 << p)));
            }
            for i in 0..8 {
                prop_assert_eq!(t.finger(i).addr, successor(1 << i));
            }
            let mut distinct: Vec<_> = (0..8).map(|i| successor(1 << i)).collect();
            distinct.dedup();
            distinct.retain(|s| *s != 0);
            prop_assert_eq!(t.fingers, distinct.into_iter().map(contact).collect::<Vec<_>>());
        }
    }
}
