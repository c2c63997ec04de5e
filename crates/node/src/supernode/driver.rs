//! One node on sockets.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::Answer;
use shoal_supernode::Address;
use shoal_supernode::list::Entry;
use shoal_supernode::node::{Config, Effect, Event, LinkId, Node, OfChildren, Role, Stats};
use shoal_supernode::token::{Key, Presence, Token};
use shoal_supernode::wire::{File, Message, OVERLAY_LINKS, QueryId, Standing, Wanted};

use super::ask;
use super::beyond;
use super::boxes::BoxServer;
use super::children::ChildrenShelf;
use super::frames::{Frames, say};
use super::front::{Front, Taker};
use super::place_ring::{Came, PlaceRing};
use crate::dht::{DhtNode, Ticket};
use crate::gnutella::Shelf;
use crate::reach::{Overlay, Service, WeakOverlay, overlay_of};

/// How long a dial may take, and sending stand still.
const DIAL: Duration = Duration::from_secs(4);
const STALL: Duration = Duration::from_secs(10);
/// Stack of a link's threads.
const STACK: usize = 256 << 10;
/// Messages that may wait for a link; who takes them slower is cut off.
const QUEUE: usize = 1024;
/// Messages that may wait for the core, of all links: then links are not read from.
const INBOX: usize = 1024;

/// Names of children's files that another network is told of, at most.
const MAX_NAMES: usize = 200_000;

/// Takes a connection that is no link: its stream, from where it comes, and what was read of it.
pub type Others = Arc<Taker>;

/// What a node is and knows.
pub struct NodeSettings {
    /// Where it is.
    pub place: Place,
    /// Whether others can fetch files there.
    pub serves: bool,
    /// Connections that are no links; none: they are closed.
    pub others: Option<Others>,
    /// Boxes for letters, if it has any.
    pub boxes: Option<BoxServer>,
    /// Who it is.
    pub key: SigningKey,
    /// By the login server.
    pub token: Token,
    /// The list of supernodes.
    pub list: SocketAddr,
    /// Limits and wishes.
    pub config: Config,
    /// What it shares.
    pub files: Vec<File>,
    /// The seed of its choices.
    pub seed: u64,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The address cannot be listened at, or no thread be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) enum Input {
    /// A connection that was dialled, or came, what was read of it, and the other's host.
    Connected(Option<SocketAddr>, TcpStream, Vec<u8>, u128),
    MayRise(bool),
    /// Others are reached by this, too.
    Overlay(WeakOverlay),
    DialFailed(SocketAddr),
    Message(LinkId, Box<Message<SocketAddr>>),
    Closed(LinkId),
    Listed(Vec<Entry<SocketAddr>>),
    Search(Wanted, Sender<Option<QueryId>>),
    Push(QueryId, Key, [u8; 20]),
    Letter(Key, Vec<u8>),
    Renew(Token),
    Elsewhere(QueryId, Vec<(File, SocketAddr)>),
    Share(File),
    Unshare(String),
    Stand(Standing),
    OfChildren(OfChildren, usize, Sender<Vec<(File, SocketAddr)>>),
    ChildrensNames(Sender<Vec<(String, [u8; 20])>>),
    Look(Sender<Looked>),
    /// The ring of names is asked by this node from now on; none: no more.
    Ring(Option<(Weak<DhtNode>, Key)>),
    RingAnswered(Ticket, Box<Answer>),
    Stop,
}

/// What a node is and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// What it is.
    pub role: Role,
    /// Where its supernode is.
    pub home: Option<SocketAddr>,
    /// What it holds and did.
    pub stats: Stats,
}

/// Where a node is.
#[derive(Debug)]
pub enum Place {
    /// It listens, and others reach that at the address that is told, which is no wildcard.
    Reached(TcpListener, SocketAddr),
    /// Nobody can connect to it; its own address, as far as it knows.
    Hidden(IpAddr),
    /// Others reach it by the overlay alone, at this address of its own.
    Overlay(SocketAddr),
}

impl std::fmt::Debug for NodeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSettings")
            .field("place", &self.place)
            .field("serves", &self.serves)
            .finish_non_exhaustive()
    }
}

