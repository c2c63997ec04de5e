//! The sockets of a node, and the addresses that they have.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// What a socket that carries everything would have as buffers, as far as the system allows.
const BUFFER: usize = 4 << 20;

fn socket(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Smaller ones only lose more at peaks.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// The socket at this address; with the wildcard of IPv4 also one of IPv6 at the same port, if there
/// is IPv6.
pub(super) fn sockets(listen: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let first = socket(listen)?;
    let mut sockets = Vec::new();
    if listen.is_ipv4() && listen.ip().is_unspecified() {
        let port = first.local_addr()?.port();
        sockets.extend(socket((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    sockets.insert(0, first);
    Ok(sockets)
}

/// Where the first socket is: as it was wanted, with the port that it got.
pub(super) fn first(sockets: &[UdpSocket], listen: SocketAddr) -> io::Result<SocketAddr> {
    sockets.first().map_or(Ok(listen), UdpSocket::local_addr)
}

/// Where the sockets are on this machine's networks; on a machine without a network, itself.
pub(super) fn addresses(listen: SocketAddr, sockets: &[UdpSocket]) -> io::Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for socket in sockets {
        let at = socket.local_addr()?;
        if !listen.ip().is_unspecified() {
            all.push(at);
            continue;
        }
        let own = nix::ifaddrs::getifaddrs().map_err(io::Error::from)?;
        for interface in own {
            let Some(address) = interface.address else {
                continue;
            };
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            let Some(ip) = v4.or(v6).filter(|ip| ip.is_ipv4() == at.is_ipv4()) else {
                continue;
            };
            let local = matches!(ip, IpAddr::V6(ip) if (ip.segments()[0] & 0xffc0) == 0xfe80);
            if !local {
                all.push(SocketAddr::new(ip, at.port()));
            }
        }
    }
    let outside = |a: &SocketAddr| !a.ip().is_loopback();
    if all.iter().any(outside) {
        all.retain(outside);
    }
    // As many of either kind as there is room for, the system's first ones.
    let (v4, v6): (Vec<SocketAddr>, Vec<_>) = all.into_iter().partition(SocketAddr::is_ipv4);
    let mut all = Vec::new();
    for n in 0..v4.len().max(v6.len()) {
        all.extend(v4.get(n).into_iter().chain(v6.get(n)));
    }
    all.truncate(8);
    Ok(all)
}
