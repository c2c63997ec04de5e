//! How a node is set up, and what it tells its driver.

use super::LinkId;
use crate::list::Registration;
use crate::place::{Place, Prefix};
use crate::token::Key;
use crate::verified::Verified;
use crate::wire::{Hit, Message, QueryId, Relay, Wanted, Why};
use std::time::Duration;

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
