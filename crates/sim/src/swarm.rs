//! Swarms: real torrents, chokers, pickers and a real tracker, in virtual time.
//!
//! Peers of classes (rates, habits, how long they stay) arrive, meet through the tracker, trade and
//! leave. Each is a whole [`shoal_bittorrent::torrent::Torrent`], and what they say to each other
//! are the bytes of the peer wire; only payload is not carried, as all of it is genuine.
//!
//! The model of the access line: the uplink sends one block at a time, taking turns among the
//! connections that wait for one; the downlink delivers blocks one after the other, never faster
//! than its rate. Control messages cost the path's delay but no bandwidth.

pub mod club;
pub mod crowd;
pub mod diversity;
pub mod flashcrowd;
pub mod freerider;
pub mod incentives;
pub mod life;
mod message;
mod peer;
pub mod spread;
pub mod steady;
pub mod theory;

pub use message::{Packet, Segment};
pub use peer::{News, Peer, Record};

use crate::digest::Digest;
use crate::experiment::BadOptions;
use crate::link::Links;
use crate::space::Direct;
use crate::world::{Counts, Step, World};
use crate::{Sessions, rng_for};
use shoal_base::bencode::Encoder;
use shoal_base::{Bitfield, InfoHash, Rng, Time};
use shoal_bittorrent::choker::Choking;
use shoal_bittorrent::tracker::swarms::{Announce, Swarms, SwarmsConfig};
use shoal_bittorrent::tracker::{AnnounceEvent, compact};
use shoal_content::Info;
use shoal_content::download::Mode;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Peers a tracker tells at once.
const NUM_WANT: usize = 50;
/// How often a peer announces itself.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(600);
/// Everyone listens here.
const PORT: u16 = 6881;
/// Nodes have addresses in 10.0.0.0/8.
const MAX_NODES: u32 = 1 << 24;

/// Where node `node` listens. The number is written backwards, so that neighbours in number lie in
/// different subnets, as strangers do: allowed-fast sets (BEP 6) are drawn by subnet.
fn address(node: u32) -> SocketAddr {
    let [a, b, c, _] = node.reverse_bits().to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(10, a, b, c).into(), PORT)
}

/// The node that listens at `addr`.
fn node_of(addr: SocketAddr) -> Option<u32> {
    match addr.ip() {
        IpAddr::V4(ip) => {
            let [_, a, b, c] = ip.octets();
            Some(u32::from_be_bytes([a, b, c, 0]).reverse_bits())
        }
        IpAddr::V6(_) => None,
    }
}

/// Why an experiment has no content.
fn too_large() -> BadOptions {
    BadOptions("there is no content of so many pieces".into())
}

/// How long a peer stays once it has everything.
#[derive(Clone, Debug, PartialEq)]
pub enum Stay {
    /// Not at all.
    Leaves,
    /// For a session drawn from this.
    For(Sessions),
    /// For ever.
    Forever,
}

/// What peers of one kind have in common.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its place among the classes of the swarm; given by [`Swarm::class`].
    pub index: usize,
    /// Payload bytes a second out.
    pub up: u64,
    /// Payload bytes a second in; none: no limit.
    pub down: Option<u64>,
    /// Whether it serves others. If not, it never unchokes anybody.
    pub shares: bool,
    /// In what order it fetches pieces.
    pub mode: Mode,
    /// Whom it serves.
    pub choking: Choking,
    /// How long it stays as a seed.
    pub stay: Stay,
    /// How long it stays without having everything, at most.
    pub patience: Option<Sessions>,
    /// Whether somebody new of the class comes when one leaves.
    pub replaced: bool,
}

impl Class {
    /// Honest peers with an uplink of `up` bytes a second and a downlink without limit, that leave
    /// when they have everything.
    pub fn new(up: u64) -> Self {
        Self {
            index: 0,
            up,
            down: None,
            shares: true,
            mode: Mode::RarestFirst,
            choking: Choking::TitForTat,
            stay: Stay::Leaves,
            patience: None,
            replaced: false,
        }
    }
}

/// What the swarm shares, and how peers are joined.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// How many pieces.
    pub pieces: u32,
    /// Bytes of each.
    pub piece_len: u32,
    /// Most connections a peer has.
    pub neighbours: usize,
}

impl Content {
    /// Bytes of all pieces.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pieces) * u64::from(self.piece_len)
    }

    /// The info dictionary. Private (BEP 27), so that peers come from the tracker alone.
    fn info(&self) -> Option<Info> {
        let mut e = Encoder::new();
        e.dict(|d| {
            d.key("length")
                .int(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
            d.key("name").bytes("content");
            d.key("piece length").int(i64::from(self.piece_len));
            d.key("pieces").bytes(vec![7; self.pieces as usize * 20]);
            d.key("private").int(1);
        });
        Info::parse(&e.into_bytes()).ok()
    }
}

/// What is to happen at a time, packed into a token of [`World::schedule`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// The next peer of a class arrives, and the one after is drawn.
    Arrival(u32),
    /// A peer of a class arrives, alone.
    Join(u32),
    /// A peer's time is over.
    Depart(u32),
    /// A peer gives up if it lacks pieces.
    GiveUp(u32),
    /// A peer announces itself.
    Announce(u32),
    /// The caller wants to look.
    Look,
}

