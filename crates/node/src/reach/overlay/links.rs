//! One connection for each node, whoever began it: made when something is to go to the node, ended when
//! nothing has for a while.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_reach::overlay::{Halves, address};

use super::{Inner, STACK, State};
use crate::reach::{Connection, NodeId};

/// Connections at once.
const MAX_LINKS: usize = 512;
/// How long one is kept that nothing goes by, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(20);
/// How soon a node that was not reached is tried again.
const AGAIN: Duration = Duration::from_secs(3);

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) streams: AtomicUsize,
    used: Mutex<Instant>,
}

impl Link {
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle(&self) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams.load(Ordering::Acquire) == 0 && used.elapsed() >= IDLE
    }
}

/// How reaching a node goes.
pub(super) enum Reaching {
    /// Somebody tries.
    Now,
    /// It failed then, for this reason.
    Failed(Instant, String),
}

fn unreached(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::HostUnreachable, why)
}

impl Inner {
    /// The connection to a node, and whether it was made just now.
    pub(super) fn link(self: &Arc<Self>, node: NodeId) -> io::Result<(Arc<Link>, bool)> {
        let mut state = self.lock();
        loop {
            if let Some(link) = state.links.get(&node) {
                return Ok((Arc::clone(link), false));
            }
            match state.reaching.get(&node) {
                Some(Reaching::Now) => {
                    let waited = self.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Some(Reaching::Failed(at, why)) if at.elapsed() < AGAIN => {
                    return Err(unreached(why.clone()));
                }
                _ => break,
            }
        }
        state
            .reaching
            .retain(|_, r| !matches!(r, Reaching::Failed(at, _) if at.elapsed() >= AGAIN));
        state.reaching.insert(node, Reaching::Now);
        drop(state);
        let connected = self.reach.connect(node);
        let mut state = self.lock();
        state.reaching.remove(&node);
        let linked = match connected {
            Ok(connection) => self.enter(&mut state, connection),
            Err(why) => {
                let why = why.to_string();
                let failed = Reaching::Failed(Instant::now(), why.clone());
                state.reaching.insert(node, failed);
                Err(unreached(why))
            }
        };
        drop(state);
        self.changed.notify_all();
        Ok((linked?, true))
    }

    /// A node connected to us.
    pub(super) fn arrived(self: &Arc<Self>, connection: Connection) {
        let mut state = self.lock();
        if let Err(error) = self.enter(&mut state, connection) {
            tracing::debug!(%error, "a connection was not taken");
        }
        drop(state);
        self.changed.notify_all();
    }

    fn enter(self: &Arc<Self>, state: &mut State, connection: Connection) -> io::Result<Arc<Link>> {
        let peer = connection.peer();
        if state.links.len() >= MAX_LINKS && !state.links.contains_key(&peer) {
            return Err(io::Error::other("too many connections to other nodes"));
        }
        state.names.learn(peer);
        let link = Arc::new(Link {
            connection,
            streams: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
        });
        let (inner, of) = (Arc::downgrade(self), Arc::clone(&link));
        thread::Builder::new()
            .name("overlay-link".into())
            .stack_size(STACK)
            .spawn(move || watch(&inner, &of))?;
        // Streams of one that was there before go on; new ones take this.
        state.links.insert(peer, Arc::clone(&link));
        Ok(link)
    }

    /// This connection is of no use any more.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let mut state = self.lock();
        let peer = link.connection.peer();
        if state.links.get(&peer).is_some_and(|l| Arc::ptr_eq(l, link)) {
            state.links.remove(&peer);
        }
    }
}

/// Takes what comes by a connection, until it ends or nothing comes any more.
fn watch(inner: &Weak<Inner>, link: &Arc<Link>) {
    let (streams, datagrams) = (&link.connection.streams, &link.connection.datagrams);
    let peer = address(&link.connection.peer());
    let mut halves = Halves::default();
    let mut number = 0_u16;
    loop {
        select! {
            recv(streams) -> stream => {
                let (Ok(stream), Some(inner)) = (stream, inner.upgrade()) else {
                    break;
                };
                number = number.wrapping_add(1);
                inner.stream(link, stream, number);
            }
            recv(datagrams) -> data => {
                let (Ok(data), Some(inner)) = (data, inner.upgrade()) else {
                    break;
                };
                if let Some(datagram) = halves.take(&data) {
                    link.touch();
                    inner.heard(peer, &datagram);
                }
            }
            default(LOOK) => if link.is_idle() {
                break;
            }
        }
    }
    if let Some(inner) = inner.upgrade() {
        inner.forget(link);
    }
}
