//! The peers a torrent knows of and might connect to: where they were heard of, how they did, and
//! who is next.
//!
//! Candidates come from trackers, PEX, LSD, the DHT, incoming connections and the user; they are
//! bounded in number, tried in the order of canonical priority (BEP 40) mixed with what is known
//! of them, backed off after failures, and refused when banned. Opening connections is the
//! caller's work; it reports how they went.

mod address;
mod candidate;

use address::{ban_key, canonical, priority_of};
pub use address::{is_dialable, is_local, is_overlay, keeps_ours};
use candidate::{Candidate, State};
use shoal_base::{Rng, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

/// Where a candidate was heard of; several at once may hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Sources(u8);

impl Sources {
    /// A tracker's reply.
    pub const TRACKER: Self = Self(1);
    /// Peer exchange.
    pub const PEX: Self = Self(2);
    /// Local service discovery.
    pub const LSD: Self = Self(4);
    /// A DHT.
    pub const DHT: Self = Self(8);
    /// It connected to us and told its listening port.
    pub const INCOMING: Self = Self(16);
    /// The user, or a magnet link: never evicted or given up.
    pub const MANUAL: Self = Self(32);
    /// Saved from an earlier run.
    pub const RESUME: Self = Self(64);

    /// Whether all of `other` are among these.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Sources {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Sources {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Limits of a [`PeerBook`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerBookConfig {
    /// Most candidates kept.
    pub max_candidates: usize,
    /// Most candidates kept that only PEX told of, so that one chatty peer cannot push out the
    /// trackers' (BEP 11, security considerations).
    pub max_pex: usize,
    /// Most candidates with one address, but for local ones.
    pub max_per_ip: usize,
    /// Most connections being opened at once.
    pub max_half_open: usize,
    /// Most bans remembered; the oldest is forgotten first.
    pub max_bans: usize,
}

impl Default for PeerBookConfig {
    fn default() -> Self {
        Self {
            max_candidates: 2000,
            max_pex: 1000,
            max_per_ip: 4,
            max_half_open: 32,
            max_bans: 4096,
        }
    }
}

/// Why an address is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Not an address one can connect to: port zero, unspecified, multicast, broadcast.
    #[error("not an address to connect to")]
    Undialable,
    /// It is ourselves.
    #[error("our own address")]
    Ourselves,
    /// Banned.
    #[error("banned")]
    Banned,
    /// The book is full of better ones, or of ones with the same address.
    #[error("no room for more candidates")]
    Full,
    /// There is a connection to it already.
    #[error("already connected")]
    Connected,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It never came to a handshake, or was broken off for the peer's fault.
    Failed,
    /// It worked, but nothing was moved over it.
    Useless,
    /// Blocks were moved over it.
    Useful,
}

/// A candidate's state, for display and for resume data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownPeer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where it was heard of.
    pub sources: Sources,
    /// There is a connection.
    pub connected: bool,
    /// It was connected before, or is.
    pub proven: bool,
    /// It is known to be a seed.
    pub seed: bool,
}

/// One torrent's candidates and bans.
#[derive(Debug)]
pub struct PeerBook {
    config: PeerBookConfig,
    rng: Rng,
    candidates: BTreeMap<SocketAddr, Candidate>,
    half_open: usize,
    connected: usize,
    only_pex: usize,
    bans: BTreeSet<(IpAddr, u16)>,
    ban_order: VecDeque<(IpAddr, u16)>,
    /// Addresses at which we reached ourselves.
    own: BTreeSet<SocketAddr>,
    /// Our address as the world sees it, by family.
    external: [Option<SocketAddr>; 2],
    /// What we are told of it, and by whom.
    votes: VecDeque<(SocketAddr, IpAddr)>,
    seeding: bool,
    /// No candidate is ready before this.
    next_ready: Time,
}

