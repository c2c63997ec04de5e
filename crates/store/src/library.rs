//! The library: folders whose files are shared, and every hash of every file.
//!
//! A file is read once, for all hashes at the same time, and again only when it changed: the
//! database keeps what it looked like ([`Stamp`]). A file that was moved is known by its inode.
//! The list of folders is a small file of its own, replaced whole; what is in the database can be
//! found out again.
//!
//! One process at a time has a library open; whoever shares for long takes what it needs with
//! [`Library::each`] and closes it.

mod database;
mod hash;
mod record;
mod scan;
mod walk;
mod watch;

pub use record::{Audience, FileParts, FileRecord, SharedFolder, Stamp};
pub use scan::{Oddity, ScanOptions, ScanProgress, ScanReport};
pub use watch::Watch;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use database::Database;
use record::{decode_folders, encode_folders, file_key, read_key};

use crate::snapshot;
use shoal_content::keywords::{LocalFile, LocalFiles};

const FOLDERS: &str = "folders";
/// Bytes of the list of folders at most, some ten thousand of them.
const MAX_FOLDERS_FILE: u64 = 4 << 20;

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its bytes make no sense.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The database refuses.
    #[error("cannot use {}: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Only folders can be added.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
}

impl LibraryError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// What is to be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A folder's number.
    pub folder: u32,
    /// Only what is in this folder below it; empty for all of it.
    pub below: String,
}

/// Who looks at the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Its owner.
    Owner,
    /// Anybody.
    Anyone,
    /// Whoever proved this Ed25519 key.
    Key([u8; 32]),
}

impl View {
    /// Whether a folder shared with `audience` is seen.
    #[must_use]
    pub fn sees(&self, audience: &Audience) -> bool {
        match (self, audience) {
            (Self::Owner, _) | (_, Audience::Everyone) => true,
            (Self::Key(key), Audience::Keys(keys)) => keys.contains(key),
            (_, Audience::Keys(_) | Audience::Nobody) => false,
        }
    }
}

/// A file of the library.
#[derive(Debug, Clone, Copy)]
pub struct SharedFile<'a> {
    /// The folder it is in.
    pub folder: &'a SharedFolder,
    /// Its path below that, with `/`.
    pub path: &'a str,
    /// What it looked like, and its names by hash.
    pub record: FileRecord,
}

/// An open library.
pub struct Library {
    dir: PathBuf,
    database: Database,
    folders: Vec<SharedFolder>,
    next_id: u32,
    notes: Vec<String>,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("dir", &self.dir)
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}

/// How often a library that another process has open is tried again.
const RETRY: Duration = Duration::from_millis(50);

impl Library {
    /// As [`Library::open`], but waits up to `patience` for another process that has it open.
    ///
    /// # Errors
    /// As for [`Library::open`].
    pub fn open_within(dir: &Path, patience: Duration) -> Result<Self, LibraryError> {
        let begun = Instant::now();
        loop {
            match Self::open(dir) {
                // The database's lock cannot be waited on, only tried; it is held for one command.
                Err(LibraryError::Busy { .. }) if begun.elapsed() < patience => {
                    std::thread::sleep(RETRY);
                }
                opened => return opened,
            }
        }
    }

