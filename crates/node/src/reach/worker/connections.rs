//! QUIC's connections: dialled, entered, driven, counted, heard of.

use super::streams::{read, write};
use super::{Live, SHAKE, Worker, place};
use crate::reach::stream::{Pipe, Stream};
use crate::reach::tls::node_of;
use crate::reach::{Connection, Unreached};
use bytes::Bytes;
use crossbeam_channel::Sender;
use quinn_proto::{ClientConfig, ConnectionHandle, Dir, Event, StreamEvent, VarInt};
use shoal_reach::endpoint::SessionId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// How often the agent is told what was lost.
const COUNT: Duration = Duration::from_millis(250);
/// Datagrams of the application that wait to be read.
const MAX_DATAGRAMS: usize = 256;

impl Worker {
    /// Begins handshakes with nodes that a way was found to.
    pub(super) fn dial(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(wanted) = self.wanted.get(at) {
            if self.endpoint.in_use(wanted.session).is_none() {
                if now >= wanted.until {
                    let wanted = self.wanted.swap_remove(at);
                    let why = self.endpoint.why_not(wanted.session);
                    let _ = wanted.tell.send(Err(Unreached::NoWay(why)));
                    self.release(wanted.session);
                } else {
                    at += 1;
                }
                continue;
            }
            let wanted = self.wanted.swap_remove(at);
            let begun = self.tls.client(wanted.to).map_err(|e| e.to_string());
            let begun = begun.and_then(|crypto| {
                let mut config = ClientConfig::new(Arc::new(crypto));
                config.transport_config(Arc::clone(&self.transport));
                let place = place(wanted.session);
                let begun = self.quic.connect(now, config, place, "shoal");
                begun.map_err(|e| e.to_string())
            });
            match begun {
                Ok((handle, connection)) => {
                    let asked = Some((wanted.tell, now + SHAKE));
                    self.enter(handle, connection, wanted.session, asked);
                }
                Err(why) => drop(wanted.tell.send(Err(Unreached::Handshake(why)))),
            }
        }
    }

    pub(super) fn enter(
        &mut self,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        session: SessionId,
        asked: Option<(Sender<Result<Connection, Unreached>>, Instant)>,
    ) {
        let (incoming, streams) = crossbeam_channel::unbounded();
        let (datagrams, data) = crossbeam_channel::bounded(MAX_DATAGRAMS);
        self.endpoint.hold(self.now(), session, true);
        let at = self.next;
        self.next += 1;
        self.numbers.insert(handle, at);
        self.live.insert(
            at,
            Live {
                handle,
                connection,
                session,
                streams: BTreeMap::new(),
                incoming,
                datagrams,
                given: Some((streams, data)),
                asked,
                timer: None,
                connected: false,
                counted: (0, 0, Instant::now()),
            },
        );
        self.touched.insert(at);
    }

    /// A session that nothing uses any more may end.
    pub(super) fn release(&mut self, session: SessionId) {
        let used = self.live.values().any(|l| l.session == session)
            || self.wanted.iter().any(|w| w.session == session);
        if !used {
            self.endpoint.hold(self.now(), session, false);
            self.last.remove(&session);
        }
    }

    /// Lets those connections go on that something happened to; whether some have more to send.
    pub(super) fn drive(&mut self) -> bool {
        let mut more = false;
        for at in std::mem::take(&mut self.touched) {
            self.events(at);
            more |= self.transmits(at);
            self.count(at);
            let Some(live) = self.live.get_mut(&at) else {
                continue;
            };
            let handle = live.handle;
            while let Some(event) = live.connection.poll_endpoint_events() {
                if let Some(event) = self.quic.handle_event(handle, event) {
                    live.connection.handle_event(event);
                }
            }
            live.timer = live.connection.poll_timeout();
            if live.connection.is_drained() {
                let session = live.session;
                self.live.remove(&at);
                if self.numbers.get(&handle) == Some(&at) {
                    self.numbers.remove(&handle);
                }
                self.release(session);
            }
        }
        more
    }

