//! Files of the overlay for the hub's users: a data port as any sharer's, behind which what is asked
//! for is fetched by its SHA-1 from whoever has it, and sent on as it is verified.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shoal_base::Rng;
use shoal_gnutella::http::files::{Files, Lookup};
use shoal_gnutella::huge::{TigerRoot, Urn};
use shoal_napster::client::Login;
use shoal_store::Served;

use crate::accept;
use crate::gnutella::transfer::{Download, DownloadEvent, DownloadSettings, Openable, PartialFile};
use crate::napster::{prepare, read_request};
use crate::outbound::Outbound;

/// Files told of to the hub's users, at most; the oldest are forgotten.
const MAX_OFFERS: usize = 10_000;
/// Hosts remembered of one file.
const MAX_HOSTS: usize = 16;
/// Files fetched at once, and connections served.
const MAX_FETCHES: usize = 8;
const MAX_CONNECTIONS: usize = 64;
/// How long who was let in may take to come.
const PROMISED: Duration = Duration::from_secs(300);
/// How long nothing may come before a fetch is given up.
const STALL: Duration = Duration::from_secs(60);
/// How often what has come is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes sent at once.
const CHUNK: usize = 64 << 10;

/// A file of the overlay.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) sha1: [u8; 20],
    pub(super) tiger: Option<[u8; 24]>,
    pub(super) len: u64,
    pub(super) hosts: Vec<SocketAddr>,
}

/// How a fetch stands.
#[derive(Debug, Clone)]
enum State {
    Coming,
    Whole(PathBuf),
    Failed,
}

/// A file on its way.
#[derive(Debug)]
struct Fetching {
    partial: PartialFile,
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Who is being sent it, and when it was last needed.
    used: Mutex<(usize, Instant)>,
}

