//! A client's data port: who connects wants a file of ours (GET), brings one that we asked for
//! and could not fetch (SEND), or does the same with lists of files (GETLIST, SENDLIST).

use crate::accept;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_napster::client::Place;
use shoal_napster::file::Facts;
use shoal_napster::transfer::{MAX_REQUEST, Request};
use shoal_store::Served;

use super::browse::{self, List};

/// How long the other end of a transfer may be silent.
pub(super) const STALL: Duration = Duration::from_secs(30);
/// How long an accepted download may take to begin.
const ACCEPTED: Duration = Duration::from_secs(300);
/// Connections served at once, transfers and those that are not yet any.
const MAX_CONNECTIONS: usize = 64;
/// Bytes sent at once.
const CHUNK: usize = 64 << 10;

/// What happened at the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    /// Somebody downloads.
    Began {
        /// Who.
        nick: String,
        /// What.
        path: Vec<u8>,
    },
    /// No more.
    Ended {
        /// Who.
        nick: String,
        /// What.
        path: Vec<u8>,
        /// Bytes sent.
        bytes: u64,
        /// Whether that was all of it.
        whole: bool,
    },
}

/// A file that is shared.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Where it is.
    pub disk: PathBuf,
    /// What is told of it.
    pub facts: Facts,
}

/// What is shared, by the paths that the hub is told.
pub type Offers = BTreeMap<Vec<u8>, Offer>;

/// A file that somebody brings: the connection, and the size that was told.
pub(super) type Brought = (TcpStream, u64);

#[derive(Debug, Default)]
struct Books {
    /// Downloads that we accepted.
    accepted: Vec<(String, Vec<u8>, Instant)>,
    /// Lists that we promised, and since when.
    promised: Vec<Instant>,
    uploads: usize,
    connections: usize,
    /// Files that we wait for.
    awaited: BTreeMap<(String, Vec<u8>), Sender<Brought>>,
    /// The list that we wait for, and whose.
    awaited_list: Option<(String, Sender<List>)>,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) nick: String,
    slots: usize,
    files: Mutex<Arc<Offers>>,
    books: Mutex<Books>,
    news: Sender<Upload>,
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is shared now.
    pub(super) fn files(&self) -> Arc<Offers> {
        Arc::clone(&self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The port, listening. Dropping it stops it; transfers under way go on.
#[derive(Debug)]
pub struct DataPort {
    addr: Option<SocketAddr>,
    desk: Arc<Desk>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What happens.
    pub news: Receiver<Upload>,
}

impl DataPort {
    /// Listens, or does not (`listen` none: a client behind a firewall). `files` are what may be
    /// fetched, by the paths that the hub was told.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread be made.
    pub fn open(
        listen: Option<SocketAddr>,
        nick: &str,
        files: Offers,
        slots: usize,
    ) -> io::Result<Self> {
        let (tell, news) = unbounded();
        let desk = Arc::new(Desk {
            nick: nick.to_owned(),
            slots,
            files: Mutex::new(Arc::new(files)),
            books: Mutex::default(),
            news: tell,
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (mut addr, mut thread) = (None, None);
        if let Some(listen) = listen {
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            addr = Some(listener.local_addr()?);
            let (desk, stop) = (Arc::clone(&desk), Arc::clone(&stop));
            let builder = thread::Builder::new().name("napster-port".into());
            thread = Some(builder.spawn(move || accept(&listener, &desk, &stop))?);
        }
        Ok(Self {
            addr,
            desk,
            stop,
            thread,
            news,
        })
    }

    /// Where it listens, if it does.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// The port as a hub is to be told: zero if nobody can connect.
    pub fn port(&self) -> u16 {
        self.addr.map_or(0, |a| a.port())
    }

    /// Whether somebody may download now; remembers that it was accepted.
    pub fn accept(&self, nick: &str, path: &[u8]) -> bool {
        let mut books = self.desk.books();
        books.accepted.retain(|(_, _, at)| at.elapsed() < ACCEPTED);
        let known = self.desk.files().contains_key(path);
        let busy = books.uploads + books.accepted.len() >= self.desk.slots.max(1) * 2;
        if !known || books.uploads >= self.desk.slots || busy {
            return false;
        }
        let again = |(n, p, _): &(String, Vec<u8>, Instant)| n == nick && p == path;
        if !books.accepted.iter().any(again) {
            books
                .accepted
                .push((nick.to_owned(), path.to_vec(), Instant::now()));
        }
        true
    }

    /// What is shared.
    pub fn offers(&self) -> Arc<Offers> {
        self.desk.files()
    }

    /// Shares these from now on, and nothing else; uploads under way go on.
    pub fn set_offers(&self, files: Offers) {
        let mut held = self
            .desk
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(files);
    }

    /// Promises a list of what is shared to somebody who will ask for it; whether it may.
    pub fn accept_browse(&self) -> bool {
        let mut books = self.desk.books();
        books.promised.retain(|at| at.elapsed() < ACCEPTED);
        let room = books.promised.len() < MAX_CONNECTIONS;
        if room {
            books.promised.push(Instant::now());
        }
        room
    }

    /// Takes the list to who cannot fetch it: the hub said where (640).
    pub fn bring_list(&self, place: &Place) {
        let addr = SocketAddr::from((place.ip, place.port));
        self.dial("napster-list", move |desk| browse::bring(desk, addr));
    }

    /// Waits for the list that a user is to bring.
    pub(super) fn expect_list(&self, nick: &str) -> Receiver<List> {
        let (send, receive) = crossbeam_channel::bounded(1);
        self.desk.books().awaited_list = Some((nick.to_owned(), send));
        receive
    }

    /// Uploads at once.
    pub fn slots(&self) -> usize {
        self.desk.slots
    }

    /// Takes a file to who cannot fetch it: the hub said where (501).
    pub fn bring(&self, place: &Place) {
        let place = place.clone();
        if self.desk.files().contains_key(&place.path) {
            self.dial("napster-push", move |desk| push(desk, &place));
        }
    }

    /// Connects to somebody on a thread of its own, if there is room for one.
    fn dial(&self, name: &str, bring: impl FnOnce(&Desk) -> io::Result<()> + Send + 'static) {
        if !enter(&self.desk) {
            return;
        }
        let desk = Arc::clone(&self.desk);
        let spawned = thread::Builder::new().name(name.into()).spawn(move || {
            if let Err(error) = bring(&desk) {
                tracing::debug!(%error, "what was to be brought was not");
            }
            desk.books().connections -= 1;
        });
        if spawned.is_err() {
            self.desk.books().connections -= 1;
        }
    }

    /// Serves those who come by another way than to the port, such as the overlay.
    pub fn entrance(&self) -> Entrance {
        Entrance(Arc::clone(&self.desk))
    }

    /// Waits for a file that its sharer is to bring.
    pub(super) fn expect(&self, nick: &str, path: &[u8]) -> Receiver<Brought> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let key = (nick.to_owned(), path.to_vec());
        self.desk.books().awaited.insert(key, send);
        receive
    }
}

impl Drop for DataPort {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the data port's thread panicked");
        }
    }
}

/// Serves connections of those whom no hub announces: they get a file if a slot is free.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<Desk>);

impl Entrance {
    /// Serves one, and returns when it is over.
    pub fn take(&self, stream: TcpStream) {
        if !enter(&self.0) {
            return;
        }
        if let Err(error) = serve(&self.0, stream, Announced::No) {
            tracing::debug!(%error, "a connection by the overlay failed");
        }
        self.0.books().connections -= 1;
    }
}

/// Whether a hub tells before that somebody will come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    Yes,
    No,
}

