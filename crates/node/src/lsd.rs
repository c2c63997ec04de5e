//! The sockets of local service discovery (BEP 14), to be polled by the reactor.
//!
//! What is sent when, and what a packet means, is `shoal_bittorrent::lsd`. A machine without
//! multicast (a container, a network without a route) is nothing unusual: then there are simply
//! no sockets.

use mio::net::UdpSocket;
use shoal_bittorrent::lsd::{GROUP_V4, GROUP_V6, LsdAnnounce, PORT};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A socket for each address family in which multicast works.
#[derive(Debug)]
pub struct LsdSockets {
    port: u16,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl LsdSockets {
    /// Joins the groups on the interface that has the address `on`: the one we listen on. An
    /// unspecified address joins both families on the interfaces that the system chooses.
    pub fn open(on: IpAddr) -> Self {
        Self::open_at(on, PORT)
    }

    fn open_at(on: IpAddr, port: u16) -> Self {
        let v4 = match on {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) => ip.is_unspecified().then_some(Ipv4Addr::UNSPECIFIED),
        };
        // An IPv6 interface goes by its number, which its address does not tell: the system's
        // choice is taken. On loopback that would reach beyond this machine.
        let v6 = on.is_unspecified() || on.is_ipv6() && !on.is_loopback();
        let kept = |family: &str, opened: io::Result<UdpSocket>| {
            if let Err(error) = &opened {
                tracing::debug!(%error, family, "no multicast for local discovery");
            }
            opened.ok()
        };
        Self {
            port,
            v4: v4.and_then(|on| kept("IPv4", open_v4(on, port))),
            v6: v6.then(|| open_v6(port)).and_then(|v6| kept("IPv6", v6)),
        }
    }

    /// Whether there is any multicast at all.
    pub fn is_available(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    /// The sockets, to be registered with the reactor as readable.
    pub fn sockets(&mut self) -> impl Iterator<Item = &mut UdpSocket> {
        self.v4.iter_mut().chain(&mut self.v6)
    }

    /// The next packet that has come: its length in `buf` and its sender. None when all are
    /// read. A longer packet is cut.
    pub fn recv(&self, buf: &mut [u8]) -> Option<(usize, SocketAddr)> {
        // An error that a socket reports once (an unreachable group) is not the end of it.
        let sockets = self.v4.iter().chain(&self.v6);
        sockets
            .flat_map(|socket| [socket, socket])
            .find_map(|socket| socket.recv_from(buf).ok())
    }

    /// Sends an announce to every group that was joined. What cannot be sent is lost: the next
    /// announce comes in time.
    pub fn announce(&self, announce: &LsdAnnounce) {
        let groups = [
            (&self.v4, IpAddr::V4(GROUP_V4)),
            (&self.v6, IpAddr::V6(GROUP_V6)),
        ];
        for (socket, group) in groups {
            let Some(socket) = socket else { continue };
            let to = SocketAddr::new(group, self.port);
            if let Err(error) = socket.send_to(&announce.encode(group.is_ipv6()), to) {
                tracing::debug!(%error, %to, "local announce not sent");
            }
        }
    }
}

fn open_v4(on: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.join_multicast_v4(&GROUP_V4, &on)?;
    if !on.is_unspecified() {
        socket.set_multicast_if_v4(&on)?;
    }
    socket.set_multicast_loop_v4(true)?;
    // No farther than the own network: the peers sought are those near.
    socket.set_multicast_ttl_v4(1)?;
    Ok(UdpSocket::from_std(socket.into()))
}

fn open_v6(port: u16) -> io::Result<UdpSocket> {
    let socket = bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.join_multicast_v6(&GROUP_V6, 0)?;
    socket.set_multicast_loop_v6(true)?;
    socket.set_multicast_hops_v6(1)?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// A socket at a port that other clients on this machine use too.
fn bind(domain: Domain, addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Interest, Poll, Token};
    use shoal_base::{InfoHash, Rng, Time};
    use shoal_bittorrent::lsd::{Lsd, MAX_PACKET_LEN};
    use std::time::Duration;

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says why a machine skips it")]
    fn two_nodes_on_one_machine_hear_each_other() {
        let (port, on) = (free_port(), IpAddr::from([127, 0, 0, 1]));
        let alice = LsdSockets::open_at(on, port);
        let mut bob = LsdSockets::open_at(on, port);
        if !alice.is_available() || !bob.is_available() {
            println!("skipped: no multicast on loopback");
            return;
        }
        let mut poll = Poll::new().unwrap();
        for socket in bob.sockets() {
            let registry = poll.registry();
            registry
                .register(socket, Token(0), Interest::READABLE)
                .unwrap();
        }
        let (now, hash) = (Time::from_secs(1), InfoHash([7; 20]));
        let mut sends = Lsd::new(4001, &mut Rng::from_seed(1));
        let mut hears = Lsd::new(4002, &mut Rng::from_seed(2));
        sends.add(now, hash);
        hears.add(now, hash);
        alice.announce(&sends.poll(now).unwrap());
        poll.poll(&mut Events::with_capacity(4), Some(Duration::from_secs(5)))
            .unwrap();
        let mut buf = [0; MAX_PACKET_LEN + 1];
        let Some((len, from)) = bob.recv(&mut buf) else {
            println!("skipped: multicast on loopback is not delivered");
            return;
        };
        let heard = hears.on_packet(now, from, &buf[..len]).unwrap();
        assert_eq!(heard, [(hash, SocketAddr::new(on, 4001))]);
        assert_eq!(bob.recv(&mut buf), None);
    }

    #[test]
    fn without_multicast_there_is_nothing_to_do() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no interface has it.
        let none = LsdSockets::open_at([192, 0, 2, 1].into(), free_port());
        assert!(!none.is_available());
        none.announce(&LsdAnnounce::default());
        assert_eq!(none.recv(&mut [0; 16]), None);
    }
}
