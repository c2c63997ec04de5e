//! The thread of one host that a file is fetched from: it asks, reads and hands on.

mod exchange;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_base::Time;
use shoal_content::Block;
use shoal_gnutella::http::client::{Client, Event, Others, Told, Want};
use shoal_gnutella::http::locations::PushLocation;
use shoal_gnutella::overlay::is_overlay;

use super::push_desk::PushDesk;
use crate::gnutella::tls::{Stream, Tls};
use crate::outbound::Outbound;
use crate::range_source::Slice;

const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come of what was asked.
const SILENCE: Duration = Duration::from_secs(45);
/// Bytes of a file that are asked for to hear what the host says of it.
const PROBE: u64 = 1;

/// Other hosts, to be told to those we ask.
pub(super) type Neighbours = Arc<Mutex<Others>>;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Hear what the host says of the file.
    Probe,
    /// Fetch the hash tree.
    Tree(String),
    /// Fetch blocks.
    Blocks(Slice, Vec<Block>),
}

/// What the thread tells.
#[derive(Debug)]
pub(super) enum News {
    /// There is a connection.
    Connected,
    /// TLS does not come about with the host.
    NoTls,
    /// What an answer said besides.
    Told(Box<Told>),
    /// Blocks, and where each begins in the buffer.
    Data(Vec<u8>, Vec<(Block, usize)>),
    /// Blocks that the host does not have now.
    Missed(Vec<Block>),
    /// The hash tree's levels, not checked.
    Tree(Vec<u8>),
    /// The tree cannot be had here.
    NoTree,
    /// To be asked again at that time; what was asked for is forgotten.
    Waiting {
        /// When.
        at: Time,
        /// The place, if there is one.
        position: Option<u32>,
    },
    /// The thread ended.
    Ended(Box<Client>, End),
}

/// Why a thread ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// It has no slot for us, and keeps no connection until there is one.
    Waiting(Time, Option<u32>),
    /// The host does not have the file.
    NotThere(String),
    /// Something went wrong.
    Failed(String),
}

/// How a source tells its news; fails when nobody listens any more.
pub(super) type Sink = Box<dyn Fn(News) -> Result<(), ()> + Send>;

/// A running source; its thread ends soon after it is dropped.
#[derive(Debug)]
pub(super) struct Source {
    orders: Sender<Order>,
    stream: Arc<Mutex<Option<TcpStream>>>,
}

/// How a host is reached.
pub(crate) enum Dial {
    /// We connect to it.
    Out(Outbound),
    /// It connects to us when it is called.
    Call(Arc<PushDesk>, PushLocation),
}

/// What a source is started with.
pub(super) struct Start {
    pub(super) addr: SocketAddr,
    pub(super) client: Client,
    /// A connection that the host made to us.
    pub(super) stream: Option<Stream>,
    /// With what a connection changes to TLS.
    pub(super) tls: Option<Tls>,
    /// Whether the host is known to speak it, so that connections begin with it.
    pub(super) secure: bool,
    /// The port at which others reach us, when the address is that which a connection leaves from.
    pub(super) node_port: Option<u16>,
    pub(super) dial: Dial,
    pub(super) origin: Instant,
    pub(super) neighbours: Neighbours,
}

impl Source {
    pub(super) fn spawn(start: Start, sink: Sink) -> io::Result<Self> {
        // Holds no more than the download has requests open with this source.
        let (orders, queue) = unbounded();
        let stream = Arc::new(Mutex::new(None));
        let worker = Worker {
            addr: start.addr,
            client: start.client,
            tls: start.tls,
            secure: start.secure,
            fell_back: false,
            theirs: false,
            node_port: start.node_port,
            dial: start.dial,
            origin: start.origin,
            neighbours: start.neighbours,
            shown: Arc::clone(&stream),
            orders: queue,
            sink,
            pending: VecDeque::new(),
            left: Vec::new(),
            at: 0,
            not_before: Time::ZERO,
            dialled: start.stream.is_none(),
            used: false,
            said: Others::default(),
        };
        thread::Builder::new()
            .name("gnutella-source".into())
            .stack_size(512 << 10)
            .spawn(move || worker.run(start.stream))?;
        Ok(Self { orders, stream })
    }

