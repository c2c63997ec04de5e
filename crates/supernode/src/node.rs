//! A node: an ordinary peer or a supernode, without sockets.
//!
//! The driver dials when told to ([`Effect::Dial`]), names each connection by a number that no
//! other open one has, hands messages in and sends what comes out.
//!
//! ```text
//!  links    the handshake: tokens, proofs, who is let in       queries  index, flooding, hits
//!  homes    an ordinary peer's supernode and its spares        roles    measuring, promotion, demotion
//!  children what they share, for another network
//!  pushes   asking a sharer that nobody can connect to,       balance  children moved to who has room,
//!           to connect itself                                          supernodes that are slow or too many
//!  letters  sealed letters to keys                             carry    letters straight to a supernode found
//!  doors    places, by which letters find somebody             relays   relays told of
//! ```

mod balance;
mod carry;
mod children;
mod doors;
mod homes;
mod kept;
mod letters;
mod links;
mod pushes;
mod queries;
mod relays;
mod roles;

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_content::keywords::Index;

use crate::Address;
use crate::list::{Entry, Registration};
use crate::place::{Place, Prefix};
use crate::token::{Key, Presence, Token};
use crate::verified::Verified;
use crate::wire::{File, Hit, Message, QueryId, Relay, Standing, Wanted, Why};
pub use children::OfChildren;
use homes::Candidate;
use kept::Kept;
use links::{Link, Stage};
use queries::{Allowance, Seen};

/// A connection, as the driver numbers it.
pub type LinkId = u32;

/// How often a node looks at its links.
const TICK: Duration = Duration::from_secs(1);
/// How often a supernode tells the list of itself, and its links of others.
const TELL: Duration = Duration::from_secs(30);
/// Other supernodes told with a welcome or a refusal.
const SPARES: usize = 20;
/// Presences remembered as checked, at most.
const MAX_VERIFIED: usize = 8192;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has a supernode.
    Peer,
    /// It is one.
    Supernode,
}

/// Limits and wishes of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unix time, in seconds, of [`Time::ZERO`].
    pub epoch: u64,
    /// The login server's key.
    pub trusted: Key,
    /// The role it begins with.
    pub role: Role,
    /// Whether it may be promoted and demoted.
    pub may_change: bool,
    /// Children at most.
    pub max_children: usize,
    /// Links to other supernodes that it looks for.
    pub neighbours: usize,
    /// Links to other supernodes that it takes.
    pub max_neighbours: usize,
    /// Links of one host at most; zero for no limit.
    pub links_per_host: usize,
    /// Links that one host may begin in a minute; zero for no limit.
    pub knocks_per_minute: u32,
    /// Hosts that neither limit holds for.
    pub unlimited: Vec<u128>,
    /// Percent of the places for children taken, at which another supernode is wanted.
    pub promote_at: u8,
    /// Bytes a second that a child must send to be promoted.
    pub min_bandwidth: u64,
    /// How long it must have been a child.
    pub min_uptime: Duration,
    /// Bytes of one measurement.
    pub probe_bytes: u32,
    /// After how long without a child a supernode that has neighbours becomes a peer again.
    pub idle: Duration,
    /// Percent by which another supernode must be less loaded for children to be sent there; over
    /// 100: none are.
    pub balance_at: u8,
    /// How often a supernode measures a neighbour.
    pub check_every: Duration,
    /// Supernodes that a query passes on beyond the first.
    pub ttl: u8,
    /// Hits of one query at most, and of one sharer among them.
    pub max_results: usize,
    /// Hits of one sharer in one query at most: who answers everything does not drown the rest.
    pub max_of_sharer: usize,
    /// Queries of one child in a minute.
    pub queries_per_minute: u32,
    /// Queries of one neighbour in a minute.
    pub flood_per_minute: u32,
    /// Files of one child at most.
    pub max_files: usize,
    /// Whether the driver asks another network too ([`Event::Asked`]).
    pub bridge: bool,
    /// Bytes a second that it sends when measured; none for as many as go.
    pub up_limit: Option<u64>,
    /// Presences that held; clones share it, so that nodes of one process check each once.
    pub verified: Verified,
    /// Letters of one child in a minute.
    pub letters_per_minute: u32,
    /// The TURN relay that it offers to its children and neighbours, if it runs one.
    pub relay: Option<RelayOffer>,
}

/// A relay as its owner knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayOffer {
    /// What credentials are made with.
    pub secret: Vec<u8>,
    /// Where it listens.
    pub at: Vec<std::net::SocketAddr>,
}

