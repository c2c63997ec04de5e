//! Kademlia as the public BitTorrent DHT speaks it: BEP 5 and, of its extensions, 32, 33, 42, 43,
//! 44, 46 and 51. `docs/protocols/mainline.md` says what is spoken how, and why.
//!
//! [`Mainline`] is one node with a routing table for each address family. It answers others
//! (`server`), looks up, stores and announces (`ops`, on `lookup`), and keeps its tables true
//! (`upkeep`).

pub mod bep42;
pub mod bloom;
mod items;
pub mod krpc;
mod limits;
mod lookup;
pub mod node;
mod ops;
mod peers;
pub mod pointer;
mod rpc;
mod server;
mod shares;
pub mod snapshot;
mod table;
mod tokens;
mod upkeep;

pub use crate::api::Health;
pub use items::Bounds as ItemBounds;
pub use node::{Exempt, Node};
pub use peers::Bounds as PeerBounds;
pub use snapshot::Snapshot;

use crate::{Dht, Id, OpId, Output, Request};
use bep42::Votes;
use items::Items;
use krpc::{Bad, Body, Call, Query, Want};
use limits::{Bucket, PerSource};
use ops::{Op, Purpose, Work};
use peers::Peers;
use rpc::{Late, Pending, Rpc};
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use table::Table;
use tokens::Tokens;
use upkeep::Upkeep;

/// How a node behaves. The defaults are meant for the public network.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Takes part over IPv4.
    pub v4: bool,
    /// Takes part over IPv6.
    pub v6: bool,
    /// Nodes to start from; more can come by [`Mainline::add_contacts`].
    pub bootstrap: Vec<SocketAddr>,
    /// Asks, but serves nobody (BEP 43).
    pub read_only: bool,
    /// Where limits per address and subnet do not apply.
    pub exempt: Exempt,
    /// How much others may use.
    pub limits: Limits,
    /// Bounds of the time between two reads for a subscription: the first after a change, the
    /// other when nothing has changed for long.
    pub subscribe_interval: (Duration, Duration),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            v4: true,
            v6: false,
            bootstrap: Vec::new(),
            read_only: false,
            exempt: Exempt::default(),
            limits: Limits::default(),
            subscribe_interval: (Duration::from_secs(2), Duration::from_secs(10)),
        }
    }
}

/// How much of a node others may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Queries answered a second to one address, after a burst of three times as many.
    pub queries_per_source: f32,
    /// Queries answered a second in all, after a burst of twice as many.
    pub queries: f32,
    /// Peers stored.
    pub peers: PeerBounds,
    /// Items stored.
    pub items: ItemBounds,
}

impl Default for Limits {
    /// All together below a megabyte.
    fn default() -> Self {
        Self {
            queries_per_source: 20.0,
            queries: 500.0,
            peers: PeerBounds {
                peers: 3000,
                per_key: 250,
            },
            items: ItemBounds {
                items: 500,
                bytes: 192 * 1024,
            },
        }
    }
}

/// Sources whose use is remembered, twice that at most.
const SOURCES: usize = 512;
/// Large answers for each address: a second, and at once.
const LARGE_ANSWERS: (f32, f32) = (1.0, 8.0);

/// What a node has of one address family.
#[derive(Debug)]
struct Family {
    table: Table,
    votes: Votes,
    external: Option<IpAddr>,
    /// When its identifier last changed.
    changed: Option<Time>,
}

/// The index of an address's family: 0 for IPv4, 1 for IPv6.
fn family_of(addr: &SocketAddr) -> usize {
    usize::from(addr.is_ipv6())
}

/// One node of the Mainline DHT.
#[derive(Debug)]
pub struct Mainline {
    config: Config,
    rng: Rng,
    families: [Option<Family>; 2],
    rpc: Rpc,
    ops: BTreeMap<u32, Op>,
    /// When each operation wants to be looked at.
    alarms: BTreeSet<(Time, u32)>,
    last_op: u32,
    tokens: Tokens,
    peers: Peers,
    items: Items,
    per_source: PerSource,
    all_sources: Bucket,
    large_answers: PerSource,
    upkeep: Upkeep,
    /// When nodes may be asked for samples again (BEP 51).
    sampled: BTreeMap<SocketAddr, Time>,
}