    pub(super) fn order(&self, order: Order) {
        // The thread may have ended: its last news are on their way.
        let _ = self.orders.send(order);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*stream {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct Worker {
    addr: SocketAddr,
    client: Client,
    tls: Option<Tls>,
    secure: bool,
    /// TLS just failed: the same is asked in clear.
    fell_back: bool,
    /// The host made the connection: it is TLS's client then, as gtk-gnutella has it.
    theirs: bool,
    node_port: Option<u16>,
    dial: Dial,
    origin: Instant,
    neighbours: Neighbours,
    /// The connection as the handle sees it, to end it.
    shown: Arc<Mutex<Option<TcpStream>>>,
    orders: Receiver<Order>,
    sink: Sink,
    pending: VecDeque<Block>,
    /// Bytes that came with a head, from `at` on.
    left: Vec<u8>,
    at: usize,
    /// Blocks asked for before this time were asked for before the host told us to wait.
    not_before: Time,
    /// Whether we may connect again ourselves.
    dialled: bool,
    /// Whether this connection brought an answer.
    used: bool,
    /// Other hosts as they were told last.
    said: Others,
}

/// A body's bytes: those that came with the head first.
struct BodyReader<'a> {
    left: &'a [u8],
    at: &'a mut usize,
    stream: &'a mut Stream,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let held = self.left.get(*self.at..).unwrap_or_default();
        if held.is_empty() {
            return self.stream.read(buf);
        }
        let n = held.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), held.get(..n)) {
            to.copy_from_slice(from);
        }
        *self.at += n;
        Ok(n)
    }
}

fn failed(error: impl Error) -> End {
    End::Failed(error.to_string())
}

impl Worker {
    fn run(mut self, given: Option<Stream>) {
        let end = match self.work(given) {
            Ok(()) => End::Stopped,
            Err(end) => end,
        };
        let news = News::Ended(Box::new(self.client), end);
        // Whoever listened may be gone.
        let _ = (self.sink)(news);
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn tell(&self, news: News) -> Result<(), End> {
        (self.sink)(news).map_err(|()| End::Stopped)
    }

    fn work(&mut self, given: Option<Stream>) -> Result<(), End> {
        let mut stream = match given {
            Some(stream) => {
                self.theirs = true;
                self.take_up(stream)?
            }
            None => self.connect()?,
        };
        self.tell(News::Connected)?;
        loop {
            let Ok(order) = self.orders.recv() else {
                return Ok(());
            };
            match order {
                Order::Probe => {
                    let event = self.exchange(&mut stream, Want::Range(0..PROBE))?;
                    if let Event::Body(range) = event {
                        self.drop_body(&mut stream, range.end - range.start)?;
                    }
                }
                Order::Tree(uri) => match self.exchange(&mut stream, Want::Tree(uri))? {
                    Event::Tree(levels) => self.tell(News::Tree(levels))?,
                    _ => self.tell(News::NoTree)?,
                },
                Order::Blocks(slice, blocks) => {
                    self.take_blocks(blocks);
                    self.fetch(&mut stream, slice)?;
                }
            }
        }
    }

    fn take_blocks(&mut self, blocks: Vec<Block>) {
        if self.now() >= self.not_before {
            self.pending.extend(blocks);
        }
    }

    fn connect(&mut self) -> Result<Stream, End> {
        self.theirs = matches!(self.dial, Dial::Call(..));
        let stream = match &self.dial {
            Dial::Out(outbound) => outbound.connect(self.addr, Some(CONNECT)).map(Stream::from),
            Dial::Call(desk, sharer) => desk.call(sharer),
        };
        let mut stream = self.take_up(stream.map_err(failed)?)?;
        if !self.secure || stream.is_secure() {
            return Ok(stream);
        }
        match self.change_to_tls(&mut stream, &[]) {
            Ok(()) => {
                self.client.connected(true);
                Ok(stream)
            }
            Err(error) => {
                self.no_tls(&error)?;
                self.connect()
            }
        }
    }

    /// `came`: what was read of it already.
    fn change_to_tls(&self, stream: &mut Stream, came: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let session = match self.theirs {
            true => tls.accept(),
            false => tls.connect(),
        };
        stream.secure_after(session.map_err(io::Error::other)?, came)?;
        stream.shake()
    }

    /// The host is spoken to in clear from here on.
    fn no_tls(&mut self, error: &io::Error) -> Result<(), End> {
        tracing::debug!(addr = %self.addr, %error, "TLS does not come about");
        (self.secure, self.fell_back) = (false, true);
        self.client.distrust_tls();
        self.tell(News::NoTls)
    }

    fn take_up(&mut self, stream: Stream) -> Result<Stream, End> {
        let tcp = stream.tcp();
        let prepare = || {
            tcp.set_nodelay(true)?;
            tcp.set_read_timeout(Some(SILENCE))?;
            tcp.set_write_timeout(Some(SILENCE))?;
            Ok::<_, io::Error>((tcp.try_clone()?, tcp.local_addr()?))
        };
        let (copy, local) = prepare().map_err(failed)?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
        // By the overlay nobody can connect to where this end of it is.
        if let Some(port) = self.node_port.filter(|_| !is_overlay(self.addr.ip())) {
            self.client
                .set_node(Some(SocketAddr::new(local.ip(), port)));
        }
        self.client.connected(stream.is_secure());
        self.used = false;
        self.left.clear();
        self.at = 0;
        Ok(stream)
    }
}
