//! `shoal serve turn`: a relay on real sockets. The rules are those of `shoal_reach::turn::server`.
//!
//! ```text
//!  shoal-relay   one thread: listening sockets (UDP and TCP), connections, a UDP socket for each
//!                relayed address, and the core
//! ```
//!
//! Datagrams are received and sent in batches. Those that follow each other to one receiver with one
//! length leave as one train that the kernel cuts (UDP_SEGMENT), because what a relay's packet
//! costs is almost all the kernel's way through its stack.

mod certificate;
mod packets;
mod stream;
mod worker;

pub use certificate::{CertificateError, CertificateFiles};
pub use shoal_reach::turn::credential::{Credential, Credentials};
pub use shoal_reach::turn::policy::{Policy, Prefix};
pub use shoal_reach::turn::server::{Config, RelayAddress, Stats};

use crate::gnutella::Tls;
use shoal_base::Rng;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use worker::Parts;

/// The name in certificates of our own making.
const NAME: &str = "turn";
/// What sockets that many share would have as buffers, as far as the system allows.
const BUFFER: usize = 4 << 20;

/// Settings of a relay that serves.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Where to listen, for UDP and TCP at each; port zero chooses one.
    pub listen: Vec<SocketAddr>,
    /// What the relay allows. Its clock is set when it starts.
    pub turn: Config,
    /// The certificate that who begins with TLS sees; none for one of this run, which proves nothing:
    /// it gets through firewalls. Browsers take none but one that means something.
    pub certificate: Option<CertificateFiles>,
    /// Connections at most.
    pub max_connections: usize,
    /// Decides keys and ports; none for unpredictable ones.
    pub seed: Option<u64>,
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No address to listen on was given.
    #[error("no address to serve on")]
    NoAddress,
    /// Nobody could use it.
    #[error("there is neither a secret nor a user")]
    Nobody,
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
    /// The certificate does not serve.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The thread or its poller could not be made.
    #[error("cannot start the relay")]
    Start(#[from] io::Error),
}

/// A relay that is serving. Dropping it stops it.
#[derive(Debug)]
pub struct RelayServer {
    addresses: Vec<SocketAddr>,
    stats: Arc<Mutex<Stats>>,
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
    thread: Option<JoinHandle<()>>,
}

/// The address from which this machine reaches the Internet, by its table of routes; nothing is
/// sent.
pub fn outward_address(ipv6: bool) -> Option<IpAddr> {
    // Any public address serves to ask for the route.
    let (from, to) = if ipv6 {
        ("[::]:0", "[2600::1]:9")
    } else {
        ("0.0.0.0:0", "1.1.1.1:9")
    };
    let socket = std::net::UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

impl RelayServer {
    /// Binds the addresses and starts the thread.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn start(settings: RelaySettings) -> Result<Self, RelayError> {
        if settings.listen.is_empty() {
            return Err(RelayError::NoAddress);
        }
        let mut turn = settings.turn;
        if turn.credentials.is_empty() {
            return Err(RelayError::Nobody);
        }
        let tls = match settings.certificate {
            Some(files) => files.server()?,
            None => Tls::named(NAME).map_err(io::Error::other)?.server(),
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        turn.unix_at_zero = since_1970.unwrap_or(Duration::ZERO).as_secs();
        let mut rng = Rng::from_seed(settings.seed.unwrap_or_else(entropy));
        let mut worker = Parts::new(turn, settings.max_connections, tls, &mut rng)?;
        let mut addresses = Vec::new();
        for address in settings.listen {
            let (address, udp, tcp) = bind(address)?;
            worker.listen(udp, tcp)?;
            addresses.push(address);
        }
        let stop = Arc::<AtomicBool>::default();
        let (stats, waker) = (worker.stats(), worker.waker()?);
        let stopped = Arc::clone(&stop);
        let builder = thread::Builder::new().name("shoal-relay".into());
        let thread = builder.spawn(move || worker.run(&stopped))?;
        Ok(Self {
            addresses,
            stats,
            stop,
            waker,
            thread: Some(thread),
        })
    }

    /// Where it listens, for UDP and TCP.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What was done so far; at most a second old.
    pub fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread, closes all sockets and says what was done.
    pub fn stop(mut self) -> Stats {
        self.end();
        self.stats()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay's thread panicked");
        }
    }
}

impl Drop for RelayServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn entropy() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard hasher's keys come from the operating system.
    RandomState::new().hash_one(SystemTime::now())
}

/// A UDP socket that does not block.
fn udp_socket(address: SocketAddr, buffer: Option<usize>) -> io::Result<mio::net::UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(size) = buffer {
        // A small one only loses more at peaks.
        let _ = socket.set_recv_buffer_size(size);
        let _ = socket.set_send_buffer_size(size);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(mio::net::UdpSocket::from_std(socket.into()))
}

type Bound = (SocketAddr, mio::net::UdpSocket, mio::net::TcpListener);

/// One address for UDP and TCP. If any port will do, one that is free for both.
fn bind(wanted: SocketAddr) -> Result<Bound, RelayError> {
    let fail = |protocol, address| {
        move |source| RelayError::Bind {
            protocol,
            address,
            source,
        }
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = udp_socket(wanted, Some(BUFFER)).map_err(fail("udp", wanted))?;
        let address = udp.local_addr()?;
        match tcp_listener(address) {
            Ok(tcp) => return Ok((address, udp, tcp)),
            Err(_) if wanted.port() == 0 && tries < 16 => {}
            Err(source) => return Err(fail("tcp", address)(source)),
        }
    }
}

fn tcp_listener(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests;