    /// Opens the library in `dir`, or makes an empty one.
    ///
    /// # Errors
    /// [`LibraryError::Busy`] if another process has it open; a damaged list of folders, which is
    /// left as it is. A damaged database is moved aside, and a note tells.
    pub fn open(dir: &Path) -> Result<Self, LibraryError> {
        std::fs::create_dir_all(dir).map_err(LibraryError::io("make", dir))?;
        let mut notes = Vec::new();
        let database = Database::open(dir, &mut notes)?;
        let path = dir.join(FOLDERS);
        let loaded = snapshot::load(&path, MAX_FOLDERS_FILE);
        let (folders, next_id) = match loaded.map_err(LibraryError::io("read", &path))? {
            None => (Vec::new(), 1),
            Some(bytes) => decode_folders(&bytes).ok_or_else(|| LibraryError::Damaged {
                path,
                reason: "it is no list of folders that this version knows".to_owned(),
            })?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            database,
            folders,
            next_id,
            notes,
        })
    }

    /// When a scan, or who added or removed folders, last changed the library in `dir`; none: nobody ever did.
    #[must_use]
    pub fn changed_at(dir: &Path) -> Option<SystemTime> {
        let written = std::fs::metadata(dir.join(FOLDERS)).ok()?;
        written.modified().ok()
    }

    /// What the user should know about how it was opened.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its folders, in the order in which they were added.
    #[must_use]
    pub fn folders(&self) -> &[SharedFolder] {
        &self.folders
    }

    /// The folder at `path`, given by any name.
    #[must_use]
    pub fn folder_at(&self, path: &Path) -> Option<&SharedFolder> {
        // What is not there now can still be named by the path that it had.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.folders.iter().find(|f| f.path == path)
    }

    fn save(&self) -> Result<(), LibraryError> {
        let path = self.dir.join(FOLDERS);
        let bytes = encode_folders(&self.folders, self.next_id);
        snapshot::save(&path, &bytes).map_err(LibraryError::io("write", &path))
    }

    /// Adds a folder, or changes with whom one is shared. Nothing is scanned yet. One inside
    /// another takes its files out of that one's. Its number.
    ///
    /// # Errors
    /// What is no folder; what the file system says.
    pub fn add(
        &mut self,
        path: &Path,
        audience: Audience,
        hidden: bool,
    ) -> Result<u32, LibraryError> {
        let path = std::fs::canonicalize(path).map_err(LibraryError::io("share", path))?;
        if !path.is_dir() {
            return Err(LibraryError::NotAFolder(path));
        }
        if let Some(known) = self.folders.iter_mut().find(|f| f.path == path) {
            (known.audience, known.hidden) = (audience, hidden);
            let id = known.id;
            self.save()?;
            return Ok(id);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.folders.push(SharedFolder {
            id,
            path,
            audience,
            hidden,
            scanned: None,
            files: 0,
            bytes: 0,
            away: false,
        });
        self.save()?;
        Ok(id)
    }

    /// Takes a folder out of the library; false if it is not in it. Its files stay where they are.
    ///
    /// # Errors
    /// What the database or the file system says.
    pub fn remove(&mut self, path: &Path) -> Result<bool, LibraryError> {
        let Some(id) = self.folder_at(path).map(|f| f.id) else {
            return Ok(false);
        };
        self.folders.retain(|f| f.id != id);
        self.save()?;
        self.database
            .change(|c| c.remove_below(&id.to_be_bytes()))?;
        self.database.change(|c| c.sweep())?;
        Ok(true)
    }

    /// Looks at every file of the targets, all folders if there are none, and hashes what is new
    /// or changed. `go_on` hears how far it is several times a second and may stop it: what was
    /// hashed is kept.
    ///
    /// # Errors
    /// What the database says. Files that cannot be read are told in the report.
    pub fn scan(
        &mut self,
        targets: &[Target],
        options: &ScanOptions,
        go_on: impl FnMut(&ScanProgress) -> bool,
    ) -> Result<ScanReport, LibraryError> {
        let all = self.folders.iter().map(|f| Target {
            folder: f.id,
            below: String::new(),
        });
        let all: Vec<_> = all.collect();
        let targets = if targets.is_empty() { &all } else { targets };
        let (report, deltas) = scan::scan(&self.database, &self.folders, targets, options, go_on)?;
        let now = seconds();
        for folder in &mut self.folders {
            let mut its = targets.iter().filter(|t| t.folder == folder.id).peekable();
            if its.peek().is_none() {
                continue;
            }
            folder.away = report.away.contains(&folder.path);
            if !folder.away && !report.cancelled && its.any(|t| t.below.is_empty()) {
                folder.scanned = Some(now);
            }
            if let Some((files, bytes)) = deltas.get(&folder.id) {
                folder.files = folder.files.saturating_add_signed(*files);
                folder.bytes = folder.bytes.saturating_add_signed(*bytes);
            }
        }
        self.save()?;
        let gone = report.done.removed > 0;
        if gone && !report.cancelled && targets.len() >= self.folders.len() {
            self.database.change(|c| c.sweep())?;
        }
        Ok(report)
    }

    /// Calls `each` with every file of every folder that is there, by folder and path, until it
    /// returns false. What nobody shall have is among them: see [`SharedFolder::audience`].
    ///
    /// # Errors
    /// What the database says.
    pub fn each(&self, mut each: impl FnMut(&SharedFile<'_>) -> bool) -> Result<(), LibraryError> {
        let folders: BTreeMap<u32, &SharedFolder> =
            self.folders.iter().map(|f| (f.id, f)).collect();
        let view = self.database.view()?;
        let start: &[u8] = &[];
        let all = view
            .files
            .range(start..)
            .map_err(|e| self.database.err(e))?;
        for item in all {
            let (key, record) = item.map_err(|e| self.database.err(e))?;
            let record = FileRecord::decode(record.value());
            let (Some((id, path)), Some(record)) = (read_key(key.value()), record) else {
                continue;
            };
            let Some(folder) = folders.get(&id).filter(|f| !f.away) else {
                continue;
            };
            let path = path.as_str();
            if !each(&SharedFile {
                folder,
                path,
                record,
            }) {
                break;
            }
        }
        Ok(())
    }

    /// The files that somebody may see, as searches find them.
    ///
    /// # Errors
    /// What the database says.
    pub fn local_files(&self, view: &View) -> Result<LocalFiles, LibraryError> {
        let mut files = LocalFiles::default();
        self.each(|file| {
            if view.sees(&file.folder.audience) {
                let local = LocalFile {
                    size: file.record.stamp.len,
                    sha1: file.record.sha1,
                    tiger: file.record.tiger,
                };
                files.add(file.folder.id, file.path, &local);
            }
            true
        })?;
        Ok(files)
    }

    /// What is known of the file at an absolute path, if it still looks as it did.
    ///
    /// # Errors
    /// What the database says.
    pub fn file(&self, path: &Path) -> Result<Option<FileRecord>, LibraryError> {
        let mut best: Option<(&SharedFolder, &str)> = None;
        for folder in &self.folders {
            if let Ok(below) = path.strip_prefix(&folder.path)
                && let Some(below) = below.to_str()
                && best.is_none_or(|(_, shorter)| below.len() < shorter.len())
            {
                best = Some((folder, below));
            }
        }
        let Some((folder, below)) = best else {
            return Ok(None);
        };
        let view = self.database.view()?;
        let found = view.files.get(file_key(folder.id, below).as_slice());
        let found = found.map_err(|e| self.database.err(e))?;
        let record = found.and_then(|r| FileRecord::decode(r.value()));
        let now = Stamp::at(path).ok();
        Ok(record.filter(|r| now.is_some_and(|now| r.stamp.same_at_path(&now))))
    }

    /// The hashes of a file's parts; none if its names say all: it has one piece, and is short.
    ///
    /// # Errors
    /// What the database says.
    pub fn parts(&self, record: &FileRecord) -> Result<Option<FileParts>, LibraryError> {
        self.database.parts(record)
    }

    /// The pieces of a torrent that were kept under `name`, a hash of all that they follow from.
    ///
    /// # Errors
    /// What the database says.
    pub fn pieces(&self, name: &[u8; 20]) -> Result<Option<Vec<[u8; 20]>>, LibraryError> {
        self.database.pieces(name)
    }

    /// Keeps the pieces of a torrent. Of many torrents the last are kept.
    ///
    /// # Errors
    /// What the database says.
    pub fn keep_pieces(&self, name: &[u8; 20], pieces: &[[u8; 20]]) -> Result<(), LibraryError> {
        self.database.keep_pieces(name, pieces, seconds())
    }
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs())
}
