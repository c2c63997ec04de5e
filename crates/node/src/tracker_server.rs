//! `shoal serve tracker`: a BitTorrent tracker over UDP (BEP 15) and HTTP (BEP 3).
//!
//! ```text
//!  UDP worker 1..n ---+                       +--- housekeeping: expiry shard by shard,
//!   (one socket each, |   Service: shards of  |    lists reloaded, rates counted
//!    SO_REUSEPORT)    +-->  swarms by hash,  <+
//!  HTTP worker 1..n --+   one lock a shard    +--- TrackerServer: the handle
//! ```
//!
//! The rules (who is told of whom, limits, codecs) are those of `shoal_bittorrent::tracker`.

mod http;
mod http_connection;
mod lists;
mod report;
mod service;
mod stats;
mod udp;

pub use lists::ListFileError;
pub use stats::{ServerStats, Traffic};

use crossbeam_channel::{Sender, bounded};
use service::Service;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Settings of a tracker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve HTTP; port zero chooses one.
    pub http: Option<SocketAddr>,
    /// Where to serve UDP; port zero chooses one.
    pub udp: Option<SocketAddr>,
    /// Threads for each of the two; zero for as many as there are cores.
    pub workers: usize,
    /// How often peers are asked to announce. Each is told up to a tenth more, so that a crowd
    /// does not come back as one.
    pub interval: Duration,
    /// The least time between two announces of a peer (told, not enforced).
    pub min_interval: Duration,
    /// After how long without an announce a peer is forgotten.
    pub peer_life: Duration,
    /// Peers in a reply at most.
    pub max_peers: usize,
    /// Peers in a reply when the request does not say.
    pub default_peers: usize,
    /// Torrents in a scrape at most.
    pub max_scrape: usize,
    /// Torrents at most, of either address family.
    pub max_torrents: usize,
    /// Peers that one address (or IPv6 /64) may have in all swarms; zero for no limit.
    pub max_peers_per_address: u16,
    /// Requests a second that one address may make by HTTP, or by UDP once it has a connection id;
    /// zero for no limit.
    pub max_requests_per_address: u32,
    /// Whether the limits by address hold for loopback and private networks too.
    pub limit_local: bool,
    /// A file of info-hashes; no others are served.
    pub allow: Option<PathBuf>,
    /// A file of info-hashes that are not served.
    pub deny: Option<PathBuf>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether `/stats` and `/metrics` are shown to everybody, not to this machine only.
    pub public_stats: bool,
    /// HTTP connections at most, of all workers together.
    pub max_connections: usize,
    /// Decides secret keys and which peers are told; none for an unpredictable one.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: None,
            udp: None,
            workers: 0,
            interval: Duration::from_secs(1800),
            min_interval: Duration::from_secs(300),
            peer_life: Duration::from_secs(2700),
            max_peers: 50,
            default_peers: 50,
            max_scrape: 74,
            max_torrents: 10_000_000,
            max_peers_per_address: 2000,
            max_requests_per_address: 100,
            limit_local: false,
            allow: None,
            deny: None,
            trusted_proxies: Vec::new(),
            public_stats: false,
            max_connections: 8192,
            seed: None,
        }
    }
}

