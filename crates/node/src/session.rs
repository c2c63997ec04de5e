//! What a program embedding a node holds: start it, add torrents, hear of events, stop it.

mod settings;

use crate::dht::DhtError;
use crate::mapping::{Change, Mapping, Port, PortMapper, Transport};
use crate::outbound::Outbound;
use crate::range_source::{SourceCount, SourceSpec};
use crate::reach::Service;
use crate::reactor::{self, Command, Parts, Reactor, SharedStats};
use crate::tracker_client::TrackerClient;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::net::TcpListener;
use mio::{Poll, Waker};
use shoal_base::{Bitfield, InfoHash, Rng};
use shoal_content::{Info, PieceIndex};
use shoal_store::{DiskPool, Resume, ResumeId, ResumeState, TorrentFiles, TorrentSettings};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

mod event;

pub use event::Event;
pub use settings::{AddTorrent, DhtSettings, RingSettings, SessionConfig, What};
pub use shoal_store::TorrentKey;

mod dhts;

/// What a torrent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TorrentState {
    /// Asking peers for the metadata.
    #[default]
    Metadata,
    /// Comparing data on disk with the hashes.
    Checking,
    /// Fetching pieces.
    Downloading,
    /// Everything wanted is here.
    Seeding,
    /// Waiting for a fault to pass; the reason came with [`Event::Paused`].
    Paused,
}

/// Figures of one torrent, refreshed about four times a second.
#[derive(Clone, Debug, Default)]
pub struct TorrentStats {
    /// What it is doing.
    pub state: TorrentState,
    /// Verified bytes on disk.
    pub bytes_done: u64,
    /// Bytes of the files that are wanted.
    pub bytes_wanted: u64,
    /// Verified bytes among the wanted.
    pub bytes_wanted_done: u64,
    /// Bytes of the whole content; zero until the metadata is known.
    pub bytes_total: u64,
    /// Payload bytes received in this run.
    pub downloaded: u64,
    /// Payload bytes sent in this run.
    pub uploaded: u64,
    /// Payload bytes received that were of no use: duplicates and failed pieces.
    pub wasted: u64,
    /// Payload bytes a second received.
    pub rate_down: u64,
    /// Payload bytes a second sent.
    pub rate_up: u64,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that have everything.
    pub seeds: usize,
    /// Web seeds in use.
    pub web_seeds: usize,
    /// Payload bytes received from peers, and what they send a second.
    pub peer_bytes: u64,
    /// What peers send a second.
    pub peer_rate: u64,
    /// What web seeds do.
    pub web: SourceCount,
    /// What Gnutella's hosts do.
    pub gnutella: SourceCount,
    /// What Napster's users do.
    pub napster: SourceCount,
    /// Verified pieces.
    pub pieces_done: u32,
    /// Pieces in all.
    pub pieces_total: u32,
    /// Addresses banned for bad data.
    pub banned: usize,
    /// Known addresses not connected to.
    pub candidates: usize,
}

