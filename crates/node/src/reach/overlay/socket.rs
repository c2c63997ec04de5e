//! Datagrams between ports of overlay addresses.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use bytes::Bytes;
use shoal_reach::overlay::{Datagram, datagram};

use super::links::Link;
use super::{Inner, Overlay, STACK, taken};

/// Nodes that are being reached for a datagram, and datagrams that wait for each.
const MAX_NODES: usize = 64;
const MAX_WAITING: usize = 16;

/// Datagrams that wait until their node is reached.
pub(super) type Unsent = BTreeMap<Ipv6Addr, Vec<Vec<u8>>>;

/// A port of our overlay address for datagrams; dropping it frees the port.
#[derive(Debug)]
pub struct OverlaySocket {
    overlay: Weak<Inner>,
    port: u16,
    number: AtomicU8,
}

impl Drop for OverlaySocket {
    fn drop(&mut self) {
        if let Some(inner) = self.overlay.upgrade() {
            inner.lock().sockets.remove(&self.port);
        }
    }
}

impl Overlay {
    /// Takes datagrams that come to a port. `hear` is called from a thread that takes all that comes
    /// from the node, and is not to block.
    ///
    /// # Errors
    /// Somebody else has the port.
    pub fn socket(
        &self,
        port: u16,
        hear: impl Fn(SocketAddr, &[u8]) + Send + Sync + 'static,
    ) -> io::Result<OverlaySocket> {
        let mut state = self.0.lock();
        if port == 0 || state.sockets.contains_key(&port) {
            return Err(taken(port));
        }
        state.sockets.insert(port, Arc::new(hear));
        Ok(OverlaySocket {
            overlay: Arc::downgrade(&self.0),
            port,
            number: AtomicU8::new(0),
        })
    }
}

impl OverlaySocket {
    /// Sends a datagram, which may be lost; a node that there is no connection to is reached first.
    pub fn send(&self, to: SocketAddrV6, data: &[u8]) {
        let Some(inner) = self.overlay.upgrade() else {
            return;
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let Some((first, second)) = datagram(self.port, to.port(), number, data) else {
            return;
        };
        for part in std::iter::once(first).chain(second) {
            inner.send(*to.ip(), part);
        }
    }
}

fn pass(link: &Link, data: Vec<u8>) {
    link.touch();
    link.connection.send(Bytes::from(data));
}

impl Inner {
    fn send(self: &Arc<Self>, to: Ipv6Addr, data: Vec<u8>) {
        let mut state = self.lock();
        let node = state.names.known(to);
        if let Some(link) = node.and_then(|node| state.links.get(&node)) {
            return pass(link, data);
        }
        if let Some(waiting) = state.unsent.get_mut(&to) {
            if waiting.len() < MAX_WAITING {
                waiting.push(data);
            }
            return;
        }
        if state.unsent.len() >= MAX_NODES {
            return;
        }
        state.unsent.insert(to, vec![data]);
        drop(state);
        let inner = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("overlay-reach".into())
            .stack_size(STACK)
            .spawn(move || {
                let link = inner.who(to).and_then(|node| inner.link(node));
                let waiting = inner.lock().unsent.remove(&to).unwrap_or_default();
                match link {
                    Ok((link, _)) => waiting.into_iter().for_each(|data| pass(&link, data)),
                    Err(error) => tracing::debug!(%to, %error, "datagrams were lost"),
                }
            });
        if spawned.is_err() {
            self.lock().unsent.remove(&to);
        }
    }

    /// A datagram came.
    pub(super) fn heard(&self, from: Ipv6Addr, datagram: &Datagram) {
        let hear = self.lock().sockets.get(&datagram.to).cloned();
        if let Some(hear) = hear {
            hear((from, datagram.from).into(), &datagram.data);
        }
    }
}
