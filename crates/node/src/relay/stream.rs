//! A client's connection, by TLS if it begins so: frames are cut out of what was read, what is to be
//! written waits, but not without a bound.

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use shoal_base::Time;
use shoal_reach::stun::{Frame, NotFramed, next_frame};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that wait for a slow reader. More of a peer's data is dropped, as a router would.
const MAX_PENDING: usize = 256 << 10;
/// Bytes read at once.
const READ: usize = 64 << 10;
/// What TLS begins with: a record of its handshake (RFC 8446 §5.1), which is no STUN (RFC 7983).
const HELLO: u8 = 22;
/// How long somebody may be connected who has no allocation.
pub(super) const WITHOUT_ALLOCATION: Duration = Duration::from_secs(30);

pub(super) struct Stream {
    pub(super) tcp: TcpStream,
    /// What makes it TLS, if it begins so.
    config: Arc<ServerConfig>,
    tls: Option<Box<ServerConnection>>,
    /// By which the core knows it.
    pub(super) name: u64,
    pub(super) from: SocketAddr,
    pub(super) since: Time,
    input: Vec<u8>,
    /// Whether a STUN message has come: nobody begins with channel data, and what looks like it is
    /// another protocol's text.
    spoke: bool,
    /// Where what is not yet looked at begins.
    at: usize,
    output: Vec<u8>,
    written: usize,
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readings {
    /// Something, and perhaps more.
    Some,
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over,
}

impl Stream {
    pub(super) fn new(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        name: u64,
        from: SocketAddr,
        since: Time,
    ) -> Self {
        Self {
            tcp,
            config,
            tls: None,
            name,
            from,
            since,
            input: Vec::new(),
            spoke: false,
            at: 0,
            output: Vec::new(),
            written: 0,
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self) -> Readings {
        self.input.drain(..self.at);
        self.at = 0;
        // A frame has less than 64 KiB + 24, so that a whole one always fits.
        let had = self.input.len();
        self.input.resize(had + READ, 0);
        let room = self.input.get_mut(had..).unwrap_or_default();
        let read = match &mut self.tls {
            Some(tls) => read_tls(tls, &mut self.tcp, room),
            None => self.tcp.read(room).map(Some),
        };
        let (got, result) = match read {
            Ok(Some(0)) => (0, Readings::Over),
            Ok(Some(n)) => (n, Readings::Some),
            Ok(None) => (0, Readings::Some),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => (0, Readings::Nothing),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (0, Readings::Some),
            Err(_) => (0, Readings::Over),
        };
        self.input.truncate(had + got);
        if !self.spoke && self.tls.is_none() && self.input.first() == Some(&HELLO) {
            return self.greet();
        }
        if self.input.is_empty() {
            // Who is idle keeps no buffer.
            self.input = Vec::new();
        }
        result
    }

    /// What was read begins TLS.
    fn greet(&mut self) -> Readings {
        let Ok(mut tls) = ServerConnection::new(Arc::clone(&self.config)) else {
            return Readings::Over;
        };
        let hello = std::mem::take(&mut self.input);
        let mut rest = hello.as_slice();
        while !rest.is_empty() {
            // Who says more than a hello before he is answered is cut off.
            if !matches!(tls.read_tls(&mut rest), Ok(1..)) || tls.process_new_packets().is_err() {
                return Readings::Over;
            }
        }
        self.tls = Some(Box::new(tls));
        match self.flush() {
            Ok(()) => Readings::Some,
            Err(_) => Readings::Over,
        }
    }

    /// What was read and not yet forgotten.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    /// The next whole frame, if there is one.
    pub(super) fn frame(&mut self) -> Result<Option<Frame<'_>>, NotFramed> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        match rest.first() {
            Some(&first) if first > 0x3f && !self.spoke => return Err(NotFramed(first)),
            _ => {}
        }
        Ok(next_frame(rest)?.map(|(frame, used)| {
            self.at += used;
            self.spoke = true;
            frame
        }))
    }

    /// Writes, or keeps for later. Whether there was room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        if self.output.len() - self.written + bytes.len() > MAX_PENDING {
            return false;
        }
        self.output.extend_from_slice(bytes);
        true
    }

    /// Whether something waits to be written.
    pub(super) fn is_pending(&self) -> bool {
        let tls = self.tls.as_ref().is_some_and(|t| t.wants_write());
        tls || self.written < self.output.len()
    }

    /// Writes what waits, as far as possible.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            let rest = self.output.get(self.written..).unwrap_or_default();
            let result = match &mut self.tls {
                // What is in its buffers goes first, so that no more than their bound is there.
                Some(tls) if tls.wants_write() => match tls.write_tls(&mut self.tcp) {
                    Ok(1..) => continue,
                    other => other,
                },
                _ if rest.is_empty() => break,
                Some(tls) => tls.writer().write(rest),
                None => self.tcp.write(rest),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Kept short at the front, so that it does not grow for ever.
                    if self.written > MAX_PENDING {
                        self.output.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.written = 0;
        self.output.shrink_to(4096);
        Ok(())
    }
}

/// Reads what came and gives what it holds: none if that is not yet a whole record.
fn read_tls(
    tls: &mut ServerConnection,
    tcp: &mut TcpStream,
    room: &mut [u8],
) -> io::Result<Option<usize>> {
    // What is there is given before more is taken, so that it is bounded.
    match tls.reader().read(room) {
        Ok(n) => return Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        Err(e) => return Err(e),
    }
    if tls.read_tls(tcp)? == 0 {
        return Ok(Some(0));
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    // Answers of the handshake; what does not fit waits until the connection may be written.
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    match tls.reader().read(room) {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}