impl Plan {
    fn token(self) -> u64 {
        let (kind, what) = match self {
            Self::Look => (0, 0),
            Self::Arrival(class) => (1, class),
            Self::Join(class) => (2, class),
            Self::Depart(node) => (3, node),
            Self::GiveUp(node) => (4, node),
            Self::Announce(node) => (5, node),
        };
        kind << 32 | u64::from(what)
    }

    fn of(token: u64) -> Self {
        let what = token as u32;
        match token >> 32 {
            1 => Self::Arrival(what),
            2 => Self::Join(what),
            3 => Self::Depart(what),
            4 => Self::GiveUp(what),
            5 => Self::Announce(what),
            _ => Self::Look,
        }
    }
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Peers that lack pieces.
    pub leechers: u32,
    /// Peers that have everything.
    pub seeds: u32,
    /// Came, since the beginning.
    pub arrived: u32,
    /// Got everything, since the beginning.
    pub completed: u32,
    /// Left without having everything, since the beginning.
    pub aborted: u32,
}

/// A swarm in virtual time.
pub struct Swarm {
    seed: u64,
    world: World<Peer>,
    tracker: Swarms,
    content: Content,
    info: Info,
    hash: InfoHash,
    classes: Vec<Class>,
    /// Mean seconds between arrivals, by class; zero: none arrive.
    gaps: Vec<f64>,
    rng: Rng,
    census: Census,
    /// How many peers have each piece.
    copies: Vec<u32>,
}

impl Swarm {
    /// A swarm without peers; none if there is no such content.
    pub fn new(seed: u64, content: Content, links: Links) -> Option<Self> {
        let mut rng = rng_for(seed, u64::MAX - 1);
        let config = SwarmsConfig {
            peer_life: ANNOUNCE_EVERY * 3,
            max_torrents: 1,
            address_counts: None,
            limit_local: false,
        };
        let info = content.info()?;
        Some(Self {
            seed,
            world: World::new(seed, Direct, links),
            tracker: Swarms::new(config, &mut rng),
            content,
            hash: info.info_hash(),
            info,
            classes: Vec::new(),
            gaps: Vec::new(),
            rng,
            census: Census::default(),
            copies: vec![0; content.pieces as usize],
        })
    }

    /// Adds a class; gives its number.
    pub fn class(&mut self, class: Class) -> usize {
        let index = self.classes.len();
        self.classes.push(Class { index, ..class });
        self.gaps.push(0.0);
        index
    }

    /// From now on peers of `class` arrive at `rate` a second, at random (Poisson).
    pub fn arrive(&mut self, class: usize, rate: f64) {
        let Some(gap) = self.gaps.get_mut(class) else {
            return;
        };
        let began = std::mem::replace(gap, if rate > 0.0 { 1.0 / rate } else { 0.0 }) > 0.0;
        if !began && rate > 0.0 {
            self.plan_arrival(class);
        }
    }

    /// `count` peers of `class` arrive within `within` from now on, each at a time of its own.
    pub fn crowd(&mut self, class: usize, count: usize, within: Duration) {
        for _ in 0..count {
            let after = within.mul_f64(self.rng.unit());
            self.plan(after, Plan::Join(class as u32));
        }
    }

    fn plan(&mut self, after: Duration, plan: Plan) {
        self.world.schedule(self.world.now() + after, plan.token());
    }

    fn plan_arrival(&mut self, class: usize) {
        let mean_s = self.gaps.get(class).copied().unwrap_or_default();
        if mean_s > 0.0 {
            let gap = Sessions::Exponential { mean_s }.draw(&mut self.rng);
            self.plan(gap, Plan::Arrival(class as u32));
        }
    }

    /// A peer of `class` with the pieces `have` comes now; gives its number, none if there is no
    /// such class or no address left.
    pub fn join(&mut self, class: usize, have: Bitfield) -> Option<u32> {
        let class = self.classes.get(class)?;
        let node = self.world.len() as u32;
        if node >= MAX_NODES {
            return None;
        }
        let now = self.world.now();
        let complete = have.is_full();
        for piece in have.iter() {
            self.copies[piece as usize] += 1;
        }
        let rng = self.world.rng(node);
        let near = self.content.neighbours;
        let peer = Peer::new(now, node, class, near, &self.info, have, rng);
        let patience = class.patience.clone();
        self.world.add(peer);
        self.world.start(node);
        self.census.arrived += 1;
        if complete {
            self.census.seeds += 1;
            self.plan_departure(node);
        } else {
            self.census.leechers += 1;
            if let Some(patience) = patience {
                let after = patience.draw(&mut self.rng);
                self.plan(after, Plan::GiveUp(node));
            }
        }
        self.announce(node, AnnounceEvent::Started);
        // Not all at the same moment.
        let first = ANNOUNCE_EVERY.mul_f64(0.5 + 0.5 * self.rng.unit());
        self.plan(first, Plan::Announce(node));
        Some(node)
    }

