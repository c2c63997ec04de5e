//! Arithmetic on the identifier circle, modulo 2^m.

use crate::Id;
use std::fmt;
use std::hash::Hash;

/// A point on a circle of 2^[`RingId::BITS`] points. Its order is that of the number.
///
/// All arithmetic is modulo 2^m (Stoica et al., ToN 2003, section IV).
pub trait RingId: Copy + Ord + Hash + fmt::Debug {
    /// m: the bits of an identifier.
    const BITS: u32;

    /// How far one walks clockwise from `self` to `to`; zero only from a point to itself.
    fn distance(self, to: Self) -> Self;

    /// The point 2^`i` further on: where finger `i`, counted from zero, starts. Expects `i` < m.
    fn plus_power(self, i: u32) -> Self;

    /// Position of the highest bit set, none for zero. The finger that a node at this distance
    /// can be is that of this power or of lower ones.
    fn log2(self) -> Option<u32>;

    /// Whether `self` lies in the half-open arc (`after`, `upto`], which is the whole circle when
    /// both ends are one point: who is alone owns everything.
    fn between(self, after: Self, upto: Self) -> bool {
        after == upto || (self != after && after.distance(self) <= after.distance(upto))
    }

    /// Whether `self` lies in the open arc (`after`, `before`), which is everything else when both
    /// ends are one point.
    fn strictly_between(self, after: Self, before: Self) -> bool {
        self != after
            && self != before
            && (after == before || after.distance(self) < after.distance(before))
    }
}

impl RingId for Id {
    const BITS: u32 = 160;

    fn distance(self, to: Self) -> Self {
        let (from_low, from_high) = halves(&self);
        let (to_low, to_high) = halves(&to);
        let (low, borrow) = to_low.overflowing_sub(from_low);
        join(
            low,
            to_high.wrapping_sub(from_high).wrapping_sub(borrow.into()),
        )
    }

    fn plus_power(self, i: u32) -> Self {
        let (mut low, mut high) = halves(&self);
        if i < 128 {
            let carry;
            (low, carry) = low.overflowing_add(1 << i);
            high = high.wrapping_add(carry.into());
        } else {
            high = high.wrapping_add(1u32.checked_shl(i - 128).unwrap_or(0));
        }
        join(low, high)
    }

    fn log2(self) -> Option<u32> {
        (Self::BITS - 1).checked_sub(self.leading_zeros())
    }
}

/// The low 128 and the high 32 bits.
fn halves(id: &Id) -> (u128, u32) {
    let (mut high, mut low) = ([0; 4], [0; 16]);
    high.copy_from_slice(&id.0[..4]);
    low.copy_from_slice(&id.0[4..]);
    (u128::from_be_bytes(low), u32::from_be_bytes(high))
}

fn join(low: u128, high: u32) -> Id {
    let mut id = Id::default();
    id.0[..4].copy_from_slice(&high.to_be_bytes());
    id.0[4..].copy_from_slice(&low.to_be_bytes());
    id
}

/// A point on a circle of 2^`M` points, `M` from 1 to 64: for teaching, simulation and model
/// checking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Point<const M: u32>(u64);

impl<const M: u32> Point<M> {
    const MASK: u64 = {
        assert!(M >= 1 && M <= 64);
        u64::MAX >> (64 - M)
    };

    /// The point that `number` names, modulo 2^`M`.
    pub const fn new(number: u64) -> Self {
        Self(number & Self::MASK)
    }

    /// Its number, below 2^`M`.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl<const M: u32> RingId for Point<M> {
    const BITS: u32 = M;

    fn distance(self, to: Self) -> Self {
        Self::new(to.0.wrapping_sub(self.0))
    }

    fn plus_power(self, i: u32) -> Self {
        Self::new(self.0.wrapping_add(1u64.checked_shl(i).unwrap_or(0)))
    }

    fn log2(self) -> Option<u32> {
        self.0.checked_ilog2()
    }
}

impl<const M: u32> fmt::Debug for Point<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Small = Point<4>;

    #[test]
    fn arcs_wrap_around_zero() {
        let p = Small::new;
        assert!(p(1).between(p(14), p(3)) && p(3).between(p(14), p(3)));
        assert!(!p(14).between(p(14), p(3)) && !p(4).between(p(14), p(3)));
        assert!(!p(3).strictly_between(p(14), p(3)) && p(15).strictly_between(p(14), p(3)));
        assert_eq!(p(14).distance(p(3)), p(5));
        assert_eq!(p(14).plus_power(2), p(2));
    }

    #[test]
    fn an_arc_from_a_point_to_itself_is_the_whole_circle() {
        for x in 0..16 {
            assert!(Small::new(x).between(Small::new(7), Small::new(7)));
            let strictly = Small::new(x).strictly_between(Small::new(7), Small::new(7));
            assert_eq!(strictly, x != 7);
        }
    }

    #[test]
    fn arcs_are_what_counting_round_the_circle_gives() {
        for (a, b, x) in (0..4096u64).map(|n| (n >> 8, n >> 4 & 15, n & 15)) {
            let mut walked = Vec::new();
            let mut at = a;
            loop {
                at = (at + 1) % 16;
                walked.push(at);
                if at == b {
                    break;
                }
            }
            let (a, b, p) = (Small::new(a), Small::new(b), Small::new(x));
            assert_eq!(
                p.between(a, b),
                walked.contains(&x),
                "{p:?} in ({a:?}, {b:?}]"
            );
            assert_eq!(
                p.strictly_between(a, b),
                walked.contains(&x) && p != b && p != a
            );
        }
    }

    fn widen(x: u64) -> Id {
        let mut id = Id::default();
        id.0[12..].copy_from_slice(&x.to_be_bytes());
        id
    }

    proptest! {
        /// 160-bit arithmetic does what the machine's does wherever that reaches.
        #[test]
        fn long_identifiers_count_as_short_ones(a: u64, b: u64, i in 0u32..64) {
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(widen(a).distance(widen(b)), widen(b - a));
            prop_assert_eq!(widen(a).log2(), a.checked_ilog2());
            let sum = u128::from(a) + (1 << i);
            let (mut wide, low) = (Id::default(), sum.to_be_bytes());
            wide.0[4..].copy_from_slice(&low);
            prop_assert_eq!(widen(a).plus_power(i), wide);
        }

        #[test]
        fn there_and_back_is_once_round(a: [u8; 20], b: [u8; 20], i in 0u32..160) {
            let (a, b) = (Id(a), Id(b));
            let there = a.distance(b);
            let back = b.distance(a);
            // There + back = 0 modulo 2^160.
            prop_assert_eq!(Id::default().distance(there), back.distance(Id::default()));
            prop_assert_eq!(a.distance(a.plus_power(i)).log2(), Some(i));
            prop_assert_eq!(a.between(b, b), true);
        }
    }
}
