//! Connections of a hub: taken, read, written, closed.

use super::{Stream, Worker};
use crate::accept;
use mio::net::TcpStream;
use mio::{Interest, Token};
use shoal_napster::hub::ConnId;
use shoal_napster::{frame, kind};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::time::Duration;

/// The longest wait before a linked hub is dialled again.
const MAX_REDIAL: Duration = Duration::from_secs(60);

impl Worker {
    pub(super) fn accept(&mut self) {
        loop {
            let (tcp, peer) = match accept::next(&self.listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    // The next are taken in a second.
                    return tracing::warn!(%error, "accepting a connection to the hub");
                }
            };
            let now = self.now();
            match self.hub.connect(now, peer) {
                Ok(id) => self.open(id, tcp),
                Err(refusal) => {
                    tracing::debug!(%peer, %refusal, "a connection is refused");
                    let mut bytes = Vec::new();
                    frame::encode(
                        kind::LOGIN_ERROR,
                        refusal.to_string().as_bytes(),
                        &mut bytes,
                    );
                    let mut tcp = tcp;
                    let _ = tcp.write(&bytes);
                }
            }
        }
    }

    pub(super) fn open(&mut self, id: ConnId, mut tcp: TcpStream) {
        let _ = tcp.set_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(300))
            .with_interval(Duration::from_secs(60));
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&keepalive);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut tcp, Token(id.slot()), interest) {
            tracing::warn!(%error, "polling a connection to the hub");
            return self.closed(id);
        }
        let stream = Stream {
            id,
            tcp,
            readable: false,
            over: false,
        };
        if self.streams.len() <= id.slot() {
            self.streams.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.streams.get_mut(id.slot()) {
            *place = Some(stream);
        }
    }

    pub(super) fn ready(&mut self, slot: usize, readable: bool, writable: bool, over: bool) {
        let Some(Some(stream)) = self.streams.get_mut(slot) else {
            return;
        };
        stream.readable |= readable || over;
        stream.over |= over;
        let id = stream.id;
        if writable {
            self.flush(id);
            self.work();
        }
        if readable || over {
            self.read(id);
        }
    }

    /// Reads one turn's worth.
    pub(super) fn read(&mut self, id: ConnId) {
        if !self.hub.takes(id) {
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        let read = match self.stream(id) {
            Some(stream) if stream.readable => stream.tcp.read(&mut buf),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        match read {
            Ok(0) => self.closed(id),
            Ok(n) => {
                let full = n == buf.len();
                if let Some(stream) = self.stream(id) {
                    // Edge-triggered: less than was asked for means that there is no more, unless
                    // the end was told already.
                    stream.readable = full || stream.over;
                }
                if self.stream(id).is_some_and(|s| s.readable) {
                    self.busy.push(id);
                }
                let now = self.now();
                let mut out = Vec::new();
                self.hub
                    .on_bytes(now, id, buf.get(..n).unwrap_or_default(), &mut out);
                self.act(out);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(stream) = self.stream(id) {
                    stream.readable = false;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => self.busy.push(id),
            Err(_) => self.closed(id),
        }
        self.buf = buf;
        self.work();
    }

    /// Sends what waits for a connection, as far as it goes.
    pub(super) fn flush(&mut self, id: ConnId) {
        let mut taken = false;
        loop {
            let Some(Some(stream)) = self.streams.get_mut(id.slot()) else {
                return;
            };
            let bytes = self.hub.output(id);
            if stream.id != id || bytes.is_empty() {
                break;
            }
            match stream.tcp.write(bytes) {
                Ok(n) => {
                    let now = self.now();
                    let mut out = Vec::new();
                    self.hub.on_sent(now, id, n, &mut out);
                    self.todo.extend(out);
                    taken = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    break;
                }
                Err(_) => return self.closed(id),
            }
        }
        // It may have waited for this to be read from again.
        if taken && self.stream(id).is_some_and(|s| s.readable) {
            self.busy.push(id);
        }
    }

    pub(super) fn closed(&mut self, id: ConnId) {
        if let Some(place) = self.streams.get_mut(id.slot())
            && place.as_ref().is_some_and(|s| s.id == id)
        {
            *place = None;
        }
        let now = self.now();
        let mut out = Vec::new();
        self.hub.on_closed(now, id, &mut out);
        self.todo.extend(out);
        for dial in &mut self.dials {
            if dial.conn == Some(id) {
                dial.conn = None;
                dial.next = now + dial.wait;
                dial.wait = (dial.wait * 2).min(MAX_REDIAL);
            }
        }
    }
}
