//! Reaching any node by its name: [`Reach::connect`] gives an authenticated QUIC connection, whatever
//! NATs are between, and keeps it while ways and relays come and go.
//!
//! ```text
//!  Connection, Stream ── QUIC (quinn-proto): one address for each node, TLS with the nodes' keys
//!                          └─ Endpoint (shoal-reach): the way in use, by our socket or a relay
//!                               └─ one thread: UDP sockets, connections to relays
//! ```
//!
//! Letters between nodes, by which they tell where they are, are somebody else's to carry:
//! [`Reach::letters`] gives them out, [`Reach::letter`] takes them.

mod hosts;
mod overlay;
pub mod probe;
mod stream;
mod tls;
mod worker;

pub use bytes::Bytes;
pub use overlay::{Overlay, OverlaySettings, OverlaySocket, Service, WeakOverlay};
pub use shoal_reach::identity::{Identity, NodeId};
pub use shoal_reach::overlay::{address as address_of, overlay as overlay_of};
pub use shoal_reach::relays::{InUse as RelayInUse, Ticket};
pub use stream::Stream;

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, bounded, unbounded};
use shoal_reach::agent::InUse;
use shoal_reach::endpoint::Endpoint;
use worker::{Command, Door, Parts, Worker};

use crate::mapping::{Change, Port, PortMapper, Standing, Transport};

/// How long an answer of the thread is waited for.
const ANSWER: Duration = Duration::from_secs(30);

/// How a node reaches others.
#[derive(Debug)]
pub struct ReachSettings {
    /// Who it is.
    pub identity: Identity,
    /// Where its UDP socket is; port zero for any.
    pub listen: SocketAddr,
    /// Whether others may reach it.
    pub accepts: bool,
    /// Whether no node is to learn its address: all goes by relays.
    pub hidden: bool,
    /// Whether the router is asked to let others through to it; not if it is hidden.
    pub port_mapping: bool,
}

/// Why a node was not reached. Each names the leg that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// There are too many sessions.
    #[error("too many nodes are being reached")]
    Full,
    /// No way was found.
    #[error("no way to it was found: {0}")]
    NoWay(String),
    /// There is a way, but no connection over it.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// We have ended.
    #[error("the node has ended")]
    Ended,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Our address as others see it, by UDP.
    pub mapped: Option<SocketAddr>,
    /// Whether that is our address for all whom we send to; none: fewer than two relays have told.
    pub one: Option<bool>,
    /// Whether UDP gets out.
    pub udp: bool,
    /// Relays with an address of ours.
    pub relays: Vec<RelayInUse>,
}

/// How a connection runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The way in use; none while there is none.
    pub way: Option<InUse>,
    /// Relays on it: ours by its address, theirs by their address at it.
    pub relays: Vec<SocketAddr>,
    /// Ways that work, with the one in use.
    pub ways: usize,
    /// Its round trip.
    pub rtt: Duration,
    /// Packets sent, and of these lost, as QUIC counts.
    pub sent: u64,
    /// See `sent`.
    pub lost: u64,
}

/// A node that reaches others and is reached; dropping it ends it.
#[derive(Debug)]
pub struct Reach {
    id: NodeId,
    door: Door,
    mapper: Mutex<Option<PortMapper>>,
    thread: Option<JoinHandle<()>>,
    /// Letters that are to be carried to nodes.
    pub letters: Receiver<(NodeId, Vec<u8>)>,
    /// Connections that others made.
    pub arrivals: Receiver<Connection>,
}

pub(crate) fn random(buf: &mut [u8]) {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            // Without secrets nothing may go on.
            Err(error) => panic!("the system gives no random numbers: {error}"),
        }
    }
}

