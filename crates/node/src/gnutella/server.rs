//! Starting and stopping a node.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{bounded, unbounded};
use mio::net::{TcpListener, UdpSocket};
use mio::{Poll, Waker};
use shoal_base::{Rng, Time};
use shoal_gnutella::message::push::Push;
use shoal_gnutella::node::{Config, Node};
use shoal_gnutella::shared::Shared;
use shoal_store::snapshot;

use super::handle::{Control, Snapshot};
use super::tls::{Stream, Tls};
use super::worker::{self, Worker};
use crate::outbound::Outbound;
use crate::reach::{Overlay, Service, overlay_of};

/// Bytes of a file of hosts that are read at most.
const MAX_HOSTS_FILE: u64 = 1 << 20;

/// Connections by the overlay that nobody has taken yet.
const MAX_ARRIVED: usize = 64;

/// Who serves what comes in on a node's port and is no connection of the overlay.
pub trait Incoming: Send {
    /// Somebody connected and began with `first`: a request of HTTP, `GIV`, or `QUEUE`. The stream
    /// blocks; this must return at once.
    fn incoming(&mut self, stream: Stream, peer: SocketAddr, first: Vec<u8>);
    /// Somebody asks us to connect and offer a file.
    fn give(&mut self, push: Push);
}

/// Settings of a node that runs.
pub struct GnutellaSettings {
    /// Where to listen, for connections and datagrams; port zero chooses one.
    pub listen: SocketAddrV4,
    /// What the node is.
    pub node: Config,
    /// Connections that are kept, with hosts of the overlay too.
    pub connect: Vec<SocketAddr>,
    /// Hosts to ask for hosts, by datagrams (UHC).
    pub caches: Vec<SocketAddrV4>,
    /// The file of hosts known; none to forget them at the end.
    pub hosts: Option<PathBuf>,
    /// Who serves files; none to close such connections.
    pub incoming: Option<Box<dyn Incoming>>,
    /// Offers TLS to those who can, and takes it; none to stay in clear.
    pub tls: Option<Tls>,
    /// By which nodes behind NATs are reached, and reach this one at the port that it listens at.
    pub overlay: Option<Overlay>,
    /// Decides names and choices; none for unpredictable ones.
    pub seed: Option<u64>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum GnutellaError {
    /// The address could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddrV4,
        /// Why.
        source: io::Error,
    },
    /// A thread or a poller could not be made, or a file could not be read.
    #[error("cannot start the node")]
    Worker(#[from] io::Error),
}

/// A node that runs. Dropping it stops it.
#[derive(Debug)]
pub struct GnutellaServer {
    control: Control,
    /// Takes what comes by the overlay.
    _service: Option<Service>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl GnutellaServer {
    /// Listens and starts the thread.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn start(
        settings: GnutellaSettings,
        shared: Box<dyn Shared + Send>,
    ) -> Result<Self, GnutellaError> {
        let address = settings.listen;
        let bind = |source| GnutellaError::Bind { address, source };
        let (listener, udp) = bind_both(address).map_err(bind)?;
        let SocketAddr::V4(listen) = listener.local_addr()? else {
            return Err(bind(io::ErrorKind::AddrNotAvailable.into()));
        };
        let seed = match settings.seed {
            Some(seed) => seed,
            None => {
                let mut seed = [0; 8];
                rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
                    .map_err(io::Error::from)?;
                u64::from_le_bytes(seed)
            }
        };
        let mut config = settings.node;
        config.tls = settings.tls.is_some();
        // Others tell what the address is when it cannot be known from here.
        if config.listen.is_none() && !listen.ip().is_unspecified() {
            config.listen = Some(listen);
        }
        let place = settings.overlay.as_ref().map(|o| o.at(listen.port()));
        config.overlay = place.and_then(overlay_of);
        let mut node = Node::new(Time::ZERO, config, shared, Rng::from_seed(seed));
        if let Some(path) = &settings.hosts
            && let Some(bytes) = snapshot::load(path, MAX_HOSTS_FILE)?
        {
            node.hosts().restore(Time::ZERO, &bytes);
        }
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), worker::WAKER)?);
        let (orders, ordered) = unbounded();
        let (arrive, arrived) = bounded(MAX_ARRIVED);
        let by_overlay = |overlay: &Overlay| {
            let waker = Arc::clone(&waker);
            overlay.listen(listen.port(), move |stream, from| {
                // The connection ends if too many wait already.
                if arrive.try_send((stream, from)).is_ok() {
                    let _ = waker.wake();
                }
            })
        };
        let service = settings.overlay.as_ref().map(by_overlay).transpose()?;
        let control = Control {
            orders,
            waker,
            snapshot: Arc::new(Mutex::new(Snapshot::default())),
            listen,
            servent: node.servent(),
        };
        let worker = Worker::new(
            worker::Parts {
                poll,
                listener,
                udp,
                listen,
                connect: settings.connect,
                caches: settings.caches,
                hosts: settings.hosts,
                incoming: settings.incoming,
                tls: settings.tls,
                outbound: Outbound::default().and_overlay(settings.overlay),
                arrived,
                ordered,
                snapshot: Arc::clone(&control.snapshot),
            },
            node,
        );
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("gnutella".into())
            .spawn(move || worker.run(&flag))?;
        Ok(Self {
            control,
            _service: service,
            stop,
            thread: Some(thread),
        })
    }

    /// Gives orders to the node.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Says farewell to all neighbours and ends the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.control.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the node's thread panicked");
        }
    }
}

impl Drop for GnutellaServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tries of a port that is free for both, when any will do.
const TRIES: usize = 16;

/// Connections and datagrams share the port.
fn bind_both(address: SocketAddrV4) -> io::Result<(TcpListener, UdpSocket)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        let listener = crate::napster::listen(address.into())?;
        match UdpSocket::bind(listener.local_addr()?) {
            Ok(udp) => return Ok((listener, udp)),
            Err(error) if tries == 1 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}
