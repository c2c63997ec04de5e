//! A stream of QUIC joined to one end of a TCP connection within the process, so that whoever has the
//! other end needs not know what it is.
//!
//! A thread for each direction: it waits where it reads, so that nothing is read that cannot be
//! written, and each half ends by itself.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::{Place, STACK};
use crate::reach::Stream;

/// Bytes moved at once.
const PIECE: usize = 64 << 10;
/// Strangers on this machine that may connect before our own end does.
const MAX_OTHERS: usize = 16;

/// Both ends of a TCP connection within the process.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let own = near.local_addr()?;
    for _ in 0..MAX_OTHERS {
        let (far, peer) = listener.accept()?;
        // Anybody on this machine could have connected.
        if peer == own {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
    Err(io::Error::other("others connect to a port that is ours"))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buf = vec![0; PIECE];
    loop {
        match from.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(buf.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Joins the two until both directions have ended; `place` is kept as long.
pub(super) fn join(stream: Stream, tcp: TcpStream, place: Place) -> io::Result<()> {
    let place = Arc::new(place);
    let (up, mut from, held) = (stream.clone(), tcp.try_clone()?, Arc::clone(&place));
    thread::Builder::new()
        .name("overlay-up".into())
        .stack_size(STACK)
        .spawn(move || {
            let sent = copy(&mut from, &mut &up).and_then(|()| up.arrived());
            if sent.is_err() {
                let _ = from.shutdown(Shutdown::Both);
            }
            drop(held);
        })?;
    thread::Builder::new()
        .name("overlay-down".into())
        .stack_size(STACK)
        .spawn(move || {
            let how = match copy(&mut &stream, &mut &tcp) {
                Ok(()) => Shutdown::Write,
                Err(_) => Shutdown::Both,
            };
            let _ = tcp.shutdown(how);
            drop(place);
        })?;
    Ok(())
}
