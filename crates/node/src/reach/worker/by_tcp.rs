//! Relays that are reached by TCP, or by TLS where nothing else gets through.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Interest, Token};
use shoal_reach::agent::RelayId;
use shoal_reach::endpoint::Output;

use super::{BUFFER, FIRST_TCP, Tcp, Worker};
use crate::gnutella::Tls;

/// Bytes that wait for a slow connection to a relay; what comes on top is lost.
const MAX_WAITING: usize = 512 << 10;

/// The name in certificates, which nobody looks at: what passes is signed or sealed anyway.
const NAME: &str = "turn";

impl Worker {
    pub(super) fn call(&mut self, id: RelayId, to: SocketAddr, tls: bool) -> io::Result<()> {
        let tls = match tls {
            true => Some(Tls::named(NAME).and_then(|t| t.connect())),
            false => None,
        };
        let tls = tls.transpose().map_err(io::Error::other)?.map(Box::new);
        let mut stream = TcpStream::connect(to)?;
        let token = Token(FIRST_TCP + id as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, both)?;
        self.tcp.insert(
            id,
            Tcp {
                stream,
                tls,
                opened: false,
                waiting: VecDeque::new(),
            },
        );
        Ok(())
    }

    pub(super) fn hang_up(&mut self, id: RelayId) {
        if let Some(mut tcp) = self.tcp.remove(&id) {
            let _ = self.poll.registry().deregister(&mut tcp.stream);
        }
    }

    pub(super) fn by_tcp(&mut self, id: RelayId, bytes: &[u8]) {
        let Some(tcp) = self.tcp.get_mut(&id) else {
            return;
        };
        if tcp.waiting.len() + bytes.len() <= MAX_WAITING {
            tcp.waiting.extend(bytes);
        }
        // What went wrong shows when the connection is read.
        let _ = tcp.flush();
    }

    pub(super) fn on_tcp(&mut self, id: RelayId, writable: bool, out: &mut Vec<Output>) {
        let now = self.now();
        let Some(tcp) = self.tcp.get_mut(&id) else {
            return;
        };
        if !tcp.opened && writable {
            match (tcp.stream.take_error(), tcp.stream.peer_addr()) {
                (Ok(None), Ok(_)) => {
                    tcp.opened = true;
                    let _ = tcp.stream.set_nodelay(true);
                    self.endpoint.on_open(now, id, out);
                }
                (Ok(None), Err(e)) if e.kind() == io::ErrorKind::NotConnected => return,
                _ => {
                    self.hang_up(id);
                    return self.endpoint.on_closed(now, id, out);
                }
            }
        }
        let mut came = Vec::new();
        let mut over = false;
        let mut buf = vec![0; BUFFER];
        while let Some(tcp) = self.tcp.get_mut(&id) {
            if tcp.flush().is_err() {
                over = true;
                break;
            }
            match tcp.read(&mut buf) {
                Ok(0) => {
                    over = true;
                    break;
                }
                Ok(n) => {
                    let bytes = buf.get(..n).unwrap_or_default();
                    self.endpoint.on_tcp(now, id, bytes, out, |session, data| {
                        came.push((session, BytesMut::from(data)));
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    over = true;
                    break;
                }
            }
        }
        // What waited for the end of TLS's handshake.
        over |= self.tcp.get_mut(&id).is_some_and(|t| t.flush().is_err());
        let instant = Instant::now();
        for (session, data) in came {
            self.on_packet(instant, session, data);
        }
        if over {
            self.hang_up(id);
            self.endpoint.on_closed(now, id, out);
        }
    }
}

impl Tcp {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.read(buf);
        };
        loop {
            match tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.opened {
            let (front, _) = self.waiting.as_slices();
            let result = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.stream).map(|_| 0),
                // Nothing is handed over before it can leave, so that no more waits than may.
                Some(tls) if tls.is_handshaking() => break,
                _ if front.is_empty() => break,
                Some(tls) => tls.writer().write(front),
                None => self.stream.write(front),
            };
            match result {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