/// A running node; dropping it ends it.
#[derive(Debug)]
pub struct NodeDriver {
    addr: SocketAddr,
    inputs: Sender<Input>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    version: Arc<AtomicU64>,
    /// What happens.
    pub events: Receiver<Event<SocketAddr>>,
}

impl NodeDriver {
    /// Starts a node.
    ///
    /// # Errors
    /// Why not.
    pub fn start(settings: NodeSettings) -> Result<Self, DriverError> {
        let (listener, addr) = match settings.place {
            Place::Reached(listener, told) => (Some(listener), told),
            // Port zero: whoever tries fails at once.
            Place::Hidden(ip) => (None, SocketAddr::new(ip, 0)),
            Place::Overlay(at) => (None, at),
        };
        let files = (settings.serves && listener.is_some()).then_some(addr);
        let presence = Presence::new(&settings.key, settings.token, addr, files);
        let unlimited = settings.config.unlimited.clone();
        let config = Config {
            epoch: super::unix(),
            ..settings.config
        };
        let rng = Rng::from_seed(settings.seed);
        let mut node = Node::new(config, settings.key, presence, rng);
        let mut out = Vec::new();
        node.share(Time::ZERO, settings.files, &mut out);
        let (tell, events) = unbounded();
        let (inputs, inbox) = bounded(INBOX);
        let stop = Arc::new(AtomicBool::new(false));
        let version = Arc::new(AtomicU64::new(0));
        let core = Core {
            node,
            start: Instant::now(),
            list: settings.list,
            links: BTreeMap::new(),
            overlay: None,
            ring: None,
            next: 1,
            inputs: inputs.clone(),
            tell,
            version: Arc::clone(&version),
        };
        let running = thread::Builder::new()
            .name("supernode".into())
            .spawn(move || core.run(&inbox))?;
        let mut driver = Self {
            addr,
            inputs: inputs.clone(),
            stop: Arc::clone(&stop),
            threads: vec![running],
            version,
            events,
        };
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            let front = Front {
                links: Box::new(move |stream, peer, first| {
                    let _ = inputs.send(Input::Connected(None, stream, first, peer.host()));
                }),
                others: settings.others,
                boxes: settings.boxes,
                unlimited,
            };
            let accepting = thread::Builder::new()
                .name("supernode-accept".into())
                .spawn(move || front.run(&listener, &stop))?;
            driver.threads.push(accepting);
        }
        Ok(driver)
    }

    /// Links to others and from them go by the overlay, too, but for those that need relays: whoever can be reached
    /// in no other way would load somebody else's. As long as what is returned is kept.
    ///
    /// # Errors
    /// The port is taken.
    pub fn reach_by(&self, overlay: &Overlay) -> io::Result<Service> {
        let (inputs, by) = (self.inputs.clone(), overlay.downgrade());
        let service = overlay.listen(OVERLAY_LINKS, move |stream, from| {
            if let Some(overlay) = by.upgrade() {
                match beyond::arrived(&overlay, &stream, from) {
                    Ok((first, host)) => {
                        let _ = inputs.send(Input::Connected(None, stream, first, host));
                    }
                    Err(error) => tracing::debug!(%from, %error, "a link by the overlay"),
                }
            }
        })?;
        // It may have ended.
        let _ = self.inputs.send(Input::Overlay(overlay.downgrade()));
        Ok(service)
    }

    /// Whether it becomes a supernode when it is asked to.
    pub fn set_may_rise(&self, may: bool) {
        // It may have ended.
        let _ = self.inputs.send(Input::MayRise(may));
    }

    /// Where others reach it, as it tells them; at port zero if they cannot.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Looks for files; none if there is no word, or no supernode to ask.
    pub fn search(&self, words: &str) -> Option<QueryId> {
        self.ask(Wanted::Words(words.to_owned()))
    }

    /// Looks for who has the file with this SHA-1; none if there is no supernode to ask.
    pub fn seek(&self, sha1: [u8; 20]) -> Option<QueryId> {
        self.ask(Wanted::Sha1(sha1))
    }

    fn ask(&self, wanted: Wanted) -> Option<QueryId> {
        let (answer, got) = bounded(1);
        self.inputs.send(Input::Search(wanted, answer)).ok()?;
        got.recv().ok()?
    }

    /// Asks a sharer whose hit answered our query to connect to us.
    pub fn push(&self, query: QueryId, sharer: Key, sha1: [u8; 20]) {
        // It may have ended.
        let _ = self.inputs.send(Input::Push(query, sharer, sha1));
    }

    /// Sends a sealed letter to whoever has this key.
    pub fn write(&self, to: Key, sealed: Vec<u8>) {
        // It may have ended.
        let _ = self.inputs.send(Input::Letter(to, sealed));
    }

    /// Takes a fresh token.
    pub fn renew(&self, token: Token) {
        // It may have ended.
        let _ = self.inputs.send(Input::Renew(token));
    }

    /// Another network answers a query that passed here.
    pub fn found_elsewhere(&self, query: QueryId, files: Vec<(File, SocketAddr)>) {
        // It may have ended.
        let _ = self.inputs.send(Input::Elsewhere(query, files));
    }

    /// Shares a file more.
    pub fn share(&self, file: File) {
        // It may have ended.
        let _ = self.inputs.send(Input::Share(file));
    }

    /// Shares the file at a path no more.
    pub fn unshare(&self, path: String) {
        // It may have ended.
        let _ = self.inputs.send(Input::Unshare(path));
    }

    /// Says how this node stands with those who fetch from it.
    pub fn stand(&self, standing: Standing) {
        // It may have ended.
        let _ = self.inputs.send(Input::Stand(standing));
    }

    /// From now on the ring of names of those who trust `server` is asked by this node where others are, and keeps
    /// places; what it answers is to be told by [`NodeDriver::ring_answers`].
    pub fn ask_ring_by(&self, node: Weak<DhtNode>, server: Key) {
        // It may have ended.
        let _ = self.inputs.send(Input::Ring(Some((node, server))));
    }

    /// The ring is asked no more.
    pub fn leave_ring(&self) {
        // It may have ended.
        let _ = self.inputs.send(Input::Ring(None));
    }

    /// Takes answers of the ring, to tickets that are of places ([`super::is_of_places`]).
    pub fn ring_answers(&self) -> impl Fn(Ticket, Answer) + Send + 'static {
        let inputs = self.inputs.clone();
        move |ticket, answer| {
            // The ring's thread is not to block: what is lost is looked for again.
            let _ = inputs.try_send(Input::RingAnswered(ticket, Box::new(answer)));
        }
    }

    /// What a node of a Gnutella network shares: `own`, and what children do.
    pub fn shelf(&self, own: Shelf) -> ChildrenShelf {
        ChildrenShelf::new(own, self.inputs.clone(), Arc::clone(&self.version))
    }

    /// What it is and did; none when it has ended.
    pub fn look(&self) -> Option<Looked> {
        let (answer, got) = bounded(1);
        self.inputs.send(Input::Look(answer)).ok()?;
        got.recv().ok()
    }
}

