//! A node's end of all its ways to others: its relays, an agent for each other node it talks to, and
//! which of them a packet belongs to.
//!
//! What is carried are datagrams of somebody above (QUIC), who sees one address for each node, whatever
//! ways the packets take.

mod incoming;

use crate::agent::signal::{Candidate, Kind, Signal};
use crate::agent::{self, Agent, Base, InUse, Path, RelayId};
use crate::identity::{Identity, NodeId};
use crate::relays::{self, BUSY, Relays, Ticket, cost_of};
use crate::sealed;
use rustc_hash::FxHashMap;
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One other node, as an endpoint numbers it. Numbers are not used again.
pub type SessionId = u64;

/// Fills a buffer with bytes that nobody can guess.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What an endpoint wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this from our socket.
    Udp(SocketAddr, Vec<u8>),
    /// Connect, and tell of it by this number.
    Open {
        /// The number.
        id: RelayId,
        /// Where.
        to: SocketAddr,
        /// Whether TLS is to be spoken, whatever certificate is shown.
        tls: bool,
    },
    /// Send this by that connection.
    Tcp(RelayId, Vec<u8>),
    /// End that connection.
    Close(RelayId),
    /// Have this letter carried to that node.
    Letter(NodeId, Vec<u8>),
    /// A node is reached by this way from now on; none: by none.
    Way(SessionId, Option<InUse>),
}

/// How a datagram of somebody above is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it is, from our socket.
    Direct(SocketAddr),
    /// Framed for a peer of a relay.
    Relay(RelayId, SocketAddr),
}

/// Begins a letter that comes by a way that is there instead of through supernodes: no STUN message
/// and no QUIC packet begins so.
const LETTER: u8 = 0x20;
/// Sessions at most, and those that others began.
const MAX_SESSIONS: usize = 1024;
const MAX_ASKED: usize = 256;
/// How long a session lasts that nobody holds.
const UNHELD: Duration = Duration::from_secs(30);
/// How long relays may take before others are told of us without one.
const PREPARING: Duration = Duration::from_millis(2500);
/// How long it is waited that some are offered at all, once a node is to be reached.
const UNOFFERED: Duration = Duration::from_millis(800);
/// For how long changes are gathered before they are told.
const GATHER: Duration = Duration::from_millis(30);
/// How often it is seen whether data flows.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is drawn whether a busy relay is to be left, and one that is calm again to be returned
/// to: not by all nodes at once, who would be as many elsewhere.
const DRAW: Duration = Duration::from_secs(2);
/// Below which load, in thousandths, a relay is calm again, and with which chance at each drawing it
/// is returned to then.
const CALM: u16 = 400;
const RETURN: f64 = 0.05;
/// Of those that use a relay at its limit such a share leaves it at each drawing.
const LEAVE: f64 = 0.4;

#[derive(Debug)]
struct Session {
    peer: NodeId,
    agent: Agent,
    held: bool,
    since: Time,
}

/// See the module's text.
pub struct Endpoint {
    identity: Identity,
    rng: Rng,
    random: Random,
    relays: Relays,
    /// When relays were offered for the first time.
    offered: Option<Time>,
    /// When a node was to be reached, or reached us, for the first time.
    wanted: Option<Time>,
    hosts: Vec<SocketAddr>,
    /// Our address at a router that lets everybody through to us.
    forwarded: Option<SocketAddr>,
    accepts: bool,
    hidden: bool,
    sessions: BTreeMap<SessionId, Session>,
    ways: FxHashMap<Path, SessionId>,
    next: SessionId,
    /// When changes are told.
    update: Option<Time>,
    ready: bool,
    next_look: Time,
    next_draw: Time,
    /// Busy relays that are to be left, and what that counts as beside the round trip.
    busy: Vec<(IpAddr, Duration)>,
    /// Of Unix time, in microseconds, at [`Time::ZERO`].
    epoch: u64,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("identity", &self.identity)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint at these addresses of its own. `accepts`: whether others may begin; `epoch`:
    /// Unix time in microseconds at [`Time::ZERO`].
    pub fn new(
        identity: Identity,
        hosts: Vec<SocketAddr>,
        accepts: bool,
        epoch: u64,
        mut random: Random,
    ) -> Self {
        let mut seed = [0; 8];
        random(&mut seed);
        let mut rng = Rng::from_seed(u64::from_le_bytes(seed));
        Self {
            identity,
            relays: Relays::new(&mut rng),
            rng,
            random,
            offered: None,
            wanted: None,
            hosts,
            forwarded: None,
            accepts,
            hidden: false,
            sessions: BTreeMap::new(),
            ways: FxHashMap::default(),
            next: 1,
            update: None,
            ready: false,
            next_look: Time::ZERO,
            next_draw: Time::ZERO,
            busy: Vec::new(),
            epoch,
        }
    }

