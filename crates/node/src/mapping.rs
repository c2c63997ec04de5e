//! Has the router of this network let ports through to us, by PCP, NAT-PMP or UPnP, as long as it runs: the driver
//! of `shoal_reach::mapping`.
//!
//! A thread asks the router by PCP and NAT-PMP. When it has not answered within a second, or refuses, another thread
//! asks it by UPnP, in which each question may take seconds.

mod gateway;
mod upnp;

pub use gateway::{Gateway, NoGateway};
pub use shoal_reach::mapping::{Mapping, Port, Protocol, Transport, is_public};

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use shoal_base::{Rng, Time};
use shoal_reach::mapping::client::{Client, Output};
use shoal_reach::mapping::packet::MAX_PACKET;

const WAKE: Token = Token(0);
const SOCKET: Token = Token(1);
/// How long it is waited for the router's last answers, before its thread is left to itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a router lets through, as it comes and goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This, from now on or still.
    Mapped(Mapping),
    /// Nothing to this port any more.
    Lost(Port),
}

/// How things stand with the router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it lets through.
    pub mappings: Vec<Mapping>,
    /// Why it does not, as far as that is known.
    pub why_not: Option<String>,
    /// Whether all ways to ask it were tried.
    pub tried: bool,
}

#[derive(Debug, Default)]
struct State {
    mappings: BTreeMap<Port, Mapping>,
    /// Why not, by PCP or NAT-PMP, and by UPnP.
    refused: [Option<String>; 2],
}

/// It; dropping it gives the ports back.
pub struct PortMapper {
    state: Arc<Mutex<State>>,
    stop: Option<Sender<()>>,
    waker: Arc<Waker>,
    done: Receiver<()>,
    /// News, for who waits.
    news: Receiver<()>,
}

impl std::fmt::Debug for PortMapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PortMapper({:?})", self.standing())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortMapper {
    /// Asks the router of this machine's network for these ports, of a socket at `listen`; changes go to `tell`,
    /// from a thread of its own. Where nothing is to be asked, nothing is.
    ///
    /// # Errors
    /// Why nothing is asked.
    pub fn start(
        listen: SocketAddr,
        ports: Vec<Port>,
        tell: impl Fn(Change) + Send + Sync + 'static,
    ) -> Result<Self, NoGateway> {
        let gateway = Gateway::find()?;
        match listen {
            SocketAddr::V4(at) if at.ip().is_unspecified() || *at.ip() == gateway.own => {}
            SocketAddr::V6(at) if at.ip().is_unspecified() => {}
            // Another network's address, or this machine's alone.
            _ => return Err(NoGateway::OtherNetwork(listen.ip())),
        }
        Ok(Self::ask(gateway, ports, tell)?)
    }

    /// Asks this router.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub fn ask(
        gateway: Gateway,
        ports: Vec<Port>,
        tell: impl Fn(Change) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut socket = UdpSocket::bind(SocketAddrV4::new(gateway.own, 0).into())?;
        // What another host sends does not come in.
        socket.connect(gateway.router.into())?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        poll.registry()
            .register(&mut socket, SOCKET, Interest::READABLE)?;
        let state = Arc::<Mutex<State>>::default();
        let (stop, stopped) = bounded(0);
        let (done, ended) = bounded(0);
        let (told, news) = bounded(1);
        let start = Instant::now();
        let mut seed = [0; 8];
        crate::reach::random(&mut seed);
        let rng = Rng::from_seed(u64::from_le_bytes(seed));
        let asking = Asking {
            client: Client::new(Time::ZERO, gateway.own, &ports, rng),
            gateway,
            ports,
            socket,
            poll,
            start,
            shared: Shared {
                state: Arc::clone(&state),
                tell: Arc::new(tell),
                told,
            },
            upnp: None,
        };
        thread::Builder::new()
            .name("port-mapping".into())
            .spawn(move || {
                asking.run(&stopped);
                drop(done);
            })?;
        Ok(Self {
            state,
            stop: Some(stop),
            waker,
            done: ended,
            news,
        })
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let state = lock(&self.state);
        let tried = state.refused.iter().all(Option::is_some);
        let refused = state.refused.iter().flatten().cloned();
        Standing {
            mappings: state.mappings.values().copied().collect(),
            why_not: refused.reduce(|a, b| format!("{a}; {b}")),
            tried,
        }
    }

    /// Waits until all of `count` ports are let through, or the router was asked in vain, but no longer than this.
    pub fn settled(&self, count: usize, within: Duration) -> Standing {
        let until = Instant::now() + within;
        loop {
            let standing = self.standing();
            if standing.mappings.len() >= count || standing.tried {
                return standing;
            }
            if self.news.recv_deadline(until).is_err() {
                return self.standing();
            }
        }
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It may have ended.
        let _ = self.waker.wake();
        // Where there is nothing to give back, a search for a router may go on by itself.
        if !lock(&self.state).mappings.is_empty() {
            let _ = self.done.recv_timeout(LAST_WORDS);
        }
    }
}

