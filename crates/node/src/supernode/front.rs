//! The door of a node: of every connection that comes in, whether it is a link or something else.
//!
//! A link begins with the length of a message, whose highest byte is zero; requests of HTTP, `GIV` and
//! `QUEUE` begin with letters.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use shoal_supernode::Address;
use shoal_supernode::wire::HEADER;

use super::boxes::{BoxServer, is_ours};
use crate::accept;

/// How long the first bytes may take.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// Connections that have said nothing yet, at most, and of one host.
const MAX_SILENT: usize = 256;
const MAX_SILENT_OF_HOST: usize = 16;

/// What takes a connection, with the bytes that were read of it.
pub(super) type Taker = dyn Fn(TcpStream, SocketAddr, Vec<u8>) + Send + Sync;

/// Who gets what comes in.
pub(super) struct Front {
    /// Links.
    pub(super) links: Box<Taker>,
    /// Everything else; none: it is closed.
    pub(super) others: Option<Arc<Taker>>,
    /// Links to boxes of letters; none: they are closed.
    pub(super) boxes: Option<BoxServer>,
    /// Hosts that the limit by host does not hold for.
    pub(super) unlimited: Vec<u128>,
}

#[derive(Default)]
struct Silent {
    all: usize,
    of: BTreeMap<u128, usize>,
}

/// A place among the silent; freed when dropped.
struct Place {
    silent: Arc<Mutex<Silent>>,
    host: u128,
}

impl Place {
    fn take(silent: &Arc<Mutex<Silent>>, host: u128, limited: bool) -> Option<Self> {
        let mut held = silent.lock().unwrap_or_else(PoisonError::into_inner);
        let of = held.of.get(&host).copied().unwrap_or(0);
        if held.all >= MAX_SILENT || (limited && of >= MAX_SILENT_OF_HOST) {
            return None;
        }
        held.all += 1;
        held.of.insert(host, of + 1);
        drop(held);
        let silent = Arc::clone(silent);
        Some(Self { silent, host })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(of) = held.of.get_mut(&self.host) {
            *of -= 1;
            if *of == 0 {
                held.of.remove(&self.host);
            }
        }
    }
}

impl Front {
    /// Takes connections until `stop` says so.
    pub(super) fn run(self, listener: &TcpListener, stop: &AtomicBool) {
        let silent = Arc::new(Mutex::new(Silent::default()));
        let front = Arc::new(self);
        while let Some((stream, peer)) = accept::wait(listener, stop) {
            let host = peer.host();
            let limited = !front.unlimited.contains(&host);
            let Some(place) = Place::take(&silent, host, limited) else {
                tracing::debug!(%peer, "too many connections that say nothing");
                continue;
            };
            let front = Arc::clone(&front);
            let spawned = thread::Builder::new()
                .name("supernode-hello".into())
                .stack_size(128 << 10)
                .spawn(move || {
                    let first = first_bytes(&stream);
                    drop(place);
                    match first {
                        Ok(first) if first.last() == Some(&0) => (front.links)(stream, peer, first),
                        Ok(first) if is_ours(&first) => {
                            if let Some(boxes) = &front.boxes {
                                boxes.take(stream, peer);
                            }
                        }
                        Ok(first) => {
                            if let Some(others) = &front.others {
                                others(stream, peer, first);
                            }
                        }
                        Err(error) => tracing::debug!(%peer, %error, "a connection said nothing"),
                    }
                });
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread for a connection");
            }
        }
    }
}

/// As many bytes as tell a link from something else.
pub(super) fn first_bytes(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    let until = Instant::now() + FIRST_BYTES;
    let mut first = [0; HEADER];
    let mut n = 0;
    while let Some(rest) = first.get_mut(n..).filter(|rest| !rest.is_empty()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => n += more,
        }
    }
    stream.set_read_timeout(None)?;
    Ok(first.to_vec())
}
