//! The relay's loop.

use super::packets::{Arena, BATCH, Packet, Received, SLOTS, Sender};
use super::stream::{Readings, Stream, WITHOUT_ALLOCATION};
use super::udp_socket;
use crate::accept;
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConfig;
use shoal_base::{Rng, Time};
use shoal_reach::stun::datagram_frame;
use shoal_reach::turn::server::{Client, Config, Effect, Effects, RelayId, Stats, TurnServer};
use slab::Slab;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const WAKER: Token = Token(usize::MAX);
/// Tokens: listening sockets, then connections, then relayed addresses.
const STREAMS: usize = 1 << 16;
const RELAYS: usize = 1 << 32;
/// The number of a connection's name that is its place.
const PLACES: u64 = 1 << 32;
/// Batches taken from one socket, and reads from one connection, before others have their turn.
const TURNS: usize = 4;
/// How often statistics are brought up to date and idle connections looked for.
const LOOK: Duration = Duration::from_secs(1);

struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
    ipv6: bool,
}

struct Relay {
    id: RelayId,
    socket: UdpSocket,
    ipv6: bool,
}

/// What a worker is made of before it has a thread.
pub(super) struct Parts {
    poll: Poll,
    server: TurnServer,
    listeners: Vec<Listener>,
    max_connections: usize,
    tls: Arc<ServerConfig>,
    stats: Arc<Mutex<Stats>>,
}

impl Parts {
    pub(super) fn new(
        config: Config,
        max_connections: usize,
        tls: Arc<ServerConfig>,
        rng: &mut Rng,
    ) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            server: TurnServer::new(config, rng),
            listeners: Vec::new(),
            max_connections,
            tls,
            stats: Arc::default(),
        })
    }

    pub(super) fn stats(&self) -> Arc<Mutex<Stats>> {
        Arc::clone(&self.stats)
    }

    pub(super) fn waker(&self) -> io::Result<Arc<Waker>> {
        Ok(Arc::new(Waker::new(self.poll.registry(), WAKER)?))
    }

    pub(super) fn listen(&mut self, mut udp: UdpSocket, mut tcp: TcpListener) -> io::Result<()> {
        let token = self.listeners.len() * 2;
        let registry = self.poll.registry();
        registry.register(&mut udp, Token(token), Interest::READABLE)?;
        registry.register(&mut tcp, Token(token + 1), Interest::READABLE)?;
        let ipv6 = udp.local_addr()?.is_ipv6();
        self.listeners.push(Listener { udp, tcp, ipv6 });
        Ok(())
    }

    /// Serves until `stop` is set and the waker wakes.
    pub(super) fn run(self, stop: &AtomicBool) {
        Worker {
            parts: self,
            started: Instant::now(),
            effects: Effects::default(),
            streams: Slab::new(),
            relays: Vec::new(),
            next_name: 0,
            arena: Arena::new(),
            sender: Sender::new(),
            received: Vec::with_capacity(BATCH),
            down: Vec::with_capacity(SLOTS),
            up: Vec::with_capacity(SLOTS),
            packets: Vec::with_capacity(SLOTS),
            unsent: Vec::new(),
            busy: Vec::new(),
        }
        .run(stop);
    }
}

struct Worker {
    parts: Parts,
    started: Instant,
    effects: Effects,
    streams: Slab<Stream>,
    /// By the place in their name.
    relays: Vec<Option<Relay>>,
    next_name: u64,
    arena: Arena,
    sender: Sender,
    received: Vec<Received>,
    /// To clients by UDP, by the listener they use; their bytes are in the arena.
    down: Vec<(u16, Packet)>,
    /// To peers, by relayed address.
    up: Vec<(RelayId, Packet)>,
    packets: Vec<Packet>,
    /// Connections with something new to be written.
    unsent: Vec<usize>,
    /// Sockets and connections with more than their turn allowed.
    busy: Vec<Token>,
}

/// Has a connection write `bytes`; gives its place if they are the first that wait. What has no room
/// is dropped.
fn write(streams: &mut Slab<Stream>, key: usize, name: u64, bytes: &[u8]) -> Option<usize> {
    let stream = streams.get_mut(key).filter(|s| s.name == name)?;
    let first = !stream.is_pending();
    (stream.write(bytes) && first).then_some(key)
}

