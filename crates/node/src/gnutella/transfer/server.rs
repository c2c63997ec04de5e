//! The server of shared files: a thread for each connection, one core for all of them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_base::{Rng, Time, TokenBucket};
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::http::server::{ConnectionId, Effect, Server, ServerConfig};
use shoal_gnutella::node::Load;

use super::library::Openable;
use crate::gnutella::Control;
use crate::gnutella::tls::{Stream, Tls};

/// Uploads that ended and that nobody has heard of yet; later ones are not told.
const NEWS: usize = 1024;
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a downloader that is called may take to accept.
const DIAL: Duration = Duration::from_secs(10);
/// How long the last bytes of a connection may take.
const LINGER: Duration = Duration::from_secs(60);
/// Bytes handed to the system at once: progress is seen as often.
const CHUNK: usize = 128 << 10;
/// Bytes that are worth waiting for when uploads are limited.
const LEAST: usize = 8 << 10;
/// Stack of a connection's thread.
const STACK: usize = 256 << 10;

/// An upload that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Whose SHA-1.
    pub sha1: [u8; 20],
    /// To whom.
    pub to: SocketAddr,
    /// Bytes that went.
    pub bytes: u64,
    /// Whether that is all that was promised.
    pub whole: bool,
}

/// The server.
#[derive(Clone)]
pub struct FileServer(Arc<Inner>);

struct Inner {
    core: Mutex<Server>,
    files: Arc<dyn Openable>,
    tls: Option<Tls>,
    origin: Instant,
    next: AtomicU64,
    streams: Mutex<BTreeMap<ConnectionId, TcpStream>>,
    news: Sender<Upload>,
    proxy: OnceLock<Control>,
    limit: Mutex<TokenBucket>,
    stop: AtomicBool,
}