/// A node as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether it has a network.
    pub health: Health,
    /// Contacts in the IPv4 and in the IPv6 table.
    pub contacts: [usize; 2],
    /// Our address as others see it, IPv4 and IPv6.
    pub external: [Option<IpAddr>; 2],
    /// Keys for which we hold peers.
    pub keys: usize,
    /// Peers we hold.
    pub peers: usize,
    /// Items we hold.
    pub items: usize,
    /// Queries in flight.
    pub in_flight: usize,
    /// Bytes held in tables and stores.
    pub memory: usize,
}

impl Mainline {
    /// A node that begins when it first gets its tick, at once.
    pub fn new(now: Time, config: Config, snapshot: Option<Snapshot>, mut rng: Rng) -> Self {
        let snapshot = snapshot.unwrap_or_default();
        let mut family = |on: bool, id: Option<Id>| {
            let id = id.unwrap_or_else(|| Id::random(&mut rng));
            on.then(|| Family {
                table: Table::new(id, config.exempt.clone()),
                votes: Votes::default(),
                external: None,
                changed: None,
            })
        };
        let families = [
            family(config.v4, snapshot.id4),
            family(config.v6, snapshot.id6),
        ];
        let limits = &config.limits;
        Self {
            tokens: Tokens::new(now, &mut rng),
            peers: Peers::new(limits.peers),
            items: Items::new(limits.items),
            per_source: PerSource::new(
                limits.queries_per_source,
                limits.queries_per_source * 3.0,
                SOURCES,
            ),
            all_sources: Bucket::new(now, limits.queries * 2.0),
            large_answers: PerSource::new(LARGE_ANSWERS.0, LARGE_ANSWERS.1, SOURCES),
            upkeep: Upkeep::new(now, &config.bootstrap, snapshot.contacts),
            families,
            rpc: Rpc::new(),
            ops: BTreeMap::new(),
            alarms: BTreeSet::new(),
            last_op: 0,
            sampled: BTreeMap::new(),
            config,
            rng,
        }
    }

    /// Our identifier in the table of IPv4 or IPv6.
    pub fn id(&self, v6: bool) -> Option<Id> {
        let family = self.families.get(usize::from(v6))?.as_ref()?;
        Some(family.table.own())
    }

    /// What to store for the next run.
    pub fn snapshot(&self) -> Snapshot {
        let mut contacts: Vec<_> = self
            .families
            .iter()
            .flatten()
            .flat_map(|f| f.table.contacts())
            .filter(|c| c.failures == 0)
            .collect();
        contacts.sort_by_key(|c| std::cmp::Reverse(c.seen));
        contacts.truncate(snapshot::MAX_CONTACTS);
        Snapshot {
            id4: self.id(false),
            id6: self.id(true),
            contacts: contacts.into_iter().map(|c| c.node).collect(),
        }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let of = |i: usize| self.families.get(i).and_then(Option::as_ref);
        let tables: usize = self
            .families
            .iter()
            .flatten()
            .map(|f| f.table.memory())
            .sum();
        Status {
            health: self.health(),
            contacts: [0, 1].map(|i| of(i).map_or(0, |f| f.table.len())),
            external: [0, 1].map(|i| of(i).and_then(|f| f.external)),
            keys: self.peers.keys(),
            peers: self.peers.len(),
            items: self.items.len(),
            in_flight: self.rpc.len(),
            memory: tables
                + self.peers.memory()
                + self.items.memory()
                + (self.per_source.len() + self.large_answers.len()) * 48
                + size_of::<Self>(),
        }
    }

    /// Asks nodes near `target` which keys they hold (BEP 51), each no sooner than it allows. What
    /// they tell comes as [`crate::Answer::Samples`].
    pub fn sample(&mut self, now: Time, target: Id, out: &mut Vec<Output>) -> OpId {
        self.begin(now, Work::Sample { target }, true, out)
    }

    /// Estimates how many peers `key` has (BEP 33) by asking all nodes near it for their filters.
    pub fn scrape(&mut self, now: Time, key: Id, out: &mut Vec<Output>) -> OpId {
        self.begin(now, Work::scrape(key), true, out)
    }

