//! GWebCaches over HTTP: a node asks them for hosts when it knows none, and tells them of itself; and
//! a server that is one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use shoal_base::Time;
use shoal_gnutella::gwebcache::{self, Answer, MAX_ANSWER, Request, UPDATE_EVERY};

use crate::accept;

use super::handle::Control;
use crate::http;
use crate::outbound::Outbound;

/// How often is looked whether hosts are needed.
const LOOK: Duration = Duration::from_secs(5);
/// The time between two questions, to whichever cache.
const BETWEEN: Duration = Duration::from_secs(10);
/// How soon a cache that was asked is asked again.
const AGAIN: Duration = UPDATE_EVERY;
/// How long a cache may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Caches that are known at most; others give way to those the user named.
const MAX_CACHES: usize = 50;
/// Bytes of a request's head.
const MAX_HEAD: usize = 4 << 10;
/// Fields of a request's head.
const MAX_FIELDS: usize = 32;
/// Connections of a server at once.
const MAX_CONNECTIONS: usize = 64;

/// Asks one cache.
///
/// # Errors
/// What went wrong, for people.
fn ask(url: &str, question: &str) -> Result<Answer, String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(3)
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .build();
    let agent = http::guarded_agent(config, Outbound::default());
    let joint = if url.contains('?') { '&' } else { '?' };
    let asked = agent.get(format!("{url}{joint}{question}")).call();
    let mut answer = asked.map_err(|e| e.to_string())?;
    let limit = MAX_ANSWER as u64;
    let body = answer.body_mut().with_config().limit(limit).read_to_vec();
    let answer = gwebcache::read_answer(&body.map_err(|e| e.to_string())?);
    match answer.error {
        Some(error) if answer.hosts.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// Asks caches for a node whenever it has nobody to connect to; stops when dropped.
#[derive(Debug)]
pub struct WebCaches {
    stop: Option<Sender<()>>,
}

struct Cache {
    url: String,
    asked: Option<Instant>,
}

impl WebCaches {
    /// Begins with the caches at these addresses; they tell of others. With `publish` they are told of
    /// the node too, once others reach it.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(urls: Vec<String>, node: Control, publish: bool) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let caches = urls.into_iter().map(|url| Cache { url, asked: None });
        let asking = Asking {
            caches: caches.collect(),
            node,
            publish,
            last: None,
            published: None,
        };
        thread::Builder::new()
            .name("gnutella-caches".into())
            .spawn(move || asking.run(&stopped))?;
        Ok(Self { stop: Some(stop) })
    }
}

impl Drop for WebCaches {
    fn drop(&mut self) {
        // The thread may be waiting for a cache: it ends by itself then.
        drop(self.stop.take());
    }
}

struct Asking {
    caches: VecDeque<Cache>,
    node: Control,
    publish: bool,
    last: Option<Instant>,
    published: Option<Instant>,
}

impl Asking {
    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            self.look();
            match stopped.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
    }

    fn look(&mut self) {
        let snapshot = self.node.snapshot();
        let lonely = snapshot.links.is_empty();
        let told = self.published.is_none_or(|at| at.elapsed() >= UPDATE_EVERY);
        let publish = self.publish && snapshot.reached && told;
        let ours = snapshot.listen.filter(|_| publish);
        if self.last.is_some_and(|at| at.elapsed() < BETWEEN) || !(lonely || ours.is_some()) {
            return;
        }
        let due = |c: &Cache| c.asked.is_none_or(|at| at.elapsed() >= AGAIN);
        let Some(at) = self.caches.iter().position(due) else {
            return;
        };
        let Some(mut cache) = self.caches.remove(at) else {
            return;
        };
        let now = Instant::now();
        (cache.asked, self.last) = (Some(now), Some(now));
        let question = gwebcache::get("SHOA", env!("CARGO_PKG_VERSION"), ours);
        match ask(&cache.url, &question) {
            Ok(answer) => {
                tracing::info!(
                    url = cache.url,
                    hosts = answer.hosts.len(),
                    "a cache answers"
                );
                self.node.add_hosts(answer.hosts);
                for url in answer.caches {
                    let known = self.caches.iter().any(|c| c.url == url) || cache.url == url;
                    if !known && self.caches.len() < MAX_CACHES {
                        self.caches.push_back(Cache { url, asked: None });
                    }
                }
                if ours.is_some() {
                    self.published = Some(now);
                }
            }
            Err(error) => tracing::info!(url = cache.url, error, "a cache is of no use"),
        }
        self.caches.push_back(cache);
    }
}

