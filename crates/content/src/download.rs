//! The multi-source download of one content: which block to ask of whom, and what to make of the
//! answers.
//!
//! Sources of any kind (peers, web seeds) are added with what they have; the machine says what to
//! request, drops who lies, and gives back what a lost source owed. It sees no bytes: the driver
//! writes accepted blocks, hashes pieces and reports the outcome. Piece choice is
//! [`crate::picker`]'s.
//!
//! ```text
//! candidate --request--> open --all blocks--> complete --Verified--> had
//!     ^                    |                     |
//!     +----- (nothing received, none asked) -----+-- Corrupt
//! ```

mod choose;
mod open;
mod pipeline;
mod source;
mod trust;

use crate::picker::{Picker, Priority, common};
use crate::{BLOCK_LEN, Block, Geometry, PieceIndex};
use choose::SCAN;
use open::{BlockState, NONE, Open};
use shoal_base::time::earliest;
use shoal_base::{Bitfield, Rng, Time};
use source::{Pieces, Req, Source};
use std::time::Duration;
use trust::Trust;

/// A source of this download; given by [`Download::add_source`], reused after its removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(pub u32);

/// What a source is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceKind {
    /// A BitTorrent peer: says what it has, chokes and unchokes.
    Peer,
    /// An HTTP server: has everything, never chokes, and is best asked for long ranges.
    Web,
}

/// How a source is added.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Who it is for bans: the same for every connection to one address.
    pub address: u64,
    /// What it is.
    pub kind: SourceKind,
    /// Whether the fast extension is in use (BEP 6).
    pub fast: bool,
    /// Requests it lets stand open (`reqq`, BEP 10).
    pub max_pipeline: u32,
}

/// The limits of a download.
#[derive(Clone, Debug)]
pub struct DownloadConfig {
    /// Requests first sent to a source whose rate is unknown.
    pub initial_pipeline: u32,
    /// Requests open with one source, at most, whatever it allows.
    pub max_pipeline: u32,
    /// How long a source's queue is to last beyond what bandwidth × delay needs.
    pub queue_time: Duration,
    /// Bytes requested and not yet received, over all sources.
    pub max_outstanding: Option<u64>,
    /// Pieces begun and not yet verified.
    pub max_open: usize,
    /// Pieces chosen at random before the rarest come first.
    pub random_first: u32,
    /// How long a source may owe blocks before [`Download::is_snubbed`] says so.
    pub snub_after: Duration,
}

impl Default for DownloadConfig {
    fn default() -> Self {
        Self {
            initial_pipeline: 32,
            max_pipeline: 1024,
            queue_time: Duration::from_millis(100),
            max_outstanding: None,
            max_open: 16_384,
            random_first: 4,
            snub_after: Duration::from_secs(60),
        }
    }
}

/// In what order pieces are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The rarest first: best for the swarm.
    #[default]
    RarestFirst,
    /// From the first to the last: for reading along.
    Sequential,
}

/// What to do with a block that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Write it.
    Accept,
    /// Somebody else was faster, or it was cancelled.
    Duplicate,
    /// Nobody asked for it.
    Unrequested,
}

/// The SHA-1 of one block.
pub type BlockDigest = [u8; 20];

/// What hashing a piece gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PieceOutcome {
    /// The piece is good. Digests of its blocks in order are wanted if
    /// [`Download::wants_digests`] says so.
    Verified {
        /// One digest per block, if they were wanted.
        digests: Option<Vec<BlockDigest>>,
    },
    /// The piece is bad.
    Corrupt {
        /// One digest per block, in order.
        digests: Vec<BlockDigest>,
    },
}

/// Why a source is to be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// It sends blocks nobody asked for.
    Flood,
    /// It unchokes and then rejects every request.
    Rejects,
    /// Its bitfield is not of this content.
    Bitfield,
    /// It named a piece past the end.
    BadPiece,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownloadOutput {
    /// Ask `source` for `block`.
    Request {
        /// Whom.
        source: SourceId,
        /// What for.
        block: Block,
    },
    /// `block` is not wanted from `source` any more.
    Cancel {
        /// Whom to tell.
        source: SourceId,
        /// What.
        block: Block,
    },
    /// Tell `source` whether we are interested. Not said of web seeds.
    Interested {
        /// Whom.
        source: SourceId,
        /// Whether we are.
        interested: bool,
    },
    /// A piece was verified: tell everyone.
    Have(PieceIndex),
    /// The address sent bad blocks: drop its connections and take no more. Its sources are asked
    /// for nothing from now on; remove them.
    Ban {
        /// As given to [`Download::add_source`].
        address: u64,
    },
    /// Drop this source; remove it.
    Drop {
        /// Whom.
        source: SourceId,
        /// Why.
        why: DropReason,
    },
    /// Every wanted piece is there.
    Finished,
}

/// Bytes that were received in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waste {
    /// In blocks that another source had sent already, or that were cancelled.
    pub duplicate: u64,
    /// In blocks that nobody had asked for.
    pub unrequested: u64,
    /// In pieces that failed their hash.
    pub corrupt: u64,
}

