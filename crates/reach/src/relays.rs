//! The relays that a node keeps at hand: probed, two allocated at, watched, replaced.
//!
//! Every relay that was told of is asked for our address by UDP, by IPv4 and by IPv6 if it has both. Allocations are made at the two that
//! answer soonest. If none answers by UDP, connections are tried at each of their addresses, for there
//! are networks that let nothing else out; a second later by TLS too, for some let nothing else out at
//! port 443. A relay in use is asked again and again: one that is silent
//! is replaced within about a second, and one that sees us at another address than before tells that
//! our NAT has forgotten us.

mod relay;
mod upkeep;

use crate::agent::RelayId;
use crate::stun::{Frame, Message, binding, datagram_frame, next_frame};
use crate::turn::client::{ClientConfig, Event as TurnEvent, Output as Turn, TurnClient, Unsent};
use crate::turn::credential::Credential;
use relay::{Life, Relay};
use shoal_base::{Rng, Time};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A relay that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Where it listens, by UDP and TCP at each.
    pub at: Vec<SocketAddr>,
    /// Who we are there.
    pub credential: Credential,
}

/// What keeping relays needs.
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
    /// Our addresses or relays are others than before.
    Changed,
    /// A relay lets an address in.
    Permitted(RelayId, IpAddr),
    /// A relay does not send there.
    Refused(RelayId, IpAddr),
}

/// A relay in use, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// Its number here.
    pub id: RelayId,
    /// Where it is.
    pub at: SocketAddr,
    /// Whether it is reached by TCP.
    pub tcp: bool,
    /// Our address there.
    pub relayed: SocketAddr,
    /// Its round trip, if it was measured.
    pub rtt: Option<Duration>,
}

/// From which load on, in thousandths, a relay is the less wanted the busier it is, and what each
/// thousandth counts as beside the round trip; and from which load on one more is kept.
pub(crate) const BUSY: u16 = 700;
const COST_OF_LOAD: Duration = Duration::from_micros(800);
const FULL: u16 = 900;
/// Tickets kept.
const MAX_TICKETS: usize = 8;
/// How often a relay that answers is asked while there is traffic, and else: NATs forget after 30 s.
const ASK_BUSY: Duration = Duration::from_millis(500);
const ASK_IDLE: Duration = Duration::from_secs(8);
/// How often one that is silent or refused us is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long UDP has before TCP is tried, and each connection before the next.
const UDP_FIRST: Duration = Duration::from_millis(600);
const NEXT: Duration = Duration::from_millis(400);
const CONNECT: Duration = Duration::from_secs(5);
/// How long answers to the first question are waited for, so that the nearest is known.
const SETTLE: Duration = Duration::from_millis(120);
/// Bytes of a frame of a stream at most.
const MAX_FRAME: usize = 4 + 65_536;

/// What a load counts as beside the round trip.
pub(crate) fn cost_of(load: u16) -> Duration {
    COST_OF_LOAD * u32::from(load.saturating_sub(BUSY))
}

/// The relays of a node.
#[derive(Debug)]
pub struct Relays {
    rng: Rng,
    tickets: Vec<Ticket>,
    relays: Vec<Relay>,
    next_id: RelayId,
    busy: bool,
    /// When there was nothing by UDP to begin with.
    began: Time,
    /// When the next connection may be tried.
    next_tcp: Time,
    /// When TLS is tried, if no connection serves by then.
    next_tls: Time,
    first_answer: Option<Time>,
    /// When the nearest of those that answered are taken, unless that was done.
    settles: Option<Time>,
    /// Our address as relays see it, of IPv4 and of IPv6.
    seen: [Option<SocketAddr>; 2],
}

