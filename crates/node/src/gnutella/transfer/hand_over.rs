//! What comes in on a node's port and is no connection of the overlay: who asks for files is served,
//! who cannot reach us is connected to.

use std::net::{IpAddr, SocketAddr};

use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::message::push::Push;

use super::server::FileServer;
use crate::gnutella::{Incoming, tls::Stream};

/// Serves files on a node's port.
#[derive(Debug)]
pub struct HandOver {
    server: FileServer,
    local: bool,
}

impl HandOver {
    /// Connections go to `server`. `listen`: where the node listens; pushes to this machine are for
    /// nodes that only this machine reaches.
    pub fn new(server: FileServer, listen: IpAddr) -> Self {
        let local = listen.is_loopback();
        Self { server, local }
    }
}

impl Incoming for HandOver {
    fn incoming(&mut self, stream: Stream, peer: SocketAddr, first: Vec<u8>) {
        if Opening::read(&first) != Err(()) {
            tracing::debug!(%peer, "a sharer connects, and nothing is being fetched");
            return;
        }
        self.server.serve(stream, peer, first);
    }

    fn give(&mut self, push: Push) {
        if push.addr.ip().is_loopback() && !self.local {
            tracing::debug!(to = %push.addr, "a push to this machine is passed over");
            return;
        }
        let opening = Opening::Giv {
            index: push.index,
            guid: push.servent,
            name: String::new(),
        };
        self.server.give(push.addr.into(), opening);
    }
}
