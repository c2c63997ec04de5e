//! One TCP connection: what it begins with, the handshake, and then messages, packed or not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use mio::net::TcpStream;
use rustls::Connection as Session;
use shoal_base::Time;
use shoal_gnutella::handshake::Handshake;
use shoal_gnutella::message::{Packet, Reader};
use shoal_gnutella::node::ConnId;

/// Bytes held for the socket before more is taken from the node's queue: what is there is beyond
/// the reach of priorities.
const OUT: usize = 32 << 10;
/// Bytes that are inflated at once.
const CHUNK: usize = 32 << 10;

/// What a connection is doing.
pub(super) enum Phase {
    /// Called; the first bytes will tell what for.
    Sniff(Vec<u8>),
    /// Calling: waits for the connection to come about.
    Dialling,
    /// The handshake.
    Shaking(Box<Handshake>),
    /// Messages.
    Open(Box<Open>),
    /// Only what waits is sent, then it ends.
    Draining,
    /// The same of a neighbour, whose end is waited for: what it still sends is passed over.
    Leaving,
}

/// A connection of the overlay.
pub(super) struct Open {
    pub(super) id: ConnId,
    pub(super) reader: Reader,
    pub(super) inflate: Option<Decompress>,
    deflate: Option<Compress>,
}

impl Open {
    pub(super) fn new(id: ConnId, inflate: bool, deflate: bool) -> Self {
        Self {
            id,
            reader: Reader::default(),
            inflate: inflate.then(|| Decompress::new(true)),
            deflate: deflate.then(|| Compress::new(Compression::fast(), true)),
        }
    }

    /// Hands `bytes`, inflated, to the reader, a part at a time; says how many of them it took. None
    /// if they do not inflate.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let Some(inflate) = &mut self.inflate else {
            self.reader.push(bytes);
            return Some(bytes.len());
        };
        let mut out = Vec::with_capacity(CHUNK);
        let before = inflate.total_in();
        let done = inflate.decompress_vec(bytes, &mut out, FlushDecompress::None);
        let taken = usize::try_from(inflate.total_in() - before).ok()?;
        self.reader.push(&out);
        match done {
            Ok(Status::StreamEnd) => None,
            // All is inflated when nothing was taken and nothing came.
            Ok(_) if taken == 0 && out.is_empty() => Some(bytes.len()),
            Ok(_) => Some(taken),
            Err(_) => None,
        }
    }
}

/// A socket with what waits for it.
pub(super) struct Connection {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) readable: bool,
    /// The other end sends no more.
    pub(super) over: bool,
    /// When the handshake, or the sending of the last bytes, must be done.
    pub(super) until: Time,
    /// TLS, once it has begun.
    tls: Option<Box<Session>>,
    /// What is to be encrypted.
    clear: Vec<u8>,
    /// Bytes as the socket takes them, and how many of them it has taken.
    out: Vec<u8>,
    sent: usize,
    /// What the packer still holds must follow.
    unflushed: bool,
}

impl Connection {
    pub(super) fn new(tcp: TcpStream, peer: SocketAddr, phase: Phase, until: Time) -> Self {
        Self {
            tcp,
            peer,
            phase,
            readable: false,
            over: false,
            until,
            tls: None,
            clear: Vec::new(),
            out: Vec::new(),
            sent: 0,
            unflushed: false,
        }
    }

    pub(super) fn id(&self) -> Option<ConnId> {
        match &self.phase {
            Phase::Open(open) => Some(open.id),
            _ => None,
        }
    }

    /// Nothing more is sent.
    pub(super) fn end(&self) {
        // It may be gone already.
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Bytes to send, not packed.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.plain().extend_from_slice(bytes);
    }

    /// Where bytes go that are to be sent.
    fn plain(&mut self) -> &mut Vec<u8> {
        match self.tls {
            Some(_) => &mut self.clear,
            None => &mut self.out,
        }
    }

