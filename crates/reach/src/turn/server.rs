//! The relay (RFC 8656): who may use it, what he may send where, and for how long.
//!
//! One `on_*` method for each thing that happens. Control messages are answered into [`Effects`];
//! data passes without being copied or anything being allocated: [`TurnServer::on_client`] says
//! which part of what came goes to which peer, and [`TurnServer::on_peer`] writes the header before
//! what came from a peer, in room that the driver left there.
//!
//! Whoever has not proved who he is leaves no state behind: the nonce he gets says by itself when
//! and for whom it was made. What he can make the server send is bounded for each network.

mod allocation;
mod auth;
mod challenge;
mod data;
mod load;
mod ports;
mod requests;
mod users;

pub use data::{HEADROOM, TAILROOM, ToClient, ToPeer};
pub use ports::RelayId;

use super::credential::Credentials;
use super::policy::Policy;
use crate::stun::{Class, Frame, Message, Method, binding};
use allocation::Allocation;
use auth::Nonces;
use challenge::Challenges;
use load::Load;
use ports::Ports;
use rustc_hash::FxHashMap;
use shoal_base::{Rng, Time, TokenBucket, time::earliest};
use slab::Slab;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use users::Users;

/// An address at which peers reach clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// Where sockets are bound.
    pub bind: IpAddr,
    /// What clients are told: another one if the relay itself is behind a NAT that passes its ports.
    pub public: IpAddr,
}

/// Settings of a relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// REALM.
    pub realm: String,
    /// Who may use it.
    pub credentials: Credentials,
    /// Where peers reach clients by IPv4.
    pub relay_v4: Option<RelayAddress>,
    /// Where peers reach clients by IPv6.
    pub relay_v6: Option<RelayAddress>,
    /// Ports of relayed addresses.
    pub ports: RangeInclusive<u16>,
    /// To whom it sends.
    pub policy: Policy,
    /// Allocations at once, of all users.
    pub max_allocations: usize,
    /// Allocations at once, of one user.
    pub max_allocations_per_user: usize,
    /// Bytes a second of data, of all users, both directions together.
    pub max_rate: Option<u64>,
    /// Bytes a second of data, of one user.
    pub max_rate_per_user: Option<u64>,
    /// Where else to try when there are too many allocations.
    pub alternate: Option<SocketAddr>,
    /// The longest life of an allocation that is not refreshed.
    pub max_lifetime: Duration,
    /// How long a nonce holds.
    pub nonce_life: Duration,
    /// Answers a second to those of one network (/24, /48) who came by UDP without credentials.
    pub max_challenges: u32,
    /// Seconds since 1970 at [`Time::ZERO`].
    pub unix_at_zero: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: "shoal".into(),
            credentials: Credentials::default(),
            relay_v4: None,
            relay_v6: None,
            ports: 49152..=65535,
            policy: Policy::default(),
            max_allocations: 4096,
            max_allocations_per_user: 64,
            max_rate: None,
            max_rate_per_user: None,
            alternate: None,
            // RFC 8656 §7.2: ten minutes at least, an hour recommended as the most.
            max_lifetime: Duration::from_secs(3600),
            nonce_life: Duration::from_secs(3600),
            max_challenges: 200,
            unix_at_zero: 0,
        }
    }
}

/// By what a client is known: RFC 8656's 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// From that address to the listening socket of that number.
    Udp(u16, SocketAddr),
    /// The connection that the driver calls so. A name is never used again.
    Stream(u64),
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this part of [`Effects::bytes`] to the client.
    Reply(Client, Range<usize>),
    /// Bind a UDP socket there and tell by [`TurnServer::on_relay`].
    OpenRelay(RelayId, SocketAddr),
    /// Close the socket.
    CloseRelay(RelayId),
}

/// What is to be done, in this order. The driver owns, empties and reuses it.
#[derive(Debug, Default)]
pub struct Effects {
    /// What replies consist of.
    pub bytes: Vec<u8>,
    /// What is to be done.
    pub list: Vec<Effect>,
}

impl Effects {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    fn reply(&mut self, to: Client, from: usize) {
        if self.bytes.len() > from {
            self.list.push(Effect::Reply(to, from..self.bytes.len()));
        }
    }
}

/// What happened so far, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Allocations now.
    pub allocations: u64,
    /// Allocations since the start.
    pub allocated: u64,
    /// Users with allocations now.
    pub users: u64,
    /// Packets from clients to peers.
    pub packets_up: u64,
    /// Bytes from clients to peers.
    pub bytes_up: u64,
    /// Packets from peers to clients.
    pub packets_down: u64,
    /// Bytes from peers to clients.
    pub bytes_down: u64,
    /// Packets without a permission, channel or allocation.
    pub unwanted: u64,
    /// Packets beyond a rate.
    pub over_rate: u64,
    /// Binding requests answered.
    pub bindings: u64,
    /// Requests refused with an error, but for challenges.
    pub refused: u64,
    /// Challenges (401, 438).
    pub challenges: u64,
    /// Requests without an answer because their network had too many.
    pub unanswered: u64,
    /// What was no STUN.
    pub malformed: u64,
}