impl Worker {
    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(1024);
        let mut look = self.now();
        while !stop.load(Ordering::Acquire) {
            let due = self.parts.server.deadline().map_or(look, |at| at.min(look));
            let wait = if self.busy.is_empty() {
                due.since(self.now())
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.parts.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return tracing::error!(%error, "the relay cannot wait for events");
            }
            let now = self.now();
            for token in std::mem::take(&mut self.busy) {
                self.ready(now, token);
            }
            for event in &events {
                self.ready(now, event.token());
            }
            self.flush_down();
            for key in self.unsent.drain(..) {
                if let Some(stream) = self.streams.get_mut(key) {
                    // A connection that broke tells so itself.
                    let _ = stream.flush();
                }
            }
            if self.parts.server.deadline().is_some_and(|at| at <= now) {
                self.parts.server.on_tick(now, &mut self.effects);
                self.act(now);
            }
            if now >= look {
                look = now + LOOK;
                self.look(now);
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let mut stats = self
            .parts
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *stats = self.parts.server.stats();
    }

    fn look(&mut self, now: Time) {
        self.tell();
        let idle: Vec<usize> = self
            .streams
            .iter()
            .filter(|(_, s)| now.since(s.since) >= WITHOUT_ALLOCATION)
            .filter(|(_, s)| !self.parts.server.is_client(Client::Stream(s.name)))
            .map(|(key, _)| key)
            .collect();
        for key in idle {
            self.close(now, key);
        }
        // Those left waiting when descriptors ran out.
        for index in 0..self.parts.listeners.len() {
            self.accept(now, index);
        }
    }

    fn ready(&mut self, now: Time, token: Token) {
        match token.0 {
            _ if token == WAKER => {}
            at if at >= RELAYS => self.on_peers(now, token, at - RELAYS),
            at if at >= STREAMS => self.on_stream(now, token, at - STREAMS),
            at if at % 2 == 0 => self.on_clients(now, token, at / 2),
            at => self.accept(now, at / 2),
        }
    }

    /// A listening socket has datagrams of clients.
    fn on_clients(&mut self, now: Time, token: Token, index: usize) {
        for _ in 0..TURNS {
            // Its datagrams have the arena for themselves.
            self.flush_down();
            let Some(listener) = self.parts.listeners.get(index) else {
                return;
            };
            self.received.clear();
            let more = self
                .arena
                .receive(&listener.udp, listener.ipv6, &mut self.received);
            let base = self.arena.bytes().as_ptr_range().start;
            for received in &self.received {
                let bytes = self.arena.bytes().get(received.data.clone());
                let Some(frame) = bytes.and_then(datagram_frame) else {
                    continue;
                };
                let client = Client::Udp(index as u16, received.from);
                let effects = &mut self.effects;
                let up = self
                    .parts
                    .server
                    .on_client(now, client, received.from, frame, effects);
                if let Some(up) = up {
                    // Where in the arena it is: data is always a part of what it came in.
                    let start = up.data.as_ptr().addr() - base.addr();
                    let data = start..start + up.data.len();
                    self.up.push((up.relay, Packet { to: up.to, data }));
                }
            }
            let (up, packets) = (&mut self.up, &mut self.packets);
            let bytes = self.arena.bytes();
            Self::flush_up(up, packets, &self.relays, &mut self.sender, bytes);
            self.arena.clear();
            if !self.effects.list.is_empty() {
                self.act(now);
            }
            if !more {
                return;
            }
        }
        self.busy.push(token);
    }

    /// Sends what clients sent, which is in `bytes`, by each relayed address what is its own.
    fn flush_up(
        up: &mut Vec<(RelayId, Packet)>,
        packets: &mut Vec<Packet>,
        relays: &[Option<Relay>],
        sender: &mut Sender,
        bytes: &[u8],
    ) {
        // Stable, so that each address's packets stay in order.
        up.sort_by_key(|(relay, _)| relay.slot);
        let mut up = up.drain(..).peekable();
        while let Some((relay, packet)) = up.next() {
            packets.clear();
            packets.push(packet);
            while let Some((_, packet)) = up.next_if(|(next, _)| *next == relay) {
                packets.push(packet);
            }
            // One that was closed meanwhile may have left its place to another.
            let by = relays.get(relay.slot as usize).and_then(Option::as_ref);
            if let Some(by) = by.filter(|by| by.id == relay) {
                sender.send(&by.socket, bytes, packets);
            }
        }
    }

    /// A relayed address has datagrams of peers.
    fn on_peers(&mut self, now: Time, token: Token, place: usize) {
        for _ in 0..TURNS {
            if self.arena.room() < BATCH {
                self.flush_down();
            }
            let Some(Some(relay)) = self.relays.get(place) else {
                return;
            };
            self.received.clear();
            let more = self
                .arena
                .receive(&relay.socket, relay.ipv6, &mut self.received);
            let id = relay.id;
            for received in std::mem::take(&mut self.received) {
                self.on_peer(now, id, &received);
            }
            if !more {
                return;
            }
        }
        self.busy.push(token);
    }

    fn on_peer(&mut self, now: Time, relay: RelayId, received: &Received) {
        let Received { data, from } = received;
        let bytes = self.arena.bytes_mut();
        let Some(down) = self
            .parts
            .server
            .on_peer(now, relay, *from, bytes, data.clone())
        else {
            return;
        };
        match down.client {
            Client::Udp(listener, to) => {
                let data = down.bytes;
                self.down.push((listener, Packet { to, data }));
            }
            Client::Stream(name) => {
                let key = (name % PLACES) as usize;
                let bytes = self.arena.bytes().get(down.bytes).unwrap_or_default();
                self.unsent
                    .extend(write(&mut self.streams, key, name, bytes));
            }
        }
    }

    /// Sends what is for clients by UDP, and empties the arena.
    fn flush_down(&mut self) {
        let mut down = self.down.drain(..).peekable();
        while let Some((listener, packet)) = down.next() {
            self.packets.clear();
            self.packets.push(packet);
            while let Some((_, packet)) = down.next_if(|(next, _)| *next == listener) {
                self.packets.push(packet);
            }
            if let Some(by) = self.parts.listeners.get(usize::from(listener)) {
                self.sender.send(&by.udp, self.arena.bytes(), &self.packets);
            }
        }
        drop(down);
        self.arena.clear();
    }

    /// Does what the core wants.
    fn act(&mut self, now: Time) {
        while !self.effects.list.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.list.drain(..) {
                match effect {
                    Effect::Reply(client, range) => {
                        let bytes = effects.bytes.get(range).unwrap_or_default();
                        self.reply(client, bytes);
                    }
                    Effect::OpenRelay(id, at) => {
                        let bound = match self.open(id, at) {
                            Ok(bound) => Some(bound),
                            Err(error) => {
                                tracing::debug!(%error, %at, "a relayed address cannot be bound");
                                None
                            }
                        };
                        self.parts
                            .server
                            .on_relay(now, id, bound, &mut self.effects);
                    }
                    Effect::CloseRelay(id) => {
                        if let Some(place) = self.relays.get_mut(id.slot as usize)
                            && let Some(relay) = place.as_mut()
                        {
                            let _ = self.parts.poll.registry().deregister(&mut relay.socket);
                            *place = None;
                        }
                    }
                }
            }
            // The buffers are used again; what came meanwhile was put into new ones.
            if self.effects.list.is_empty() {
                effects.clear();
                self.effects = effects;
            }
        }
    }

