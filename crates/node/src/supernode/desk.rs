//! The login server and the list of supernodes at one port: a thread for each connection, of which
//! there are few and short ones.

use crate::accept;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_store::job::JobLog;
use shoal_supernode::Address;
use shoal_supernode::list::{ListConfig, SupernodeList};
use shoal_supernode::login::{LoginConfig, LoginServer};
use shoal_supernode::token::{Key, is_name};
use shoal_supernode::wire::{Answer, Ask, Refusal};

use super::frames::{Frames, say};

/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const MAX_CONNECTIONS: usize = 256;

/// What the servers do.
#[derive(Debug)]
pub struct DeskSettings {
    /// Where they listen.
    pub listen: SocketAddr,
    /// The file that keeps names, if they are to be kept.
    pub names: Option<PathBuf>,
    /// The key that signs tokens.
    pub key: SigningKey,
    /// Limits of the login server.
    pub login: LoginConfig,
    /// Limits of the list.
    pub list: ListConfig,
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
    #[error("line {0} is not a name and its key")]
    Names(usize),
}

#[derive(Debug)]
struct State {
    login: LoginServer,
    list: SupernodeList<SocketAddr>,
    kept: Option<JobLog>,
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
        let read = line.split_once(' ').and_then(|(name, key)| {
            let key = from_hex(key).filter(|_| is_name(name))?;
            Some((name, key))
        });
        let (name, key) = read.ok_or(DeskError::Names(n + 1))?;
        login.restore(name, key);
    }
    Ok(log)
}

fn from_hex(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
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
        let login = LoginConfig {
            epoch,
            ..settings.login
        };
        let list = ListConfig {
            epoch,
            ..settings.list
        };
        let mut login = LoginServer::new(login, settings.key, rng.fork());
        let key = login.key();
        let kept = settings
            .names
            .map(|path| restore(&path, &mut login))
            .transpose()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                login,
                list: SupernodeList::new(list, key, rng),
                kept,
            }),
            start: Instant::now(),
            conns: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("supernode-desk".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || accept(&listener, &shared, &stop)
            })?;
        Ok(Self {
            addr,
            key,
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
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.login.closed(conn);
    result
}

fn answer(shared: &Shared, conn: u64, host: u128, ask: Ask<SocketAddr>) -> Answer<SocketAddr> {
    let elapsed = shared.start.elapsed().as_micros();
    let now = Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX));
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let State { login, list, kept } = &mut *state;
    let answer = match ask {
        Ask::Claim(name, key) => login
            .claim(now, conn, host, &name, key)
            .map(|nonce| Answer::Challenge(nonce, login.key())),
        Ask::Prove(seal) => login
            .prove(now, conn, host, &seal)
            .and_then(|(token, fresh)| {
                if let Some(log) = kept.as_mut().filter(|_| fresh) {
                    let hex: String = token.key.iter().map(|b| format!("{b:02x}")).collect();
                    // What cannot be kept is not promised.
                    if let Err(error) = log.append(format!("{} {hex}\n", token.name).as_bytes()) {
                        tracing::error!(%error, "a new name cannot be written");
                        login.forget(&token.name);
                        return Err(Refusal::Full);
                    }
                }
                Ok(Answer::Granted(token))
            }),
        Ask::List => Ok(Answer::List(list.entries(now))),
        Ask::Register(said) => list.register(now, host, &said).map(|()| Answer::Registered),
    };
    answer.unwrap_or_else(Answer::Refused)
}
