//! Connections: taken, dialled, read, written, lost.

use super::{Worker, seen_at};
use crate::accept;
use crate::gnutella::connection::{Connection, Phase};
use mio::net::TcpStream;
use mio::{Interest, Token};
use shoal_gnutella::handshake::{Handshake, Version};
use shoal_gnutella::node::{ConnId, Mode};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes read after which what they led to is sent, lest queues fill that could be emptied.
const TOGETHER: usize = 128 << 10;
/// How long a call and a handshake may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much longer it may take until a node is found by its overlay address.
const BY_OVERLAY: Duration = Duration::from_secs(30);
/// How long the last bytes may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// Connections that are not yet, or no more, of the overlay.
const MAX_STRANGERS: usize = 256;
/// Hosts without TLS that are remembered.
const MAX_CLEAR: usize = 256;
/// Failed calls that are told.
const FAILURES: usize = 8;

impl Worker {
    pub(super) fn place(&self, id: ConnId) -> Option<usize> {
        let key = (*self.places.get(id.slot())?)?;
        (self.conns.get(key)?.id()? == id).then_some(key)
    }

    pub(super) fn accept(&mut self) {
        loop {
            let (tcp, peer) = match accept::next(&self.parts.listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    // Those who wait are taken at the next look.
                    return tracing::warn!(%error, "accepting a connection to the node");
                }
            };
            if peer.is_ipv4() {
                self.node.reached();
                self.take(tcp, peer);
            }
        }
    }

    /// Takes those who come by the overlay.
    pub(super) fn take_arrived(&mut self) {
        while let Ok((tcp, peer)) = self.parts.arrived.try_recv() {
            if tcp.set_nonblocking(true).is_ok() {
                self.take(TcpStream::from_std(tcp), peer);
            }
        }
    }

    pub(super) fn take(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let neighbours = self.node.connections().count();
        let strangers = self.conns.len().saturating_sub(neighbours);
        if strangers < MAX_STRANGERS {
            self.add(tcp, peer, Phase::Sniff(Vec::new()));
        }
    }

    pub(super) fn add(&mut self, mut tcp: TcpStream, peer: SocketAddr, phase: Phase) {
        let _ = tcp.set_nodelay(true);
        let patience = match peer {
            SocketAddr::V4(_) => PATIENCE,
            SocketAddr::V6(_) => PATIENCE + BY_OVERLAY,
        };
        let until = self.now() + patience;
        let entry = self.conns.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.parts.poll.registry();
        match registry.register(&mut tcp, Token(entry.key()), interest) {
            Ok(()) => {
                entry.insert(Connection::new(tcp, peer, phase, until));
            }
            Err(error) => tracing::warn!(%error, "polling a connection of the node"),
        }
    }

    pub(super) fn dial(&mut self, addr: SocketAddr) {
        let known = self.conns.iter().any(|(_, c)| c.peer == addr);
        if known || addr == self.parts.listen.into() {
            return;
        }
        match self.parts.outbound.dial(addr) {
            Ok(tcp) => self.add(tcp, addr, Phase::Dialling),
            Err(error) => self.failed(addr, &error.to_string(), &[]),
        }
    }

    /// Connects and closes: the other sees that it can be reached.
    pub(super) fn connect_back(&mut self, addr: SocketAddr) {
        if let Ok(tcp) = TcpStream::connect(addr) {
            self.add(tcp, addr, Phase::Draining);
        }
    }

    pub(super) fn failed(&mut self, addr: SocketAddr, why: &str, hosts: &[SocketAddr]) {
        tracing::debug!(%addr, why, "a call failed");
        if self.failures.len() >= FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back((addr, why.to_owned()));
        let now = self.now();
        self.node.on_failed(now, addr, hosts);
    }

    pub(super) fn writable(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if matches!(conn.phase, Phase::Dialling) {
            if let Ok(Some(error)) | Err(error) = conn.tcp.take_error() {
                return self.lost(key, &error.to_string());
            }
            if conn.tcp.peer_addr().is_err() {
                return;
            }
            let mut greeting = self.node.greeting(seen_at(conn.peer));
            // What goes by the overlay is sealed already.
            greeting.upgrade &= conn.peer.is_ipv4() && !self.clear.contains(&conn.peer);
            let version = match self.node.config().mode {
                Mode::Flood => Version::V04,
                _ => Version::V06,
            };
            let mut bytes = Vec::new();
            let shaking = Handshake::call(version, greeting, &mut bytes);
            conn.say(&bytes);
            conn.phase = Phase::Shaking(Box::new(shaking));
        }
        self.flush(key);
    }

    /// Sends what waits. A message to many neighbours costs each a call of the system, unless others went
    /// to them in the same turn.
    pub(super) fn send_ready(&mut self) {
        self.came = 0;
        for key in std::mem::take(&mut self.ready) {
            self.flush(key);
        }
    }

    pub(super) fn flush(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let id = conn.id();
        let node = &mut self.node;
        let done = conn.flush(|| id.and_then(|id| node.pop(id)));
        match done {
            Ok(true) if matches!(conn.phase, Phase::Draining) => self.remove(key),
            Ok(true) if matches!(conn.phase, Phase::Leaving) => conn.end(),
            Ok(_) => {}
            Err(error) => self.lost(key, &error.to_string()),
        }
    }

    /// Sends what waits, then closes: not before the other has, or the time for it is over. What it still sends
    /// would make the system break the connection off, and what waits there, a Bye most likely, be lost.
    pub(super) fn drain(&mut self, key: usize, id: ConnId) {
        let now = self.now();
        if let Some(conn) = self.conns.get_mut(key) {
            let node = &mut self.node;
            let done = conn.flush(|| node.pop(id));
            conn.phase = Phase::Leaving;
            conn.until = now + FAREWELL;
            match done {
                Ok(true) => conn.end(),
                Ok(false) => {}
                Err(_) => self.remove(key),
            }
        }
        if let Some(place) = self.places.get_mut(id.slot()) {
            *place = None;
        }
        self.node.on_closed(now, id);
    }

    /// A connection is at its end.
    pub(super) fn lost(&mut self, key: usize, why: &str) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        let (peer, id) = (conn.peer, conn.id());
        let no_tls = conn.is_shaking_tls();
        let called = match &conn.phase {
            Phase::Dialling => true,
            Phase::Shaking(_) => self.keep.iter().any(|k| k.addr == peer),
            _ => false,
        };
        tracing::debug!(%peer, why, no_tls, "a connection is lost");
        if no_tls {
            if self.clear.len() >= MAX_CLEAR {
                self.clear.pop_front();
            }
            self.clear.push_back(peer);
        }
        if called {
            self.failed(peer, why, &[]);
        }
        self.remove(key);
        if let Some(id) = id {
            if let Some(place) = self.places.get_mut(id.slot()) {
                *place = None;
            }
            let now = self.now();
            self.node.on_closed(now, id);
        }
    }

    pub(super) fn remove(&mut self, key: usize) {
        if let Some(mut conn) = self.conns.try_remove(key) {
            let _ = self.parts.poll.registry().deregister(&mut conn.tcp);
        }
    }

    /// Reads one turn's worth.
    pub(super) fn read(&mut self, key: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let read = match self.conns.get_mut(key) {
            Some(conn) if conn.readable && !matches!(conn.phase, Phase::Dialling) => {
                conn.read(&mut buf)
            }
            _ => Ok(Some(0)),
        };
        match read {
            Ok(Some(0)) => {}
            Ok(Some(n)) => {
                self.came += n;
                self.on_bytes(key, buf.get(..n).unwrap_or_default());
            }
            Ok(None) => self.lost(key, "closed by the other"),
            Err(error) => self.lost(key, &error.to_string()),
        }
        self.buf = buf;
        if self.conns.get(key).is_some_and(Connection::is_secure) {
            // A handshake of TLS may have more to say.
            self.flush(key);
        }
        if self.came >= TOGETHER {
            self.send_ready();
        }
        let more = self.conns.get(key);
        if more.is_some_and(|c| c.readable && !matches!(c.phase, Phase::Dialling)) {
            self.busy.push(key);
        }
    }

    pub(super) fn on_bytes(&mut self, key: usize, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match &mut conn.phase {
            Phase::Sniff(first) => {
                first.extend_from_slice(bytes);
                let first = std::mem::take(first);
                self.sniff(key, first);
            }
            Phase::Shaking(shaking) => {
                let step = shaking.on_bytes(bytes);
                self.shake(key, step);
            }
            Phase::Open(open) => {
                let id = open.id;
                self.messages(key, id, bytes);
            }
            Phase::Dialling | Phase::Draining | Phase::Leaving => {}
        }
    }
}
