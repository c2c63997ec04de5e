//! A Napster user as one source among others of what is fetched.
//!
//! Who shares sends a file from an offset on until the connection ends: what is asked for next is
//! read from the same stream if it lies a little further on, and needs a new one otherwise, which the
//! hub brokers anew.
//!
//! TekNap sends from the beginning whatever offset it is asked for. So the beginning is looked at
//! first, and a stream from elsewhere that begins with the same bytes is one from there.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_content::Block;
use shoal_napster::client::Hit;
use shoal_napster::file::Facts;

use super::download::DownloadError;
use super::hub_desk::HubDesk;
use super::session::SessionError;
use crate::assembly::Assembly;
use crate::range_source::{Again, RangeEvent, RangeSource, Sink, Slice};

/// How long reading on, over bytes that nobody wants, may take before a new stream is cheaper.
const SKIP_TIME: f64 = 1.0;
/// Bytes that are passed over at any rate, and at most.
const SKIP: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Bytes of a file's beginning that another stream's are compared with.
const HEAD: usize = 4096;
/// Bytes passed over at once.
const PASSED: usize = 64 << 10;
/// Blocks of one run that are read before what else is asked for is looked at.
const RUN: usize = 64;

/// A Napster user who is asked for ranges of a file; its thread ends soon after it is dropped.
pub(crate) struct StreamSource {
    queue: Sender<Vec<Block>>,
    stop: Arc<AtomicBool>,
    /// The connection, to end it.
    shown: Arc<Mutex<Option<TcpStream>>>,
}

impl StreamSource {
    /// Starts to use `nick`'s file at `path`, which is `slice` of what is fetched.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn spawn(
        desk: Arc<HubDesk>,
        nick: &str,
        path: &[u8],
        slice: Slice,
        sink: Sink,
    ) -> io::Result<Self> {
        // Holds no more than the download has requests open with this source.
        let (queue, requests) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let shown = Arc::new(Mutex::new(None));
        let worker = Worker {
            desk,
            hit: Hit {
                path: path.to_vec(),
                facts: Facts {
                    size: slice.len,
                    ..Facts::default()
                },
                nick: nick.to_owned(),
                ip: std::net::Ipv4Addr::UNSPECIFIED,
                link: 0,
            },
            slice,
            requests,
            stop: Arc::clone(&stop),
            shown: Arc::clone(&shown),
            sink,
            pending: VecDeque::new(),
            stream: None,
            head: Vec::new(),
            restarts: false,
        };
        thread::Builder::new()
            .name("napster-source".into())
            .stack_size(512 << 10)
            .spawn(move || worker.run())?;
        Ok(Self { queue, stop, shown })
    }
}

impl RangeSource for StreamSource {
    fn request(&self, blocks: Vec<Block>) {
        // The thread may have ended: its last news are on their way.
        let _ = self.queue.send(blocks);
    }
}

impl Drop for StreamSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*shown {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// What a sharer sends.
struct Stream {
    socket: TcpStream,
    /// Bytes that came with the answer, not read yet.
    first: VecDeque<u8>,
    /// Where in the file the next byte lies.
    at: u64,
    began: Instant,
    read: u64,
}

impl Stream {
    fn rate(&self) -> f64 {
        self.read as f64 / self.began.elapsed().as_secs_f64().max(0.001)
    }

    /// Reads ahead, so that so many bytes wait to be read.
    fn look(&mut self, len: usize) -> io::Result<()> {
        let mut buf = [0; HEAD];
        while self.first.len() < len {
            let n = self.socket.read(&mut buf)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.first.extend(buf.iter().take(n));
        }
        Ok(())
    }

    /// Whether what was looked at is `head`, as far as either goes.
    fn begins_like(&self, head: &[u8]) -> bool {
        self.first.iter().zip(head).all(|(a, b)| a == b)
    }

    /// How far ahead reading on is cheaper than another stream.
    fn reach(&self) -> u64 {
        let far = (self.rate() * SKIP_TIME) as u64;
        self.at + far.clamp(*SKIP.start(), *SKIP.end())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.first.is_empty() {
            true => self.socket.read(buf)?,
            false => self.first.read(buf)?,
        };
        self.at += n as u64;
        self.read += n as u64;
        Ok(n)
    }
}

/// Why a thread ended.
enum End {
    Stopped,
    Failed(String, Again),
}

struct Worker {
    desk: Arc<HubDesk>,
    hit: Hit,
    slice: Slice,
    requests: Receiver<Vec<Block>>,
    stop: Arc<AtomicBool>,
    shown: Arc<Mutex<Option<TcpStream>>>,
    sink: Sink,
    pending: VecDeque<Block>,
    stream: Option<Stream>,
    /// How the file begins, as its sharer sends it; empty while that is not known.
    head: Vec<u8>,
    /// Whether its streams begin at the beginning, whatever is asked for.
    restarts: bool,
}

impl Worker {
    fn run(mut self) {
        let end = self.work();
        self.close();
        if let End::Failed(why, again) = end {
            // Whoever listened may be gone.
            let _ = (self.sink)(RangeEvent::Failed { why, again });
        }
    }

    fn work(&mut self) -> End {
        loop {
            if self.pending.is_empty() {
                match self.requests.recv() {
                    Ok(blocks) => self.pending.extend(blocks),
                    Err(_) => return End::Stopped,
                }
            }
            self.pending.extend(self.requests.try_iter().flatten());
            if self.stop.load(Ordering::Relaxed) {
                return End::Stopped;
            }
            let run = self.next_run();
            if let Err(end) = self.fetch(&run) {
                return end;
            }
        }
    }

