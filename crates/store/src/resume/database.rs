//! The durable part: three tables in one redb file.
//!
//! A file that cannot be opened is moved aside and a new one begun: the torrents are then checked
//! instead of refused.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};
use sha1::{Digest, Sha1};
use shoal_base::InfoHash;

use super::error::{ResumeError, io_error};
use super::record::{Record, RecordError};
use super::startup::journals;

const RECORDS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("torrents");
/// Eight bytes of SHA-1 over the rest, then the raw info dictionary.
const INFO: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("info");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const FILE: &str = "resume.redb";
/// Pages kept in memory: the records are read once each, so little is enough.
const CACHE_BYTES: usize = 1 << 20;

/// A value if there is one, or what is wrong with its bytes.
pub(super) type Stored<T> = Option<Result<T, RecordError>>;

/// Numbers kept beside the records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    /// Random; ties journals to this database.
    pub(super) database: u64,
    /// Journals below this generation are contained in the records.
    pub(super) floor: u64,
    /// The next torrent's short name.
    pub(super) next_id: u32,
}

#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    redb: redb::Database,
    id: u64,
    floor: AtomicU64,
}

impl Database {
    /// Opens the database in `dir`, or makes a new one in place of a missing or damaged one.
    pub(super) fn open(dir: &Path, notes: &mut Vec<String>) -> Result<Self, ResumeError> {
        let path = dir.join(FILE);
        match Self::try_open(&path) {
            Ok(database) => Ok(database),
            Err(e @ ResumeError::Damaged { .. }) => {
                let aside = move_aside(dir, &path)?;
                notes.push(format!(
                    "{e}; moved to {}, torrents are to be checked anew",
                    aside.display()
                ));
                Self::try_open(&path)
            }
            Err(e) => Err(e),
        }
    }