/// Blocks nobody asked for that a source may send before it is dropped.
const MAX_UNREQUESTED: u32 = 64;
/// Allowed-fast pieces remembered per source; BEP 6 sends ten.
const MAX_ALLOWED: usize = 64;

/// The download machine. See the module's description.
#[derive(Debug)]
pub struct Download {
    geometry: Geometry,
    config: DownloadConfig,
    rng: Rng,
    have: Bitfield,
    /// Wanted and not there yet.
    missing: Bitfield,
    bytes_done: u64,
    bytes_wanted: u64,
    finished: bool,
    picker: Picker,
    mode: Mode,
    paused: bool,
    deadlines: Vec<(Time, PieceIndex)>,
    opens: Vec<Open>,
    vacant: Vec<u32>,
    slot_of: Vec<u32>,
    /// Open pieces that may be joined. May name others too: those are dropped when met.
    shared: Vec<u32>,
    sources: Vec<Source>,
    unused: Vec<u32>,
    /// For each source one missing piece that it has: while there is one, we are interested.
    witness: Vec<PieceIndex>,
    hungry: Vec<u32>,
    hungry_spare: Vec<u32>,
    trust: Trust,
    outstanding: u64,
    scan_at: Option<Time>,
    feed_at: Option<Time>,
    waste: Waste,
    others: Vec<u32>,
}

// Set-up and what can be asked.
impl Download {
    /// A download of `geometry` of which `have` is there already; every piece is wanted.
    pub fn new(geometry: Geometry, have: Bitfield, config: DownloadConfig, mut rng: Rng) -> Self {
        let pieces = geometry.pieces();
        let have = if have.len() == pieces {
            have
        } else {
            Bitfield::new(pieces)
        };
        let picker = Picker::new(pieces, &mut rng);
        let mut download = Self {
            geometry,
            config,
            rng,
            have,
            missing: Bitfield::new(pieces),
            bytes_done: 0,
            bytes_wanted: 0,
            finished: false,
            picker,
            mode: Mode::RarestFirst,
            paused: false,
            deadlines: Vec::new(),
            opens: Vec::new(),
            vacant: Vec::new(),
            slot_of: vec![NONE; pieces as usize],
            shared: Vec::new(),
            sources: Vec::new(),
            unused: Vec::new(),
            witness: Vec::new(),
            hungry: Vec::new(),
            hungry_spare: Vec::new(),
            trust: Trust::default(),
            outstanding: 0,
            scan_at: None,
            feed_at: None,
            waste: Waste::default(),
            others: Vec::new(),
        };
        download.bytes_done = download
            .have
            .iter()
            .map(|p| u64::from(geometry.piece_size(p)))
            .sum();
        download.reprioritize(|_| Priority::Normal);
        download.finished = download.missing.count() == 0;
        download
    }

    /// The verified pieces.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The pieces wanted and not verified yet.
    pub fn missing(&self) -> &Bitfield {
        &self.missing
    }

    /// Whether every wanted piece is there.
    pub fn is_finished(&self) -> bool {
        self.missing.count() == 0
    }

    /// Verified bytes, wanted or not.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    /// Bytes in wanted pieces, there or not.
    pub fn bytes_wanted(&self) -> u64 {
        self.bytes_wanted
    }

    /// Verified bytes in wanted pieces.
    pub fn bytes_wanted_done(&self) -> u64 {
        let size = |piece| u64::from(self.geometry.piece_size(piece));
        self.bytes_wanted - self.missing.iter().map(size).sum::<u64>()
    }

    /// Bytes requested and not yet received.
    pub fn bytes_outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Bytes received in vain.
    pub fn waste(&self) -> Waste {
        self.waste
    }

    /// How the content is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How many sources have `piece`.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        self.picker.availability(piece)
    }

    /// Whole copies among the sources: the least availability over all pieces.
    pub fn copies(&self) -> u32 {
        (0..self.geometry.pieces())
            .map(|p| self.picker.availability(p))
            .min()
            .unwrap_or(0)
    }

    /// The priority of `piece`.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        self.picker.priority(piece)
    }

    /// Whether hashing `piece` should give its block digests even if it is good.
    pub fn wants_digests(&self, piece: PieceIndex) -> bool {
        self.trust.has_failed(piece)
    }

    /// Whether the source owes blocks and sent none for [`DownloadConfig::snub_after`].
    pub fn is_snubbed(&self, id: SourceId) -> bool {
        self.source(id.0).is_some_and(|s| s.snubbed)
    }

    /// Whether we told the source (or should have) that we are interested.
    pub fn is_interested(&self, id: SourceId) -> bool {
        self.source(id.0).is_some_and(|s| s.interested)
    }

    /// Whether the address was banned.
    pub fn is_banned(&self, address: u64) -> bool {
        self.trust.is_banned(address)
    }

    /// Measured rate of a source in bytes a second; zero while unknown.
    pub fn rate(&self, id: SourceId) -> u64 {
        self.source(id.0).map_or(0, |s| s.pipe.rate() as u64)
    }

    /// Requests open with a source, and how many there should be.
    pub fn pipeline(&self, id: SourceId) -> (u32, u32) {
        self.source(id.0)
            .map_or((0, 0), |s| (s.live, s.pipe.target()))
    }

    /// Whether the source has `piece`.
    pub fn source_has(&self, id: SourceId, piece: PieceIndex) -> bool {
        self.source(id.0).is_some_and(|s| s.has(piece))
    }

    /// Whether the source has every piece.
    pub fn is_seed(&self, id: SourceId) -> bool {
        self.source(id.0).is_some_and(|s| match &s.pieces {
            Pieces::None => false,
            Pieces::All => true,
            Pieces::Some(bits) => bits.is_full(),
        })
    }

    /// The pieces begun, each with the blocks of it that are on the disk: for resume data.
    pub fn partial(&self) -> impl Iterator<Item = (PieceIndex, Bitfield)> + '_ {
        self.opens.iter().filter(|o| o.is_used()).map(|o| {
            let mut blocks = Bitfield::new(o.states.len() as u32);
            for (n, state) in (0u32..).zip(&o.states) {
                if state.sender().is_some() {
                    blocks.set(n);
                }
            }
            (o.piece, blocks)
        })
    }

    /// When [`Download::on_tick`] is next wanted.
    pub fn deadline(&self) -> Option<Time> {
        earliest(self.scan_at, self.feed_at)
    }
}

