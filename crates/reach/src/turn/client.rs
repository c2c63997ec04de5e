//! A relay's client: gets a relayed address and keeps it, lets peers in, names them by channels.
//!
//! The owner feeds frames and the clock, sends what comes out, and hears events. When a client has
//! failed it stays so; the owner makes another, elsewhere or later, as [`Failure`] says.

mod login;
mod told;

use super::{CHANNEL_SECS, CHANNELS, PERMISSION_SECS, TRANSPORT_UDP};
use crate::stun::{
    Attribute, Builder, CHANNEL_HEADER, Class, Frame, Message, Method, Step, Timing, Transaction,
    TransactionId, kind,
};
use crate::turn::FAMILY_IPV6;
use login::{Login, Next};
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
pub use told::{ClientConfig, Event, Failure, Output, Unsent};

/// Permissions are renewed a minute before they end, and channels with them, whose peers' permissions
/// would end first (libwebrtc does so too).
const RENEW: Duration = Duration::from_secs(PERMISSION_SECS - 60);
/// What is asked for, and how long it is taken to be when the answer does not say.
const LIFETIME: Duration = Duration::from_secs(600);
/// Peers at most.
const MOST_PEERS: usize = 256;
/// Bytes of data in a Send indication or channel at most: what fits a UDP datagram with its headers.
const MAX_DATA: usize = 65_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Allocate,
    Refresh,
    Release,
    Permit(IpAddr),
    Bind(u16, SocketAddr),
}

#[derive(Debug)]
struct Request {
    what: What,
    transaction: Transaction,
    /// Nonces that were refused for it.
    stale: u32,
}

#[derive(Debug, Clone, Copy)]
struct Permission {
    /// When it ends; none while the first answer is awaited.
    until: Option<Time>,
    renew: Time,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    number: u16,
    until: Option<Time>,
    renew: Time,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Allocating,
    Allocated { until: Time, renew: Time },
    Over,
}

/// One allocation at one server, as its client sees it.
#[derive(Debug)]
pub struct TurnClient {
    config: ClientConfig,
    rng: Rng,
    login: Login,
    /// When the server was last heard.
    heard: Time,
    phase: Phase,
    requests: Vec<Request>,
    permissions: BTreeMap<IpAddr, Permission>,
    channels: BTreeMap<SocketAddr, Channel>,
    peers: BTreeMap<u16, SocketAddr>,
    next_channel: u16,
}

impl TurnClient {
    /// Asks for an allocation.
    pub fn new(config: ClientConfig, now: Time, rng: &mut Rng, out: &mut Vec<Output>) -> Self {
        let mut client = Self {
            login: Login::new(&config.credential),
            config,
            rng: rng.fork(),
            heard: Time::ZERO,
            phase: Phase::Allocating,
            requests: Vec::new(),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_channel: *CHANNELS.start(),
        };
        client.ask(now, What::Allocate, 0, out);
        client
    }

    /// Whether there is an allocation.
    pub fn is_allocated(&self) -> bool {
        matches!(self.phase, Phase::Allocated { .. })
    }

    fn ask(&mut self, now: Time, what: What, stale: u32, out: &mut Vec<Output>) {
        let id = TransactionId::random(&mut self.rng);
        let mut bytes = Vec::new();
        let method = match what {
            What::Allocate => Method::ALLOCATE,
            What::Refresh | What::Release => Method::REFRESH,
            What::Permit(_) => Method::CREATE_PERMISSION,
            What::Bind(..) => Method::CHANNEL_BIND,
        };
        let mut builder = Builder::new(&mut bytes, Class::Request, method, id);
        match what {
            What::Allocate => {
                builder
                    .put(&Attribute::RequestedTransport(TRANSPORT_UDP))
                    .put(&Attribute::Lifetime(LIFETIME.as_secs() as u32));
                if self.config.ipv6 {
                    builder.put(&Attribute::AdditionalAddressFamily(FAMILY_IPV6));
                }
            }
            What::Refresh => {
                builder.put(&Attribute::Lifetime(LIFETIME.as_secs() as u32));
            }
            What::Release => {
                builder.put(&Attribute::Lifetime(0));
            }
            What::Permit(ip) => {
                builder.put(&Attribute::XorPeerAddress(SocketAddr::new(ip, 0)));
            }
            What::Bind(number, peer) => {
                builder
                    .put(&Attribute::ChannelNumber(number))
                    .put(&Attribute::XorPeerAddress(peer));
            }
        }
        self.login.sign(&mut builder);
        let timing = if self.config.stream {
            Timing::STREAM
        } else {
            Timing::DATAGRAM
        };
        let mut transaction = Transaction::new(id, bytes, timing, now);
        if transaction.poll(now) == Step::Send {
            out.push(Output::Send(transaction.bytes().to_vec()));
        }
        self.requests.push(Request {
            what,
            transaction,
            stale,
        });
    }

