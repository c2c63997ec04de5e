//! Distributed hash tables: Chord for networks of one's own, Kademlia as the public BitTorrent DHT
//! speaks it, and one API over both. Sans-IO like every core: datagrams and *now* in, datagrams,
//! answers and the next deadline out.
//!
//! Knows nothing of torrents: a key is 160 bits, a peer is an address.

pub mod api;
pub mod chord;
pub mod id;
pub mod item;
pub mod keywords;
pub mod mainline;

pub use api::{Answer, Dht, Failure, Health, OpId, Outcome, Output, Request};
pub use id::Id;
pub use item::{Certified, Item, ItemError, Judge, MAX_SALT, Mutable};