impl Relays {
    /// None yet.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            rng: rng.fork(),
            tickets: Vec::new(),
            relays: Vec::new(),
            next_id: 1,
            busy: false,
            began: Time::ZERO,
            next_tcp: Time::FAR,
            next_tls: Time::FAR,
            first_answer: None,
            settles: None,
            seen: [None; 2],
        }
    }

    /// These may be used. Those that are in use stay so while they serve.
    pub fn offer(&mut self, now: Time, mut tickets: Vec<Ticket>, out: &mut Vec<Output>) {
        tickets.truncate(MAX_TICKETS);
        let had = !self.relays.is_empty();
        for ticket in tickets {
            let same = |t: &&mut Ticket| t.at.first() == ticket.at.first();
            if let Some(known) = self.tickets.iter_mut().find(same) {
                // A fresh credential is for the next allocation: the old one is kept with its own.
                *known = ticket;
                continue;
            }
            if ticket.at.is_empty() {
                continue;
            }
            if self.tickets.len() >= MAX_TICKETS {
                break;
            }
            for v6 in [false, true] {
                if let Some(at) = ticket.at.iter().find(|a| a.is_ipv6() == v6) {
                    let relay = self.relay(now, *at, false, self.tickets.len());
                    self.relays.push(relay);
                }
            }
            self.tickets.push(ticket);
        }
        if !had && !self.relays.is_empty() {
            self.began = now;
            self.next_tcp = now + UDP_FIRST;
        }
        self.on_tick(now, out);
    }

    fn relay(&mut self, now: Time, at: SocketAddr, tcp: bool, ticket: usize) -> Relay {
        self.next_id += 1;
        Relay {
            id: self.next_id,
            at,
            tcp,
            ticket,
            life: Life::Idle,
            asked: None,
            misses: 0,
            next: now,
            not_before: Time::ZERO,
            rtt: None,
            mapped: None,
            load: 0,
            rest: Vec::new(),
        }
    }

    /// Whether data flows: then relays are watched closely.
    pub fn set_busy(&mut self, now: Time, busy: bool) {
        if busy && !self.busy {
            let up = self.relays.iter_mut().filter(|r| r.is_up() && !r.tcp);
            up.for_each(|r| r.next = r.next.min(now));
        }
        self.busy = busy;
    }

    /// Our address as relays see it by UDP: that of IPv4 if there is one.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.seen().next()
    }

    /// Our addresses as relays see them by UDP: one of IPv4 and one of IPv6 at most.
    pub fn seen(&self) -> impl Iterator<Item = SocketAddr> {
        self.seen.into_iter().flatten()
    }

    /// Whether our NAT has one address of IPv4 for all whom we send to, so that others reach us after we have sent to
    /// them; none: fewer than two relays have told.
    pub fn is_mapped_as_one(&self) -> Option<bool> {
        let told = self
            .relays
            .iter()
            .filter_map(|r| Some((r.at.ip(), r.mapped?)));
        let mut told = told.filter(|(_, mapped)| mapped.is_ipv4());
        let (first, mapped) = told.next()?;
        let mut others = told.filter(|(at, _)| *at != first).peekable();
        others.peek()?;
        Some(others.all(|(_, other)| other == mapped))
    }

    /// Relays with an allocation.
    pub fn in_use(&self) -> impl Iterator<Item = InUse> {
        self.relays.iter().flat_map(|r| {
            let relayed = match &r.life {
                Life::Up { relayed, .. } => relayed.as_slice(),
                _ => &[],
            };
            relayed.iter().map(|relayed| InUse {
                id: r.id,
                at: r.at,
                tcp: r.tcp,
                relayed: *relayed,
                rtt: r.rtt,
            })
        })
    }

    /// How busy relays said they are, in thousandths, by where they are.
    pub fn loads(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.relays.iter().map(|r| (r.at.ip(), r.load))
    }

    /// Whether anything answered at all, by UDP.
    pub fn has_udp(&self) -> bool {
        self.first_answer.is_some()
    }

    /// Whether datagrams from there are a relay's.
    pub fn is_relay(&self, from: SocketAddr) -> bool {
        self.relays.iter().any(|r| r.at == from && !r.tcp)
    }

    /// A datagram came from a relay: what a peer sent through it, if that is what it holds.
    pub fn on_udp<'b>(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &'b [u8],
        out: &mut Vec<Output>,
    ) -> Option<(RelayId, SocketAddr, &'b [u8])> {
        let at = self.relays.iter().position(|r| r.at == from && !r.tcp)?;
        let frame = datagram_frame(bytes)?;
        self.on_frame(now, at, frame, out)
    }

    fn on_frame<'b>(
        &mut self,
        now: Time,
        at: usize,
        frame: Frame<'b>,
        out: &mut Vec<Output>,
    ) -> Option<(RelayId, SocketAddr, &'b [u8])> {
        if let Frame::Stun(bytes) = frame
            && self.on_answer(now, at, bytes, out)
        {
            return None;
        }
        let relay = self.relays.get_mut(at)?;
        let id = relay.id;
        let mut turn = Vec::new();
        let data = relay.client()?.on_frame(now, frame, &mut turn);
        if !turn.is_empty() {
            self.act(now, at, turn, out);
        }
        data.map(|(peer, data)| (id, peer, data))
    }

    /// Whether it was the answer to a question of ours.
    fn on_answer(&mut self, now: Time, at: usize, bytes: &[u8], out: &mut Vec<Output>) -> bool {
        let Some(relay) = self.relays.get_mut(at) else {
            return false;
        };
        let Some((id, asked)) = relay.asked else {
            return false;
        };
        let Ok(message) = Message::decode(bytes) else {
            return false;
        };
        if message.id() != id {
            return false;
        }
        relay.asked = None;
        relay.misses = 0;
        let rtt = now.since(asked);
        relay.rtt = Some(relay.rtt.map_or(rtt, |old| (old * 3 + rtt) / 4));
        relay.next = now + if self.busy { ASK_BUSY } else { ASK_IDLE };
        relay.load = binding::load(&message).unwrap_or(0);
        let Some(mapped) = binding::mapped_address(&message) else {
            return true;
        };
        let moved = relay.mapped.is_some_and(|old| old != mapped);
        relay.mapped = Some(mapped);
        if relay.tcp {
            return true;
        }
        if self.first_answer.is_none() {
            self.first_answer = Some(now);
            self.settles = Some(now + SETTLE);
        }
        if moved {
            // The allocation belongs to an address that is not ours any more.
            self.drop_client(now, at, Time::ZERO, out);
        }
        let [v4, v6] = &mut self.seen;
        let seen = if mapped.is_ipv6() { v6 } else { v4 };
        if seen.is_none() || moved {
            *seen = Some(mapped);
            out.push(Output::Changed);
        }
        self.on_tick(now, out);
        true
    }

    fn drop_client(&mut self, now: Time, at: usize, not_before: Time, out: &mut Vec<Output>) {
        self.next_id += 1;
        let fresh = self.next_id;
        let Some(relay) = self.relays.get_mut(at) else {
            return;
        };
        let was_up = relay.is_up();
        if relay.tcp {
            out.push(Output::Close(relay.id));
        }
        relay.life = Life::Idle;
        relay.not_before = not_before;
        relay.rest.clear();
        // What is still under way for the old one finds nobody.
        relay.id = fresh;
        if relay.tcp {
            self.relays.remove(at);
            self.next_tcp = self.next_tcp.min(now + NEXT);
        }
        if was_up {
            out.push(Output::Changed);
        }
    }

    fn act(&mut self, now: Time, at: usize, turn: Vec<Turn>, out: &mut Vec<Output>) {
        for output in turn {
            let Some(relay) = self.relays.get_mut(at) else {
                return;
            };
            match output {
                Turn::Send(bytes) if relay.tcp => out.push(Output::Tcp(relay.id, bytes)),
                Turn::Send(bytes) => out.push(Output::Udp(relay.at, bytes)),
                Turn::Event(TurnEvent::Allocated { relayed, .. }) => {
                    let life = std::mem::replace(&mut relay.life, Life::Idle);
                    if let Life::Asking(client) | Life::Up { client, .. } = life {
                        let relayed = relayed.to_vec();
                        relay.life = Life::Up { client, relayed };
                        out.push(Output::Changed);
                    }
                }
                Turn::Event(TurnEvent::Permitted(ip)) => {
                    out.push(Output::Permitted(relay.id, ip));
                }
                Turn::Event(TurnEvent::Bound(peer)) => {
                    out.push(Output::Permitted(relay.id, peer.ip()));
                }
                Turn::Event(TurnEvent::NotPermitted(ip, _)) => {
                    out.push(Output::Refused(relay.id, ip));
                }
                Turn::Event(TurnEvent::Failed(_)) => {
                    self.drop_client(now, at, now + RETRY, out);
                    return;
                }
            }
        }
    }

    fn at(&self, id: RelayId) -> Option<usize> {
        self.relays.iter().position(|r| r.id == id)
    }

    /// A connection is there.
    pub fn on_open(&mut self, now: Time, id: RelayId, out: &mut Vec<Output>) {
        if let Some(at) = self.at(id)
            && matches!(self.relays.get(at).map(|r| &r.life), Some(Life::Opening(_)))
        {
            self.allocate(now, at, out);
        }
    }

    /// A connection failed or ended.
    pub fn on_closed(&mut self, now: Time, id: RelayId, out: &mut Vec<Output>) {
        if let Some(at) = self.at(id) {
            self.drop_client(now, at, now + RETRY, out);
            self.on_tick(now, out);
        }
    }

    /// Bytes came by a connection; `each` gets what peers sent.
    pub fn on_tcp(
        &mut self,
        now: Time,
        id: RelayId,
        bytes: &[u8],
        out: &mut Vec<Output>,
        mut each: impl FnMut(SocketAddr, &[u8]),
    ) {
        let Some(relay) = self.at(id).and_then(|at| self.relays.get_mut(at)) else {
            return;
        };
        let mut buf = std::mem::take(&mut relay.rest);
        buf.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let Some(place) = self.at(id) else {
                return;
            };
            match next_frame(buf.get(at..).unwrap_or_default()) {
                Ok(Some((frame, len))) => {
                    at += len;
                    if let Some((_, peer, data)) = self.on_frame(now, place, frame, out) {
                        each(peer, data);
                    }
                }
                Ok(None) if buf.len() - at <= MAX_FRAME => break,
                _ => return self.on_closed(now, id, out),
            }
        }
        if let Some(relay) = self.at(id).and_then(|at| self.relays.get_mut(at)) {
            buf.drain(..at);
            relay.rest = buf;
        }
    }

    fn allocate(&mut self, now: Time, at: usize, out: &mut Vec<Output>) {
        let Some(relay) = self.relays.get_mut(at) else {
            return;
        };
        let Some(ticket) = self.tickets.get(relay.ticket) else {
            return;
        };
        let config = ClientConfig {
            stream: relay.tcp,
            credential: ticket.credential.clone(),
            ipv6: false,
        };
        let mut turn = Vec::new();
        let client = TurnClient::new(config, now, &mut self.rng, &mut turn);
        relay.life = Life::Asking(Box::new(client));
        relay.next = now;
        relay.misses = 0;
        self.act(now, at, turn, out);
    }

    /// Lets an address in at a relay.
    pub fn permit(&mut self, now: Time, id: RelayId, peer: SocketAddr, out: &mut Vec<Output>) {
        let Some(at) = self.at(id) else {
            return;
        };
        let mut turn = Vec::new();
        if let Some(client) = self.relays.get_mut(at).and_then(Relay::client) {
            client.permit(now, peer, true, &mut turn);
        }
        self.act(now, at, turn, out);
    }

    /// Appends what carries data to a peer; gives where that is to be sent: to an address by UDP, or
    /// by the connection of that number.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn frame(
        &mut self,
        now: Time,
        id: RelayId,
        peer: SocketAddr,
        data: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<Option<SocketAddr>, Unsent> {
        let at = self.at(id).ok_or(Unsent::NotAllocated)?;
        let relay = self.relays.get_mut(at).ok_or(Unsent::NotAllocated)?;
        let to = (!relay.tcp).then_some(relay.at);
        let client = relay.client().ok_or(Unsent::NotAllocated)?;
        client.send(now, peer, data, frame)?;
        Ok(to)
    }
}
