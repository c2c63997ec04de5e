//! How others speak with a node's thread.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;
use shoal_gnutella::Guid;
use shoal_gnutella::message::query::Wanted;
use shoal_gnutella::node::{Answer, LinkInfo, Load, Mode, Stats};

/// Answers that may wait for whoever searches; beyond those they are dropped.
const ANSWERS: usize = 4096;

/// What comes of a search.
#[derive(Debug)]
pub enum SearchEvent {
    /// The query got this name.
    Started(Guid),
    /// Somebody has files.
    Found(Box<Answer>),
    /// Nobody else will be asked; answers may still come.
    Over,
}

/// What a node was like a second ago at most.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What it counted.
    pub stats: Stats,
    /// Where others reach it, as far as it knows.
    pub listen: Option<SocketAddrV4>,
    /// What it is.
    pub mode: Mode,
    /// Whether others were seen to connect to it.
    pub reached: bool,
    /// Its connections.
    pub links: Vec<LinkInfo>,
    /// Why calls failed, the last ones: whom, and why.
    pub failures: Vec<(SocketAddr, String)>,
}

pub(super) enum Order {
    Connect(SocketAddr),
    Hosts(Vec<SocketAddrV4>),
    Search(String, Wanted, Sender<SearchEvent>),
    EndSearch(Guid),
    Push(Guid, u32, SocketAddrV4, Sender<bool>),
    Load(Load),
    ProxyPush(Guid, SocketAddrV4, Sender<bool>),
}

/// Gives orders to a node's thread; copies are cheap.
#[derive(Clone, Debug)]
pub struct Control {
    pub(super) orders: Sender<Order>,
    pub(super) waker: Arc<Waker>,
    pub(super) snapshot: Arc<Mutex<Snapshot>>,
    pub(super) listen: SocketAddrV4,
    pub(super) servent: Guid,
}

impl Control {
    /// Where the node listens.
    pub fn listen(&self) -> SocketAddrV4 {
        self.listen
    }

    /// Names the node.
    pub fn servent(&self) -> Guid {
        self.servent
    }

    fn order(&self, order: Order) {
        // A thread that ended takes no orders, and nobody waits for their outcome in vain: the
        // sender of the answer goes with the order.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Keeps a connection with a host: it is dialled, and again when the connection is lost.
    pub fn connect(&self, addr: SocketAddr) {
        self.order(Order::Connect(addr));
    }

    /// Tells of hosts that may be ultrapeers.
    pub fn add_hosts(&self, hosts: Vec<SocketAddrV4>) {
        self.order(Order::Hosts(hosts));
    }

    /// Asks for files. The search ends when the receiver is dropped and a further answer comes, or
    /// by [`Control::end_search`].
    pub fn search(&self, text: &str, wanted: Wanted) -> Receiver<SearchEvent> {
        let (sender, receiver) = bounded(ANSWERS);
        self.order(Order::Search(text.into(), wanted, sender));
        receiver
    }

    /// No more answers are wanted.
    pub fn end_search(&self, guid: Guid) {
        self.order(Order::EndSearch(guid));
    }

    /// Asks a servent to connect to `back` and offer the file of that number, by the way its answer
    /// came. Whether such a way is known.
    pub fn push(&self, servent: Guid, index: u32, back: SocketAddrV4) -> bool {
        let (sender, receiver) = bounded(1);
        self.order(Order::Push(servent, index, back, sender));
        receiver.recv().unwrap_or(false)
    }

    /// Passes a Push on to a leaf of ours, as a push proxy. Whether it is one.
    pub fn proxy_push(&self, servent: Guid, back: SocketAddrV4) -> bool {
        let (sender, receiver) = bounded(1);
        self.order(Order::ProxyPush(servent, back, sender));
        receiver.recv().unwrap_or(false)
    }

    /// What can still be given of what is shared: hits and ultrapeers tell others.
    pub fn set_load(&self, load: Load) {
        self.order(Order::Load(load));
    }

    /// What the node was like a second ago at most.
    pub fn snapshot(&self) -> Snapshot {
        let snapshot = self.snapshot.lock();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
