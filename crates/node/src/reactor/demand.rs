//! Torrents of which only what somebody reads is fetched.

use super::Reactor;
use crate::session::Opened;
use crossbeam_channel::Sender;
use shoal_base::Time;
use shoal_content::PieceIndex;
use shoal_store::TorrentKey;
use std::ops::Range;
use std::sync::Arc;

/// Who waits for what of a torrent.
#[derive(Default)]
pub(super) struct Demand {
    /// Those who wait until its files are open.
    openers: Vec<Sender<Opened>>,
    readers: Vec<Reader>,
}

/// Somebody who wants pieces and is told of each.
struct Reader {
    pieces: Range<PieceIndex>,
    /// How many are still to come.
    missing: u32,
    told: Sender<PieceIndex>,
}

impl Reactor {
    /// Somebody wants to know when the torrent's files are open. A torrent that is not known lets
    /// go of the answer, which tells the asker.
    pub(super) fn open(&mut self, key: TorrentKey, answer: Sender<Opened>) {
        if let Some(entry) = self.torrents.get_mut(&key) {
            entry.demand.openers.push(answer);
            self.tell_opened(key);
        }
    }

    /// Tells those who wait for the files, if they are open.
    pub(super) fn tell_opened(&mut self, key: TorrentKey) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let (Some(info), Some(files), Some(download)) =
            (entry.core.info(), &entry.files, entry.core.download())
        else {
            return;
        };
        if entry.demand.openers.is_empty() {
            return;
        }
        let opened = Opened {
            info: Arc::new(info.clone()),
            files: files.clone(),
            have: download.have().clone(),
        };
        for opener in entry.demand.openers.drain(..) {
            // Who no longer waits is not told.
            let _ = opener.send(opened.clone());
        }
    }

    /// Wants pieces of an open torrent, and tells of those that are there.
    pub(super) fn want(
        &mut self,
        key: TorrentKey,
        pieces: Range<PieceIndex>,
        told: Sender<PieceIndex>,
        now: Time,
    ) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(download) = entry.core.download() else {
            return;
        };
        let pieces = pieces.start..pieces.end.min(download.geometry().pieces());
        let mut missing = 0;
        for piece in pieces.clone() {
            if !download.have().get(piece) {
                missing += 1;
            } else if told.send(piece).is_err() {
                return;
            }
        }
        if missing == 0 {
            return;
        }
        entry.core.want(now, pieces.clone(), &mut self.outputs);
        entry.demand.readers.push(Reader {
            pieces,
            missing,
            told,
        });
        self.queue_outputs(key);
        self.retry_sources(now);
    }

    /// A piece is there. A reader is let go of after as many as it lacked; one that lost a piece
    /// in the meantime asks again.
    pub(super) fn tell_wanted(&mut self, key: TorrentKey, piece: PieceIndex) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        entry.demand.readers.retain_mut(|reader| {
            if !reader.pieces.contains(&piece) {
                return true;
            }
            reader.missing = reader.missing.saturating_sub(1);
            reader.told.send(piece).is_ok() && reader.missing > 0
        });
    }
}
