//! The thread that makes things durable: a sync may take seconds, and no write may wait for it.

use std::sync::{Arc, PoisonError, mpsc};

use super::Shared;
use super::job::{Done, Job};
use super::torrent::Torrent;
use crate::error::{Operation, StoreError};
use crate::resume::Resume;

/// Does the jobs sent until the pool stops.
pub(super) fn run(shared: &Shared, jobs: &mpsc::Receiver<Job>) {
    let mut done = Vec::new();
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Sync { torrent } => {
                let result = match shared.torrent(torrent) {
                    Some(torrent) => sync(&torrent, &shared.resume),
                    None => Err(StoreError::unknown(Operation::Sync)),
                };
                done.push(Done::Synced { torrent, result });
            }
            Job::Checkpoint { sync: durable } => {
                if durable {
                    sync_all(shared, &mut done);
                }
                let result = shared.resume.checkpoint();
                done.push(Done::Checkpointed {
                    result: result.map_err(|e| e.to_string()),
                });
            }
            // Not for this thread: see `DiskPool::submit`.
            _ => {}
        }
        shared.finish(&mut done);
    }
}

fn sync_all(shared: &Shared, done: &mut Vec<Done>) {
    let torrents: Vec<Arc<Torrent>> = {
        let torrents = shared
            .torrents
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        torrents.values().cloned().collect()
    };
    for torrent in torrents {
        if torrent.files.is_dirty()
            && let Err(error) = sync(&torrent, &shared.resume)
            && !error.is_absence()
            && torrent.set_faulted()
        {
            done.push(Done::Fault {
                torrent: torrent.key,
                error,
            });
        }
    }
}

/// Syncs a torrent's files; what was verified before is then believed after a power loss.
fn sync(torrent: &Torrent, resume: &Resume) -> Result<(), StoreError> {
    if let Some(id) = torrent.resume {
        resume.begin_sync(id);
    }
    let result = torrent.files.sync();
    if let Some(id) = torrent.resume {
        resume.end_sync(id, result.is_ok());
    }
    result
}
