//! Chord: identifiers on a circle, each key on its successor (Stoica et al., ToN 2003), kept by
//! Zave's corrected rules.
//!
//! [`Node`] is the protocol of one ring position over typed messages, without bytes, clock or
//! sockets: the simulator runs a million of them, the model checker every order of events of a
//! few. A driver
//!
//! 1. makes nodes ([`Node::new`] and [`Node::create`] or [`Node::join`]; or
//!    [`Node::with_tables`] for a ring that need not be joined one by one),
//! 2. delivers each [`Output::Send`] to the node at its address with [`Node::on_message`],
//! 3. calls [`Node::on_tick`] at [`Node::deadline`],
//! 4. asks with [`Node::lookup`] and hears with [`Output::Lookup`].
//!
//! ```
//! use shoal_base::Time;
//! use shoal_dht::chord::{Config, Contact, Lookup, Node, Output, Point, Route, Want};
//! use std::sync::Arc;
//!
//! // Peers 1, 4 and 9 on a circle of 16 points; each knows its neighbours.
//! let contact = |n: u64| Contact::new(Point::<4>::new(n), n as u32);
//! let config = Arc::new(Config { successors: 1, ..Config::still() });
//! let node = |me, before, after| {
//!     let (before, after) = (Some(contact(before)), [contact(after)]);
//!     Node::with_tables(Time::ZERO, contact(me), config.clone(), me, before, &after, &[])
//! };
//! let mut nodes = [node(1, 9, 4), node(4, 1, 9), node(9, 4, 1)];
//!
//! let mut out = Vec::new();
//! let lookup = Lookup { route: Route::Ring, want: Want::Named, ..Lookup::default() };
//! nodes[0].lookup(Time::ZERO, Point::new(7), lookup, &mut out);
//! let mut mail: Vec<_> = out.drain(..).map(|o| (1, o)).collect();
//! while let Some((from, output)) = mail.pop() {
//!     match output {
//!         Output::Send { to, message } => {
//!             let receiver = nodes.iter_mut().find(|n| n.me().addr == to).unwrap();
//!             receiver.on_message(Time::ZERO, from, message, &mut out);
//!             mail.extend(out.drain(..).map(|o| (to, o)));
//!         }
//!         Output::Lookup { result, .. } => {
//!             let found = result.unwrap();
//!             assert_eq!((found.owner.addr, found.hops), (9, 1));
//!         }
//!         _ => {}
//!     }
//! }
//! ```
//!
//! [`Endpoint`] is a node on datagrams: `Node`s at positions that nobody chooses, sessions with keys,
//! storage with replicas, subscriptions and the [`crate::Dht`] interface. `docs/protocols/chord.md`
//! describes what it says.
//!
//! **What a hop is.** [`Found::hops`] counts the query messages on the path that led to the
//! answer. With [`Want::Named`] the node before the owner answers, so that in the textbook's ring
//! of eight the key 14 asked at peer 1 takes six; with [`Want::Owner`] the owner answers, one hop
//! later. Queries that nobody answered are in [`Found::timeouts`].

mod config;
mod endpoint;
mod links;
mod lookup;
mod maintenance;
mod merge;
mod message;
mod node;
mod place;
pub mod raw;
mod ring;
mod store;
mod tables;
mod wire;

pub use config::Config;
pub use endpoint::{Endpoint, Notice, Settings};
pub use message::{
    Address, Contact, Found, JoinError, Lookup, LookupError, Message, Output, Query, Route, Style,
    Want,
};
pub use node::{Node, Standing};
pub use place::{Place, position};
pub use ring::{Point, RingId};
pub use store::{ITEM_LIFE, Limits, PEER_LIFE};
pub use wire::MAX_DATAGRAM;