    fn reply(&mut self, client: Client, bytes: &[u8]) {
        match client {
            Client::Udp(listener, to) => {
                if let Some(by) = self.parts.listeners.get(usize::from(listener)) {
                    self.sender.send_one(&by.udp, bytes, to);
                }
            }
            Client::Stream(name) => {
                let key = (name % PLACES) as usize;
                self.unsent
                    .extend(write(&mut self.streams, key, name, bytes));
            }
        }
    }

    fn open(&mut self, id: RelayId, at: SocketAddr) -> io::Result<SocketAddr> {
        let mut socket = udp_socket(at, None)?;
        let bound = socket.local_addr()?;
        let place = id.slot as usize;
        let token = Token(RELAYS + place);
        let registry = self.parts.poll.registry();
        registry.register(&mut socket, token, Interest::READABLE)?;
        if self.relays.len() <= place {
            self.relays.resize_with(place + 1, || None);
        }
        if let Some(free) = self.relays.get_mut(place) {
            let ipv6 = at.is_ipv6();
            *free = Some(Relay { id, socket, ipv6 });
        }
        Ok(bound)
    }

    fn accept(&mut self, now: Time, index: usize) {
        loop {
            let Some(listener) = self.parts.listeners.get(index) else {
                return;
            };
            match accept::next(&listener.tcp) {
                Ok(Some((tcp, from))) => self.connected(now, tcp, from),
                Ok(None) => return,
                // The next are taken in a second.
                Err(error) => return tracing::warn!(%error, "accepting a relay's client"),
            }
        }
    }