/// What both threads tell.
#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    tell: Arc<dyn Fn(Change) + Send + Sync>,
    told: Sender<()>,
}

impl Shared {
    fn change(&self, change: Change) {
        match &change {
            Change::Mapped(mapping) => {
                tracing::debug!(?mapping, "a port is let through");
                lock(&self.state).mappings.insert(mapping.port, *mapping);
            }
            Change::Lost(port) => {
                lock(&self.state).mappings.remove(port);
            }
        }
        (self.tell)(change);
        // One piece of news is as good as two.
        let _ = self.told.try_send(());
    }

    /// By PCP and NAT-PMP (0) or UPnP (1).
    fn refused(&self, way: usize, why: String) {
        tracing::debug!(why, "the router lets no port through");
        if let Some(place) = lock(&self.state).refused.get_mut(way) {
            *place = Some(why);
        }
        let _ = self.told.try_send(());
    }
}

struct Asking {
    client: Client,
    gateway: Gateway,
    ports: Vec<Port>,
    socket: UdpSocket,
    poll: Poll,
    start: Instant,
    shared: Shared,
    /// The other thread, and by what it is ended.
    upnp: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Asking {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut events = Events::with_capacity(4);
        let mut buf = [0; MAX_PACKET + 1];
        let mut out = Vec::new();
        loop {
            let now = Time::ZERO + self.start.elapsed();
            if self.client.deadline() <= now {
                self.client.tick(now, &mut out);
            }
            self.act(&mut out);
            let wait = self.client.deadline().since(now);
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::warn!(%error, "cannot wait for the router");
                return;
            }
            if stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
                break;
            }
            let now = Time::ZERO + self.start.elapsed();
            loop {
                match self.socket.recv(&mut buf) {
                    Ok(len) => {
                        let bytes = buf.get(..len).unwrap_or_default();
                        self.client.handle(now, bytes, &mut out);
                    }
                    // That nobody listens there is as good as no answer.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
        self.client.stop(&mut out);
        self.act(&mut out);
        if let Some((stop, thread)) = self.upnp.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("the thread for UPnP panicked");
            }
        }
    }

    fn act(&mut self, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                // It is sent again.
                Output::Send(bytes) => drop(self.socket.send(&bytes)),
                Output::Mapped(mapping) => self.shared.change(Change::Mapped(mapping)),
                Output::Lost(port) => self.shared.change(Change::Lost(port)),
                Output::Refused(why) => {
                    self.shared.refused(0, why.to_string());
                    self.start_upnp();
                }
                Output::Silent => {
                    let silent = "no answer by PCP and NAT-PMP";
                    self.shared.refused(0, silent.into());
                    self.start_upnp();
                }
            }
        }
    }

    fn start_upnp(&mut self) {
        if self.upnp.is_some() {
            return;
        }
        let (stop, stopped) = unbounded();
        let (gateway, ports) = (self.gateway, self.ports.clone());
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name("upnp".into())
            .spawn(move || upnp::run(gateway, &ports, &shared, &stopped));
        match thread {
            Ok(thread) => self.upnp = Some((stop, thread)),
            Err(error) => tracing::warn!(%error, "no thread for UPnP"),
        }
    }
}