impl Drop for NodeDriver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.inputs.send(Input::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a node panicked");
            }
        }
    }
}

struct Wire {
    stream: TcpStream,
    out: Sender<Message<SocketAddr>>,
}

struct Core {
    node: Node<SocketAddr>,
    start: Instant,
    list: SocketAddr,
    links: BTreeMap<LinkId, Wire>,
    overlay: Option<WeakOverlay>,
    ring: Option<PlaceRing>,
    /// Never used again, so that a late message finds nobody rather than somebody else.
    next: LinkId,
    inputs: Sender<Input>,
    tell: Sender<Event<SocketAddr>>,
    /// Of what children share.
    version: Arc<AtomicU64>,
}

impl Core {
    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn run(mut self, inbox: &Receiver<Input>) {
        let mut out = Vec::new();
        self.node.start(self.now(), &mut out);
        self.act(&mut out);
        loop {
            let wait = self.node.deadline().since(self.now());
            let input = inbox.recv_timeout(wait).ok();
            let now = self.now();
            match input {
                Some(Input::Stop) => break,
                Some(input) => self.take(now, input, &mut out),
                None => {}
            }
            if self.node.deadline() <= now {
                self.node.on_tick(now, &mut out);
            }
            self.act(&mut out);
            let version = self.node.children_version();
            self.version.store(version, Ordering::Relaxed);
        }
        self.node.stop(self.now(), &mut out);
        self.act(&mut out);
        // Readers that wait to hand something over find nobody.
        for wire in self.links.values() {
            let _ = wire.stream.shutdown(std::net::Shutdown::Read);
        }
    }

