//! How a torrent is set up, and what it tells its driver.

use super::{ConnId, RangeSourceId};
use crate::choker::Choking;
use shoal_content::download::Mode;
use shoal_content::{Block, Info, MetainfoError};
use std::net::SocketAddr;

/// How a torrent behaves.
#[derive(Clone, Debug)]
pub struct TorrentConfig {
    /// Most connected peers.
    pub max_peers: usize,
    /// Most connections being set up at once.
    pub max_half_open: usize,
    /// The port peers can dial us on, told in the extension handshake.
    pub listen_port: Option<u16>,
    /// Bytes a second we may send, for sizing the unchoke slots; none: no limit.
    pub up_limit: Option<u64>,
    /// In what order pieces are fetched.
    pub mode: Mode,
    /// Who is unchoked while downloading.
    pub choking: Choking,
    /// Our name and version, told to peers (BEP 10 `v`).
    pub client: String,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// This connection has something to send: control bytes or uploads.
    Wake(ConnId),
    /// Close this connection.
    Close {
        /// Which one.
        conn: ConnId,
        /// For the log and for `why`.
        why: CloseReason,
    },
    /// Dial this address; answer with `on_connected` or `on_dial_failed`.
    Connect(SocketAddr),
    /// Give up the dial under way to this address, if its handshakes have not been exchanged: the
    /// peer has connected to us. Nothing is to be told of it.
    GiveUpDial(SocketAddr),
    /// A peer says that a node of the DHT listens here (BEP 5).
    DhtNode(SocketAddr),
    /// Ask a range source for a block.
    RangeRequest {
        /// Which.
        source: RangeSourceId,
        /// What to ask for.
        block: Block,
    },
    /// A range source misbehaved: stop using it.
    RangeDrop {
        /// Which.
        source: RangeSourceId,
        /// Whether it sent wrong bytes.
        lied: bool,
    },
    /// The metadata is complete and matches the info-hash; answer with [`Torrent::activate`].
    Metadata(Box<Info>),
    /// The metadata matches the info-hash but makes no sense: the torrent cannot be used.
    BadMetadata(MetainfoError),
    /// A piece was verified.
    Have(u32),
    /// Every wanted piece is verified.
    Finished,
    /// This address sent bad data and must not be spoken to again.
    Banned(SocketAddr),
}

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// It broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// It sent data that failed its hash.
    #[error("sent corrupt data")]
    Corrupt,
    /// Nothing was heard of it for too long.
    #[error("silent for too long")]
    Silent,
    /// Both sides have everything.
    #[error("both sides are complete")]
    BothComplete,
    /// It is ourselves.
    #[error("connected to ourselves")]
    Ourselves,
    /// Already connected to the same peer.
    #[error("already connected to this peer")]
    Duplicate,
    /// There are enough connections.
    #[error("too many connections")]
    Full,
    /// Neither side was of use to the other.
    #[error("of no use to each other")]
    Useless,
}

/// Figures of a torrent.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that have everything.
    pub seeds: usize,
    /// Payload bytes received.
    pub downloaded: u64,
    /// Payload bytes sent.
    pub uploaded: u64,
    /// Payload bytes received to no use.
    pub wasted: u64,
    /// Payload bytes a second received.
    pub rate_down: u64,
    /// Payload bytes a second sent.
    pub rate_up: u64,
    /// Known addresses not connected to.
    pub candidates: usize,
}
