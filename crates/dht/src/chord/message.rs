//! What nodes say to each other and what a node says to its driver, typed; bytes are the wire
//! module's affair.

use super::RingId;
use std::fmt;
use std::hash::Hash;

/// How a message finds a node: a socket address with a ring position on sockets, a small handle in
/// the simulator.
pub trait Address: Copy + Ord + Hash + fmt::Debug {}

impl<T: Copy + Ord + Hash + fmt::Debug> Address for T {}

/// A node as others know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Contact<I, A> {
    /// Where it stands on the circle.
    pub id: I,
    /// How a message reaches it.
    pub addr: A,
}

/// Which links a lookup may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Route {
    /// The circular DHT: clockwise from successor to successor. Successors beyond the first are
    /// used only when those before do not answer. N/2 hops in the mean.
    Ring,
    /// The circular DHT, in whichever direction the key is nearer. N/4 hops in the mean.
    BothWays,
    /// Successors and the shortcuts that were drawn ([`super::Node::set_shortcuts`]).
    Shortcuts,
    /// Chord: successor list and finger table. ½ log2 N hops in the mean.
    #[default]
    Fingers,
}

/// Who carries a lookup on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Style {
    /// Each node passes the query on; the last answers the asker at once.
    #[default]
    Recursive,
    /// The asker asks each node in turn.
    Iterative,
}

/// What a lookup wants to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Want {
    /// The key's owner as the first node says that knows it. Nobody asks whether it lives.
    Named,
    /// The owner itself answers. One hop more than [`Want::Named`], and dead owners are found out
    /// on the way.
    #[default]
    Owner,
    /// The node whose immediate successor is the owner; it answers.
    Predecessor,
}

/// How to look a key up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Lookup {
    /// Which links to follow.
    pub route: Route,
    /// Who carries it on.
    pub style: Style,
    /// What to find.
    pub want: Want,
    /// How many of the owner's successors to tell with the answer: the key's other replicas.
    pub replicas: u8,
    /// Whether to tell the path taken.
    pub trace: bool,
}

/// A lookup under way, as one node sends it to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query<I, A> {
    /// Names the exchange between these two nodes; the answer carries it back.
    pub nonce: u32,
    /// What is looked up.
    pub key: I,
    /// How.
    pub lookup: Lookup,
    /// The sender takes the receiver for the owner: it answers itself, or hands over to a
    /// predecessor that is nearer still.
    pub last: bool,
    /// Iterative: how many of the receiver's best next hops the asker has tried in vain.
    pub skip: u16,
    /// Query messages sent on the way here, this one included.
    pub hops: u32,
    /// Nodes on the way that did not answer.
    pub timeouts: u16,
    /// Hops after which to give up.
    pub limit: u32,
    /// Recursive: who asks, and under which number.
    pub origin: A,
    /// The asker's number of this lookup.
    pub number: u32,
    /// The nodes passed, if that was asked for.
    pub trace: Option<Box<Vec<Contact<I, A>>>>,
}

/// What a lookup found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<I, A> {
    /// What was looked up.
    pub key: I,
    /// The node responsible: the key's successor.
    pub owner: Contact<I, A>,
    /// Who said so: the owner itself with [`Want::Owner`], else its predecessor.
    pub by: Contact<I, A>,
    /// The owner's successors, as many as asked for and known.
    pub replicas: Box<[Contact<I, A>]>,
    /// Query messages on the path from the asker to `by`; those that nobody answered are not
    /// counted here. With [`Want::Named`] the owner itself is one hop further, unless it is `by`.
    pub hops: u32,
    /// Queries that nobody answered.
    pub timeouts: u16,
    /// With [`Lookup::trace`], the nodes that had the query, the asker first, `by` last.
    pub path: Vec<Contact<I, A>>,
}

/// A message between nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<I, A> {
    /// Look this up.
    Query(Query<I, A>),
    /// Answers a recursive query: taken, and carried on.
    Taken {
        /// The query's.
        nonce: u32,
    },
    /// Answers an iterative query: ask one of these, the best first.
    Next {
        /// The query's.
        nonce: u32,
        /// The next hops; empty if there are none left.
        hops: Box<[Contact<I, A>]>,
        /// They are taken for the owner, one after the other.
        last: bool,
    },
    /// Answers a lookup, to the asker.
    Found {
        /// An iterative query's nonce, or the recursive lookup's number.
        number: u32,
        /// What was found.
        found: Box<Found<I, A>>,
    },
    /// Asks for a member's neighbours.
    GetNeighbours {
        /// Names the exchange.
        nonce: u32,
    },
    /// A member's neighbours.
    Neighbours {
        /// The question's.
        nonce: u32,
        /// Its predecessor.
        predecessor: Option<Contact<I, A>>,
        /// Its successors, nearest first.
        successors: Box<[Contact<I, A>]>,
    },
    /// The sender takes itself for the receiver's predecessor.
    Notify {
        /// The sender's position.
        id: I,
    },
    /// Are you there?
    Ping {
        /// Names the exchange.
        nonce: u32,
    },
    /// I am.
    Pong {
        /// The question's.
        nonce: u32,
    },
    /// Answers a question, or a query, of somebody who takes the sender for a member.
    Gone {
        /// The question's.
        nonce: u32,
    },
    /// The sender leaves. A nudge to find that out now: it is believed when the sender answers
    /// with [`Message::Gone`], or no longer.
    Leaving {
        /// The sender's position.
        id: I,
    },
    /// The sender's successor list has changed. A nudge to whoever stands before it to stabilise.
    Changed {
        /// The sender's position.
        id: I,
    },
    /// Another ring may be found through this node: look whether it has a nearer successor.
    Merge {
        /// A member of it.
        via: Contact<I, A>,
    },
}

/// Why a lookup found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookupError {
    /// No answer before the deadline.
    #[error("no answer in time")]
    Deadline,
    /// More hops than allowed.
    #[error("more hops than allowed")]
    HopLimit,
    /// Every node that could carry it on is dead.
    #[error("every node that could carry it on is dead")]
    DeadEnd,
    /// This node is no member of a ring.
    #[error("not a member of a ring")]
    NotMember,
}

/// Why joining failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinError {
    /// The node to join at did not answer, or its ring did not find our place in time.
    #[error("the node to join at does not answer")]
    NoAnswer,
    /// Another node stands at our identifier.
    #[error("another node has this identifier")]
    Taken,
}

/// What a node wants done, or tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output<I, A> {
    /// Send a message.
    Send {
        /// Where to.
        to: A,
        /// What.
        message: Message<I, A>,
    },
    /// A lookup has ended.
    Lookup {
        /// As [`super::Node::lookup`] named it.
        number: u32,
        /// What it found.
        result: Result<Box<Found<I, A>>, LookupError>,
    },
    /// Joining has ended.
    Joined(Result<(), JoinError>),
    /// The predecessor is another one: the keys from it to this node are this node's own.
    Predecessor(Option<Contact<I, A>>),
    /// The successor list has changed: replicas may have to move.
    Successors,
    /// Every successor was lost, and nobody else is known: the node is alone.
    Alone,
}

impl<I: RingId, A: Address> Contact<I, A> {
    /// A node at `id` reached by `addr`.
    pub fn new(id: I, addr: A) -> Self {
        Self { id, addr }
    }
}
