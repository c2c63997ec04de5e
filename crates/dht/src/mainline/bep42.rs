//! Identifiers bound to addresses (BEP 42), and what others say our address is.

use super::node::{Source, is_private};
use crate::Id;
use shoal_base::Rng;
use std::collections::BTreeMap;
use std::net::IpAddr;

const MASK4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
const MASK6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];

/// The checksum whose first 21 bits an identifier on `ip` begins with; `r` is its last byte.
fn prefix(ip: IpAddr, r: u8) -> u32 {
    let masked = |octets: &[u8], mask: &[u8]| {
        let mut bytes: Vec<u8> = octets.iter().zip(mask).map(|(o, m)| o & m).collect();
        if let Some(first) = bytes.first_mut() {
            *first |= (r & 7) << 5;
        }
        crc32c::crc32c(&bytes)
    };
    match ip {
        IpAddr::V4(ip) => masked(&ip.octets(), &MASK4),
        IpAddr::V6(ip) => masked(&ip.octets(), &MASK6),
    }
}

/// A random identifier that is valid on `ip`.
pub fn id_for(ip: IpAddr, rng: &mut Rng) -> Id {
    let mut id = Id::random(rng);
    let sum = prefix(ip, id.0[19]).to_be_bytes();
    id.0[0] = sum[0];
    id.0[1] = sum[1];
    id.0[2] = sum[2] & 0xf8 | id.0[2] & 7;
    id
}

/// Whether `id` is bound to `ip`, or `ip` is of a range where nothing binds.
pub fn is_valid(id: &Id, ip: IpAddr) -> bool {
    if is_private(ip) {
        return true;
    }
    let sum = prefix(ip, id.0[19]).to_be_bytes();
    id.0[0] == sum[0] && id.0[1] == sum[1] && (id.0[2] ^ sum[2]) & 0xf8 == 0
}

/// How many voices are remembered; a new one displaces the oldest.
const VOICES: usize = 32;
/// How many must agree before we believe them.
const QUORUM: usize = 5;

/// What others say our address is (the `ip` of their answers): one voice for each of them.
#[derive(Debug, Default)]
pub struct Votes {
    voices: BTreeMap<Source, (IpAddr, u64)>,
    count: u64,
}

impl Votes {
    /// Takes the word of `from`. Returns the address that more than half of the remembered voices,
    /// and at least five of them, agree on.
    pub fn hear(&mut self, from: IpAddr, says: IpAddr) -> Option<IpAddr> {
        // Private addresses tell nothing of the world's view, and nothing binds on them.
        if is_private(from) || is_private(says) || from.is_ipv4() != says.is_ipv4() {
            return None;
        }
        self.count += 1;
        let source = Source::of(from);
        if self.voices.len() >= VOICES && !self.voices.contains_key(&source) {
            let oldest = self.voices.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.voices.remove(&oldest);
            }
        }
        self.voices.insert(source, (says, self.count));
        let agree = self.voices.values().filter(|(ip, _)| *ip == says).count();
        (agree >= QUORUM && agree * 2 > self.voices.len()).then_some(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BEP 42's example identifiers: address, last byte, first 21 bits.
    #[test]
    fn the_published_vectors_hold() {
        for (ip, id) in [
            ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
            ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
            ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
            ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
            ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
        ] {
            let (id, ip): (Id, IpAddr) = (id.parse().unwrap(), ip.parse().unwrap());
            assert!(is_valid(&id, ip), "{id} on {ip}");
            let mut other = id;
            other.0[2] ^= 8;
            assert!(!is_valid(&other, ip));
            other = id;
            other.0[2] ^= 7;
            assert!(is_valid(&other, ip), "only 21 bits are bound");
        }
    }

    #[test]
    fn made_identifiers_are_valid_where_they_were_made() {
        let mut rng = Rng::from_seed(4);
        for ip in ["9.8.7.6", "2001:db8:1:2:3:4:5:6"] {
            let ip: IpAddr = ip.parse().unwrap();
            let id = id_for(ip, &mut rng);
            assert!(is_valid(&id, ip));
            assert!(!is_valid(&id, "77.1.2.3".parse().unwrap()));
            assert!(is_valid(&id, "192.168.1.1".parse().unwrap()));
        }
    }

    #[test]
    fn an_address_is_believed_when_most_say_so() {
        let mut votes = Votes::default();
        let truth: IpAddr = "80.1.2.3".parse().unwrap();
        let lie: IpAddr = "80.9.9.9".parse().unwrap();
        let voice = |n: u8| IpAddr::from([20, n, 1, 1]);
        // One liar counts once, however often it speaks.
        for _ in 0..100 {
            assert_eq!(votes.hear(voice(1), lie), None);
        }
        for n in 2..6 {
            assert_eq!(votes.hear(voice(n), truth), None);
        }
        assert_eq!(votes.hear(voice(6), truth), Some(truth));
        assert_eq!(votes.hear(voice(7), "10.0.0.1".parse().unwrap()), None);
        // After a change of address the new one wins as old voices are displaced.
        let heard = (8..60).find_map(|n| votes.hear(voice(n), lie));
        assert_eq!(heard, Some(lie));
    }
}
