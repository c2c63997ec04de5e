//! A torrent as it is taken up again, and what the disk says to that.

use std::sync::Arc;

use shoal_base::{Bitfield, InfoHash};
use shoal_content::{Geometry, PieceIndex};

use super::journal::Change;
use super::{Live, Resume, ResumeError, ResumeId, TorrentSettings, lock};
use crate::files::{FileStamp, TorrentFiles};

/// What is known of a torrent when it is taken up again.
#[derive(Debug, Clone, PartialEq)]
pub struct ResumeState {
    /// Its short name, for [`Entry`](super::Entry).
    pub id: ResumeId,
    /// Which torrent.
    pub info_hash: InfoHash,
    /// What the user asked for.
    pub settings: TorrentSettings,
    /// The raw info dictionary; none while only a magnet link is known.
    pub info: Option<Arc<[u8]>>,
    /// The cut into pieces; none without `info`.
    pub geometry: Option<Geometry>,
    /// The pieces that are on disk and verified.
    pub have: Bitfield,
    /// Pieces of which some blocks are on disk, with those blocks.
    pub partial: Vec<(PieceIndex, Bitfield)>,
    /// Pieces that may be on disk but must be checked first, rising.
    pub recheck: Vec<PieceIndex>,
    /// Bytes of payload sent, ever.
    pub uploaded: u64,
    /// Bytes of payload received, ever.
    pub downloaded: u64,
    /// Whether everything wanted was there once.
    pub finished: bool,
    /// What the files looked like when the torrent was last stopped cleanly.
    stamps: Option<Vec<Option<FileStamp>>>,
}

/// What [`Resume::reconcile`] found different on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Pieces that were thought there and cannot be: their files are missing or too short.
    pub lost: Vec<PieceIndex>,
    /// Files, by number, that others changed since the last clean stop: their pieces are now to
    /// be checked.
    pub changed: Vec<usize>,
}

impl Resume {
    /// Takes a torrent up: what is known of it, or none if nothing is. It stays loaded until
    /// [`Resume::release`]. A record that cannot be read is given up with a note: check the files
    /// if there are any.
    pub fn load(&self, info_hash: &InfoHash) -> Result<Option<ResumeState>, ResumeError> {
        let loaded = {
            let inner = lock(&self.inner);
            let id = inner.by_hash.get(info_hash);
            id.and_then(|id| inner.live.get(id))
                .map(|live| live.record.clone())
        };
        let record = match loaded {
            Some(record) => record,
            None => match self.given_up(info_hash, self.database.record(info_hash))? {
                None => return Ok(None),
                Some(Err(e)) => {
                    self.note(format!("{info_hash}: {e}; its files are to be checked"));
                    return Ok(None);
                }
                Some(Ok(mut record)) => {
                    let changed = record.boot != self.boot;
                    record.settle(&self.boot);
                    let live = Live {
                        record: record.clone(),
                        syncing: None,
                        changed,
                    };
                    lock(&self.inner).insert(live);
                    record
                }
            },
        };
        let info = match self.given_up(info_hash, self.database.info(info_hash))? {
            Some(Err(e)) => {
                self.note(format!(
                    "{info_hash}: info dictionary: {e}; to be fetched anew"
                ));
                None
            }
            Some(Ok(info)) => Some(info),
            None => None,
        };
        Ok(Some(ResumeState {
            id: record.id,
            info_hash: *info_hash,
            settings: record.settings,
            info,
            geometry: record.geometry,
            recheck: record.recheck.iter().collect(),
            have: record.have,
            partial: record.partial,
            uploaded: record.uploaded,
            downloaded: record.downloaded,
            finished: record.finished,
            stamps: record.stamps,
        }))
    }

    /// Compares `state` with the files: pieces that cannot be there are dropped from it, pieces of
    /// files changed since the last clean stop go to [`ResumeState::recheck`].
    pub fn reconcile(&self, state: &mut ResumeState, files: &TorrentFiles) -> Reconciled {
        let now = files.stamps();
        let layout = files.layout();
        let mut found = Reconciled::default();
        let mut doubtful = Vec::new();
        for (file, (was, is)) in state.stamps.iter().flatten().zip(&now).enumerate() {
            if was != is && layout.files().get(file).is_some_and(|e| e.len > 0) {
                found.changed.push(file);
                doubtful.extend(layout.pieces_of(file).filter(|p| state.have.get(*p)));
            }
        }
        let missing = crate::files::missing_pieces(layout, &now);
        let is_missing = |piece: &PieceIndex| missing.binary_search(piece).is_ok();
        found.lost = missing
            .iter()
            .copied()
            .filter(|p| state.have.get(*p))
            .collect();
        state.partial.retain(|(piece, _)| !is_missing(piece));
        for piece in &missing {
            state.have.clear(*piece);
        }
        doubtful.retain(|piece| !is_missing(piece));
        for piece in &doubtful {
            state.have.clear(*piece);
        }
        state.recheck.retain(|piece| !is_missing(piece));
        state.recheck.extend(&doubtful);
        state.recheck.sort_unstable();
        state.recheck.dedup();
        if let Some(live) = lock(&self.inner).live.get_mut(&state.id) {
            for piece in missing {
                let lost = Change::Lost {
                    first: piece,
                    count: 1,
                };
                live.record.apply(lost);
                live.changed = true;
            }
            for piece in doubtful {
                live.record.set_doubtful(piece);
                live.changed = true;
            }
        }
        found
    }

    /// Takes damage for absence, with a note.
    fn given_up<T>(
        &self,
        info_hash: &InfoHash,
        read: Result<Option<T>, ResumeError>,
    ) -> Result<Option<T>, ResumeError> {
        match read {
            Err(e @ ResumeError::Damaged { .. }) => {
                self.note(format!("{info_hash}: {e}"));
                Ok(None)
            }
            other => other,
        }
    }
}
