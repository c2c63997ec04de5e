//! The node's thread: sockets, the clock, and the node.

mod handshake;
mod messages;
mod upkeep;

use crate::accept;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use shoal_base::Time;
use shoal_gnutella::Guid;
use shoal_gnutella::handshake::{Handshake, Version};
use shoal_gnutella::node::{ConnId, Effect, Mode, Node};
use shoal_gnutella::shared::Shared;
use slab::Slab;

use super::connection::{Connection, Phase};
use super::handle::{Order, SearchEvent, Snapshot};
use super::server::Incoming;
use super::tls::Tls;
use crate::outbound::Outbound;

const LISTENER: Token = Token(usize::MAX);
pub(super) const WAKER: Token = Token(usize::MAX - 1);
const DATAGRAMS: Token = Token(usize::MAX - 2);
/// Bytes read from one connection before others have their turn.
const TURN: usize = 64 << 10;
/// Bytes read after which what they led to is sent, lest queues fill that could be emptied.
const TOGETHER: usize = 128 << 10;
/// How often handshakes are looked after, and the snapshot is brought up to date.
const LOOK: Duration = Duration::from_millis(500);
/// How long a call and a handshake may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much longer it may take until a node is found by its overlay address.
const BY_OVERLAY: Duration = Duration::from_secs(30);
/// How long the last bytes may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// The waits before a connection that is kept is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often hosts are written to their file.
const KEEP_HOSTS: Duration = Duration::from_secs(300);
/// Connections that are not yet, or no more, of the overlay.
const MAX_STRANGERS: usize = 256;
/// Hosts without TLS that are remembered.
const MAX_CLEAR: usize = 256;
/// Failed calls that are told.
const FAILURES: usize = 8;

pub(super) struct Parts {
    pub(super) poll: Poll,
    pub(super) listener: TcpListener,
    pub(super) udp: UdpSocket,
    pub(super) listen: SocketAddrV4,
    pub(super) connect: Vec<SocketAddr>,
    pub(super) caches: Vec<SocketAddrV4>,
    pub(super) hosts: Option<PathBuf>,
    pub(super) incoming: Option<Box<dyn Incoming>>,
    pub(super) tls: Option<Tls>,
    /// Where connections leave from.
    pub(super) outbound: Outbound,
    /// Those that came by the overlay, and from whom.
    pub(super) arrived: Receiver<(std::net::TcpStream, SocketAddr)>,
    pub(super) ordered: Receiver<Order>,
    pub(super) snapshot: Arc<Mutex<Snapshot>>,
}

/// A connection that is kept.
struct Keep {
    addr: SocketAddr,
    next: Time,
    wait: Duration,
}

pub(super) struct Worker {
    parts: Parts,
    node: Node<Box<dyn Shared + Send>>,
    started: Instant,
    conns: Slab<Connection>,
    /// Where the node's connections are: by slot.
    places: Vec<Option<usize>>,
    /// Connections whose turn ended before they were done.
    busy: Vec<usize>,
    effects: VecDeque<Effect>,
    /// Connections for which something waits: all of a turn goes out together.
    ready: Vec<usize>,
    /// Bytes read since what is ready was last sent.
    came: usize,
    buf: Box<[u8]>,
    keep: Vec<Keep>,
    searches: Vec<(Guid, Sender<SearchEvent>)>,
    failures: VecDeque<(SocketAddr, String)>,
    /// Hosts with which TLS did not come about: they are spoken to in clear.
    clear: VecDeque<SocketAddr>,
    hosts_kept: Time,
}

/// What we tell a peer of its address, which overlay addresses are nobody's business to.
fn seen_at(peer: SocketAddr) -> Option<Ipv4Addr> {
    match peer {
        SocketAddr::V4(peer) => Some(*peer.ip()),
        SocketAddr::V6(_) => None,
    }
}

