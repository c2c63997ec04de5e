//! One TCP connection: its socket, what was received of an unfinished message, what is being sent.

use super::outbuf::OutBuf;
use mio::net::TcpStream;
use shoal_base::Time;
use shoal_bittorrent::torrent::ConnId;
use shoal_content::Block;
use shoal_store::TorrentKey;
use std::io;
use std::io::{Read, Write};
use std::net::SocketAddr;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// TCP is connecting.
    Dialing(TorrentKey),
    /// We dialled and sent our handshake; theirs is awaited.
    Greeted(TorrentKey),
    /// They dialled; their handshake tells which torrent they want.
    Incoming,
    /// Handshakes are exchanged.
    Live(TorrentKey),
}

/// What a read attempt found.
pub(super) enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The peer has closed, or the connection broke.
    Closed,
}

pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
    pub(super) stage: Stage,
    /// Start of a message of which the end has not come.
    pub(super) carry: Vec<u8>,
    /// What is being sent.
    pub(super) out: OutBuf,
    /// Payload bytes in `out`, to be counted once they are sent.
    pub(super) payload: u64,
    /// Blocks that the disk is reading into the next `out`.
    pub(super) reading: Vec<Block>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has shut its side; a short read does not mean that nothing is left.
    pub(super) hung_up: bool,
    /// Whether it waits in the queue of connections to be read.
    pub(super) queued_read: bool,
    /// Whether it waits in the queue of connections to be written.
    pub(super) queued_write: bool,
    /// Whether the rate limits apply to it.
    pub(super) limited: bool,
    pub(super) opened_at: Time,
}

impl Conn {
    pub(super) fn new(
        id: ConnId,
        stream: TcpStream,
        addr: SocketAddr,
        stage: Stage,
        limited: bool,
        now: Time,
    ) -> Self {
        Self {
            id,
            stream,
            addr,
            stage,
            carry: Vec::new(),
            out: OutBuf::default(),
            payload: 0,
            reading: Vec::new(),
            readable: false,
            writable: false,
            hung_up: false,
            queued_read: false,
            queued_write: false,
            limited,
            opened_at: now,
        }
    }

    /// The torrent it belongs to, as far as known.
    pub(super) fn torrent(&self) -> Option<TorrentKey> {
        match self.stage {
            Stage::Dialing(key) | Stage::Greeted(key) | Stage::Live(key) => Some(key),
            Stage::Incoming => None,
        }
    }

    /// Receives into `space`, keeping `readable` true to what the kernel still holds.
    pub(super) fn receive(&mut self, space: &mut [u8]) -> Received {
        loop {
            match self.stream.read(space) {
                Ok(0) => return Received::Closed,
                Ok(n) => {
                    // Edge-triggered: a short read has emptied the socket, unless it ends there.
                    if n < space.len() && !self.hung_up {
                        self.readable = false;
                    }
                    return Received::Bytes(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Sends what is in `out`, as far as the socket takes it.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(self.out.pending()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
