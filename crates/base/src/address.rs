//! Which addresses strangers may make us connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first byte of every overlay address, which names a node by its key: `fc00::/8`, the half of
/// RFC 4193's addresses that nobody assigns from.
pub const OVERLAY: u8 = 0xfc;

/// Whether `ip` is an overlay address: only who is on the overlay can dial it, so that nobody else is told of it.
pub fn is_overlay(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.octets().first() == Some(&OVERLAY))
}

/// How far an address reaches: 0 this machine, 1 its network, 2 everywhere.
pub fn reach(ip: IpAddr) -> u8 {
    let v4 = |ip: Ipv4Addr| match ip {
        ip if ip.is_loopback() => 0,
        ip if ip.is_private() || ip.is_link_local() => 1,
        _ => 2,
    };
    match ip.to_canonical() {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) if ip == Ipv6Addr::LOCALHOST => 0,
        // Who is there may be anywhere.
        ip if is_overlay(ip) => 2,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => 1,
        IpAddr::V6(_) => 2,
    }
}

/// Whether `teller` may make us connect to `named`: a stranger on the net may not name machines of
/// our own network, and nobody an address that is no machine's. Overlay addresses are only named
/// among those who have them.
pub fn may_name(teller: IpAddr, named: SocketAddr) -> bool {
    let ip = named.ip().to_canonical();
    if is_overlay(ip) && !is_overlay(teller) {
        return false;
    }
    let nobody = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    named.port() != 0 && !nobody && !ip.is_unspecified() && reach(ip) >= reach(teller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_name_no_machine_of_our_network() {
        let addr = |n| SocketAddr::from(([198, 51, 100, n], 6346));
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let home = SocketAddr::from(([192, 168, 0, 1], 80));
        assert!(!may_name(addr(1).ip(), local) && !may_name(addr(1).ip(), home));
        assert!(!may_name(home.ip(), local) && may_name(home.ip(), home));
        assert!(may_name(local.ip(), local) && may_name(addr(1).ip(), addr(2)));
        let nobody = SocketAddr::from(([0, 0, 0, 0], 80));
        assert!(!may_name(local.ip(), nobody));
        let [one, two] = ["[fc01::1]:80", "[fc02::1]:80"].map(|a| a.parse().expect("an address"));
        let one: SocketAddr = one;
        assert!(may_name(one.ip(), two) && may_name(one.ip(), addr(1)));
        assert!(!may_name(one.ip(), home) && !may_name(one.ip(), local));
        for other in [addr(1), home, local] {
            assert!(!may_name(other.ip(), one), "{other}");
        }
    }
}
