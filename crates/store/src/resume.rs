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
mod journal;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use shoal_base::{Bitfield, InfoHash};
use shoal_content::{Geometry, PieceIndex};

use crate::files::{FileStamp, TorrentFiles};
use database::Database;
use journal::{BootId, Header, Journal};
use record::Record;

pub use journal::{Change, Entry};
pub use record::{RecordError, TorrentSettings};

/// A torrent's short name in the journal; never given twice by one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResumeId(pub u32);

/// Why the resume data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Another process holds the folder.
    #[error("another process uses {}{}", dir.display(), holder(*.pid))]
    Locked {
        /// The state folder.
        dir: PathBuf,
        /// The other process, if it said.
        pid: Option<u32>,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database is not one, or its bytes were changed by others.
    #[error("resume database {} is damaged: {reason}", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What makes no sense.
        reason: String,
    },
    /// The database failed.
    #[error("resume database {}: {reason}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// No such torrent is loaded.
    #[error("torrent {0:?} is not loaded")]
    NotLoaded(ResumeId),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// What is known of a torrent when it is taken up again.
#[derive(Debug, Clone, PartialEq)]
pub struct ResumeState {
    /// Its short name, for [`Entry`].
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

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResumeError {
    let path = path.to_owned();
    move |source| ResumeError::Io { what, path, source }
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

/// Takes in the journals at or above `floor`: the records that change, encoded.
fn replay(
    database: &Database,
    journals: &[(u64, PathBuf)],
    floor: u64,
    boot: &BootId,
    notes: &mut Vec<String>,
) -> Result<Vec<(InfoHash, Vec<u8>)>, ResumeError> {
    let mut replays = Vec::new();
    for (generation, path) in journals {
        if *generation < floor {
            continue;
        }
        let replay = journal::read(path).map_err(io_error("read", path))?;
        match replay {
            Some(replay) if replay.header.database == database.id() => {
                if replay.cut > 0 {
                    notes.push(format!(
                        "{}: cut {} bytes at the end that were torn or damaged",
                        path.display(),
                        replay.cut
                    ));
                }
                replays.push(replay);
            }
            Some(_) => notes.push(format!("{}: of another database, ignored", path.display())),
            None => notes.push(format!("{}: no good header, ignored", path.display())),
        }
    }
    if replays.iter().all(|r| r.entries.is_empty()) {
        return Ok(Vec::new());
    }
    let mut records: FxHashMap<ResumeId, Record> = FxHashMap::default();
    database.each(|_, record| {
        if let Ok(mut record) = record {
            record.settle(boot);
            records.insert(record.id, record);
        }
    })?;
    let mut touched: Vec<ResumeId> = Vec::new();
    for replay in &replays {
        let trusted = replay.header.boot == *boot;
        for entry in &replay.entries {
            let Some(record) = records.get_mut(&entry.torrent) else {
                continue;
            };
            touched.push(entry.torrent);
            if trusted {
                record.apply(entry.change);
            } else {
                record.apply_doubtful(entry.change);
            }
        }
    }
    touched.sort_unstable();
    touched.dedup();
    let encode = |id| records.get(id).map(|r: &Record| (r.info_hash, r.encode()));
    Ok(touched.iter().filter_map(encode).collect())
}

/// The journals in `dir`, oldest first.
fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ResumeError> {
    let mut out = Vec::new();
    for item in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let item = item.map_err(io_error("list", dir))?;
        if let Some(generation) = item.file_name().to_str().and_then(journal::generation_of) {
            out.push((generation, item.path()));
        }
    }
    out.sort_unstable();
    Ok(out)
}

fn remove_journals_below(dir: &Path, floor: u64) {
    for (generation, path) in journals(dir).unwrap_or_default() {
        if generation < floor {
            // One left over is below the floor and ignored.
            let _ = fs::remove_file(path);
        }
    }
}

/// Locks `dir` for this process until the file is dropped.
fn take_lock(dir: &Path) -> Result<fs::File, ResumeError> {
    use std::io::{Read, Write};
    let path = dir.join("lock");
    let open = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok();
            let pid = pid.and_then(|_| text.trim().parse().ok());
            let dir = dir.to_owned();
            return Err(ResumeError::Locked { dir, pid });
        }
        Err(fs::TryLockError::Error(e)) => return Err(io_error("lock", &path)(e)),
    }
    // The process number is only for the message.
    let _ = file.set_len(0);
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

/// This boot's id; on systems that do not tell, a number that matches no other run.
fn boot_id() -> BootId {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    shoal_base::id::from_hex(&digits).unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| d.as_nanos()).to_be_bytes()
    })
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
