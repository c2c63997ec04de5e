//! SipHash, a keyed hash of short messages (Aumasson and Bernstein, 2012).
//!
//! With a secret key nobody outside can make entries of a table collide, nor make up a connection
//! id. SipHash-1-3 for tables, SipHash-2-4 where a value is shown to strangers.

use shoal_base::Rng;
use std::hash::{BuildHasher, Hasher};

/// A secret key of 128 bits.
#[derive(Clone, Copy)]
pub struct SipKey(u64, u64);

impl SipKey {
    /// A fresh key.
    pub fn generate(rng: &mut Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }

    /// SipHash-1-3 of `message`.
    pub fn hash(&self, message: &[u8]) -> u64 {
        self.digest::<1, 3>(message)
    }

    /// SipHash-2-4 of `message`.
    pub fn tag(&self, message: &[u8]) -> u64 {
        self.digest::<2, 4>(message)
    }

    fn digest<const C: usize, const D: usize>(&self, message: &[u8]) -> u64 {
        let mut v = [
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573,
        ];
        let (words, tail) = message.as_chunks::<8>();
        for word in words {
            absorb::<C>(&mut v, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        last[7] = message.len() as u8;
        absorb::<C>(&mut v, u64::from_le_bytes(last));
        v[2] ^= 0xff;
        for _ in 0..D {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

impl std::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SipKey(..)")
    }
}

fn absorb<const C: usize>(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    for _ in 0..C {
        round(v);
    }
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// Hashes map keys that write themselves in one piece; see [`SipHasher::write`].
#[derive(Debug)]
pub struct SipHasher {
    key: SipKey,
    state: u64,
}

impl Hasher for SipHasher {
    /// Takes the whole key; a second piece is mixed into the first one's hash.
    fn write(&mut self, bytes: &[u8]) {
        self.state = self.state.rotate_left(5) ^ self.key.hash(bytes);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

impl BuildHasher for SipKey {
    type Hasher = SipHasher;

    fn build_hasher(&self) -> SipHasher {
        SipHasher {
            key: *self,
            state: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the published test vectors: bytes 0, 1, … 15.
    const KEY: SipKey = SipKey(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);

    #[test]
    fn matches_the_published_vectors() {
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(KEY.tag(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(KEY.tag(&[0]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(KEY.tag(&message), 0xa129_ca61_49be_45e5);
        assert_eq!(KEY.hash(&[]), 0xabac_0158_050f_c4dc);
        assert_eq!(KEY.hash(&[0]), 0xc9f4_9bf3_7d57_ca93);
    }
}
