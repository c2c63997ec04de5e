//! Limits per address, in constant memory: counting sketches instead of a table of addresses.
//!
//! Each address is counted in one cell of each of two rows, chosen by a keyed hash; the smaller
//! of its cells is an upper bound of its true count. So an address is never let off, and one is
//! wronged only if it shares both cells with busier ones, which with a few thousand heavy
//! addresses in 2^17 cells a row is rare. IPv6 is counted by /64, what one customer has.

use super::siphash::SipKey;
use shoal_base::{Rng, Time};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

const ROW_BITS: u32 = 17;
const ROW: usize = 1 << ROW_BITS;
/// Seconds over which requests are counted.
const WINDOW_SECS: u64 = 10;

/// Whether `ip` belongs to this machine or its local network.
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// The cells of `ip` in the two rows.
fn cells(key: &SipKey, ip: IpAddr) -> (usize, usize) {
    let hash = match ip {
        IpAddr::V4(ip) => key.hash(&ip.octets()),
        IpAddr::V6(ip) => key.hash(&(ip.to_bits() >> 64).to_be_bytes()),
    };
    let mask = ROW - 1;
    (
        hash as usize & mask,
        ROW + ((hash >> ROW_BITS) as usize & mask),
    )
}

/// How many peers each address has in all swarms together.
#[derive(Debug)]
pub struct AddressCounts {
    key: SipKey,
    limit: u16,
    cells: Box<[AtomicU16]>,
}

impl AddressCounts {
    /// At most `limit` peers for an address.
    pub fn new(limit: u16, rng: &mut Rng) -> Self {
        Self {
            key: SipKey::generate(rng),
            limit,
            cells: (0..2 * ROW).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    fn of(&self, ip: IpAddr) -> [&AtomicU16; 2] {
        let (a, b) = cells(&self.key, ip);
        [&self.cells[a], &self.cells[b]]
    }

    /// Counts one more peer at `ip`, unless there are too many.
    pub fn add(&self, ip: IpAddr) -> bool {
        let cells = self.of(ip);
        if cells.iter().all(|c| c.load(Relaxed) >= self.limit) {
            return false;
        }
        for cell in cells {
            // A full cell stays full: it has lost count, and its row bounds nothing any more.
            let _ = cell.try_update(Relaxed, Relaxed, |n| n.checked_add(1));
        }
        true
    }

    /// Counts one peer less at `ip`.
    pub fn remove(&self, ip: IpAddr) {
        for cell in self.of(ip) {
            let _ = cell.try_update(Relaxed, Relaxed, |n| match n {
                0 | u16::MAX => None,
                n => Some(n - 1),
            });
        }
    }
}

/// How many requests each address made in the current window of ten seconds.
#[derive(Debug)]
pub struct RequestRates {
    key: SipKey,
    limit: u32,
    /// The window's number in the high half, the count in the low.
    cells: Box<[AtomicU32]>,
}

impl RequestRates {
    /// At most `per_second` requests for an address, on average over ten seconds.
    pub fn new(per_second: u32, rng: &mut Rng) -> Self {
        let limit = per_second.saturating_mul(WINDOW_SECS as u32);
        Self {
            key: SipKey::generate(rng),
            limit: limit.clamp(1, u32::from(u16::MAX)),
            cells: (0..2 * ROW).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Counts a request of `ip`; false if it is one too many.
    pub fn allow(&self, now: Time, ip: IpAddr) -> bool {
        let window = (now.as_micros() / (WINDOW_SECS * 1_000_000)) as u32 & 0xffff;
        let (a, b) = cells(&self.key, ip);
        let count = |cell: &AtomicU32| {
            // Two threads may lose a count between them; a limit need not be exact.
            let old = cell.load(Relaxed);
            let seen = if old >> 16 == window { old & 0xffff } else { 0 };
            cell.store(window << 16 | (seen + 1).min(0xffff), Relaxed);
            seen
        };
        let seen = count(&self.cells[a]).min(count(&self.cells[b]));
        seen < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn an_address_gets_its_share_of_peers_and_gets_it_back() {
        let counts = AddressCounts::new(3, &mut Rng::from_seed(1));
        for _ in 0..3 {
            assert!(counts.add(v4(7)));
        }
        assert!(!counts.add(v4(7)));
        assert!(counts.add(v4(8)));
        counts.remove(v4(7));
        assert!(counts.add(v4(7)));
        assert!(!counts.add(v4(7)));
        counts.remove(v4(99));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let counts = AddressCounts::new(1, &mut Rng::from_seed(1));
        let ip = |host: u128| Ipv6Addr::from_bits(0x2001_0db8 << 96 | host).into();
        assert!(counts.add(ip(1)));
        assert!(!counts.add(ip(2)));
    }

    #[test]
    fn few_addresses_are_wronged_by_a_crowd() {
        let counts = AddressCounts::new(10, &mut Rng::from_seed(1));
        let refused = (0..1_000_000).filter(|n| !counts.add(v4(*n))).count();
        // A million addresses with one peer each in 2^17 cells: 7.6 a cell.
        assert!(refused < 200_000, "{refused}");
        let counts = AddressCounts::new(100, &mut Rng::from_seed(1));
        assert!((0..1_000_000).all(|n| counts.add(v4(n))));
    }

    #[test]
    fn requests_are_limited_by_window() {
        let rates = RequestRates::new(2, &mut Rng::from_seed(1));
        let allowed = |at| {
            let now = Time::from_secs(at);
            (0..50).filter(|_| rates.allow(now, v4(5))).count()
        };
        assert_eq!((allowed(0), allowed(9), allowed(10)), (20, 0, 20));
        assert!(rates.allow(Time::ZERO, v4(6)));
    }

    #[test]
    fn local_addresses_are_known() {
        for (ip, local) in [
            ("127.0.0.9", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("fd00::1", true),
            ("2001:db8::1", false),
        ] {
            let ip = ip.parse().expect("an address");
            assert_eq!(is_local(ip), local, "{ip}");
        }
    }
}
