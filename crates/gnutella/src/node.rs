//! A Gnutella node: connections, ways back, queries and their answers, without sockets or clock.
//!
//! The driver makes connections and carries the handshake ([`crate::handshake`]) with what
//! [`Node::greeting`] and [`Node::judge`] say; then it hands every message to [`Node::on_message`]
//! and sends what [`Node::pop`] gives. Connections are named by [`ConnId`], so that the same node
//! runs on sockets and, by the thousand, in the simulator.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use shoal_base::{Rng, Time};

use crate::guid::Guid;
use crate::hosts::Hosts;
use crate::huge::{Sha1, TigerRoot};
use crate::message::bye::{Bye, code};
use crate::message::hit::{Found, Hit, Status};
use crate::message::push::Push;
use crate::message::vendor::Vendor;
use crate::message::{Header, Kind, Packet};
use crate::qrp::Table;
use crate::shared::{Shared, SharedFile};

mod config;
mod dynamic;
mod guard;
mod link;
mod neighbours;
mod oob;
mod outbox;
mod pings;
mod pongs;
mod probes;
mod promotion;
mod push;
mod query;
mod reach;
mod routes;
mod stats;
mod tables;
mod vendor;

pub use config::{Config, Load, Mode};
pub use link::{LinkInfo, Relation};
pub use promotion::Promotion;
pub use stats::Stats;

use dynamic::Dynamics;
use guard::Answerers;
use link::Link;
use oob::OutOfBand;
use pongs::Pongs;
use query::Search;
use reach::Openness;
use routes::{Route, Routes, Way};

/// Names a connection; never used for another while anybody may still speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    count: u32,
}

impl ConnId {
    /// Its place; places are used again.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its number there.
    pub index: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its name: data, never a path.
    pub name: String,
    /// Its SHA-1.
    pub sha1: Option<Sha1>,
    /// The root of its Tiger tree.
    pub tiger: Option<TigerRoot>,
    /// Who else shares it.
    pub sources: Vec<SocketAddrV4>,
}

/// Files that match a query of ours, and who shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it serves.
    pub addr: SocketAddrV4,
    /// Names it; a Push is sent to this.
    pub servent: Guid,
    /// Its upload speed in kbit/s, as it says.
    pub speed: u32,
    /// Its program, in four letters.
    pub vendor: [u8; 4],
    /// What it says of itself.
    pub status: Status,
    /// Who passes a Push on to it.
    pub proxies: Vec<SocketAddrV4>,
    /// Whether it says that it speaks TLS.
    pub tls: bool,
    /// Where it serves on the overlay, if it is one of ours and there.
    pub overlay: Option<SocketAddrV6>,
    /// Hops that the answer took.
    pub hops: u8,
    /// What matched.
    pub files: Vec<FoundFile>,
}

impl FoundFile {
    /// As an answer tells it.
    pub fn of(found: &Found<'_>) -> Self {
        Self {
            index: found.index,
            size: found.size,
            name: String::from_utf8_lossy(found.name).into_owned(),
            sha1: found.sha1,
            tiger: found.tiger,
            sources: found.sources.clone(),
        }
    }
}