// What the user wants.
impl Download {
    /// Sets the priority of every piece. Requests for what is no longer wanted are cancelled;
    /// blocks of it that are there stay.
    pub fn set_priorities(
        &mut self,
        now: Time,
        of: impl Fn(PieceIndex) -> Priority,
        out: &mut Vec<DownloadOutput>,
    ) {
        self.reprioritize(of);
        for slot in 0..self.opens.len() as u32 {
            let open = &mut self.opens[slot as usize];
            if !open.is_used() {
                continue;
            }
            open.parked = !self.missing.get(open.piece);
            if open.parked {
                self.cancel_piece(slot, out);
            } else {
                self.list(slot);
            }
        }
        for id in 0..self.sources.len() as u32 {
            self.find_witness(id, out);
        }
        self.refill_all(now, out);
        self.check_finished(out);
    }

    fn reprioritize(&mut self, of: impl Fn(PieceIndex) -> Priority) {
        let (have, slot_of, geometry) = (&self.have, &self.slot_of, self.geometry);
        let mut missing = Bitfield::new(geometry.pieces());
        let mut wanted = 0;
        self.picker.reset(&mut self.rng, |p| {
            let priority = of(p);
            if priority != Priority::Skip {
                wanted += u64::from(geometry.piece_size(p));
                if !have.get(p) {
                    missing.set(p);
                }
            }
            (priority, !have.get(p) && slot_of[p as usize] == NONE)
        });
        self.missing = missing;
        self.bytes_wanted = wanted;
    }

    /// Changes the order of pieces not begun yet.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// `piece` is wanted by `at`: before all pieces without a deadline or with a later one.
    pub fn set_deadline(&mut self, piece: PieceIndex, at: Time) {
        self.deadlines.retain(|d| d.1 != piece);
        if self.missing.get(piece) {
            let i = self.deadlines.partition_point(|d| *d <= (at, piece));
            self.deadlines.insert(i, (at, piece));
        }
    }

    /// Forgets all deadlines.
    pub fn clear_deadlines(&mut self) {
        self.deadlines.clear();
    }

    /// While paused nothing is requested (the disk is full, buffers are); what is under way may
    /// come.
    pub fn set_paused(&mut self, now: Time, paused: bool, out: &mut Vec<DownloadOutput>) {
        let resumed = self.paused && !paused;
        self.paused = paused;
        if resumed {
            self.refill_all(now, out);
        }
    }

    /// Changes [`DownloadConfig::max_outstanding`].
    pub fn set_max_outstanding(&mut self, bytes: Option<u64>) {
        self.config.max_outstanding = bytes;
    }

    /// Takes over blocks of `piece` that are on the disk already. True if that is all of them:
    /// the piece is to be hashed then.
    pub fn restore_partial(&mut self, piece: PieceIndex, blocks: &Bitfield) -> bool {
        let count = self.geometry.blocks(piece);
        if piece >= self.geometry.pieces()
            || self.have.get(piece)
            || blocks.len() != count
            || blocks.count() == 0
            || self.slot(piece).is_some()
        {
            return false;
        }
        let slot = self.open(piece);
        let open = &mut self.opens[slot as usize];
        open.parked = !self.missing.get(piece);
        for n in blocks.iter() {
            open.receive(n, NONE, BlockState::FROM_DISK, &mut self.others);
        }
        let complete = open.is_complete();
        self.list(slot);
        complete
    }
}

