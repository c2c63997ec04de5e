//! Neighbours come and go: who is taken, what is said at the beginning and at the end.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use shoal_base::Time;

use super::link::Link;
use super::{ConnId, Effect, Load, Mode, Node, Relation};
use crate::guid::Guid;
use crate::handshake::{Greeting, Refusal, Version};
use crate::message::bye::{Bye, code};
use crate::message::vendor::{OURS, Vendor};
use crate::message::{Kind, Packet};
use crate::overlay::{MAX_TOLD, OnOverlay};
use crate::shared::Shared;

impl<S: Shared> Node<S> {
    /// What we say of ourselves to the host at `remote`.
    pub fn greeting(&self, remote: Option<Ipv4Addr>) -> Greeting {
        let ultrapeer = self.config.mode == Mode::Ultrapeer;
        Greeting {
            agent: self.config.agent.clone(),
            ultrapeer: Some(ultrapeer),
            needs_ultrapeers: ultrapeer.then(|| self.free(Relation::Peer) > 0),
            routes: true,
            one_bit: true,
            ultrapeer_routes: ultrapeer,
            dynamic: ultrapeer,
            degree: ultrapeer.then(|| u8::try_from(self.config.ultrapeers).unwrap_or(u8::MAX)),
            max_ttl: ultrapeer.then_some(self.config.ttl),
            ggep: true,
            vendor: true,
            bye: true,
            pong_caching: true,
            accepts_deflate: self.config.deflate,
            upgrade: self.config.tls,
            listen: self.config.listen,
            remote,
            hosts: self.hosts.to_tell(10),
            overlay: self.config.overlay.map(|addr| OnOverlay {
                addr: Some(addr),
                hosts: self.places.to_tell(MAX_TOLD),
            }),
            ..Greeting::default()
        }
    }

    /// Places that are free for neighbours of a relation.
    pub(super) fn free(&self, relation: Relation) -> usize {
        let most = match relation {
            Relation::Leaf => self.config.leaves,
            _ => self.config.ultrapeers,
        };
        let leaf = relation == Relation::Leaf;
        let taken = self
            .links()
            .filter(|l| (l.relation == Relation::Leaf) == leaf);
        most.saturating_sub(taken.count())
    }

    /// Whether a connection with one who greets so is wanted; if so, what it will be to us.
    ///
    /// # Errors
    /// What to say to it instead.
    pub fn judge(&self, theirs: &Greeting, version: Version) -> Result<Relation, Refusal> {
        let relation = match (self.config.mode, version, theirs.ultrapeer) {
            (Mode::Flood, ..) => Relation::Equal,
            (_, Version::V04, _) => return Err(self.refusal(503, "Not of version 0.6")),
            (Mode::Leaf, _, Some(true)) => Relation::Shield,
            (Mode::Leaf, ..) => return Err(self.refusal(503, "Shielded leaf node")),
            (Mode::Ultrapeer, _, Some(true)) => Relation::Peer,
            (Mode::Ultrapeer, ..) => Relation::Leaf,
        };
        if self.free(relation) == 0 {
            let reason = match relation {
                Relation::Leaf => "Too many leaf connections",
                _ => "Too many connections",
            };
            return Err(self.refusal(503, reason));
        }
        Ok(relation)
    }

    fn refusal(&self, code: u16, reason: &'static str) -> Refusal {
        Refusal {
            code,
            reason,
            hosts: self.hosts.to_tell(10),
            places: self.places.to_tell(MAX_TOLD),
        }
    }

