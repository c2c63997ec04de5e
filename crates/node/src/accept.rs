//! Taking connections: what every listener does about those that cannot be taken.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often a thread that takes connections looks whether it shall end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// How long none is taken after one could not be.
const REST: Duration = Duration::from_millis(100);

/// The next connection that waits at a listener that was told to be ready; none when that was all.
///
/// # Errors
/// When none can be taken now: out of descriptors, most likely. The rest are still there, and no
/// event will tell of them.
pub(crate) fn next(
    listener: &mio::net::TcpListener,
) -> io::Result<Option<(mio::net::TcpStream, SocketAddr)>> {
    loop {
        match listener.accept() {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Waits for a connection, in a thread of its own; none when `stop` says so. The listener must not
/// block.
pub(crate) fn wait(listener: &TcpListener, stop: &AtomicBool) -> Option<(TcpStream, SocketAddr)> {
    while !stop.load(Ordering::Acquire) {
        let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK));
        match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection");
                // Out of descriptors, most likely: the next would fail at once too, for ever.
                std::thread::sleep(REST);
            }
        }
    }
    None
}