fn enter(desk: &Desk) -> bool {
    let mut books = desk.books();
    let room = books.connections < MAX_CONNECTIONS;
    books.connections += usize::from(room);
    room
}

fn accept(listener: &TcpListener, desk: &Arc<Desk>, stop: &AtomicBool) {
    while let Some((stream, _)) = accept::wait(listener, stop) {
        if !enter(desk) {
            continue;
        }
        let at = Arc::clone(desk);
        let spawned = thread::Builder::new()
            .name("napster-peer".into())
            .spawn(move || {
                if let Err(error) = serve(&at, stream, Announced::Yes) {
                    tracing::debug!(%error, "a connection to the data port failed");
                }
                at.books().connections -= 1;
            });
        if spawned.is_err() {
            desk.books().connections -= 1;
        }
    }
}

pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))
}

/// Waits for the `1` that whoever is connected to says first.
pub(super) fn greeted(stream: &mut TcpStream) -> io::Result<()> {
    let mut one = [0];
    stream.read_exact(&mut one)?;
    match one {
        [b'1'] => Ok(()),
        _ => Err(bad("the other end does not greet")),
    }
}

pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads a request that has no end of its own.
pub(crate) fn read_request(stream: &mut TcpStream, mut data: Vec<u8>) -> io::Result<Request> {
    let mut buf = [0; MAX_REQUEST];
    while !Request::is_whole(&data) {
        let n = stream.read(&mut buf)?;
        data.extend_from_slice(buf.get(..n).unwrap_or_default());
        if n == 0 || data.len() > MAX_REQUEST {
            return Err(bad("no request"));
        }
    }
    Request::parse(&data).map_err(|e| bad(&e.to_string()))
}