impl std::fmt::Debug for FileServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileServer").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileServer {
    /// A server of `files`, and what tells of its uploads. With `tls` downloaders may change to it.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn new(
        mut config: ServerConfig,
        files: Arc<dyn Openable>,
        tls: Option<Tls>,
        rng: Rng,
    ) -> io::Result<(Self, Receiver<Upload>)> {
        let (news, told) = bounded(NEWS);
        config.tls = tls.is_some();
        let inner = Arc::new(Inner {
            core: Mutex::new(Server::new(config, rng)),
            files,
            tls,
            origin: Instant::now(),
            next: AtomicU64::new(0),
            streams: Mutex::default(),
            news,
            proxy: OnceLock::new(),
            limit: Mutex::new(TokenBucket::new(None)),
            stop: AtomicBool::new(false),
        });
        let clock = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("gnutella-clock".into())
            .stack_size(STACK)
            .spawn(move || {
                // Ends with the server, or when it is stopped.
                while let Some(inner) = clock.upgrade() {
                    if inner.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    inner.tick();
                    drop(inner);
                    // The beat of the clock, as coarse as the deadlines it looks after; each
                    // connection has a thread of its own, so that nothing waits for this one.
                    thread::sleep(TICK);
                }
            })?;
        Ok((Self(inner), told))
    }

    /// Serves a connection that was accepted from there, or that was made to a downloader. `read`:
    /// bytes of it that were read already.
    pub fn serve(&self, stream: impl Into<Stream>, peer: SocketAddr, read: Vec<u8>) {
        Inner::start(&self.0, stream.into(), peer, Caller::Downloader, read);
    }

    /// Connects to a downloader that cannot connect to us, says which file that is for, and serves
    /// what it asks (a push).
    pub fn give(&self, to: SocketAddr, opening: Opening) {
        Inner::call(&self.0, to, opening);
    }

    /// Sends so many bytes a second at most, to all downloaders together.
    pub fn set_limit(&self, rate: Option<u64>) {
        lock(&self.0.limit).set_rate(rate);
    }

    /// Downloaders may ask this node to pass Pushes on to its leaves.
    pub fn set_proxy(&self, node: Control) {
        // A server has one node, which does not change.
        let _ = self.0.proxy.set(node);
    }

    /// With what connections change to TLS.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_ref()
    }

    /// Uploads at work, and downloaders that wait.
    pub fn figures(&self) -> (usize, usize) {
        lock(&self.0.core).figures()
    }

    /// What a downloader that comes now would get.
    pub fn load(&self) -> Load {
        lock(&self.0.core).load()
    }

    /// Ends all connections, and takes no more.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        for stream in lock(&self.0.streams).values() {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Inner {
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn tick(self: &Arc<Self>) {
        let mut out = Vec::new();
        let now = self.now();
        {
            let mut core = lock(&self.core);
            if core.deadline().is_none_or(|deadline| now < deadline) {
                return;
            }
            core.tick(now, &mut out);
        }
        for effect in out {
            self.elsewhere(&effect);
        }
    }

    /// Carries out what concerns no connection of the calling thread.
    fn elsewhere(self: &Arc<Self>, effect: &Effect) {
        match *effect {
            Effect::Call(call) => {
                let local = lock(&self.streams)
                    .values()
                    .find_map(|s| s.local_addr().ok());
                // Our own address, for which there is no better word than that of a connection.
                let addr = local.unwrap_or(call.node);
                Self::call(self, call.node, Opening::Queue { id: call.id, addr });
            }
            Effect::Close { connection } => {
                if let Some(stream) = lock(&self.streams).get(&connection) {
                    // It may be gone already.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
            Effect::Send { .. }
            | Effect::Secure { .. }
            | Effect::SendFile { .. }
            | Effect::Push { .. } => {}
        }
    }

    /// Waits until bytes may go out; how many of `want`.
    fn allowed(&self, want: usize) -> io::Result<usize> {
        loop {
            let now = self.now();
            let wait = {
                let mut limit = lock(&self.limit);
                let n = limit.available(now).min(want);
                if n > 0 {
                    limit.spend(n);
                    return Ok(n);
                }
                limit.ready_at(now, LEAST.min(want)).since(now)
            };
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // The upload's own thread, held back by the limit; no longer than a beat, to hear of the end.
            thread::sleep(wait.min(TICK));
        }
    }

    fn call(self: &Arc<Self>, to: SocketAddr, opening: Opening) {
        let inner = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("gnutella-call".into())
            .stack_size(STACK)
            .spawn(move || {
                let connected = TcpStream::connect_timeout(&to, DIAL).and_then(|mut stream| {
                    stream.write_all(&opening.write())?;
                    Ok(stream)
                });
                match connected {
                    Ok(stream) => {
                        Self::start(&inner, stream.into(), to, Caller::Us, Vec::new());
                    }
                    Err(error) => tracing::debug!(%to, %error, "a downloader cannot be called"),
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a call");
        }
    }

    fn start(self: &Arc<Self>, stream: Stream, peer: SocketAddr, caller: Caller, read: Vec<u8>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) || !lock(&self.core).open(self.now(), id, peer.ip()) {
            tracing::debug!(%peer, "no room for a connection");
            return;
        }
        let inner = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("gnutella-upload".into())
            .stack_size(STACK)
            .spawn(move || {
                let mut connection = Connection {
                    inner: &inner,
                    id,
                    peer,
                    caller,
                    stream,
                };
                if let Err(error) = connection.run(&read) {
                    tracing::debug!(%peer, %error, "a connection ended");
                }
                connection.end();
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
            lock(&self.core).close(self.now(), id, &mut Vec::new());
        }
    }
}

/// Who made a connection, which decides who is TLS's client on it: gtk-gnutella has it so, whoever asks
/// for the file.
#[derive(Clone, Copy)]
enum Caller {
    Downloader,
    /// We were pushed, or a place is free.
    Us,
}

/// One connection, on its thread.
struct Connection<'a> {
    inner: &'a Arc<Inner>,
    id: ConnectionId,
    peer: SocketAddr,
    caller: Caller,
    stream: Stream,
}

impl Connection<'_> {
    fn run(&mut self, read: &[u8]) -> io::Result<()> {
        let tcp = self.stream.tcp();
        let copy = tcp.try_clone()?;
        lock(&self.inner.streams).insert(self.id, copy);
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(LINGER))?;
        if self.stream.is_secure() {
            lock(&self.inner.core).secured(self.id);
        }
        let mut buf = vec![0; 16 << 10];
        if !read.is_empty() && !self.take(read)? {
            return Ok(());
        }
        loop {
            let n = self.stream.read(&mut buf)?;
            if n == 0 || !self.take(buf.get(..n).unwrap_or_default())? {
                return Ok(());
            }
        }
    }

    /// Hands bytes in and carries out what comes of it. False: the connection is over.
    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut effects = Vec::new();
        let now = self.inner.now();
        let files = &*self.inner.files;
        lock(&self.inner.core).on_bytes(now, self.id, bytes, files, &mut effects);
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Send { connection, bytes } if connection == self.id => {
                        self.stream.write_all(&bytes)?;
                    }
                    Effect::Push {
                        connection,
                        servent,
                        to,
                    } if connection == self.id => {
                        let sent = match (self.inner.proxy.get(), to) {
                            (Some(node), SocketAddr::V4(to)) => node.proxy_push(servent, to),
                            _ => false,
                        };
                        let now = self.inner.now();
                        lock(&self.inner.core).on_pushed(now, self.id, sent, files, &mut next);
                    }
                    Effect::Secure { connection } if connection == self.id => {
                        let Some(tls) = &self.inner.tls else {
                            return Ok(false);
                        };
                        let session = match self.caller {
                            Caller::Downloader => tls.accept(),
                            Caller::Us => tls.connect(),
                        };
                        self.stream.secure(session.map_err(io::Error::other)?);
                    }
                    Effect::SendFile {
                        connection,
                        file,
                        sha1,
                        range,
                    } if connection == self.id => {
                        let mut upload = Upload {
                            sha1,
                            to: self.peer,
                            bytes: 0,
                            whole: false,
                        };
                        let sent = self.send_file(file, range, &mut upload.bytes);
                        upload.whole = sent.is_ok();
                        // Whoever listens may be behind.
                        let _ = self.inner.news.try_send(upload);
                        sent?;
                        let now = self.inner.now();
                        lock(&self.inner.core).on_sent(now, self.id, files, &mut next);
                    }
                    Effect::Close { connection } if connection == self.id => return Ok(false),
                    other => self.inner.elsewhere(&other),
                }
            }
            effects = next;
        }
        Ok(true)
    }

    fn send_file(
        &mut self,
        file: u64,
        range: std::ops::Range<u64>,
        sent: &mut u64,
    ) -> io::Result<()> {
        let served = self.inner.files.open(file)?;
        let mut at = range.start;
        let secure = self.stream.is_secure();
        tracing::debug!(peer = %self.peer, secure, "an upload");
        let mut buf = if secure { vec![0; CHUNK] } else { Vec::new() };
        while at < range.end {
            let want = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let want = self.inner.allowed(want)?;
            let n = if self.stream.is_secure() {
                let part = buf.get_mut(..want).unwrap_or_default();
                let n = served.read_at(at, part)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.stream.write_all(part.get(..n).unwrap_or_default())?;
                n as u64
            } else {
                served.send_to(self.stream.tcp(), at, want)? as u64
            };
            at += n;
            *sent += n;
            lock(&self.inner.core).on_progress(self.inner.now(), self.id, n);
        }
        Ok(())
    }

    fn end(&self) {
        lock(&self.inner.streams).remove(&self.id);
        let mut out = Vec::new();
        lock(&self.inner.core).close(self.inner.now(), self.id, &mut out);
        for effect in out {
            self.inner.elsewhere(&effect);
        }
        // What was said last still goes out; nothing more is heard.
        let _ = self.stream.tcp().shutdown(Shutdown::Write);
    }
}