    fn take(&mut self, now: Time, input: Input, out: &mut Vec<Effect<SocketAddr>>) {
        match input {
            Input::MayRise(may) => self.node.set_may_rise(may),
            Input::Overlay(overlay) => self.overlay = Some(overlay),
            Input::Connected(dialled, stream, first, host) => {
                let id = self.next;
                self.next = self.next.wrapping_add(1);
                match self.open(id, stream, first) {
                    Ok(()) => self.node.on_connected(now, id, dialled, host, out),
                    Err(_) => {
                        if let Some(addr) = dialled {
                            self.node.on_dial_failed(now, addr, out);
                        }
                    }
                }
            }
            Input::DialFailed(addr) => self.node.on_dial_failed(now, addr, out),
            Input::Message(id, message) => self.node.on_message(now, id, *message, out),
            Input::Closed(id) => {
                self.links.remove(&id);
                self.node.on_closed(now, id, out);
            }
            Input::Listed(entries) => self.node.on_list(now, &entries, out),
            Input::Search(wanted, answer) => {
                let id = match wanted {
                    Wanted::Words(words) => self.node.search(now, &words, out),
                    Wanted::Sha1(sha1) => self.node.seek(now, sha1, out),
                };
                let _ = answer.send(id);
            }
            Input::Push(query, sharer, sha1) => {
                if !self.node.push(now, query, &sharer, sha1, out) {
                    tracing::debug!("a sharer cannot be asked to connect: its hit is forgotten");
                }
            }
            Input::Letter(to, sealed) => {
                if !self.node.write(now, to, sealed, out) {
                    tracing::debug!("a letter has no way to go");
                }
            }
            Input::Renew(token) => self.node.renew(now, token, out),
            Input::Share(file) => self.node.share_more(now, file, out),
            Input::Unshare(path) => self.node.unshare(now, &path, out),
            Input::Stand(standing) => self.node.stand(now, standing, out),
            Input::Elsewhere(id, files) => self.node.found_elsewhere(now, id, files, out),
            Input::OfChildren(wanted, most, answer) => {
                // Whoever asked may not wait any more.
                let _ = answer.send(self.node.of_children(&wanted, most));
            }
            Input::ChildrensNames(answer) => {
                let mut names = Vec::new();
                self.node.each_of_children(|file| {
                    names.push((file.path.clone(), file.sha1));
                    names.len() < MAX_NAMES
                });
                let _ = answer.send(names);
            }
            Input::Look(answer) => {
                let node = &self.node;
                let _ = answer.send(Looked {
                    role: node.role(),
                    home: node.home(),
                    stats: node.stats(),
                });
            }
            Input::Ring(ring) => {
                self.ring = ring.map(|(node, server)| PlaceRing::new(node, server));
                self.node.set_finds(now, self.ring.is_some(), out);
            }
            Input::RingAnswered(ticket, answer) => {
                let came = self.ring.as_mut().and_then(|r| r.answered(ticket, *answer));
                came.into_iter().for_each(|came| self.came(came, out));
            }
            Input::Stop => {}
        }
    }

    /// The ring said something of places.
    fn came(&mut self, came: Came, out: &mut Vec<Effect<SocketAddr>>) {
        let now = self.now();
        match came {
            Came::Place(of, place) => self.node.on_place(now, of, place.map(|p| *p), out),
            Came::Unkept(place) => self.node.on_unkept(now, place),
        }
    }

