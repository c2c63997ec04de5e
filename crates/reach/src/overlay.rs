//! Overlay addresses: IPv6 addresses made of nodes' keys, so that every protocol that names peers by
//! address can name a node behind any NAT; and what goes before the bytes that are sent to one.
//!
//! ```text
//! address  = 0xfc | first 120 bits of the node's Ed25519 key
//! greeting = "shoalov1" | port (u16), first on a stream; answered by one byte: 1 taken, 0 refused
//! datagram = source port (u16) | destination port (u16) | number (u8) | part (u8) | data
//! ```
//!
//! Numbers are big-endian. Part 0 is a whole datagram; one that may not fit a packet goes as two halves, 1
//! and 2, of the same number. `fc00::/8` is the half of the unique local addresses (RFC 4193 §3.2) that
//! nobody assigns from; local networks have theirs from `fd00::/8`. Whoever shows another key with the
//! same 120 bits has tried some 2^120. The key itself is found by asking for whoever has such a key
//! ([`question`]), and believed because the answer is signed with it.

use crate::identity::NodeId;
use shoal_base::address::OVERLAY;
pub use shoal_base::address::is_overlay;
use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a key that are in its address.
const OF_KEY: usize = 15;
const MAGIC: &[u8; 8] = b"shoalov1";
/// Bytes of a greeting.
pub const GREETING: usize = MAGIC.len() + 2;
/// Bytes before a datagram's data.
pub const DATAGRAM: usize = 6;
/// Bytes of a datagram's data at most; QUIC's packets have 1200 bytes until more is known to pass.
pub const MAX_DATAGRAM: usize = 2 * MAX_PART;
const MAX_PART: usize = 1100;
/// Halves that wait for their others, at most.
const MAX_HALVES: usize = 8;
/// The text of a letter that answers a question.
pub const HERE: &[u8] = b"shoal overlay: here";

/// The address of a node.
pub fn address(node: &NodeId) -> Ipv6Addr {
    let mut octets = [OVERLAY; 16];
    let key = node.0.iter().take(OF_KEY);
    octets
        .iter_mut()
        .skip(1)
        .zip(key)
        .for_each(|(o, k)| *o = *k);
    Ipv6Addr::from(octets)
}

/// The overlay address and port that this is, if it is one.
pub fn overlay(addr: SocketAddr) -> Option<SocketAddrV6> {
    match addr {
        SocketAddr::V6(addr) if is_overlay(addr.ip().to_owned().into()) => Some(addr),
        _ => None,
    }
}

/// To whom a letter is written that asks who has an address: what is known of the key, and zeros.
/// No such name is anybody's.
pub fn question(ip: Ipv6Addr) -> [u8; 32] {
    let mut name = [0; 32];
    let octets = ip.octets();
    name.iter_mut()
        .zip(octets.iter().skip(1))
        .for_each(|(n, o)| *n = *o);
    name
}

/// Whether what is written to this name is for the owner of a key: it is the key, or a question for it.
pub fn is_for(name: &[u8; 32], key: &[u8; 32]) -> bool {
    let (known, rest) = name.split_at(OF_KEY);
    name == key || (key.starts_with(known) && rest.iter().all(|b| *b == 0))
}

/// What a stream to this port begins with.
pub fn greeting(port: u16) -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    let all = MAGIC.iter().copied().chain(port.to_be_bytes());
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    bytes
}

/// Which port a stream wants that begins so; none: it is no stream of ours.
pub fn read_greeting(bytes: &[u8; GREETING]) -> Option<u16> {
    let port = bytes.strip_prefix(MAGIC.as_slice())?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

fn part(from: u16, to: u16, number: u8, part: u8, data: &[u8]) -> Vec<u8> {
    let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
    [&from[..], &to, &[number, part], data].concat()
}

/// A datagram between two ports, as one or two of QUIC's; none if it is too long. Consecutive ones have
/// different numbers.
pub fn datagram(from: u16, to: u16, number: u8, data: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    if data.len() > MAX_DATAGRAM {
        return None;
    }
    if data.len() <= MAX_PART {
        return Some((part(from, to, number, 0, data), None));
    }
    let (first, second) = data.split_at(data.len() / 2);
    let second = part(from, to, number, 2, second);
    Some((part(from, to, number, 1, first), Some(second)))
}

/// A datagram that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// From which port.
    pub from: u16,
    /// To which port.
    pub to: u16,
    /// What it holds.
    pub data: Vec<u8>,
}