/// A relay.
#[derive(Debug)]
pub struct TurnServer {
    config: Config,
    rng: Rng,
    nonces: Nonces,
    challenges: Challenges,
    allocations: Slab<Allocation>,
    /// Nobody can fill this with names that collide: who is in it has credentials and a quota.
    clients: FxHashMap<Client, usize>,
    expiry: BTreeSet<(Time, usize)>,
    ports: Ports,
    users: Users,
    bucket: TokenBucket,
    load: Load,
    own: Vec<IpAddr>,
    stats: Stats,
}

impl TurnServer {
    /// A relay without allocations. `rng` decides keys, ports and tokens.
    pub fn new(config: Config, rng: &mut Rng) -> Self {
        let relays = [config.relay_v4, config.relay_v6];
        let own = relays
            .into_iter()
            .flatten()
            .flat_map(|r| [r.bind, r.public]);
        Self {
            own: own.filter(|ip| !ip.is_unspecified()).collect(),
            rng: rng.fork(),
            nonces: Nonces::new(config.nonce_life, rng),
            challenges: Challenges::new(config.max_challenges, rng),
            allocations: Slab::new(),
            clients: FxHashMap::default(),
            expiry: BTreeSet::new(),
            ports: Ports::default(),
            users: Users::default(),
            bucket: TokenBucket::new(config.max_rate),
            load: Load::new(config.max_rate),
            stats: Stats::default(),
            config,
        }
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        Stats {
            allocations: self.allocations.len() as u64,
            users: self.users.len() as u64,
            ..self.stats
        }
    }

    /// A frame came from a client whose address is `from`. What it holds for a peer is given back,
    /// everything else is answered in `out`.
    pub fn on_client<'f>(
        &mut self,
        now: Time,
        client: Client,
        from: SocketAddr,
        frame: Frame<'f>,
        out: &mut Effects,
    ) -> Option<ToPeer<'f>> {
        match frame {
            Frame::Channel { number, data } => self.channel_data(now, client, number, data),
            Frame::Stun(bytes) => match Message::decode(bytes) {
                Ok(message) => self.message(now, client, from, &message, out),
                Err(_) => {
                    self.stats.malformed += 1;
                    None
                }
            },
        }
    }

    fn message<'f>(
        &mut self,
        now: Time,
        client: Client,
        from: SocketAddr,
        message: &Message<'f>,
        out: &mut Effects,
    ) -> Option<ToPeer<'f>> {
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => return self.send(now, client, message),
            (Class::Request, Method::BINDING) => {
                let start = out.bytes.len();
                let load = Some(self.load(now));
                binding::answer_of(message, from, load, &mut out.bytes);
                out.reply(client, start);
                self.stats.bindings += 1;
            }
            (Class::Request, _) => self.request(now, client, from, message, out),
            // Binding indications keep mappings alive; a server expects no responses.
            _ => {}
        }
        None
    }

    /// How busy it is, in thousandths: of the bytes or of the allocations that it may have, whichever
    /// is more.
    pub fn load(&mut self, now: Time) -> u16 {
        let places = self.config.max_allocations.max(1);
        let taken = (self.allocations.len() * 1000 / places).min(1000);
        self.load
            .share(now)
            .max(u16::try_from(taken).unwrap_or(1000))
    }

    /// A connection has ended: its allocation goes with it (RFC 8656 §3.1).
    pub fn on_gone(&mut self, client: Client, out: &mut Effects) {
        if let Some(&key) = self.clients.get(&client) {
            self.remove(key, out);
        }
    }

    /// Whether a client has an allocation, or is about to get one.
    pub fn is_client(&self, client: Client) -> bool {
        self.clients.contains_key(&client)
    }

    /// The deadline has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Effects) {
        while let Some(&(at, key)) = self.expiry.first()
            && at <= now
        {
            self.remove(key, out);
        }
        self.ports.expire(now, out);
    }

    /// When [`TurnServer::on_tick`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let expiry = self.expiry.first().map(|(at, _)| *at);
        earliest(expiry, self.ports.deadline())
    }

    /// Ends an allocation.
    fn remove(&mut self, key: usize, out: &mut Effects) {
        let Some(allocation) = self.allocations.try_remove(key) else {
            return;
        };
        self.expiry.remove(&(allocation.expires, key));
        self.clients.remove(&allocation.client);
        self.users.release(allocation.user);
        for relay in allocation.relays() {
            self.ports.close(relay, out);
        }
    }
}

#[cfg(test)]
mod tests;
