//! One torrent: the machine that joins the peers' conversations, the download, the choker, the
//! metadata exchange and the address book.
//!
//! Sans-IO. The driver owns the sockets and tells what arrived with one `on_*` method for each
//! kind of input; effects come out as [`Output`]s, and as bytes waiting in each peer's buffer
//! ([`Torrent::take_control`]). Payload never passes through here: for a piece message the driver
//! asks [`Torrent::on_block`] whether to keep it, and for an upload it takes the blocks to send
//! from [`Torrent::next_uploads`] when the socket has room.

mod effects;
mod messages;
mod peer;
mod phase;
mod tick;
mod told;
mod transfer;

pub use phase::OnDisk;

use crate::choker::Choker;
use crate::handshake::{Handshake, Reserved};
use crate::metadata::MetadataFetch;
use crate::peers::{Ended, PeerBook, PeerBookConfig, Sources};
use crate::wire::{Limits, Message};
use peer::Peer;
use rustc_hash::FxHashMap;
use shoal_base::{InfoHash, PeerId, RateMeter, Rng, Time};
use shoal_content::Info;
use shoal_content::download::{Download, DownloadOutput, SourceId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
pub use told::{CloseReason, Figures, Output, TorrentConfig};

/// The driver's name for a connection; never reused while the torrent knows it.
pub type ConnId = u32;
/// The number of a source that is asked for ranges, given by the driver: a web seed (BEP 19), or
/// whatever else has the same bytes.
pub type RangeSourceId = u32;

/// Where the torrent is in its life.
enum Phase {
    /// Fetching the info dictionary from peers (BEP 9).
    Metadata(Box<MetadataFetch>),
    /// The metadata is here; the driver is opening and checking files.
    Loading(Box<Info>),
    /// Exchanging pieces.
    Active {
        info: Box<Info>,
        download: Box<Download>,
    },
}

/// Whose source this is.
#[derive(Clone, Copy, Debug)]
enum SourceOwner {
    Peer(ConnId),
    Range(RangeSourceId),
}

/// One torrent.
pub struct Torrent {
    config: TorrentConfig,
    our_id: PeerId,
    info_hash: InfoHash,
    private: bool,
    /// Where our node of the DHT listens.
    dht_port: Option<u16>,
    /// Where we are reached by the overlay.
    overlay: Option<SocketAddr>,
    rng: Rng,
    phase: Phase,
    peers: BTreeMap<ConnId, Peer>,
    sources: FxHashMap<SourceId, SourceOwner>,
    range_sources: BTreeMap<RangeSourceId, SourceId>,
    book: PeerBook,
    choker: Choker,
    /// Seeds we let go when we were complete ourselves, for peer exchange.
    left_seeds: Vec<(SocketAddr, Time)>,
    down: RateMeter,
    up: RateMeter,
    paused: bool,
    /// Fetches only what it is asked for; see [`Torrent::set_on_demand`].
    on_demand: bool,
    finished_told: bool,
    next_tick: Time,
    /// An upload slot may be free: look before the choker's next round.
    refill_slots: bool,
    /// Reused between calls, empty outside them.
    effects: Vec<DownloadOutput>,
}

impl Torrent {
    /// A torrent of which the metadata is known; call [`Torrent::activate`] when its files are open.
    pub fn with_info(
        now: Time,
        config: TorrentConfig,
        our_id: PeerId,
        info: Info,
        rng: Rng,
    ) -> Self {
        let info_hash = info.info_hash();
        let private = info.private;
        Self::new(
            now,
            config,
            our_id,
            info_hash,
            private,
            Phase::Loading(Box::new(info)),
            rng,
        )
    }

    /// A torrent of which only the info-hash is known.
    pub fn with_hash(
        now: Time,
        config: TorrentConfig,
        our_id: PeerId,
        info_hash: InfoHash,
        rng: Rng,
    ) -> Self {
        let fetch = Phase::Metadata(Box::new(MetadataFetch::new(info_hash)));
        Self::new(now, config, our_id, info_hash, false, fetch, rng)
    }

    fn new(
        now: Time,
        config: TorrentConfig,
        our_id: PeerId,
        info_hash: InfoHash,
        private: bool,
        phase: Phase,
        mut rng: Rng,
    ) -> Self {
        let book = PeerBookConfig {
            max_half_open: config.max_half_open,
            ..PeerBookConfig::default()
        };
        Self {
            book: PeerBook::new(book, rng.fork()),
            choker: Choker::new(config.choking, rng.fork()),
            left_seeds: Vec::new(),
            config,
            our_id,
            info_hash,
            private,
            dht_port: None,
            overlay: None,
            rng,
            phase,
            peers: BTreeMap::new(),
            sources: FxHashMap::default(),
            range_sources: BTreeMap::new(),
            down: RateMeter::new(now),
            up: RateMeter::new(now),
            paused: false,
            on_demand: false,
            finished_told: false,
            next_tick: now,
            refill_slots: false,
            effects: Vec::new(),
        }
    }

    /// Its v1 info-hash.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The info dictionary, once known.
    pub fn info(&self) -> Option<&Info> {
        match &self.phase {
            Phase::Metadata(_) => None,
            Phase::Loading(info) | Phase::Active { info, .. } => Some(info),
        }
    }

    /// The download, once active.
    pub fn download(&self) -> Option<&Download> {
        if let Phase::Active { download, .. } = &self.phase {
            Some(download)
        } else {
            None
        }
    }

    /// What lengths of messages are accepted now.
    pub fn wire_limits(&self) -> Limits {
        match self.info() {
            Some(info) => Limits::for_pieces(info.geometry().pieces()),
            None => Limits::default(),
        }
    }

    /// Whether pieces are being exchanged.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active { .. })
    }

    /// Whether connections are of use now: not while files are being opened and checked.
    pub fn accepts_connections(&self) -> bool {
        !matches!(self.phase, Phase::Loading(_))
    }

    /// Whether every wanted piece is here. A torrent on demand may be asked for any piece, so it is
    /// finished when it has all.
    pub fn is_finished(&self) -> bool {
        self.download().is_some_and(|download| {
            download.is_finished() && (!self.on_demand || download.have().is_full())
        })
    }

    /// Whether more addresses would be of use, for the tracker client.
    pub fn wants_peers(&self) -> bool {
        !self.is_finished() && self.peers.len() + self.book.len() < self.config.max_peers / 2
    }

    /// Whether this torrent must not learn of peers but from its trackers (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Others reach us at this port from now on.
    pub fn set_listen_port(&mut self, port: u16) {
        self.config.listen_port = Some(port);
    }

    /// Tells peers that take part in the DHT where our node of it listens.
    pub fn set_dht_port(&mut self, port: Option<u16>) {
        self.dht_port = port;
    }

    /// Tells peers where those on the overlay reach us.
    pub fn set_overlay(&mut self, overlay: Option<SocketAddr>) {
        self.overlay = overlay;
    }

    /// What is sent first on every connection.
    pub fn handshake(&self) -> Handshake {
        Handshake {
            info_hash: self.info_hash,
            peer_id: self.our_id,
            reserved: Reserved {
                extension: true,
                fast: true,
                dht: self.dht_port.is_some() && !self.private,
                ..Reserved::default()
            },
        }
    }

    /// The figures at `now`.
    pub fn figures(&mut self, now: Time) -> Figures {
        let seeds = self.peers.values().filter(|p| self.peer_is_seed(p)).count();
        Figures {
            peers: self.peers.len(),
            seeds,
            downloaded: self.down.total(),
            uploaded: self.up.total(),
            wasted: self.wasted(),
            rate_down: self.down.rate(now),
            rate_up: self.up.rate(now),
            candidates: self.book.len(),
        }
    }

    /// Addresses to try, from wherever. Those that a private torrent may not use are dropped.
    pub fn on_peers(&mut self, now: Time, from: Sources, addrs: &[SocketAddr]) {
        if self.private && [Sources::PEX, Sources::LSD, Sources::DHT].contains(&from) {
            return;
        }
        for addr in addrs {
            // An address that the book refuses is none to connect to.
            let _ = self.book.add(now, *addr, from);
        }
        self.next_tick = self.next_tick.min(now);
    }

    /// Bans an address that behaves badly outside this torrent's sight.
    pub fn on_banned(&mut self, addr: SocketAddr) {
        self.book.ban(addr);
    }

    /// A dial that [`Output::Connect`] asked for came to nothing.
    pub fn on_dial_failed(&mut self, now: Time, addr: SocketAddr) {
        self.book.on_ended(now, addr, Ended::Failed);
        self.next_tick = self.next_tick.min(now);
    }

    /// Stops or allows new requests, while the disk cannot take more.
    pub fn set_paused(&mut self, now: Time, paused: bool, out: &mut Vec<Output>) {
        self.paused = paused;
        self.with_download(now, out, |download, effects| {
            download.set_paused(now, paused, effects);
        });
    }

    /// When [`Torrent::on_tick`] is wanted next.
    pub fn deadline(&self) -> Time {
        let timeouts = self.download().and_then(Download::deadline);
        timeouts.map_or(self.next_tick, |t| t.min(self.next_tick))
    }

    /// The connected peers' addresses.
    pub fn peer_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.peers.values().map(|p| p.addr)
    }

    /// Addresses worth keeping for the next start.
    pub fn good_addrs(&self) -> Vec<SocketAddr> {
        self.peers
            .values()
            .filter_map(|p| p.listen)
            .take(50)
            .collect()
    }

    /// The control bytes waiting for `conn`; the buffer is left empty.
    pub fn take_control(&mut self, now: Time, conn: ConnId) -> Vec<u8> {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return Vec::new();
        };
        peer.woken = false;
        if !peer.out.is_empty() {
            peer.sent_at = now;
        }
        std::mem::take(&mut peer.out)
    }

    /// Whether `conn` has control bytes or uploads waiting.
    pub fn has_output(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(Peer::has_output)
    }

    /// Payload bytes received to no use.
    fn wasted(&self) -> u64 {
        let waste = self.download().map(Download::waste).unwrap_or_default();
        waste.duplicate + waste.unrequested + waste.corrupt
    }

    fn peer_is_seed(&self, peer: &Peer) -> bool {
        match (self.download(), peer.source) {
            (Some(download), Some(source)) => download.is_seed(source),
            _ => matches!(peer.announced, peer::Announced::All),
        }
    }

    /// Runs `change` on the download, then carries out what it asks for.
    fn with_download(
        &mut self,
        now: Time,
        out: &mut Vec<Output>,
        change: impl FnOnce(&mut Download, &mut Vec<DownloadOutput>),
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Phase::Active { download, .. } = &mut self.phase {
            change(download, &mut effects);
        }
        self.carry_out(now, &mut effects, out);
        self.effects = effects;
    }
}

/// Identity of a range source for bans; cannot be an address's in practice (64-bit hash).
fn range_key(source: RangeSourceId) -> u64 {
    u64::from(source)
}

fn wake(conn: ConnId, peer: &mut Peer, out: &mut Vec<Output>) {
    if !peer.woken {
        peer.woken = true;
        out.push(Output::Wake(conn));
    }
}

fn send(
    peers: &mut BTreeMap<ConnId, Peer>,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Vec<Output>,
) {
    if let Some(peer) = peers.get_mut(&conn) {
        peer.send(message);
        wake(conn, peer, out);
    }
}
