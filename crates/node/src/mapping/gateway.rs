//! Which router leads out of this machine's network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use shoal_reach::mapping::packet::SERVER;
use shoal_reach::mapping::{is_outside, is_public, upnp};

/// Where Linux tells its routes of IPv4.
const ROUTES: &str = "/proc/net/route";
/// Bits of a route's flags: it is in use, and by a router.
const UP_AND_GATEWAY: u32 = 3;

/// A router, and we in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Our address there.
    pub own: Ipv4Addr,
    /// Where it takes PCP and NAT-PMP; UPnP only from this address, too.
    pub router: SocketAddrV4,
    /// Where it is searched by UPnP.
    pub search: SocketAddrV4,
}

/// Why no router is asked.
#[derive(Debug, thiserror::Error)]
pub enum NoGateway {
    /// The system does not tell, or there is none.
    #[error("no router is known")]
    Unknown,
    /// Nothing is in the way.
    #[error("this machine's address {0} is public")]
    Public(Ipv4Addr),
    /// The socket is in another network than the router.
    #[error("the socket's address {0} is not in the router's network")]
    OtherNetwork(IpAddr),
    /// No socket, or no thread.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Gateway {
    /// That of the best route to everywhere, if this machine has a private address in its network.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find() -> Result<Self, NoGateway> {
        let routes = std::fs::read_to_string(ROUTES).map_err(|_| NoGateway::Unknown)?;
        let router = default_route(&routes).ok_or(NoGateway::Unknown)?;
        let router = SocketAddrV4::new(router, SERVER);
        // From which address the system would send: nothing is sent.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(router)?;
        let SocketAddr::V4(own) = socket.local_addr()? else {
            return Err(NoGateway::Unknown);
        };
        match *own.ip() {
            own if is_public(own) => Err(NoGateway::Public(own)),
            own if !is_outside(own) => Err(NoGateway::Unknown),
            own => Ok(Self {
                own,
                router,
                search: upnp::SEARCH,
            }),
        }
    }
}

/// The router of the route to everywhere with the lowest metric: of a table as Linux writes it, numbers in
/// hexadecimal, addresses in the machine's order of bytes.
fn default_route(table: &str) -> Option<Ipv4Addr> {
    let mut best: Option<(u32, Ipv4Addr)> = None;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, to, by, flags, _, _, metric, mask, ..] = fields[..] else {
            continue;
        };
        let number = |text| u32::from_str_radix(text, 16).ok();
        let (Some(0), Some(by), Some(flags), Some(0)) =
            (number(to), number(by), number(flags), number(mask))
        else {
            continue;
        };
        let metric = metric.parse().unwrap_or(u32::MAX);
        let router = Ipv4Addr::from(by.to_ne_bytes());
        let usable = flags & UP_AND_GATEWAY == UP_AND_GATEWAY && is_outside(router);
        if usable && best.is_none_or(|(least, _)| metric < least) {
            best = Some((metric, router));
        }
    }
    best.map(|(_, router)| router)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_best_route_is_taken() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\tFE00A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n\
                     eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let found = default_route(table);
        assert_eq!(found, Some(Ipv4Addr::new(192, 168, 0, 254)));
        assert_eq!(default_route(""), None);
        assert_eq!(default_route("x\nnonsense\n"), None);
    }
}