    /// Sends a query.
    fn ask(
        &mut self,
        now: Time,
        to: (Option<Id>, SocketAddr),
        purpose: Purpose,
        call: Call<'_>,
        out: &mut Vec<Output>,
    ) {
        let both = self.config.v4 && self.config.v6;
        let (id, addr) = to;
        let Some(Some(family)) = self.families.get_mut(family_of(&addr)) else {
            return;
        };
        if let Some(id) = id {
            family.table.asked(now, &id);
        }
        // What is lost on its way to a store is missed for an hour; in a lookup another node takes
        // the place of one that is slow, unless it is one to start from.
        let repeat = matches!(call, Call::Announce { .. } | Call::Put(_)) || id.is_none();
        let query = Query {
            id: family.table.own(),
            read_only: self.config.read_only,
            want: Want { v4: both, v6: both },
            call,
        };
        let tid = self.rpc.tid(&mut self.rng);
        let bytes = krpc::query(&tid.to_be_bytes(), &query);
        self.rpc.sent(
            tid,
            Pending {
                to: addr,
                id,
                purpose,
                sent: now,
                timer: now,
                slow: false,
                again: repeat.then(|| bytes.clone()),
            },
        );
        out.push(Output::Send { to: addr, bytes });
    }

    fn on_response(
        &mut self,
        now: Time,
        from: SocketAddr,
        tid: &[u8],
        ip: Option<SocketAddr>,
        reply: &krpc::Reply<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(pending) = self.rpc.answered(now, from, tid) else {
            return;
        };
        self.upkeep_answered(now);
        let Some(Some(family)) = self.families.get_mut(family_of(&from)) else {
            return;
        };
        let node = Node {
            id: reply.id,
            addr: from,
        };
        family.table.answered(now, node);
        let external = ip.and_then(|ip| family.votes.hear(from.ip(), ip.ip()));
        if let Some(ip) = external {
            self.learn_address(now, ip);
        }
        self.on_reply(now, &pending, node, reply, out);
    }
}

impl Dht for Mainline {
    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Output>) -> OpId {
        self.begin_request(now, request, out)
    }

    fn cancel(&mut self, _now: Time, op: OpId, _out: &mut Vec<Output>) {
        if let Some(op_state) = self.ops.remove(&op.0) {
            self.alarms.remove(&(op_state.wake, op.0));
        }
    }

    fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        let from = node::canonical(from);
        if !node::is_usable(&from) || !matches!(self.families.get(family_of(&from)), Some(Some(_)))
        {
            return;
        }
        match krpc::read(bytes) {
            Err(Bad::Junk) => {}
            Err(Bad::Query { tid, code, text }) => {
                if self.may_ask(now, &from) {
                    self.refuse(tid, from, (code, text), out);
                }
            }
            Ok(message) => match message.body {
                Body::Query(query) => {
                    if self.may_ask(now, &from) {
                        self.on_query(now, from, message.tid, query, bytes.len(), out);
                    }
                }
                Body::Response(reply) => {
                    self.on_response(now, from, message.tid, message.ip, &reply, out);
                }
                Body::Error { code, text } => {
                    if let Some(pending) = self.rpc.answered(now, from, message.tid) {
                        self.upkeep_answered(now);
                        self.on_refusal(now, &pending, code, &text, out);
                    }
                }
            },
        }
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some((_, late)) = self.rpc.expire(now) {
            match late {
                Late::Slow(pending) => {
                    if let Some(bytes) = pending.again.clone() {
                        let to = pending.to;
                        out.push(Output::Send { to, bytes });
                    }
                    self.on_slow(now, &pending, out);
                }
                Late::Lost(pending) => {
                    self.upkeep_lost(now, &pending);
                    self.on_lost(now, &pending, out);
                }
            }
        }
        while let Some((at, op)) = self.alarms.first().copied() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            self.wake(now, op, out);
        }
        self.upkeep_tick(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        earliest(
            earliest(self.rpc.deadline(), alarm),
            Some(self.upkeep.deadline()),
        )
    }
}
