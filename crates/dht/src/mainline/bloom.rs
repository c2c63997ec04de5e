//! The filters by which a swarm's size is estimated without counting anybody twice (BEP 33).

use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// Bytes of a filter.
pub const LEN: usize = 256;
const BITS: usize = LEN * 8;

/// 2048 bits, two of them set for each address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bloom(pub Box<[u8; LEN]>);

impl Default for Bloom {
    fn default() -> Self {
        Self(Box::new([0; LEN]))
    }
}

impl Bloom {
    /// Reads a filter's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Box::new(bytes.try_into().ok()?)))
    }

    /// Adds an address.
    pub fn insert(&mut self, ip: IpAddr) {
        let hash: [u8; 20] = match ip {
            IpAddr::V4(ip) => Sha1::digest(ip.octets()).into(),
            IpAddr::V6(ip) => Sha1::digest(ip.octets()).into(),
        };
        for pair in [[hash[0], hash[1]], [hash[2], hash[3]]] {
            let bit = usize::from(u16::from_le_bytes(pair)) % BITS;
            if let Some(byte) = self.0.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    /// Takes in everything `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&*other.0).for_each(|(a, b)| *a |= b);
    }

    /// How many addresses it most likely holds; about 6,000 at most.
    pub fn estimate(&self) -> f64 {
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let bits = BITS as f64;
        let zeros = f64::from(zeros).min(bits - 1.0);
        if zeros == 0.0 {
            return 6000.0;
        }
        ((zeros / bits).ln() / (2.0 * (1.0 - 1.0 / bits).ln())).min(6000.0)
    }

    /// The estimate as a count: none only if nobody was added.
    pub fn count(&self) -> u32 {
        if self.0.iter().all(|byte| *byte == 0) {
            0
        } else {
            self.estimate().round().max(1.0) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// BEP 33: 192.0.2.0 to 192.0.2.255 and 2001:DB8:: to 2001:DB8::3E7 give 1224.9308.
    #[test]
    fn the_published_estimate_holds() {
        let mut bloom = Bloom::default();
        for i in 0..=255 {
            bloom.insert(Ipv4Addr::new(192, 0, 2, i).into());
        }
        for i in 0..=0x3e7 {
            bloom.insert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, i).into());
        }
        assert!((bloom.estimate() - 1224.9308).abs() < 1e-4);
        assert_eq!(&bloom.0[..4], &[0xf6, 0xc3, 0xf5, 0xea]);
    }

    #[test]
    fn few_are_counted_well_and_a_union_counts_none_twice() {
        let mut a = Bloom::default();
        assert_eq!(a.count(), 0);
        a.insert([1, 2, 3, 4].into());
        assert_eq!(a.count(), 1);
        let mut b = a.clone();
        b.insert([5, 6, 7, 8].into());
        a.merge(&b);
        assert_eq!((a.count(), b.count()), (2, 2));
        assert_eq!(Bloom(Box::new([255; LEN])).count(), 6000);
    }
}
