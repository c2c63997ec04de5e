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

mod answers;
mod check;
mod choose;
mod interface;
mod ledger;
mod offers;
mod open;
mod pace;
mod pipeline;
mod source;
mod stretch;
mod timeouts;
mod trust;
mod wishes;

use crate::picker::{Picker, Priority};
use crate::{Geometry, PieceIndex};
use open::{NONE, Open};
use pace::Pace;
use shoal_base::time::earliest;
use shoal_base::{Bitfield, Rng, Time};
use source::{Pieces, Source};
use trust::Trust;

pub use interface::{
    Arrival, BlockDigest, DownloadConfig, DownloadOutput, DropReason, Mode, PieceOutcome, SourceId,
    SourceKind, SourceOptions, Waste,
};

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
    last_block: Time,
    /// Blocks asked for that came, from all sources.
    arrivals: u64,
    pace: Pace,
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
            last_block: Time::ZERO,
            arrivals: 0,
            pace: Pace::default(),
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

#[cfg(test)]
mod downlink_tests;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
