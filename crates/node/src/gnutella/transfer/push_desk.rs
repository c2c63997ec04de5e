//! Sharers behind firewalls, who are asked through others to connect to us, and where they do.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::PushLocation;
use shoal_gnutella::http::queue::Opening;

use super::listen::{Incoming, Listener};
use super::push_proxy::push_by_proxy;
use crate::gnutella::tls::Stream;

/// How long a sharer may take to come: its proxy has to be asked first, and to pass it on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hears of sharers that are just being asked by their proxies, and where they are to connect to: whoever knows a
/// further way to ask them may take that.
pub(crate) type Due = Box<dyn Fn(Guid, SocketAddr) + Send + Sync>;

/// A port of ours, and the sharers that are waited for there.
pub(crate) struct PushDesk {
    listener: Listener,
    due: Due,
    awaited: Mutex<BTreeMap<Guid, Sender<Stream>>>,
}

impl std::fmt::Debug for PushDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushDesk")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl PushDesk {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn open(listen: SocketAddr, due: Due) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::open(listen, None)?,
            due,
            awaited: Mutex::default(),
        })
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<Guid, Sender<Stream>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the sharer's proxies, and waits for its connection.
    pub(super) fn call(&self, sharer: &PushLocation) -> io::Result<Stream> {
        let (tell, comes) = bounded(1);
        self.awaited().insert(sharer.guid, tell);
        push(sharer, self.listener.addr());
        (self.due)(sharer.guid, self.listener.addr());
        let come = self.wait(sharer.guid, &comes);
        self.awaited().remove(&sharer.guid);
        come
    }

    /// Takes whoever connects, for whom it was, until ours does.
    fn wait(&self, guid: Guid, comes: &Receiver<Stream>) -> io::Result<Stream> {
        let late = after(PATIENCE);
        loop {
            select! {
                recv(comes) -> stream => return stream.map_err(io::Error::other),
                recv(self.listener.incoming) -> incoming => {
                    match incoming.map_err(io::Error::other)? {
                        Incoming { opening: Opening::Giv { guid: who, .. }, stream, .. } => {
                            if who == guid {
                                return Ok(stream);
                            }
                            if let Some(other) = self.awaited().get(&who) {
                                // Called twice, it came twice.
                                let _ = other.try_send(stream);
                            }
                        }
                        other => tracing::debug!(peer = %other.peer, "calls for a place, which nobody has here"),
                    }
                },
                recv(late) -> _ => return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the sharer behind a firewall did not connect",
                )),
            }
        }
    }
}

/// Asks all who may pass it on to have a sharer connect to us at `back`.
pub(super) fn push(sharer: &PushLocation, back: SocketAddr) {
    for proxy in &sharer.proxies {
        if let (SocketAddr::V4(proxy), SocketAddr::V4(back)) = (proxy, back) {
            push_by_proxy(*proxy, sharer.guid, back);
        }
    }
}
