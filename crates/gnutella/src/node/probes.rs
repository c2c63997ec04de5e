//! Datagrams that ask: host caches' pings, HEAD pings, crawlers, Pushes to proxies, answers out of band.

use std::net::SocketAddrV4;
use std::time::Duration;

use shoal_base::Time;

use super::link::Link;
use super::pings::DATAGRAM_RATE;
use super::{Effect, Load, Mode, Node, Relation};
use crate::guid::Guid;
use crate::huge::Urn;
use crate::message::ping::{Ping, Pong};
use crate::message::probe::{CrawlPing, CrawlPong, HeadPing, HeadPong, MAX_CRAWLED};
use crate::message::push::Push;
use crate::message::vendor::Vendor;
use crate::message::{Header, Kind, Packet};
use crate::shared::Shared;

/// HEAD pings that were handed to leaves and are remembered, and for how long.
const PASSED: usize = 64;
const PASSED_FOR: Duration = Duration::from_secs(30);
/// Hosts that one pong to a datagram names.
const PACKED: usize = 10;

/// A HEAD ping that a leaf is to answer, and who asked.
#[derive(Debug)]
pub(super) struct Passed {
    guid: Guid,
    from: SocketAddrV4,
    until: Time,
}

impl<S: Shared> Node<S> {
    /// Whether one more datagram may be answered now.
    pub(super) fn may_answer_datagram(&mut self, now: Time) -> bool {
        let (rate, burst) = DATAGRAM_RATE;
        self.datagrams.take(now, rate, burst)
    }

    /// Whether one more crawler may be answered: that takes many times the bytes of its question.
    fn may_crawl(&mut self, now: Time) -> bool {
        self.crawls.take(now, 0.1, 5.0)
    }

    pub(super) fn on_udp(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) {
        match header.known() {
            Some(Kind::Ping) => self.on_udp_ping(now, from, header.guid, payload, out),
            // Only in answer to what we asked: anybody can send a datagram.
            Some(Kind::Pong) => {
                let asked = self.routes.get(header.guid, super::Way::Ping).is_some();
                if let (true, Ok(pong)) = (asked, Pong::read(payload)) {
                    self.learn(now, &pong);
                    self.look = now;
                }
            }
            Some(Kind::Vendor | Kind::Standard) => {
                if let Ok(message) = Vendor::read(payload) {
                    self.on_udp_vendor(now, from, header.guid, message, out);
                }
            }
            Some(Kind::Hit) => {
                let _ = self.on_oob_hit(now, from, header, payload, out);
            }
            Some(Kind::Push) => self.on_udp_push(now, from, payload, out),
            _ => {}
        }
    }

    fn on_udp_ping(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) {
        self.on_probe(from, guid);
        let Ok(ping) = Ping::read(payload) else {
            return;
        };
        let Some(mut pong) = self.own_pong() else {
            return;
        };
        if !self.may_answer_datagram(now) {
            return;
        }
        if ping.cached.is_some() {
            pong.packed = self.hosts.to_tell(PACKED);
        }
        let packet = Packet::ours(Kind::Pong, guid, 1, &pong.write());
        self.openness.told(from);
        out.push(Effect::Datagram(from, packet));
    }

    fn on_udp_vendor(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        message: Vendor,
        out: &mut Vec<Effect>,
    ) {
        match message {
            Vendor::OobReplies { count, secure, .. } => {
                self.on_oob_replies(now, from, guid, (count, secure), out);
            }
            Vendor::OobAck { wanted, token } => {
                self.on_oob_ack(now, from, guid, wanted, &token, out);
            }
            Vendor::HeadPing(ping) => self.on_head_ping(now, from, guid, &ping, out),
            Vendor::CrawlPing(ping) => self.on_crawl(now, from, guid, ping, out),
            _ => {}
        }
    }