    /// A connection came about. `addr` is where the other listens, as far as is known; unspecified if
    /// it is known by its overlay address alone.
    pub fn open(
        &mut self,
        now: Time,
        theirs: &Greeting,
        relation: Relation,
        addr: SocketAddrV4,
        out: &mut Vec<Effect>,
    ) -> ConnId {
        let slot = self.links.iter().position(Option::is_none);
        let slot = slot.unwrap_or(self.links.len());
        let id = ConnId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            count: self.count,
        };
        self.count = self.count.wrapping_add(1);
        if slot == self.links.len() {
            self.links.push(None);
        }
        if let Some(place) = self.links.get_mut(slot) {
            *place = Some(Link::new(now, id, relation, addr, theirs));
        }
        for host in &theirs.hosts {
            self.hosts.add(now, *host, true);
        }
        if let Some(listen) = theirs.listen {
            self.hosts.add(now, listen, theirs.ultrapeer == Some(true));
            self.hosts.worked(now, listen);
        }
        if let Some(told) = theirs
            .overlay
            .as_ref()
            .filter(|_| self.config.overlay.is_some())
        {
            for host in &told.hosts {
                self.places.add(now, *host, true);
            }
            if let Some(addr) = told.addr {
                self.places.add(now, addr, theirs.ultrapeer == Some(true));
                self.places.worked(now, addr);
            }
        }
        self.ping(now, id, out);
        if theirs.vendor {
            let message = Vendor::Supported(OURS.to_vec());
            let guid = Guid::random(&mut self.rng);
            self.send_vendor(id, guid, &message, out);
            if relation == Relation::Shield {
                self.send_vendor(id, self.servent, &Vendor::ProxyRequest, out);
                if self.load == Load::Full {
                    let guid = Guid::random(&mut self.rng);
                    self.send_vendor(id, guid, &Vendor::HopsFlow(self.wanted_hops()), out);
                }
            }
            self.probe(now, id, out);
        }
        self.send_table(now, id, out);
        id
    }

    /// A connection is gone.
    pub fn on_closed(&mut self, now: Time, id: ConnId) {
        if self.link(id).is_none() {
            return;
        }
        if let Some(place) = self.links.get_mut(id.slot())
            && let Some(link) = place.take()
        {
            self.dirty |= link.relation == Relation::Leaf && link.table.table().is_some();
            // A neighbour is sought at once in its place.
            self.look = self.look.min(now);
        }
        self.dynamics.forget(id);
    }

    /// A call did not become a connection.
    pub fn on_failed(&mut self, now: Time, addr: SocketAddr, hosts: &[SocketAddr]) {
        match addr {
            SocketAddr::V4(addr) => self.hosts.failed(now, addr),
            SocketAddr::V6(addr) => self.places.failed(now, addr),
        }
        for host in hosts {
            match host {
                SocketAddr::V4(host) => self.hosts.add(now, *host, true),
                SocketAddr::V6(host) if self.config.overlay.is_some() => {
                    self.places.add(now, *host, true);
                }
                SocketAddr::V6(_) => {}
            }
        }
    }

    /// Hosts that may be ultrapeers, as a cache told.
    pub fn add_hosts(&mut self, now: Time, hosts: &[SocketAddrV4]) {
        for host in hosts {
            self.hosts.add(now, *host, true);
        }
        // Some of them are called at once.
        self.look = self.look.min(now);
    }

    /// Says why, and closes a connection.
    pub fn bye(&mut self, id: ConnId, code: u16, reason: &str, out: &mut Vec<Effect>) {
        let bye = Bye {
            code,
            reason: reason.into(),
        };
        let payload = bye.write(&self.config.agent);
        let guid = Guid::random(&mut self.rng);
        let Some(link) = self.link_mut(id).filter(|l| !l.closing) else {
            return;
        };
        if link.bye {
            // What could not be sent so far would come too late.
            link.out.clear();
            link.out
                .push(Packet::ours(Kind::Bye, guid, 1, &payload), usize::MAX);
        }
        link.closing = true;
        out.push(Effect::Close(id));
    }

    /// Says farewell to all neighbours.
    pub fn shutdown(&mut self, out: &mut Vec<Effect>) {
        let all: Vec<ConnId> = self.links().map(|l| l.id).collect();
        for id in all {
            self.bye(id, code::SHUTDOWN, "Shutting down", out);
        }
    }
}