fn serve(desk: &Desk, mut stream: TcpStream, announced: Announced) -> io::Result<()> {
    prepare(&stream)?;
    stream.write_all(b"1")?;
    // No more is read than the verb: what follows may be a list.
    let mut verb = [0; 3];
    stream.read_exact(&mut verb)?;
    if verb == *b"SEN" {
        stream.read_exact(&mut [0])?;
        let Some(rest) = browse::not_a_list(&mut stream)? else {
            let awaited = desk.books().awaited_list.take();
            if let Some((nick, to)) = awaited {
                let _ = to.send(browse::read(&mut stream, &nick)?);
            }
            return Ok(());
        };
        let request = read_request(&mut stream, rest)?;
        let nick = String::from_utf8_lossy(&request.nick).into_owned();
        let awaited = desk.books().awaited.remove(&(nick, request.path));
        match awaited {
            Some(to) => {
                let _ = to.send((stream, request.number));
            }
            None => stream.write_all(b"INVALID REQUEST")?,
        }
        return Ok(());
    }
    if verb != *b"GET" {
        return stream.write_all(b"INVALID REQUEST");
    }
    let Some(rest) = browse::not_a_list(&mut stream)? else {
        let promised = desk.books().promised.pop().is_some();
        return match promised {
            true => browse::send(desk, &mut stream),
            false => stream.write_all(b"INVALID REQUEST"),
        };
    };
    let request = read_request(&mut stream, rest)?;
    let nick = String::from_utf8_lossy(&request.nick).into_owned();
    let files = desk.files();
    let Some(offer) = files.get(&request.path) else {
        return stream.write_all(b"FILE NOT SHARED");
    };
    {
        let mut books = desk.books();
        let is = |(n, p, at): &(String, Vec<u8>, Instant)| {
            n.eq_ignore_ascii_case(&nick) && *p == request.path && at.elapsed() < ACCEPTED
        };
        let at = books.accepted.iter().position(is);
        let expected = at.is_some() || announced == Announced::No;
        if expected && books.uploads < desk.slots {
            if let Some(at) = at {
                books.accepted.remove(at);
            }
            books.uploads += 1;
        } else {
            drop(books);
            return stream.write_all(b"INVALID REQUEST");
        }
    }
    let sent = Served::open(&offer.disk).and_then(|file| {
        stream.write_all(file.len().to_string().as_bytes())?;
        Ok(file)
    });
    let file = match sent {
        Ok(file) => file,
        Err(e) => {
            desk.books().uploads -= 1;
            return Err(e);
        }
    };
    send(
        desk,
        &mut stream,
        &file,
        &nick,
        &request.path,
        request.number,
    )
}

/// Sends a file from an offset; the slot was taken.
fn send(
    desk: &Desk,
    stream: &mut TcpStream,
    file: &Served,
    nick: &str,
    path: &[u8],
    from: u64,
) -> io::Result<()> {
    let (nick, path) = (nick.to_owned(), path.to_vec());
    let _ = desk.news.send(Upload::Began {
        nick: nick.clone(),
        path: path.clone(),
    });
    let mut at = from;
    let mut buf = vec![0; CHUNK];
    let result = loop {
        let n = match file.read_at(at, &mut buf) {
            Ok(n) => n,
            Err(e) => break Err(e),
        };
        // What was appended to the file since is not what was told.
        let n = n.min(usize::try_from(file.len().saturating_sub(at)).unwrap_or(n));
        if n == 0 {
            break Ok(());
        }
        if let Err(e) = stream.write_all(buf.get(..n).unwrap_or_default()) {
            break Err(e);
        }
        at += n as u64;
    };
    desk.books().uploads -= 1;
    let _ = desk.news.send(Upload::Ended {
        nick,
        path,
        bytes: at - from,
        whole: at == file.len(),
    });
    result
}

fn push(desk: &Desk, place: &Place) -> io::Result<()> {
    let addr = SocketAddr::from((place.ip, place.port));
    let mut stream = TcpStream::connect_timeout(&addr, STALL)?;
    prepare(&stream)?;
    greeted(&mut stream)?;
    let files = desk.files();
    let Some(offer) = files.get(&place.path) else {
        return Ok(());
    };
    let file = Served::open(&offer.disk)?;
    let mut said = Vec::new();
    Request {
        nick: desk.nick.clone().into_bytes(),
        path: place.path.clone(),
        number: file.len(),
    }
    .put(&mut said);
    stream.write_all(b"SEND")?;
    stream.write_all(&said)?;
    let mut buf = [0; 64];
    let n = stream.read(&mut buf)?;
    let digits = buf.get(..n).unwrap_or_default();
    let Some(from) = shoal_napster::fields::number(digits) else {
        return Err(bad("the downloader refuses"));
    };
    {
        let mut books = desk.books();
        if books.uploads >= desk.slots {
            return Err(bad("no free slot"));
        }
        books.uploads += 1;
        books
            .accepted
            .retain(|(n, p, _)| *n != place.nick || *p != place.path);
    }
    send(desk, &mut stream, &file, &place.nick, &place.path, from)
}
