//! What comes: datagrams, and what of them is QUIC's.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::DatagramEvent;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use shoal_base::Time;
use shoal_reach::endpoint::{Output, SessionId};

use super::{Worker, place};

/// Batches received before other things get their turn.
const ROUND: usize = 2;

impl Worker {
    /// Takes what came by UDP; whether there is more.
    pub(super) fn receive(&mut self, out: &mut Vec<Output>) -> bool {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut more = false;
        for at in 0..self.sockets.len() {
            let mut round = 0;
            while let Some(Some(socket)) = self.sockets.get_mut(at)
                && socket.readable
            {
                if round == ROUND {
                    more = true;
                    break;
                }
                round += 1;
                let mut metas = [RecvMeta::default(); BATCH_SIZE];
                let mut slices: Vec<_> =
                    buffers.iter_mut().map(|b| io::IoSliceMut::new(b)).collect();
                let got =
                    socket
                        .state
                        .recv(UdpSockRef::from(&socket.socket), &mut slices, &mut metas);
                match got {
                    Ok(n) => {
                        let (now, instant) = (self.now(), Instant::now());
                        for (meta, buffer) in metas.iter().zip(&buffers).take(n) {
                            let bytes = buffer.get(..meta.len).unwrap_or_default();
                            self.on_train((now, instant), meta.addr, bytes, meta.stride, out);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
                    // What ICMP told of somebody: the agents see it for themselves.
                    Err(_) => {}
                }
            }
        }
        self.buffers = buffers;
        more
    }

    /// Datagrams of one sender, of one length but for the last.
    fn on_train(
        &mut self,
        now: (Time, Instant),
        from: SocketAddr,
        bytes: &[u8],
        stride: usize,
        out: &mut Vec<Output>,
    ) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        // One copy of all, of which QUIC and then a stream's reader have the parts.
        let mut rest = BytesMut::from(bytes);
        while !rest.is_empty() {
            let mut datagram = rest.split_to(stride.clamp(1, rest.len()));
            let first = datagram.as_ptr().addr();
            let came = self.endpoint.on_udp(now.0, from, &datagram, out);
            if let Some((session, data)) = came {
                let (skip, len) = (data.as_ptr().addr() - first, data.len());
                let mut data = datagram.split_off(skip);
                data.truncate(len);
                self.on_packet(now.1, session, data);
            }
        }
    }

    pub(super) fn on_packet(&mut self, now: Instant, session: SessionId, data: BytesMut) {
        let mut answer = Vec::new();
        let event = self
            .quic
            .handle(now, place(session), None, None, data, &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(at) = self.numbers.get(&handle)
                    && let Some(live) = self.live.get_mut(at)
                {
                    live.connection.handle_event(event);
                    self.touched.insert(*at);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.quic.accept(incoming, now, &mut answer, None) {
                    Ok((handle, connection)) => self.enter(handle, connection, session, None),
                    Err(refused) => {
                        if let Some(transmit) = refused.response {
                            self.transmit(session, &answer, transmit.size, None);
                        }
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => {
                self.transmit(session, &answer, transmit.size, transmit.segment_size);
            }
            None => {}
        }
    }
}
