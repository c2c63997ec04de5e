//! What lets an interrupted download go on: one database of all torrents and a journal of what
//! happened since its last checkpoint.
//!
//! ```text
//! blocks written ──► journal (page cache) ──┐ checkpoint
//! pieces verified ─► journal                ├──► database (durable) ──► next journal
//! ```
//!
//! A process killed at any moment finds everything again, because the page cache outlives it. A
//! machine that stopped does not: then only what was synced before is believed, and the pieces
//! verified after that are to be checked ([`ResumeState::recheck`]). The boot's id, which stands in
//! the journal and in every record, tells the two apart.

mod database;
mod error;
mod journal;
mod record;
mod startup;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use shoal_base::{Bitfield, InfoHash};
use shoal_content::Geometry;

use crate::files::FileStamp;
use database::Database;
use journal::{BootId, Header, Journal};
use record::Record;

pub use error::ResumeError;
pub use journal::{Change, Entry};
pub use record::{RecordError, TorrentSettings};
pub use state::{Reconciled, ResumeState};

use error::io_error;
use startup::{boot_id, journals, remove_journals_below, replay, take_lock};

/// A torrent's short name in the journal; never given twice by one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResumeId(pub u32);

/// The resume data of all torrents. Methods that change it lock; the reactor may call all but
/// [`Resume::open`], [`Resume::list`] and [`Resume::checkpoint`] without waiting long.
#[derive(Debug)]
pub struct Resume {
    dir: PathBuf,
    database: Database,
    boot: BootId,
    inner: Mutex<Inner>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    notes: Mutex<Vec<String>>,
    _lock: fs::File,
}

#[derive(Debug)]
struct Inner {
    live: FxHashMap<ResumeId, Live>,
    by_hash: FxHashMap<InfoHash, ResumeId>,
    journal: Journal,
    next_id: u32,
    /// Set while the journal cannot be written: only checkpoints save then.
    journal_failed: bool,
}