/// Why a tracker did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Neither an HTTP nor a UDP address was given.
    #[error("no address to serve on")]
    NoAddress,
    /// Both an allow and a deny list were given.
    #[error("a list to allow and a list to deny exclude each other")]
    TwoLists,
    /// A list could not be read.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// An address could not be bound.
    #[error("cannot listen on {protocol} {address}")]
    Bind {
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread or a poller could not be made.
    #[error("cannot start a worker")]
    Worker(#[from] io::Error),
}

/// A tracker that is serving. Dropping it stops it.
#[derive(Debug)]
pub struct TrackerServer {
    service: Arc<Service>,
    stop: Arc<AtomicBool>,
    wakers: Vec<Arc<mio::Waker>>,
    housekeeping: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    udp: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl TrackerServer {
    /// Binds the addresses, reads the lists and starts the threads.
    pub fn start(config: Config) -> Result<Self, ServerError> {
        if config.udp.is_none() && config.http.is_none() {
            return Err(ServerError::NoAddress);
        }
        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n.min(256),
        };
        let (udp, http) = (config.udp, config.http);
        let udp = udp.map(|addr| udp_sockets(addr, workers)).transpose()?;
        let http = http.map(|addr| listeners(addr, workers)).transpose()?;
        let service = Arc::new(Service::new(config)?);
        let mut server = Self {
            service,
            stop: Arc::default(),
            wakers: Vec::new(),
            housekeeping: None,
            threads: Vec::new(),
            udp: udp.as_ref().map(|(addr, _)| *addr),
            http: http.as_ref().map(|(addr, _)| *addr),
        };
        // From here on, an error drops the server and so stops what was started.
        for socket in udp.into_iter().flat_map(|(_, sockets)| sockets) {
            let worker = udp::Worker::new(Arc::clone(&server.service), socket);
            let stop = Arc::clone(&server.stop);
            server.spawn("tracker-udp", move || worker.run(&stop))?;
        }
        for listener in http.into_iter().flat_map(|(_, listeners)| listeners) {
            let share = server.service.config.max_connections.div_ceil(workers);
            let service = Arc::clone(&server.service);
            let (worker, waker) = http::Worker::new(service, listener, share)?;
            let stop = Arc::clone(&server.stop);
            server.wakers.push(waker);
            server.spawn("tracker-http", move || worker.run(&stop))?;
        }
        let (end, ended) = bounded(0);
        server.housekeeping = Some(end);
        let service = Arc::clone(&server.service);
        server.spawn("tracker-keep", move || service.keep_house(&ended))?;
        Ok(server)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let builder = thread::Builder::new().name(name.into());
        self.threads.push(builder.spawn(run)?);
        Ok(())
    }

    /// Where UDP is served.
    pub fn udp_addr(&self) -> Option<SocketAddr> {
        self.udp
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What was served so far and how many peers there are.
    pub fn stats(&self) -> ServerStats {
        self.service.stats()
    }

    /// Reads the list of torrents again; a bad file leaves the old list in force. Happens by
    /// itself when the file changes.
    pub fn reload_lists(&self) -> Result<(), ListFileError> {
        self.service.reload_lists()
    }

    /// Ends all threads and closes all sockets.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.housekeeping = None;
        for waker in &self.wakers {
            let _ = waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a tracker worker panicked");
            }
        }
    }
}

impl Drop for TrackerServer {
    fn drop(&mut self) {
        self.end();
    }
}

type Bound<T> = Result<(SocketAddr, Vec<T>), ServerError>;

/// `workers` UDP sockets on one port; the kernel shares datagrams out by address.
fn udp_sockets(address: SocketAddr, workers: usize) -> Bound<std::net::UdpSocket> {
    const BUFFER: usize = 8 << 20;
    bind_all("udp", address, workers, |address| {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // As large as the system allows; a small one only loses more at peaks.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        socket.set_reuse_port(workers > 1)?;
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        Ok((socket.local_addr()?, socket))
    })
}

/// `workers` listeners on one port; the kernel shares connections out.
fn listeners(address: SocketAddr, workers: usize) -> Bound<mio::net::TcpListener> {
    bind_all("tcp", address, workers, |address| {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(workers > 1)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok((address, mio::net::TcpListener::from_std(listener)))
    })
}

fn bind_all<T>(
    protocol: &'static str,
    mut address: SocketAddr,
    workers: usize,
    bind: impl Fn(SocketAddr) -> io::Result<(SocketAddr, T)>,
) -> Bound<T> {
    let mut all = Vec::new();
    for _ in 0..workers {
        let (bound, socket) = bind(address).map_err(|source| ServerError::Bind {
            protocol,
            address,
            source,
        })?;
        // Port zero was chosen by the first; the others join it.
        address = bound;
        all.push(socket);
    }
    Ok((address, all))
}

#[cfg(test)]
mod tests;
