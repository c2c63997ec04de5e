//! The hub's driver: one thread, all connections, one core.
//!
//! ```text
//!  napster-hub    sockets (mio) and the hub
//!  napster-hash   passwords, one at a time: each takes milliseconds and 19 MiB
//!  napster-keep   the file of records
//! ```

mod streams;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use shoal_base::{Rng, Time};
use shoal_napster::hub::{Account, Config, ConnId, Effect, Hub, Level, Record, Stats};
use shoal_napster::{frame, kind};
use socket2::{Domain, Protocol, Socket, Type};

use super::keeper::{Keeper, KeeperError};
use super::password;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Bytes read from one connection before others have their turn.
const TURN: usize = 64 << 10;
/// How often the statistics are brought up to date, and linked hubs dialled.
const LOOK: Duration = Duration::from_secs(1);

/// Settings of a hub that serves.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Where to listen; port zero chooses one.
    pub listen: SocketAddr,
    /// The folder of what must not be forgotten; none to forget all at the end.
    pub dir: Option<PathBuf>,
    /// Nick and password of one who may do everything.
    pub admin: Option<(Vec<u8>, Vec<u8>)>,
    /// Hubs to link with.
    pub links: Vec<SocketAddr>,
    /// What the hub allows.
    pub hub: Config,
    /// Decides secrets; none for unpredictable ones.
    pub seed: Option<u64>,
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What an earlier run kept cannot be read.
    #[error("cannot use {}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeeperError,
    },
    /// A thread or a poller could not be made.
    #[error("cannot start the hub")]
    Worker(#[from] io::Error),
}

/// A hub that is serving. Dropping it stops it.
#[derive(Debug)]
pub struct HubServer {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    stats: Arc<Mutex<Stats>>,
    thread: Option<JoinHandle<()>>,
}

