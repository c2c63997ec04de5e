//! One neighbour.

use std::net::{SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

use shoal_base::Time;

use super::ConnId;
use super::guard::Conduct;
use super::outbox::Outbox;
use crate::handshake::Greeting;
use crate::qrp::{Receiver, Table};

/// What a neighbour is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// An ultrapeer, and we are one.
    Peer,
    /// Our leaf.
    Leaf,
    /// Our ultrapeer; we are its leaf.
    Shield,
    /// Neither, as in 0.4.
    Equal,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnId,
    pub(super) relation: Relation,
    /// Where it listens, as far as is known; unspecified of one that is linked by the overlay.
    pub(super) addr: SocketAddrV4,
    /// Where it is on the overlay, as it says.
    pub(super) overlay: Option<SocketAddrV6>,
    agent: String,
    pub(super) since: Time,
    /// When something came last.
    pub(super) heard: Time,
    pub(super) ping_due: Time,
    pub(super) out: Outbox,
    /// A Bye was sent or came.
    pub(super) closing: bool,
    pub(super) conduct: Conduct,
    /// Its table.
    pub(super) table: Receiver,
    /// The table it has of us.
    pub(super) sent: Option<Arc<Table>>,
    /// Queries of as many hops or more are not wanted there.
    pub(super) hops_flow: u8,
    // What it can.
    pub(super) routes: bool,
    pub(super) one_bit: bool,
    pub(super) ultrapeer_routes: bool,
    pub(super) degree: u8,
    pub(super) max_ttl: u8,
    pub(super) bye: bool,
    pub(super) ggep: bool,
    pub(super) vendor: bool,
    /// It passes Pushes on to us, reachable there.
    pub(super) proxy: Option<SocketAddrV4>,
    /// We pass Pushes on to the servent of this name.
    pub(super) client: Option<crate::guid::Guid>,
}

/// The degree of ultrapeers that do not tell it (LimeWire before dynamic queries had 6).
const OLD_DEGREE: u8 = 6;

impl Link {
    pub(super) fn new(
        now: Time,
        id: ConnId,
        relation: Relation,
        addr: SocketAddrV4,
        theirs: &Greeting,
    ) -> Self {
        Self {
            id,
            relation,
            addr,
            overlay: theirs.overlay.as_ref().and_then(|o| o.addr),
            agent: theirs.agent.clone(),
            since: now,
            heard: now,
            ping_due: now,
            out: Outbox::default(),
            closing: false,
            conduct: Conduct::new(now),
            table: Receiver::default(),
            sent: None,
            hops_flow: u8::MAX,
            routes: theirs.routes,
            one_bit: theirs.one_bit && !misreads_bits(&theirs.agent),
            ultrapeer_routes: theirs.ultrapeer_routes,
            degree: theirs.degree.unwrap_or(OLD_DEGREE).clamp(1, 200),
            max_ttl: theirs.max_ttl.unwrap_or(4).clamp(1, 5),
            bye: theirs.bye,
            ggep: theirs.ggep,
            vendor: theirs.vendor,
            proxy: None,
            client: None,
        }
    }

    /// Whether it has an address of its own, to connect to or to send datagrams to.
    pub(super) fn is_placed(&self) -> bool {
        !self.addr.ip().is_unspecified()
    }

    pub(super) fn info(&self) -> LinkInfo {
        LinkInfo {
            id: self.id,
            relation: self.relation,
            addr: self.addr,
            overlay: self.overlay,
            agent: self.agent.clone(),
            since: self.since,
            waiting: self.out.bytes(),
            words: self.table.table().map(Table::count),
            proxy: self.proxy,
        }
    }
}

/// Whether a program that says it understands entries of one bit puts them in wrong places:
/// gtk-gnutella 1.2.3 does (`qrt_apply_patch1`), and finds nothing at who sends those.
fn misreads_bits(agent: &str) -> bool {
    agent.starts_with("gtk-gnutella/")
}

/// A connection, for whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Which.
    pub id: ConnId,
    /// What the neighbour is to us.
    pub relation: Relation,
    /// Where it listens, as far as is known; unspecified of one that is linked by the overlay.
    pub addr: SocketAddrV4,
    /// Where it is on the overlay, as it says.
    pub overlay: Option<SocketAddrV6>,
    /// Its program.
    pub agent: String,
    /// When it connected.
    pub since: Time,
    /// Bytes that wait for it.
    pub waiting: usize,
    /// Slots that are set in its query routing table, if it sent one.
    pub words: Option<u32>,
    /// Where it can be asked to pass Pushes on to us.
    pub proxy: Option<SocketAddrV4>,
}
