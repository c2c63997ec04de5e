//! Relays that are reached by TCP.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Interest, Token};
use shoal_reach::agent::RelayId;
use shoal_reach::endpoint::Output;

use super::{BUFFER, FIRST_TCP, MAX_WAITING, Tcp, Worker};

impl Worker {
    pub(super) fn call(&mut self, id: RelayId, to: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(to)?;
        let token = Token(FIRST_TCP + id as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, both)?;
        self.tcp.insert(
            id,
            Tcp {
                stream,
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
        let _ = flush(tcp);
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
            if flush(tcp).is_err() {
                over = true;
                break;
            }
            match tcp.stream.read(&mut buf) {
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
        for (session, data) in came {
            self.on_packet(session, data);
        }
        if over {
            self.hang_up(id);
            self.endpoint.on_closed(now, id, out);
        }
    }
}

fn flush(tcp: &mut Tcp) -> io::Result<()> {
    while !tcp.waiting.is_empty() && tcp.opened {
        let (front, _) = tcp.waiting.as_slices();
        match tcp.stream.write(front) {
            Ok(n) => drop(tcp.waiting.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
