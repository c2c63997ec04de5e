//! Other nodes by their overlay addresses ([`shoal_reach::overlay`]): whatever speaks TCP or UDP here
//! reaches a node behind any NAT, and is reached, without knowing.
//!
//! ```text
//!  Overlay    services by port, connections by node; dials, takes what arrives
//!    names    who has an address: asked for by letters, believed by a signature
//!    links    one connection for each node, made when it is needed, ended when it is not
//!    socket   datagrams from port to port
//!    splice   a stream of QUIC joined to one end of a TCP connection within the process
//! ```
//!
//! A stream goes to a service that was registered in this process, and nowhere else: nobody names a
//! host or a port of the machine's own.

mod links;
mod names;
mod socket;
mod splice;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use shoal_reach::overlay::{GREETING, address, greeting, read_greeting};

use super::{Identity, Looked, NodeId, Reach, ReachSettings, Stream, Ticket};
use links::{Link, Reaching};
pub use socket::OverlaySocket;

/// Streams at once, and those of one node.
const MAX_STREAMS: usize = 1024;
const MAX_OF_NODE: usize = 128;
/// How long a node may take to say which port it wants, and to answer that.
const FIRST_WORDS: Duration = Duration::from_secs(10);
const STACK: usize = 128 << 10;
/// How often it is looked whether a way became direct.
const LOOK: Duration = Duration::from_millis(50);
/// Where the first port of streams that come from somewhere is; those have no port of their own.
const FROM_PORT: u16 = 0x8000;

/// Takes a connection, and the address that its other end has.
type Take = dyn Fn(TcpStream, SocketAddr) + Send + Sync;
/// Takes a datagram, and where it is from.
type Hear = dyn Fn(SocketAddr, &[u8]) + Send + Sync;
/// Has a letter carried to the owner of a key.
type Write = dyn Fn([u8; 32], Vec<u8>) + Send + Sync;

/// How a node is on the overlay.
pub struct OverlaySettings {
    /// Who it is.
    pub identity: Identity,
    /// Where its UDP socket is; port zero for any.
    pub listen: SocketAddr,
    /// Whether the router is asked to let others through.
    pub port_mapping: bool,
    /// Carries letters.
    pub write: Box<Write>,
}

impl std::fmt::Debug for OverlaySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OverlaySettings({:?})", self.identity)
    }
}

/// A node's place on the overlay. Clones are the same; dropping the last one ends it.
#[derive(Clone)]
pub struct Overlay(Arc<Inner>);

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overlay({})", self.ip())
    }
}

/// A node's place on the overlay, which does not keep it.
#[derive(Debug, Clone)]
pub struct WeakOverlay(Weak<Inner>);

impl WeakOverlay {
    /// The place, if there is one still.
    pub fn upgrade(&self) -> Option<Overlay> {
        self.0.upgrade().map(Overlay)
    }
}

impl PartialEq for Overlay {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Overlay {}

#[derive(Default)]
struct State {
    services: BTreeMap<u16, Arc<Take>>,
    sockets: BTreeMap<u16, Arc<Hear>>,
    links: BTreeMap<NodeId, Arc<Link>>,
    reaching: BTreeMap<NodeId, Reaching>,
    names: names::Names,
    unsent: socket::Unsent,
}

struct Inner {
    reach: Reach,
    identity: Identity,
    write: Arc<Write>,
    state: Mutex<State>,
    /// A name was learnt, or a node reached or not.
    changed: Condvar,
    streams: Arc<AtomicUsize>,
}

/// A place among the streams, of all and of one node; freed when dropped.
struct Place {
    all: Arc<AtomicUsize>,
    of_node: Option<Arc<Link>>,
}

impl Place {
    fn take(all: &Arc<AtomicUsize>) -> io::Result<Self> {
        if all.fetch_add(1, Ordering::AcqRel) >= MAX_STREAMS {
            all.fetch_sub(1, Ordering::AcqRel);
            return Err(io::Error::other("too many streams to other nodes"));
        }
        let (all, of_node) = (Arc::clone(all), None);
        Ok(Self { all, of_node })
    }

