//! Overlay addresses between nodes of ours: IPv6 addresses made of nodes' keys, by which nodes behind NATs
//! are reached. Other servents know nothing of them and are told none: in handshakes both ends say first
//! that they can use them (`X-Shoal-Overlay`), in hits they stand in an extension of our own.

use std::net::{Ipv6Addr, SocketAddrV6};

use shoal_base::Cursor;
pub use shoal_base::address::is_overlay;

/// Overlay addresses that are read and told at once, at most.
pub const MAX_TOLD: usize = 10;
/// The extension of a hit that holds one.
pub(crate) const GGEP: &[u8] = b"SHOAL.OV";

/// Whether others may be told of it: an overlay address with a port.
pub(crate) fn is_place(addr: &SocketAddrV6) -> bool {
    is_overlay((*addr.ip()).into()) && addr.port() != 0
}

/// As an extension holds it: address and port, big-endian.
pub(crate) fn write(addr: &SocketAddrV6) -> Vec<u8> {
    let mut bytes = addr.ip().octets().to_vec();
    bytes.extend(addr.port().to_be_bytes());
    bytes
}

/// Reads what [`write`] wrote; none if it is no overlay address.
pub(crate) fn read(bytes: &[u8]) -> Option<SocketAddrV6> {
    let mut c = Cursor::new(bytes);
    let ip = Ipv6Addr::from(c.array::<16>().ok()?);
    let port = u16::from_be_bytes(c.array().ok()?);
    let addr = SocketAddrV6::new(ip, port, 0, 0);
    (c.is_empty() && is_place(&addr)).then_some(addr)
}

/// What a node that can use overlay addresses says in a handshake, and says so only to who can too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OnOverlay {
    /// Where it is on the overlay.
    pub addr: Option<SocketAddrV6>,
    /// Ultrapeers there to try.
    pub hosts: Vec<SocketAddrV6>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(ip: [u8; 15], port: u16, other: Vec<u8>) {
            let mut octets = [shoal_base::address::OVERLAY; 16];
            octets[1..].copy_from_slice(&ip);
            let addr = SocketAddrV6::new(octets.into(), port, 0, 0);
            prop_assert_eq!(read(&write(&addr)), (port != 0).then_some(addr));
            if let Some(addr) = read(&other) {
                prop_assert_eq!(write(&addr), other);
            }
        }
    }

    #[test]
    fn machines_addresses_are_none() {
        let machine = SocketAddrV6::new("fd00::1".parse().unwrap(), 1, 0, 0);
        assert_eq!(read(&write(&machine)), None);
        assert!(!is_overlay("252.1.1.1".parse().unwrap()));
    }
}