    fn is_asked(&self, what: &What) -> bool {
        self.requests.iter().any(|r| r.what == *what)
    }

    /// Lets a peer in, and keeps it let in until [`TurnClient::forget`]. With `channel` data goes by
    /// a channel, which costs four bytes instead of 36. Nothing happens before there is an allocation
    /// or if there are too many peers.
    pub fn permit(&mut self, now: Time, peer: SocketAddr, channel: bool, out: &mut Vec<Output>) {
        if !self.is_allocated() {
            return;
        }
        let (until, renew) = (None, now + RENEW);
        let ip = peer.ip();
        let full = self.permissions.len() >= MOST_PEERS;
        if !self.permissions.contains_key(&ip) && !full {
            self.permissions.insert(ip, Permission { until, renew });
            // Binding a channel lets its peer in too.
            if !channel {
                self.ask(now, What::Permit(ip), 0, out);
            }
        }
        let full = self.channels.len() >= MOST_PEERS || self.next_channel > *CHANNELS.end();
        if channel && !self.channels.contains_key(&peer) && !full {
            let number = self.next_channel;
            self.next_channel += 1;
            let channel = Channel {
                number,
                until,
                renew,
            };
            self.channels.insert(peer, channel);
            self.peers.insert(number, peer);
            self.ask(now, What::Bind(number, peer), 0, out);
        }
    }

    /// Lets the permission of an address and the channels of its ports end.
    pub fn forget(&mut self, ip: IpAddr) {
        self.permissions.remove(&ip);
        self.channels.retain(|peer, _| peer.ip() != ip);
        // Numbers are not used again, so that what is under way is taken for nobody else's.
        self.peers.retain(|_, peer| peer.ip() != ip);
        self.requests.retain(|r| match r.what {
            What::Permit(of) => of != ip,
            What::Bind(_, peer) => peer.ip() != ip,
            _ => true,
        });
    }

    /// Gives the allocation back.
    pub fn release(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.is_allocated() && !self.is_asked(&What::Release) {
            self.requests.clear();
            self.ask(now, What::Release, 0, out);
        }
    }

    /// Appends the frame that carries data to a peer, to be sent to the server.
    pub fn send(
        &mut self,
        now: Time,
        peer: SocketAddr,
        data: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<(), Unsent> {
        if !self.is_allocated() {
            return Err(Unsent::NotAllocated);
        }
        if data.len() > MAX_DATA {
            return Err(Unsent::TooLong);
        }
        let holds = |until: Option<Time>| until.is_some_and(|until| now < until);
        if !self
            .permissions
            .get(&peer.ip())
            .is_some_and(|p| holds(p.until))
        {
            return Err(Unsent::NotPermitted);
        }
        match self.channels.get(&peer).filter(|c| holds(c.until)) {
            Some(channel) => {
                frame.reserve(CHANNEL_HEADER + data.len() + 3);
                frame.extend_from_slice(&channel.number.to_be_bytes());
                frame.extend_from_slice(&(data.len() as u16).to_be_bytes());
                frame.extend_from_slice(data);
                if self.config.stream {
                    let padding = data.len().next_multiple_of(4) - data.len();
                    frame.extend_from_slice(&[0; 3][..padding]);
                }
            }
            None => {
                let id = TransactionId::random(&mut self.rng);
                Builder::new(frame, Class::Indication, Method::SEND, id)
                    .put(&Attribute::XorPeerAddress(peer))
                    .put(&Attribute::Data(data));
            }
        }
        Ok(())
    }

    /// A frame came from the server: gives what a peer sent, if that is what it holds.
    pub fn on_frame<'f>(
        &mut self,
        now: Time,
        frame: Frame<'f>,
        out: &mut Vec<Output>,
    ) -> Option<(SocketAddr, &'f [u8])> {
        self.heard = now;
        let bytes = match frame {
            Frame::Channel { number, data } => {
                return self.peers.get(&number).map(|peer| (*peer, data));
            }
            Frame::Stun(bytes) => bytes,
        };
        let message = Message::decode(bytes).ok()?;
        match (message.class(), message.method()) {
            (Class::Indication, Method::DATA) => {
                let Some(Ok(Attribute::XorPeerAddress(peer))) = message.get(kind::XOR_PEER_ADDRESS)
                else {
                    return None;
                };
                let data = message.value(kind::DATA)?;
                // A server that lets in whom we did not is not believed.
                let known = self.permissions.contains_key(&peer.ip());
                return known.then_some((peer, data));
            }
            (Class::Success | Class::Error, _) => self.on_response(now, &message, out),
            _ => {}
        }
        None
    }

