//! A node's address and id, as answers list them, and which addresses are fit to be contacted.

use crate::Id;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A node of the DHT as others tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Its identifier.
    pub id: Id,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Bytes of a compact IPv4 node: id, address, port (BEP 5).
pub const NODE4: usize = 26;
/// Bytes of a compact IPv6 node (BEP 32).
pub const NODE6: usize = 38;

/// Appends address and port, 6 or 18 bytes (BEP 5, BEP 32).
pub fn write_addr(addr: &SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Reads 6 or 18 bytes.
pub fn read_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip: IpAddr = match ip.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Reads a string of compact nodes; what is left over at its end is ignored.
pub fn read_nodes(bytes: &[u8], v6: bool, out: &mut Vec<Node>) {
    for chunk in bytes.chunks_exact(if v6 { NODE6 } else { NODE4 }) {
        let Some((id, addr)) = chunk.split_first_chunk::<20>() else {
            continue;
        };
        if let Some(addr) = read_addr(addr) {
            out.push(Node { id: Id(*id), addr });
        }
    }
}

/// The IPv4 address that an IPv4-mapped IPv6 one stands for; others as they are.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Nowhere,
    Loopback,
    Private,
    Global,
}

fn scope(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => {
            if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.octets()[0] == 0
            {
                Scope::Nowhere
            } else if ip.is_loopback() {
                Scope::Loopback
            } else if is_private(ip.into()) {
                Scope::Private
            } else {
                Scope::Global
            }
        }
        IpAddr::V6(ip) => {
            if ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some() {
                Scope::Nowhere
            } else if ip.is_loopback() {
                Scope::Loopback
            } else if is_private(ip.into()) {
                Scope::Private
            } else {
                Scope::Global
            }
        }
    }
}

/// Loopback, private and link-local addresses, which BEP 42 exempts.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            ip.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

/// Whether `told`, an address that `teller` told us, may be contacted: a stranger on the Internet
/// cannot make us send to our own machine or our own network.
pub fn may_contact(told: &SocketAddr, teller: &SocketAddr) -> bool {
    let reach = scope(told.ip());
    told.port() != 0 && reach != Scope::Nowhere && reach >= scope(teller.ip())
}

/// Whether anything can be sent to `addr` at all.
pub fn is_usable(addr: &SocketAddr) -> bool {
    addr.port() != 0 && scope(addr.ip()) != Scope::Nowhere
}

/// The network an address belongs to, as far as one owner is likely to hold all of it: /24 of
/// IPv4, /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet(u64);

impl Subnet {
    /// The network of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => Self(1 << 63 | (u128::from(ip) >> 80) as u64),
        }
    }
}

/// Who sends, as far as limits are concerned: an IPv4 address or an IPv6 /64, of which one
/// machine commonly has every address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An IPv4 address.
    V4(u32),
    /// The upper half of an IPv6 address.
    V6(u64),
}

impl Source {
    /// The source that `ip` belongs to.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.into()),
            IpAddr::V6(ip) => Self::V6((u128::from(ip) >> 64) as u64),
        }
    }
}

/// Ranges of addresses to which limits per address and subnet do not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempt(pub Vec<(IpAddr, u8)>);

impl Default for Exempt {
    /// Loopback.
    fn default() -> Self {
        Self(vec![
            (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            (Ipv6Addr::LOCALHOST.into(), 128),
        ])
    }
}

impl Exempt {
    /// Whether `ip` lies in one of the ranges.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|(range, bits)| match (range, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32u32.saturating_sub((*bits).into());
                u32::from(*a).checked_shr(shift) == u32::from(b).checked_shr(shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128u32.saturating_sub((*bits).into());
                u128::from(*a).checked_shr(shift) == u128::from(b).checked_shr(shift)
            }
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_were_written() {
        for addr in ["1.2.3.4:5", "[2001:db8::1]:65535"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let mut bytes = Vec::new();
            write_addr(&addr, &mut bytes);
            assert_eq!(read_addr(&bytes), Some(addr));
            assert_eq!(read_addr(&bytes[1..]), None);
        }
        assert_eq!(read_addr(&[]), None);
    }

    #[test]
    fn a_stranger_cannot_point_us_at_our_own_network() {
        let may = |told: &str, teller: &str| {
            may_contact(&told.parse().unwrap(), &teller.parse().unwrap())
        };
        assert!(may("8.8.8.8:1", "9.9.9.9:1"));
        assert!(!may("127.0.0.1:1", "9.9.9.9:1"));
        assert!(!may("10.0.0.1:1", "9.9.9.9:1"));
        assert!(!may("[fe80::1]:1", "[2001:db8::1]:1"));
        assert!(!may("127.0.0.1:1", "10.0.0.2:1"));
        assert!(may("10.0.0.1:1", "10.0.0.2:1"));
        assert!(may("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!may("8.8.8.8:0", "9.9.9.9:1"));
        assert!(!may("224.0.0.1:7", "127.0.0.1:1"));
        assert!(!may("0.0.0.0:7", "127.0.0.1:1"));
    }

    #[test]
    fn ranges_contain_what_they_say() {
        let exempt = Exempt::default();
        assert!(exempt.contains("127.9.9.9".parse().unwrap()));
        assert!(!exempt.contains("128.0.0.1".parse().unwrap()));
        assert!(exempt.contains("::1".parse().unwrap()));
        assert!(!exempt.contains("::2".parse().unwrap()));
        let all = Exempt(vec![("0.0.0.0".parse().unwrap(), 0)]);
        assert!(all.contains("8.8.8.8".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
    }
}