    /// From now on no node is told our addresses, but for those at relays, and nothing goes to one but
    /// by a relay of ours. To be told before anything else.
    pub fn hide(&mut self) {
        self.hidden = true;
    }

    /// From now on a router lets everybody through to us at this address, or nobody any more.
    pub fn set_forwarded(&mut self, now: Time, at: Option<SocketAddr>) {
        if self.forwarded != at {
            self.forwarded = at;
            self.update = earliest(self.update, Some(now + GATHER));
        }
    }

    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// Our relays.
    pub fn relays(&self) -> &Relays {
        &self.relays
    }

    /// Relays that may be used.
    pub fn offer(&mut self, now: Time, tickets: Vec<Ticket>, out: &mut Vec<Output>) {
        if !tickets.is_empty() {
            self.offered.get_or_insert(now);
        }
        let mut did = Vec::new();
        self.relays.offer(now, tickets, &mut did);
        self.after_relays(now, did, out);
    }

    /// Begins to reach a node; the session with it that is there, if there is one.
    pub fn open(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output>) -> Option<SessionId> {
        let known = self.sessions.iter_mut().find(|(_, s)| s.peer == peer);
        if let Some((id, session)) = known {
            session.held = true;
            return Some(*id);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let id = self.begin(now, peer, true);
        self.update_one(now, id, out);
        Some(id)
    }

    fn begin(&mut self, now: Time, peer: NodeId, held: bool) -> SessionId {
        let id = self.next;
        self.next += 1;
        self.wanted.get_or_insert(now);
        let mut fresh = [0; 24];
        (self.random)(&mut fresh);
        let unix = self.epoch + now.as_micros();
        let mut agent = Agent::new(now, unix, fresh, &mut self.rng);
        if self.hidden {
            agent.hide();
        }
        if self.sessions.is_empty() {
            self.draw(true);
        }
        // It has no way yet that could change.
        agent.set_busy(now, &self.busy, &mut Vec::new());
        let since = now;
        self.sessions.insert(
            id,
            Session {
                peer,
                agent,
                held,
                since,
            },
        );
        id
    }

    /// Whether somebody needs the session: others end after a while.
    pub fn hold(&mut self, now: Time, id: SessionId, held: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.held, session.since) = (held, now);
        }
    }

    /// The session with a node, if there is one.
    pub fn session(&self, peer: &NodeId) -> Option<SessionId> {
        let known = self.sessions.iter().find(|(_, s)| s.peer == *peer);
        known.map(|(id, _)| *id)
    }

    /// The node of a session.
    pub fn peer(&self, id: SessionId) -> Option<NodeId> {
        Some(self.sessions.get(&id)?.peer)
    }

    /// The way in use.
    pub fn in_use(&self, id: SessionId) -> Option<InUse> {
        self.sessions.get(&id)?.agent.in_use()
    }

    /// How many ways work.
    pub fn working(&self, id: SessionId) -> usize {
        let session = self.sessions.get(&id);
        session.map_or(0, |s| s.agent.working().count())
    }

    /// What there is no way for, said for people.
    pub fn why_not(&self, id: SessionId) -> String {
        let Some(session) = self.sessions.get(&id) else {
            return "the session has ended".into();
        };
        let (ours, theirs) = session.agent.told();
        let relays = self.relays.in_use().count();
        let none = match self.offered {
            Some(_) => "none has answered",
            None => "none was offered",
        };
        let peer = session.peer.short();
        if relays == 0 && self.hidden {
            format!("relays: {none}, and nothing goes without one, for the address is hidden")
        } else if !self.ready {
            format!("relays: {none} yet")
        } else if !session.agent.is_answered() {
            format!("signalling: no answer from {peer} through the supernodes")
        } else if relays == 0 {
            format!("relays: {none}, and none of {theirs} addresses of {peer} answers directly")
        } else {
            format!(
                "path: none of {theirs} addresses of theirs answers; we told {ours}, with {relays} at relays"
            )
        }
    }

    fn candidates(&self) -> (Vec<Candidate>, Vec<(RelayId, IpAddr)>) {
        let mut all: Vec<Candidate> = Vec::new();
        let mut add = |kind, addr| {
            if !all.iter().any(|c| c.addr == addr) {
                all.push(Candidate { kind, addr });
            }
        };
        let seen = self.relays.seen().filter(|_| !self.hidden);
        seen.for_each(|a| add(Kind::Mapped, a));
        let forwarded = self.forwarded.filter(|_| !self.hidden);
        forwarded.into_iter().for_each(|a| add(Kind::Mapped, a));
        let mut relays = Vec::new();
        for relay in self.relays.in_use() {
            add(Kind::Relayed, relay.relayed);
            relays.push((relay.id, relay.at.ip()));
        }
        if !self.hidden {
            self.hosts.iter().for_each(|a| add(Kind::Host, *a));
        }
        relays.dedup();
        (all, relays)
    }

    fn update_one(&mut self, now: Time, id: SessionId, out: &mut Vec<Output>) {
        if !self.ready {
            return;
        }
        let (candidates, relays) = self.candidates();
        let mut did = Vec::new();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.agent.set_local(now, candidates, relays, &mut did);
        }
        self.after_agent(now, id, did, out);
    }

    fn after_relays(&mut self, now: Time, did: Vec<relays::Output>, out: &mut Vec<Output>) {
        for output in did {
            match output {
                relays::Output::Udp(to, bytes) => out.push(Output::Udp(to, bytes)),
                relays::Output::Open { id, to, tls } => out.push(Output::Open { id, to, tls }),
                relays::Output::Tcp(id, bytes) => out.push(Output::Tcp(id, bytes)),
                relays::Output::Close(id) => out.push(Output::Close(id)),
                relays::Output::Changed => {
                    self.update = earliest(self.update, Some(now + GATHER));
                }
                relays::Output::Permitted(relay, ip) => {
                    for session in self.sessions.values_mut() {
                        session.agent.on_permitted(now, relay, ip);
                    }
                }
                relays::Output::Refused(relay, ip) => {
                    for session in self.sessions.values_mut() {
                        session.agent.on_refused(relay, ip);
                    }
                }
            }
        }
    }

    fn after_agent(
        &mut self,
        now: Time,
        id: SessionId,
        did: Vec<agent::Output>,
        out: &mut Vec<Output>,
    ) {
        for output in did {
            match output {
                agent::Output::Send(path, bytes) => {
                    // One that was another node's stays with that until this one is heard by it: relays give the ports of
                    // those who went to others.
                    self.ways.entry(path).or_insert(id);
                    self.send(now, path, &bytes, out);
                }
                agent::Output::Permit(relay, peer) => {
                    let mut did = Vec::new();
                    self.relays.permit(now, relay, peer, &mut did);
                    self.after_relays(now, did, out);
                }
                agent::Output::Signal(signal) => self.tell(now, id, &signal, out),
                agent::Output::Path(_) => {
                    let way = self.sessions.get(&id).and_then(|s| s.agent.in_use());
                    out.push(Output::Way(id, way));
                }
            }
        }
    }

    fn tell(&mut self, now: Time, id: SessionId, signal: &Signal, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (peer, way) = (session.peer, session.agent.in_use());
        let mut fresh = [0; 32];
        (self.random)(&mut fresh);
        let Ok(letter) = sealed::seal(&self.identity, &peer, fresh, &signal.encode()) else {
            return;
        };
        if let Some(way) = way {
            let mut bytes = vec![LETTER];
            bytes.extend_from_slice(&letter);
            self.send(now, way.path, &bytes, out);
        }
        out.push(Output::Letter(peer, letter));
    }

    /// Sends by a way.
    fn send(&mut self, now: Time, path: Path, bytes: &[u8], out: &mut Vec<Output>) {
        match path.base {
            Base::Direct => out.push(Output::Udp(path.peer, bytes.to_vec())),
            Base::Relay(id) => {
                let mut frame = Vec::new();
                // What cannot be sent is lost, as anything may be; checks are repeated.
                match self.relays.frame(now, id, path.peer, bytes, &mut frame) {
                    Ok(Some(to)) => out.push(Output::Udp(to, frame)),
                    Ok(None) => out.push(Output::Tcp(id, frame)),
                    Err(_) => {}
                }
            }
        }
    }

    /// How a datagram to a node is to leave now; that it does is noted.
    pub fn way(&mut self, now: Time, id: SessionId) -> Option<Way> {
        let session = self.sessions.get_mut(&id)?;
        let path = session.agent.in_use()?.path;
        session.agent.on_sent(now);
        Some(match path.base {
            Base::Direct => Way::Direct(path.peer),
            Base::Relay(id) => Way::Relay(id, path.peer),
        })
    }

    /// Of what was sent to a node so many packets left since the last time, and so many were lost.
    pub fn on_carried(
        &mut self,
        now: Time,
        id: SessionId,
        sent: u64,
        lost: u64,
        out: &mut Vec<Output>,
    ) {
        let mut did = Vec::new();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.agent.on_carried(now, sent, lost, &mut did);
        }
        self.after_agent(now, id, did, out);
    }

    /// Appends what carries data by a relay; where it is to be sent, or none: by the relay's
    /// connection.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn frame(
        &mut self,
        now: Time,
        relay: RelayId,
        peer: SocketAddr,
        data: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<Option<SocketAddr>, crate::turn::client::Unsent> {
        self.relays.frame(now, relay, peer, data, frame)
    }

    /// The deadline has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut did = Vec::new();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            let busy = self.sessions.values().any(|s| s.agent.is_busy(now));
            self.relays.set_busy(now, busy);
            let old = |s: &Session| !s.held && now.since(s.since) >= UNHELD;
            let ended = self.sessions.len();
            self.sessions.retain(|_, s| !old(s));
            if ended != self.sessions.len() {
                let sessions = &self.sessions;
                self.ways.retain(|_, id| sessions.contains_key(id));
            }
        }
        self.relays.on_tick(now, &mut did);
        self.after_relays(now, did, out);
        if now >= self.next_draw {
            self.next_draw = now + DRAW + DRAW.mul_f64(self.rng.unit());
            self.draw(false);
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                let mut did = Vec::new();
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.agent.set_busy(now, &self.busy, &mut did);
                }
                self.after_agent(now, id, did, out);
            }
        }
        if !self.ready {
            let up = self.relays.in_use().next().is_some();
            let waited = self.prepared().is_some_and(|at| now >= at);
            if waited || (up && self.update.is_some_and(|at| now >= at)) {
                self.ready = true;
                self.update = Some(now);
            }
        }
        if self.ready && self.update.is_some_and(|at| now >= at) {
            self.update = None;
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.update_one(now, id, out);
            }
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let mut did = Vec::new();
            if let Some(session) = self.sessions.get_mut(&id)
                && session.agent.deadline().is_some_and(|at| now >= at)
            {
                session.agent.on_tick(now, &mut did);
            }
            self.after_agent(now, id, did, out);
        }
    }

    /// Draws which busy relays are left; `all`: whoever has nothing to leave avoids each.
    fn draw(&mut self, all: bool) {
        let (rng, relays) = (&mut self.rng, &self.relays);
        self.busy.retain(|(ip, _)| {
            let load = relays.loads().find(|(at, _)| at == ip);
            load.is_some_and(|(_, load)| load >= CALM || !rng.chance(RETURN))
        });
        for (ip, load) in relays.loads() {
            let over = load.saturating_sub(BUSY);
            // It is no better for those who have left because they have.
            let cost = cost_of(load.max(BUSY + 100));
            match self.busy.iter_mut().find(|(at, _)| *at == ip) {
                Some((_, counts)) => *counts = cost,
                None if over > 0 => {
                    let share = LEAVE * f64::from(over) / f64::from(1000 - BUSY);
                    if all || rng.chance(share) {
                        self.busy.push((ip, cost));
                    }
                }
                None => {}
            }
        }
    }

    /// When others are told of us even without a relay.
    fn prepared(&self) -> Option<Time> {
        match self.offered {
            Some(at) => Some(at + PREPARING),
            None => Some(self.wanted? + UNOFFERED),
        }
    }

    /// When [`Endpoint::on_tick`] is to be called.
    pub fn deadline(&self) -> Time {
        let mut next = earliest(self.relays.deadline(), Some(self.next_look));
        if self.ready || self.relays.in_use().next().is_some() {
            next = earliest(next, self.update);
        } else {
            next = earliest(next, self.prepared());
        }
        for session in self.sessions.values() {
            next = earliest(next, session.agent.deadline());
        }
        next.unwrap_or(Time::FAR)
    }
}

#[cfg(test)]
mod tests;
