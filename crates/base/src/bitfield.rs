//! A fixed-length set of bits, in the order BitTorrent sends them (high bit first, BEP 3).

use std::fmt;

/// A set over `0..len`, one bit each; also the payload of a BITFIELD message.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// The empty set over `0..len`.
    pub fn new(len: u32) -> Self {
        Self {
            bytes: vec![0; len.div_ceil(8) as usize],
            len,
            ones: 0,
        }
    }

    /// The full set over `0..len`.
    pub fn full(len: u32) -> Self {
        let mut bytes = vec![0xff; len.div_ceil(8) as usize];
        if let (Some(last), 1..) = (bytes.last_mut(), len % 8) {
            *last = 0xffu8 << (8 - len % 8);
        }
        Self {
            bytes,
            len,
            ones: len,
        }
    }

    /// Reads a BITFIELD payload for `len` pieces; none if its size is wrong or a spare bit is set
    /// (BEP 3: "spare bits at the end are set to zero").
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        if let (Some(last), 1..) = (bytes.last(), len % 8)
            && last << (len % 8) != 0
        {
            return None;
        }
        let ones = bytes.iter().map(|b| b.count_ones()).sum();
        Some(Self {
            bytes: bytes.to_vec(),
            len,
            ones,
        })
    }

    /// The bits as sent on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits there are, set or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bits at all (a zero-length field).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bits are set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every bit is set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether bit `i` is set; false past the end.
    pub fn get(&self, i: u32) -> bool {
        i < self.len && self.bytes[(i / 8) as usize] & (0x80 >> (i % 8)) != 0
    }

    /// Sets bit `i`; true if it was clear before. Past the end nothing happens.
    pub fn set(&mut self, i: u32) -> bool {
        if i >= self.len || self.get(i) {
            return false;
        }
        self.bytes[(i / 8) as usize] |= 0x80 >> (i % 8);
        self.ones += 1;
        true
    }

    /// Clears bit `i`; true if it was set before.
    pub fn clear(&mut self, i: u32) -> bool {
        if !self.get(i) {
            return false;
        }
        self.bytes[(i / 8) as usize] &= !(0x80 >> (i % 8));
        self.ones -= 1;
        true
    }

    /// The set bits in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .iter()
            .zip(0u32..)
            .filter(|(b, _)| **b != 0)
            .flat_map(|(b, i)| {
                (0..8)
                    .filter(move |bit| b & (0x80 >> bit) != 0)
                    .map(move |bit| i * 8 + bit)
            })
    }

    /// Whether some bit is set here and clear in `other`.
    pub fn has_any_not_in(&self, other: &Self) -> bool {
        self.bytes
            .iter()
            .zip(&other.bytes)
            .any(|(a, b)| a & !b != 0)
            || self.bytes.iter().skip(other.bytes.len()).any(|b| *b != 0)
    }
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 0u32..200, ops in prop::collection::vec((any::<bool>(), 0u32..220), 0..100)) {
            let mut bits = Bitfield::new(len);
            let mut model = BTreeSet::new();
            for (set, i) in ops {
                if set {
                    prop_assert_eq!(bits.set(i), i < len && model.insert(i));
                } else {
                    prop_assert_eq!(bits.clear(i), model.remove(&i));
                }
            }
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bits.count() as usize, model.len());
            prop_assert_eq!(Bitfield::from_bytes(bits.as_bytes(), len), Some(bits));
        }

        #[test]
        fn full_is_every_bit(len in 0u32..200) {
            let full = Bitfield::full(len);
            prop_assert_eq!(full.iter().count() as u32, len);
            prop_assert_eq!(Bitfield::from_bytes(full.as_bytes(), len), Some(full));
        }
    }

    #[test]
    fn spare_bits_and_wrong_sizes_are_refused() {
        assert_eq!(
            Bitfield::from_bytes(&[0b1110_0000], 3).map(|b| b.count()),
            Some(3)
        );
        assert_eq!(Bitfield::from_bytes(&[0b1111_0000], 3), None);
        assert_eq!(Bitfield::from_bytes(&[0, 0], 3), None);
        assert_eq!(Bitfield::from_bytes(&[], 3), None);
    }

    #[test]
    fn has_any_not_in_sees_what_is_new() {
        let mut a = Bitfield::new(20);
        let mut b = Bitfield::new(20);
        a.set(3);
        assert!(a.has_any_not_in(&b));
        b.set(3);
        assert!(!a.has_any_not_in(&b));
    }
}
