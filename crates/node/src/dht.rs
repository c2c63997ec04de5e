//! A node of a DHT, Mainline or Chord, on real sockets, on a thread of its own.
//!
//! The core is [`shoal_dht`]'s; here are sockets, clock, host names and the file of contacts. It
//! has a thread of its own so that checking signatures and a flood of datagrams delay no block,
//! and full sockets no answer; the reactor and the command line use it alike.

mod driver;
mod overlay;

use crate::reach::{Overlay as Reached, OverlaySocket};
use crossbeam_channel::{Receiver, Sender, bounded};
use driver::{Command, Driver};
use mio::{Poll, Waker};
use overlay::Overlay;
use shoal_dht::{Answer, Health, Request};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Nodes of the public network to start from when no other is known.
pub const PUBLIC_ROUTERS: &[&str] = &[
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "router.utorrent.com:6881",
    "dht.aelitis.com:6881",
];

/// Most bytes of a file of contacts.
const MAX_CONTACTS_FILE: u64 = 64 * 1024;
/// How long a question to the thread waits for its answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Datagrams of the overlay that wait to be read; further ones are lost.
const MAX_WAITING: usize = 256;
/// Where ports are looked for when any will do.
const ANY_PORT: std::ops::Range<u16> = 20_000..60_000;

/// How a node of the DHT is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtConfig {
    /// Where it listens, as [`listen_addrs`] has it; at most one address of each family.
    pub listen: Vec<SocketAddr>,
    /// Takes any free port if the one given is not free.
    pub any_port: bool,
    /// Nodes to start from, as `ADDRESS:PORT` or `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// The file in which contacts are kept between two runs.
    pub contacts: Option<PathBuf>,
    /// Asks, but serves nobody (BEP 43; a guest of the ring): right for what runs but a moment.
    pub read_only: bool,
    /// Seed of all random choices.
    pub seed: u64,
    /// A node of this ring; none: of Mainline.
    pub ring: Option<Ring>,
    /// Its datagrams go by the overlay and not by sockets of its own, as those of all its network do;
    /// of `listen` the port alone counts.
    pub overlay: Option<Reached>,
}

/// A Chord ring, and what a node is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring {
    /// Nodes of rings with other names are not answered.
    pub name: String,
    /// Who does not know it cannot join; empty for an open ring.
    pub secret: Vec<u8>,
    /// The node's Ed25519 secret key, which decides its place; none: a fresh one.
    pub key: Option<[u8; 32]>,
    /// Places on the ring, 1 to 64.
    pub positions: u8,
    /// It keeps the records of people whose names this login server certifies, and nothing else.
    pub names_of: Option<[u8; 32]>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            name: "shoal".into(),
            secret: Vec::new(),
            key: None,
            positions: 1,
            names_of: None,
        }
    }
}

impl std::fmt::Debug for Ring {
    // Without what nobody should read in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({:?}, {} positions)", self.name, self.positions)
    }
}

/// Names an operation; chosen by the caller.
pub type Ticket = u64;

/// Where answers go; called from the node's thread, and not to block.
pub type Sink = Box<dyn FnMut(Ticket, Answer) + Send>;

/// Why a node of the DHT could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DhtError {
    /// The address could not be bound.
    #[error("cannot listen on {addr} (UDP)")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gives no random numbers for a key.
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
    /// Its thread could not be set up.
    #[error("cannot set up the DHT's thread")]
    Thread(#[source] io::Error),
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtStatus {
    /// Whether it has a network.
    pub health: Health,
    /// Other nodes known and verified.
    pub contacts: usize,
    /// Keys for which peers are held.
    pub keys: usize,
    /// Peers held.
    pub peers: usize,
    /// Items held.
    pub items: usize,
    /// Keyword records held.
    pub records: usize,
    /// Bytes held in tables and stores.
    pub memory: usize,
    /// Datagrams and bytes sent.
    pub sent: (u64, u64),
    /// Datagrams and bytes received.
    pub received: (u64, u64),
}

/// The UDP addresses that belong to a listening address: the same, and for an unspecified IPv6
/// address both families.
pub fn listen_addrs(listen: SocketAddr) -> Vec<SocketAddr> {
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        let v4 = (Ipv4Addr::UNSPECIFIED, listen.port()).into();
        return vec![v4, listen];
    }
    vec![listen]
}

/// Any port of both families, as far as the machine has them.
pub fn any_addrs() -> Vec<SocketAddr> {
    listen_addrs((Ipv6Addr::UNSPECIFIED, 0).into())
}

