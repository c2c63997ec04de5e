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

use super::server::FileServer;

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
    pub stream: TcpStream,
    /// From where.
    pub peer: SocketAddr,
}

/// A listening socket; closed when dropped.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
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
            stop,
            incoming,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut to = self.addr;
        if to.ip().is_unspecified() {
            to.set_ip(match to {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&to, Duration::from_secs(1));
    }
}

fn accept(
    listener: &TcpListener,
    stop: &Arc<AtomicBool>,
    server: Option<&FileServer>,
    told: &Sender<Incoming>,
) {
    let waiting = Arc::new(());
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                // Out of descriptors, most likely: the next try would fail at once too.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if Arc::strong_count(&waiting) > MAX_WAITING {
            continue;
        }
        let (server, told) = (server.cloned(), told.clone());
        let counted = Arc::clone(&waiting);
        let spawned = thread::Builder::new()
            .name("gnutella-hello".into())
            .stack_size(128 << 10)
            .spawn(move || {
                if let Err(error) = hello(stream, peer, server.as_ref(), &told) {
                    tracing::debug!(%peer, %error, "a connection said nothing of use");
                }
                drop(counted);
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
        }
    }
}

/// Reads the first words, and hands the connection to whom it concerns.
fn hello(
    mut stream: TcpStream,
    peer: SocketAddr,
    server: Option<&FileServer>,
    told: &Sender<Incoming>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(FIRST_WORDS))?;
    let mut words = Vec::new();
    let mut buf = [0; 1024];
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        words.extend_from_slice(buf.get(..n).unwrap_or_default());
        match Opening::read(&words) {
            Ok(None) => {}
            Ok(Some((opening, used))) => {
                // The sharer waits for our request: nothing may follow.
                if used == words.len() {
                    stream.set_read_timeout(None)?;
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
                stream.set_read_timeout(None)?;
                if let Some(server) = server {
                    server.serve(stream, words);
                }
                return Ok(());
            }
        }
    }
}