    /// Says whether a file is to be had here, or has a leaf say so that is meant.
    fn on_head_ping(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        ping: &HeadPing,
        out: &mut Vec<Effect>,
    ) {
        if !self.may_answer_datagram(now) {
            return;
        }
        match ping.servent.filter(|s| *s != self.servent) {
            Some(leaf) => self.pass_head_ping(now, from, guid, ping, leaf, out),
            None => {
                let pong = self.head_pong(ping);
                self.tell(from, guid, &Vendor::HeadPong(pong), out);
            }
        }
    }

    /// What a HEAD ping hears of us.
    pub(super) fn head_pong(&mut self, ping: &HeadPing) -> HeadPong {
        HeadPong {
            complete: self.shared.find(&Urn::Sha1(ping.sha1)).is_some(),
            partial: false,
            firewalled: self.config.firewalled,
            vendor: self.config.vendor,
            queue: match self.load {
                Load::Free => -1,
                Load::Busy => 0,
                Load::Full => i8::MAX,
            },
            alternates: Vec::new(),
            second: ping.second,
        }
    }

    /// Hands a HEAD ping to the leaf that is meant.
    fn pass_head_ping(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        ping: &HeadPing,
        leaf: Guid,
        out: &mut Vec<Effect>,
    ) {
        let is_meant =
            |l: &&Link| l.relation == Relation::Leaf && l.client == Some(leaf) && l.vendor;
        let Some(id) = self.links().find(is_meant).map(|l| l.id) else {
            return;
        };
        let passed = &mut self.heads;
        passed.retain(|p| p.until > now);
        if passed.len() >= PASSED {
            passed.pop_front();
        }
        passed.push_back(Passed {
            guid,
            from,
            until: now + PASSED_FOR,
        });
        let payload = Vendor::HeadPing(ping.clone()).write();
        let header = Header {
            guid,
            kind: Kind::Vendor.byte(),
            ttl: 1,
            hops: 1,
            len: payload.len(),
        };
        self.send(id, Packet::new(header, &payload), out);
    }

    /// A leaf answers a HEAD ping that was handed to it.
    pub(super) fn pass_head_pong(
        &mut self,
        now: Time,
        guid: Guid,
        pong: HeadPong,
        out: &mut Vec<Effect>,
    ) {
        let asked = |p: &Passed| p.guid == guid && p.until > now;
        let found = self.heads.iter().position(asked);
        if let Some(passed) = found.and_then(|at| self.heads.remove(at)) {
            self.tell(passed.from, guid, &Vendor::HeadPong(pong), out);
        }
    }

    /// Tells a crawler of neighbours; those that listen nowhere are not told.
    fn on_crawl(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        guid: Guid,
        ping: CrawlPing,
        out: &mut Vec<Effect>,
    ) {
        if self.config.mode == Mode::Flood || !self.may_crawl(now) {
            return;
        }
        let told = |relation: Relation, most: u8| {
            let links = self
                .links()
                .filter(|l| l.relation == relation && l.is_placed());
            links
                .take(usize::from(most.min(MAX_CRAWLED)))
                .map(|l| {
                    let minutes = now.since(l.since).as_secs() / 60;
                    (l.addr, u16::try_from(minutes).unwrap_or(u16::MAX))
                })
                .collect()
        };
        let above = match self.config.mode {
            Mode::Leaf => Relation::Shield,
            _ => Relation::Peer,
        };
        let pong = CrawlPong {
            ultrapeers: told(above, ping.ultrapeers),
            leaves: told(Relation::Leaf, ping.leaves),
            minutes: ping.minutes,
        };
        self.tell(from, guid, &Vendor::CrawlPong(pong), out);
    }

    /// As a push proxy, by a datagram: the downloader must be where the servent is to connect to.
    fn on_udp_push(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let Ok(push) = Push::read(payload) else {
            return;
        };
        if push.addr.ip() != from.ip() || push.addr.port() == 0 || !self.may_answer_datagram(now) {
            return;
        }
        if push.servent == self.servent {
            out.push(Effect::Give(push));
        } else {
            self.proxy_push(push.servent, push.addr, out);
        }
    }
}