// Sources.
impl Download {
    /// Adds a source. A web seed has everything and is asked at once after
    /// [`Download::on_unchoke`] or the next tick; a peer has nothing and chokes us.
    pub fn add_source(&mut self, now: Time, options: &SourceOptions) -> SourceId {
        let mut source = Source::new(&self.config, options);
        source.shut = self.trust.is_banned(options.address);
        source.progress = now;
        let id = match self.unused.pop() {
            Some(id) => {
                self.sources[id as usize] = source;
                self.witness[id as usize] = NONE;
                id
            }
            None => {
                self.sources.push(source);
                self.witness.push(NONE);
                self.sources.len() as u32 - 1
            }
        };
        if options.kind == SourceKind::Web {
            self.sources[id as usize].pieces = Pieces::All;
            self.picker.add_seed();
            self.find_witness(id, &mut Vec::new());
            self.sources[id as usize].hungry = true;
            self.hungry.push(id);
            self.kick(now);
        }
        SourceId(id)
    }

    /// Removes a source; what it owed is asked of others.
    pub fn remove_source(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let _ = out;
        if self.source(id.0).is_none() {
            return;
        }
        self.void_requests(now, id.0);
        self.disown(id.0);
        self.forget_pieces(id.0);
        let s = &mut self.sources[id.0 as usize];
        s.used = false;
        s.hungry = false;
        s.allowed = Vec::new();
        s.queue = Default::default();
        self.witness[id.0 as usize] = NONE;
        self.unused.push(id.0);
        self.kick(now);
    }

    /// The peer told how many requests it lets stand open (BEP 10 `reqq`).
    pub fn set_max_pipeline(&mut self, id: SourceId, max: u32) {
        let most = self.config.max_pipeline;
        if let Some(s) = self.source_mut(id.0) {
            s.pipe.set_max(max.min(most));
        }
    }

    /// The peer's BITFIELD.
    pub fn on_bitfield(
        &mut self,
        now: Time,
        id: SourceId,
        bits: &Bitfield,
        out: &mut Vec<DownloadOutput>,
    ) {
        if self.source(id.0).is_none() {
            return;
        }
        if bits.len() != self.geometry.pieces() {
            self.drop_source(id.0, DropReason::Bitfield, out);
            return;
        }
        if bits.is_full() {
            self.on_have_all(now, id, out);
            return;
        }
        self.forget_pieces(id.0);
        for p in bits.iter() {
            self.picker.add(p);
        }
        self.sources[id.0 as usize].pieces = Pieces::Some(bits.clone());
        self.pieces_changed(now, id.0, out);
    }

    /// HAVE ALL (BEP 6).
    pub fn on_have_all(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        if self.source(id.0).is_none() {
            return;
        }
        self.forget_pieces(id.0);
        self.picker.add_seed();
        self.sources[id.0 as usize].pieces = Pieces::All;
        self.pieces_changed(now, id.0, out);
    }

    fn pieces_changed(&mut self, now: Time, id: u32, out: &mut Vec<DownloadOutput>) {
        self.wake(id);
        self.find_witness(id, out);
        self.fill(now, id, out);
    }

    /// HAVE.
    pub fn on_have(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if piece >= pieces {
            self.drop_source(id.0, DropReason::BadPiece, out);
            return;
        }
        let new = match &mut s.pieces {
            Pieces::All => false,
            Pieces::Some(bits) => bits.set(piece),
            none @ Pieces::None => {
                let mut bits = Bitfield::new(pieces);
                bits.set(piece);
                *none = Pieces::Some(bits);
                true
            }
        };
        if !new {
            return;
        }
        s.dry = None;
        let waiting = s.hungry;
        self.picker.add(piece);
        if self.missing.get(piece) {
            if self.witness[id.0 as usize] == NONE {
                self.witness[id.0 as usize] = piece;
                self.say_interest(id.0, true, out);
            }
            if waiting {
                self.wake(id.0);
                self.fill(now, id.0, out);
            }
        }
    }

    /// The peer lost a piece (`lt_donthave`, BEP 54): what it owed of it is asked of others.
    pub fn on_lost(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if piece >= pieces || !s.has(piece) {
            return;
        }
        if matches!(s.pieces, Pieces::All) {
            s.pieces = Pieces::Some(Bitfield::full(pieces));
            self.picker.remove_seed();
            for p in 0..pieces {
                self.picker.add(p);
            }
        }
        if let Some(s) = self.source_mut(id.0)
            && let Pieces::Some(bits) = &mut s.pieces
        {
            bits.clear(piece);
        }
        self.picker.subtract(piece);
        let mut i = 0;
        while let Some(req) = self.sources[id.0 as usize].queue.get(i).copied() {
            if req.piece == piece {
                self.take_request(id.0, i);
                self.release(&req, id.0);
                self.sources[id.0 as usize].add_strays(1);
            } else {
                i += 1;
            }
        }
        if self.witness[id.0 as usize] == piece {
            self.find_witness(id.0, out);
        }
        self.kick(now);
        self.fill(now, id.0, out);
    }

    /// CHOKE: without the fast extension it voids every open request (BEP 3); with it each will
    /// be served or rejected (BEP 6).
    pub fn on_choke(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        s.choked = true;
        if !s.fast {
            let owed = s.queue.len() as u32;
            s.add_strays(owed);
            self.void_requests(now, id.0);
        }
        self.disown(id.0);
        self.kick(now);
        self.fill(now, id.0, out);
    }