    fn on_response(&mut self, now: Time, message: &Message<'_>, out: &mut Vec<Output>) {
        let of = |r: &Request| r.transaction.id() == message.id();
        let Some(at) = self.requests.iter().position(of) else {
            return;
        };
        if message.class() == Class::Success {
            // Whoever forges one does not know the key.
            if self.login.is_believed(message) {
                let request = self.requests.swap_remove(at);
                self.on_success(now, &request, message, out);
            }
            return;
        }
        let Some(Ok(Attribute::ErrorCode(reason))) = message.get(kind::ERROR_CODE) else {
            return;
        };
        let request = self.requests.swap_remove(at);
        match self.login.on_error(reason.code, message, request.stale) {
            Next::Again => self.ask(now, request.what, request.stale + 1, out),
            Next::GiveUp if matches!(reason.code, 401 | 438) => {
                self.fail(Failure::Unauthorized, out);
            }
            Next::GiveUp => self.on_refusal(now, &request.what, reason.code, message, out),
        }
    }

    fn on_success(
        &mut self,
        now: Time,
        request: &Request,
        message: &Message<'_>,
        out: &mut Vec<Output>,
    ) {
        let lifetime = match message.get(kind::LIFETIME) {
            Some(Ok(Attribute::Lifetime(secs))) => Duration::from_secs(u64::from(secs)),
            _ => LIFETIME,
        };
        // Renewed when three quarters are over, so that several requests may be lost.
        let allocated = Phase::Allocated {
            until: now + lifetime,
            renew: now + lifetime * 3 / 4,
        };
        match request.what {
            What::Allocate => {
                let mut relayed = SmallVec::new();
                let mut mapped = None;
                for (kind, value) in message.attributes() {
                    match Attribute::decode(kind, value, &message.id()) {
                        Ok(Attribute::XorRelayedAddress(a)) if relayed.len() < 2 => relayed.push(a),
                        Ok(Attribute::XorMappedAddress(a)) => mapped = mapped.or(Some(a)),
                        _ => {}
                    }
                }
                if relayed.is_empty() {
                    return self.fail(Failure::Refused(0), out);
                }
                self.phase = allocated;
                out.push(Output::Event(Event::Allocated { relayed, mapped }));
            }
            What::Refresh => self.phase = allocated,
            What::Release => self.fail(Failure::Released, out),
            What::Permit(ip) => self.permitted(now, ip, out),
            What::Bind(_, peer) => {
                self.permitted(now, peer.ip(), out);
                if let Some(channel) = self.channels.get_mut(&peer) {
                    let first = channel.until.is_none();
                    channel.until = Some(now + Duration::from_secs(CHANNEL_SECS));
                    channel.renew = now + RENEW;
                    if first {
                        out.push(Output::Event(Event::Bound(peer)));
                    }
                }
            }
        }
    }

