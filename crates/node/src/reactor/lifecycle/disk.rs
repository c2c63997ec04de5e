//! What the disk has done, lost and failed at.

use crate::reactor::Reactor;
use crate::reactor::timers::PROBE_EVERY;
use crate::session::Event;
use shoal_base::{Bitfield, Time};
use shoal_bittorrent::torrent::ConnId;
use shoal_store::{BlockWrite, Done, Job, StoreError, TorrentKey};

impl Reactor {
    pub(super) fn on_disk_done(&mut self, done: Done, now: Time) {
        match done {
            Done::Written { buf, failed, .. } => {
                if !self.buffers.give_back(buf) {
                    self.ranges_in_flight = self.ranges_in_flight.saturating_sub(1);
                }
                self.on_failed_writes(&failed, now);
            }
            Done::Piece {
                torrent,
                piece,
                outcome,
            } => {
                if let Some(entry) = self.torrents.get_mut(&torrent) {
                    entry.core.on_piece(now, piece, &outcome, &mut self.outputs);
                    self.queue_outputs(torrent);
                }
            }
            Done::Read {
                torrent,
                token,
                buf,
                result,
                ..
            } => {
                if let Err(error) = &result {
                    self.on_unreadable(torrent, error);
                }
                self.on_disk_read(torrent, token as ConnId, &buf, result.is_ok());
            }
            Done::CheckProgress {
                torrent,
                checked,
                total,
                ..
            } => {
                if self.torrents.get(&torrent).is_some_and(|e| e.checking) {
                    self.tell(Event::Checking {
                        key: torrent,
                        done: checked,
                        total,
                    });
                }
            }
            Done::Checked {
                torrent,
                have,
                cancelled,
                error,
            } => {
                if let Some(error) = error {
                    tracing::warn!(%error, "checking met an error");
                }
                if !cancelled {
                    self.on_checked(torrent, have, now);
                }
            }
            Done::Probed {
                torrent,
                result,
                lost,
                failed,
            } => {
                self.on_lost_pieces(torrent, &lost, now);
                self.on_failed_writes(&failed, now);
                self.on_probed(torrent, result.err(), now);
            }
            Done::Fault { torrent, error } => self.on_fault(torrent, &error, now),
            Done::Prepared {
                torrent,
                result: Err(error),
            } => {
                self.on_fault(torrent, &error, now);
            }
            Done::Finished {
                result: Err(error), ..
            }
            | Done::Synced {
                result: Err(error), ..
            } => {
                tracing::warn!(%error, "the disk pool failed");
            }
            Done::Checkpointed { result: Err(error) } => {
                tracing::warn!(error, "cannot store the resume data");
            }
            Done::Prepared { .. }
            | Done::Finished { .. }
            | Done::Synced { .. }
            | Done::Checkpointed { .. }
            | Done::Closed { .. } => {}
        }
    }

    /// Blocks that are not on disk after all are requested anew.
    pub(super) fn on_failed_writes(&mut self, failed: &[BlockWrite], now: Time) {
        for write in failed {
            if let Some(entry) = self.torrents.get_mut(&write.torrent) {
                entry
                    .core
                    .on_write_failed(now, &[write.block], &mut self.outputs);
                self.queue_outputs(write.torrent);
            }
        }
    }

    pub(super) fn on_checked(&mut self, key: TorrentKey, have: Bitfield, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        entry.recheck_pending = false;
        if entry.checking {
            return self.activate(key, have, now);
        }
        let gone: Vec<_> = match entry.core.download() {
            Some(download) => download.have().iter().filter(|p| !have.get(*p)).collect(),
            None => return,
        };
        self.on_lost_pieces(key, &gone, now);
    }

    pub(super) fn on_lost_pieces(&mut self, key: TorrentKey, pieces: &[u32], now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        for piece in pieces {
            entry.core.on_piece_lost(now, *piece, &mut self.outputs);
            if let Some(shared) = &entry.request.shared_part {
                shared.file.lost(*piece);
            }
        }
        self.queue_outputs(key);
    }

    /// A block that should be there cannot be read: look which pieces are really there.
    pub(super) fn on_unreadable(&mut self, key: TorrentKey, error: &StoreError) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut entry.recheck_pending, true) {
            return;
        }
        tracing::warn!(%error, "data is gone; checking what is left");
        let pieces = entry.core.download().map(|d| d.have().clone());
        self.disk.submit(Job::Check {
            torrent: key,
            pieces,
        });
        let reason = error.to_string();
        self.tell(Event::Damaged { key, reason });
    }

    /// Writing failed: pause this torrent with the reason, and look now and then whether it is
    /// over.
    pub(super) fn on_fault(&mut self, key: TorrentKey, error: &StoreError, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let reason = error.to_string();
        entry.probe_at = now + PROBE_EVERY;
        if entry.paused.replace(reason.clone()).is_none() {
            entry.core.set_paused(now, true, &mut self.outputs);
            self.queue_outputs(key);
            self.tell(Event::Paused { key, reason });
        }
    }

    pub(super) fn on_probed(&mut self, key: TorrentKey, error: Option<StoreError>, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        if let Some(error) = error {
            entry.paused = Some(error.to_string());
            entry.probe_at = now + PROBE_EVERY;
            return;
        }
        if entry.paused.take().is_some() {
            entry.core.set_paused(now, false, &mut self.outputs);
            self.queue_outputs(key);
            self.tell(Event::Resumed { key });
        }
    }

    /// Tries paused torrents again: those without files by opening them, others by a write.
    pub(in crate::reactor) fn probe_paused(&mut self, now: Time) {
        let due: Vec<_> = self
            .torrents
            .iter_mut()
            .filter(|(_, e)| e.paused.is_some() && now >= e.probe_at)
            .map(|(key, entry)| {
                entry.probe_at = Time::FAR;
                (*key, entry.files.is_some())
            })
            .collect();
        for (key, opened) in due {
            if opened {
                self.disk.submit(Job::Probe { torrent: key });
            } else {
                self.load(key, now);
            }
        }
    }
}