    /// Keeps the connection as long as the stream; false if its node has too many.
    fn hold(&mut self, link: &Arc<Link>) -> bool {
        let fits = link.streams.fetch_add(1, Ordering::AcqRel) < MAX_OF_NODE;
        self.of_node = Some(Arc::clone(link));
        fits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::AcqRel);
        if let Some(link) = &self.of_node {
            link.touch();
            link.streams.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What takes connections at a port; dropping it refuses further ones.
#[derive(Debug)]
pub struct Service {
    overlay: Weak<Inner>,
    port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(inner) = self.overlay.upgrade() {
            inner.lock().services.remove(&self.port);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overlay({})", address(&self.identity.id()))
    }
}

fn taken(port: u16) -> io::Error {
    let what = format!("port {port} of the overlay address is in use");
    io::Error::new(io::ErrorKind::AddrInUse, what)
}

impl Overlay {
    /// Starts. What is told by [`Overlay::offer`] and [`Overlay::letter`] has to come from the
    /// supernode that carries the letters.
    ///
    /// # Errors
    /// The socket or a thread cannot be made.
    pub fn start(settings: OverlaySettings) -> io::Result<Self> {
        let reach = Reach::start(ReachSettings {
            identity: settings.identity.clone(),
            listen: settings.listen,
            accepts: true,
            hidden: false,
            port_mapping: settings.port_mapping,
        })?;
        let (letters, arrivals) = (reach.letters.clone(), reach.arrivals.clone());
        let write: Arc<Write> = settings.write.into();
        let inner = Arc::new(Inner {
            reach,
            identity: settings.identity,
            write: Arc::clone(&write),
            state: Mutex::default(),
            changed: Condvar::new(),
            streams: Arc::default(),
        });
        // Both end with the node, whose thread holds the other ends of their channels.
        thread::Builder::new()
            .name("overlay-letters".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok((node, letter)) = letters.recv() {
                    write(node.0, letter);
                }
            })?;
        let weak = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("overlay-arrivals".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(connection) = arrivals.recv() {
                    let Some(inner) = weak.upgrade() else {
                        return;
                    };
                    inner.arrived(connection);
                }
            })?;
        Ok(Self(inner))
    }

    /// It, without keeping it.
    pub fn downgrade(&self) -> WeakOverlay {
        WeakOverlay(Arc::downgrade(&self.0))
    }

    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.0.reach.id()
    }

    /// Our address.
    pub fn ip(&self) -> Ipv6Addr {
        address(&self.id())
    }