    /// UNCHOKE.
    pub fn on_unchoke(&mut self, now: Time, id: SourceId, out: &mut Vec<DownloadOutput>) {
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if s.choked {
            s.choked = false;
            s.stalled = false;
            s.rejects = 0;
            s.hold_until = Time::ZERO;
            s.progress = now;
        }
        self.wake(id.0);
        self.fill(now, id.0, out);
    }

    /// ALLOWED FAST (BEP 6): this piece may be asked for while choked.
    pub fn on_allowed_fast(
        &mut self,
        now: Time,
        id: SourceId,
        piece: PieceIndex,
        out: &mut Vec<DownloadOutput>,
    ) {
        let pieces = self.geometry.pieces();
        let Some(s) = self.source_mut(id.0) else {
            return;
        };
        if s.fast && piece < pieces && s.allowed.len() < MAX_ALLOWED && !s.allowed.contains(&piece)
        {
            s.allowed.push(piece);
            if s.choked {
                self.wake(id.0);
                self.fill(now, id.0, out);
            }
        }
    }
}

// Answers.
impl Download {
    /// A block came from `id`. Write it only if the answer is [`Arrival::Accept`].
    pub fn on_block(
        &mut self,
        now: Time,
        id: SourceId,
        block: Block,
        out: &mut Vec<DownloadOutput>,
    ) -> Arrival {
        let n = block.begin / BLOCK_LEN;
        let Some(i) = self
            .source(id.0)
            .filter(|_| self.geometry.is_block(block))
            .and_then(|s| s.position(block.piece, n))
        else {
            return self.on_stray(id.0, block.len, out);
        };
        let req = self.take_request(id.0, i);
        let s = &mut self.sources[id.0 as usize];
        s.progress = now;
        s.stalled = false;
        s.snubbed = false;
        s.rejects = 0;
        s.pipe
            .on_block(now, req.sent, block.len, self.config.queue_time);
        if s.number == NONE {
            s.number = self.trust.number(s.address);
        }
        let number = s.number;
        let mut others = std::mem::take(&mut self.others);
        let accepted = match self.slot(block.piece) {
            Some(slot) => self.opens[slot as usize].receive(n, id.0, number, &mut others),
            None => false,
        };
        for other in others.drain(..) {
            self.cancel(other, block.piece, n, out);
        }
        self.others = others;
        self.refill(now, id.0, out);
        if accepted {
            Arrival::Accept
        } else {
            self.waste.duplicate += u64::from(block.len);
            Arrival::Duplicate
        }
    }

    fn on_stray(&mut self, id: u32, len: u32, out: &mut Vec<DownloadOutput>) -> Arrival {
        if let Some(s) = self.source_mut(id) {
            if s.strays > 0 {
                s.strays -= 1;
                self.waste.duplicate += u64::from(len);
                return Arrival::Duplicate;
            }
            s.unrequested += 1;
            if s.unrequested > MAX_UNREQUESTED {
                self.drop_source(id, DropReason::Flood, out);
            }
        }
        self.waste.unrequested += u64::from(len);
        Arrival::Unrequested
    }

    /// REJECT (BEP 6), or a web seed that failed to serve the block.
    pub fn on_reject(
        &mut self,
        now: Time,
        id: SourceId,
        block: Block,
        out: &mut Vec<DownloadOutput>,
    ) {
        let Some(s) = self.source(id.0) else { return };
        let Some(i) = s.position(block.piece, block.begin / BLOCK_LEN) else {
            let s = &mut self.sources[id.0 as usize];
            s.strays = s.strays.saturating_sub(1);
            return;
        };
        let req = self.take_request(id.0, i);
        self.release(&req, id.0);
        let s = &mut self.sources[id.0 as usize];
        if s.choked {
            s.allowed.retain(|p| *p != block.piece);
        } else {
            // It has too many, or is about to choke: ask less, later.
            let backoff = Duration::from_millis(100u64 << s.rejects.min(6));
            if s.hold_until <= now {
                s.rejects += 1;
                s.pipe.shrink();
            }
            s.hold_until = now + backoff;
            if s.rejects > 40 {
                self.drop_source(id.0, DropReason::Rejects, out);
            } else {
                self.feed_at = earliest(self.feed_at, Some(now + backoff));
                self.fill(now, id.0, out);
            }
        }
        self.kick(now);
    }

    /// A block that was accepted did not reach the disk: it is asked for again.
    pub fn on_write_failed(&mut self, now: Time, block: Block) {
        if let Some(slot) = self.slot(block.piece)
            && self.opens[slot as usize].forget(block.begin / BLOCK_LEN)
        {
            self.list(slot);
            self.kick(now);
        }
    }

    /// A piece was hashed.
    pub fn on_piece(
        &mut self,
        now: Time,
        piece: PieceIndex,
        outcome: &PieceOutcome,
        out: &mut Vec<DownloadOutput>,
    ) {
        if piece >= self.geometry.pieces() {
            return;
        }
        let mut banned = Vec::new();
        match outcome {
            PieceOutcome::Verified { digests } => {
                self.trust
                    .on_verified(piece, digests.as_deref(), &mut banned);
                self.verified(piece, out);
            }
            PieceOutcome::Corrupt { digests } => match self.slot(piece) {
                Some(slot) if self.opens[slot as usize].is_complete() => {
                    let states = &self.opens[slot as usize].states;
                    self.trust
                        .on_corrupt(now, piece, states, digests, &mut banned);
                    self.waste.corrupt += u64::from(self.geometry.piece_size(piece));
                    self.close(slot);
                    if self.missing.get(piece) {
                        self.picker.insert(piece);
                        self.kick(now);
                    }
                }
                Some(_) => {}
                None => self.on_piece_lost(now, piece, out),
            },
        }
        for address in banned {
            self.ban(now, address, out);
        }
    }

