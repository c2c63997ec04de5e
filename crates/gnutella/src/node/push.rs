//! Pushes: passed on to where a servent's hits came from, and proxies for leaves.

use std::net::SocketAddrV4;

use super::pings::onward;
use super::{ConnId, Effect, Mode, Node, Relation, Way};
use crate::guid::Guid;
use crate::message::push::Push;
use crate::message::{Header, Kind, Packet};
use crate::shared::Shared;

impl<S: Shared> Node<S> {
    pub(super) fn on_push(
        &mut self,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let push = Push::read(payload).ok()?;
        if push.addr.port() == 0 || push.addr.ip().is_unspecified() {
            return None;
        }
        if push.servent == self.servent {
            out.push(Effect::Give(push));
            return Some(());
        }
        if self.config.mode == Mode::Leaf {
            return Some(());
        }
        let Some(to) = self.way_to(push.servent).filter(|to| *to != id) else {
            self.stats.unasked += 1;
            return Some(());
        };
        // The last hop to a leaf is made even when the TTL ends: the leaf is part of us.
        let leaf = self.link(to).is_some_and(|l| l.relation == Relation::Leaf);
        let ttl = header.ttl.max(if leaf { 2 } else { 0 });
        if let Some(next) = onward(Header { ttl, ..header }) {
            self.stats.pushes += 1;
            self.send(to, Packet::new(next, payload), out);
        }
        Some(())
    }

    /// Where a servent is to be found: a leaf that asked for a proxy, or where its hits came from.
    fn way_to(&self, servent: Guid) -> Option<ConnId> {
        let client = self.links().find(|l| l.client == Some(servent));
        let learned = || self.routes.get(servent, Way::Servent)?.conn;
        client.map(|l| l.id).or_else(learned)
    }

    /// Asks a servent to connect to `back` and offer the file of that number, by the way its hit came.
    /// Whether there is such a way.
    pub fn push(
        &mut self,
        servent: Guid,
        index: u32,
        back: SocketAddrV4,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(to) = self.way_to(servent) else {
            return false;
        };
        let push = Push {
            servent,
            index,
            addr: back,
        };
        let guid = Guid::random(&mut self.rng);
        let packet = Packet::ours(Kind::Push, guid, self.config.max_ttl, &push.write());
        self.send(to, packet, out);
        true
    }

    /// A downloader asks us, by HTTP, to pass a Push on to a leaf of ours (Push Proxy 0.6). Whether
    /// the servent is a leaf of ours.
    pub fn proxy_push(&mut self, servent: Guid, back: SocketAddrV4, out: &mut Vec<Effect>) -> bool {
        let client = self.links().find(|l| l.client == Some(servent));
        let Some(id) = client.map(|l| l.id) else {
            return false;
        };
        let push = Push {
            servent,
            index: 0,
            addr: back,
        };
        let guid = Guid::random(&mut self.rng);
        self.send(id, Packet::ours(Kind::Push, guid, 1, &push.write()), out);
        true
    }
}