/// Why a node or a torrent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The listening address could not be bound.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The event loop could not be set up.
    #[error("cannot set up the event loop")]
    Loop(#[source] std::io::Error),
    /// The resume database or the download folder could not be used.
    #[error("cannot open the resume database")]
    Resume(#[from] shoal_store::ResumeError),
    /// The thread that speaks to trackers could not be started.
    #[error("cannot start the tracker client")]
    Trackers(#[from] crate::tracker_client::StartError),
    /// The node of the DHT could not be started.
    #[error("cannot start the DHT")]
    Dht(#[from] DhtError),
    /// The torrent is already running.
    #[error("{0} is already running")]
    Duplicate(InfoHash),
    /// The torrent has no v1 info-hash.
    #[error("v2-only torrents are not supported yet")]
    V2Only,
    /// Nobody told what is wanted in time.
    #[error("its metadata did not come within {} s", .0.as_secs())]
    Patience(Duration),
    /// The event loop is gone.
    #[error("the node has stopped")]
    Stopped,
}

/// How long stopping waits for trackers to hear of it.
pub(crate) const GOODBYE: Duration = Duration::from_millis(1500);

/// A running node. Dropping it stops it without waiting.
pub struct Session {
    commands: Sender<Command>,
    events: Receiver<Event>,
    stats: SharedStats,
    waker: Arc<Waker>,
    addr: Option<SocketAddr>,
    ring_addr: Option<SocketAddr>,
    /// Where peers reach us by the overlay.
    overlay_addr: Option<SocketAddr>,
    /// What takes them there.
    _service: Option<Service>,
    mapper: Option<PortMapper>,
    thread: Option<JoinHandle<()>>,
    resume: Arc<Resume>,
    /// Torrents that run.
    hashes: Mutex<BTreeSet<InfoHash>>,
}

/// A torrent whose files are open.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it is.
    pub info: Arc<Info>,
    /// Its files. Only verified pieces may be read.
    pub files: Arc<TorrentFiles>,
    /// The pieces that are verified.
    pub have: Bitfield,
}

/// A torrent to run, and what is known of it.
pub(crate) struct Prepared {
    pub(crate) request: AddTorrent,
    pub(crate) hash: InfoHash,
    pub(crate) info: Option<Info>,
    pub(crate) resumed: Option<ResumeState>,
    pub(crate) resume_id: ResumeId,
}

impl Session {
    /// Binds the listener, opens the resume database and starts the event loop.
    pub fn start(config: SessionConfig) -> Result<Self, NodeError> {
        let listener = config.listen.map(bind).transpose()?;
        let addr = listener.as_ref().and_then(|l| l.local_addr().ok());
        let poll = Poll::new().map_err(NodeError::Loop)?;
        let waker = Waker::new(poll.registry(), reactor::waker_token()).map_err(NodeError::Loop)?;
        let waker = Arc::new(waker);
        let notify: Arc<dyn Fn() + Send + Sync> = {
            let waker = waker.clone();
            // A failed wake-up means that the loop is gone; nobody is left to be told.
            Arc::new(move || drop(waker.wake()))
        };
        let mut rng = Rng::from_seed(config.seed.unwrap_or_else(system_seed));
        let resume = Arc::new(Resume::open(&config.state_dir)?);
        let disk = DiskPool::new(config.disk_threads, notify.clone(), resume.clone());
        let trackers =
            TrackerClient::spawn(notify.clone(), rng.next_u64(), Outbound::of(config.listen))?;
        let mut dhts = Vec::new();
        if let Some(settings) = config.dht.clone() {
            let dht = dhts::mainline(settings, addr, rng.next_u64());
            dhts.push(dhts::start(dht, notify.clone())?);
        }
        if let Some(settings) = config.ring.clone() {
            let overlay = config.overlay.clone().filter(|_| settings.overlay);
            let ring = dhts::ring(settings, overlay, rng.next_u64());
            dhts.push(dhts::start(ring, notify.clone())?);
        }
        let ring = dhts.iter().find(|link| link.ring);
        let ring_addr = ring.and_then(|link| link.node.local_addrs().first().copied());
        let (commands, receive_commands) = crossbeam_channel::unbounded();
        let (send_events, events) = crossbeam_channel::unbounded();
        let stats = SharedStats::default();
        let mut service = None;
        let mut overlay_addr = None;
        if let (Some(overlay), Some(addr)) = (&config.overlay, addr) {
            let (commands, waker) = (commands.clone(), waker.clone());
            let taken = overlay.listen(addr.port(), move |stream, from| {
                // A loop that is gone takes nobody.
                if commands.send(Command::Arrived(stream, from)).is_ok() {
                    let _ = waker.wake();
                }
            });
            let addr = overlay.at(addr.port());
            service = Some(taken.map_err(|source| NodeError::Listen { addr, source })?);
            overlay_addr = Some(addr);
        }
        let mapper = addr
            .filter(|_| config.port_mapping)
            .and_then(|addr| forward(addr, &dhts, commands.clone(), waker.clone()));
        let reactor = Reactor::new(Parts {
            config,
            listener,
            poll,
            waker: waker.clone(),
            resume: resume.clone(),
            disk,
            trackers,
            dhts,
            overlay_addr,
            commands: receive_commands,
            events: send_events,
            stats: stats.clone(),
            rng,
        })?;
        let thread = std::thread::Builder::new()
            .name("shoal-reactor".into())
            .spawn(move || reactor.run())
            .map_err(NodeError::Loop)?;
        Ok(Self {
            commands,
            events,
            stats,
            waker,
            addr,
            ring_addr,
            overlay_addr,
            _service: service,
            mapper,
            thread: Some(thread),
            resume,
            hashes: Mutex::default(),
        })
    }

    /// What the router lets through to the listener; none: nothing, or it is not asked.
    pub fn forwarded(&self) -> Option<Mapping> {
        let standing = self.mapper.as_ref()?.standing();
        let mut mappings = standing.mappings.into_iter();
        mappings.find(|m| m.port.transport == Transport::Tcp)
    }

    /// Where other members of the ring can reach us, if there is one.
    pub fn ring_addr(&self) -> Option<SocketAddr> {
        self.ring_addr
    }

    /// Where peers on the overlay can reach us, if we are on it and listen.
    pub fn overlay_addr(&self) -> Option<SocketAddr> {
        self.overlay_addr
    }

    /// Where peers can reach us, if we listen.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Runs a torrent; events and statistics carry the key returned.
    pub fn add(&self, request: AddTorrent) -> Result<TorrentKey, NodeError> {
        let hash = match &request.what {
            What::Metainfo(metainfo) => metainfo.info.info_hash_v1(),
            What::Magnet(magnet) => magnet.info_hash,
        };
        let hash = hash.ok_or(NodeError::V2Only)?;
        if !self.hashes().insert(hash) {
            return Err(NodeError::Duplicate(hash));
        }
        let added = self.prepare(request, hash).and_then(|torrent| {
            let (answer, answered) = crossbeam_channel::bounded(1);
            self.command(Command::Add(Box::new(torrent), answer))?;
            answered.recv().map_err(|_| NodeError::Stopped)
        });
        if added.is_err() {
            self.hashes().remove(&hash);
        }
        added
    }

    fn hashes(&self) -> MutexGuard<'_, BTreeSet<InfoHash>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up what is known of a torrent, and takes it up durably if nothing is: here and not in
    /// the event loop, which must not wait for a disk.
    fn prepare(&self, request: AddTorrent, hash: InfoHash) -> Result<Prepared, NodeError> {
        let mut info = match &request.what {
            What::Metainfo(metainfo) => Some(metainfo.info.clone()),
            What::Magnet(_) => None,
        };
        let known = self.resume.load(&hash)?;
        let resumed = known.filter(|r| r.settings.dir == request.dir);
        if let (None, Some(raw)) = (&info, resumed.as_ref().and_then(|r| r.info.as_ref())) {
            info = Info::parse(raw).ok();
        }
        let resume_id = match &resumed {
            Some(state) => state.id,
            None => {
                let settings = TorrentSettings {
                    name: info.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
                    dir: request.dir.clone(),
                    trackers: request.all_trackers(),
                    web_seeds: request.all_web_seeds(),
                    added: 0,
                    wanted_files: request
                        .wanted_files
                        .as_ref()
                        .map(|files| files.iter().map(|f| *f as u32).collect()),
                    paused: false,
                };
                let info = info.as_ref().map(|i| (i.raw(), i.geometry()));
                self.resume.add(&hash, settings, info)?
            }
        };
        Ok(Prepared {
            request,
            hash,
            info,
            resumed,
            resume_id,
        })
    }

    /// Tries more addresses for a torrent.
    pub fn add_peers(&self, key: TorrentKey, peers: Vec<SocketAddr>) -> Result<(), NodeError> {
        self.command(Command::AddPeers(key, peers))
    }

    /// These have a torrent too, or one file of it.
    ///
    /// # Errors
    /// When the node has stopped.
    pub fn add_sources(&self, key: TorrentKey, specs: Vec<SourceSpec>) -> Result<(), NodeError> {
        self.command(Command::AddSources(key, specs))
    }

    /// Says which files are wanted (none: all) of a torrent that was added on hold, which goes on
    /// with them. Of any other torrent it changes nothing.
    pub fn select(&self, key: TorrentKey, files: Option<Vec<usize>>) -> Result<(), NodeError> {
        self.command(Command::Select(key, files))
    }

    /// Waits until the torrent's metadata is known and its files are open, for at most `patience`.
    ///
    /// # Errors
    /// When it takes longer, or the node stops.
    pub fn open(&self, key: TorrentKey, patience: Duration) -> Result<Opened, NodeError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.command(Command::Open(key, answer))?;
        match answered.recv_timeout(patience) {
            Ok(opened) => Ok(opened),
            Err(RecvTimeoutError::Timeout) => Err(NodeError::Patience(patience)),
            Err(RecvTimeoutError::Disconnected) => Err(NodeError::Stopped),
        }
    }

    /// Wants these pieces of a torrent that is open. The receiver gets the number of each once it
    /// is verified and written; at once for those that are there.
    ///
    /// # Errors
    /// When the node has stopped.
    pub fn want(
        &self,
        key: TorrentKey,
        pieces: Range<PieceIndex>,
    ) -> Result<Receiver<PieceIndex>, NodeError> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        self.command(Command::Want(key, pieces, sender))?;
        Ok(receiver)
    }

    fn command(&self, command: Command) -> Result<(), NodeError> {
        self.commands
            .send(command)
            .map_err(|_| NodeError::Stopped)?;
        self.waker.wake().map_err(NodeError::Loop)
    }

    /// What happens, in order.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// A torrent's figures, at most a quarter of a second old.
    pub fn stats(&self, key: TorrentKey) -> Option<TorrentStats> {
        self.stats.lock().ok()?.get(&key).cloned()
    }

    /// Finishes writing, stores the state, tells the trackers, and ends.
    pub fn stop(mut self) {
        if self.command(Command::Stop).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.command(Command::Stop);
    }
}