impl Worker {
    pub(super) fn new(parts: Parts, node: Node<Box<dyn Shared + Send>>) -> Self {
        let keep = parts.connect.iter().map(|addr| Keep::new(*addr)).collect();
        Self {
            parts,
            node,
            started: Instant::now(),
            conns: Slab::new(),
            places: Vec::new(),
            busy: Vec::new(),
            effects: VecDeque::new(),
            ready: Vec::new(),
            came: 0,
            buf: vec![0; TURN].into(),
            keep,
            searches: Vec::new(),
            failures: VecDeque::new(),
            clear: VecDeque::new(),
            hosts_kept: Time::ZERO,
        }
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn run(mut self, stop: &AtomicBool) {
        if let Err(error) = self.register() {
            return tracing::error!(%error, "the node cannot listen");
        }
        for cache in self.parts.caches.clone() {
            self.with_node(|node, now, out| node.ask_cache(now, cache, out));
        }
        let mut events = Events::with_capacity(1024);
        let mut look = Time::ZERO;
        while !stop.load(Ordering::Acquire) {
            let now = self.now();
            if now >= look {
                look = now + LOOK;
                self.look(now);
            }
            if now >= self.node.deadline() {
                self.with_node(|node, now, out| node.on_tick(now, out));
            }
            let due = look.min(self.node.deadline());
            let wait = match self.busy.is_empty() {
                true => due.since(self.now()),
                false => Duration::ZERO,
            };
            if let Err(error) = self.parts.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return tracing::error!(%error, "the node cannot wait for events");
            }
            for key in std::mem::take(&mut self.busy) {
                self.read(key);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => self.take_arrived(),
                    DATAGRAMS => self.datagrams(),
                    Token(key) => {
                        if let Some(conn) = self.conns.get_mut(key) {
                            let over = event.is_read_closed() || event.is_error();
                            conn.over |= over;
                            conn.readable |= event.is_readable() || over;
                        }
                        if event.is_writable() {
                            self.writable(key);
                        }
                        self.read(key);
                    }
                }
            }
            while let Ok(order) = self.parts.ordered.try_recv() {
                self.obey(order);
            }
            self.send_ready();
        }
        self.farewell();
    }

    fn register(&mut self) -> io::Result<()> {
        let Parts {
            poll,
            listener,
            udp,
            ..
        } = &mut self.parts;
        let registry = poll.registry();
        registry.register(listener, LISTENER, Interest::READABLE)?;
        registry.register(udp, DATAGRAMS, Interest::READABLE)
    }

    /// Calls the node, and does what comes of it.
    fn with_node<T>(
        &mut self,
        call: impl FnOnce(&mut Node<Box<dyn Shared + Send>>, Time, &mut Vec<Effect>) -> T,
    ) -> T {
        let now = self.now();
        let mut out = Vec::new();
        let result = call(&mut self.node, now, &mut out);
        self.effects.extend(out);
        self.work();
        result
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect(addr) => {
                if self.keep.iter().all(|k| k.addr != addr) {
                    self.keep.push(Keep::new(addr));
                    self.redial(self.now());
                }
            }
            Order::Hosts(hosts) => {
                let now = self.now();
                self.node.add_hosts(now, &hosts);
            }
            Order::Search(text, wanted, events) => {
                let guid = self.with_node(|node, now, out| node.search(now, &text, wanted, out));
                let _ = events.try_send(SearchEvent::Started(guid));
                self.searches.push((guid, events));
            }
            Order::EndSearch(guid) => self.end_search(guid),
            Order::Push(servent, index, back, done) => {
                let sent = self.with_node(|node, _, out| node.push(servent, index, back, out));
                let _ = done.try_send(sent);
            }
            Order::Load(load) => self.with_node(|node, _, out| node.set_load(load, out)),
            Order::ProxyPush(servent, back, done) => {
                let sent = self.with_node(|node, _, out| node.proxy_push(servent, back, out));
                let _ = done.try_send(sent);
            }
        }
    }

    fn end_search(&mut self, guid: Guid) {
        self.searches.retain(|(g, _)| *g != guid);
        self.with_node(|node, _, out| node.end_search(guid, out));
    }

    fn tell(&mut self, guid: Guid, event: SearchEvent) {
        let Some((_, events)) = self.searches.iter().find(|(g, _)| *g == guid) else {
            return;
        };
        if let Err(TrySendError::Disconnected(_)) = events.try_send(event) {
            self.end_search(guid);
        }
    }

    fn work(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Ready(id) => {
                    self.ready.extend(self.place(id));
                }
                Effect::Close(id) => {
                    if let Some(key) = self.place(id) {
                        self.drain(key, id);
                    }
                }
                Effect::Dial(addr) => self.dial(addr),
                Effect::Datagram(to, packet) => {
                    // A datagram that does not go is one that is lost.
                    let _ = self.parts.udp.send_to(packet.bytes(), to.into());
                }
                Effect::Found { search, answer } => {
                    self.tell(search, SearchEvent::Found(answer));
                }
                Effect::Searched(guid) => self.tell(guid, SearchEvent::Over),
                Effect::Give(push) => {
                    if let Some(incoming) = &mut self.parts.incoming {
                        incoming.give(push);
                    }
                }
                Effect::ConnectBack(addr) => self.connect_back(addr.into()),
                Effect::Role(mode) => tracing::info!(?mode, "another role"),
                Effect::Farewell(id, bye) => {
                    let peer = self.place(id).and_then(|k| self.conns.get(k));
                    let peer = peer.map(|c| c.peer);
                    tracing::info!(?peer, code = bye.code, reason = bye.reason, "a Bye");
                }
            }
        }
    }

    fn place(&self, id: ConnId) -> Option<usize> {
        let key = (*self.places.get(id.slot())?)?;
        (self.conns.get(key)?.id()? == id).then_some(key)
    }

    fn accept(&mut self) {
        loop {
            let (tcp, peer) = match accept::next(&self.parts.listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    // Those who wait are taken at the next look.
                    return tracing::warn!(%error, "accepting a connection to the node");
                }
            };
            if peer.is_ipv4() {
                self.node.reached();
                self.take(tcp, peer);
            }
        }
    }

    /// Takes those who come by the overlay.
    fn take_arrived(&mut self) {
        while let Ok((tcp, peer)) = self.parts.arrived.try_recv() {
            if tcp.set_nonblocking(true).is_ok() {
                self.take(TcpStream::from_std(tcp), peer);
            }
        }
    }

    fn take(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let neighbours = self.node.connections().count();
        let strangers = self.conns.len().saturating_sub(neighbours);
        if strangers < MAX_STRANGERS {
            self.add(tcp, peer, Phase::Sniff(Vec::new()));
        }
    }

    fn add(&mut self, mut tcp: TcpStream, peer: SocketAddr, phase: Phase) {
        let _ = tcp.set_nodelay(true);
        let patience = match peer {
            SocketAddr::V4(_) => PATIENCE,
            SocketAddr::V6(_) => PATIENCE + BY_OVERLAY,
        };
        let until = self.now() + patience;
        let entry = self.conns.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.parts.poll.registry();
        match registry.register(&mut tcp, Token(entry.key()), interest) {
            Ok(()) => {
                entry.insert(Connection::new(tcp, peer, phase, until));
            }
            Err(error) => tracing::warn!(%error, "polling a connection of the node"),
        }
    }

    fn dial(&mut self, addr: SocketAddr) {
        let known = self.conns.iter().any(|(_, c)| c.peer == addr);
        if known || addr == self.parts.listen.into() {
            return;
        }
        match self.parts.outbound.dial(addr) {
            Ok(tcp) => self.add(tcp, addr, Phase::Dialling),
            Err(error) => self.failed(addr, &error.to_string(), &[]),
        }
    }

    /// Connects and closes: the other sees that it can be reached.
    fn connect_back(&mut self, addr: SocketAddr) {
        if let Ok(tcp) = TcpStream::connect(addr) {
            self.add(tcp, addr, Phase::Draining);
        }
    }

    fn failed(&mut self, addr: SocketAddr, why: &str, hosts: &[SocketAddr]) {
        tracing::debug!(%addr, why, "a call failed");
        if self.failures.len() >= FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back((addr, why.to_owned()));
        let now = self.now();
        self.node.on_failed(now, addr, hosts);
    }

    fn writable(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if matches!(conn.phase, Phase::Dialling) {
            if let Ok(Some(error)) | Err(error) = conn.tcp.take_error() {
                return self.lost(key, &error.to_string());
            }
            if conn.tcp.peer_addr().is_err() {
                return;
            }
            let mut greeting = self.node.greeting(seen_at(conn.peer));
            // What goes by the overlay is sealed already.
            greeting.upgrade &= conn.peer.is_ipv4() && !self.clear.contains(&conn.peer);
            let version = match self.node.config().mode {
                Mode::Flood => Version::V04,
                _ => Version::V06,
            };
            let mut bytes = Vec::new();
            let shaking = Handshake::call(version, greeting, &mut bytes);
            conn.say(&bytes);
            conn.phase = Phase::Shaking(Box::new(shaking));
        }
        self.flush(key);
    }

    /// Sends what waits. A message to many neighbours costs each a call of the system, unless others went
    /// to them in the same turn.
    fn send_ready(&mut self) {
        self.came = 0;
        for key in std::mem::take(&mut self.ready) {
            self.flush(key);
        }
    }

    fn flush(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let id = conn.id();
        let node = &mut self.node;
        let done = conn.flush(|| id.and_then(|id| node.pop(id)));
        match done {
            Ok(true) if matches!(conn.phase, Phase::Draining) => self.remove(key),
            Ok(true) if matches!(conn.phase, Phase::Leaving) => conn.end(),
            Ok(_) => {}
            Err(error) => self.lost(key, &error.to_string()),
        }
    }

    /// Sends what waits, then closes: not before the other has, or the time for it is over. What it still sends
    /// would make the system break the connection off, and what waits there, a Bye most likely, be lost.
    fn drain(&mut self, key: usize, id: ConnId) {
        let now = self.now();
        if let Some(conn) = self.conns.get_mut(key) {
            let node = &mut self.node;
            let done = conn.flush(|| node.pop(id));
            conn.phase = Phase::Leaving;
            conn.until = now + FAREWELL;
            match done {
                Ok(true) => conn.end(),
                Ok(false) => {}
                Err(_) => self.remove(key),
            }
        }
        if let Some(place) = self.places.get_mut(id.slot()) {
            *place = None;
        }
        self.node.on_closed(now, id);
    }

    /// A connection is at its end.
    fn lost(&mut self, key: usize, why: &str) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        let (peer, id) = (conn.peer, conn.id());
        let no_tls = conn.is_shaking_tls();
        let called = match &conn.phase {
            Phase::Dialling => true,
            Phase::Shaking(_) => self.keep.iter().any(|k| k.addr == peer),
            _ => false,
        };
        tracing::debug!(%peer, why, no_tls, "a connection is lost");
        if no_tls {
            if self.clear.len() >= MAX_CLEAR {
                self.clear.pop_front();
            }
            self.clear.push_back(peer);
        }
        if called {
            self.failed(peer, why, &[]);
        }
        self.remove(key);
        if let Some(id) = id {
            if let Some(place) = self.places.get_mut(id.slot()) {
                *place = None;
            }
            let now = self.now();
            self.node.on_closed(now, id);
        }
    }

    fn remove(&mut self, key: usize) {
        if let Some(mut conn) = self.conns.try_remove(key) {
            let _ = self.parts.poll.registry().deregister(&mut conn.tcp);
        }
    }

    /// Reads one turn's worth.
    fn read(&mut self, key: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let read = match self.conns.get_mut(key) {
            Some(conn) if conn.readable && !matches!(conn.phase, Phase::Dialling) => {
                conn.read(&mut buf)
            }
            _ => Ok(Some(0)),
        };
        match read {
            Ok(Some(0)) => {}
            Ok(Some(n)) => {
                self.came += n;
                self.on_bytes(key, buf.get(..n).unwrap_or_default());
            }
            Ok(None) => self.lost(key, "closed by the other"),
            Err(error) => self.lost(key, &error.to_string()),
        }
        self.buf = buf;
        if self.conns.get(key).is_some_and(Connection::is_secure) {
            // A handshake of TLS may have more to say.
            self.flush(key);
        }
        if self.came >= TOGETHER {
            self.send_ready();
        }
        let more = self.conns.get(key);
        if more.is_some_and(|c| c.readable && !matches!(c.phase, Phase::Dialling)) {
            self.busy.push(key);
        }
    }

    fn on_bytes(&mut self, key: usize, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match &mut conn.phase {
            Phase::Sniff(first) => {
                first.extend_from_slice(bytes);
                let first = std::mem::take(first);
                self.sniff(key, first);
            }
            Phase::Shaking(shaking) => {
                let step = shaking.on_bytes(bytes);
                self.shake(key, step);
            }
            Phase::Open(open) => {
                let id = open.id;
                self.messages(key, id, bytes);
            }
            Phase::Dialling | Phase::Draining | Phase::Leaving => {}
        }
    }
}

impl Keep {
    fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            next: Time::ZERO,
            wait: REDIAL.0,
        }
    }
}