/// A GWebCache for others; stops when dropped.
#[derive(Debug)]
pub struct WebCacheServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    cache: Mutex<gwebcache::Server>,
    begun: Instant,
}

impl WebCacheServer {
    /// Listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let name = concat!("shoal ", env!("CARGO_PKG_VERSION"));
        let shared = Arc::new(Shared {
            cache: Mutex::new(gwebcache::Server::new(name)),
            begun: Instant::now(),
        });
        let thread = thread::Builder::new()
            .name("gwebcache".into())
            .spawn(move || accept(&listener, &stopped, &shared))?;
        Ok(Self {
            addr,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for WebCacheServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, shared: &Arc<Shared>) {
    let counted = Arc::new(());
    while let Some((stream, peer)) = accept::wait(listener, stop) {
        if Arc::strong_count(&counted) > MAX_CONNECTIONS {
            continue;
        }
        let (shared, counted) = (Arc::clone(shared), Arc::clone(&counted));
        let spawned = thread::Builder::new()
            .name("gwebcache-answer".into())
            .stack_size(128 << 10)
            .spawn(move || {
                if let Err(error) = serve(stream, peer, &shared) {
                    tracing::debug!(%peer, %error, "a request for hosts");
                }
                drop(counted);
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request");
        }
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buf = [0; 1024];
    let (status, body) = loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(buf.get(..n).unwrap_or_default());
        match target(&head) {
            Ok(Some(target)) => break answer(&target, peer.ip(), shared),
            Ok(None) if head.len() < MAX_HEAD => {}
            _ => break ("400 Bad Request", String::new()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// What a whole head asks for; none while it has not all come.
fn target(head: &[u8]) -> Result<Option<String>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if request.parse(head)?.is_partial() {
        return Ok(None);
    }
    match (request.method, request.path) {
        (Some("GET"), Some(path)) => Ok(Some(path.to_owned())),
        _ => Err(httparse::Error::Token),
    }
}

fn answer(target: &str, from: IpAddr, shared: &Shared) -> (&'static str, String) {
    let IpAddr::V4(from) = from.to_canonical() else {
        return ("403 Forbidden", "ERROR: IPv4 only\n".to_owned());
    };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let now = Time::ZERO + shared.begun.elapsed();
    let mut cache = shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
    ("200 OK", cache.answer(now, from, &Request::read(query)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_tells_one_of_the_other() {
        let server = WebCacheServer::start(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
        let url = format!("http://{}/cache", server.addr());
        let ours = "127.0.0.1:6346".parse().expect("an address");
        let first = ask(&url, &gwebcache::get("SHOA", "1", Some(ours))).expect("an answer");
        assert_eq!(first.hosts, [ours]);
        // Nobody tells of others.
        let other = "44.20.1.1:6346".parse().expect("an address");
        let second = ask(&url, &gwebcache::get("SHOA", "1", Some(other))).expect("an answer");
        assert_eq!(second.hosts, [ours]);
        let mut nonsense = TcpStream::connect(server.addr()).expect("connected");
        nonsense.write_all(b"PUT / HTTP/1.1\r\n\r\n").expect("sent");
        let mut said = String::new();
        nonsense.read_to_string(&mut said).expect("an answer");
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    }
}
