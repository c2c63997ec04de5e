//! A supernode's boxes of letters on sockets: two threads for each link, one office behind a lock, which
//! no message holds for longer than a few microseconds.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_call::mailbox::office::{LinkId, Office, OfficeConfig, OfficeStats, Out};
use shoal_call::mailbox::wire::{Found, MAGIC, Say, Told, Unkept};
use shoal_dht::Answer;
use shoal_supernode::Address;
use shoal_supernode::token::Key;

use super::box_ring::BoxRing;
use super::frames::{Frames, say};
use crate::dht::{DhtNode, Ticket};

/// Messages that may wait for a link: a whole box, and some; who takes them slower is cut off.
const QUEUE: usize = 2500;
/// How long sending may stand still.
const STALL: Duration = Duration::from_secs(10);
/// Links of one host at most.
const LINKS_OF_HOST: usize = 32;
const STACK: usize = 256 << 10;

/// Whether a connection that begins so is for the boxes.
pub(super) fn is_ours(first: &[u8]) -> bool {
    first == MAGIC
}

struct Wire {
    out: Sender<Told>,
    host: u128,
}

struct State {
    office: Office,
    wires: BTreeMap<LinkId, Wire>,
    ring: Option<BoxRing>,
}

struct Shared {
    state: Mutex<State>,
    start: Instant,
    links: AtomicU64,
    unlimited: Vec<u128>,
}

/// The boxes of one supernode.
#[derive(Clone)]
pub struct BoxServer(Arc<Shared>);

impl std::fmt::Debug for BoxServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoxServer({:?})", self.stats())
    }
}

impl BoxServer {
    /// Boxes without letters; `key` is the supernode's, and for hosts of `unlimited` no limit by host holds.
    pub fn new(config: &OfficeConfig, key: SigningKey, seed: u64, unlimited: Vec<u128>) -> Self {
        let config = OfficeConfig {
            epoch: super::unix(),
            ..config.clone()
        };
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                office: Office::new(config, key, Rng::from_seed(seed)),
                wires: BTreeMap::new(),
                ring: None,
            }),
            start: Instant::now(),
            links: AtomicU64::new(0),
            unlimited,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        let elapsed = self.0.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// What they hold and did; what has ended is thrown away.
    pub fn stats(&self) -> OfficeStats {
        let now = self.now();
        let mut state = self.lock();
        let mut out = Vec::new();
        state.office.tick(now, &mut out);
        state.act(now, out);
        state.office.stats()
    }

    /// From now on the ring of names of those who trust `server` is asked by this node, for who has no UDP;
    /// what it answers is to be told by [`BoxServer::ring_answered`].
    pub fn ask_ring_by(&self, node: Weak<DhtNode>, server: Key) {
        self.lock().ring = Some(BoxRing::new(node, server));
    }

    /// The ring is asked no more.
    pub fn leave_ring(&self) {
        self.lock().ring = None;
    }

    /// The ring of names answered.
    pub fn ring_answered(&self, ticket: Ticket, answer: Answer) {
        let now = self.now();
        let mut state = self.lock();
        let told = state.ring.as_mut().and_then(|r| r.answered(ticket, answer));
        // The link may be gone by now, which costs nothing.
        let out = told.map(|(link, told)| Out::Send(link, told));
        state.act(now, out.into_iter().collect());
    }

    /// Takes a connection whose first bytes were read.
    pub(super) fn take(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = self.open(stream, peer) {
            tracing::debug!(%error, %peer, "a link to the boxes");
        }
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let link = self.0.links.fetch_add(1, Ordering::Relaxed);
        let host = peer.host();
        let (out, waiting) = bounded::<Told>(QUEUE);
        let mut writing = stream.try_clone()?;
        let mut frames = Frames::new(stream);
        let now = self.now();
        {
            let mut state = self.lock();
            let of_host = state.wires.values().filter(|w| w.host == host).count();
            if of_host >= LINKS_OF_HOST && !self.0.unlimited.contains(&host) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.wires.insert(link, Wire { out, host });
            let mut todo = Vec::new();
            state.office.connected(now, link, &mut todo);
            state.act(now, todo);
        }
        let at = self.clone();
        thread::Builder::new()
            .name("boxes-out".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(told) = waiting.recv() {
                    if say(&mut writing, &told).is_err() {
                        break;
                    }
                }
                let _ = writing.shutdown(std::net::Shutdown::Both);
            })
            .inspect_err(|_| at.gone(link))?;
        let at = self.clone();
        thread::Builder::new()
            .name("boxes-in".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(Some(said)) = frames.next::<Say>() {
                    let now = at.now();
                    let mut state = at.lock();
                    let mut out = Vec::new();
                    state.office.said(now, link, said, &mut out);
                    state.act(now, out);
                }
                at.gone(link);
            })
            .map(drop)
            .inspect_err(|_| self.gone(link))
    }

    fn gone(&self, link: LinkId) {
        let now = self.now();
        let mut state = self.lock();
        state.wires.remove(&link);
        state.office.closed(now, link);
    }
}

impl State {
    fn act(&mut self, now: Time, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Send(link, told) => self.send(now, link, told),
                Out::Publish(link, name, record) => {
                    let told = match &mut self.ring {
                        Some(ring) => ring.publish(link, &name, &record),
                        None => Some(Told::Published(Err(Unkept::NoAnswer))),
                    };
                    told.into_iter().for_each(|t| self.send(now, link, t));
                }
                Out::Look(link, name) => {
                    let told = match &mut self.ring {
                        Some(ring) => ring.look(link, name),
                        None => Some(Told::Looked(name, Found::NoAnswer)),
                    };
                    told.into_iter().for_each(|t| self.send(now, link, t));
                }
                // The writer sends what waits, then ends the connection.
                Out::Close(link) => drop(self.wires.remove(&link)),
            }
        }
    }

    fn send(&mut self, now: Time, link: LinkId, told: Told) {
        let full = |w: &Wire| w.out.try_send(told).is_err();
        if self.wires.get(&link).is_some_and(full) {
            self.wires.remove(&link);
            self.office.closed(now, link);
        }
    }
}
