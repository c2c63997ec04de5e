//! Connections that come in for transfers: who asks for files goes to the server; sharers that push,
//! or tell that our turn has come, go to the download.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::message::push::Push;

use super::server::FileServer;
use crate::accept;
use crate::gnutella::tls::{Stream, is_hello};

/// Connections whose first words are waited for, at most.
const MAX_WAITING: usize = 64;
/// How long the first words may take.
const FIRST_WORDS: Duration = Duration::from_secs(15);
/// Openings that nobody has taken yet; more are dropped.
const MAX_INCOMING: usize = 16;

/// A sharer that connected to us.
#[derive(Debug)]
pub struct Incoming {
    /// What it said.
    pub opening: Opening,
    /// The connection.
    pub stream: Stream,
    /// From where.
    pub peer: SocketAddr,
}

/// A listening socket, of its own or a node's; its own is closed when dropped.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    /// Ends the thread that accepts.
    stop: Option<Arc<AtomicBool>>,
    /// Sharers that connected.
    pub incoming: Receiver<Incoming>,
}

impl Listener {
    /// Listens on `addr`. Requests go to `server`; without one they are refused.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(addr: SocketAddr, server: Option<FileServer>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (told, incoming) = bounded(MAX_INCOMING);
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("gnutella-accept".into())
            .stack_size(128 << 10)
            .spawn(move || accept(&listener, &stopped, server.as_ref(), &told))?;
        Ok(Self {
            addr,
            stop: Some(stop),
            incoming,
        })
    }

    /// Takes what comes in on the port of a node that others reach at `addr`, by way of its
    /// [`Door`].
    pub fn of_node(addr: SocketAddr, incoming: Receiver<Incoming>) -> Self {
        Self {
            addr,
            stop: None,
            incoming,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(stop) = &self.stop else {
            return;
        };
        stop.store(true, Ordering::Release);
    }
}

/// Takes connections that came in at a port of somebody else's, as [`Listener`] takes its own.
#[derive(Debug, Clone)]
pub struct Feeder {
    server: Option<FileServer>,
    told: Sender<Incoming>,
}

impl Feeder {
    /// Requests go to `server`; sharers come out of the receiver.
    pub fn new(server: Option<FileServer>) -> (Self, Receiver<Incoming>) {
        let (told, incoming) = bounded(MAX_INCOMING);
        (Self { server, told }, incoming)
    }

    /// Hears what a connection wants, of which `first` was read, and hands it to whom that
    /// concerns. May wait for more of it.
    pub fn take(&self, stream: TcpStream, peer: SocketAddr, first: Vec<u8>) {
        if let Err(error) = hear(stream.into(), peer, first, self.server.as_ref(), &self.told) {
            tracing::debug!(%peer, %error, "a connection said nothing of use");
        }
    }
}

/// Hands what comes in on a node's port to a download.
#[derive(Debug)]
pub struct Door {
    told: Sender<Incoming>,
    waiting: Arc<()>,
}

impl Door {
    /// A door, and where sharers come out that connected to it.
    pub fn new() -> (Self, Receiver<Incoming>) {
        let (told, incoming) = bounded(MAX_INCOMING);
        let waiting = Arc::new(());
        (Self { told, waiting }, incoming)
    }
}

impl crate::gnutella::Incoming for Door {
    fn incoming(&mut self, stream: Stream, peer: SocketAddr, first: Vec<u8>) {
        let told = self.told.clone();
        greet(&self.waiting, move || {
            hear(stream, peer, first, None, &told)
        });
    }

    fn give(&mut self, push: Push) {
        tracing::debug!(to = %push.addr, "a push, and nothing is shared");
    }
}

/// Hears somebody's first words on a thread, unless too many are heard already.
fn greet(waiting: &Arc<()>, hear: impl FnOnce() -> io::Result<()> + Send + 'static) {
    if Arc::strong_count(waiting) > MAX_WAITING {
        return;
    }
    let counted = Arc::clone(waiting);
    let spawned = thread::Builder::new()
        .name("gnutella-hello".into())
        .stack_size(128 << 10)
        .spawn(move || {
            if let Err(error) = hear() {
                tracing::debug!(%error, "a connection said nothing of use");
            }
            drop(counted);
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a connection");
    }
}

fn accept(
    listener: &TcpListener,
    stop: &Arc<AtomicBool>,
    server: Option<&FileServer>,
    told: &Sender<Incoming>,
) {
    let waiting = Arc::new(());
    while let Some((stream, peer)) = accept::wait(listener, stop) {
        let (server, told) = (server.cloned(), told.clone());
        greet(&waiting, move || {
            hello(stream, peer, server.as_ref(), &told)
        });
    }
}

/// Reads the first words, and hands the connection to whom it concerns.
fn hello(
    stream: TcpStream,
    peer: SocketAddr,
    server: Option<&FileServer>,
    told: &Sender<Incoming>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(FIRST_WORDS))?;
    let mut first = [0];
    if stream.peek(&mut first)? == 1 && is_hello(&first) {
        // Who has no TLS closes at once: the other tries in clear.
        let Some(tls) = server.and_then(FileServer::tls) else {
            return Ok(());
        };
        let mut stream = Stream::from(stream);
        stream.secure(tls.accept().map_err(io::Error::other)?);
        return hear(stream, peer, Vec::new(), server, told);
    }
    hear(stream.into(), peer, Vec::new(), server, told)
}

/// As [`hello`], of a connection of which `words` were read already.
fn hear(
    mut stream: Stream,
    peer: SocketAddr,
    mut words: Vec<u8>,
    server: Option<&FileServer>,
    told: &Sender<Incoming>,
) -> io::Result<()> {
    stream.tcp().set_read_timeout(Some(FIRST_WORDS))?;
    let mut buf = [0; 1024];
    loop {
        match Opening::read(&words) {
            Ok(None) => {
                let n = stream.read(&mut buf)?;
                if n == 0 {
                    return Ok(());
                }
                words.extend_from_slice(buf.get(..n).unwrap_or_default());
            }
            Ok(Some((opening, used))) => {
                // The sharer waits for our request: nothing may follow.
                if used == words.len() {
                    stream.tcp().set_read_timeout(None)?;
                    // If the download is gone or busy, the connection ends here.
                    let _ = told.try_send(Incoming {
                        opening,
                        stream,
                        peer,
                    });
                }
                return Ok(());
            }
            Err(()) => {
                stream.tcp().set_read_timeout(None)?;
                if let Some(server) = server {
                    server.serve(stream, peer, words);
                }
                return Ok(());
            }
        }
    }
}
