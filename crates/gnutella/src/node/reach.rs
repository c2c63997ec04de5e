//! Whether others reach us: by connections and by datagrams that we did not ask for. Neighbours are
//! asked to try (BEAR/7, GTKG/7).

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use shoal_base::Time;

use super::link::Link;
use super::{Config, ConnId, Effect, Node};
use crate::guid::Guid;
use crate::message::vendor::Vendor;
use crate::shared::Shared;

/// How often neighbours are asked, as long as nobody reached us.
const AGAIN: Duration = Duration::from_secs(60);
/// Probes that are remembered.
const PROBES: usize = 16;
/// Hosts that are remembered to have been written to.
const TOLD: usize = 256;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Openness {
    /// A datagram came from where none was sent to.
    pub(super) datagrams: bool,
    /// Somebody connected.
    pub(super) connections: bool,
    probes: VecDeque<Guid>,
    told: VecDeque<SocketAddrV4>,
    due: Time,
}

impl Openness {
    /// A datagram goes there: what comes from there proves nothing any more.
    pub(super) fn told(&mut self, to: SocketAddrV4) {
        if self.told.contains(&to) {
            return;
        }
        if self.told.len() >= TOLD {
            self.told.pop_front();
        }
        self.told.push_back(to);
    }
}

impl<S: Shared> Node<S> {
    /// Somebody connected to us.
    pub fn reached(&mut self) {
        self.openness.connections = true;
    }

    /// Whether others are known to reach us, by connections and by datagrams.
    pub fn is_reached(&self) -> (bool, bool) {
        (self.openness.connections, self.openness.datagrams)
    }

    /// Whether our hits say that nobody can connect to us. Who is on the overlay says so until somebody has
    /// connected: it is reached there at any rate, and at an address that leads nowhere it is not.
    pub(super) fn is_firewalled(&self) -> bool {
        let unproven = self.config.overlay.is_some() && !self.openness.connections;
        self.config.firewalled || self.config.listen.is_none() || unproven
    }

    /// A ping came by a datagram: perhaps one that was asked for.
    pub(super) fn on_probe(&mut self, from: SocketAddrV4, guid: Guid) {
        let ours = self.openness.probes.contains(&guid);
        if ours && !self.openness.told.contains(&from) {
            self.openness.datagrams = true;
        }
    }

    /// Asks a neighbour to try, if that is not known yet and makes a difference.
    pub(super) fn probe(&mut self, now: Time, id: ConnId, out: &mut Vec<Effect>) {
        let Config {
            oob,
            promotion,
            overlay,
            ..
        } = &self.config;
        let used = *oob || promotion.is_some() || overlay.is_some();
        let listen = self.config.listen.filter(|_| {
            used && !self.config.firewalled && self.link(id).is_some_and(Link::is_placed)
        });
        let Some(listen) = listen else {
            return;
        };
        if !self.openness.datagrams {
            let guid = Guid::random(&mut self.rng);
            if self.openness.probes.len() >= PROBES {
                self.openness.probes.pop_front();
            }
            self.openness.probes.push_back(guid);
            let message = Vendor::UdpConnectBack(listen.port(), None);
            self.send_vendor(id, guid, &message, out);
        }
        if !self.openness.connections {
            let guid = Guid::random(&mut self.rng);
            self.send_vendor(id, guid, &Vendor::ConnectBack(listen.port()), out);
        }
        self.openness.due = now + AGAIN;
    }

    /// Asks one more neighbour, now and then, as long as nobody reached us.
    pub(super) fn probe_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        let known = self.openness.datagrams && self.openness.connections;
        if known || now < self.openness.due {
            return;
        }
        let able: Vec<ConnId> = self
            .links()
            .filter(|l| l.vendor && l.is_placed())
            .map(|l| l.id)
            .collect();
        if let Some(id) = self.rng.pick(&able).copied() {
            self.probe(now, id, out);
        }
    }
}
