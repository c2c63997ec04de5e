//! The library's database: what is known of every file by its path, and of contents by SHA-1.
//!
//! All of it can be found out again from the files, so a damaged one is moved aside and a new one
//! begun; the list of folders is not in it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::LibraryError;
use super::record::{FileParts, FileRecord, Stamp};

/// By [`super::record::file_key`].
pub(super) const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");
/// Device and inode → the key of a file that has them.
const INODES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("inodes");
/// SHA-1 → [`FileParts`].
const PARTS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("parts");
/// What a torrent is made of → when that was last asked for, in seconds since 1970, and the SHA-1
/// of its pieces.
const PIECES: TableDefinition<'_, &[u8; 20], (u64, &[u8])> = TableDefinition::new("pieces");

const FILE: &str = "hashes.redb";
const CACHE_BYTES: usize = 32 << 20;
/// Torrents whose pieces are remembered: at 40 KiB each, 20 MiB.
const MAX_TORRENTS: u64 = 512;

pub(super) struct Database {
    path: PathBuf,
    redb: redb::Database,
}

/// The files as they were when it was opened.
pub(super) struct FilesView {
    pub(super) files: ReadOnlyTable<&'static [u8], &'static [u8]>,
    inodes: ReadOnlyTable<(u64, u64), &'static [u8]>,
}

impl FilesView {
    /// What is known of the very file that looks like `stamp`, wherever it lay.
    pub(super) fn moved(&self, stamp: &Stamp) -> Result<Option<FileRecord>, redb::StorageError> {
        let Some(key) = self.inodes.get((stamp.device, stamp.inode))? else {
            return Ok(None);
        };
        let record = self.files.get(key.value())?;
        let record = record.and_then(|r| FileRecord::decode(r.value()));
        Ok(record.filter(|r| r.stamp == *stamp))
    }
}

/// Changes that become durable together.
pub(super) struct Changes<'t> {
    files: Table<'t, &'static [u8], &'static [u8]>,
    inodes: Table<'t, (u64, u64), &'static [u8]>,
    parts: Table<'t, &'static [u8; 20], &'static [u8]>,
}

impl Changes<'_> {
    /// Keeps a record; that which it replaces.
    pub(super) fn put(
        &mut self,
        key: &[u8],
        record: &FileRecord,
    ) -> Result<Option<FileRecord>, redb::StorageError> {
        let old = self.files.insert(key, record.encode().as_slice())?;
        let old = old.and_then(|r| FileRecord::decode(r.value()));
        if let Some(old) = &old {
            self.leave_inode(key, &old.stamp)?;
        }
        let inode = (record.stamp.device, record.stamp.inode);
        self.inodes.insert(inode, key)?;
        Ok(old)
    }

    /// Forgets where an inode is, unless it has moved meanwhile.
    fn leave_inode(&mut self, key: &[u8], stamp: &Stamp) -> Result<(), redb::StorageError> {
        let inode = (stamp.device, stamp.inode);
        let its = self.inodes.get(inode)?.is_some_and(|k| k.value() == key);
        if its {
            self.inodes.remove(inode)?;
        }
        Ok(())
    }

    pub(super) fn put_parts(
        &mut self,
        sha1: &[u8; 20],
        parts: &FileParts,
    ) -> Result<(), redb::StorageError> {
        self.parts.insert(sha1, parts.encode().as_slice())?;
        Ok(())
    }

    /// Forgets a record; what it was.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<Option<FileRecord>, redb::StorageError> {
        let old = self.files.remove(key)?;
        let old = old.and_then(|r| FileRecord::decode(r.value()));
        if let Some(old) = &old {
            self.leave_inode(key, &old.stamp)?;
        }
        Ok(old)
    }

    /// Forgets all files whose keys begin with `prefix`.
    pub(super) fn remove_below(&mut self, prefix: &[u8]) -> Result<(), redb::StorageError> {
        loop {
            let mut keys = Vec::new();
            for item in self.files.range(prefix..)?.take(1000) {
                let key = item?.0.value().to_vec();
                if !key.starts_with(prefix) {
                    break;
                }
                keys.push(key);
            }
            if keys.is_empty() {
                return Ok(());
            }
            for key in keys {
                self.remove(&key)?;
            }
        }
    }

    /// Forgets the parts of contents that no file has any more.
    pub(super) fn sweep(&mut self) -> Result<(), redb::StorageError> {
        let mut used = rustc_hash::FxHashSet::default();
        for item in self.files.iter()? {
            if let Some(record) = FileRecord::decode(item?.1.value()) {
                used.insert(record.sha1);
            }
        }
        self.parts.retain(|sha1, _| used.contains(sha1))
    }
}

impl Database {
    /// Opens the database in `dir`, or makes a new one in place of a missing or damaged one.
    pub(super) fn open(dir: &Path, notes: &mut Vec<String>) -> Result<Self, LibraryError> {
        let path = dir.join(FILE);
        match Self::try_open(&path) {
            Err(e @ LibraryError::Damaged { .. }) => {
                let aside = path.with_extension("redb.damaged");
                fs::rename(&path, &aside).map_err(LibraryError::io("move aside", &path))?;
                notes.push(format!(
                    "{e}; moved to {}, all files are to be hashed anew",
                    aside.display()
                ));
                Self::try_open(&path)
            }
            other => other,
        }
    }