    /// A peer without any piece comes now.
    pub fn join_empty(&mut self, class: usize) -> Option<u32> {
        self.join(class, Bitfield::new(self.content.pieces))
    }

    /// A peer with all pieces comes now.
    pub fn join_seed(&mut self, class: usize) -> Option<u32> {
        self.join(class, Bitfield::full(self.content.pieces))
    }

    fn announce(&mut self, node: u32, event: AnnounceEvent) {
        let peer = self.world.node(node);
        let announce = Announce {
            info_hash: self.hash,
            peer: peer.addr(),
            seeder: peer.torrent().is_some_and(|t| t.is_finished()),
            event,
            num_want: NUM_WANT,
        };
        let mut told = Vec::new();
        let random = self.rng.next_u64();
        let now = self.world.now();
        // One swarm without limits: nothing is refused.
        let _ = self.tracker.announce(now, &announce, random, &mut told);
        let peers: Vec<_> = compact::decode_v4(&told).collect();
        if event != AnnounceEvent::Stopped {
            self.world
                .call(node, |peer, ctx| peer.on_tracker(ctx, &peers));
        }
    }

    fn plan_departure(&mut self, node: u32) {
        let class = self.world.node(node).record.class;
        match self.classes.get(class).map(|c| c.stay.clone()) {
            Some(Stay::Leaves) => self.depart(node),
            Some(Stay::For(sessions)) => {
                let after = sessions.draw(&mut self.rng);
                self.world
                    .call(node, |peer, _| peer.record.stays = Some(after));
                self.plan(after, Plan::Depart(node));
            }
            Some(Stay::Forever) | None => {}
        }
    }

    /// A peer leaves now.
    pub fn depart(&mut self, node: u32) {
        if !self.world.is_up(node) {
            return;
        }
        self.announce(node, AnnounceEvent::Stopped);
        if let Some(torrent) = self.world.node(node).torrent() {
            if torrent.is_finished() {
                self.census.seeds -= 1;
            } else {
                self.census.leechers -= 1;
                self.census.aborted += 1;
            }
            for piece in torrent.download().iter().flat_map(|d| d.have().iter()) {
                self.copies[piece as usize] -= 1;
            }
        }
        self.world.call(node, Peer::leave);
        self.world.crash(node);
        let class = self.world.node(node).record.class;
        if self.classes.get(class).is_some_and(|c| c.replaced) {
            self.plan(Duration::ZERO, Plan::Join(class as u32));
        }
    }

    /// Runs until `until`.
    pub fn run_until(&mut self, until: Time) {
        self.world.schedule(until, Plan::Look.token());
        while self.step() {}
    }

    /// Runs until all who came have left or have everything, but not beyond `until`; true if so.
    pub fn run_until_complete(&mut self, peers: u32, until: Time) -> bool {
        self.world.schedule(until, Plan::Look.token());
        while self.census.completed < peers {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// Lets the next thing happen; false if the caller wanted to look now.
    fn step(&mut self) -> bool {
        match self.world.advance() {
            Step::Quiet => return false,
            Step::Told(_, News::Have(piece)) => self.copies[piece as usize] += 1,
            Step::Told(node, News::Finished) => self.on_finished(node),
            Step::Control(token) => match Plan::of(token) {
                Plan::Look => return false,
                Plan::Arrival(class) => {
                    self.join_empty(class as usize);
                    self.plan_arrival(class as usize);
                }
                Plan::Join(class) => {
                    self.join_empty(class as usize);
                }
                Plan::Depart(node) => self.depart(node),
                Plan::GiveUp(node) => {
                    let torrent = self.world.node(node).torrent();
                    if torrent.is_some_and(|t| !t.is_finished()) {
                        self.depart(node);
                    }
                }
                Plan::Announce(node) => {
                    if self.world.is_up(node) {
                        self.announce(node, AnnounceEvent::None);
                        self.plan(ANNOUNCE_EVERY, Plan::Announce(node));
                    }
                }
            },
        }
        true
    }

    fn on_finished(&mut self, node: u32) {
        self.census.completed += 1;
        self.census.leechers -= 1;
        self.census.seeds += 1;
        let class = self.world.node(node).record.class;
        if self
            .classes
            .get(class)
            .is_some_and(|c| c.stay != Stay::Leaves)
        {
            self.announce(node, AnnounceEvent::Completed);
        }
        self.plan_departure(node);
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.world.now()
    }

    /// What is shared.
    pub fn content(&self) -> Content {
        self.content
    }

    /// How many there are.
    pub fn census(&self) -> Census {
        self.census
    }

    /// How many peers have each piece.
    pub fn copies(&self) -> &[u32] {
        &self.copies
    }

    /// All peers that ever came, by number.
    pub fn peers(&self) -> &[Peer] {
        self.world.nodes()
    }

    /// The hash of all events so far.
    pub fn digest(&self) -> Digest {
        self.world.digest()
    }

    /// Events and messages counted.
    pub fn counts(&self) -> Counts {
        self.world.counts()
    }
}

#[cfg(test)]
mod tests;