    /// The first blocks that follow one another.
    fn next_run(&mut self) -> Vec<Block> {
        let mut run: Vec<Block> = Vec::new();
        while let Some(block) = self.pending.front()
            && run.len() < RUN
        {
            let end = run.last().map(|b| self.slice.at(b) + u64::from(b.len));
            if end.is_some_and(|end| end != self.slice.at(block)) {
                break;
            }
            run.extend(self.pending.pop_front());
        }
        run
    }

    /// Sees to a stream that is at `start`; false if it takes so long to come there that what was
    /// asked for is forgotten.
    fn stream_at(&mut self, start: u64) -> Result<bool, End> {
        if start > 0 && self.head.is_empty() {
            self.open(0)?;
        }
        let restarts = self.restarts;
        let fits = |s: &Stream| s.at <= start && (restarts || start <= s.reach());
        if !self.stream.as_ref().is_some_and(fits) {
            self.open(start)?;
        }
        self.pass_over(start)
    }

    /// Another stream, from `start` on or from the beginning.
    fn open(&mut self, start: u64) -> Result<(), End> {
        self.close();
        let begun = self.desk.begin(&self.hit, start);
        let (socket, first) = begun.map_err(|error| match &error {
            DownloadError::Hub(SessionError::Refused(_)) | DownloadError::Size { .. } => {
                End::Failed(reasons(&error), Again::Never)
            }
            _ => End::Failed(reasons(&error), Again::Soon),
        })?;
        let copy = socket.try_clone().map_err(|e| broken(&e))?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
        let mut stream = Stream {
            socket,
            first: first.into(),
            at: start,
            began: Instant::now(),
            read: 0,
        };
        if start == 0 {
            let len = usize::try_from(self.slice.len).unwrap_or(HEAD).min(HEAD);
            stream.look(len).map_err(|e| broken(&e))?;
            self.head = stream.first.iter().take(len).copied().collect();
        } else if self.restarts || self.is_the_head(&mut stream).map_err(|e| broken(&e))? {
            tracing::debug!(who = %self.hit.nick, "sends from the beginning whatever it is asked for");
            self.restarts = true;
            stream.at = 0;
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// Whether a stream that was to begin elsewhere begins like the file.
    fn is_the_head(&self, stream: &mut Stream) -> io::Result<bool> {
        // Many places of such a file may look like this one.
        let tells_nothing = self.head.iter().all(|b| Some(b) == self.head.first());
        if tells_nothing {
            return Ok(false);
        }
        let left = usize::try_from(self.slice.len - stream.at).unwrap_or(HEAD);
        stream.look(self.head.len().min(left))?;
        if !stream.begins_like(&self.head) {
            return Ok(false);
        }
        // Of so short a rest the likeness proves little: only a stream from the beginning goes on.
        match stream.look(self.head.len()) {
            Ok(()) => Ok(stream.begins_like(&self.head)),
            Err(_) => Ok(false),
        }
    }

    /// Reads on until `start`. What takes longer than [`SKIP_TIME`] is told, and false.
    fn pass_over(&mut self, start: u64) -> Result<bool, End> {
        let (began, mut told) = (Instant::now(), false);
        let mut buf = vec![0; PASSED];
        loop {
            let Some(stream) = &mut self.stream else {
                return Err(End::Stopped);
            };
            let left = start.saturating_sub(stream.at);
            if left == 0 {
                return Ok(!told);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(End::Stopped);
            }
            if !told && began.elapsed().as_secs_f64() > SKIP_TIME {
                let wait = Duration::from_secs_f64((left as f64 / stream.rate()).clamp(1.0, 600.0));
                (self.sink)(RangeEvent::Waits {
                    wait,
                    position: None,
                    lives: true,
                })
                .map_err(|()| End::Stopped)?;
                self.pending.clear();
                told = true;
            }
            let len = usize::try_from(left).unwrap_or(PASSED).min(PASSED);
            let room = buf.get_mut(..len).unwrap_or_default();
            if stream.read(room).map_err(|e| broken(&e))? == 0 {
                return Err(End::Failed("the stream ended early".into(), Again::Soon));
            }
        }
    }

    fn close(&mut self) {
        if self.stream.take().is_some() {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.desk.done();
            // The sharer is to see that the last stream ended before it is asked for another.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn fetch(&mut self, run: &[Block]) -> Result<(), End> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let start = self.slice.at(first);
        let mut left = self.slice.at(last) + u64::from(last.len) - start;
        if !self.stream_at(start)? {
            return Ok(());
        }
        let mut assembly = Assembly::new(run);
        while left > 0 {
            let Some(stream) = &mut self.stream else {
                return Err(End::Stopped);
            };
            left -= assembly.read(stream, left).map_err(|e| broken(&e))?;
            if let Some((buf, blocks)) = assembly.take() {
                let event = RangeEvent::Blocks { buf, blocks };
                (self.sink)(event).map_err(|()| End::Stopped)?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(End::Stopped);
            }
        }
        Ok(())
    }
}

fn broken(error: &io::Error) -> End {
    End::Failed(error.to_string(), Again::Soon)
}

/// An error and what is behind it.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
