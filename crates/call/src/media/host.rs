//! Which end mixes for a group that is too large for a call each with each.
//!
//! Who called knows how each end is reached from it and how long the way is, and is told the rest. It
//! ranks those that can mix and tells all of them the same list, so that nobody has to compute anything
//! to agree; the first of the list who is there mixes ([`Following`]).
//!
//! What an end says of itself is believed within bounds: an open network counts only where we reach it
//! directly, and no more power than [`MOST_POWER`]. Who is not what it said is passed over
//! ([`Leading`], and each end for itself).

mod following;
mod leading;

pub use following::{Act, Following};
pub use leading::Leading;

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::time::Duration;

/// A public key.
pub type Key = [u8; 32];

/// Power is told in classes up to this.
pub const MOST_POWER: u8 = 6;
/// Hosts that are told at most.
pub const MOST_HOSTS: usize = 8;
/// Spare processors from which on the next class of power begins.
const CLASSES: [f64; MOST_POWER as usize] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// What an end says that it would be as a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Strength {
    /// It mixes for others.
    pub mixes: bool,
    /// No NAT is before it.
    #[serde(default)]
    pub open: bool,
    /// See [`power`].
    #[serde(default)]
    pub power: u8,
}

/// The class of power of a machine with so many processors, of which so many are busy on average: in
/// classes, since what is left changes from second to second, and a host only has to have enough.
pub fn power(processors: usize, load: f64) -> u8 {
    let spare = processors as f64 - load.max(0.0);
    let reached = CLASSES.iter().filter(|from| spare >= **from).count();
    u8::try_from(reached).unwrap_or(MOST_POWER)
}

/// An end as who called sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: Key,
    /// What it says.
    pub strength: Strength,
    /// It is reached without a relay.
    pub direct: bool,
    /// There and back.
    pub rtt: Duration,
}

impl Candidate {
    /// The best first: open, then direct, then relayed; then by power, by round trip, and at last by key.
    fn place(&self) -> (u8, Reverse<u8>, Duration, Key) {
        let reached = match (self.direct, self.strength.open) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
        let power = self.strength.power.min(MOST_POWER);
        (reached, Reverse(power), self.rtt, self.key)
    }
}

/// Those that can mix, the best first.
pub fn rank(candidates: &[Candidate]) -> Vec<Key> {
    let mut able: Vec<_> = candidates.iter().filter(|c| c.strength.mixes).collect();
    able.sort_by_key(|c| c.place());
    let mut keys: Vec<_> = able.into_iter().map(|c| c.key).collect();
    keys.dedup();
    keys.truncate(MOST_HOSTS);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(n: u8) -> Candidate {
        Candidate {
            key: [n; 32],
            strength: Strength {
                mixes: true,
                open: false,
                power: 1,
            },
            direct: true,
            rtt: Duration::from_millis(10),
        }
    }

    fn first(candidates: &[Candidate]) -> u8 {
        rank(candidates)[0][0]
    }

    #[test]
    fn the_way_counts_before_power_power_before_time_and_the_key_at_last() {
        let (near, mut far) = (candidate(2), candidate(1));
        assert_eq!(first(&[near, far]), 1);
        far.rtt *= 2;
        assert_eq!(first(&[near, far]), 2);
        far.strength.power = 2;
        assert_eq!(first(&[near, far]), 1);
        far.direct = false;
        assert_eq!(first(&[near, far]), 2);
        let mut open = far;
        (open.direct, open.strength.open, open.strength.power) = (true, true, 0);
        assert_eq!(first(&[near, open]), 1);
        open.strength.mixes = false;
        assert_eq!(rank(&[near, open]), [[2; 32]]);
    }

    #[test]
    fn a_claim_has_bounds() {
        let (mut honest, mut boaster) = (candidate(1), candidate(2));
        honest.strength.power = MOST_POWER;
        boaster.strength.power = 255;
        assert_eq!(first(&[honest, boaster]), 1);
        // That it is open is not believed of who is reached by a relay.
        (boaster.direct, boaster.strength.open) = (false, true);
        honest.strength.power = 0;
        assert_eq!(first(&[honest, boaster]), 1);
    }

    #[test]
    fn power_is_what_is_not_used() {
        assert_eq!(power(2, 0.3), 2);
        assert_eq!(power(2, 0.9), 2);
        assert_eq!(power(2, 1.8), 0);
        assert_eq!(power(2, 60.0), 0);
        assert_eq!(power(4, f64::NAN), 4);
        assert_eq!(power(256, 0.0), MOST_POWER);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (any::<u8>(), any::<[bool; 3]>(), 0..9u8, 0..5u64);
        let one = one.prop_map(|(n, [mixes, open, direct], power, rtt)| Candidate {
            key: [n; 32],
            strength: Strength { mixes, open, power },
            direct,
            rtt: Duration::from_millis(rtt),
        });
        prop::collection::btree_map(any::<u8>(), one, 0..17).prop_map(|all| {
            let each = all.into_iter();
            each.map(|(n, one)| Candidate {
                key: [n; 32],
                ..one
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn the_order_they_are_given_in_does_not_count(
            (ours, theirs) in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let ranked = rank(&ours);
            prop_assert_eq!(&ranked, &rank(&theirs));
            let able = ours.iter().filter(|c| c.strength.mixes).count();
            prop_assert_eq!(ranked.len(), able.min(MOST_HOSTS));
            // Nobody who is not told is better than who is.
            let place = |key: &Key| ours.iter().find(|c| c.key == *key).map(Candidate::place);
            prop_assert!(ranked.windows(2).all(|w| place(&w[0]) < place(&w[1])));
        }
    }
}
