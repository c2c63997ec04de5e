//! The way into a ring: members known by their address, at which to join, or through which a guest
//! asks.

use super::super::links::Waiting;
use super::super::node::{Node, Standing};
use super::super::place::{Place, position};
use super::Endpoint;
use crate::{Health, Id, Output};
use shoal_base::Time;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// First pause before the next door is tried; doubles up to 64 times this.
const REJOIN: Duration = Duration::from_secs(5);
/// The first wait before a door is tried that leads to nobody known: perhaps to another ring. Each
/// later one is twice as long, up to 16 times the first.
const PROBE: Duration = Duration::from_secs(30);
/// Most doors.
const MAX_DOORS: usize = 64;

impl Endpoint {
    /// Begins a ring.
    pub fn create(&mut self, now: Time, out: &mut Vec<Output>) {
        self.at(now, 0, |node, outs| node.create(now, outs), out);
        self.settle(now, out);
    }

    /// Joins the ring of the nodes at `bootstrap`: at the first that answers. Goes on trying, ever
    /// more slowly, and does so again whenever the ring is lost. A guest only notes whom it may
    /// ask.
    pub fn join(&mut self, now: Time, bootstrap: &[SocketAddr], out: &mut Vec<Output>) {
        self.bootstrap.clear();
        self.add_doors(now, bootstrap);
        self.try_join(now, out);
        self.settle(now, out);
    }

    /// Tells of more nodes to join at; while in no ring, the next tick tries them.
    pub fn add_doors(&mut self, now: Time, doors: &[SocketAddr]) {
        for door in doors {
            if self.bootstrap.len() < MAX_DOORS && !self.bootstrap.contains(door) {
                self.bootstrap.push(*door);
            }
        }
        if !self.settings.guest && !self.is_member() && !self.bootstrap.is_empty() {
            self.rejoin = (now, 0);
        }
    }

    /// Members worth knowing at the next start.
    pub fn known(&self) -> Vec<SocketAddr> {
        let mut known = BTreeSet::new();
        for node in &self.nodes {
            let tables = node.successors().iter().chain(node.fingers());
            known.extend(tables.chain(&node.predecessor()).map(|c| c.addr.socket));
        }
        let own: BTreeSet<_> = self.nodes.iter().map(|n| n.me().addr.socket).collect();
        known.into_iter().filter(|s| !own.contains(s)).collect()
    }

    /// Leaves: hands over what it keeps, and nudges its neighbours. To be sent before the socket
    /// closes; the neighbours learn at once if it stays open for a second.
    pub fn leave(&mut self, now: Time, out: &mut Vec<Output>) {
        self.bootstrap.clear();
        self.rejoin.0 = Time::FAR;
        self.hand_over_all(now, out);
        for i in 0..self.nodes.len() {
            self.at(now, i, Node::leave, out);
        }
        self.settle(now, out);
    }

    /// Whether its first position is a member of a ring.
    pub fn is_member(&self) -> bool {
        let first = self.nodes.first();
        first.is_some_and(|n| n.standing() == Standing::Member)
    }

    /// Whether it has a network.
    pub fn health(&self) -> Health {
        let answered = if self.settings.guest {
            self.links.count() > 0
        } else {
            self.is_member() && !self.known().is_empty()
        };
        if answered {
            Health::Online
        } else if self.is_member() || self.bootstrap.is_empty() {
            Health::Empty
        } else if self.rejoin.1 as usize > self.bootstrap.len() {
            Health::Offline
        } else {
            Health::Starting
        }
    }

    /// In no ring for a while from now on: the doors are tried again.
    pub(super) fn rejoin_soon(&mut self, now: Time) {
        if self.rejoin.0 == Time::FAR && !self.bootstrap.is_empty() {
            self.rejoin = (now + REJOIN, 1);
        }
    }

    pub(super) fn try_join(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.settings.guest {
            self.rejoin.0 = Time::FAR;
            return;
        }
        let (_, tries) = self.rejoin;
        if tries as usize > 2 * self.bootstrap.len() && self.links.count() > 0 {
            // Those who answer wait for a ring to join as well: somebody has to begin it. If
            // several do, the rings become one.
            self.at(now, 0, |node, outs| node.create(now, outs), out);
            self.probe = (self.later(now, REJOIN), 1);
            return;
        }
        let pause = REJOIN * (1 << tries.min(6));
        self.rejoin = (now + pause, tries.saturating_add(1));
        let at = tries as usize % self.bootstrap.len().max(1);
        let Some(via) = self.bootstrap.get(at).copied() else {
            self.rejoin.0 = Time::FAR;
            return;
        };
        match self.links.key_of(via) {
            Some(key) => self.join_at(now, via, &key, out),
            None => self.greet(now, via, out),
        }
    }

    /// A member, too, tries a door now and then: whoever is there may be in another ring.
    pub(super) fn probe_doors(&mut self, now: Time, out: &mut Vec<Output>) {
        let (at, wait) = self.probe;
        if at > now {
            return;
        }
        self.probe = (
            self.later(now, PROBE * wait),
            if wait < 16 { wait * 2 } else { wait },
        );
        if !self.is_member() || self.settings.guest {
            return;
        }
        let known = self.known();
        let doors = self.bootstrap.iter().filter(|d| !known.contains(d));
        let doors: Vec<SocketAddr> = doors.copied().collect();
        let Some(door) = self.rng.pick(&doors).copied() else {
            return;
        };
        match self.links.key_of(door) {
            Some(key) => self.merge_at(now, door, &key, out),
            None => self.greet(now, door, out),
        }
    }

    /// Looks whether a door leads to another ring.
    pub(super) fn merge_at(
        &mut self,
        now: Time,
        door: SocketAddr,
        key: &[u8; 32],
        out: &mut Vec<Output>,
    ) {
        if self.is_member() && self.bootstrap.contains(&door) && *key != self.links.public {
            let via = first_place(door, key);
            self.at(now, 0, |node, outs| node.merge(now, via, outs), out);
        }
    }

    /// Begins a handshake with whoever is at an address.
    pub(super) fn greet(&mut self, now: Time, socket: SocketAddr, out: &mut Vec<Output>) {
        // An empty body: the handshake alone is wanted.
        let waiting = Waiting {
            body: Vec::new(),
            token: None,
        };
        self.links.send(now, socket, waiting, out);
    }

    pub(super) fn join_at(
        &mut self,
        now: Time,
        socket: SocketAddr,
        key: &[u8; 32],
        out: &mut Vec<Output>,
    ) {
        let standing = self.nodes.first().map(Node::standing);
        let wanted = !self.settings.guest && self.bootstrap.contains(&socket);
        if wanted && standing == Some(Standing::Outside) {
            let via = first_place(socket, key);
            self.at(now, 0, |node, outs| node.join(now, via, outs), out);
        }
    }

    /// The door that a guest tries first.
    pub(super) fn door(&self) -> Option<SocketAddr> {
        let at = self.turn % self.bootstrap.len().max(1);
        self.bootstrap.get(at).copied()
    }
}

/// The first ring position of the holder of `key` at `socket`.
pub(super) fn first_place(socket: SocketAddr, key: &[u8; 32]) -> Place {
    let id: Id = position(key, 0);
    Place {
        id,
        index: 0,
        socket,
    }
}
