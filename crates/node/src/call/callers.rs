//! Nodes that call: connections that came, of which a stream says that it is a call.

use super::line::{Line, Say, StreamLine};
use super::setup::LOOK;
use crate::reach::Connection;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The first line of a stream that is to be a call.
pub(super) const GREETING: &str = "shoal call 1";
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

impl Callers {
    /// Takes connections; ends with them.
    pub fn new(arrivals: Receiver<Connection>) -> Self {
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
                let started = thread::Builder::new().stack_size(STACK).spawn(move || {
                    let caller = greeted(connection);
                    waiting.fetch_sub(1, Ordering::AcqRel);
                    if let Some(caller) = caller {
                        pass(caller, &tell, &busy);
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

/// The call that a connection is for, if it is.
fn greeted(connection: Connection) -> Option<Caller> {
    let end = Instant::now() + PATIENCE;
    let stream = connection.streams.recv_timeout(PATIENCE).ok()?;
    let connection = Arc::new(connection);
    let mut line = StreamLine::new(stream, Arc::clone(&connection));
    while Instant::now() < end {
        match line.poll().ok()? {
            Some(greeting) if greeting == GREETING => return Some(Caller { connection, line }),
            Some(_) => return None,
            // A stream's reading knows no limit of time, and whoever dawdles is not waited for without end:
            // so it is looked at now and then, on a thread that does nothing else.
            None => thread::sleep(LOOK),
        }
    }
    None
}

fn pass(caller: Caller, tell: &Sender<Caller>, busy: &AtomicBool) {
    if busy.load(Ordering::Acquire) {
        caller.refuse("busy");
    } else if let Err(refused) = tell.try_send(caller) {
        refused.into_inner().refuse("busy");
    }
}
