//! The thread that owns the sockets, the endpoint, and QUIC.

mod by_tcp;
mod commands;
mod connections;
mod door;
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
    ConnectionHandle, EndpointConfig, ServerConfig, StreamId, TransportConfig, VarInt,
};
use quinn_udp::{BATCH_SIZE, UdpSockRef, UdpSocketState};
use rustc_hash::FxHashMap;
use shoal_base::Time;
use shoal_reach::agent::RelayId;
use shoal_reach::endpoint::{Endpoint, Output, SessionId};
use shoal_reach::identity::NodeId;

use super::stream::{Pipe, Stream};
use super::tls::Tls;
use super::{Connection, Looked, Status, Unreached};
pub(super) use door::{Command, Door};

const WAKE: Token = Token(0);
const UDP: [Token; 2] = [Token(1), Token(2)];
/// Connections to relays have tokens from here on.
const FIRST_TCP: usize = 16;
/// Bytes of what is received at once, of each of [`BATCH_SIZE`].
const BUFFER: usize = 64 << 10;
/// How long finding a way may take, and the handshake over it.
const FIND: Duration = Duration::from_secs(20);
const SHAKE: Duration = Duration::from_secs(8);

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