    /// Tells the agent now and then what became of what was sent.
    pub(super) fn count(&mut self, at: usize) {
        let (now, time) = (Instant::now(), self.now());
        let due = |l: &&mut Live| now.saturating_duration_since(l.counted.2) >= COUNT;
        let Some(live) = self.live.get_mut(&at).filter(due) else {
            return;
        };
        let path = live.connection.stats().path;
        let (sent, lost, _) = live.counted;
        live.counted = (path.sent_packets, path.lost_packets, now);
        let (sent, lost) = (
            path.sent_packets.saturating_sub(sent),
            path.lost_packets.saturating_sub(lost),
        );
        let session = live.session;
        let mut out = Vec::new();
        self.endpoint
            .on_carried(time, session, sent, lost, &mut out);
        self.act(out);
    }

    pub(super) fn events(&mut self, at: usize) {
        loop {
            let Some(live) = self.live.get_mut(&at) else {
                return;
            };
            let Some(event) = live.connection.poll() else {
                return;
            };
            match event {
                Event::Connected => self.connected(at),
                Event::ConnectionLost { reason } => {
                    let why = reason.to_string();
                    live.streams.values().for_each(|p| p.fail(&why));
                    live.streams.clear();
                    if let Some((tell, _)) = live.asked.take() {
                        let _ = tell.send(Err(Unreached::Handshake(why)));
                    }
                    // Whoever waits for streams or datagrams hears that there will be none.
                    live.incoming = crossbeam_channel::bounded(0).0;
                    live.datagrams = crossbeam_channel::bounded(0).0;
                    live.given = None;
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(id) = live.connection.streams().accept(Dir::Bi) {
                        let pipe = Arc::<Pipe>::default();
                        live.streams.insert(id, Arc::clone(&pipe));
                        let stream = Stream::new(pipe, self.door.clone(), at, id);
                        let _ = live.incoming.send(stream);
                        read(live, id);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => read(live, id),
                Event::Stream(StreamEvent::Writable { id }) => write(live, id),
                Event::Stream(StreamEvent::Finished { id }) => {
                    if let Some(pipe) = live.streams.get(&id) {
                        pipe.lock().arrived = true;
                        pipe.wake();
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, .. }) => {
                    if let Some(pipe) = live.streams.get(&id) {
                        let mut ends = pipe.lock();
                        if !ends.finished || ends.goes_len > 0 {
                            ends.broken = Some("the other side reads no more".into());
                        }
                        ends.arrived = true;
                        drop(ends);
                        pipe.wake();
                    }
                }
                Event::DatagramReceived => {
                    while let Some(data) = live.connection.datagrams().recv() {
                        // Who reads too slowly loses some.
                        let _ = live.datagrams.try_send(data);
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn connected(&mut self, at: usize) {
        let Some(live) = self.live.get_mut(&at) else {
            return;
        };
        live.connected = true;
        let identity = live.connection.crypto_session().peer_identity();
        let keys = identity.and_then(|i| {
            i.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                .ok()
        });
        let peer = keys.and_then(|keys| node_of(keys.first()?.as_ref()));
        let expected = self.endpoint.peer(live.session);
        let (Some(peer), Some((streams, data))) =
            (peer.filter(|p| Some(*p) == expected), live.given.take())
        else {
            let why = Bytes::from_static(b"another node than the letters were from");
            tracing::debug!(
                session = live.session,
                "another node than the letters were from"
            );
            live.connection
                .close(Instant::now(), VarInt::from_u32(2), why);
            return;
        };
        let connection = Connection::new(peer, self.door.clone(), at, streams, data);
        match live.asked.take() {
            Some((tell, _)) => drop(tell.send(Ok(connection))),
            None => drop(self.arrivals.send(connection)),
        }
    }
}