    /// Gives a connection, of which `first` was read, its two threads.
    fn open(&mut self, id: LinkId, stream: TcpStream, first: Vec<u8>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let (out, waiting) = bounded::<Message<SocketAddr>>(QUEUE);
        let mut writing = stream.try_clone()?;
        let mut frames = Frames::after(stream.try_clone()?, first);
        thread::Builder::new()
            .name("supernode-out".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(message) = waiting.recv() {
                    if say(&mut writing, &message).is_err() {
                        break;
                    }
                }
                let _ = writing.shutdown(std::net::Shutdown::Both);
            })?;
        let inputs = self.inputs.clone();
        thread::Builder::new()
            .name("supernode-in".into())
            .stack_size(STACK)
            .spawn(move || {
                while let Ok(Some(message)) = frames.next() {
                    if inputs.send(Input::Message(id, Box::new(message))).is_err() {
                        return;
                    }
                }
                let _ = inputs.send(Input::Closed(id));
            })?;
        self.links.insert(id, Wire { stream, out });
        Ok(())
    }

    fn act(&mut self, out: &mut Vec<Effect<SocketAddr>>) {
        let mut todo: std::collections::VecDeque<_> = out.drain(..).collect();
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Dial(addr) => {
                    if !self.dial(addr) {
                        let mut more = Vec::new();
                        self.node.on_dial_failed(self.now(), addr, &mut more);
                        todo.extend(more);
                    }
                }
                Effect::Send(id, message) => {
                    let full =
                        |w: &Wire| matches!(w.out.try_send(message), Err(TrySendError::Full(_)));
                    if self.links.get(&id).is_some_and(full) {
                        self.links.remove(&id);
                        let mut more = Vec::new();
                        self.node.on_closed(self.now(), id, &mut more);
                        todo.extend(more);
                    }
                }
                // The writer sends what waits, then ends the connection.
                Effect::Close(id) => drop(self.links.remove(&id)),
                Effect::AskList => {
                    let list = self.list;
                    self.beside("supernode-list", move |inputs| {
                        match ask::supernodes(list) {
                            Ok(entries) => drop(inputs.send(Input::Listed(entries))),
                            Err(error) => tracing::debug!(%error, "the list of supernodes"),
                        }
                    });
                }
                Effect::Register(said) => {
                    let list = self.list;
                    self.beside("supernode-list", move |_| {
                        if let Err(error) = ask::register(list, said) {
                            tracing::warn!(%error, "the list of supernodes");
                        }
                    });
                }
                Effect::Find(of) => {
                    let none = Some(Came::Place(of, None));
                    let came = self.ring.as_mut().map_or(none, |ring| ring.find(of));
                    let mut more = Vec::new();
                    came.into_iter().for_each(|came| self.came(came, &mut more));
                    todo.extend(more);
                }
                Effect::Keep(place) => {
                    // Who has left the ring hands over to none.
                    let came = self.ring.as_mut().and_then(|ring| ring.keep(place));
                    came.into_iter()
                        .for_each(|came| self.came(came, &mut Vec::new()));
                }
                Effect::Event(event) => {
                    let _ = self.tell.send(event);
                }
            }
        }
    }

    /// Dials, on a thread of its own; false: there is no way to such an address.
    fn dial(&self, addr: SocketAddr) -> bool {
        let Some(to) = overlay_of(addr) else {
            self.beside("supernode-dial", move |inputs| {
                let _ = inputs.send(match TcpStream::connect_timeout(&addr, DIAL) {
                    Ok(stream) => Input::Connected(Some(addr), stream, Vec::new(), addr.host()),
                    Err(_) => Input::DialFailed(addr),
                });
            });
            return true;
        };
        // Without a link nobody carries the letters by which another is reached.
        let overlay = self.overlay.as_ref().filter(|_| !self.links.is_empty());
        let Some(overlay) = overlay.and_then(WeakOverlay::upgrade) else {
            return false;
        };
        self.beside("supernode-dial", move |inputs| {
            let _ = inputs.send(match beyond::dial(&overlay, to) {
                Ok((stream, host)) => Input::Connected(Some(addr), stream, Vec::new(), host),
                Err(error) => {
                    tracing::debug!(%addr, %error, "a link by the overlay");
                    Input::DialFailed(addr)
                }
            });
        });
        true
    }

    /// Does what waits, in a thread of its own; the core asks for few at once.
    fn beside(&self, name: &str, work: impl FnOnce(&Sender<Input>) + Send + 'static) {
        let inputs = self.inputs.clone();
        let spawned = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&inputs));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a node");
        }
    }
}

#[cfg(test)]
mod tests;
