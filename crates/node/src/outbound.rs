//! Where connections and datagrams leave from: whichever address the route picks, or the one that
//! we listen on, if that is a particular one. Peers, trackers and web seeds then see no other. Overlay
//! addresses are reached by way of the overlay, if we are on it.

use crate::reach::Overlay;
use mio::net::TcpStream;
use shoal_reach::overlay::overlay;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The local end of what we begin ourselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    local: Option<SocketAddr>,
    overlay: Option<Overlay>,
}

impl Outbound {
    /// As the listening address has it: unspecified or none stands for any.
    pub fn of(listen: Option<SocketAddr>) -> Self {
        let mut local = listen.filter(|a| !a.ip().to_canonical().is_unspecified());
        if let Some(local) = &mut local {
            local.set_ip(local.ip().to_canonical());
            local.set_port(0);
        }
        let overlay = None;
        Self { local, overlay }
    }

    /// Overlay addresses are reached by this.
    #[must_use]
    pub fn and_overlay(self, overlay: Option<Overlay>) -> Self {
        Self { overlay, ..self }
    }

    /// By what overlay addresses are reached.
    pub fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// The one address to leave from, if there is only one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.local.map(|a| a.ip())
    }

    /// Whether `to` is of a family that can be reached from here, or by the overlay.
    pub fn can_reach(&self, to: SocketAddr) -> bool {
        self.overlay.is_some() && overlay(to).is_some() || self.has_family_of(to)
    }

    fn has_family_of(&self, to: SocketAddr) -> bool {
        self.local
            .is_none_or(|local| local.is_ipv4() == to.ip().to_canonical().is_ipv4())
    }

    fn socket(&self, to: &mut SocketAddr) -> io::Result<socket2::Socket> {
        if !self.has_family_of(*to) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if self.local.is_some() {
            to.set_ip(to.ip().to_canonical());
        }
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(*to),
            socket2::Type::STREAM.cloexec(),
            Some(socket2::Protocol::TCP),
        )?;
        if let Some(local) = self.local {
            socket.bind(&local.into())?;
        }
        Ok(socket)
    }

    /// Begins to connect, without waiting.
    pub fn dial(&self, mut to: SocketAddr) -> io::Result<TcpStream> {
        if let (Some(to), Some(by)) = (overlay(to), &self.overlay) {
            let stream = by.dial_soon(to)?;
            stream.set_nonblocking(true)?;
            return Ok(TcpStream::from_std(stream));
        }
        if self.local.is_none() {
            return TcpStream::connect(to);
        }
        let socket = self.socket(&mut to)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    /// Connects within `timeout`; none: when the system gives up. To an overlay address it takes as
    /// long as [`Overlay::dial`].
    pub fn connect(
        &self,
        mut to: SocketAddr,
        timeout: Option<Duration>,
    ) -> io::Result<std::net::TcpStream> {
        if let (Some(to), Some(by)) = (overlay(to), &self.overlay) {
            return by.dial(to);
        }
        let socket = self.socket(&mut to)?;
        match timeout {
            Some(timeout) => socket.connect_timeout(&to.into(), timeout)?,
            None => socket.connect(&to.into())?,
        }
        Ok(socket.into())
    }

    /// Where to bind a UDP socket of the family of `any`, the unspecified address with a port;
    /// none if nothing of that family is to leave.
    pub fn udp(&self, mut any: SocketAddr) -> Option<SocketAddr> {
        match self.local {
            None => Some(any),
            Some(mut local) if local.is_ipv4() == any.is_ipv4() => {
                local.set_port(any.port());
                any = local;
                Some(any)
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn connections_leave_from_the_address_given() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let local: SocketAddr = "127.0.0.9:4444".parse().expect("an address");
        let outbound = Outbound::of(Some(local));
        let _blocking = outbound
            .connect(to, Some(Duration::from_secs(5)))
            .expect("connected");
        assert_eq!(listener.accept().expect("one").1.ip(), local.ip());
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().expect("mapped"), to.port());
        let _polled = outbound.dial(mapped).expect("begun");
        assert_eq!(listener.accept().expect("another").1.ip(), local.ip());
        let v6 = "[::1]:1".parse().expect("an address");
        assert!(outbound.dial(v6).is_err());
        assert_eq!(outbound.udp("[::]:0".parse().expect("an address")), None);
    }

    #[test]
    fn unspecified_addresses_bind_nothing() {
        for any in ["0.0.0.0:1", "[::]:1", "[::ffff:0.0.0.0]:1"] {
            let outbound = Outbound::of(any.parse().ok());
            assert_eq!(outbound, Outbound::default());
            assert!(outbound.can_reach("[::1]:1".parse().expect("an address")));
        }
    }
}