/// Hosts that must agree on our address.
const VOTES_NEEDED: usize = 3;
/// Most votes remembered.
const MAX_VOTES: usize = 16;
/// Most of our own addresses remembered.
const MAX_OWN: usize = 64;
/// How long an overlay address that others told of waits: its peer may be one that is connected to more directly
/// meanwhile, and say so.
const OVERLAY_WAITS: Duration = Duration::from_secs(2);

impl PeerBook {
    /// An empty book.
    pub fn new(config: PeerBookConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            candidates: BTreeMap::new(),
            half_open: 0,
            connected: 0,
            only_pex: 0,
            bans: BTreeSet::new(),
            ban_order: VecDeque::new(),
            own: BTreeSet::new(),
            external: [None, None],
            votes: VecDeque::new(),
            seeding: false,
            next_ready: Time::FAR,
        }
    }

    /// Tells our address as the world sees it (with the listening port), from which priorities
    /// are computed. One of each family is kept. It is no longer dialled either.
    pub fn set_external(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        let known = &mut self.external[usize::from(addr.is_ipv6())];
        if *known == Some(addr) {
            return;
        }
        *known = Some(addr);
        self.on_self(addr);
        let external = self.external;
        for (peer, candidate) in &mut self.candidates {
            candidate.priority = priority_of(external, *peer);
        }
    }

    /// A peer at `from` sees us at `ip` (BEP 10, `yourip`); we listen at `port`. One may lie, so
    /// the address is taken over when three hosts agree, or when it is of the local network and so
    /// is the one who says it.
    pub fn on_yourip(&mut self, from: IpAddr, ip: IpAddr, port: u16) {
        let (from, addr) = (from.to_canonical(), canonical(SocketAddr::new(ip, port)));
        if !is_dialable(addr) || self.external[usize::from(addr.is_ipv6())] == Some(addr) {
            return;
        }
        if is_local(from) && is_local(addr.ip()) {
            return self.set_external(addr);
        }
        // A public host cannot know a local address of ours.
        if is_local(from) || is_local(addr.ip()) || self.votes.contains(&(addr, from)) {
            return;
        }
        if self.votes.len() >= MAX_VOTES {
            self.votes.pop_front();
        }
        self.votes.push_back((addr, from));
        if self.votes.iter().filter(|(a, _)| *a == addr).count() >= VOTES_NEEDED {
            self.votes.clear();
            self.set_external(addr);
        }
    }

    /// While we seed, seeds are not dialled.
    pub fn set_seeding(&mut self, now: Time, seeding: bool) {
        self.seeding = seeding;
        self.next_ready = now;
    }

    /// Takes in an address that `source` told of.
    pub fn add(&mut self, now: Time, addr: SocketAddr, source: Sources) -> Result<(), PeerRefusal> {
        let addr = canonical(addr);
        if !is_dialable(addr) {
            return Err(PeerRefusal::Undialable);
        }
        if self.own.contains(&addr) {
            return Err(PeerRefusal::Ourselves);
        }
        if self.is_banned(addr) {
            return Err(PeerRefusal::Banned);
        }
        if let Some(known) = self.candidates.get_mut(&addr) {
            let was_pex = known.sources == Sources::PEX;
            known.sources |= source;
            known.last_heard = now;
            if was_pex && known.sources != Sources::PEX {
                self.only_pex -= 1;
            }
            return Ok(());
        }
        self.make_room(addr, source)?;
        let priority = priority_of(self.external, addr);
        let told = !source.has(Sources::MANUAL) && !source.has(Sources::INCOMING);
        let retry_at = if told && is_overlay(addr.ip()) {
            now + OVERLAY_WAITS
        } else {
            now
        };
        let mut candidate = Candidate::new(now, source, priority);
        candidate.state = State::Idle { retry_at };
        self.insert(addr, candidate);
        self.next_ready = self.next_ready.min(retry_at);
        Ok(())
    }

    /// Does not let `addr` be tried before `until`, if it waits to be.
    pub fn put_off(&mut self, addr: SocketAddr, until: Time) {
        if let Some(candidate) = self.candidates.get_mut(&canonical(addr))
            && let State::Idle { retry_at } = &mut candidate.state
        {
            *retry_at = until.max(*retry_at);
        }
    }

    /// Notes that the peer listening at `addr` is a seed, or is not: from PEX, a tracker or its
    /// own bitfield.
    pub fn set_seed(&mut self, addr: SocketAddr, seed: bool) {
        if let Some(known) = self.candidates.get_mut(&canonical(addr)) {
            known.seed = seed;
        }
    }

    /// Up to `n` addresses to connect to now, the best first. Each counts as being opened until
    /// [`PeerBook::on_connected`], [`PeerBook::on_ended`] or [`PeerBook::on_self`] is called.
    pub fn next_candidates(&mut self, now: Time, n: usize) -> Vec<SocketAddr> {
        let n = n.min(self.config.max_half_open.saturating_sub(self.half_open));
        if n == 0 || now < self.next_ready {
            return Vec::new();
        }
        let mut ready: Vec<_> = self
            .candidates
            .iter()
            .filter(|(_, c)| c.is_ready(now, self.seeding))
            .map(|(addr, c)| (c.rank(now), *addr))
            .collect();
        ready.sort_unstable();
        ready.truncate(n);
        for (_, addr) in &ready {
            if let Some(candidate) = self.candidates.get_mut(addr) {
                candidate.state = State::Opening;
                self.half_open += 1;
            }
        }
        self.next_ready = self
            .candidates
            .values()
            .filter_map(|c| c.ready_at(self.seeding))
            .min()
            .unwrap_or(Time::FAR);
        ready.into_iter().map(|(_, addr)| addr).collect()
    }

    /// When [`PeerBook::next_candidates`] may next return something; none if it waits for news.
    pub fn deadline(&self) -> Option<Time> {
        let room = self.half_open < self.config.max_half_open;
        (room && self.next_ready < Time::FAR).then_some(self.next_ready)
    }

    /// A connection that we opened to `addr` has exchanged handshakes.
    pub fn on_connected(&mut self, addr: SocketAddr) {
        self.enter(&canonical(addr), State::Connected);
    }

    /// Whether a connection to `addr` is being opened.
    pub fn is_opening(&self, addr: SocketAddr) -> bool {
        let known = self.candidates.get(&canonical(addr));
        known.is_some_and(|c| c.state == State::Opening)
    }

    /// An incoming connection from `remote`: refused if it is banned. Its port is not where it
    /// listens; that is told by [`PeerBook::on_listen_addr`].
    pub fn on_incoming(&self, remote: SocketAddr) -> Result<(), PeerRefusal> {
        if self.is_banned(remote) {
            return Err(PeerRefusal::Banned);
        }
        Ok(())
    }

    /// An incoming connection told where its peer listens (BEP 10, `p`). It then counts as
    /// connected until [`PeerBook::on_ended`], unless it is refused:
    /// - `Banned`, `Ourselves`: to be closed;
    /// - `Connected`: there is or will be a second connection to it, see [`keeps_ours`];
    /// - `Full`, `Undialable`: it may stay, only the book has no entry for it.
    pub fn on_listen_addr(&mut self, now: Time, addr: SocketAddr) -> Result<(), PeerRefusal> {
        let addr = canonical(addr);
        self.add(now, addr, Sources::INCOMING)?;
        match self.candidates.get(&addr).map(|c| c.state) {
            Some(State::Idle { .. }) => {
                self.enter(&addr, State::Connected);
                Ok(())
            }
            Some(State::Opening | State::Connected) => Err(PeerRefusal::Connected),
            None => Err(PeerRefusal::Full),
        }
    }

    /// The connection to `addr`, opened or being opened, has ended.
    pub fn on_ended(&mut self, now: Time, addr: SocketAddr, how: Ended) {
        let addr = canonical(addr);
        let jitter = self.rng.unit();
        let Some(candidate) = self.candidates.get_mut(&addr) else {
            return;
        };
        let retry_at = candidate.end(now, how, jitter);
        if candidate.is_hopeless() {
            self.remove(&addr);
        } else {
            self.enter(&addr, State::Idle { retry_at });
            self.next_ready = self.next_ready.min(retry_at);
        }
    }

    /// We reached ourselves at `addr`: never again.
    pub fn on_self(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.remove(&addr);
        if self.own.len() < MAX_OWN {
            self.own.insert(addr);
        }
    }

    /// Bans the address of `addr`, whatever the port (on loopback: with the port). Connections to
    /// it are for the caller to close; their [`PeerBook::on_ended`] may still come.
    pub fn ban(&mut self, addr: SocketAddr) {
        let key = ban_key(addr);
        if self.bans.insert(key) {
            self.ban_order.push_back(key);
        }
        if self.ban_order.len() > self.config.max_bans
            && let Some(oldest) = self.ban_order.pop_front()
        {
            self.bans.remove(&oldest);
        }
        let banned: Vec<_> = self
            .candidates
            .keys()
            .filter(|a| ban_key(**a) == key)
            .copied()
            .collect();
        for addr in banned {
            self.remove(&addr);
        }
    }

    /// Whether the address of `addr` is banned.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        self.bans.contains(&ban_key(addr))
    }

    /// All candidates, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = KnownPeer> + '_ {
        self.candidates.iter().map(|(addr, c)| KnownPeer {
            addr: *addr,
            sources: c.sources,
            connected: c.state == State::Connected,
            proven: c.proven,
            seed: c.seed,
        })
    }

    /// How many candidates there are, connected ones included.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether no candidate is known.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// How many are being connected to.
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// How many are connected.
    pub fn connected(&self) -> usize {
        self.connected
    }

    /// Evicts the worst candidate if the book is full; refuses if the newcomer is no better.
    fn make_room(&mut self, addr: SocketAddr, source: Sources) -> Result<(), PeerRefusal> {
        if source.has(Sources::MANUAL) {
            return Ok(());
        }
        let ip = addr.ip();
        if !is_local(ip) {
            let same = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
            if self.candidates.range(same).count() >= self.config.max_per_ip {
                return Err(PeerRefusal::Full);
            }
        }
        let pex_full = source == Sources::PEX && self.only_pex >= self.config.max_pex;
        if !pex_full && self.candidates.len() < self.config.max_candidates {
            return Ok(());
        }
        let worst = self
            .candidates
            .iter()
            .filter(|(_, c)| !pex_full || c.sources == Sources::PEX)
            .filter_map(|(a, c)| Some((c.worth()?, *a)))
            .min();
        match worst {
            Some((worth, worst)) if worth < Candidate::worth_of_new(source) => {
                self.remove(&worst);
                Ok(())
            }
            _ => Err(PeerRefusal::Full),
        }
    }

    fn insert(&mut self, addr: SocketAddr, candidate: Candidate) {
        self.only_pex += usize::from(candidate.sources == Sources::PEX);
        self.candidates.insert(addr, candidate);
    }

    fn remove(&mut self, addr: &SocketAddr) {
        self.enter(
            addr,
            State::Idle {
                retry_at: Time::FAR,
            },
        );
        if let Some(gone) = self.candidates.remove(addr) {
            self.only_pex -= usize::from(gone.sources == Sources::PEX);
        }
    }

    /// Moves a candidate to `state` and keeps the counts.
    fn enter(&mut self, addr: &SocketAddr, state: State) {
        let Some(candidate) = self.candidates.get_mut(addr) else {
            return;
        };
        match candidate.state {
            State::Opening => self.half_open -= 1,
            State::Connected => self.connected -= 1,
            State::Idle { .. } => {}
        }
        match state {
            State::Opening => self.half_open += 1,
            State::Connected => {
                self.connected += 1;
                candidate.proven = true;
                candidate.failures = 0;
            }
            State::Idle { .. } => {}
        }
        candidate.state = state;
    }
}

#[cfg(test)]
mod tests;
