//! The node's thread: sockets, the clock, and the node.

mod handshake;
mod messages;
mod streams;
mod upkeep;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use shoal_base::Time;
use shoal_gnutella::Guid;
use shoal_gnutella::node::{Effect, Node};
use shoal_gnutella::shared::Shared;
use slab::Slab;

use super::connection::Connection;
use super::handle::{Order, SearchEvent, Snapshot};
use super::server::Incoming;
use super::tls::Tls;
use crate::outbound::Outbound;

const LISTENER: Token = Token(usize::MAX);
pub(super) const WAKER: Token = Token(usize::MAX - 1);
const DATAGRAMS: Token = Token(usize::MAX - 2);
/// Bytes read from one connection before others have their turn.
const TURN: usize = 64 << 10;
/// How often handshakes are looked after, and the snapshot is brought up to date.
const LOOK: Duration = Duration::from_millis(500);
/// The waits before a connection that is kept is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