/// A handle to a running node. Dropping it ends the node without waiting.
pub struct DhtNode {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    addrs: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl DhtNode {
    /// Binds the sockets and starts a node. Answers go to `sink`.
    pub fn start(config: DhtConfig, sink: Sink) -> Result<Self, DhtError> {
        let mut sockets = Vec::new();
        let mut port = None;
        let own = config.listen.iter().copied();
        for mut addr in own.filter(|_| config.overlay.is_none()) {
            // Both families at the same port, so that a peer needs to know but one.
            if let (0, Some(port)) = (addr.port(), port) {
                addr.set_port(port);
            }
            let socket = match bind(addr) {
                Ok(socket) => socket,
                // The second family is a bonus.
                Err(_) if !sockets.is_empty() => continue,
                Err(_) if config.any_port => {
                    addr.set_port(0);
                    bind(addr).map_err(|source| DhtError::Bind { addr, source })?
                }
                Err(source) => return Err(DhtError::Bind { addr, source }),
            };
            port = port.or(socket.local_addr().ok().map(|a| a.port()));
            sockets.push(socket);
        }
        let families = sockets.iter().filter_map(|s| s.local_addr().ok());
        let families: Vec<bool> = families.map(|a| a.is_ipv6()).collect();
        let has = (families.contains(&false), families.contains(&true));
        let core = match &config.ring {
            None => overlay::mainline(&config, has, load(&config).as_deref()),
            Some(ring) => overlay::chord(&config, ring, load(&config)).map_err(DhtError::Random)?,
        };
        Self::spawn(config, sockets, core, sink).map_err(DhtError::Thread)
    }

    fn spawn(
        config: DhtConfig,
        sockets: Vec<UdpSocket>,
        core: Box<dyn Overlay>,
        sink: Sink,
    ) -> io::Result<Self> {
        let mut addrs: Vec<_> = sockets.iter().filter_map(|s| s.local_addr().ok()).collect();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), driver::WAKER)?);
        let reached = match &config.overlay {
            Some(overlay) => {
                let (port, reached) = reached(overlay, &config, &waker)?;
                addrs.push(overlay.at(port));
                Some(reached)
            }
            None => None,
        };
        let (commands, inbox): (_, Receiver<Command>) = crossbeam_channel::unbounded();
        let links = driver::Links {
            inbox,
            back: (commands.clone(), waker.clone()),
            sink,
        };
        let driver = Driver::new(config, poll, (sockets, reached), core, links)?;
        let thread = std::thread::Builder::new()
            .name("dht".into())
            .stack_size(512 * 1024)
            .spawn(move || driver.run())?;
        Ok(Self {
            commands,
            waker,
            addrs,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Begins an operation; its answers carry `ticket`.
    pub fn request(&self, ticket: Ticket, request: Request) {
        self.send(Command::Request(ticket, Box::new(request)));
    }

    /// Ends an operation.
    pub fn cancel(&self, ticket: Ticket) {
        self.send(Command::Cancel(ticket));
    }

    /// Tells of nodes to start from, such as peers that say they are some.
    pub fn add_contacts(&self, addrs: Vec<SocketAddr>) {
        self.send(Command::Contacts(addrs));
    }

    /// How it is; none if it has ended.
    pub fn status(&self) -> Option<DhtStatus> {
        let (answer, answered) = bounded(1);
        self.send(Command::Status(answer));
        answered.recv_timeout(ANSWER).ok()
    }

    /// Stores the contacts and ends.
    pub fn stop(mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so on its own.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) {
        // A thread that is gone has nothing left to do.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for DhtNode {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

/// A port of the overlay address, and where what comes there is read.
type ByOverlay = (OverlaySocket, Receiver<(SocketAddr, Vec<u8>)>);

fn reached(
    overlay: &Reached,
    config: &DhtConfig,
    waker: &Arc<Waker>,
) -> io::Result<(u16, ByOverlay)> {
    let (tell, came) = bounded(MAX_WAITING);
    let open = |port| {
        let (tell, waker) = (tell.clone(), Arc::clone(waker));
        let socket = overlay.socket(port, move |from, data| {
            if tell.try_send((from, data.to_vec())).is_ok() {
                let _ = waker.wake();
            }
        })?;
        Ok((port, socket))
    };
    let wanted = config.listen.first().map_or(0, SocketAddr::port);
    let first = ANY_PORT.start + (config.seed % ANY_PORT.len() as u64) as u16;
    let (port, socket) = match (wanted, config.any_port) {
        (0, _) => (first..ANY_PORT.end).find_map(|port| open(port).ok()),
        (port, true) => std::iter::once(port)
            .chain(first..ANY_PORT.end)
            .find_map(|port| open(port).ok()),
        (port, false) => return open(port).map(|(port, socket)| (port, (socket, came))),
    }
    .ok_or(io::ErrorKind::AddrInUse)?;
    Ok((port, (socket, came)))
}

fn load(config: &DhtConfig) -> Option<Vec<u8>> {
    let path = config.contacts.as_ref()?;
    match shoal_store::snapshot::load(path, MAX_CONTACTS_FILE) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the DHT's contacts");
            None
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