    fn try_open(path: &Path) -> Result<Self, ResumeError> {
        // The library takes some damage for its own bug and panics.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let redb = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create(path)
                .map_err(|e| database_error(path, e.into()))?;
            let mut database = Self {
                path: path.to_owned(),
                redb,
                id: 0,
                floor: AtomicU64::new(0),
            };
            let meta = database.meta()?;
            database.id = meta.database;
            database.floor = AtomicU64::new(meta.floor);
            database.each(|_, _| {})?;
            Ok(database)
        }));
        opened.unwrap_or_else(|_| Err(damaged(path, "its structure makes no sense")))
    }

    fn err(&self, e: impl Into<redb::Error>) -> ResumeError {
        database_error(&self.path, e.into())
    }

    /// Runs a transaction; damage that the library panics on comes back as such.
    fn guarded<T>(&self, f: impl FnOnce() -> Result<T, ResumeError>) -> Result<T, ResumeError> {
        let done = catch_unwind(AssertUnwindSafe(f));
        done.unwrap_or_else(|_| Err(damaged(&self.path, "its structure makes no sense")))
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Reads the numbers; makes them, durably, in a new database.
    pub(super) fn meta(&self) -> Result<Meta, ResumeError> {
        let read = self.redb.begin_read().map_err(|e| self.err(e))?;
        match read.open_table(META) {
            Ok(table) => {
                let get = |key: &str| {
                    let value = table.get(key).map_err(|e| self.err(e))?;
                    value
                        .map(|v| v.value())
                        .ok_or_else(|| damaged(&self.path, &format!("no {key:?}")))
                };
                Ok(Meta {
                    database: get("database")?,
                    floor: get("floor")?,
                    next_id: u32::try_from(get("next id")?)
                        .map_err(|_| damaged(&self.path, "next id"))?,
                })
            }
            Err(TableError::TableDoesNotExist(_)) => {
                drop(read);
                let meta = Meta {
                    database: random(),
                    floor: 1,
                    next_id: 1,
                };
                self.create(meta)?;
                Ok(meta)
            }
            Err(e) => Err(self.err(e)),
        }
    }

    fn create(&self, meta: Meta) -> Result<(), ResumeError> {
        let txn = self.redb.begin_write().map_err(|e| self.err(e))?;
        {
            let mut table = txn.open_table(META).map_err(|e| self.err(e))?;
            let numbers = [
                ("database", meta.database),
                ("floor", meta.floor),
                ("next id", u64::from(meta.next_id)),
            ];
            for (key, value) in numbers {
                table.insert(key, value).map_err(|e| self.err(e))?;
            }
            txn.open_table(RECORDS).map_err(|e| self.err(e))?;
            txn.open_table(INFO).map_err(|e| self.err(e))?;
        }
        txn.commit().map_err(|e| self.err(e))
    }

    /// Hands every record to `f`.
    pub(super) fn each(
        &self,
        mut f: impl FnMut(InfoHash, Result<Record, RecordError>),
    ) -> Result<(), ResumeError> {
        self.guarded(|| {
            let read = self.redb.begin_read().map_err(|e| self.err(e))?;
            let table = read.open_table(RECORDS).map_err(|e| self.err(e))?;
            for item in table.iter().map_err(|e| self.err(e))? {
                let (key, value) = item.map_err(|e| self.err(e))?;
                f(InfoHash(*key.value()), Record::decode(value.value()));
            }
            Ok(())
        })
    }

    /// The record of one torrent.
    pub(super) fn record(&self, info_hash: &InfoHash) -> Result<Stored<Record>, ResumeError> {
        self.get(RECORDS, info_hash, Record::decode)
    }

    /// The raw info dictionary of one torrent.
    pub(super) fn info(&self, info_hash: &InfoHash) -> Result<Stored<Arc<[u8]>>, ResumeError> {
        self.get(INFO, info_hash, |bytes| {
            let (check, raw) = bytes.split_at_checked(8).ok_or(RecordError::Check)?;
            let good = Sha1::digest(raw)[..8] == *check;
            good.then(|| raw.into()).ok_or(RecordError::Check)
        })
    }

    /// Whether the raw info dictionary of a torrent is stored.
    pub(super) fn has_info(&self, info_hash: &InfoHash) -> Result<bool, ResumeError> {
        Ok(self.get(INFO, info_hash, |_| ())?.is_some())
    }

    fn get<T>(
        &self,
        table: TableDefinition<'_, &[u8; 20], &[u8]>,
        key: &InfoHash,
        f: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, ResumeError> {
        self.guarded(|| {
            let read = self.redb.begin_read().map_err(|e| self.err(e))?;
            let table = read.open_table(table).map_err(|e| self.err(e))?;
            let value = table.get(&key.0).map_err(|e| self.err(e))?;
            Ok(value.map(|value| f(value.value())))
        })
    }

    /// Stores records, removes torrents and moves the floor, all at once and durably.
    pub(super) fn commit(
        &self,
        records: &[(InfoHash, Vec<u8>)],
        new_infos: &[(InfoHash, &[u8])],
        removed: &[InfoHash],
        floor: u64,
        next_id: u32,
    ) -> Result<(), ResumeError> {
        self.guarded(|| {
            let txn = self.redb.begin_write().map_err(|e| self.err(e))?;
            {
                let mut table = txn.open_table(RECORDS).map_err(|e| self.err(e))?;
                for (key, value) in records {
                    table
                        .insert(&key.0, value.as_slice())
                        .map_err(|e| self.err(e))?;
                }
                let mut infos = txn.open_table(INFO).map_err(|e| self.err(e))?;
                for (key, raw) in new_infos {
                    let checked = [&Sha1::digest(raw)[..8], raw].concat();
                    infos
                        .insert(&key.0, checked.as_slice())
                        .map_err(|e| self.err(e))?;
                }
                for key in removed {
                    table.remove(&key.0).map_err(|e| self.err(e))?;
                    infos.remove(&key.0).map_err(|e| self.err(e))?;
                }
                let mut meta = txn.open_table(META).map_err(|e| self.err(e))?;
                meta.insert("floor", floor).map_err(|e| self.err(e))?;
                meta.insert("next id", u64::from(next_id))
                    .map_err(|e| self.err(e))?;
            }
            txn.commit().map_err(|e| self.err(e))
        })?;
        self.floor.store(floor, Ordering::Release);
        Ok(())
    }
}

fn database_error(path: &Path, e: redb::Error) -> ResumeError {
    use std::io::ErrorKind;
    let reason = e.to_string();
    match e {
        redb::Error::Io(e)
            if !matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            io_error("use the resume database", path)(e)
        }
        redb::Error::Corrupted(_)
        | redb::Error::Io(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. } => damaged(path, &reason),
        _ => ResumeError::Database {
            path: path.to_owned(),
            reason,
        },
    }
}

fn damaged(path: &Path, reason: &str) -> ResumeError {
    ResumeError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Renames a damaged database and the journals that belong to it.
fn move_aside(dir: &Path, path: &Path) -> Result<PathBuf, ResumeError> {
    let free = |n: u32| {
        let aside = dir.join(format!("{FILE}.damaged-{n}"));
        (!aside.exists()).then_some(aside)
    };
    let aside = (1..)
        .find_map(free)
        .unwrap_or_else(|| path.with_extension("damaged"));
    fs::rename(path, &aside).map_err(io_error("move aside", path))?;
    for (_, journal) in journals(dir)? {
        // They name torrents by numbers of the damaged database.
        fs::remove_file(&journal).map_err(io_error("remove", &journal))?;
    }
    Ok(aside)
}

/// A number that no other database has, in all likelihood.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom")
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes));
    if read.is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        return now.map_or(0, |d| d.as_nanos() as u64);
    }
    u64::from_be_bytes(bytes)
}