impl std::fmt::Debug for RelayOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayOffer({:?})", self.at)
    }
}

impl Config {
    /// Usual figures, for who trusts a login server.
    pub fn new(trusted: Key, role: Role) -> Self {
        Self {
            epoch: 0,
            trusted,
            role,
            may_change: true,
            max_children: 150,
            neighbours: 5,
            max_neighbours: 40,
            links_per_host: 0,
            knocks_per_minute: 0,
            unlimited: Vec::new(),
            promote_at: 75,
            min_bandwidth: 64 << 10,
            min_uptime: Duration::from_secs(60),
            probe_bytes: 256 << 10,
            idle: Duration::from_secs(600),
            balance_at: 25,
            check_every: Duration::from_secs(300),
            ttl: 4,
            max_results: 100,
            max_of_sharer: 20,
            queries_per_minute: 60,
            flood_per_minute: 6000,
            max_files: 5000,
            bridge: false,
            up_limit: None,
            verified: Verified::new(MAX_VERIFIED),
            letters_per_minute: 120,
            relay: None,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<A> {
    /// Connect, then [`Node::on_connected`] or [`Node::on_dial_failed`].
    Dial(A),
    /// Send.
    Send(LinkId, Message<A>),
    /// Send what waits, if it goes at once, and close; [`Node::on_closed`] is not to be called.
    Close(LinkId),
    /// Ask the list for supernodes, then [`Node::on_list`].
    AskList,
    /// Tell the list.
    Register(Box<Registration<A>>),
    /// Ask the ring for the place of whoever has a key that begins so, then [`Node::on_place`]. By nodes of which
    /// [`Node::set_finds`] said that they can.
    Find(Prefix),
    /// Have the ring keep this place, or [`Node::on_unkept`].
    Keep(Box<Place<A>>),
    /// Somebody may want to know.
    Event(Event<A>),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<A> {
    /// The supernode is this one now, or there is none.
    Home(Option<A>),
    /// What the node is now.
    Role(Role),
    /// Files found, whose sharers are who they say.
    Hits(QueryId, Vec<Hit<A>>),
    /// A link was refused.
    Refused(A, Why),
    /// A child sends so many bytes a second.
    Measured(A, u64),
    /// A query passed that another network may answer, by [`Node::found_elsewhere`].
    Asked(QueryId, Wanted),
    /// Somebody who cannot connect to us wants the file with this SHA-1: connect there and offer
    /// it.
    Push([u8; 20], A),
    /// A sealed letter came for us, by somebody who is said to have this key.
    Letter(Key, Vec<u8>),
    /// These relays may be used.
    Relays(Vec<Relay>),
}

/// What a node holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Children.
    pub children: u64,
    /// Links to other supernodes.
    pub neighbours: u64,
    /// Files in the index.
    pub files: u64,
    /// Supernodes known.
    pub known: u64,
    /// Queries taken, of children and neighbours and one's own.
    pub queries: u64,
    /// Queries that came again and went no further.
    pub duplicates: u64,
    /// Queries that a limit turned down.
    pub limited: u64,
    /// Hits passed on.
    pub hits: u64,
    /// Hits dropped: forged, or of no query, or not what was asked for.
    pub forged: u64,
    /// Links refused.
    pub refused: u64,
    /// Letters delivered or passed on.
    pub letters: u64,
    /// Letters, of children and one's own, for which nobody knew where to go: they were flooded.
    pub floods: u64,
    /// Times that the ring was asked where somebody is.
    pub sought: u64,
}

/// A node. See the module's text.
#[derive(Debug)]
pub struct Node<A> {
    config: Config,
    key: SigningKey,
    presence: Presence<A>,
    rng: Rng,
    now: Time,
    role: Role,
    may_rise: bool,
    next_tick: Time,
    next_tell: Time,
    next_ask: Time,
    links: BTreeMap<LinkId, Link<A>>,
    /// When the first of the links has something of a measurement to send, or sooner.
    next_chunk: Option<Time>,
    dialling: BTreeMap<A, (crate::wire::Purpose, Time)>,
    candidates: BTreeMap<A, Candidate>,
    parent: Option<LinkId>,
    banned: BTreeMap<Key, Time>,
    /// Who began links lately.
    knocks: BTreeMap<u128, Allowance>,
    files: Vec<File>,
    /// How it stands with those who fetch from it, if the driver said so.
    standing: Option<Standing>,
    index: Index<Kept>,
    /// Which child an owner number of the index belongs to; 0 is the node itself.
    owners: Vec<Option<LinkId>>,
    seen: BTreeMap<QueryId, Seen>,
    seen_order: std::collections::VecDeque<QueryId>,
    /// Changes when what children share does.
    shared_version: u64,
    childless_since: Time,
    role_since: Time,
    /// Where a child is on its way to, and since when.
    moving: Option<(A, Time)>,
    /// What neighbours measured of us.
    measured: BTreeMap<Key, (u64, Time)>,
    next_check: Time,
    next_balance: Time,
    /// The load that neighbours were last told.
    told_load: u8,
    post: letters::Post,
    carriage: carry::Carriage<A>,
    doors: doors::Doors<A>,
    /// Whether it stands in the ring of supernodes.
    finds: bool,
    stats: Stats,
    out: Vec<Effect<A>>,
}

impl<A: Address> Node<A> {
    /// A node that was not started: [`Node::start`] does.
    pub fn new(config: Config, key: SigningKey, presence: Presence<A>, rng: Rng) -> Self {
        Self {
            role: config.role,
            may_rise: true,
            config,
            key,
            presence,
            rng,
            now: Time::ZERO,
            next_tick: Time::ZERO,
            next_tell: Time::ZERO,
            next_ask: Time::ZERO,
            links: BTreeMap::new(),
            next_chunk: None,
            dialling: BTreeMap::new(),
            candidates: BTreeMap::new(),
            parent: None,
            banned: BTreeMap::new(),
            knocks: BTreeMap::new(),
            files: Vec::new(),
            standing: None,
            index: Index::default(),
            owners: vec![None],
            seen: BTreeMap::new(),
            seen_order: std::collections::VecDeque::new(),
            shared_version: 0,
            childless_since: Time::ZERO,
            role_since: Time::ZERO,
            moving: None,
            measured: BTreeMap::new(),
            next_check: Time::ZERO,
            next_balance: Time::ZERO,
            told_load: 0,
            post: letters::Post::default(),
            carriage: carry::Carriage::default(),
            doors: doors::Doors::default(),
            finds: false,
            stats: Stats::default(),
            out: Vec::new(),
        }
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where its supernode is, if it has one.
    pub fn home(&self) -> Option<A> {
        self.links.get(&self.parent?)?.addr()
    }

    /// Links to other supernodes over which queries go.
    pub fn neighbours(&self) -> impl Iterator<Item = LinkId> + '_ {
        let all = self.links.iter();
        let neighbours = all.filter(|(_, l)| l.stage == Stage::Neighbour);
        neighbours.map(|(id, _)| *id)
    }

    /// What it holds and did.
    pub fn stats(&self) -> Stats {
        Stats {
            children: self.count(Stage::Child) as u64,
            neighbours: self.count(Stage::Neighbour) as u64,
            files: self.index.len() as u64,
            known: self.candidates.len() as u64,
            ..self.stats
        }
    }

    fn count(&self, stage: Stage) -> usize {
        self.links.values().filter(|l| l.stage == stage).count()
    }

    fn of_stage(&self, stage: Stage) -> Vec<LinkId> {
        let of = self.links.iter().filter(|(_, l)| l.stage == stage);
        of.map(|(id, _)| *id).collect()
    }

    fn unix(&self) -> u64 {
        self.config.epoch + self.now.as_micros() / 1_000_000
    }

    /// Percent of the places for children taken.
    fn load(&self) -> u8 {
        let children = self.count(Stage::Child) * 100;
        (children / self.config.max_children.max(1)).min(100) as u8
    }

    fn send(&mut self, to: LinkId, message: Message<A>) {
        self.out.push(Effect::Send(to, message));
    }

    fn tell(&mut self, event: Event<A>) {
        self.out.push(Effect::Event(event));
    }

    /// Begins: looks for supernodes.
    pub fn start(&mut self, now: Time, out: &mut Vec<Effect<A>>) {
        self.now = now;
        self.childless_since = now;
        self.role_since = now;
        self.next_check = now + self.config.check_every.mul_f64(self.rng.unit());
        self.index_own();
        self.look(out);
    }

    /// Does what is due, and hands over what is to be done.
    fn look(&mut self, out: &mut Vec<Effect<A>>) {
        self.tick();
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<Effect<A>>) {
        out.append(&mut self.out);
    }

    /// When [`Node::on_tick`] is to be called.
    pub fn deadline(&self) -> Time {
        self.next_chunk
            .map_or(self.next_tick, |at| at.min(self.next_tick))
    }

    /// As the links say it, each of them looked at.
    fn first_chunk(&self) -> Option<Time> {
        self.links.values().filter_map(Link::next_chunk).min()
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Effect<A>>) {
        self.now = now;
        self.send_chunks();
        if now >= self.next_tick {
            self.tick();
        }
        self.flush(out);
    }

    fn tick(&mut self) {
        // Nodes that started at once do not stay in step.
        self.next_tick = self.now + TICK.mul_f64(0.9 + 0.2 * self.rng.unit());
        self.check_links();
        self.find_links();
        if self.role == Role::Supernode {
            self.consider_roles();
        }
        if self.role == Role::Supernode {
            let due = self.now >= self.next_tell;
            self.tell_state(due);
            if due {
                self.next_tell = self.now + TELL;
                self.register(self.load());
                let spares = self.spares(None);
                for id in self.links_up() {
                    self.send(id, Message::Spares(spares.clone()));
                    self.tell_relays(id);
                }
            }
        }
        self.forget_queries();
        self.tend_places();
        self.tend_carriage();
    }

    /// Children and neighbours.
    fn links_up(&self) -> Vec<LinkId> {
        let up = |l: &Link<A>| matches!(l.stage, Stage::Child | Stage::Neighbour);
        let of = self.links.iter().filter(|(_, l)| up(l));
        of.map(|(id, _)| *id).collect()
    }

    fn register(&mut self, load: u8) {
        let said = Registration::new(&self.key, self.presence.clone(), load, self.unix());
        self.out.push(Effect::Register(Box::new(said)));
    }

    /// A fresh token came: it is shown on new links, and on those that are there.
    pub fn renew(&mut self, now: Time, token: Token, out: &mut Vec<Effect<A>>) {
        self.now = now;
        let (links, files) = (self.presence.links, self.presence.files);
        self.presence = Presence::new(&self.key, token, links, files);
        for id in self.links_up().into_iter().chain(self.parent) {
            let presence = Box::new(self.presence.clone());
            self.send(id, Message::Renewed(presence));
        }
        self.renew_place();
        self.flush(out);
    }

    /// Ends: children are told where else to go, the list that it leaves.
    pub fn stop(&mut self, now: Time, out: &mut Vec<Effect<A>>) {
        self.now = now;
        if self.role == Role::Supernode {
            self.register(u8::MAX);
        }
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.refuse(id, Why::Leaving);
        }
        self.flush(out);
    }

    /// The list of supernodes answered.
    pub fn on_list(&mut self, now: Time, entries: &[Entry<A>], out: &mut Vec<Effect<A>>) {
        self.now = now;
        self.learn(entries);
        self.find_links();
        self.flush(out);
    }

    /// Checks what must always hold; for tests and fuzzing.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn check_invariants(&self) {
        assert!(self.count(Stage::Child) <= self.config.max_children);
        assert!(self.count(Stage::Neighbour) <= self.config.max_neighbours);
        assert!(self.candidates.len() <= homes::MAX_CANDIDATES);
        assert_eq!(self.seen.len(), self.seen_order.len());
        assert!(self.seen.len() <= queries::MAX_SEEN);
        assert!(self.banned.len() <= links::MAX_BANNED);
        assert!(self.knocks.len() <= links::MAX_KNOCKS);
        assert!(self.measured.len() <= balance::MAX_REPORTS);
        // A link that ended may have left it early, never late.
        let chunk = self.first_chunk();
        assert!(chunk.is_none() || self.next_chunk.is_some_and(|at| Some(at) <= chunk));
        self.post.check_invariants();
        self.carriage.check_invariants();
        self.check_doors();
        assert!(self.count(Stage::Carrier) <= carry::MAX_CARRIERS);
        if let Some(parent) = self.parent {
            let link = self.links.get(&parent).expect("the parent is a link");
            assert!(link.stage == Stage::Parent && self.role == Role::Peer);
        }
        for (id, link) in &self.links {
            let owner = self.owners.iter().position(|o| *o == Some(*id));
            assert_eq!(
                owner,
                link.owner.map(|o| o as usize),
                "owners and links agree"
            );
            if link.stage == Stage::Child {
                assert_eq!(self.role, Role::Supernode);
            }
        }
        let mut files = 0;
        for owner in 0..self.owners.len() {
            files += self.index.files_of(owner as u32);
        }
        assert_eq!(
            files,
            self.index.len(),
            "every file has an owner who is here"
        );
    }

    fn allowance(&self, stage: Stage) -> Allowance {
        Allowance::new(match stage {
            Stage::Neighbour => self.config.flood_per_minute,
            _ => self.config.queries_per_minute,
        })
    }
}

#[cfg(test)]
mod tests;
