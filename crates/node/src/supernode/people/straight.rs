//! Connections to other ends, over which letters go without a supernode.
//!
//! A stream begins with a line that says what it is for ([`GREETING`]); then letters go both ways, each as
//! on other links of the overlay: a 32-bit little-endian length and postcard's encoding.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_base::Time;
use shoal_call::chat::Effect;
use shoal_call::mailbox::Envelope;
use shoal_supernode::token::Key;
use shoal_supernode::wire;

use super::{Core, Input, PeopleEvent};
use crate::reach::{Connection, NodeId, Reach, Stream};

/// The first line of a stream that is for letters.
pub(crate) const GREETING: &str = "shoal letters 1";
/// Letters that may wait for a connection.
const QUEUE: usize = 512;
/// Connections at most, of one end and of all.
const MAX_OF_ONE: usize = 4;
const MAX_STRAIGHT: usize = 64;
/// Letters that the other end may send in a minute: opening one costs a tenth of a millisecond.
const PER_MINUTE: u32 = 1200;
const MINUTE: Duration = Duration::from_secs(60);
/// How long the last letters have to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);
const STACK: usize = 256 << 10;

/// A stream for letters that another end has opened, whose greeting was read.
#[derive(Debug)]
pub struct LetterStream {
    pub(crate) stream: Stream,
    pub(crate) connection: Arc<Connection>,
}

impl LetterStream {
    /// Who is at its other end.
    pub fn key(&self) -> Key {
        self.connection.peer().0
    }
}

/// What a connection tells.
#[derive(Debug)]
pub(super) enum Heard {
    /// It is there, and takes letters here.
    Up(Sender<Envelope>),
    /// A letter came.
    Letter(Envelope),
    /// It is gone, or was never there.
    Down,
}

impl Core {
    /// Room for another connection: who hears what it tells.
    pub(super) fn new_straight(
        &mut self,
        key: Key,
    ) -> Option<impl Fn(Heard) -> bool + Send + 'static> {
        let of_one = self.straight.values().filter(|(k, _)| *k == key).count();
        if of_one >= MAX_OF_ONE || self.straight.len() >= MAX_STRAIGHT {
            return None;
        }
        self.serial += 1;
        let (number, inputs) = (self.serial, self.inputs.clone());
        self.straight.insert(number, (key, None));
        Some(move |heard| inputs.send(Input::Straight(key, number, heard)).is_ok())
    }

    pub(super) fn heard_straight(
        &mut self,
        time: Time,
        key: Key,
        number: u64,
        heard: Heard,
        out: &mut Vec<Effect<SocketAddr>>,
    ) {
        let is_up = |core: &Self| {
            let mut all = core.straight.values();
            all.any(|(k, up)| *k == key && up.is_some())
        };
        let before = is_up(self);
        match heard {
            Heard::Up(orders) => {
                if let Some((_, up)) = self.straight.get_mut(&number) {
                    *up = Some(orders);
                }
            }
            Heard::Letter(envelope) => {
                return self.chat.on_straight(time, key, &envelope, out);
            }
            Heard::Down => drop(self.straight.remove(&number)),
        }
        let now = is_up(self);
        // Of an attempt that failed it is told, too.
        if now != before || !now {
            self.chat.on_link(time, key, now, out);
        }
        if now != before {
            let _ = self.tell.send(PeopleEvent::Straight(key, now));
        }
    }
}

/// Makes a connection to the node of this key, on a thread of its own.
pub(super) fn reach(
    reach: Arc<Reach>,
    key: Key,
    tell: impl Fn(Heard) -> bool + Send + 'static,
) -> io::Result<()> {
    start(move || {
        let made = reach.connect(NodeId(key)).map_err(io::Error::other);
        // What it reaches by is not kept alive by what was reached.
        drop(reach);
        let run = made.and_then(|connection| {
            let stream = connection.open()?;
            (&stream).write_all(format!("{GREETING}\n").as_bytes())?;
            talk(&stream, Arc::new(connection), &tell)
        });
        if let Err(error) = run {
            tracing::debug!(%error, "a connection for letters");
        }
        tell(Heard::Down);
    })
}

/// Takes a stream that another end has opened.
pub(super) fn take(
    came: LetterStream,
    tell: impl Fn(Heard) -> bool + Send + 'static,
) -> io::Result<()> {
    start(move || {
        if let Err(error) = talk(&came.stream, came.connection, &tell) {
            tracing::debug!(%error, "a connection for letters");
        }
        tell(Heard::Down);
    })
}

fn start(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name("letters".into());
    builder.stack_size(STACK).spawn(run).map(drop)
}

/// Hands over what comes, until the end; what goes has a thread of its own, and ends the connection.
fn talk(
    stream: &Stream,
    connection: Arc<Connection>,
    tell: &impl Fn(Heard) -> bool,
) -> io::Result<()> {
    let (orders, waiting) = bounded(QUEUE);
    let alive = Arc::downgrade(&connection);
    let writing = stream.clone();
    start(move || {
        if let Err(error) = write(&writing, &waiting) {
            tracing::debug!(%error, "letters cannot be handed over");
        }
        // Whoever reads ends with it.
        drop(connection);
    })?;
    if !tell(Heard::Up(orders)) {
        return Ok(());
    }
    read(stream, &alive, tell)
}

fn write(stream: &Stream, waiting: &Receiver<Envelope>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while let Ok(envelope) = waiting.recv() {
        bytes.clear();
        wire::encode(&envelope, &mut bytes);
        let mut stream = stream;
        stream.write_all(&bytes)?;
    }
    stream.finish();
    stream.arrived_by(Some(Instant::now() + LAST_WORDS))
}

fn read(
    stream: &Stream,
    alive: &Weak<Connection>,
    tell: &impl Fn(Heard) -> bool,
) -> io::Result<()> {
    let (mut buf, mut chunk) = (Vec::new(), [0; 4096]);
    let (mut since, mut count) = (Instant::now(), 0);
    while alive.strong_count() > 0 {
        let decoded = wire::decode::<Envelope>(&buf);
        let decoded = decoded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if let Some((envelope, used)) = decoded {
            buf.drain(..used);
            if since.elapsed() >= MINUTE {
                (since, count) = (Instant::now(), 0);
            }
            count += 1;
            if count > PER_MINUTE || !envelope.fits() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !tell(Heard::Letter(envelope)) {
                return Ok(());
            }
            continue;
        }
        let mut stream = stream;
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        buf.extend_from_slice(chunk.get(..n).unwrap_or_default());
    }
    Ok(())
}
