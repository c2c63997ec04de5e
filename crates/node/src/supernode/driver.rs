//! One node on sockets.

mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use shoal_dht::Answer;
use shoal_supernode::Address;
use shoal_supernode::list::Entry;
use shoal_supernode::node::{Config, Event, LinkId, Node, OfChildren, Role, Stats};
use shoal_supernode::token::{Key, Presence, Token};
use shoal_supernode::wire::{File, Message, OVERLAY_LINKS, QueryId, Standing, Wanted};

use super::beyond;
use super::boxes::BoxServer;
use super::children::ChildrenShelf;
use super::front::{Front, Taker};
use crate::dht::{DhtNode, Ticket};
use crate::gnutella::Shelf;
use crate::reach::{Overlay, Service, WeakOverlay};
use worker::Core;

/// Messages that may wait for the core, of all links: then links are not read from.
const INBOX: usize = 1024;

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

#[cfg(test)]
mod tests;
