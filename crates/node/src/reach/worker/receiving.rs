//! What comes: datagrams, and what of them is QUIC's.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::DatagramEvent;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef};
use shoal_reach::endpoint::{Output, SessionId};

use super::{ROUND, Worker, place};

impl Worker {
    /// Takes what came by UDP; whether there is more.
    pub(super) fn receive(&mut self, out: &mut Vec<Output>) -> bool {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut more = false;
        for at in 0..self.sockets.len() {
            let mut round = 0;
            while let Some(Some(socket)) = self.sockets.get(at) {
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
                        for (meta, buffer) in metas.iter().zip(&buffers).take(n) {
                            let bytes = buffer.get(..meta.len).unwrap_or_default();
                            for datagram in bytes.chunks(meta.stride.max(1)) {
                                self.on_datagram(meta.addr, datagram, out);
                            }
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // What ICMP told of somebody: the agents see it for themselves.
                    Err(_) => {}
                }
            }
        }
        self.buffers = buffers;
        more
    }

    pub(super) fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        let now = self.now();
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Some((session, data)) = self.endpoint.on_udp(now, from, bytes, out) {
            let data = BytesMut::from(data);
            self.on_packet(session, data);
        }
    }

    pub(super) fn on_packet(&mut self, session: SessionId, data: BytesMut) {
        let now = Instant::now();
        let mut answer = Vec::new();
        let event = self
            .quic
            .handle(now, place(session), None, None, data, &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(live) = self.live.get_mut(&handle.0) {
                    live.connection.handle_event(event);
                    self.touched.insert(handle.0);
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