    /// Our address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip(), port).into()
    }

    /// How the node stands.
    pub fn look(&self) -> Option<Looked> {
        self.0.reach.look()
    }

    /// Relays that may be used, with fresh credentials.
    pub fn offer(&self, tickets: Vec<Ticket>) {
        self.0.reach.offer(tickets);
    }

    /// Has the router let nobody through any more: before the program ends.
    pub fn give_ports_back(&self) {
        self.0.reach.give_ports_back();
    }

    /// A letter came, by somebody who is said to have this key.
    pub fn letter(&self, from: [u8; 32], sealed: Vec<u8>) {
        self.0.letter(from, sealed);
    }

    /// This node was heard of: its address needs no asking.
    pub fn learn(&self, node: NodeId) {
        self.0.lock().names.learn(node);
        self.0.changed.notify_all();
    }

    /// Takes connections that come to a port. Each is handed over on a thread of its own.
    ///
    /// # Errors
    /// Another service has the port.
    pub fn listen(
        &self,
        port: u16,
        take: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> io::Result<Service> {
        let mut state = self.0.lock();
        if port == 0 || state.services.contains_key(&port) {
            return Err(taken(port));
        }
        state.services.insert(port, Arc::new(take));
        let overlay = Arc::downgrade(&self.0);
        Ok(Service { overlay, port })
    }

    /// Connects to a node. Ends within a minute, one way or the other.
    ///
    /// # Errors
    /// Why not: [`io::ErrorKind::HostUnreachable`] or [`io::ErrorKind::ConnectionRefused`], mostly.
    pub fn dial(&self, to: SocketAddrV6) -> io::Result<TcpStream> {
        let mut place = Place::take(&self.0.streams)?;
        let (near, far) = splice::pair()?;
        let stream = self.0.open(to, &mut place)?;
        splice::join(stream, far, place)?;
        Ok(near)
    }

    /// Waits until the way to a node that is reached needs no relay: its address there.
    ///
    /// # Errors
    /// It is not reached, or by relays alone.
    pub fn directly(&self, ip: Ipv6Addr, within: Duration) -> io::Result<SocketAddr> {
        let until = Instant::now() + within;
        let node = self.0.who(ip)?;
        let (link, _) = self.0.link(node)?;
        loop {
            let status = link.connection.status();
            let status = status.ok_or(io::ErrorKind::NotConnected)?;
            if let Some(way) = status.way.filter(|_| status.relays.is_empty()) {
                return Ok(way.path.peer);
            }
            if Instant::now() >= until {
                let what = "that node is reached by relays alone";
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, what));
            }
            // A better way may be found at any moment, which nobody tells.
            thread::sleep(LOOK);
        }
    }

    /// Connects to a node without waiting: what is written meanwhile is kept, and the connection
    /// ends if the node is not reached.
    ///
    /// # Errors
    /// There are too many streams, or the system gives no sockets.
    pub fn dial_soon(&self, to: SocketAddrV6) -> io::Result<TcpStream> {
        let mut place = Place::take(&self.0.streams)?;
        let (near, far) = splice::pair()?;
        let inner = Arc::clone(&self.0);
        thread::Builder::new()
            .name("overlay-dial".into())
            .stack_size(STACK)
            .spawn(move || {
                let stream = inner.open(to, &mut place);
                drop(inner);
                let joined = match stream {
                    Ok(stream) => splice::join(stream, far, place),
                    Err(error) => {
                        // Whoever sees the end finds the place free.
                        drop(place);
                        drop(far);
                        Err(error)
                    }
                };
                if let Err(error) = joined {
                    tracing::debug!(%to, %error, "a node was not reached");
                }
            })?;
        Ok(near)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream to a port of a node that takes it.
    fn open(self: &Arc<Self>, to: SocketAddrV6, place: &mut Place) -> io::Result<Stream> {
        let node = self.who(*to.ip())?;
        if node == self.reach.id() {
            let what = "that is this node's own address";
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, what));
        }
        loop {
            let (link, fresh) = self.link(node)?;
            match self.ask(&link, to.port()) {
                Ok(stream) => {
                    if !place.hold(&link) {
                        return Err(io::Error::other("too many streams to that node"));
                    }
                    return Ok(stream);
                }
                Err(e) if fresh || e.kind() == io::ErrorKind::ConnectionRefused => return Err(e),
                // One that is dead and does not know it yet.
                Err(_) => self.forget(&link),
            }
        }
    }

    fn ask(&self, link: &Link, port: u16) -> io::Result<Stream> {
        link.touch();
        let stream = link.connection.open()?;
        io::Write::write_all(&mut &stream, &greeting(port))?;
        let mut answer = [0];
        stream.read_within(&mut answer, FIRST_WORDS)?;
        match answer {
            [1] => Ok(stream),
            _ => {
                let what = "nothing there takes connections at that port";
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, what))
            }
        }
    }

    /// A stream came: it goes to the service that it is for.
    fn stream(self: &Arc<Self>, link: &Arc<Link>, stream: Stream, number: u16) {
        let Ok(mut place) = Place::take(&self.streams) else {
            return;
        };
        if !place.hold(link) {
            return;
        }
        let weak = Arc::downgrade(self);
        let from = SocketAddr::new(
            address(&link.connection.peer()).into(),
            FROM_PORT | (number & (FROM_PORT - 1)),
        );
        let spawned = thread::Builder::new()
            .name("overlay-in".into())
            .stack_size(STACK)
            .spawn(move || {
                if let Err(error) = serve(&weak, stream, from, place) {
                    tracing::debug!(%from, %error, "a stream was not served");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a stream");
        }
    }
}

/// Hears which port a stream wants, and hands it over.
fn serve(inner: &Weak<Inner>, stream: Stream, from: SocketAddr, place: Place) -> io::Result<()> {
    let mut first = [0; GREETING];
    stream.read_within(&mut first, FIRST_WORDS)?;
    let port = read_greeting(&first).ok_or(io::ErrorKind::InvalidData)?;
    let inner = inner.upgrade().ok_or(io::ErrorKind::NotConnected)?;
    let take = inner.lock().services.get(&port).cloned();
    drop(inner);
    let answer = [u8::from(take.is_some())];
    io::Write::write_all(&mut &stream, &answer)?;
    let Some(take) = take else {
        return stream.arrived();
    };
    let (near, far) = splice::pair()?;
    splice::join(stream, far, place)?;
    take(near, from);
    Ok(())
}

#[cfg(test)]
mod tests;
