//! Pings and pongs: answered from the cache; flooded only in the mode of 0.4.

use std::net::SocketAddrV4;
use std::time::Duration;

use shoal_base::Time;

use super::{Config, ConnId, Effect, Mode, Node, Relation, Route, Way};
use crate::guid::Guid;
use crate::message::ping::{Ping, Pong, Slots};
use crate::message::{Header, Kind, Packet};
use crate::shared::Shared;

/// How often a neighbour is asked for hosts.
const PING_EVERY: Duration = Duration::from_secs(60);
/// TTL of those pings: how wide the hosts are spread that come.
const PING_TTL: u8 = 3;
/// Pongs that one ping is answered with (Pong Caching 0.1).
const PONGS: usize = 10;
/// Pings a neighbour may send: one in three seconds, three at once.
const PING_RATE: (f32, f32) = (1.0 / 3.0, 3.0);
/// Datagrams that are answered: as many a second, and at once.
pub(super) const DATAGRAM_RATE: (f32, f32) = (20.0, 50.0);

impl<S: Shared> Node<S> {
    /// Asks a neighbour for hosts.
    pub(super) fn ping(&mut self, now: Time, id: ConnId, out: &mut Vec<Effect>) {
        let guid = Guid::random(&mut self.rng);
        self.routes.set(now, guid, Way::Ping, Route::to(None));
        if let Some(link) = self.link_mut(id) {
            link.ping_due = now + PING_EVERY;
        }
        self.send(id, Packet::ours(Kind::Ping, guid, PING_TTL, &[]), out);
    }

    /// What we say of ourselves; none while nobody can connect to us.
    pub(super) fn own_pong(&self) -> Option<Pong> {
        let listen = self.config.listen.filter(|_| !self.config.firewalled)?;
        let (files, kib) = self.shared.size();
        let mut pong = Pong::new(listen, files, kib);
        if self.config.mode == Mode::Ultrapeer {
            let few = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
            pong.kib = pong.kib.max(8).next_power_of_two();
            pong.slots = Some(Slots {
                leaves: few(self.free(Relation::Leaf)),
                ultrapeers: few(self.free(Relation::Peer)),
            });
        }
        Some(pong)
    }

    pub(super) fn on_ping(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let ping = Ping::read(payload).ok()?;
        if self.config.mode == Mode::Flood {
            return self.flood_ping(now, id, header, payload, out);
        }
        let (rate, burst) = PING_RATE;
        // A ping of one hop asks whether we live: always answered.
        let alive = header.ttl <= 1 && header.hops == 0;
        let link = self.link_mut(id)?;
        if !alive && !link.conduct.pings.take(now, rate, burst) {
            return Some(());
        }
        let ggep = link.ggep;
        let ttl = header.hops + 1;
        let answer = |pong: &Pong, hops: u8| {
            let header = Header {
                guid: header.guid,
                kind: Kind::Pong.byte(),
                ttl,
                hops,
                len: 0,
            };
            let payload = pong.write();
            // The extensions are only for those who said that they know them.
            let len = if ggep { payload.len() } else { 14 };
            Packet::new(header, payload.get(..len).unwrap_or(&payload))
        };
        let mut pongs = Vec::new();
        if let Some(mut own) = self.own_pong() {
            if ping.cached.is_some() {
                own.packed = self.hosts.to_tell(PONGS);
            }
            pongs.push(answer(&own, 0));
        }
        if !alive {
            let cached = self.pongs.pick(now, id, PONGS);
            pongs.extend(cached.iter().map(|(pong, hops)| answer(pong, hops + 1)));
        }
        for pong in pongs {
            self.send(id, pong, out);
        }
        Some(())
    }

    /// As 0.4 has it: every ping goes everywhere, every pong goes back.
    fn flood_ping(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        if self.routes.get(header.guid, Way::Ping).is_some() {
            self.stats.duplicates += 1;
            return Some(());
        }
        let from = Route::to(Some(id));
        self.routes.set(now, header.guid, Way::Ping, from);
        if let Some(pong) = self.own_pong() {
            let ttl = header.hops + 1;
            let pong = Packet::ours(Kind::Pong, header.guid, ttl, &pong.write());
            self.send(id, pong, out);
        }
        if let Some(next) = onward(header) {
            let packet = Packet::new(next, payload);
            self.send_to_others(Some(id), &packet, out);
        }
        Some(())
    }

    /// Sends to all neighbours but one.
    pub(super) fn send_to_others(
        &mut self,
        not: Option<ConnId>,
        packet: &Packet,
        out: &mut Vec<Effect>,
    ) {
        for slot in 0..self.links.len() {
            let id = self.links.get(slot).and_then(|l| l.as_ref()).map(|l| l.id);
            if let Some(id) = id.filter(|id| Some(*id) != not) {
                self.send(id, packet.clone(), out);
            }
        }
    }

    pub(super) fn on_pong(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) -> Option<()> {
        let pong = Pong::read(payload).ok()?;
        self.learn(now, &pong);
        match self.routes.get(header.guid, Way::Ping) {
            None => {
                self.stats.unasked += 1;
                self.link_mut(id)?.conduct.unasked += 1;
            }
            Some(Route { conn: None, .. }) => self.pongs.add(now, pong, header.hops, id),
            Some(Route { conn: Some(to), .. }) => {
                if let Some(next) = onward(header) {
                    self.send(to, Packet::new(next, payload), out);
                }
            }
        }
        Some(())
    }

    pub(super) fn learn(&mut self, now: Time, pong: &Pong) {
        let Config { listen, .. } = self.config;
        if listen != Some(pong.addr) {
            self.hosts.add(now, pong.addr, pong.ultrapeer());
        }
        for host in pong.packed.iter().filter(|h| listen != Some(**h)) {
            self.hosts.add(now, *host, true);
        }
    }

    /// Asks a host cache for hosts (UHC).
    pub fn ask_cache(&mut self, now: Time, cache: SocketAddrV4, out: &mut Vec<Effect>) {
        let guid = Guid::random(&mut self.rng);
        self.routes.set(now, guid, Way::Ping, Route::to(None));
        let ping = Ping {
            cached: Some(self.config.mode == Mode::Ultrapeer),
        };
        let packet = Packet::ours(Kind::Ping, guid, 1, &ping.write());
        self.openness.told(cache);
        out.push(Effect::Datagram(cache, packet));
    }
}

/// The header of a message that is passed on; none if it ends here.
pub(super) fn onward(header: Header) -> Option<Header> {
    (header.ttl > 1).then(|| Header {
        ttl: header.ttl - 1,
        hops: header.hops + 1,
        ..header
    })
}