impl Reach {
    /// Starts.
    ///
    /// # Errors
    /// The socket or the thread cannot be made.
    pub fn start(settings: ReachSettings) -> io::Result<Self> {
        let sockets = hosts::sockets(settings.listen)?;
        let hosts = hosts::addresses(settings.listen, &sockets)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let epoch = since.unwrap_or_default().as_micros();
        let epoch = u64::try_from(epoch).unwrap_or_default();
        let id = settings.identity.id();
        let tls = tls::Tls::new(&settings.identity).map_err(io::Error::other)?;
        let accepts = settings.accepts;
        let listen = hosts::first(&sockets, settings.listen)?;
        let forwards = settings.port_mapping && !settings.hidden;
        let mut endpoint =
            Endpoint::new(settings.identity, hosts, accepts, epoch, Box::new(random));
        if settings.hidden {
            endpoint.hide();
        }
        let (letters, carried) = unbounded();
        let (arrivals, arrived) = unbounded();
        let (worker, door) = Worker::new(Parts {
            sockets,
            endpoint,
            accepts,
            tls,
            letters,
            arrivals,
        })?;
        let builder = std::thread::Builder::new().name("shoal-reach".into());
        let thread = builder.spawn(move || worker.run())?;
        let mapper = forwards.then(|| forward(listen, door.clone())).flatten();
        Ok(Self {
            id,
            door,
            mapper: Mutex::new(mapper),
            thread: Some(thread),
            letters: carried,
            arrivals: arrived,
        })
    }

    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// How things stand with the router; none: it is not asked.
    pub fn router(&self) -> Option<Standing> {
        self.mapper().as_ref().map(PortMapper::standing)
    }

    /// Has the router let nobody through any more, which takes a moment: before the program ends, however many hold
    /// this still.
    pub fn give_ports_back(&self) {
        // Not while the lock is held.
        let mapper = self.mapper().take();
        drop(mapper);
    }

    fn mapper(&self) -> MutexGuard<'_, Option<PortMapper>> {
        self.mapper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays that may be used, with fresh credentials.
    pub fn offer(&self, tickets: Vec<Ticket>) {
        self.door.tell(Command::Offer(tickets));
    }

    /// A letter came for us.
    pub fn letter(&self, letter: Vec<u8>) {
        self.door.tell(Command::Letter(letter));
    }

    /// Reaches a node. Ends within half a minute, one way or the other.
    ///
    /// # Errors
    /// Why not.
    pub fn connect(&self, to: NodeId) -> Result<Connection, Unreached> {
        let (tell, told) = bounded(1);
        if !self.door.tell(Command::Connect(to, tell)) {
            return Err(Unreached::Ended);
        }
        told.recv_timeout(ANSWER).map_err(|_| Unreached::Ended)?
    }

    /// How it stands.
    pub fn look(&self) -> Option<Looked> {
        let (tell, told) = bounded(1);
        self.door.tell(Command::Ask(tell));
        told.recv_timeout(ANSWER).ok()
    }
}

/// Has the router let others through to the socket here.
fn forward(listen: SocketAddr, door: Door) -> Option<PortMapper> {
    let port = Port {
        transport: Transport::Udp,
        number: listen.port(),
    };
    let tell = move |change| {
        door.tell(Command::Forwarded(match change {
            Change::Mapped(mapping) => Some(mapping.external.into()),
            Change::Lost(_) => None,
        }));
    };
    PortMapper::start(listen, vec![port], tell)
        .inspect_err(|why| tracing::debug!(%why, "no router is asked"))
        .ok()
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.give_ports_back();
        self.door.tell(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("reach's thread panicked");
        }
    }
}

/// A connection to a node that is who it says. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    peer: NodeId,
    door: Door,
    at: usize,
    /// Streams that the other side opened and wrote to; it ends with the connection.
    pub streams: Receiver<Stream>,
    /// Datagrams that came; it ends with the connection.
    pub datagrams: Receiver<Bytes>,
}

impl Connection {
    fn new(
        peer: NodeId,
        door: Door,
        at: usize,
        streams: Receiver<Stream>,
        datagrams: Receiver<Bytes>,
    ) -> Self {
        Self {
            peer,
            door,
            at,
            streams,
            datagrams,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// A new stream, of which the other side hears when something is written to it.
    ///
    /// # Errors
    /// The connection has ended, or there are too many.
    pub fn open(&self) -> io::Result<Stream> {
        let (tell, told) = bounded(1);
        self.door.tell(Command::Open(self.at, tell));
        let stream = told.recv_timeout(ANSWER).ok().flatten();
        stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "no stream to be had"))
    }

    /// Sends a datagram, which may be lost.
    pub fn send(&self, data: Bytes) {
        self.door.tell(Command::Datagram(self.at, data));
    }

    /// How it runs; none when it has ended.
    pub fn status(&self) -> Option<Status> {
        let (tell, told) = bounded(1);
        self.door.tell(Command::Status(self.at, tell));
        told.recv_timeout(ANSWER).ok().flatten()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.door.tell(Command::Close(self.at));
    }
}

#[cfg(test)]
mod tests;
