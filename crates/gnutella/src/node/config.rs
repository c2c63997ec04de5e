//! What a node is, and its limits.

use std::net::{SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use super::Promotion;

/// What a node does for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Routes for its leaves and among ultrapeers.
    Ultrapeer,
    /// Asks and answers by way of a few ultrapeers.
    #[default]
    Leaf,
    /// Floods pings and queries among equals, as 0.4 did: for study.
    Flood,
}

/// What a node can still give of what it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Load {
    /// Whoever asks gets it at once.
    #[default]
    Free,
    /// Whoever asks has to wait: hits say so.
    Busy,
    /// No place to wait is left: queries are in vain, and a leaf's ultrapeers are told to keep them.
    Full,
}

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it does for others.
    pub mode: Mode,
    /// The program, as it names itself.
    pub agent: String,
    /// The program, in four letters.
    pub vendor: [u8; 4],
    /// Where it listens, as others see it; none while that is not known. Without it nothing is
    /// answered.
    pub listen: Option<SocketAddrV4>,
    /// Others cannot connect to us, and send a Push.
    pub firewalled: bool,
    /// Where it is on the overlay, at which nodes of ours reach it whatever is between.
    pub overlay: Option<SocketAddrV6>,
    /// Connections with ultrapeers (in [`Mode::Flood`]: with anybody) at most, which are also sought.
    pub ultrapeers: usize,
    /// Leaves at most.
    pub leaves: usize,
    /// TTL of its own queries.
    pub ttl: u8,
    /// TTL and hops together at most of what passes through.
    pub max_ttl: u8,
    /// TTL and hops together at most of others' queries that an ultrapeer passes on; what came as many
    /// hops already is dropped. Four is what ultrapeers of high degree agreed on.
    pub query_reach: u8,
    /// Results of its own queries that it seeks (Dynamic Query 0.1 §2.5.3.1).
    pub wanted: u32,
    /// Results that it seeks for a leaf.
    pub leaf_wanted: u32,
    /// Files that it names in answer to one query at most.
    pub answers: usize,
    /// Upload speed that it tells, in kB/s.
    pub speed: u32,
    /// Deflates what it sends to those who can inflate it, and the other way round.
    pub deflate: bool,
    /// Changes to TLS with those who can.
    pub tls: bool,
    /// Offers and takes answers out of band, by datagrams.
    pub oob: bool,
    /// When it changes its role by itself; none: never.
    pub promotion: Option<Promotion>,
    /// Bytes that may wait for one connection.
    pub queue: usize,
    /// Messages whose way back is remembered, at most twice this.
    pub routes: usize,
    /// How long a way back is remembered at least.
    pub remember: Duration,
    /// How often changed query routing tables are sent on.
    pub tables: Duration,
    /// Queries a second from an ultrapeer, and from a leaf.
    pub query_rate: (u32, u32),
    /// Hosts kept for later.
    pub hosts: usize,
}

impl Config {
    /// The usual settings of a mode.
    pub fn of(mode: Mode) -> Self {
        let (ultrapeers, leaves, ttl) = match mode {
            // Fifty neighbours of degree fifty and a TTL of 3 reach 122,550 ultrapeers in theory; a TTL
            // of 4 would exceed the 200,000 of Dynamic Query 0.1 §2.4.
            Mode::Ultrapeer => (50, 300, 3),
            Mode::Leaf => (4, 0, 4),
            Mode::Flood => (5, 0, 7),
        };
        Self {
            mode,
            agent: concat!("shoal/", env!("CARGO_PKG_VERSION")).into(),
            vendor: *b"SHOA",
            listen: None,
            firewalled: false,
            overlay: None,
            ultrapeers,
            leaves,
            ttl,
            max_ttl: 7,
            query_reach: 4,
            wanted: 150,
            leaf_wanted: 50,
            answers: 64,
            speed: 1000,
            deflate: true,
            tls: false,
            oob: false,
            promotion: None,
            queue: 256 << 10,
            routes: 50_000,
            remember: Duration::from_secs(300),
            tables: Duration::from_secs(10),
            query_rate: (200, 2),
            hosts: 1000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Mode::default())
    }
}
