//! The thread that owns the sockets, the endpoint, and QUIC.

mod by_tcp;
mod commands;
mod receiving;
mod sending;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use quinn_proto::{
    ClientConfig, ConnectionHandle, Dir, EndpointConfig, Event, ServerConfig, StreamEvent,
    StreamId, TransportConfig, VarInt,
};
use quinn_udp::{BATCH_SIZE, UdpSockRef, UdpSocketState};
use rustc_hash::FxHashMap;
use shoal_base::Time;
use shoal_reach::agent::RelayId;
use shoal_reach::endpoint::{Endpoint, Output, SessionId};
use shoal_reach::identity::NodeId;
use shoal_reach::relays::Ticket;

use self::streams::{read, write};
use super::stream::{Pipe, Stream};
use super::tls::{Tls, node_of};
use super::{Connection, Looked, Status, Unreached};

const WAKE: Token = Token(0);
const UDP: [Token; 2] = [Token(1), Token(2)];
/// Connections to relays have tokens from here on.
const FIRST_TCP: usize = 16;
/// Bytes of what is received at once, of each of [`BATCH_SIZE`].
const BUFFER: usize = 64 << 10;
/// Batches received before other things get their turn.
const ROUND: usize = 2;
/// Datagrams of one train.
const TRAIN: usize = 40;
/// Trains of one connection before other things get their turn.
const TURN: usize = 8;
/// Bytes that wait for a slow connection to a relay; what comes on top is lost.
const MAX_WAITING: usize = 512 << 10;
/// Of the last datagrams of a session, how many are sent again by a new way: QUIC then learns at once
/// that the rest was lost, instead of at its next time-out.
const AGAIN: usize = 3;
/// How long finding a way may take, and the handshake over it.
const FIND: Duration = Duration::from_secs(20);
const SHAKE: Duration = Duration::from_secs(8);
/// How often the agent is told what was lost.
const COUNT: Duration = Duration::from_millis(250);
/// Datagrams of the application that wait to be read.
const MAX_DATAGRAMS: usize = 256;

/// What the thread is told.
pub(super) enum Command {
    Offer(Vec<Ticket>),
    Letter(Vec<u8>),
    /// A router lets everybody through to us at this address, or nobody any more.
    Forwarded(Option<SocketAddr>),
    Connect(NodeId, Sender<Result<Connection, Unreached>>),
    Open(usize, Sender<Option<Stream>>),
    /// Something was written, or read.
    Look(usize, StreamId),
    Leave(usize, StreamId),
    Datagram(usize, Bytes),
    Status(usize, Sender<Option<Status>>),
    Close(usize),
    Ask(Sender<Looked>),
    Stop,
}

