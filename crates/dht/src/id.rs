//! 160-bit identifiers, read as a point on Chord's circle or in Kademlia's XOR space.

use sha1::{Digest, Sha1};
use shoal_base::Rng;
use shoal_base::id::{ParseIdError, from_hex, to_hex};
use std::fmt;
use std::str::FromStr;

/// A node or key: 160 bits, the most significant first. Orders as an unsigned number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 20]);

impl Id {
    /// Bits of an identifier.
    pub const BITS: u32 = 160;

    /// SHA-1 of `bytes`.
    pub fn hash(bytes: &[u8]) -> Self {
        Self(Sha1::digest(bytes).into())
    }

    /// A uniform identifier.
    pub fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; 20];
        rng.fill(&mut bytes);
        Self(bytes)
    }

    /// Reads exactly 20 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The identifier's bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Kademlia's distance to `other`, itself ordered as a number (Maymounkov and Mazières, 2.1).
    pub fn xor(&self, other: &Self) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(&other.0) {
            *a ^= b;
        }
        Self(out)
    }

    /// How many leading bits are zero: 160 for zero.
    pub fn leading_zeros(&self) -> u32 {
        let mut zeros = 0;
        for byte in self.0 {
            zeros += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        zeros
    }

    /// How many leading bits it shares with `other`.
    pub fn common_prefix(&self, other: &Self) -> u32 {
        self.xor(other).leading_zeros()
    }

    /// Bit `i`, counted from the most significant; false beyond the last.
    pub fn bit(&self, i: u32) -> bool {
        self.0
            .get((i / 8) as usize)
            .is_some_and(|byte| byte >> (7 - i % 8) & 1 == 1)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        from_hex(s).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xor_is_a_metric_on_three_points() {
        let mut rng = Rng::from_seed(1);
        for _ in 0..1000 {
            let (a, b, c) = (
                Id::random(&mut rng),
                Id::random(&mut rng),
                Id::random(&mut rng),
            );
            assert_eq!(a.xor(&a), Id::default());
            assert_eq!(a.xor(&b), b.xor(&a));
            // d(a,c) = d(a,b) ^ d(b,c), so it shares at least the shorter of their zero prefixes.
            assert!(
                a.xor(&c).leading_zeros()
                    >= a.xor(&b).leading_zeros().min(b.xor(&c).leading_zeros())
            );
        }
    }

    #[test]
    fn bits_and_prefixes_count_from_the_front() {
        let mut a = Id::default();
        a.0[1] = 0x20;
        assert_eq!(a.leading_zeros(), 10);
        assert!(a.bit(10) && !a.bit(9) && !a.bit(160));
        assert_eq!(Id::default().leading_zeros(), 160);
        assert_eq!(a.to_string().parse::<Id>().unwrap(), a);
    }
}
