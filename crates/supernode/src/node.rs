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
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_content::keywords::Index;

use crate::Address;
use crate::list::{Entry, Registration};
use crate::token::{Key, Presence, Token};
use crate::wire::{File, Message, QueryId, Standing, Why};
pub use children::OfChildren;
use homes::Candidate;
use kept::Kept;
use links::{Link, Stage};
use queries::{Allowance, Seen};
pub use told::{Config, Effect, Event, RelayOffer, Role, Stats};

/// A connection, as the driver numbers it.
pub type LinkId = u32;

/// How often a node looks at its links.
const TICK: Duration = Duration::from_secs(1);
/// How often a supernode tells the list of itself, and its links of others.
const TELL: Duration = Duration::from_secs(30);

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
