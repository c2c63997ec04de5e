//! A node of a DHT on real sockets, on a thread of its own.
//!
//! The core is [`shoal_dht`]'s; here are sockets, clock, host names and the file of contacts. It
//! has a thread of its own so that checking signatures and a flood of datagrams delay no block,
//! and full sockets no answer; the reactor and the command line use it alike.

mod driver;

use crossbeam_channel::{Receiver, Sender, bounded};
use driver::{Command, Driver};
use mio::{Poll, Waker};
use shoal_base::{Rng, Time};
use shoal_dht::mainline::{Config as MainlineConfig, Exempt, Health, Mainline, Snapshot};
use shoal_dht::{Answer, Dht, Request};
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
    /// Asks, but serves nobody (BEP 43): right for what runs but a moment.
    pub read_only: bool,
    /// Seed of all random choices.
    pub seed: u64,
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
    /// Bytes held in tables and stores.
    pub memory: usize,
    /// Datagrams and bytes sent.
    pub sent: (u64, u64),
    /// Datagrams and bytes received.
    pub received: (u64, u64),
}

/// What the thread needs of a core besides [`Dht`].
trait Overlay: Dht + Send {
    /// Nodes to start from.
    fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]);
    /// Whether looking up the names of nodes to start from would help.
    fn wants_contacts(&self) -> bool;
    /// What is worth keeping for the next run.
    fn save(&self) -> Vec<u8>;
    /// How it is.
    fn report(&self) -> DhtStatus;
}

impl Overlay for Mainline {
    fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]) {
        Self::add_contacts(self, now, addrs);
    }

    fn wants_contacts(&self) -> bool {
        Self::wants_contacts(self)
    }

    fn save(&self) -> Vec<u8> {
        self.snapshot().to_bytes()
    }

    fn report(&self) -> DhtStatus {
        let status = self.status();
        DhtStatus {
            health: status.health,
            contacts: status.contacts.iter().sum(),
            keys: status.keys,
            peers: status.peers,
            items: status.items,
            memory: status.memory,
            sent: (0, 0),
            received: (0, 0),
        }
    }
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

/// Where limits per address and subnet do not hold: this machine and private networks, whose
/// nodes all share a subnet, and whose addresses no stranger on the Internet can have.
fn exempt() -> Exempt {
    let v4 = |a, b, c, d, bits| (Ipv4Addr::new(a, b, c, d).into(), bits);
    let v6 = |first, bits| (Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(), bits);
    let mut ranges = Exempt::default();
    ranges.0.extend([
        v4(10, 0, 0, 0, 8),
        v4(172, 16, 0, 0, 12),
        v4(192, 168, 0, 0, 16),
        v4(169, 254, 0, 0, 16),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
    ]);
    ranges
}

/// A handle to a running node. Dropping it ends the node without waiting.
pub struct DhtNode {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    addrs: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl DhtNode {
    /// Binds the sockets and starts a node of the Mainline DHT. Answers go to `sink`.
    pub fn start(config: DhtConfig, sink: Sink) -> Result<Self, DhtError> {
        let mut sockets = Vec::new();
        let mut port = None;
        for mut addr in config.listen.iter().copied() {
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
        let has = |v6: bool| {
            let addrs = sockets.iter().filter_map(|s| s.local_addr().ok());
            addrs.into_iter().any(|a| a.is_ipv6() == v6)
        };
        let core = MainlineConfig {
            v4: has(false),
            v6: has(true),
            read_only: config.read_only,
            exempt: exempt(),
            ..MainlineConfig::default()
        };
        let snapshot = load(&config).as_deref().and_then(Snapshot::from_bytes);
        let mut rng = Rng::from_seed(config.seed);
        let core = Mainline::new(Time::ZERO, core, snapshot, rng.fork());
        Self::spawn(config, sockets, Box::new(core), sink).map_err(DhtError::Thread)
    }

    fn spawn(
        config: DhtConfig,
        sockets: Vec<UdpSocket>,
        core: Box<dyn Overlay>,
        sink: Sink,
    ) -> io::Result<Self> {
        let addrs = sockets.iter().filter_map(|s| s.local_addr().ok()).collect();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), driver::WAKER)?);
        let (commands, inbox): (_, Receiver<Command>) = crossbeam_channel::unbounded();
        let links = driver::Links {
            inbox,
            back: (commands.clone(), waker.clone()),
            sink,
        };
        let driver = Driver::new(config, poll, sockets, core, links)?;
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