/// Has the router let peers through to the listener, and others to the node of Mainline.
fn forward(
    listener: SocketAddr,
    dhts: &[reactor::DhtLink],
    commands: Sender<Command>,
    waker: Arc<Waker>,
) -> Option<PortMapper> {
    let port = |transport, number| Port { transport, number };
    let mainline = dhts.iter().filter(|link| !link.ring);
    let udp = mainline.flat_map(|link| link.node.local_addrs());
    let udp = udp.filter(|a| a.is_ipv4());
    let mut ports = vec![port(Transport::Tcp, listener.port())];
    ports.extend(udp.map(|a| port(Transport::Udp, a.port())));
    let tell = move |change| {
        if let Change::Mapped(mapping) = change
            && mapping.port.transport == Transport::Tcp
            // A loop that is gone tells nobody.
            && commands.send(Command::Port(mapping.external.port())).is_ok()
        {
            let _ = waker.wake();
        }
    };
    PortMapper::start(listener, ports, tell)
        .inspect_err(|why| tracing::debug!(%why, "no router is asked"))
        .ok()
}

fn bind(addr: SocketAddr) -> Result<TcpListener, NodeError> {
    let listen = |addr: SocketAddr| {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(addr),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            // One socket for both families, where the address allows it.
            socket.set_only_v6(false)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from_std(socket.into()))
    };
    listen(addr).map_err(|source| NodeError::Listen { addr, source })
}

/// A seed from the hasher keys that the standard library draws from the system.
fn system_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
