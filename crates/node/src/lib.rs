//! The node: what runs the protocol cores on real sockets, a real clock and a real disk.
//!
//! [`Session`] is the way in. Knows no protocol rule: those are in the cores.

mod accept;
mod assembly;
pub mod call;
pub mod dht;
pub mod gnutella;
mod http;
pub mod lsd;
pub mod mapping;
pub mod napster;
pub mod outbound;
mod range_source;
pub mod reach;
mod reactor;
pub mod relay;
pub mod session;
pub mod supernode;
pub mod swarm_files;
pub mod tracker_client;
pub mod tracker_server;
pub mod webseed;

pub use range_source::{SourceCount, SourceNews, SourceSort, SourceSpec};
pub use session::{
    AddTorrent, DhtSettings, Event, NodeError, Opened, RingSettings, Session, SessionConfig,
    TorrentKey, TorrentState, TorrentStats, What,
};