    fn permitted(&mut self, now: Time, ip: IpAddr, out: &mut Vec<Output>) {
        if let Some(permission) = self.permissions.get_mut(&ip) {
            let first = permission.until.is_none();
            permission.until = Some(now + Duration::from_secs(PERMISSION_SECS));
            permission.renew = now + RENEW;
            if first {
                out.push(Output::Event(Event::Permitted(ip)));
            }
        }
    }

    fn on_refusal(
        &mut self,
        now: Time,
        what: &What,
        code: u16,
        message: &Message<'_>,
        out: &mut Vec<Output>,
    ) {
        let other = message.get(kind::ALTERNATE_SERVER);
        let failure = match (code, other) {
            (300, Some(Ok(Attribute::AlternateServer(other)))) => Failure::Elsewhere(other),
            (437, _) => Failure::Mismatch,
            (486 | 508, _) => Failure::Full(code),
            _ => Failure::Refused(code),
        };
        match *what {
            What::Allocate | What::Refresh => self.fail(failure, out),
            What::Release => self.fail(Failure::Released, out),
            // Without an allocation nothing else can be had.
            _ if code == 437 => self.fail(failure, out),
            What::Permit(ip) => {
                self.forget(ip);
                out.push(Output::Event(Event::NotPermitted(ip, code)));
            }
            What::Bind(number, peer) => {
                // Perhaps without a channel: the number may be taken.
                self.channels.remove(&peer);
                self.peers.remove(&number);
                if code == 403 {
                    self.forget(peer.ip());
                    out.push(Output::Event(Event::NotPermitted(peer.ip(), code)));
                } else if self.permissions.contains_key(&peer.ip()) {
                    self.ask(now, What::Permit(peer.ip()), 0, out);
                }
            }
        }
    }

    fn fail(&mut self, failure: Failure, out: &mut Vec<Output>) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.requests.clear();
        self.permissions.clear();
        self.channels.clear();
        self.peers.clear();
        out.push(Output::Event(Event::Failed(failure)));
    }

    /// The deadline has come.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut late = Vec::new();
        self.requests.retain_mut(|request| {
            match request.transaction.poll(now) {
                Step::Send => out.push(Output::Send(request.transaction.bytes().to_vec())),
                Step::Wait => {}
                Step::GivenUp => {
                    late.push((request.what.clone(), request.transaction.started()));
                    return false;
                }
            }
            true
        });
        for (what, started) in late {
            // A server that says other things is there, and much was lost.
            if self.heard < started || what == What::Release {
                return self.fail(Failure::NoAnswer, out);
            }
            self.ask(now, what, 0, out);
        }
        let Phase::Allocated { until, renew } = self.phase else {
            return;
        };
        if now >= until {
            return self.fail(Failure::NoAnswer, out);
        }
        if self.is_asked(&What::Release) {
            return;
        }
        let mut due = Vec::new();
        if now >= renew {
            due.push(What::Refresh);
        }
        for (peer, channel) in &self.channels {
            if now >= channel.renew {
                due.push(What::Bind(channel.number, *peer));
            }
        }
        for (ip, permission) in &self.permissions {
            let by_channel = self.channels.keys().any(|peer| peer.ip() == *ip);
            if now >= permission.renew && !by_channel {
                due.push(What::Permit(*ip));
            }
        }
        for what in due {
            if !self.is_asked(&what) {
                self.ask(now, what, 0, out);
            }
        }
    }

    /// When [`TurnClient::on_tick`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let mut next = self.requests.iter().map(|r| r.transaction.deadline()).min();
        let Phase::Allocated { until, renew } = self.phase else {
            return next;
        };
        next = earliest(next, Some(until));
        // What is renewed already waits for its answer.
        if self.is_asked(&What::Release) {
            return next;
        }
        if !self.is_asked(&What::Refresh) {
            next = earliest(next, Some(renew));
        }
        for (peer, channel) in &self.channels {
            if !self.is_asked(&What::Bind(channel.number, *peer)) {
                next = earliest(next, Some(channel.renew));
            }
        }
        for (ip, permission) in &self.permissions {
            let by_channel = self.channels.keys().any(|peer| peer.ip() == *ip);
            if !by_channel && !self.is_asked(&What::Permit(*ip)) {
                next = earliest(next, Some(permission.renew));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests;
