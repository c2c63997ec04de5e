//! One torrent: the machine that joins the peers' conversations, the download, the choker, the
//! metadata exchange and the address book.
//!
//! Sans-IO. The driver owns the sockets and tells what arrived with one `on_*` method for each
//! kind of input; effects come out as [`Output`]s, and as bytes waiting in each peer's buffer
//! ([`Torrent::take_control`]). Payload never passes through here: for a piece message the driver
//! asks [`Torrent::on_block`] whether to keep it, and for an upload it takes the blocks to send
//! from [`Torrent::next_uploads`] when the socket has room.

mod messages;
mod peer;
mod phase;
mod tick;
mod transfer;

pub use phase::OnDisk;

use crate::choker::{Choker, Choking};
use crate::handshake::{Handshake, Reserved};
use crate::metadata::MetadataFetch;
use crate::peers::{Ended, PeerBook, PeerBookConfig, Sources};
use crate::wire::{Limits, Message};
use peer::Peer;
use rustc_hash::FxHashMap;
use shoal_base::{InfoHash, PeerId, RateMeter, Rng, Time};
use shoal_content::download::{Download, DownloadOutput, Mode, SourceId};
use shoal_content::{Block, Info, MetainfoError};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The driver's name for a connection; never reused while the torrent knows it.
pub type ConnId = u32;
/// The number of a source that is asked for ranges, given by the driver: a web seed (BEP 19), or
/// whatever else has the same bytes.
pub type RangeSourceId = u32;

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

/// Seeds remembered for peer exchange after we let them go.
const MAX_LEFT_SEEDS: usize = 50;

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

    fn carry_out(&mut self, now: Time, effects: &mut Vec<DownloadOutput>, out: &mut Vec<Output>) {
        for effect in effects.drain(..) {
            match effect {
                DownloadOutput::Request { source, block } => match self.sources.get(&source) {
                    Some(SourceOwner::Peer(conn)) => {
                        send(&mut self.peers, *conn, &Message::Request(block), out);
                    }
                    Some(SourceOwner::Range(number)) => out.push(Output::RangeRequest {
                        source: *number,
                        block,
                    }),
                    None => {}
                },
                DownloadOutput::Cancel { source, block } => {
                    if let Some(SourceOwner::Peer(conn)) = self.sources.get(&source) {
                        send(&mut self.peers, *conn, &Message::Cancel(block), out);
                    }
                }
                DownloadOutput::Interested { source, interested } => {
                    if let Some(SourceOwner::Peer(conn)) = self.sources.get(&source) {
                        let message = if interested {
                            Message::Interested
                        } else {
                            Message::NotInterested
                        };
                        if let Some(peer) = self.peers.get_mut(conn) {
                            peer.interested = interested;
                        }
                        send(&mut self.peers, *conn, &message, out);
                    }
                }
                DownloadOutput::Have(piece) => {
                    self.broadcast_have(piece, out);
                    out.push(Output::Have(piece));
                }
                DownloadOutput::Ban { address } => self.ban_address(address, out),
                DownloadOutput::Drop { source, why } => match self.sources.get(&source) {
                    Some(SourceOwner::Peer(conn)) => out.push(Output::Close {
                        conn: *conn,
                        why: CloseReason::Protocol(format!("{why:?}").to_lowercase()),
                    }),
                    Some(SourceOwner::Range(number)) => out.push(Output::RangeDrop {
                        source: *number,
                        lied: false,
                    }),
                    None => {}
                },
                DownloadOutput::Finished => {
                    if !self.finished_told && self.is_finished() {
                        self.finished_told = true;
                        self.choker.hurry();
                        out.push(Output::Finished);
                        self.book.set_seeding(now, true);
                        self.close_complete_pairs(now, out);
                    }
                }
            }
        }
    }

    fn broadcast_have(&mut self, piece: u32, out: &mut Vec<Output>) {
        let Phase::Active { download, .. } = &self.phase else {
            return;
        };
        for (conn, peer) in &mut self.peers {
            // A peer that has the piece learns nothing from our HAVE.
            if peer.source.is_some_and(|s| download.source_has(s, piece)) {
                continue;
            }
            peer.send(&Message::Have(piece));
            wake(*conn, peer, out);
        }
    }

    fn close_complete_pairs(&mut self, now: Time, out: &mut Vec<Output>) {
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            self.close_if_both_complete(now, conn, out);
        }
    }

    /// Two that have everything are of no use to each other.
    fn close_if_both_complete(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        if !self.is_finished() || !(self.peer_is_seed(peer) || peer.upload_only) {
            return;
        }
        if let Some(listen) = peer.listen {
            self.book.set_seed(listen, true);
            self.left_seeds.retain(|(addr, _)| *addr != listen);
            if self.left_seeds.len() < MAX_LEFT_SEEDS {
                self.left_seeds.push((listen, now));
            }
        }
        let why = CloseReason::BothComplete;
        out.push(Output::Close { conn, why });
    }

    /// Identity for bans: all ports of an address are one, but on loopback, where every peer of a
    /// test or a demonstration has the same address.
    fn ban_key(addr: SocketAddr) -> u64 {
        use std::hash::{Hash, Hasher};
        let ip = addr.ip().to_canonical();
        let mut hasher = rustc_hash::FxHasher::default();
        (ip, if ip.is_loopback() { addr.port() } else { 0 }).hash(&mut hasher);
        hasher.finish()
    }

    fn ban_address(&mut self, address: u64, out: &mut Vec<Output>) {
        let mut banned = Vec::new();
        for (conn, peer) in &self.peers {
            if Self::ban_key(peer.identity()) == address {
                banned.push(peer.identity());
                out.push(Output::Close {
                    conn: *conn,
                    why: CloseReason::Corrupt,
                });
            }
        }
        // Told also of one that has gone: it may come again.
        if let Ok(source) = RangeSourceId::try_from(address) {
            out.push(Output::RangeDrop { source, lied: true });
            return;
        }
        if banned.is_empty() {
            // It may have gone before its lie was found out.
            let known = self.book.iter().map(|k| k.addr);
            banned.extend(known.filter(|addr| Self::ban_key(*addr) == address).take(1));
        }
        for addr in banned {
            self.book.ban(addr);
            out.push(Output::Banned(addr));
        }
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
