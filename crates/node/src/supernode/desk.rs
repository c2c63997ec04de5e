//! The login server and the list of supernodes, at one port or each at its own: a thread for each
//! connection, of which there are few and short ones.

use crate::accept;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_store::job::JobLog;
use shoal_supernode::Address;
use shoal_supernode::list::{ListConfig, SupernodeList};
use shoal_supernode::login::{LoginConfig, LoginServer};
use shoal_supernode::names::register::Entry;
use shoal_supernode::token::Key;
use shoal_supernode::wire::{Answer, Ask, Refusal};

use super::frames::{Frames, say};

/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const MAX_CONNECTIONS: usize = 256;

/// Who gives tokens.
#[derive(Debug)]
pub enum Logins {
    /// This server, with a key of its own.
    Here {
        /// The key that signs tokens.
        key: Box<SigningKey>,
        /// The file that keeps names, if they are to be kept.
        names: Option<PathBuf>,
        /// Limits.
        config: LoginConfig,
    },
    /// A server with this key: this one has the list alone.
    By(Key),
}

/// What the servers do.
#[derive(Debug)]
pub struct DeskSettings {
    /// Where they listen.
    pub listen: SocketAddr,
    /// Who gives tokens.
    pub logins: Logins,
    /// Limits of the list; none: there is none here.
    pub list: Option<ListConfig>,
    /// The seed of challenges.
    pub seed: u64,
}

/// Why the servers do not start.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file of names is damaged.
    #[error("line {0} is no entry of the log of names")]
    Names(usize),
}

/// What the servers hold and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeskStats {
    /// Names that are somebody's.
    pub names: u64,
    /// Supernodes on the list.
    pub supernodes: u64,
    /// Tokens given.
    pub tokens: u64,
    /// Times that the list was asked for.
    pub asked: u64,
    /// Registrations taken.
    pub registered: u64,
    /// Questions refused.
    pub refused: u64,
}

#[derive(Debug)]
struct State {
    login: Option<LoginServer>,
    list: Option<SupernodeList<SocketAddr>>,
    kept: Option<JobLog>,
    stats: DeskStats,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    start: Instant,
    conns: AtomicU64,
    open: AtomicUsize,
}

/// Both servers, running; dropping ends them.
#[derive(Debug)]
pub struct Desk {
    addr: SocketAddr,
    key: Key,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn restore(path: &Path, login: &mut LoginServer) -> Result<JobLog, DeskError> {
    let (mut log, bytes) = JobLog::open(path)?;
    // A torn line at the end was never answered.
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    log.cut(whole as u64)?;
    let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
    for (n, line) in text.lines().enumerate() {
        login.commit(Entry::parse(line).ok_or(DeskError::Names(n + 1))?);
    }
    Ok(log)
}

impl Desk {
    /// Starts both.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: DeskSettings) -> Result<Self, DeskError> {
        let listener = TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let mut rng = Rng::from_seed(settings.seed);
        let epoch = super::unix();
        let (key, login, kept) = match settings.logins {
            Logins::By(key) => (key, None, None),
            Logins::Here { key, names, config } => {
                let config = LoginConfig { epoch, ..config };
                let mut login = LoginServer::new(config, *key, rng.fork());
                let kept = names.map(|path| restore(&path, &mut login)).transpose()?;
                (login.key(), Some(login), kept)
            }
        };
        let list = settings.list.map(|list| {
            let list = ListConfig { epoch, ..list };
            SupernodeList::new(list, key, rng)
        });
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                login,
                list,
                kept,
                stats: DeskStats::default(),
            }),
            start: Instant::now(),
            conns: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("supernode-desk".into())
            .spawn({
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
                move || accept(&listener, &shared, &stop)
            })?;
        Ok(Self {
            addr,
            key,
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// Where they listen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The key that the overlay trusts.
    pub fn key(&self) -> Key {
        self.key
    }

    /// What they hold and did.
    pub fn stats(&self) -> DeskStats {
        let state = lock(&self.shared);
        let names = state.login.as_ref().map_or(0, LoginServer::count);
        let supernodes = state.list.as_ref().map_or(0, SupernodeList::len);
        DeskStats {
            names: names as u64,
            supernodes: supernodes as u64,
            ..state.stats
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the login server's thread panicked");
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, stop: &AtomicBool) {
    while let Some((stream, peer)) = accept::wait(listener, stop) {
        if shared.open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            shared.open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let at = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("supernode-ask".into())
            .spawn(move || {
                if let Err(error) = serve(&at, stream, peer) {
                    tracing::debug!(%error, %peer, "a question to the login server or list");
                }
                at.open.fetch_sub(1, Ordering::AcqRel);
            });
        if spawned.is_err() {
            shared.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn serve(shared: &Shared, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let conn = shared.conns.fetch_add(1, Ordering::Relaxed);
    let mut frames = Frames::new(stream.try_clone()?);
    let result = loop {
        match frames.next::<Ask<SocketAddr>>() {
            Ok(Some(ask)) => {
                let answer = answer(shared, conn, peer.host(), ask);
                if let Err(e) = say(&mut stream, &answer) {
                    break Err(e);
                }
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    if let Some(login) = &mut lock(shared).login {
        login.closed(conn);
    }
    result
}

/// Writes a new entry of the log, then counts it: what cannot be kept is not promised.
fn keep(
    login: &mut LoginServer,
    kept: Option<&mut JobLog>,
    entry: Option<Entry>,
) -> Result<(), Refusal> {
    let Some(entry) = entry else {
        return Ok(());
    };
    if let Some(log) = kept {
        let line = entry.line() + "\n";
        log.append(line.as_bytes()).map_err(|error| {
            tracing::error!(%error, "a new name cannot be written");
            Refusal::Full
        })?;
    }
    login.commit(entry);
    Ok(())
}

fn answer(shared: &Shared, conn: u64, host: u128, ask: Ask<SocketAddr>) -> Answer<SocketAddr> {
    let elapsed = shared.start.elapsed().as_micros();
    let now = Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX));
    let mut state = lock(shared);
    let State {
        login,
        list,
        kept,
        stats,
    } = &mut *state;
    let answer = match (ask, login, list) {
        (Ask::Claim(name, key), Some(login), _) => login
            .claim(now, conn, host, &name, key)
            .map(|nonce| Answer::Challenge(nonce, login.key())),
        (Ask::Prove(seal), Some(login), _) => {
            login.prove(now, conn, host, &seal).and_then(|grant| {
                keep(login, kept.as_mut(), grant.entry)?;
                stats.tokens += 1;
                Ok(Answer::Granted(grant.answer))
            })
        }
        (Ask::Name(ask), Some(login), _) => {
            login.about_names(now, conn, host, &ask).and_then(|grant| {
                keep(login, kept.as_mut(), grant.entry)?;
                Ok(Answer::Name(Box::new(grant.answer)))
            })
        }
        (Ask::List, _, Some(list)) => {
            stats.asked += 1;
            Ok(Answer::List(list.entries(now)))
        }
        (Ask::Register(said), _, Some(list)) => list.register(now, host, &said).map(|()| {
            stats.registered += 1;
            Answer::Registered
        }),
        _ => Err(Refusal::Unsupported),
    };
    answer.unwrap_or_else(|why| {
        stats.refused += 1;
        Answer::Refused(why)
    })
}
