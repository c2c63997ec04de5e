//! What goes out: QUIC's trains of datagrams, by the way in use.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use quinn_udp::UdpSockRef;
use shoal_reach::endpoint::{SessionId, Way};

use super::{Blocked, Worker, session_of};

/// Datagrams of one train.
const TRAIN: usize = 40;
/// Trains of one connection before other things get their turn.
const TURN: usize = 8;
/// Of the last datagrams of a session, how many are sent again by a new way: QUIC then learns at once
/// that the rest was lost, instead of at its next time-out.
const AGAIN: usize = 3;

impl Worker {
    pub(super) fn transmits(&mut self, at: usize) -> bool {
        let mut buf = Vec::with_capacity(TRAIN * 1500);
        for _ in 0..TURN {
            if self.blocked.is_some() {
                self.touched.insert(at);
                return false;
            }
            let Some(live) = self.live.get_mut(&at) else {
                return false;
            };
            buf.clear();
            let now = Instant::now();
            let Some(transmit) = live.connection.poll_transmit(now, TRAIN, &mut buf) else {
                return false;
            };
            let session = session_of(transmit.destination).unwrap_or(live.session);
            self.transmit(session, &buf, transmit.size, transmit.segment_size);
        }
        self.touched.insert(at);
        true
    }

    /// Sends datagrams to a node by the way in use.
    pub(super) fn transmit(
        &mut self,
        session: SessionId,
        buf: &[u8],
        size: usize,
        segment: Option<usize>,
    ) {
        let bytes = buf.get(..size).unwrap_or(buf);
        let each = segment.unwrap_or(size).max(1);
        let tail = bytes.chunks(each).next_back().unwrap_or_default();
        let last = self.last.entry(session).or_default();
        let mut kept = match last.len() >= AGAIN {
            true => last.pop_front().unwrap_or_default(),
            false => Vec::new(),
        };
        kept.clear();
        kept.extend_from_slice(tail);
        last.push_back(kept);
        self.send(session, bytes, each);
    }

    pub(super) fn send(&mut self, session: SessionId, bytes: &[u8], each: usize) {
        let now = self.now();
        match self.endpoint.way(now, session) {
            Some(Way::Direct(to)) => {
                let segment = (bytes.len() > each).then_some(each);
                self.udp(to, bytes, segment);
            }
            Some(Way::Relay(relay, peer)) => {
                let mut frames = Vec::with_capacity(bytes.len() + 64);
                let mut first = 0;
                let mut to = None;
                for datagram in bytes.chunks(each) {
                    let framed = self.endpoint.frame(now, relay, peer, datagram, &mut frames);
                    match framed {
                        Ok(at) => to = at,
                        Err(_) => return,
                    }
                    if first == 0 {
                        first = frames.len();
                    }
                }
                match to {
                    Some(to) => {
                        let segment = (frames.len() > first).then_some(first);
                        self.udp(to, &frames, segment);
                    }
                    None => self.by_tcp(relay, &frames),
                }
            }
            // There is none now: lost, as anything may be.
            None => {}
        }
    }

    pub(super) fn udp(&mut self, to: SocketAddr, bytes: &[u8], segment: Option<usize>) {
        let at = usize::from(to.is_ipv6());
        let Some(Some(socket)) = self.sockets.get(at) else {
            return;
        };
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: segment,
            src_ip: None,
        };
        let sent = socket
            .state
            .try_send(UdpSockRef::from(&socket.socket), &transmit);
        if let Err(error) = sent
            && error.kind() == io::ErrorKind::WouldBlock
            && self.blocked.is_none()
        {
            self.blocked = Some(Blocked {
                to,
                bytes: bytes.to_vec(),
                segment,
            });
        }
    }

    pub(super) fn send_blocked(&mut self) {
        if let Some(blocked) = self.blocked.take() {
            self.udp(blocked.to, &blocked.bytes, blocked.segment);
        }
    }
}