    fn try_open(path: &Path) -> Result<Self, LibraryError> {
        // The library takes some damage for its own bug and panics.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let redb = redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create(path)
                .map_err(|e| error(path, e.into()))?;
            let database = Self {
                path: path.to_owned(),
                redb,
            };
            // Makes the tables of a new one, and reads something of an old one.
            database.change(|_| Ok(()))?;
            database.view()?;
            Ok(database)
        }));
        opened.unwrap_or_else(|_| Err(damaged(path, "its structure makes no sense")))
    }

    pub(super) fn err(&self, e: impl Into<redb::Error>) -> LibraryError {
        error(&self.path, e.into())
    }

    pub(super) fn view(&self) -> Result<FilesView, LibraryError> {
        let read = self.redb.begin_read().map_err(|e| self.err(e))?;
        Ok(FilesView {
            files: read.open_table(FILES).map_err(|e| self.err(e))?,
            inodes: read.open_table(INODES).map_err(|e| self.err(e))?,
        })
    }

    /// Begins a transaction, for [`Self::changes`].
    pub(super) fn begin(&self) -> Result<WriteTransaction, LibraryError> {
        self.redb.begin_write().map_err(|e| self.err(e))
    }

    pub(super) fn changes<'t>(
        &self,
        txn: &'t WriteTransaction,
    ) -> Result<Changes<'t>, LibraryError> {
        Ok(Changes {
            files: txn.open_table(FILES).map_err(|e| self.err(e))?,
            inodes: txn.open_table(INODES).map_err(|e| self.err(e))?,
            parts: txn.open_table(PARTS).map_err(|e| self.err(e))?,
        })
    }

    /// Does all of `f`, durably.
    pub(super) fn change(
        &self,
        f: impl FnOnce(&mut Changes<'_>) -> Result<(), redb::StorageError>,
    ) -> Result<(), LibraryError> {
        let txn = self.begin()?;
        f(&mut self.changes(&txn)?).map_err(|e| self.err(e))?;
        txn.open_table(PIECES).map_err(|e| self.err(e))?;
        txn.commit().map_err(|e| self.err(e))
    }

    /// The parts of a content.
    pub(super) fn parts(&self, record: &FileRecord) -> Result<Option<FileParts>, LibraryError> {
        let read = self.redb.begin_read().map_err(|e| self.err(e))?;
        let table = read.open_table(PARTS).map_err(|e| self.err(e))?;
        let found = table.get(&record.sha1).map_err(|e| self.err(e))?;
        Ok(found.and_then(|bytes| FileParts::decode(bytes.value(), record.tiger)))
    }

    /// The pieces kept under `name`.
    pub(super) fn pieces(&self, name: &[u8; 20]) -> Result<Option<Vec<[u8; 20]>>, LibraryError> {
        let read = self.redb.begin_read().map_err(|e| self.err(e))?;
        let table = read.open_table(PIECES).map_err(|e| self.err(e))?;
        let found = table.get(name).map_err(|e| self.err(e))?;
        Ok(found.and_then(|value| super::record::cut(value.value().1)))
    }

    /// Keeps pieces under `name` as of `now`, in seconds since 1970; of very many torrents the
    /// one that was asked for longest ago is forgotten.
    pub(super) fn keep_pieces(
        &self,
        name: &[u8; 20],
        pieces: &[[u8; 20]],
        now: u64,
    ) -> Result<(), LibraryError> {
        let txn = self.begin()?;
        let keep = || -> Result<(), redb::Error> {
            let mut table = txn.open_table(PIECES)?;
            table.insert(name, (now, pieces.as_flattened()))?;
            let many = redb::ReadableTableMetadata::len(&table)? > MAX_TORRENTS;
            if many {
                let mut oldest: Option<(u64, [u8; 20])> = None;
                for item in table.iter()? {
                    let (key, value) = item?;
                    let this = (value.value().0, *key.value());
                    oldest = Some(oldest.map_or(this, |o| o.min(this)));
                }
                if let Some((_, key)) = oldest {
                    table.remove(&key)?;
                }
            }
            Ok(())
        };
        keep().map_err(|e| self.err(e))?;
        txn.commit().map_err(|e| self.err(e))
    }
}

fn error(path: &Path, e: redb::Error) -> LibraryError {
    use std::io::ErrorKind;
    let path = path.to_owned();
    match e {
        redb::Error::DatabaseAlreadyOpen => LibraryError::Busy { path },
        redb::Error::Io(e)
            if !matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            LibraryError::io("use", &path)(e)
        }
        redb::Error::Corrupted(_)
        | redb::Error::Io(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => damaged(&path, &e.to_string()),
        _ => LibraryError::Database {
            path,
            reason: e.to_string(),
        },
    }
}

fn damaged(path: &Path, reason: &str) -> LibraryError {
    LibraryError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