/// By which commands get in.
#[derive(Clone)]
pub(super) struct Door {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    open: Arc<AtomicBool>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// False when the thread has ended.
    pub(super) fn tell(&self, command: Command) -> bool {
        let told = self.is_open() && self.commands.send(command).is_ok();
        let _ = self.waker.wake();
        told
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Something may be there to be received.
    readable: bool,
}

struct Tcp {
    stream: TcpStream,
    tls: Option<Box<rustls::Connection>>,
    opened: bool,
    waiting: VecDeque<u8>,
}

struct Live {
    /// What QUIC calls it, until it is over: then another is called so.
    handle: ConnectionHandle,
    connection: quinn_proto::Connection,
    session: SessionId,
    streams: BTreeMap<StreamId, Arc<Pipe>>,
    incoming: Sender<Stream>,
    datagrams: Sender<Bytes>,
    /// Both receivers, until somebody gets the connection.
    given: Option<(Receiver<Stream>, Receiver<Bytes>)>,
    /// Who waits for it, and until when; none: the other side began.
    asked: Option<(Sender<Result<Connection, Unreached>>, Instant)>,
    timer: Option<Instant>,
    connected: bool,
    /// Packets sent and lost, as far as the agent was told, and when that was.
    counted: (u64, u64, Instant),
}

struct Wanted {
    session: SessionId,
    to: NodeId,
    tell: Sender<Result<Connection, Unreached>>,
    until: Instant,
}

/// A train that the socket did not take yet.
struct Blocked {
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: Option<usize>,
}

pub(super) struct Worker {
    poll: Poll,
    door: Door,
    commands: Receiver<Command>,
    sockets: [Option<Socket>; 2],
    tcp: BTreeMap<RelayId, Tcp>,
    start: Instant,
    endpoint: Endpoint,
    quic: quinn_proto::Endpoint,
    tls: Tls,
    transport: Arc<TransportConfig>,
    /// Connections by numbers of our own, which are not used again: who still has one that is over must not mean another.
    live: BTreeMap<usize, Live>,
    /// The number of each, by what QUIC calls it.
    numbers: FxHashMap<ConnectionHandle, usize>,
    next: usize,
    wanted: Vec<Wanted>,
    letters: Sender<(NodeId, Vec<u8>)>,
    arrivals: Sender<Connection>,
    blocked: Option<Blocked>,
    touched: BTreeSet<usize>,
    last: FxHashMap<SessionId, VecDeque<Vec<u8>>>,
    buffers: Vec<Vec<u8>>,
}

/// The address that QUIC knows a session by.
fn place(session: SessionId) -> SocketAddr {
    let ip = Ipv6Addr::from((0xfd_u128 << 120) | u128::from(session));
    SocketAddr::new(IpAddr::V6(ip), 1)
}

fn session_of(place: SocketAddr) -> Option<SessionId> {
    match place.ip() {
        IpAddr::V6(ip) => Some(u128::from(ip) as SessionId),
        IpAddr::V4(_) => None,
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = quinn_proto::MtuDiscoveryConfig::default();
    // With a relay's header, UDP's and IPv6's (52 bytes) it has to fit 1,492 bytes, as PPPoE leaves.
    mtu.upper_bound(1440);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(256))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        .send_window(16 << 20)
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .initial_rtt(Duration::from_millis(100))
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(Some(1 << 20));
    config
}

/// What a worker is made of.
pub(super) struct Parts {
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) endpoint: Endpoint,
    pub(super) accepts: bool,
    pub(super) tls: Tls,
    pub(super) letters: Sender<(NodeId, Vec<u8>)>,
    pub(super) arrivals: Sender<Connection>,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> io::Result<(Self, Door)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, commands) = crossbeam_channel::unbounded();
        let open = Arc::new(AtomicBool::new(true));
        let door = Door {
            commands: sender,
            waker,
            open,
        };
        let mut sockets = [None, None];
        for mut socket in parts.sockets {
            let at = usize::from(socket.local_addr()?.is_ipv6());
            let both = Interest::READABLE | Interest::WRITABLE;
            if let (Some(token), Some(place)) = (UDP.get(at), sockets.get_mut(at)) {
                poll.registry().register(&mut socket, *token, both)?;
                let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
                let readable = true;
                *place = Some(Socket {
                    socket,
                    state,
                    readable,
                });
            }
        }
        let mut secret = [0; 64];
        super::random(&mut secret);
        let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let mut config = EndpointConfig::new(Arc::new(reset));
        // Packets are told apart from STUN by that bit.
        config.grease_quic_bit(false);
        let transport = Arc::new(transport());
        let server = match parts.accepts {
            true => {
                let crypto = parts.tls.server().map_err(io::Error::other)?;
                let token = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&secret);
                let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token));
                server
                    .transport_config(Arc::clone(&transport))
                    .migration(false);
                Some(Arc::new(server))
            }
            false => None,
        };
        let quic = quinn_proto::Endpoint::new(Arc::new(config), server, true, None);
        let worker = Self {
            poll,
            door: door.clone(),
            commands,
            sockets,
            tcp: BTreeMap::new(),
            start: Instant::now(),
            endpoint: parts.endpoint,
            quic,
            tls: parts.tls,
            transport,
            live: BTreeMap::new(),
            numbers: FxHashMap::default(),
            next: 0,
            wanted: Vec::new(),
            letters: parts.letters,
            arrivals: parts.arrivals,
            blocked: None,
            touched: BTreeSet::new(),
            last: FxHashMap::default(),
            buffers: vec![vec![0; BUFFER]; BATCH_SIZE],
        };
        Ok((worker, door))
    }

    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut more = false;
        loop {
            let wait = if more { Duration::ZERO } else { self.wait() };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for packets");
                break;
            }
            let mut out = Vec::new();
            for event in &events {
                match event.token() {
                    WAKE => {}
                    token if UDP.contains(&token) => {
                        let at = usize::from(token == UDP[1]);
                        if let Some(Some(socket)) = self.sockets.get_mut(at) {
                            socket.readable |= event.is_readable();
                        }
                    }
                    Token(n) => {
                        let id = (n - FIRST_TCP) as RelayId;
                        self.on_tcp(id, event.is_writable(), &mut out);
                    }
                }
            }
            self.send_blocked();
            more = self.receive(&mut out);
            let mut stop = false;
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Stop => stop = true,
                    command => self.obey(command, &mut out),
                }
            }
            let now = self.now();
            if self.endpoint.deadline() <= now {
                self.endpoint.on_tick(now, &mut out);
            }
            self.act(out);
            self.timers();
            more |= self.drive();
            if stop {
                break;
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.door.open.store(false, Ordering::Release);
        let now = Instant::now();
        for (at, live) in &mut self.live {
            live.connection
                .close(now, VarInt::from_u32(0), Bytes::from_static(b"bye"));
            live.streams
                .values()
                .for_each(|p| p.fail("the node has ended"));
            self.touched.insert(*at);
        }
        self.drive();
    }

    fn wait(&self) -> Duration {
        let mut wait = self.endpoint.deadline().since(self.now());
        let now = Instant::now();
        let timers = self.live.values().filter_map(|l| l.timer);
        let asked = self.live.values().filter_map(|l| Some(l.asked.as_ref()?.1));
        let wanted = self.wanted.iter().map(|w| w.until);
        for at in timers.chain(asked).chain(wanted) {
            wait = wait.min(at.saturating_duration_since(now));
        }
        wait
    }

    /// Begins handshakes with nodes that a way was found to.
    fn dial(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(wanted) = self.wanted.get(at) {
            if self.endpoint.in_use(wanted.session).is_none() {
                if now >= wanted.until {
                    let wanted = self.wanted.swap_remove(at);
                    let why = self.endpoint.why_not(wanted.session);
                    let _ = wanted.tell.send(Err(Unreached::NoWay(why)));
                    self.release(wanted.session);
                } else {
                    at += 1;
                }
                continue;
            }
            let wanted = self.wanted.swap_remove(at);
            let begun = self.tls.client(wanted.to).map_err(|e| e.to_string());
            let begun = begun.and_then(|crypto| {
                let mut config = ClientConfig::new(Arc::new(crypto));
                config.transport_config(Arc::clone(&self.transport));
                let place = place(wanted.session);
                let begun = self.quic.connect(now, config, place, "shoal");
                begun.map_err(|e| e.to_string())
            });
            match begun {
                Ok((handle, connection)) => {
                    let asked = Some((wanted.tell, now + SHAKE));
                    self.enter(handle, connection, wanted.session, asked);
                }
                Err(why) => drop(wanted.tell.send(Err(Unreached::Handshake(why)))),
            }
        }
    }

    fn enter(
        &mut self,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        session: SessionId,
        asked: Option<(Sender<Result<Connection, Unreached>>, Instant)>,
    ) {
        let (incoming, streams) = crossbeam_channel::unbounded();
        let (datagrams, data) = crossbeam_channel::bounded(MAX_DATAGRAMS);
        self.endpoint.hold(self.now(), session, true);
        let at = self.next;
        self.next += 1;
        self.numbers.insert(handle, at);
        self.live.insert(
            at,
            Live {
                handle,
                connection,
                session,
                streams: BTreeMap::new(),
                incoming,
                datagrams,
                given: Some((streams, data)),
                asked,
                timer: None,
                connected: false,
                counted: (0, 0, Instant::now()),
            },
        );
        self.touched.insert(at);
    }

    /// A session that nothing uses any more may end.
    fn release(&mut self, session: SessionId) {
        let used = self.live.values().any(|l| l.session == session)
            || self.wanted.iter().any(|w| w.session == session);
        if !used {
            self.endpoint.hold(self.now(), session, false);
            self.last.remove(&session);
        }
    }

    fn timers(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (at, live) in &mut self.live {
            if live.timer.is_some_and(|t| now >= t) {
                live.connection.handle_timeout(now);
                self.touched.insert(*at);
            }
            if live.asked.as_ref().is_some_and(|(_, until)| now >= *until) {
                late.push(*at);
            }
        }
        for at in late {
            if let Some(live) = self.live.get_mut(&at)
                && let Some((tell, _)) = live.asked.take()
            {
                let why = "a way was found, but the node does not answer by it".to_owned();
                let _ = tell.send(Err(Unreached::Handshake(why)));
                live.connection
                    .close(now, VarInt::from_u32(1), Bytes::new());
                self.touched.insert(at);
            }
        }
        self.dial();
    }

    /// Lets those connections go on that something happened to; whether some have more to send.
    fn drive(&mut self) -> bool {
        let mut more = false;
        for at in std::mem::take(&mut self.touched) {
            self.events(at);
            more |= self.transmits(at);
            self.count(at);
            let Some(live) = self.live.get_mut(&at) else {
                continue;
            };
            let handle = live.handle;
            while let Some(event) = live.connection.poll_endpoint_events() {
                if let Some(event) = self.quic.handle_event(handle, event) {
                    live.connection.handle_event(event);
                }
            }
            live.timer = live.connection.poll_timeout();
            if live.connection.is_drained() {
                let session = live.session;
                self.live.remove(&at);
                if self.numbers.get(&handle) == Some(&at) {
                    self.numbers.remove(&handle);
                }
                self.release(session);
            }
        }
        more
    }

    /// Tells the agent now and then what became of what was sent.
    fn count(&mut self, at: usize) {
        let (now, time) = (Instant::now(), self.now());
        let due = |l: &&mut Live| now.saturating_duration_since(l.counted.2) >= COUNT;
        let Some(live) = self.live.get_mut(&at).filter(due) else {
            return;
        };
        let path = live.connection.stats().path;
        let (sent, lost, _) = live.counted;
        live.counted = (path.sent_packets, path.lost_packets, now);
        let (sent, lost) = (
            path.sent_packets.saturating_sub(sent),
            path.lost_packets.saturating_sub(lost),
        );
        let session = live.session;
        let mut out = Vec::new();
        self.endpoint
            .on_carried(time, session, sent, lost, &mut out);
        self.act(out);
    }

    fn events(&mut self, at: usize) {
        loop {
            let Some(live) = self.live.get_mut(&at) else {
                return;
            };
            let Some(event) = live.connection.poll() else {
                return;
            };
            match event {
                Event::Connected => self.connected(at),
                Event::ConnectionLost { reason } => {
                    let why = reason.to_string();
                    live.streams.values().for_each(|p| p.fail(&why));
                    live.streams.clear();
                    if let Some((tell, _)) = live.asked.take() {
                        let _ = tell.send(Err(Unreached::Handshake(why)));
                    }
                    // Whoever waits for streams or datagrams hears that there will be none.
                    live.incoming = crossbeam_channel::bounded(0).0;
                    live.datagrams = crossbeam_channel::bounded(0).0;
                    live.given = None;
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(id) = live.connection.streams().accept(Dir::Bi) {
                        let pipe = Arc::<Pipe>::default();
                        live.streams.insert(id, Arc::clone(&pipe));
                        let stream = Stream::new(pipe, self.door.clone(), at, id);
                        let _ = live.incoming.send(stream);
                        read(live, id);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => read(live, id),
                Event::Stream(StreamEvent::Writable { id }) => write(live, id),
                Event::Stream(StreamEvent::Finished { id }) => {
                    if let Some(pipe) = live.streams.get(&id) {
                        pipe.lock().arrived = true;
                        pipe.wake();
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    if let Some(pipe) = live.streams.get(&id) {
                        let mut ends = pipe.lock();
                        if !ends.finished || ends.goes_len > 0 {
                            ends.broken = Some("the other side reads no more".into());
                        }
                        ends.arrived = true;
                        drop(ends);
                        pipe.wake();
                    }
                }
                Event::DatagramReceived => {
                    while let Some(data) = live.connection.datagrams().recv() {
                        // Who reads too slowly loses some.
                        let _ = live.datagrams.try_send(data);
                    }
                }
                _ => {}
            }
        }
    }

    fn connected(&mut self, at: usize) {
        let Some(live) = self.live.get_mut(&at) else {
            return;
        };
        live.connected = true;
        let identity = live.connection.crypto_session().peer_identity();
        let keys = identity.and_then(|i| {
            i.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                .ok()
        });
        let peer = keys.and_then(|keys| node_of(keys.first()?.as_ref()));
        let expected = self.endpoint.peer(live.session);
        let (Some(peer), Some((streams, data))) =
            (peer.filter(|p| Some(*p) == expected), live.given.take())
        else {
            let why = Bytes::from_static(b"another node than the letters were from");
            tracing::debug!(
                session = live.session,
                "another node than the letters were from"
            );
            live.connection
                .close(Instant::now(), VarInt::from_u32(2), why);
            return;
        };
        let connection = Connection::new(peer, self.door.clone(), at, streams, data);
        match live.asked.take() {
            Some((tell, _)) => drop(tell.send(Ok(connection))),
            None => drop(self.arrivals.send(connection)),
        }
    }

    fn act(&mut self, out: Vec<Output>) {
        let mut todo: VecDeque<Output> = out.into();
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Udp(to, bytes) => self.udp(to, &bytes, None),
                Output::Tcp(id, bytes) => self.by_tcp(id, &bytes),
                Output::Close(id) => self.hang_up(id),
                Output::Open { id, to, tls } => {
                    if self.call(id, to, tls).is_err() {
                        let mut more = Vec::new();
                        self.endpoint.on_closed(self.now(), id, &mut more);
                        todo.extend(more);
                    }
                }
                Output::Letter(to, letter) => drop(self.letters.send((to, letter))),
                Output::Way(session, way) => {
                    if way.is_some() {
                        self.dial();
                        let again = self.last.get(&session).cloned().unwrap_or_default();
                        for datagram in again {
                            self.send(session, &datagram, datagram.len().max(1));
                        }
                    }
                    let of = self.live.iter().filter(|(_, l)| l.session == session);
                    self.touched.extend(of.map(|(at, _)| *at));
                }
            }
        }
    }
}
