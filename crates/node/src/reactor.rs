//! The event loop: sockets, clock and disk on one side, the torrents' cores on the other.
//!
//! One thread owns every socket and every core, so nothing here is locked. A turn of the loop:
//! wait for readiness, a deadline or a wake-up; take commands and what disk, trackers and web
//! seeds have finished; read the readable connections in turn, a buffer's worth each; hand the
//! filled buffers to the disk; send what the cores want sent.

mod buffers;
mod conn;
mod demand;
mod dht;
mod effects;
mod entry;
mod lifecycle;
mod limits;
mod outbuf;
mod ranges;
mod read;
mod timers;
mod write;

use crate::accept;
use crate::lsd::LsdSockets;
use crate::outbound::Outbound;
use crate::range_source::SourceSpec;
use crate::session::{Event, NodeError, Opened, SessionConfig, TorrentStats};
use crate::tracker_client::{TrackerClient, TrackerEvent};
use buffers::{BufferPool, Filling};
use conn::{Conn, Stage};
use crossbeam_channel::{Receiver, Sender};
pub(crate) use dht::{DhtLink, MAX_ANSWERS};
use entry::Entry;
use limits::Limits;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use ranges::Desks;
use rustc_hash::{FxHashMap, FxHashSet};
use shoal_base::{InfoHash, PeerId, Rng, Time};
use shoal_bittorrent::lsd::Lsd;
use shoal_bittorrent::torrent::{ConnId, Output};
use shoal_content::PieceIndex;
use shoal_store::{DiskPool, Done, Resume, TorrentKey};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const LSD_V4: Token = Token(usize::MAX - 2);
const LSD_V6: Token = Token(usize::MAX - 3);

/// A [`ConnId`] is the connection's slot and, above it, a count that tells its users apart.
const SLOT_BITS: u32 = 20;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// How often the resume journal is folded into the database.
const CHECKPOINT: Duration = Duration::from_secs(30);
/// Connections that have not yet said which torrent they want.
const MAX_STRANGERS: usize = 100;

/// What the session asks of the loop.
pub(crate) enum Command {
    /// Run a torrent; the answer is its key.
    Add(Box<crate::session::Prepared>, Sender<TorrentKey>),
    /// Somebody connected by the overlay, from this address of it.
    Arrived(std::net::TcpStream, SocketAddr),
    /// A router lets others through to us at this port of its own.
    Port(u16),
    /// Try these addresses.
    AddPeers(TorrentKey, Vec<SocketAddr>),
    /// These have it too.
    AddSources(TorrentKey, Vec<SourceSpec>),
    /// Go on with a torrent on hold, with these files.
    Select(TorrentKey, Option<Vec<usize>>),
    /// Answer once the torrent's files are open.
    Open(TorrentKey, Sender<Opened>),
    /// Want these pieces too, and tell of each once it is there.
    Want(TorrentKey, Range<PieceIndex>, Sender<PieceIndex>),
    /// Flush everything and end.
    Stop,
}

/// Statistics as last published, shared with the session.
pub(crate) type SharedStats = Arc<Mutex<BTreeMap<TorrentKey, TorrentStats>>>;

/// Everything the loop owns.
pub(crate) struct Reactor {
    config: SessionConfig,
    poll: Poll,
    listener: Option<TcpListener>,
    port: Option<u16>,
    /// Where peers on the overlay reach us.
    overlay_addr: Option<SocketAddr>,
    outbound: Outbound,
    conns: Slab<Conn>,
    /// Counts connections, so that a [`ConnId`] is never reused.
    generation: u32,
    strangers: usize,
    torrents: BTreeMap<TorrentKey, Entry>,
    by_hash: FxHashMap<InfoHash, TorrentKey>,
    next_key: TorrentKey,
    disk: DiskPool,
    resume: Arc<Resume>,
    trackers: TrackerClient,
    lsd: Option<(LsdSockets, Lsd)>,
    dhts: Vec<DhtLink>,
    commands: Receiver<Command>,
    events: Sender<Event>,
    stats: SharedStats,
    waker: Arc<Waker>,
    rng: Rng,
    our_id: PeerId,
    banned: FxHashSet<IpAddr>,
    limits: Limits,

    buffers: BufferPool,
    /// Buffers of range sources on their way to the disk.
    ranges_in_flight: usize,
    /// When the rate limits have room for what a range source brought.
    ranges_ready_at: Time,
    /// Bytes that peers may have of a rate limit before a range source has its turn again.
    peers_turn: usize,
    desks: Desks,
    filling: Option<Filling>,
    read_queue: VecDeque<usize>,
    write_queue: VecDeque<usize>,
    /// Connections that wait for the rate limit, not for the socket.
    throttled: Vec<usize>,
    throttled_until: Time,
    effects: VecDeque<(TorrentKey, Output)>,
    /// Reused between calls, empty outside them.
    outputs: Vec<Output>,
    disk_done: Vec<Done>,
    tracker_done: Vec<TrackerEvent>,

