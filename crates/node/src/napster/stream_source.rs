//! A Napster user as one source among others of what is fetched.
//!
//! Who shares sends a file from an offset on until the connection ends: what is asked for next is
//! read from the same stream if it lies a little further on, and needs a new one otherwise, which the
//! hub brokers anew.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_base::Rng;
use shoal_content::Block;
use shoal_napster::client::{Hit, Login};
use shoal_napster::file::Facts;
use shoal_napster::kind;

use super::download::{
    Begun, DownloadError, ask, brokered, brought_in, check_place, connect, tell_unreachable,
    wait_for,
};
use super::port::DataPort;
use super::session::{Session, SessionError};
use crate::assembly::Assembly;
use crate::range_source::{Again, RangeEvent, RangeSource, Sink, Slice};

/// How long reading on, over bytes that nobody wants, may take before a new stream is cheaper.
const SKIP_TIME: f64 = 1.0;
/// Bytes that are passed over at any rate, and at most.
const SKIP: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Blocks of one run that are read before what else is asked for is looked at.
const RUN: usize = 64;

/// We, logged in at a hub, or about to be: shared by everybody whom we ask there.
pub(crate) struct HubDesk {
    hub: SocketAddr,
    login: Login,
    /// Where sharers whom nobody can connect to bring their files; none: nowhere.
    port: Option<DataPort>,
    session: Mutex<Option<Session>>,
}

impl HubDesk {
    /// Nothing is sent before somebody is asked for something. A login without a nick gets one by
    /// chance. `listen`: the address at which others may connect, if they may.
    pub(crate) fn new(
        hub: SocketAddr,
        mut login: Login,
        listen: Option<IpAddr>,
        rng: &mut Rng,
    ) -> Self {
        if login.nick.is_empty() {
            login.nick = format!("shoal{}", rng.below(1_000_000));
            login.password = format!("{:016x}", rng.next_u64());
        }
        let open = |ip| {
            let addr = SocketAddr::new(ip, 0);
            DataPort::open(Some(addr), &login.nick, BTreeMap::new(), 0)
        };
        let port = listen.and_then(|ip| match open(ip) {
            Ok(port) => Some(port),
            Err(error) => {
                tracing::warn!(%error, "nobody can bring files of Napster's users");
                None
            }
        });
        login.data_port = port.as_ref().map_or(0, DataPort::port);
        Self {
            hub,
            login,
            port,
            session: Mutex::new(None),
        }
    }

    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of a file from `from` on.
    fn begin(&self, hit: &Hit, from: u64) -> Result<Begun, DownloadError> {
        let mut held = self.session();
        let session = match &mut *held {
            Some(session) => session,
            none => none.insert(Session::connect(self.hub, &self.login)?),
        };
        let result = self.broker(session, hit, from);
        if let Err(DownloadError::Hub(_)) = &result {
            *held = None;
        }
        drop(held);
        match result? {
            Brokered::Brought(begun) => Ok(begun),
            Brokered::At(place) => match connect(&place) {
                // Others are not kept waiting while a sharer is slow to answer.
                Ok(stream) => ask(stream, &self.login.nick, hit, from),
                Err(error) => {
                    if let Some(session) = &mut *self.session() {
                        // What is said for the hub's sake alone.
                        let _ = tell_unreachable(session, hit);
                    }
                    Err(error.into())
                }
            },
        }
    }

    fn broker(
        &self,
        session: &mut Session,
        hit: &Hit,
        from: u64,
    ) -> Result<Brokered, DownloadError> {
        session.core().download(&hit.nick, &hit.path);
        let place = brokered(session, hit)?;
        session.core().say(kind::DOWNLOAD_START, |_| {});
        session.flush()?;
        if place.port != 0 {
            check_place(session, &place)?;
            return Ok(Brokered::At(place));
        }
        let Some(port) = &self.port else {
            let why = "nobody can connect to its sharer, nor to us";
            return Err(DownloadError::Refused(why.into()));
        };
        let brought = port.expect(&hit.nick, &hit.path);
        session.core().push(&hit.nick, &hit.path);
        session.flush()?;
        let (stream, size) = wait_for(session, &brought, hit)?;
        Ok(Brokered::Brought(brought_in(stream, size, hit, from)?))
    }

    /// A stream ended.
    fn done(&self) {
        let mut held = self.session();
        if let Some(session) = &mut *held {
            session.core().say(kind::DOWNLOAD_DONE, |_| {});
            if session.flush().is_err() {
                *held = None;
            }
        }
    }
}

enum Brokered {
    At(shoal_napster::client::Place),
    Brought(Begun),
}

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

    /// A stream that is at `start`.
    fn stream_at(&mut self, start: u64) -> Result<&mut Stream, End> {
        let fits = |s: &Stream| (s.at..=s.reach()).contains(&start);
        if !self.stream.as_ref().is_some_and(fits) {
            self.close();
            let (socket, first) = self.begin(start)?;
            let copy = socket.try_clone().map_err(|e| broken(&e))?;
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
            self.stream = Some(Stream {
                socket,
                first: first.into(),
                at: start,
                began: Instant::now(),
                read: 0,
            });
        }
        let Some(stream) = &mut self.stream else {
            return Err(End::Stopped);
        };
        let ahead = start - stream.at;
        let skipped = io::copy(&mut stream.by_ref().take(ahead), &mut io::sink());
        match skipped.map_err(|e| broken(&e))? {
            n if n == ahead => Ok(stream),
            _ => Err(End::Failed("the stream ended early".into(), Again::Soon)),
        }
    }

    fn begin(&self, from: u64) -> Result<Begun, End> {
        self.desk
            .begin(&self.hit, from)
            .map_err(|error| match &error {
                DownloadError::Hub(SessionError::Refused(_)) | DownloadError::Size { .. } => {
                    End::Failed(reasons(&error), Again::Never)
                }
                _ => End::Failed(reasons(&error), Again::Soon),
            })
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
        let mut assembly = Assembly::new(run);
        self.stream_at(start)?;
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
