//! One torrent as the reactor holds it: its core, its files, its life.

use super::demand::Demand;
use super::dht::Standing;
use super::limits::Limits;
use super::ranges::{self, Inbox, Ranged};
use crate::session::{AddTorrent, TorrentState, TorrentStats};
use crate::tracker_client::Counters;
use shoal_base::{Bitfield, Time};
use shoal_bittorrent::torrent::Torrent;
use shoal_content::PieceIndex;
use shoal_store::{ResumeId, ResumeState, TorrentFiles};
use smallvec::SmallVec;
use std::sync::Arc;

pub(super) struct Entry {
    pub(super) core: Torrent,
    pub(super) request: AddTorrent,
    pub(super) files: Option<Arc<TorrentFiles>>,
    pub(super) limits: Limits,
    /// Its sources that are asked for ranges, by their numbers in the core.
    pub(super) ranged: Vec<Ranged>,
    /// None until the first of them starts.
    pub(super) inbox: Option<Inbox>,
    /// Whether what is on disk is being checked before anything else.
    pub(super) checking: bool,
    /// Blocks on disk of unfinished pieces, kept while the rest is checked.
    pub(super) partial: Vec<(PieceIndex, Bitfield)>,
    /// Why it is paused, if it is.
    pub(super) paused: Option<String>,
    /// When to look whether the reason for the pause is over.
    pub(super) probe_at: Time,
    /// Whether the files are to be looked at again after a piece failed to be read.
    pub(super) recheck_pending: bool,
    pub(super) banned: usize,
    /// Where it stands in each DHT.
    pub(super) dht: SmallVec<[Standing; 2]>,
    pub(super) demand: Demand,
    /// Its name in the resume database.
    pub(super) resume_id: ResumeId,
    /// What the database knew of it, until its files are open.
    pub(super) resumed: Option<ResumeState>,
    /// Bytes sent and received in earlier runs.
    pub(super) uploaded_before: u64,
    pub(super) downloaded_before: u64,
}

impl Entry {
    pub(super) fn new(core: Torrent, request: AddTorrent) -> Self {
        Self {
            limits: Limits::of_torrent(request.up_limit, request.down_limit),
            core,
            request,
            files: None,
            ranged: Vec::new(),
            inbox: None,
            checking: false,
            partial: Vec::new(),
            paused: None,
            probe_at: Time::FAR,
            recheck_pending: false,
            banned: 0,
            dht: SmallVec::new(),
            demand: Demand::default(),
            resume_id: ResumeId(0),
            resumed: None,
            uploaded_before: 0,
            downloaded_before: 0,
        }
    }

    /// Says what is there to whom it is served by Gnutella's HTTP.
    pub(super) fn share_part(&self) {
        let (Some(shared), Some(info)) = (&self.request.shared_part, self.core.info()) else {
            return;
        };
        let have = self.core.download().map(|d| d.have());
        if let ([file], Some(files), Some(have)) = (info.layout.files(), &self.files, have) {
            let path = files.root().join(file.path.as_path());
            let place = (path, info.name.as_str());
            let geometry = info.geometry();
            shared
                .file
                .begin_torrent(place, shared.sha1, geometry, have);
        }
    }

    /// What it is doing.
    pub(super) fn state(&self) -> TorrentState {
        if self.paused.is_some() {
            TorrentState::Paused
        } else if self.core.is_finished() {
            TorrentState::Seeding
        } else if self.core.is_active() {
            TorrentState::Downloading
        } else if self.core.info().is_some() {
            TorrentState::Checking
        } else {
            TorrentState::Metadata
        }
    }

    /// Which pieces are wanted; none: all of them.
    pub(super) fn wanted(&self) -> Option<Bitfield> {
        if self.request.on_demand {
            let pieces = self.core.info()?.geometry().pieces();
            return Some(Bitfield::new(pieces));
        }
        let (info, files) = (self.core.info()?, self.request.wanted_files.as_ref()?);
        let geometry = info.geometry();
        let mut wanted = Bitfield::new(geometry.pieces());
        for file in files.iter().filter_map(|i| info.layout.files().get(*i)) {
            if file.len > 0 {
                let first = file.offset / u64::from(geometry.piece_len());
                let last = (file.offset + file.len - 1) / u64::from(geometry.piece_len());
                for piece in first..=last {
                    wanted.set(piece as PieceIndex);
                }
            }
        }
        Some(wanted)
    }

    /// What the trackers are told.
    pub(super) fn counters(&mut self, now: Time) -> Counters {
        let figures = self.core.figures(now);
        Counters {
            uploaded: figures.uploaded,
            downloaded: figures.downloaded,
            left: self.bytes_left(),
            wants_peers: self.core.wants_peers(),
        }
    }

    /// Wanted bytes that are missing; all ones while unknown.
    fn bytes_left(&self) -> u64 {
        match (self.core.download(), self.core.info()) {
            // More may be asked for: it is no seed before it has everything.
            (Some(d), Some(info)) if self.request.on_demand => {
                info.geometry().total_len().saturating_sub(d.bytes_done())
            }
            (Some(d), _) => d.bytes_wanted().saturating_sub(d.bytes_wanted_done()),
            (None, Some(info)) => info.geometry().total_len(),
            (None, None) => u64::MAX,
        }
    }

    pub(super) fn stats(&mut self, now: Time) -> TorrentStats {
        let figures = self.core.figures(now);
        let mut stats = TorrentStats {
            state: self.state(),
            downloaded: figures.downloaded,
            uploaded: figures.uploaded,
            wasted: figures.wasted,
            rate_down: figures.rate_down,
            rate_up: figures.rate_up,
            peers: figures.peers,
            seeds: figures.seeds,
            banned: self.banned,
            candidates: figures.candidates,
            ..TorrentStats::default()
        };
        ranges::counts(&self.ranged, &self.core, &mut stats);
        if let Some(info) = self.core.info() {
            stats.bytes_total = info.geometry().total_len();
            stats.pieces_total = info.geometry().pieces();
        }
        if let Some(download) = self.core.download() {
            stats.bytes_done = download.bytes_done();
            stats.bytes_wanted = download.bytes_wanted();
            stats.bytes_wanted_done = download.bytes_wanted_done();
            stats.pieces_done = download.have().count();
        }
        stats
    }
}