    fn connected(&mut self, now: Time, mut tcp: TcpStream, from: SocketAddr) {
        if self.streams.len() >= self.parts.max_connections && !self.evict(now) {
            return;
        }
        let _ = tcp.set_nodelay(true);
        let key = self.streams.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(STREAMS + key);
        if let Err(error) = self
            .parts
            .poll
            .registry()
            .register(&mut tcp, token, interest)
        {
            return tracing::warn!(%error, "polling a relay's client");
        }
        self.next_name += 1;
        let name = self.next_name * PLACES + key as u64;
        let tls = Arc::clone(&self.parts.tls);
        self.streams.insert(Stream::new(tcp, tls, name, from, now));
    }

    /// Closes the connection that has been there for longest without an allocation; whether there
    /// was one.
    fn evict(&mut self, now: Time) -> bool {
        let idle = self.streams.iter();
        let idle = idle.filter(|(_, s)| !self.parts.server.is_client(Client::Stream(s.name)));
        let oldest = idle.min_by_key(|(_, s)| s.since).map(|(key, _)| key);
        match oldest {
            Some(key) => self.close(now, key),
            None => return false,
        }
        true
    }

    fn close(&mut self, now: Time, key: usize) {
        if let Some(mut stream) = self.streams.try_remove(key) {
            let _ = self.parts.poll.registry().deregister(&mut stream.tcp);
            self.parts
                .server
                .on_gone(Client::Stream(stream.name), &mut self.effects);
            self.act(now);
        }
    }

    /// A connection may be read or written.
    fn on_stream(&mut self, now: Time, token: Token, key: usize) {
        for _ in 0..TURNS {
            let Some(stream) = self.streams.get_mut(key) else {
                return;
            };
            if stream.is_pending() && stream.flush().is_err() {
                return self.close(now, key);
            }
            match stream.read() {
                Readings::Some => {}
                Readings::Nothing => return,
                Readings::Over => return self.close(now, key),
            }
            if !self.frames(now, key) {
                return self.close(now, key);
            }
        }
        self.busy.push(token);
    }

    /// Handles all whole frames of a connection; whether it may go on.
    fn frames(&mut self, now: Time, key: usize) -> bool {
        let mut goes_on = true;
        while let Some(stream) = self.streams.get_mut(key) {
            let (name, from, base) = (stream.name, stream.from, stream.input().as_ptr());
            let frame = match stream.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, %from, "a relay's client is cut off");
                    goes_on = false;
                    break;
                }
            };
            let client = Client::Stream(name);
            let effects = &mut self.effects;
            let up = self
                .parts
                .server
                .on_client(now, client, from, frame, effects);
            if let Some(up) = up {
                // As in the arena: data is a part of what was read.
                let start = up.data.as_ptr().addr() - base.addr();
                let data = start..start + up.data.len();
                self.up.push((up.relay, Packet { to: up.to, data }));
            }
            if !self.effects.list.is_empty() {
                self.act(now);
            }
        }
        if let Some(stream) = self.streams.get(key) {
            let (up, packets) = (&mut self.up, &mut self.packets);
            let bytes = stream.input();
            Self::flush_up(up, packets, &self.relays, &mut self.sender, bytes);
        }
        self.up.clear();
        goes_on
    }
}
