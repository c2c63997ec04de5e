//! The running hash of all that happened: equal digests mean equal runs.

use std::fmt;

/// Folds two words into one by a 64 × 64 bit product.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    (product as u64) ^ ((product >> 64) as u64) ^ a.rotate_left(32)
}

/// A running 64-bit hash. Not cryptographic: it tells two runs apart, not two adversaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u64);

impl Digest {
    /// Takes in two words, in this order.
    pub fn add(&mut self, a: u64, b: u64) {
        self.0 = mix(self.0.wrapping_add(a), b);
    }

    /// Takes in bytes and their number.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word), chunk.len() as u64);
        }
        self.add(bytes.len() as u64, 0);
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_matter() {
        let of = |words: &[(u64, u64)]| {
            let mut digest = Digest::default();
            words.iter().for_each(|(a, b)| digest.add(*a, *b));
            digest.value()
        };
        assert_ne!(of(&[(1, 2), (3, 4)]), of(&[(3, 4), (1, 2)]));
        assert_ne!(of(&[(1, 2)]), of(&[(2, 1)]));
        assert_ne!(of(&[]), of(&[(0, 0)]));
        assert_eq!(of(&[(7, 7), (0, 0)]), of(&[(7, 7), (0, 0)]));
    }

    #[test]
    fn zeros_at_the_end_of_bytes_count() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.add_bytes(bytes);
            digest.value()
        };
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(&[0; 8]), of(&[0; 16]));
    }
}