    fn verified(&mut self, piece: PieceIndex, out: &mut Vec<DownloadOutput>) {
        if let Some(slot) = self.slot(piece) {
            self.cancel_piece(slot, out);
            self.close(slot);
        }
        self.picker.remove(piece);
        if !self.have.set(piece) {
            return;
        }
        self.bytes_done += u64::from(self.geometry.piece_size(piece));
        out.push(DownloadOutput::Have(piece));
        if !self.missing.clear(piece) {
            return;
        }
        self.deadlines.retain(|d| d.1 != piece);
        let mut from = 0;
        while let Some(id) = find(&self.witness, piece, from) {
            self.find_witness(id as u32, out);
            from = id + 1;
        }
        self.check_finished(out);
    }

    /// A piece that was there is not any more (its file was deleted, a recheck failed): it is
    /// fetched again if wanted.
    pub fn on_piece_lost(&mut self, now: Time, piece: PieceIndex, out: &mut Vec<DownloadOutput>) {
        if !self.have.clear(piece) {
            return;
        }
        self.bytes_done -= u64::from(self.geometry.piece_size(piece));
        if self.picker.priority(piece) != Priority::Skip {
            self.missing.set(piece);
            self.picker.insert(piece);
            self.finished = false;
            for id in 0..self.sources.len() as u32 {
                if self.witness[id as usize] == NONE
                    && self.sources[id as usize].used
                    && self.sources[id as usize].has(piece)
                {
                    self.witness[id as usize] = piece;
                    self.say_interest(id, true, out);
                }
            }
            self.refill_all(now, out);
        }
    }

    /// Looks at timeouts and serves sources that wait. To be called when
    /// [`Download::deadline`] is reached; more often does no harm.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan(now, out);
            self.feed(now, out);
            let busy = self.outstanding > 0
                || !self.hungry.is_empty()
                || self.sources.iter().any(|s| s.used && !s.queue.is_empty());
            self.scan_at = busy.then_some(now + SCAN);
        } else if self.feed_at.is_some_and(|at| at <= now) {
            self.feed(now, out);
        }
    }

    fn scan(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        for id in 0..self.sources.len() as u32 {
            let s = &mut self.sources[id as usize];
            if !s.used || s.queue.is_empty() {
                continue;
            }
            let quiet = now.since(s.progress);
            if quiet >= self.config.snub_after {
                s.snubbed = true;
            }
            let stalls = !s.stalled && s.live > 0 && quiet > s.pipe.stall_timeout();
            if stalls {
                s.stalled = true;
                s.pipe.shrink();
            }
            let timeout = s.pipe.block_timeout();
            let expiry = (timeout * 3).max(Duration::from_secs(30));
            let mut i = 0;
            while let Some(req) = self.sources[id as usize].queue.get(i).copied() {
                let age = now.since(req.sent);
                if !req.lapsed && (stalls || age > timeout) {
                    self.lapse(id, i);
                } else if age > expiry {
                    self.take_request(id, i);
                    self.release(&req, id);
                    self.say_cancel(id, req.piece, req.n, out);
                    continue;
                } else if !req.lapsed {
                    break;
                }
                i += 1;
            }
            let s = &mut self.sources[id as usize];
            if s.live == 0 && !s.queue.is_empty() && !s.stalled {
                s.stalled = true;
                s.pipe.shrink();
            }
            if !s.shut && !s.choked && s.live < s.pipe.target() {
                self.mark_hungry(id);
            }
        }
        for slot in 0..self.opens.len() as u32 {
            let open = &self.opens[slot as usize];
            if open.is_used() && !open.single && now >= open.exclusive_until {
                self.list(slot);
            }
        }
    }
}

// The parts the above are made of.
impl Download {
    fn source(&self, id: u32) -> Option<&Source> {
        self.sources.get(id as usize).filter(|s| s.used)
    }

    fn source_mut(&mut self, id: u32) -> Option<&mut Source> {
        self.sources.get_mut(id as usize).filter(|s| s.used)
    }

    /// The record of an open piece.
    fn slot(&self, piece: PieceIndex) -> Option<u32> {
        self.slot_of
            .get(piece as usize)
            .copied()
            .filter(|s| *s != NONE)
    }