/// Puts the datagrams of one node together.
#[derive(Debug, Default)]
pub struct Halves(VecDeque<(u8, u8, Datagram)>);

impl Halves {
    /// One of QUIC's datagrams came: what is whole with it. What makes no sense is nothing.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Datagram> {
        let (head, data) = bytes.split_first_chunk::<DATAGRAM>()?;
        let [from, from_low, to, to_low, number, part] = *head;
        if data.len() > MAX_PART {
            return None;
        }
        let came = Datagram {
            from: u16::from_be_bytes([from, from_low]),
            to: u16::from_be_bytes([to, to_low]),
            data: data.to_vec(),
        };
        if part == 0 {
            return Some(came);
        }
        let other = match part {
            1 => 2,
            2 => 1,
            _ => return None,
        };
        let fits = |(n, p, d): &(u8, u8, Datagram)| {
            (*n, *p, d.from, d.to) == (number, other, came.from, came.to)
        };
        let Some((_, _, waited)) = self
            .0
            .iter()
            .position(fits)
            .and_then(|at| self.0.remove(at))
        else {
            if self.0.len() == MAX_HALVES {
                self.0.pop_front();
            }
            self.0.push_back((number, part, came));
            return None;
        };
        let (mut first, second) = match part {
            1 => (came, waited),
            _ => (waited, came),
        };
        first.data.extend(second.data);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_made_of_a_key_and_a_question_is_for_its_owner() {
        let [one, two] = [[1; 32], [2; 32]].map(|secret| Identity::from_secret(&secret).id());
        let ip = address(&one);
        assert!(is_overlay(ip.into()));
        assert_eq!(ip.octets()[1..], one.0[..15]);
        assert!(is_for(&question(ip), &one.0) && is_for(&one.0, &one.0));
        assert!(!is_for(&question(ip), &two.0) && !is_for(&two.0, &one.0));
    }

    #[test]
    fn machines_have_other_addresses() {
        for ip in [
            "fd12::1",
            "fe80::1",
            "2001:db8::1",
            "::ffff:252.0.0.1",
            "252.1.2.3",
        ] {
            let ip = ip.parse().expect("an address");
            assert!(!is_overlay(ip), "{ip}");
            assert_eq!(overlay(SocketAddr::new(ip, 1)), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from: u16, to: u16, number: u8, turned: bool, data in prop::collection::vec(any::<u8>(), 0..MAX_DATAGRAM + 2)) {
            prop_assert_eq!(read_greeting(&greeting(to)), Some(to));
            let len = data.len();
            let Some((one, two)) = datagram(from, to, number, &data) else {
                prop_assert!(len > MAX_DATAGRAM);
                return Ok(());
            };
            let mut halves = Halves::default();
            let all = Datagram { from, to, data };
            let mut parts: Vec<_> = std::iter::once(one).chain(two).collect();
            if turned {
                parts.reverse();
            }
            for (n, part) in parts.iter().enumerate() {
                prop_assert!(part.len() <= DATAGRAM + MAX_PART);
                let whole = halves.take(part);
                prop_assert_eq!(whole.as_ref(), (n + 1 == parts.len()).then_some(&all));
            }
            prop_assert_eq!(halves.0.len(), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(all: Vec<Vec<u8>>, start: [u8; GREETING]) {
            let mut halves = Halves::default();
            for bytes in &all {
                let _ = halves.take(bytes);
                prop_assert!(halves.0.len() <= MAX_HALVES);
            }
            if let Some(port) = read_greeting(&start) {
                prop_assert_eq!(greeting(port), start);
            }
        }

        #[test]
        fn no_other_name_is_a_question(name: [u8; 32], key: [u8; 32]) {
            let zeros = name[OF_KEY..].iter().all(|b| *b == 0);
            prop_assert!(!is_for(&name, &key) || name == key || zeros);
        }
    }
}
