//! Which addresses are worth dialling, and in which order (BEP 40).

use crate::priority;
use shoal_base::PeerId;
pub use shoal_base::address::is_overlay;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// IPv4-mapped addresses as IPv4, no flow label: one peer, one name. A link-local address keeps
/// its scope.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        addr => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
    }
}

/// Whether a connection to `addr` makes any sense: not port zero, not unspecified, multicast or
/// broadcast.
pub fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let bad = ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.octets().first() == Some(&0),
            IpAddr::V6(_) => false,
        };
    addr.port() != 0 && !bad
}

/// Whether `ip` is of this machine or the local network: loopback, private, link-local or unique
/// local. Of the latter those from `fd00::/8`: the other half names nodes by their keys, wherever they
/// are.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            let assigned = ip.is_unique_local() && ip.octets().first() == Some(&0xfd);
            ip.is_loopback() || ip.is_unicast_link_local() || assigned
        }
    }
}

/// What a ban is on: the address, whatever the port; but on loopback, where every peer of a test
/// or a demo has the same address, the port too.
pub(super) fn ban_key(addr: SocketAddr) -> (IpAddr, u16) {
    let ip = addr.ip().to_canonical();
    (ip, if ip.is_loopback() { addr.port() } else { 0 })
}

/// The priority of a connection to `addr`. While our own address is unknown any spread will do,
/// if it stays the same.
pub(super) fn priority_of(external: [Option<SocketAddr>; 2], addr: SocketAddr) -> u32 {
    let unknown = SocketAddr::from(([0; 16], 0));
    let own = external[usize::from(addr.is_ipv6())].unwrap_or(unknown);
    priority::canonical(own, addr)
}

/// Two peers that connect to each other at the same moment must drop the same one of the two
/// connections: whether it is the one that we opened which stays.
pub fn keeps_ours(own: PeerId, theirs: PeerId) -> bool {
    own > theirs
}