    /// Whether TLS has begun.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether TLS has begun, and no key is agreed on.
    pub(super) fn is_shaking_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// From here on all goes by TLS; what was said so far goes in clear before.
    pub(super) fn secure(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    /// Gives the socket to who reads and writes by blocking.
    pub(super) fn into_parts(self) -> (TcpStream, Option<Box<Session>>, Vec<u8>) {
        let Self {
            tcp,
            tls,
            mut out,
            sent,
            ..
        } = self;
        out.drain(..sent);
        (tcp, tls, out)
    }

    /// Whether there is room for more messages.
    fn has_room(&self) -> bool {
        self.clear.len() + self.out.len() - self.sent < OUT
    }

    fn put(&mut self, packet: &Packet) {
        let deflate = match &mut self.phase {
            Phase::Open(open) => open.deflate.as_mut(),
            _ => None,
        };
        let Some(deflate) = deflate else {
            return self.say(packet.bytes());
        };
        let plain = match self.tls {
            Some(_) => &mut self.clear,
            None => &mut self.out,
        };
        pack(deflate, packet.bytes(), FlushCompress::None, plain);
        self.unflushed = true;
    }

    /// Sends what waits, and what `next` gives, as far as the socket takes it. Whether all is sent.
    pub(super) fn flush(&mut self, mut next: impl FnMut() -> Option<Packet>) -> io::Result<bool> {
        loop {
            while self.has_room()
                && let Some(packet) = next()
            {
                self.put(&packet);
            }
            if std::mem::take(&mut self.unflushed)
                && let Phase::Open(open) = &mut self.phase
                && let Some(deflate) = &mut open.deflate
            {
                let plain = match self.tls {
                    Some(_) => &mut self.clear,
                    None => &mut self.out,
                };
                pack(deflate, &[], FlushCompress::Sync, plain);
            }
            self.encrypt()?;
            let rest = self.out.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.out.clear();
                self.sent = 0;
                return Ok(self.clear.is_empty());
            }
            match self.tcp.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    // What was sent need not be held.
                    self.out.drain(..self.sent);
                    self.sent = 0;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Encrypts what is to go out, as soon as both ends have a key.
    fn encrypt(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        if !self.clear.is_empty() && !tls.is_handshaking() {
            tls.writer().write_all(&self.clear)?;
            self.clear.clear();
        }
        while tls.wants_write() {
            tls.write_tls(&mut self.out)?;
        }
        Ok(())
    }

    /// Takes bytes of TLS that were read before it was known that they are. What they say is read next.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while !bytes.is_empty() {
            if tls.read_tls(&mut bytes)? == 0 {
                break;
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        self.readable = true;
        Ok(())
    }

    /// Reads once. None at the end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return self.read_clear(buf);
        };
        loop {
            match tls.reader().read(buf) {
                Ok(0) => return Ok(None),
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(e),
            }
            match tls.read_tls(&mut self.tcp) {
                Ok(_) => {
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Some(0));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads once. None at the end.
    fn read_clear(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.tcp.read(buf) {
            Ok(0) => Ok(None),
            Ok(n) => {
                // Edge-triggered: less than was asked for means that there is no more, unless the
                // end was told already.
                self.readable = n == buf.len() || self.over;
                Ok(Some(n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Some(0))
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(e) => Err(e),
        }
    }
}

/// Packs `bytes` onto the end of `out`.
fn pack(deflate: &mut Compress, bytes: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        out.reserve(rest.len().max(64));
        let before = deflate.total_in();
        // Deflating into memory that is there does not fail.
        let _ = deflate.compress_vec(rest, out, flush);
        let taken = usize::try_from(deflate.total_in() - before).unwrap_or(rest.len());
        rest = rest.get(taken..).unwrap_or_default();
        // Room left means that all was written.
        if rest.is_empty() && out.len() < out.capacity() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_inflated_message_by_message() {
        let mut deflate = Compress::new(Compression::fast(), true);
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        for n in 0..200_usize {
            let bytes: Vec<u8> = (0..n * 7).map(|i| (i * n) as u8).collect();
            pack(&mut deflate, &bytes, FlushCompress::None, &mut wire);
            pack(&mut deflate, &[], FlushCompress::Sync, &mut wire);
            plain.extend_from_slice(&bytes);
        }
        let mut inflate = Decompress::new(true);
        let mut got = Vec::with_capacity(plain.len() + 1);
        inflate
            .decompress_vec(&wire, &mut got, FlushDecompress::Sync)
            .expect("it inflates");
        assert_eq!(got, plain);
    }
}