    started: Instant,
    next_housekeeping: Time,
    next_checkpoint: Time,
    stopping: Option<Time>,
}

/// What a reactor is made of.
pub(crate) struct Parts {
    pub(crate) config: SessionConfig,
    pub(crate) listener: Option<TcpListener>,
    pub(crate) poll: Poll,
    pub(crate) waker: Arc<Waker>,
    pub(crate) resume: Arc<Resume>,
    pub(crate) disk: DiskPool,
    pub(crate) trackers: TrackerClient,
    pub(crate) dhts: Vec<DhtLink>,
    pub(crate) overlay_addr: Option<SocketAddr>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) events: Sender<Event>,
    pub(crate) stats: SharedStats,
    pub(crate) rng: Rng,
}

/// The token under which the waker is registered.
pub(crate) const fn waker_token() -> Token {
    WAKER
}

impl Reactor {
    pub(crate) fn new(parts: Parts) -> Result<Self, NodeError> {
        let Parts {
            config,
            mut listener,
            poll,
            waker,
            resume,
            disk,
            trackers,
            ..
        } = parts;
        let mut rng = parts.rng;
        if let Some(listener) = &mut listener {
            poll.registry()
                .register(listener, LISTENER, Interest::READABLE)
                .map_err(NodeError::Loop)?;
        }
        let port = listener
            .as_ref()
            .and_then(|l| l.local_addr().ok())
            .map(|a| a.port());
        let lsd = match (config.lsd, &config.listen, port) {
            (true, Some(listen), Some(port)) => {
                let mut sockets = LsdSockets::open(listen.ip());
                for (socket, token) in sockets.sockets().zip([LSD_V4, LSD_V6]) {
                    if let Err(error) = poll.registry().register(socket, token, Interest::READABLE)
                    {
                        tracing::debug!(%error, "local discovery cannot be heard");
                    }
                }
                sockets
                    .is_available()
                    .then(|| (sockets, Lsd::new(port, &mut rng)))
            }
            _ => None,
        };
        Ok(Self {
            limits: Limits::new(&config),
            our_id: PeerId::generate(&mut rng),
            outbound: Outbound::of(config.listen).and_overlay(config.overlay.clone()),
            config,
            poll,
            listener,
            port,
            overlay_addr: parts.overlay_addr,
            conns: Slab::new(),
            generation: 0,
            strangers: 0,
            torrents: BTreeMap::new(),
            by_hash: FxHashMap::default(),
            next_key: 0,
            disk,
            resume,
            trackers,
            lsd,
            dhts: parts.dhts,
            commands: parts.commands,
            events: parts.events,
            stats: parts.stats,
            waker,
            rng,
            banned: FxHashSet::default(),
            buffers: BufferPool::default(),
            ranges_in_flight: 0,
            ranges_ready_at: Time::FAR,
            peers_turn: 0,
            desks: Desks::default(),
            filling: None,
            read_queue: VecDeque::new(),
            write_queue: VecDeque::new(),
            throttled: Vec::new(),
            throttled_until: Time::FAR,
            effects: VecDeque::new(),
            outputs: Vec::new(),
            disk_done: Vec::new(),
            tracker_done: Vec::new(),
            started: Instant::now(),
            next_housekeeping: Time::ZERO,
            next_checkpoint: Time::ZERO + CHECKPOINT,
            stopping: None,
        })
    }

