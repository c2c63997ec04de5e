//! Nodes that call: connections that came, of which a stream says that it is a call.

use super::line::{Line, StreamLine};
use crate::reach::{Connection, Stream};
use crate::supernode::LetterStream;
use crate::supernode::people::straight;
use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_call::media::say::Say;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The first line of a stream that is to be a call.
pub(super) const GREETING: &str = "shoal call 1";
/// Bytes of such a line at most.
const MOST: usize = 64;
/// How long a connection has to say what it is for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once that have not said it.
const MOST_SILENT: usize = 32;
/// Calls that wait to be answered.
const MOST_WAITING: usize = 4;
const STACK: usize = 256 << 10;

/// A node that calls.
#[derive(Debug)]
pub struct Caller {
    pub(super) connection: Arc<Connection>,
    line: StreamLine,
}

impl Caller {
    /// Its key.
    pub fn key(&self) -> [u8; 32] {
        self.connection.peer().0
    }

    pub(super) fn line(self) -> Box<dyn Line + Send> {
        Box::new(self.line)
    }

    fn refuse(self, why: &str) {
        let why = why.to_owned();
        let _ = self.line().send(&Say::Refuse { why }.to_line());
    }
}

/// Those that call, one after the other.
#[derive(Debug)]
pub struct Callers {
    /// They.
    pub calls: Receiver<Caller>,
    busy: Arc<AtomicBool>,
}

/// Takes streams that are for letters.
pub type Letters = dyn Fn(LetterStream) + Send + Sync;

impl Callers {
    /// Takes connections; ends with them.
    pub fn new(arrivals: Receiver<Connection>) -> Self {
        Self::beside(arrivals, Arc::new(drop))
    }

    /// Takes connections, those for letters for somebody else; ends with them.
    pub fn beside(arrivals: Receiver<Connection>, letters: Arc<Letters>) -> Self {
        let (tell, calls) = bounded(MOST_WAITING);
        let busy = Arc::new(AtomicBool::new(false));
        let (silent, occupied) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&busy));
        thread::spawn(move || {
            while let Ok(connection) = arrivals.recv() {
                if silent.fetch_add(1, Ordering::AcqRel) >= MOST_SILENT {
                    silent.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let (tell, busy) = (tell.clone(), Arc::clone(&occupied));
                let waiting = Arc::clone(&silent);
                let letters = Arc::clone(&letters);
                let started = thread::Builder::new().stack_size(STACK).spawn(move || {
                    let greeted = greeted(connection);
                    waiting.fetch_sub(1, Ordering::AcqRel);
                    match greeted {
                        Some(Greeted::Call(caller)) => pass(caller, &tell, &busy),
                        Some(Greeted::Letters(stream)) => letters(stream),
                        None => {}
                    }
                });
                if started.is_err() {
                    silent.fetch_sub(1, Ordering::AcqRel);
                }
            }
        });
        Self { calls, busy }
    }

    /// Whether whoever calls is told that we talk to somebody else.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Release);
    }
}

/// What a connection is for.
enum Greeted {
    Call(Caller),
    Letters(LetterStream),
}

/// What its first line says that a connection is for, if it is anything.
fn greeted(connection: Connection) -> Option<Greeted> {
    let end = Instant::now() + PATIENCE;
    let stream = connection.streams.recv_timeout(PATIENCE).ok()?;
    let connection = Arc::new(connection);
    match first_line(&stream, end)?.as_str() {
        GREETING => {
            let line = StreamLine::new(stream, Arc::clone(&connection));
            Some(Greeted::Call(Caller { connection, line }))
        }
        straight::GREETING => Some(Greeted::Letters(LetterStream { stream, connection })),
        _ => None,
    }
}

/// The first line of a stream, which must be there by then.
fn first_line(stream: &Stream, end: Instant) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let (mut byte, left) = ([0], end.saturating_duration_since(Instant::now()));
        stream.read_within(&mut byte, left).ok()?;
        match byte {
            [b'\n'] => return String::from_utf8(line).ok(),
            [byte] if line.len() < MOST => line.push(byte),
            _ => return None,
        }
    }
}

fn pass(caller: Caller, tell: &Sender<Caller>, busy: &AtomicBool) {
    if busy.load(Ordering::Acquire) {
        caller.refuse("busy");
    } else if let Err(refused) = tell.try_send(caller) {
        refused.into_inner().refuse("busy");
    }
}
