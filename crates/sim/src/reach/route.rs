//! Where the messages of this network go: datagrams through translators, streams to a machine.

use crate::nat::Internet;
use crate::space::Space;
use shoal_base::Time;
use std::net::SocketAddr;

/// Where a message goes, or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// A datagram's address at the other end; and the own one for machines that have several.
    Udp {
        own: Option<SocketAddr>,
        at: SocketAddr,
    },
    /// Whoever listens for streams there.
    Tcp(SocketAddr),
    /// A machine with which there is a stream. Translators let streams pass outwards and keep them.
    Machine(u32),
}

impl Hop {
    /// To an address, from the only one that there is here.
    pub(super) fn udp(at: SocketAddr) -> Self {
        Self::Udp { own: None, at }
    }
}

/// An [`Internet`] with streams.
#[derive(Debug, Default)]
pub(super) struct Routes(pub(super) Internet);

impl Space for Routes {
    type Addr = Hop;

    fn depart(&mut self, now: Time, node: u32, to: Hop) -> Option<(Hop, u32)> {
        match to {
            Hop::Udp { own: None, at } => {
                let (seen, target) = self.0.depart(now, node, at)?;
                Some((Hop::udp(seen), target))
            }
            Hop::Udp { own: Some(own), at } => Some((Hop::udp(own), self.0.leads_to(at)?)),
            Hop::Tcp(at) => Some((Hop::Machine(node), self.0.leads_to(at)?)),
            Hop::Machine(target) => Some((Hop::Machine(node), target)),
        }
    }

    fn arrive(&mut self, now: Time, from: Hop, to: Hop) -> bool {
        match (from, to) {
            (Hop::Udp { at: from, .. }, Hop::Udp { at: to, .. }) => self.0.arrive(now, from, to),
            _ => true,
        }
    }
}