impl Answer {
    /// What came in a message over so many hops, with those of its files that are wanted.
    pub fn of(hit: Hit<'_>, hops: u8, files: Vec<FoundFile>) -> Self {
        Self {
            addr: hit.addr,
            servent: hit.servent,
            speed: hit.speed,
            vendor: hit.vendor,
            status: hit.status,
            proxies: hit.proxies,
            tls: hit.tls,
            overlay: hit.overlay,
            hops,
            files,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Something waits for a connection: send what [`Node::pop`] gives.
    Ready(ConnId),
    /// Close a connection, behind what waits for it.
    Close(ConnId),
    /// Connect; to an overlay address only if we have one.
    Dial(SocketAddr),
    /// Send a datagram.
    Datagram(SocketAddrV4, Packet),
    /// A query of ours was answered.
    Found {
        /// What [`Node::search`] returned.
        search: Guid,
        /// The answer.
        answer: Box<Answer>,
    },
    /// A query of ours is at its end; answers may still come.
    Searched(Guid),
    /// Somebody asks us to connect and offer a file (`GIV`).
    Give(Push),
    /// A neighbour asks us to connect, to see whether it can be reached.
    ConnectBack(SocketAddrV4),
    /// It has another role from now on.
    Role(Mode),
    /// A neighbour said why it leaves.
    Farewell(ConnId, Bye),
}

/// How often connections are looked after.
const LOOK: Duration = Duration::from_secs(5);
/// After how long without a message a neighbour is pinged, and then let go.
const QUIET: Duration = Duration::from_secs(60);
const SILENT: Duration = Duration::from_secs(150);
/// Connections that are sought at once.
const DIALS: usize = 4;

/// A node.
#[derive(Debug)]
pub struct Node<S> {
    config: Config,
    rng: Rng,
    /// Names us.
    servent: Guid,
    shared: S,
    links: Vec<Option<Link>>,
    /// How many connections there were.
    count: u32,
    routes: Routes,
    pongs: Pongs,
    hosts: Hosts,
    /// Those on the overlay.
    places: Hosts<SocketAddrV6>,
    dynamics: Dynamics,
    searches: Vec<Search>,
    answerers: Answerers,
    /// Our table, with the leaves' if we are an ultrapeer.
    table: Option<Arc<Table>>,
    /// What the table was made of has changed since.
    dirty: bool,
    version: u64,
    tables_due: Time,
    look: Time,
    datagrams: guard::Allowance,
    crawls: guard::Allowance,
    oob: OutOfBand,
    /// HEAD pings that leaves are to answer.
    heads: std::collections::VecDeque<probes::Passed>,
    openness: Openness,
    /// When it began, or was a leaf again.
    since: Time,
    /// When it was last of use as an ultrapeer.
    useful: Time,
    stats: Stats,
    load: Load,
    // Scratch space, kept from one query to the next.
    files: Vec<SharedFile>,
    slots: Vec<usize>,
}

impl<S: Shared> Node<S> {
    /// A node that shares what `shared` holds.
    pub fn new(now: Time, config: Config, shared: S, mut rng: Rng) -> Self {
        Self {
            servent: Guid::random(&mut rng),
            routes: Routes::new(now, config.routes, config.remember, &mut rng),
            hosts: Hosts::new(config.hosts),
            places: Hosts::new(config.hosts),
            version: shared.version(),
            rng,
            shared,
            links: Vec::new(),
            count: 0,
            pongs: Pongs::default(),
            dynamics: Dynamics::default(),
            searches: Vec::new(),
            answerers: Answerers::default(),
            table: None,
            dirty: true,
            tables_due: now,
            look: now,
            datagrams: guard::Allowance::new(now, 50.0),
            crawls: guard::Allowance::new(now, 5.0),
            oob: OutOfBand::default(),
            heads: std::collections::VecDeque::new(),
            openness: Openness::default(),
            since: now,
            useful: now,
            stats: Stats::default(),
            load: Load::default(),
            files: Vec::new(),
            slots: Vec::new(),
            config,
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names us.
    pub fn servent(&self) -> Guid {
        self.servent
    }

    /// What is shared.
    pub fn shared(&mut self) -> &mut S {
        &mut self.shared
    }

    /// The hosts that are known.
    pub fn hosts(&mut self) -> &mut Hosts {
        &mut self.hosts
    }

    /// Where others reach us, once it is known.
    pub fn set_listen(&mut self, listen: Option<SocketAddrV4>) {
        self.config.listen = listen;
    }

    /// TTL of its own queries, from the next on: who looks near before far asks again with a greater.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.config.ttl = ttl;
    }

    /// What can still be given of what is shared; ultrapeers hear of it when queries begin or cease to be in
    /// vain (hops flow, BEAR/4).
    pub fn set_load(&mut self, load: Load, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.load, load);
        if (before == Load::Full) == (load == Load::Full) {
            return;
        }
        let hops = self.wanted_hops();
        let shields = self.links().filter(|l| l.relation == Relation::Shield);
        let shields: Vec<ConnId> = shields.filter(|l| l.vendor).map(|l| l.id).collect();
        for id in shields {
            let guid = Guid::random(&mut self.rng);
            self.send_vendor(id, guid, &Vendor::HopsFlow(hops), out);
        }
    }

    /// Queries of so many hops or more are not wanted from ultrapeers.
    fn wanted_hops(&self) -> u8 {
        match self.load {
            Load::Full => 0,
            Load::Free | Load::Busy => self.config.max_ttl,
        }
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let count = |relation| self.links().filter(|l| l.relation == relation).count();
        let leaves = count(Relation::Leaf);
        Stats {
            ultrapeers: self.links().count() - leaves,
            leaves,
            querying: self.dynamics.len(),
            routes: self.routes.len(),
            hosts: self.hosts.len(),
            ..self.stats
        }
    }

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = LinkInfo> + '_ {
        self.links().map(Link::info)
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    fn link(&self, id: ConnId) -> Option<&Link> {
        let link = self.links.get(id.slot())?.as_ref()?;
        (link.id == id).then_some(link)
    }

    fn link_mut(&mut self, id: ConnId) -> Option<&mut Link> {
        let link = self.links.get_mut(id.slot())?.as_mut()?;
        (link.id == id).then_some(link)
    }

    /// The next message to send to a neighbour.
    pub fn pop(&mut self, id: ConnId) -> Option<Packet> {
        let link = self.link_mut(id)?;
        let packet = link.out.pop();
        link.out.told &= packet.is_some();
        packet
    }

    /// Bytes that wait for a neighbour.
    pub fn waiting(&self, id: ConnId) -> usize {
        self.link(id).map_or(0, |l| l.out.bytes())
    }

    fn send(&mut self, id: ConnId, packet: Packet, out: &mut Vec<Effect>) {
        let most = self.config.queue;
        let Some(link) = self.link_mut(id).filter(|l| !l.closing) else {
            return;
        };
        let Some(dropped) = link.out.push(packet, most) else {
            return self.bye(id, code::FULL, "Send queue full", out);
        };
        if !link.out.told {
            link.out.told = true;
            out.push(Effect::Ready(id));
        }
        self.stats.sent += 1;
        self.stats.dropped += dropped;
    }

    fn send_vendor(&mut self, id: ConnId, guid: Guid, message: &Vendor, out: &mut Vec<Effect>) {
        let packet = Packet::ours(Kind::Vendor, guid, 1, &message.write());
        self.send(id, packet, out);
    }

    /// Takes a message that a neighbour sent.
    pub fn on_message(
        &mut self,
        now: Time,
        id: ConnId,
        header: Header,
        payload: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let max = self.config.max_ttl;
        let Some(link) = self.link_mut(id).filter(|l| !l.closing) else {
            return;
        };
        link.heard = now;
        link.conduct.messages += 1;
        self.stats.received += 1;
        // Nothing travels farther than `max`, whatever it claims (0.6 §2.3).
        let mut header = header;
        if header.hops > max {
            return self.malformed(id, out);
        }
        header.ttl = header.ttl.min(max - header.hops);
        let read = match header.known() {
            Some(Kind::Ping) => self.on_ping(now, id, header, payload, out),
            Some(Kind::Pong) => self.on_pong(now, id, header, payload, out),
            Some(Kind::Bye) => self.on_bye(id, payload, out),
            Some(Kind::Route) => self.on_route(id, payload, out),
            Some(Kind::Vendor | Kind::Standard) => self.on_vendor(now, id, header, payload, out),
            Some(Kind::Push) => self.on_push(id, header, payload, out),
            Some(Kind::Query) => self.on_query(now, id, header, payload, out),
            Some(Kind::Hit) => self.on_hit(now, id, header, payload, out),
            // Kinds we do not know are passed over, not punished.
            None => Some(()),
        };
        if read.is_none() {
            return self.malformed(id, out);
        }
        self.punish(id, out);
    }

    fn malformed(&mut self, id: ConnId, out: &mut Vec<Effect>) {
        self.stats.malformed += 1;
        if let Some(link) = self.link_mut(id) {
            link.conduct.malformed += 1;
        }
        self.punish(id, out);
    }

    fn punish(&mut self, id: ConnId, out: &mut Vec<Effect>) {
        if let Some((code, reason)) = self.link(id).and_then(|l| l.conduct.verdict()) {
            self.bye(id, code, reason, out);
        }
    }

    fn on_bye(&mut self, id: ConnId, payload: &[u8], out: &mut Vec<Effect>) -> Option<()> {
        let bye = Bye::read(payload).ok()?;
        let link = self.link_mut(id)?;
        link.closing = true;
        // Nobody reads what waits (Bye §4).
        link.out.clear();
        out.push(Effect::Farewell(id, bye));
        out.push(Effect::Close(id));
        Some(())
    }

    /// When [`Node::on_tick`] is next wanted.
    pub fn deadline(&self) -> Time {
        let queries = self.dynamics.deadline().unwrap_or(Time::FAR);
        let tables = if self.dirty {
            self.tables_due
        } else {
            Time::FAR
        };
        self.look.min(queries).min(tables)
    }

    /// Time has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.step_queries(now, out);
        self.dirty |= self.shared.version() != self.version;
        if self.dirty && now >= self.tables_due {
            self.update_tables(now, out);
        }
        if now < self.look {
            return;
        }
        self.look = now + LOOK;
        let quiet: Vec<(ConnId, Duration, Time)> = self
            .links()
            .map(|l| (l.id, now.since(l.heard), l.ping_due))
            .collect();
        for (id, silence, ping_due) in quiet {
            if silence >= SILENT {
                self.bye(id, code::NO_PONG, "No answer to a ping", out);
            } else if now >= ping_due || silence >= QUIET {
                self.ping(now, id, out);
            }
        }
        self.probe_again(now, out);
        self.review_role(now, out);
        self.seek(now, out);
    }

    /// Dials hosts while places are free.
    fn seek(&mut self, now: Time, out: &mut Vec<Effect>) {
        let relation = match self.config.mode {
            Mode::Ultrapeer => Relation::Peer,
            Mode::Leaf => Relation::Shield,
            Mode::Flood => Relation::Equal,
        };
        let wanted = self.free(relation).min(DIALS);
        if wanted == 0 {
            return;
        }
        let near: Vec<SocketAddrV4> = self.links().map(|l| l.addr).collect();
        let ours = self.config.listen;
        let taken = |addr: &SocketAddrV4| near.contains(addr) || ours == Some(*addr);
        let dial = self.hosts.to_dial(now, wanted, &mut self.rng, taken);
        let dialled = dial.len();
        out.extend(dial.into_iter().map(|addr| Effect::Dial(addr.into())));
        let Some(own) = self.config.overlay else {
            return;
        };
        // One at least: those with ordinary addresses may all be gone.
        let near: Vec<SocketAddrV6> = self.links().filter_map(|l| l.overlay).collect();
        let taken = |addr: &SocketAddrV6| near.contains(addr) || own.ip() == addr.ip();
        let most = (wanted - dialled).max(1);
        let dial = self.places.to_dial(now, most, &mut self.rng, taken);
        out.extend(dial.into_iter().map(|addr| Effect::Dial(addr.into())));
    }

    /// Takes a datagram: pings of host caches and their answers (UHC).
    pub fn on_datagram(
        &mut self,
        now: Time,
        from: SocketAddrV4,
        bytes: &[u8],
        out: &mut Vec<Effect>,
    ) {
        let Ok(header) = Header::read(bytes) else {
            return;
        };
        let payload = bytes.get(crate::message::HEADER..).unwrap_or_default();
        if payload.len() == header.len {
            self.on_udp(now, from, header, payload, out);
        }
    }
}

#[cfg(test)]
mod tests;