impl Fetching {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is there from `at` on: where it is, and how far it goes.
    fn from(&self, at: u64, offer: &Offer) -> io::Result<(Served, u64)> {
        let mut since = Instant::now();
        let mut had = 0;
        loop {
            let state = self.state().clone();
            match state {
                State::Whole(path) => return Ok((Served::open(&path)?, offer.len)),
                State::Failed => return Err(io::ErrorKind::NotFound.into()),
                State::Coming => {}
            }
            if let Lookup::Found(part) = self.partial.by_urn(&Urn::Sha1(offer.sha1)) {
                let whole = part.available.is_none().then_some(offer.len);
                let mut parts = part.available.iter().flat_map(|set| set.iter());
                let end = whole.or_else(|| parts.find(|r| r.contains(&at)).map(|r| r.end));
                // It gets its name when all is there: then the next look finds it.
                let open = end.and_then(|end| Some((self.partial.open(part.key).ok()?, end)));
                if let Some(open) = open {
                    return Ok(open);
                }
                let bytes = part.available.as_ref().map_or(0, |set| set.bytes());
                if bytes > had {
                    (had, since) = (bytes, Instant::now());
                }
            }
            if since.elapsed() >= STALL {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let state = self.state();
            if matches!(*state, State::Coming) {
                drop(self.changed.wait_timeout(state, LOOK));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Books {
    offers: BTreeMap<Vec<u8>, Offer>,
    order: VecDeque<Vec<u8>>,
    promised: Vec<(String, Vec<u8>, Instant)>,
    fetches: BTreeMap<[u8; 20], Arc<Fetching>>,
    connections: usize,
}

#[derive(Debug)]
struct Desk {
    dir: PathBuf,
    local: IpAddr,
    rng: Mutex<Rng>,
    books: Mutex<Books>,
    stop: AtomicBool,
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The port, listening; dropping it stops it.
#[derive(Debug)]
pub(super) struct Lender {
    desk: Arc<Desk>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Lender {
    /// Listens at any port of `ip`; what is fetched is kept in `dir`.
    ///
    /// # Errors
    /// It cannot be listened at, or no thread be made.
    pub(super) fn open(ip: IpAddr, dir: PathBuf, rng: Rng) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(ip, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let desk = Arc::new(Desk {
            dir,
            local: ip,
            rng: Mutex::new(rng),
            books: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let at = Arc::clone(&desk);
        let thread = thread::Builder::new()
            .name("supernode-lend".into())
            .spawn(move || accept(&listener, &at))?;
        Ok(Self {
            desk,
            port,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// A file may be asked for at this path.
    pub(super) fn offer(&self, path: &[u8], offer: Offer) {
        let mut books = self.desk.books();
        if let Some(known) = books.offers.get_mut(path) {
            for host in offer.hosts {
                if known.hosts.len() < MAX_HOSTS && !known.hosts.contains(&host) {
                    known.hosts.push(host);
                }
            }
            return;
        }
        if books.offers.len() >= MAX_OFFERS
            && let Some(oldest) = books.order.pop_front()
        {
            books.offers.remove(&oldest);
        }
        books.order.push_back(path.to_vec());
        books.offers.insert(path.to_vec(), offer);
    }

    /// Somebody wants the file at a path: it is fetched from now on. False if it is not known, or too
    /// many are fetched.
    pub(super) fn promise(&self, nick: &str, path: &[u8]) -> bool {
        let mut books = self.desk.books();
        let Some(offer) = books.offers.get(path).cloned() else {
            return false;
        };
        books.promised.retain(|(_, _, at)| at.elapsed() < PROMISED);
        if books.promised.len() >= MAX_CONNECTIONS {
            return false;
        }
        if !fetch(&self.desk, &mut books, &offer) {
            return false;
        }
        books
            .promised
            .push((nick.to_owned(), path.to_vec(), Instant::now()));
        true
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the port for the hub's users panicked");
        }
    }
}

/// Sees to it that a file is fetched, or there.
fn fetch(desk: &Arc<Desk>, books: &mut Books, offer: &Offer) -> bool {
    if let Some(known) = books.fetches.get(&offer.sha1) {
        if !matches!(*known.state(), State::Failed) {
            known.used().1 = Instant::now();
            return true;
        }
        books.fetches.remove(&offer.sha1);
    }
    if books.fetches.len() >= MAX_FETCHES {
        let idle = books
            .fetches
            .iter()
            .filter(|(_, f)| f.used().0 == 0 && !matches!(*f.state(), State::Coming));
        let oldest = idle.min_by_key(|(_, f)| f.used().1).map(|(sha1, _)| *sha1);
        let Some(old) = oldest.and_then(|sha1| books.fetches.remove(&sha1)) else {
            return false;
        };
        forget(&old.dir);
    }
    let dir = desk.dir.join(shoal_base::id::to_hex(&offer.sha1));
    let fetching = Arc::new(Fetching {
        partial: PartialFile::default(),
        dir: dir.clone(),
        state: Mutex::new(State::Coming),
        changed: Condvar::new(),
        used: Mutex::new((0, Instant::now())),
    });
    let (at, of, with) = (Arc::clone(desk), Arc::clone(&fetching), offer.clone());
    let spawned = thread::Builder::new()
        .name("supernode-fetch".into())
        .spawn(move || {
            let state = match run(&at, &of, &with) {
                Ok(path) => State::Whole(path),
                Err(why) => {
                    tracing::warn!(why, "a file for a user of the hub cannot be had");
                    State::Failed
                }
            };
            *of.state() = state;
            of.changed.notify_all();
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a file");
        return false;
    }
    books.fetches.insert(offer.sha1, fetching);
    true
}

fn forget(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::debug!(path = %dir.display(), %error, "what was fetched stays on the disk");
    }
}

/// Fetches a file: where it is then.
fn run(desk: &Desk, of: &Fetching, offer: &Offer) -> Result<PathBuf, String> {
    let (files, state) = (of.dir.join("files"), of.dir.join("state"));
    for dir in [&files, &state] {
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    }
    let rng = desk.rng.lock().map(|mut rng| rng.fork());
    let download = Download::start(DownloadSettings {
        urn: match offer.tiger {
            Some(root) => Urn::Bitprint(offer.sha1, TigerRoot(root)),
            None => Urn::Sha1(offer.sha1),
        },
        name: Some("file".to_owned()),
        len: Some(offer.len),
        from: offer.hosts.clone(),
        tls: false,
        tls_hosts: Vec::new(),
        sources: Vec::new(),
        hub_login: Login::default(),
        dir: files,
        state_dir: state,
        data_ip: None,
        outbound: Outbound::of(Some(SocketAddr::new(desk.local, 0))),
        max_sources: MAX_HOSTS,
        listener: None,
        awaits_more: false,
        partial: Some(of.partial.clone()),
        rng: rng.map_err(|e| e.to_string())?,
    });
    let download = download.map_err(|e| e.to_string())?;
    while !desk.stop.load(Ordering::Acquire) {
        match download.events.recv_timeout(LOOK) {
            Ok(DownloadEvent::Complete { path }) => return Ok(path),
            Ok(DownloadEvent::Ended(why)) => return Err(why.to_string()),
            Ok(_) => {}
            Err(error) if error.is_timeout() => {}
            Err(_) => return Err("the download stopped".to_owned()),
        }
    }
    Err("the node ends".to_owned())
}

fn accept(listener: &TcpListener, desk: &Arc<Desk>) {
    while let Some((stream, peer)) = accept::wait(listener, &desk.stop) {
        {
            let mut books = desk.books();
            if books.connections >= MAX_CONNECTIONS {
                continue;
            }
            books.connections += 1;
        }
        let at = Arc::clone(desk);
        let spawned = thread::Builder::new()
            .name("supernode-lend".into())
            .spawn(move || {
                if let Err(error) = serve(&at, stream) {
                    tracing::debug!(%peer, %error, "a user of the hub was not served");
                }
                at.books().connections -= 1;
            });
        if spawned.is_err() {
            desk.books().connections -= 1;
        }
    }
}

fn serve(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    stream.write_all(b"1")?;
    let mut verb = [0; 3];
    stream.read_exact(&mut verb)?;
    if verb != *b"GET" {
        return stream.write_all(b"INVALID REQUEST");
    }
    let request = read_request(&mut stream, Vec::new())?;
    let nick = String::from_utf8_lossy(&request.nick).into_owned();
    let found = {
        let mut books = desk.books();
        let is = |(n, p, at): &(String, Vec<u8>, Instant)| {
            n.eq_ignore_ascii_case(&nick) && *p == request.path && at.elapsed() < PROMISED
        };
        let promised = books.promised.iter().position(is);
        promised.map(|at| books.promised.remove(at));
        let offer = books.offers.get(&request.path).cloned();
        let fetching = offer.as_ref().and_then(|o| books.fetches.get(&o.sha1));
        fetching.cloned().zip(offer).filter(|_| promised.is_some())
    };
    let Some((fetching, offer)) = found else {
        return stream.write_all(b"INVALID REQUEST");
    };
    fetching.used().0 += 1;
    let sent = send(&mut stream, &fetching, &offer, request.number);
    let mut used = fetching.used();
    *used = (used.0.saturating_sub(1), Instant::now());
    sent
}

/// Sends a file from an offset on, as it comes. Its length is told first, as soon as there is
/// something of it: who hears nothing asks another.
fn send(stream: &mut TcpStream, of: &Fetching, offer: &Offer, from: u64) -> io::Result<()> {
    let mut at = from;
    if at >= offer.len {
        return stream.write_all(offer.len.to_string().as_bytes());
    }
    let mut buf = vec![0; CHUNK];
    let mut told = false;
    while at < offer.len {
        let (file, end) = of.from(at, offer)?;
        if !told {
            stream.write_all(offer.len.to_string().as_bytes())?;
            told = true;
        }
        while at < end {
            let want = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let n = file.read_at(at, buf.get_mut(..want).unwrap_or_default())?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            stream.write_all(buf.get(..n).unwrap_or_default())?;
            at += n as u64;
        }
    }
    Ok(())
}