impl HubServer {
    /// Reads what was kept, listens, and starts the threads.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn start(mut settings: HubSettings) -> Result<Self, HubError> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let seed = settings.seed.unwrap_or(u64::from_le_bytes(seed));
        let mut rng = Rng::from_seed(seed);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        settings.hub.epoch = unix.map_or(0, |d| d.as_secs());
        raise_descriptors(settings.hub.max_connections);
        let mut hub = Hub::new(settings.hub.clone(), rng.fork());
        let path = settings.dir.as_ref().map(|d| d.join("hub"));
        let keeper = path.map(|path| {
            Keeper::open(&path, &mut hub).map_err(|source| HubError::Records { path, source })
        });
        let keeper = keeper.transpose()?;
        if let Some((nick, password)) = &settings.admin {
            let mut salt = [0; 16];
            rng.fill(&mut salt);
            let hash = password::hash(password, &salt).unwrap_or_default();
            let admin = Record::Account(Account {
                nick: nick.clone(),
                hash,
                level: Level::Elite,
                ..Account::default()
            });
            hub.restore(admin.clone());
            if let Some(keeper) = &keeper {
                keeper.keep(admin);
            }
        }
        let address = settings.listen;
        let listener = listen(address).map_err(|source| HubError::Bind { address, source })?;
        let addr = listener.local_addr()?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (ask, asked) = unbounded();
        let (answer, answered) = unbounded();
        let wake = Arc::clone(&waker);
        thread::Builder::new()
            .name("napster-hash".into())
            .spawn(move || hash_passwords(&asked, &answer, &wake, rng))?;
        let stats = Arc::new(Mutex::new(hub.stats()));
        let worker = Worker {
            poll,
            listener,
            hub,
            started: Instant::now(),
            streams: Vec::new(),
            busy: Vec::new(),
            todo: VecDeque::new(),
            buf: vec![0; TURN].into_boxed_slice(),
            ask,
            answered,
            keeper,
            dials: settings.links.iter().map(|addr| Dial::new(*addr)).collect(),
            stats: Arc::clone(&stats),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("napster-hub".into())
            .spawn(move || worker.run(&flag))?;
        Ok(Self {
            addr,
            stop,
            waker,
            stats,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it held and had done a second ago at most.
    pub fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all users, closes all connections, and writes what is to be kept.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the hub's thread panicked");
        }
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A listener whose address may be used again at once.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Lets the process have as many open files as connections are allowed, if the system does.
fn raise_descriptors(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let want = connections as u64 + 64;
    if limit.current.is_some_and(|now| now < want) {
        limit.current = Some(limit.maximum.map_or(want, |most| most.min(want)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

enum Question {
    Verify(ConnId, Vec<u8>, Vec<u8>),
    Hash(ConnId, Vec<u8>),
}

enum Answer {
    Verified(ConnId, bool),
    Hashed(ConnId, Vec<u8>),
}

fn hash_passwords(
    asked: &Receiver<Question>,
    answer: &Sender<Answer>,
    waker: &Waker,
    mut rng: Rng,
) {
    for question in asked {
        let result = match question {
            Question::Verify(conn, given, hash) => {
                Answer::Verified(conn, password::verify(&given, &hash))
            }
            Question::Hash(conn, given) => {
                let mut salt = [0; 16];
                rng.fill(&mut salt);
                Answer::Hashed(conn, password::hash(&given, &salt).unwrap_or_default())
            }
        };
        if answer.send(result).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

struct Stream {
    id: ConnId,
    tcp: TcpStream,
    readable: bool,
    /// The other end sends no more: what is left is to be read to its end.
    over: bool,
}

/// A hub to link with.
struct Dial {
    addr: SocketAddr,
    conn: Option<ConnId>,
    next: Time,
    wait: Duration,
}

impl Dial {
    fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            conn: None,
            next: Time::ZERO,
            wait: LOOK,
        }
    }
}

struct Worker {
    poll: Poll,
    listener: TcpListener,
    hub: Hub,
    started: Instant,
    streams: Vec<Option<Stream>>,
    /// Connections whose turn ended before they were done.
    busy: Vec<ConnId>,
    todo: VecDeque<Effect>,
    buf: Box<[u8]>,
    ask: Sender<Question>,
    answered: Receiver<Answer>,
    keeper: Option<Keeper>,
    dials: Vec<Dial>,
    stats: Arc<Mutex<Stats>>,
}

impl Worker {
    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn run(mut self, stop: &AtomicBool) {
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut self.listener, LISTENER, Interest::READABLE) {
            return tracing::error!(%error, "the hub cannot listen");
        }
        let mut events = Events::with_capacity(1024);
        let mut look = self.now();
        while !stop.load(Ordering::Acquire) {
            let due = look.min(self.hub.deadline());
            let wait = if self.busy.is_empty() {
                due.since(self.now())
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return tracing::error!(%error, "the hub cannot wait for events");
            }
            for id in std::mem::take(&mut self.busy) {
                self.read(id);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    Token(slot) => {
                        let over = event.is_read_closed() || event.is_error();
                        self.ready(slot, event.is_readable(), event.is_writable(), over);
                    }
                }
            }
            while let Ok(answer) = self.answered.try_recv() {
                self.hashed(answer);
            }
            let now = self.now();
            if now >= self.hub.deadline() {
                let mut out = Vec::new();
                self.hub.on_tick(now, &mut out);
                self.act(out);
            }
            self.work();
            if now >= look {
                look = now + LOOK;
                *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.hub.stats();
                self.dial(now);
                // Those left waiting when descriptors ran out.
                self.accept();
            }
        }
        self.farewell();
    }

    fn stream(&mut self, id: ConnId) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(id.slot())?.as_mut()?;
        (stream.id == id).then_some(stream)
    }

    fn hashed(&mut self, answer: Answer) {
        let now = self.now();
        let mut out = Vec::new();
        let id = match answer {
            Answer::Verified(id, right) => {
                self.hub.on_verified(now, id, right, &mut out);
                id
            }
            Answer::Hashed(id, hash) => {
                self.hub.on_hashed(now, id, hash, &mut out);
                id
            }
        };
        self.act(out);
        self.busy.push(id);
    }

    fn act(&mut self, effects: Vec<Effect>) {
        self.todo.extend(effects);
        self.work();
    }

    fn work(&mut self) {
        while let Some(effect) = self.todo.pop_front() {
            match effect {
                Effect::Write(id) => self.flush(id),
                Effect::Close(id) => {
                    self.flush(id);
                    self.closed(id);
                }
                Effect::Verify {
                    conn,
                    password,
                    hash,
                } => {
                    let _ = self.ask.send(Question::Verify(conn, password, hash));
                }
                Effect::Hash { conn, password } => {
                    let _ = self.ask.send(Question::Hash(conn, password));
                }
                Effect::Save(record) => {
                    if let Some(keeper) = &self.keeper {
                        keeper.keep(record);
                    }
                }
                Effect::Linked { hub, up } => {
                    let hub = String::from_utf8_lossy(&hub).into_owned();
                    tracing::info!(hub, up, "a linked hub");
                }
            }
        }
    }

    /// Dials the hubs that are to be linked and are not.
    fn dial(&mut self, now: Time) {
        for n in 0..self.dials.len() {
            let Some(dial) = self.dials.get_mut(n) else {
                return;
            };
            if dial.conn.is_some() || now < dial.next {
                continue;
            }
            dial.next = now + dial.wait;
            let addr = dial.addr;
            let Ok(tcp) = TcpStream::connect(addr) else {
                continue;
            };
            let Ok(id) = self.hub.connect(now, addr) else {
                continue;
            };
            if let Some(dial) = self.dials.get_mut(n) {
                dial.conn = Some(id);
            }
            self.open(id, tcp);
            let mut out = Vec::new();
            self.hub.on_dialled(now, id, &mut out);
            self.act(out);
        }
    }

    /// Tells who can be told at once that the hub ends.
    fn farewell(&mut self) {
        let mut bytes = Vec::new();
        frame::encode(kind::ERROR, b"the hub is going down", &mut bytes);
        for stream in self.streams.iter_mut().flatten() {
            let _ = stream.tcp.write(&bytes);
        }
    }
}