    fn now(&self) -> Time {
        Time::from_micros(self.started.elapsed().as_micros() as u64)
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = self.next_wake().since(self.now());
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the event loop cannot wait for events");
                return;
            }
            let now = self.now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    WAKER => {}
                    LSD_V4 | LSD_V6 => self.hear_neighbours(now),
                    Token(slot) => self.on_ready(slot, event, now),
                }
            }
            if !self.take_commands(now) {
                break;
            }
            self.take_finished(now);
            self.read_some(now);
            self.run_timers(now);
            self.run_effects(now);
            self.write_some(now);
            self.run_effects(now);
            if self.stopping.is_some_and(|until| self.may_end(now, until)) {
                break;
            }
        }
        self.shut_down();
    }

    /// The earliest time at which something is to be done without an event.
    fn next_wake(&self) -> Time {
        let can_read = !self.read_queue.is_empty() && self.buffers.has_free();
        if can_read || !self.write_queue.is_empty() || !self.effects.is_empty() {
            return Time::ZERO;
        }
        let cores = self.torrents.values().map(|e| e.core.deadline()).min();
        self.next_housekeeping
            .min(self.throttled_until)
            .min(self.ranges_ready_at)
            .min(cores.unwrap_or(Time::FAR))
    }

    fn on_ready(&mut self, slot: usize, event: &mio::event::Event, now: Time) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if event.is_read_closed() || event.is_error() {
            conn.hung_up = true;
        }
        if let (Stage::Dialing(key), true) = (conn.stage, event.is_writable() || event.is_error()) {
            return self.on_dialed(slot, key, event.is_error(), now);
        }
        if event.is_writable() {
            conn.writable = true;
            self.queue_write(slot);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.readable = true;
            }
            self.queue_read(slot);
        }
    }

    fn queue_read(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot)
            && conn.readable
            && !conn.queued_read
        {
            conn.queued_read = true;
            self.read_queue.push_back(slot);
        }
    }

    fn queue_write(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot)
            && conn.writable
            && !conn.queued_write
        {
            conn.queued_write = true;
            self.write_queue.push_back(slot);
        }
    }

    /// The slot of a connection, if it still exists.
    fn slot_of(&self, id: ConnId) -> Option<usize> {
        let slot = (id & SLOT_MASK) as usize;
        self.conns.get(slot).filter(|c| c.id == id).map(|_| slot)
    }

    fn insert_conn(
        &mut self,
        mut stream: TcpStream,
        addr: SocketAddr,
        stage: Stage,
        now: Time,
    ) -> Option<usize> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let id = self.generation << SLOT_BITS | (slot as u32 & SLOT_MASK);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poll
            .registry()
            .register(&mut stream, Token(slot), interest)
        {
            tracing::warn!(%error, "cannot watch a socket");
            return None;
        }
        let limited = self.limits.apply_to(addr.ip());
        entry.insert(Conn::new(id, stream, addr, stage, limited, now));
        Some(slot)
    }

    fn accept(&mut self, now: Time) {
        loop {
            let Some(listener) = &self.listener else {
                return;
            };
            let (stream, addr) = match accept::next(listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    return;
                }
            };
            self.let_in(stream, addr, now);
        }
    }

    /// Hears who connected, if there is room.
    fn let_in(&mut self, stream: TcpStream, addr: SocketAddr, now: Time) {
        let full = self.conns.len() >= self.config.max_peers || self.strangers >= MAX_STRANGERS;
        if full || self.banned.contains(&addr.ip().to_canonical()) || self.stopping.is_some() {
            return;
        }
        let _ = stream.set_nodelay(true);
        if self
            .insert_conn(stream, addr, Stage::Incoming, now)
            .is_some()
        {
            self.strangers += 1;
        }
    }

    fn dial(&mut self, key: TorrentKey, addr: SocketAddr, now: Time) {
        let blocked = self.banned.contains(&addr.ip().to_canonical())
            || self.conns.len() >= self.config.max_peers
            || self.stopping.is_some();
        let slot = match blocked {
            true => None,
            false => (self.outbound.dial(addr).ok())
                .and_then(|stream| self.insert_conn(stream, addr, Stage::Dialing(key), now)),
        };
        if slot.is_none()
            && let Some(entry) = self.torrents.get_mut(&key)
        {
            entry.core.on_dial_failed(now, addr);
        }
    }

    fn on_dialed(&mut self, slot: usize, key: TorrentKey, failed: bool, now: Time) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let broken = failed || !matches!(conn.stream.take_error(), Ok(None));
        if broken || conn.stream.peer_addr().is_err() {
            // `NotConnected` without an error means that the dial is still under way.
            if broken {
                self.close(slot, now);
            }
            return;
        }
        let _ = conn.stream.set_nodelay(true);
        let Some(entry) = self.torrents.get(&key) else {
            return;
        };
        conn.stage = Stage::Greeted(key);
        conn.out.append(&entry.core.handshake().encode());
        conn.writable = true;
        conn.readable = true;
        self.queue_write(slot);
        self.queue_read(slot);
    }

    /// Closes a connection and tells its torrent.
    fn close(&mut self, slot: usize, now: Time) {
        let Some(mut conn) = self.conns.try_remove(slot) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut conn.stream);
        match conn.stage {
            Stage::Incoming => self.strangers = self.strangers.saturating_sub(1),
            Stage::Dialing(key) | Stage::Greeted(key) => {
                if let Some(entry) = self.torrents.get_mut(&key) {
                    entry.core.on_dial_failed(now, conn.addr);
                }
            }
            Stage::Live(key) => {
                if let Some(entry) = self.torrents.get_mut(&key) {
                    entry.core.on_disconnected(now, conn.id, &mut self.outputs);
                    self.queue_outputs(key);
                }
            }
        }
    }

    /// Moves what a core has just put out to the queue of effects.
    fn queue_outputs(&mut self, key: TorrentKey) {
        self.effects
            .extend(self.outputs.drain(..).map(|output| (key, output)));
    }

    fn tell(&self, event: Event) {
        // The session may have been dropped without stopping; then nobody listens.
        let _ = self.events.send(event);
    }
}