/// A torrent in use.
#[derive(Debug)]
struct Live {
    record: Record,
    /// Soft pieces whose data is being synced now.
    syncing: Option<Bitfield>,
    /// Differs from the database.
    changed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resume {
    /// Opens the resume data in `dir`, making it if there is none, and takes in what the last
    /// process left in its journal. [`Resume::take_notes`] then tells what had to be repaired.
    pub fn open(dir: &Path) -> Result<Self, ResumeError> {
        Self::open_in_boot(dir, boot_id())
    }

    /// As [`Resume::open`] in another run of the machine: tests cut the power so.
    #[doc(hidden)]
    pub fn open_in_boot(dir: &Path, boot: [u8; 16]) -> Result<Self, ResumeError> {
        fs::create_dir_all(dir).map_err(io_error("make the folder", dir))?;
        let lock_file = take_lock(dir)?;
        let mut notes = Vec::new();
        let database = Database::open(dir, &mut notes)?;
        let journals = journals(dir)?;
        let meta = database.meta()?;
        let replayed = replay(&database, &journals, meta.floor, &boot, &mut notes)?;
        let last = journals.last().map_or(0, |(generation, _)| *generation);
        let header = Header {
            generation: last.max(meta.floor) + 1,
            database: meta.database,
            boot,
        };
        database.commit(&replayed, &[], &[], header.generation, meta.next_id)?;
        for (_, path) in &journals {
            // One left over is below the floor and ignored.
            let _ = fs::remove_file(path);
        }
        let journal = Journal::create(dir, header).map_err(io_error("make a journal in", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
            database,
            boot,
            inner: Mutex::new(Inner {
                live: FxHashMap::default(),
                by_hash: FxHashMap::default(),
                journal,
                next_id: meta.next_id,
                journal_failed: false,
            }),
            checkpointing: Mutex::new(()),
            notes: Mutex::new(notes),
            _lock: lock_file,
        })
    }

    /// What a person should know of the last opening or loading: repairs, records given up. Each
    /// is told once.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// All torrents known, in order of their info-hash.
    pub fn list(&self) -> Result<Vec<(InfoHash, TorrentSettings)>, ResumeError> {
        let mut out = Vec::new();
        self.database.each(|info_hash, record| match record {
            Ok(record) => out.push((info_hash, record.settings)),
            Err(e) => self.note(format!("{info_hash}: {e}")),
        })?;
        Ok(out)
    }

    /// Takes up a torrent that is new or whose record was given up; durable on return. `info` is
    /// its raw info dictionary and cut, if known.
    pub fn add(
        &self,
        info_hash: &InfoHash,
        settings: TorrentSettings,
        info: Option<(&[u8], Geometry)>,
    ) -> Result<ResumeId, ResumeError> {
        let ids = self.add_all([(*info_hash, settings, info)])?;
        // One went in.
        ids.first()
            .copied()
            .ok_or(ResumeError::NotLoaded(ResumeId(0)))
    }

    /// As [`Resume::add`], for many at once.
    pub fn add_all<'i>(
        &self,
        torrents: impl IntoIterator<Item = (InfoHash, TorrentSettings, Option<(&'i [u8], Geometry)>)>,
    ) -> Result<Vec<ResumeId>, ResumeError> {
        let _one = lock(&self.checkpointing);
        let (mut records, mut infos) = (Vec::new(), Vec::new());
        let next_id = {
            let mut inner = lock(&self.inner);
            for (info_hash, settings, info) in torrents {
                let id = ResumeId(inner.next_id);
                inner.next_id = inner.next_id.saturating_add(1);
                let geometry = info.map(|(_, geometry)| geometry);
                records.push(Record::new(id, info_hash, settings, geometry, self.boot));
                infos.extend(info.map(|(raw, _)| (info_hash, raw)));
            }
            inner.next_id
        };
        let encoded: Vec<_> = records.iter().map(|r| (r.info_hash, r.encode())).collect();
        let floor = self.database.floor();
        self.database
            .commit(&encoded, &infos, &[], floor, next_id)?;
        let ids = records.iter().map(|record| record.id).collect();
        let mut inner = lock(&self.inner);
        for record in records {
            inner.insert(Live {
                record,
                syncing: None,
                changed: false,
            });
        }
        Ok(ids)
    }

    /// Adds the metadata that a magnet link has led to; durable on return. Nothing happens if it
    /// is there already.
    pub fn set_info(
        &self,
        id: ResumeId,
        raw: &[u8],
        geometry: Geometry,
    ) -> Result<(), ResumeError> {
        let _one = lock(&self.checkpointing);
        let known = {
            let inner = lock(&self.inner);
            let live = inner.live.get(&id).ok_or(ResumeError::NotLoaded(id))?;
            (live.record.geometry == Some(geometry)).then_some(live.record.info_hash)
        };
        if let Some(info_hash) = known
            && self.database.has_info(&info_hash)?
        {
            return Ok(());
        }
        let (info_hash, record) = self.with(id, |live| {
            live.record.set_geometry(geometry);
            (live.record.info_hash, live.encode())
        })?;
        let next_id = lock(&self.inner).next_id;
        let floor = self.database.floor();
        let info = [(info_hash, raw)];
        self.database
            .commit(&[(info_hash, record)], &info, &[], floor, next_id)
    }

    /// Replaces what the user asked for; saved with the next checkpoint.
    pub fn set_settings(&self, id: ResumeId, settings: TorrentSettings) -> Result<(), ResumeError> {
        self.with(id, |live| live.record.settings = settings)
    }

    /// Sets the counters, in bytes, and whether all that is wanted is there; saved with the next
    /// checkpoint.
    pub fn set_counters(
        &self,
        id: ResumeId,
        uploaded: u64,
        downloaded: u64,
        finished: bool,
    ) -> Result<(), ResumeError> {
        self.with(id, |live| {
            live.record.uploaded = uploaded;
            live.record.downloaded = downloaded;
            live.record.finished = finished;
        })
    }

    /// Notes at a clean stop what the files look like, so that changes by others show later;
    /// saved with the next checkpoint, void after the next change.
    pub fn set_stamps(
        &self,
        id: ResumeId,
        stamps: Vec<Option<FileStamp>>,
    ) -> Result<(), ResumeError> {
        self.with(id, |live| live.record.stamps = Some(stamps))
    }

    fn with<T>(&self, id: ResumeId, f: impl FnOnce(&mut Live) -> T) -> Result<T, ResumeError> {
        let mut inner = lock(&self.inner);
        let live = inner.live.get_mut(&id).ok_or(ResumeError::NotLoaded(id))?;
        live.changed = true;
        Ok(f(live))
    }

    /// Records changes: they survive the process from here on. If the journal cannot be written
    /// they are kept for the next checkpoint.
    pub fn record(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let mut inner = lock(&self.inner);
        for entry in entries {
            if let Some(live) = inner.live.get_mut(&entry.torrent) {
                live.record.apply(entry.change);
                if let (Change::Lost { first, count }, Some(syncing)) =
                    (entry.change, live.syncing.as_mut())
                {
                    let end = first.saturating_add(count).min(syncing.len());
                    (first..end).for_each(|piece| {
                        syncing.clear(piece);
                    });
                }
                live.changed = true;
            }
        }
        if let Err(e) = inner.journal.append(entries) {
            if !inner.journal_failed {
                tracing::warn!(path = %inner.journal.path().display(), error = %e, "cannot write the resume journal");
            }
            inner.journal_failed = true;
        } else {
            inner.journal_failed = false;
        }
    }

    /// How many records the journal has: a checkpoint is due when they are many.
    pub fn journal_records(&self) -> u64 {
        lock(&self.inner).journal.records()
    }

    /// To be called before a torrent's files are synced: what was verified up to now will be
    /// durable.
    pub(crate) fn begin_sync(&self, id: ResumeId) {
        if let Some(live) = lock(&self.inner).live.get_mut(&id) {
            let empty = Bitfield::new(live.record.soft.len());
            live.syncing = Some(std::mem::replace(&mut live.record.soft, empty));
        }
    }

    /// To be called when the sync is over.
    pub(crate) fn end_sync(&self, id: ResumeId, durable: bool) {
        if let Some(live) = lock(&self.inner).live.get_mut(&id)
            && let Some(synced) = live.syncing.take()
        {
            if durable {
                live.changed |= synced.count() > 0;
            } else {
                synced
                    .iter()
                    .filter(|p| live.record.have.get(*p))
                    .for_each(|piece| {
                        live.record.soft.set(piece);
                    });
            }
        }
    }

    /// Folds everything into the database, durably, and starts a new journal. Data is not synced
    /// here: what is not known to be durable is saved as such.
    pub fn checkpoint(&self) -> Result<(), ResumeError> {
        let _one = lock(&self.checkpointing);
        let (records, ids, old, generation, next_id) = {
            let mut inner = lock(&self.inner);
            let changed = inner.live.iter().filter(|(_, live)| live.changed);
            let ids: Vec<ResumeId> = changed.map(|(id, _)| *id).collect();
            if ids.is_empty() && inner.journal.records() == 0 {
                return Ok(());
            }
            let header = Header {
                generation: inner.journal.header().generation + 1,
                ..*inner.journal.header()
            };
            let next = Journal::create(&self.dir, header)
                .map_err(io_error("make a journal in", &self.dir))?;
            let old = std::mem::replace(&mut inner.journal, next);
            let mut records = Vec::with_capacity(ids.len());
            for id in &ids {
                if let Some(live) = inner.live.get_mut(id) {
                    live.changed = false;
                    records.push((live.record.info_hash, live.encode()));
                }
            }
            (records, ids, old, header.generation, inner.next_id)
        };
        let committed = self
            .database
            .commit(&records, &[], &[], generation, next_id);
        if let Err(e) = committed {
            // The floor has not moved: the old journal still counts.
            let mut inner = lock(&self.inner);
            for id in ids {
                if let Some(live) = inner.live.get_mut(&id) {
                    live.changed = true;
                }
            }
            return Err(e);
        }
        remove_journals_below(&self.dir, generation);
        drop(old);
        Ok(())
    }

    /// Saves a torrent and forgets it until it is loaded again.
    pub fn release(&self, id: ResumeId) -> Result<(), ResumeError> {
        loop {
            self.checkpoint()?;
            let mut inner = lock(&self.inner);
            // Something may have been recorded meanwhile.
            if inner.live.get(&id).is_none_or(|live| !live.changed) {
                inner.remove(id);
                return Ok(());
            }
        }
    }

    /// Removes all that is known of a torrent; its files stay.
    pub fn remove(&self, info_hash: &InfoHash) -> Result<(), ResumeError> {
        let _one = lock(&self.checkpointing);
        let next_id = {
            let mut inner = lock(&self.inner);
            if let Some(id) = inner.by_hash.get(info_hash).copied() {
                inner.remove(id);
            }
            inner.next_id
        };
        self.database
            .commit(&[], &[], &[*info_hash], self.database.floor(), next_id)
    }

    fn note(&self, text: String) {
        tracing::warn!("{text}");
        lock(&self.notes).push(text);
    }
}

impl Inner {
    /// Takes a torrent in, in place of another of the same info-hash.
    fn insert(&mut self, live: Live) {
        let id = live.record.id;
        if let Some(old) = self.by_hash.insert(live.record.info_hash, id)
            && old != id
        {
            self.live.remove(&old);
        }
        self.live.insert(id, live);
    }

    fn remove(&mut self, id: ResumeId) {
        if let Some(live) = self.live.remove(&id) {
            self.by_hash.remove(&live.record.info_hash);
        }
    }
}

impl Live {
    fn encode(&self) -> Vec<u8> {
        match &self.syncing {
            None => self.record.encode(),
            Some(syncing) => {
                let mut record = self.record.clone();
                syncing
                    .iter()
                    .filter(|p| record.have.get(*p))
                    .for_each(|piece| {
                        record.soft.set(piece);
                    });
                record.encode()
            }
        }
    }
}

/// Entry for fuzzing: reads `bytes` as a journal and as a record; neither may panic, and what
/// reads back must write back.
pub fn check_decoders(bytes: &[u8]) {
    if let Some(replay) = journal::decode(bytes) {
        assert!(replay.cut <= bytes.len(), "no more is cut than there is");
    }
    if let Ok(record) = Record::decode(bytes) {
        let again = Record::decode(&record.encode());
        assert_eq!(again, Ok(record), "a record must survive a round trip");
    }
    // Past the check, where a mutated record would otherwise never come.
    if let Ok(record) = Record::decode_unchecked(bytes) {
        let again = Record::decode(&record.encode());
        assert_eq!(again, Ok(record), "a record must survive a round trip");
    }
}