    fn open(&mut self, piece: PieceIndex) -> u32 {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.opens.push(Open::new());
            self.opens.len() as u32 - 1
        });
        let open = &mut self.opens[slot as usize];
        open.begin(piece, self.geometry.blocks(piece));
        open.single = self.trust.has_failed(piece);
        self.slot_of[piece as usize] = slot;
        self.picker.remove(piece);
        slot
    }

    fn close(&mut self, slot: u32) {
        let open = &mut self.opens[slot as usize];
        self.slot_of[open.piece as usize] = NONE;
        open.piece = NONE;
        self.vacant.push(slot);
    }

    /// Lets any source join the piece, if it has free blocks.
    fn list(&mut self, slot: u32) {
        let open = &mut self.opens[slot as usize];
        if !open.listed && open.is_used() && open.free > 0 && !open.parked {
            open.listed = true;
            self.shared.push(slot);
        }
    }

    /// Takes a request out of a source's queue.
    fn take_request(&mut self, id: u32, i: usize) -> Req {
        let s = &mut self.sources[id as usize];
        let req = if i == 0 {
            s.queue.pop_front()
        } else {
            s.queue.remove(i)
        }
        .expect("the caller found it there");
        if !req.lapsed {
            s.live -= 1;
            self.outstanding -= u64::from(self.geometry.block(req.piece, req.n).len);
        }
        req
    }

    /// Gives back the block of a request taken out of a queue.
    fn release(&mut self, req: &Req, id: u32) {
        if let Some(slot) = self.slot(req.piece)
            && self.opens[slot as usize].release(req.n, id)
        {
            self.list(slot);
        }
    }

    fn lapse(&mut self, id: u32, i: usize) {
        let s = &mut self.sources[id as usize];
        let Some(req) = s.queue.get_mut(i) else {
            return;
        };
        req.lapsed = true;
        let (piece, n) = (req.piece, req.n);
        s.live -= 1;
        self.outstanding -= u64::from(self.geometry.block(piece, n).len);
        if let Some(slot) = self.slot(piece) {
            let open = &mut self.opens[slot as usize];
            open.lapse(n, id);
            if open.owner == id {
                open.owner = NONE;
            }
            self.list(slot);
        }
    }

    fn void_requests(&mut self, now: Time, id: u32) {
        while !self.sources[id as usize].queue.is_empty() {
            let req = self.take_request(id, 0);
            self.release(&req, id);
        }
        self.kick(now);
    }

    /// The source gives up the pieces it had to itself.
    fn disown(&mut self, id: u32) {
        for slot in 0..self.opens.len() as u32 {
            let open = &mut self.opens[slot as usize];
            if open.is_used() && open.owner == id {
                open.owner = NONE;
                self.list(slot);
            }
        }
        self.sources[id as usize].current = NONE;
    }

    fn forget_pieces(&mut self, id: u32) {
        match std::mem::replace(&mut self.sources[id as usize].pieces, Pieces::None) {
            Pieces::None => {}
            Pieces::All => self.picker.remove_seed(),
            Pieces::Some(bits) => {
                for p in bits.iter() {
                    self.picker.subtract(p);
                }
            }
        }
    }

    fn cancel(&mut self, id: u32, piece: PieceIndex, n: u32, out: &mut Vec<DownloadOutput>) {
        if let Some(i) = self.source(id).and_then(|s| s.position(piece, n)) {
            self.take_request(id, i);
            self.say_cancel(id, piece, n, out);
            let s = &mut self.sources[id as usize];
            if !s.hungry && !s.choked {
                s.hungry = true;
                self.hungry.push(id);
            }
        }
    }

    fn say_cancel(&mut self, id: u32, piece: PieceIndex, n: u32, out: &mut Vec<DownloadOutput>) {
        self.sources[id as usize].add_strays(1);
        out.push(DownloadOutput::Cancel {
            source: SourceId(id),
            block: self.geometry.block(piece, n),
        });
    }

    /// Cancels every request for the piece.
    fn cancel_piece(&mut self, slot: u32, out: &mut Vec<DownloadOutput>) {
        let open = &self.opens[slot as usize];
        let piece = open.piece;
        if open.extras.is_empty() && open.states.iter().all(|s| s.requester().is_none()) {
            return;
        }
        for id in 0..self.sources.len() as u32 {
            let mut i = 0;
            while let Some(req) = self.sources[id as usize].queue.get(i).copied() {
                if req.piece == piece {
                    self.take_request(id, i);
                    self.release(&req, id);
                    self.say_cancel(id, piece, req.n, out);
                } else {
                    i += 1;
                }
            }
        }
    }

    fn wake(&mut self, id: u32) {
        let s = &mut self.sources[id as usize];
        s.dry = None;
        s.idle_until = Time::ZERO;
    }

    /// Asks every source again: pieces or permissions changed.
    fn refill_all(&mut self, now: Time, out: &mut Vec<DownloadOutput>) {
        for id in 0..self.sources.len() as u32 {
            if self.sources[id as usize].used {
                self.wake(id);
                self.refill(now, id, out);
            }
        }
    }

    /// Finds a missing piece that the source has, and says so if that changes our interest.
    fn find_witness(&mut self, id: u32, out: &mut Vec<DownloadOutput>) {
        // From a random place on, so that sources do not all come to hang on one piece.
        let from = self.rng.below(self.missing.len() as usize) as u32;
        let Some(s) = self.source(id) else { return };
        let witness = match s.held() {
            Some(has) if self.missing.count() > 0 => common(&self.missing, has, from)
                .next()
                .or_else(|| common(&self.missing, has, 0).next()),
            _ => None,
        };
        self.witness[id as usize] = witness.unwrap_or(NONE);
        self.say_interest(id, witness.is_some(), out);
    }

    fn say_interest(&mut self, id: u32, interested: bool, out: &mut Vec<DownloadOutput>) {
        let s = &mut self.sources[id as usize];
        if s.interested != interested {
            s.interested = interested;
            if s.kind == SourceKind::Peer {
                out.push(DownloadOutput::Interested {
                    source: SourceId(id),
                    interested,
                });
            }
        }
    }

    fn check_finished(&mut self, out: &mut Vec<DownloadOutput>) {
        let finished = self.missing.count() == 0;
        if finished && !self.finished {
            out.push(DownloadOutput::Finished);
        }
        self.finished = finished;
    }

    fn shut(&mut self, id: u32) {
        self.sources[id as usize].shut = true;
        let owed = self.sources[id as usize].queue.len() as u32;
        self.sources[id as usize].add_strays(owed);
        while !self.sources[id as usize].queue.is_empty() {
            let req = self.take_request(id, 0);
            self.release(&req, id);
        }
        self.disown(id);
    }

    fn drop_source(&mut self, id: u32, why: DropReason, out: &mut Vec<DownloadOutput>) {
        if self.source(id).is_some_and(|s| !s.shut) {
            self.shut(id);
            let source = SourceId(id);
            out.push(DownloadOutput::Drop { source, why });
        }
    }

    fn ban(&mut self, now: Time, address: u64, out: &mut Vec<DownloadOutput>) {
        out.push(DownloadOutput::Ban { address });
        for id in 0..self.sources.len() as u32 {
            if self.source(id).is_some_and(|s| s.address == address) {
                self.shut(id);
            }
        }
        self.kick(now);
    }

    /// Panics if the parts disagree with each other. For tests; slow.
    pub fn check_invariants(&self) {
        self.picker.check_invariants();
        let mut outstanding = 0;
        for (id, s) in (0u32..).zip(&self.sources) {
            if !s.used {
                assert!(s.queue.is_empty() && self.witness[id as usize] == NONE);
                continue;
            }
            let live = s.queue.iter().filter(|r| !r.lapsed).count();
            assert_eq!(s.live as usize, live, "source {id}");
            for r in &s.queue {
                let slot = self.slot(r.piece).expect("requested of an open piece");
                let open = &self.opens[slot as usize];
                let state = open.state(r.n).expect("a block of the piece");
                assert!(state.sender().is_none(), "requested but received");
                if r.lapsed {
                    assert!(
                        open.extras
                            .iter()
                            .any(|e| e.n == r.n && e.source == id && !e.live)
                    );
                } else {
                    outstanding += u64::from(self.geometry.block(r.piece, r.n).len);
                    let extra = open
                        .extras
                        .iter()
                        .any(|e| e.n == r.n && e.source == id && e.live);
                    assert!(extra != (state.requester() == Some(id)));
                }
            }
            let witness = self.witness[id as usize];
            let any = (0..self.geometry.pieces()).any(|p| s.has(p) && self.missing.get(p));
            assert_eq!(witness != NONE, any, "source {id}");
            assert!(!any || (s.has(witness) && self.missing.get(witness)));
            assert_eq!(s.interested, any);
        }
        assert_eq!(self.outstanding, outstanding);
        let mut asked = 0;
        for (slot, open) in (0u32..).zip(&self.opens) {
            if !open.is_used() {
                continue;
            }
            open.check();
            assert_eq!(self.slot(open.piece), Some(slot));
            assert!(!self.have.get(open.piece) && !self.picker.candidates().get(open.piece));
            asked += open.extras.len();
            asked += open
                .states
                .iter()
                .filter(|s| s.requester().is_some())
                .count();
            let reachable = open.listed || open.parked || open.owner != NONE;
            assert!(open.free == 0 || reachable, "piece {} is lost", open.piece);
            assert_eq!(open.listed, self.shared.contains(&slot));
        }
        let queued: usize = self.sources.iter().map(|s| s.queue.len()).sum();
        assert_eq!(asked, queued);
        let open = self.opens.len() - self.vacant.len();
        assert_eq!(self.slot_of.iter().filter(|s| **s != NONE).count(), open);
        for p in 0..self.geometry.pieces() {
            let wanted = self.picker.priority(p) != Priority::Skip;
            assert_eq!(self.missing.get(p), wanted && !self.have.get(p));
            let candidate = self.missing.get(p) && self.slot(p).is_none();
            assert_eq!(self.picker.candidates().get(p), candidate, "piece {p}");
        }
    }
}

/// Where `x` is in `all`, from `from` on. Compares in chunks that the compiler turns into vectors.
fn find(all: &[u32], x: u32, from: usize) -> Option<usize> {
    let mut at = from;
    for chunk in all.get(from..)?.chunks(64) {
        if chunk.iter().fold(false, |hit, w| hit | (*w == x)) {
            return Some(at + chunk.iter().position(|w| *w == x)?);
        }
        at += chunk.len();
    }
    None
}

#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
