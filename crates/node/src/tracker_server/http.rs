//! HTTP workers: each polls a listener and its connections.

use super::http_connection::{Connection, Fate};
use super::service::{Desk, Service};
use super::stats::count;
use crate::accept;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use shoal_base::Time;
use slab::Slab;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// How often connections are looked over for those that ran out of time.
const LOOK_OVER: Duration = Duration::from_secs(1);

/// One listener's thread.
pub(super) struct Worker {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection<TcpStream>>,
    /// Those whose turn ended before they were done.
    busy: Vec<usize>,
    max_connections: usize,
    service: Arc<Service>,
    buf: Box<[u8]>,
}

impl Worker {
    /// A worker and what wakes it up.
    pub(super) fn new(
        service: Arc<Service>,
        mut listener: TcpListener,
        max_connections: usize,
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let worker = Self {
            poll,
            listener,
            connections: Slab::new(),
            busy: Vec::new(),
            max_connections,
            service,
            buf: vec![0; 16 * 1024].into_boxed_slice(),
        };
        Ok((worker, waker))
    }

    /// Serves until `stop` is set and the waker wakes.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut desk = self.service.desk();
        let mut events = Events::with_capacity(1024);
        let mut look_over = self.service.now() + LOOK_OVER;
        while !stop.load(Ordering::Acquire) {
            let wait = if self.busy.is_empty() {
                look_over.since(self.service.now())
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return tracing::error!(%error, "a tracker worker cannot wait for events");
            }
            let now = self.service.now();
            for key in std::mem::take(&mut self.busy) {
                self.advance(key, now, &mut desk);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now, &mut desk),
                    WAKER => {}
                    Token(key) => self.advance(key, now, &mut desk),
                }
            }
            if now >= look_over {
                look_over = now + LOOK_OVER;
                self.connections.retain(|_, c| c.deadline() > now);
                // Those left waiting when descriptors ran out.
                self.accept(now, &mut desk);
            }
        }
    }

    fn accept(&mut self, now: Time, desk: &mut Desk) {
        loop {
            let (stream, peer) = match accept::next(&self.listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    // Make room, and take the next in a while.
                    tracing::warn!(%error, "accepting a tracker connection");
                    self.evict();
                    return;
                }
            };
            count(&desk.counters.http_connections);
            // The request is often here already, and after the reply most connections are over.
            let mut connection = Connection::new(stream, peer.ip(), now);
            let fate = connection.advance(now, desk, &mut self.buf);
            if fate == Fate::Closed {
                continue;
            }
            if self.connections.len() >= self.max_connections {
                self.evict();
            }
            let _ = connection.stream.set_nodelay(true);
            let key = self.connections.vacant_key();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if let Err(error) = registry.register(&mut connection.stream, Token(key), interest) {
                tracing::warn!(%error, "polling a tracker connection");
                continue;
            }
            self.connections.insert(connection);
            if fate == Fate::Busy {
                self.busy.push(key);
            }
        }
    }

    /// Closes the connection that is nearest to its time-out.
    fn evict(&mut self) {
        let oldest = self.connections.iter().min_by_key(|(_, c)| c.deadline());
        if let Some(key) = oldest.map(|(key, _)| key) {
            self.connections.remove(key);
        }
    }

    fn advance(&mut self, key: usize, now: Time, desk: &mut Desk) {
        // Registered for both directions, edge-triggered: whatever it waits for will be told.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match connection.advance(now, desk, &mut self.buf) {
            Fate::Reading | Fate::Writing => {}
            Fate::Busy => self.busy.push(key),
            Fate::Closed => {
                self.connections.remove(key);
            }
        }
    }
}
