//! What a session tells.

use crate::range_source::{SourceNews, SourceSort};
use shoal_content::Info;
use shoal_gnutella::Guid;
use shoal_store::TorrentKey;
use std::net::SocketAddr;

/// Something worth telling.
#[derive(Clone, Debug)]
pub enum Event {
    /// A Gnutella sharer behind a firewall is asked by its proxies to connect to us; whoever knows a further way
    /// may ask it too.
    Pushing {
        /// Who.
        sharer: Guid,
        /// Where it is to connect to.
        back: SocketAddr,
    },
    /// Something happened to a source that is asked for ranges.
    Source {
        /// Which torrent.
        key: TorrentKey,
        /// Who: a URL, an address, a nick and its hub.
        source: String,
        /// What kind it is.
        sort: SourceSort,
        /// What happened.
        news: SourceNews,
    },
    /// The metadata of a magnet link arrived and was verified.
    Metadata {
        /// Which torrent.
        key: TorrentKey,
        /// Its info dictionary.
        info: Box<Info>,
    },
    /// Data on disk is being compared with the hashes.
    Checking {
        /// Which torrent.
        key: TorrentKey,
        /// Pieces looked at.
        done: u32,
        /// Pieces to look at.
        total: u32,
    },
    /// Ready to exchange data.
    Started {
        /// Which torrent.
        key: TorrentKey,
    },
    /// Stopped for a reason that may pass; goes on by itself.
    Paused {
        /// Which torrent.
        key: TorrentKey,
        /// What stands in the way.
        reason: String,
    },
    /// The reason for the pause is over.
    Resumed {
        /// Which torrent.
        key: TorrentKey,
    },
    /// Data that was there is gone or cannot be read; what is left is being looked at, serving it
    /// goes on, and what is missing is fetched again where that is possible.
    Damaged {
        /// Which torrent.
        key: TorrentKey,
        /// What could not be read.
        reason: String,
    },
    /// Every wanted piece is verified and written.
    Complete {
        /// Which torrent.
        key: TorrentKey,
    },
    /// A peer sent bad data and is not spoken to any more.
    PeerBanned {
        /// Which torrent.
        key: TorrentKey,
        /// Its address.
        addr: SocketAddr,
        /// What it did.
        why: String,
    },
    /// A tracker answered, or failed to.
    Tracker {
        /// Which torrent.
        key: TorrentKey,
        /// Which tracker.
        url: String,
        /// How many peers it named, or what went wrong.
        result: Result<usize, String>,
    },
    /// The DHT named peers.
    DhtPeers {
        /// Which torrent.
        key: TorrentKey,
        /// How many that this search had not found before.
        peers: usize,
        /// Found on the ring, not in Mainline.
        ring: bool,
    },
    /// A peer's handshake was exchanged.
    PeerConnected {
        /// Which torrent.
        key: TorrentKey,
        /// Its address.
        addr: SocketAddr,
        /// Whether it speaks the fast extension (BEP 6).
        fast: bool,
        /// Whether it speaks the extension protocol (BEP 10).
        extension: bool,
    },
    /// The torrent cannot go on.
    Failed {
        /// Which torrent.
        key: TorrentKey,
        /// Why.
        error: String,
    },
}
