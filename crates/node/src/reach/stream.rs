//! A stream as its user sees it, and the place where user and reach's thread meet.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::worker::{Command, Door};

/// Bytes that wait at most, each way.
const WINDOW: usize = 1 << 20;
/// Bytes of one piece that is written.
const PIECE: usize = 64 << 10;
/// Whoever waits looks this often whether the thread is still there.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Ends {
    /// What came and was not read, and its length.
    pub(super) came: VecDeque<Bytes>,
    pub(super) came_len: usize,
    /// Nothing more comes.
    pub(super) came_all: bool,
    /// What was written and is not QUIC's yet.
    pub(super) goes: VecDeque<Bytes>,
    pub(super) goes_len: usize,
    /// Nothing more is written.
    pub(super) finished: bool,
    /// All that was written has arrived.
    pub(super) arrived: bool,
    /// It ended otherwise.
    pub(super) broken: Option<String>,
    /// The thread was told to look at it.
    told: bool,
    /// The thread left what came where it was, for want of room.
    pub(super) full: bool,
}

impl Ends {
    /// Room for what comes.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.came_len)
    }
}

#[derive(Debug, Default)]
pub(super) struct Pipe {
    ends: Mutex<Ends>,
    changed: Condvar,
}

impl Pipe {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the thread: it looks now.
    pub(super) fn look(&self) -> MutexGuard<'_, Ends> {
        let mut ends = self.lock();
        ends.told = false;
        ends
    }

    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    pub(super) fn fail(&self, why: &str) {
        self.lock().broken.get_or_insert_with(|| why.to_owned());
        self.wake();
    }
}

/// A stream both ways to another node. Clones are the same stream; dropping the last one ends it.
#[derive(Debug, Clone)]
pub struct Stream {
    pipe: Arc<Pipe>,
    end: Arc<End>,
}

#[derive(Debug)]
struct End {
    door: Door,
    connection: usize,
    id: quinn_proto::StreamId,
}

impl Drop for End {
    fn drop(&mut self) {
        self.door.tell(Command::Leave(self.connection, self.id));
    }
}

impl Stream {
    pub(super) fn new(
        pipe: Arc<Pipe>,
        door: Door,
        connection: usize,
        id: quinn_proto::StreamId,
    ) -> Self {
        Self {
            pipe,
            end: Arc::new(End {
                door,
                connection,
                id,
            }),
        }
    }

    fn tell(&self, mut ends: MutexGuard<'_, Ends>) {
        let told = std::mem::replace(&mut ends.told, true);
        drop(ends);
        if !told {
            let end = &self.end;
            end.door.tell(Command::Look(end.connection, end.id));
        }
    }

    fn wait<'e>(&self, ends: MutexGuard<'e, Ends>) -> io::Result<MutexGuard<'e, Ends>> {
        self.wait_for(ends, LOOK)
    }

    fn wait_for<'e>(
        &self,
        ends: MutexGuard<'e, Ends>,
        time: Duration,
    ) -> io::Result<MutexGuard<'e, Ends>> {
        if !self.end.door.is_open() {
            return Err(io::Error::other("the node has ended"));
        }
        let waited = self.pipe.changed.wait_timeout(ends, time.min(LOOK));
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Nothing more will be written.
    pub fn finish(&self) {
        let mut ends = self.pipe.lock();
        ends.finished = true;
        self.tell(ends);
    }

    /// Waits until all that was written has arrived.
    ///
    /// # Errors
    /// The connection broke before.
    pub fn arrived(&self) -> io::Result<()> {
        self.arrived_by(None)
    }

    /// The same until then at most.
    ///
    /// # Errors
    /// The connection broke before, or the time is over.
    pub fn arrived_by(&self, until: Option<Instant>) -> io::Result<()> {
        self.finish();
        let mut ends = self.pipe.lock();
        loop {
            if ends.arrived {
                return Ok(());
            }
            if let Some(why) = &ends.broken {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, why.clone()));
            }
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            ends = self.wait_for(ends, left.unwrap_or(LOOK))?;
        }
    }

    /// Reads what has come; none: nothing has yet.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.draw(self.pipe.lock(), buf)?.ok())
    }

    /// Reads what has come; gives the lock back if nothing has.
    fn draw<'e>(
        &self,
        mut ends: MutexGuard<'e, Ends>,
        buf: &mut [u8],
    ) -> io::Result<Result<usize, MutexGuard<'e, Ends>>> {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty())
            && let Some(first) = ends.came.front_mut()
        {
            let len = first.len().min(rest.len());
            let piece = first.split_to(len);
            if let Some(to) = rest.get_mut(..len) {
                to.copy_from_slice(&piece);
            }
            read += len;
            if first.is_empty() {
                ends.came.pop_front();
            }
        }
        if read > 0 || buf.is_empty() {
            ends.came_len -= read;
            if ends.full && ends.room() >= WINDOW / 2 {
                self.tell(ends);
            }
            return Ok(Ok(read));
        }
        if ends.came_all {
            return Ok(Ok(0));
        }
        match &ends.broken {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionReset, why.clone())),
            None => Ok(Err(ends)),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut ends = self.pipe.lock();
        loop {
            match self.draw(ends, buf)? {
                Ok(read) => return Ok(read),
                Err(nothing) => ends = self.wait(nothing)?,
            }
        }
    }
}

impl Stream {
    /// Fills the buffer, for which the other side has so long.
    ///
    /// # Errors
    /// It took longer, or the stream ended before.
    pub fn read_within(&self, mut buf: &mut [u8], patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        let mut ends = self.pipe.lock();
        while !buf.is_empty() {
            match self.draw(ends, buf)? {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buf = buf.split_at_mut(read).1;
                    ends = self.pipe.lock();
                }
                Err(nothing) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    ends = self.wait_for(nothing, left)?;
                }
            }
        }
        Ok(())
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut ends = self.pipe.lock();
        loop {
            if let Some(why) = &ends.broken {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, why.clone()));
            }
            if ends.finished {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if ends.goes_len < WINDOW {
                let piece = buf.get(..buf.len().min(PIECE)).unwrap_or(buf);
                ends.goes.push_back(Bytes::copy_from_slice(piece));
                ends.goes_len += piece.len();
                self.tell(ends);
                return Ok(piece.len());
            }
            ends = self.wait(ends)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
