//! The library as the server of files knows it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use shoal_gnutella::Guid;
use shoal_gnutella::http::files::{Files, Lookup, Offer};
use shoal_gnutella::huge::{TigerRoot, Urn};
use shoal_gnutella::message::hit::{Answerer, Status};
use shoal_gnutella::message::{Kind, Packet};
use shoal_gnutella::shared::SharedFile;
use shoal_store::Served;
use shoal_store::library::{Audience, FileRecord, Library, LibraryError};

use crate::gnutella::Control;

/// Files that who browses is told of, at most.
const MAX_BROWSED: usize = 10_000;

/// Files that are shared and can be opened.
pub trait Openable: Files + Send + Sync {
    /// Opens the file with a key.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, key: u64) -> io::Result<Served>;
}

/// Nothing is shared.
#[derive(Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn by_urn(&self, _: &Urn) -> Lookup {
        Lookup::Unknown
    }

    fn by_index(&self, _: u32) -> Lookup {
        Lookup::Unknown
    }

    fn tree(&self, _: &Offer) -> Option<Vec<u8>> {
        None
    }

    fn browse(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Openable for NoFiles {
    fn open(&self, _: u64) -> io::Result<Served> {
        Err(io::ErrorKind::NotFound.into())
    }
}

struct Known {
    path: PathBuf,
    /// Below its shared folder.
    below: String,
    name: String,
    record: FileRecord,
}

/// All files of a library that everybody may have.
pub struct LibraryFiles {
    files: Vec<Known>,
    by_sha1: BTreeMap<[u8; 20], usize>,
    by_tiger: BTreeMap<TigerRoot, usize>,
    trees: Trees,
    /// The node that browsers are told of; none: nobody may browse.
    browsed: OnceLock<(Control, u32)>,
}

/// Where hash trees are read from.
enum Trees {
    /// A library of this process's own.
    Held(Mutex<Library>),
    /// One that others use too: it is opened for each, and only for as long as that takes.
    At(PathBuf),
}

impl std::fmt::Debug for LibraryFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LibraryFiles")
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

impl LibraryFiles {
    /// Takes up what a library knows now. The library stays open, for its hash trees.
    ///
    /// # Errors
    /// What the database says.
    pub fn new(library: Library) -> Result<Self, LibraryError> {
        let mut files = Self::read(&library)?;
        files.trees = Trees::Held(Mutex::new(library));
        Ok(files)
    }

    /// Takes up what a library knows now, and leaves it to others. `dir` is its folder.
    ///
    /// # Errors
    /// What the database says.
    pub fn of_shared(library: &Library, dir: PathBuf) -> Result<Self, LibraryError> {
        let mut files = Self::read(library)?;
        files.trees = Trees::At(dir);
        Ok(files)
    }

    /// Lets others browse, as files of this node with so many kB/s.
    pub fn let_browse(&self, node: Control, speed: u32) {
        // It is said once, when the node has begun.
        let _ = self.browsed.set((node, speed));
    }

    fn read(library: &Library) -> Result<Self, LibraryError> {
        let mut files = Vec::new();
        library.each(|file| {
            if file.folder.audience == Audience::Everyone {
                let name = file.path.rsplit('/').next().unwrap_or(file.path);
                files.push(Known {
                    path: file.folder.path.join(file.path),
                    below: file.path.to_owned(),
                    name: name.to_owned(),
                    record: file.record,
                });
            }
            true
        })?;
        let numbered = || files.iter().enumerate();
        let by_sha1 = numbered().map(|(n, f)| (f.record.sha1, n)).collect();
        let by_tiger = numbered().map(|(n, f)| (f.record.tiger, n)).collect();
        Ok(Self {
            by_sha1,
            by_tiger,
            files,
            trees: Trees::At(PathBuf::new()),
            browsed: OnceLock::new(),
        })
    }

    /// How many files, and how many bytes.
    pub fn size(&self) -> (usize, u64) {
        let bytes = self.files.iter().map(|f| f.record.stamp.len).sum();
        (self.files.len(), bytes)
    }

    /// Every file's URN, length in bytes and name.
    pub fn each(&self) -> impl Iterator<Item = (Urn, u64, &str)> {
        let files = self.files.iter();
        files.map(|f| {
            let urn = Urn::Bitprint(f.record.sha1, f.record.tiger);
            (urn, f.record.stamp.len, f.name.as_str())
        })
    }

    /// Where every file is, its path below its folder, with `/`, and what is known of it.
    pub fn records(&self) -> impl Iterator<Item = (&Path, &str, &FileRecord)> {
        let files = self.files.iter();
        files.map(|f| (f.path.as_path(), f.below.as_str(), &f.record))
    }

    fn offer(&self, n: Option<&usize>) -> Lookup {
        let file = n.and_then(|n| Some((*n, self.files.get(*n)?)));
        file.map_or(Lookup::Unknown, |(n, file)| {
            Lookup::Found(Offer {
                key: n as u64,
                name: file.name.clone(),
                len: file.record.stamp.len,
                sha1: file.record.sha1,
                tiger: Some(file.record.tiger),
                available: None,
            })
        })
    }
}

impl Files for LibraryFiles {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        let found = match (urn.sha1(), urn.tiger()) {
            (Some(sha1), _) => self.offer(self.by_sha1.get(&sha1)),
            (None, Some(tiger)) => self.offer(self.by_tiger.get(&tiger)),
            (None, None) => Lookup::Unknown,
        };
        match (&found, urn.tiger()) {
            (Lookup::Found(offer), Some(tiger)) if offer.tiger != Some(tiger) => Lookup::Unknown,
            _ => found,
        }
    }

    fn by_index(&self, index: u32) -> Lookup {
        self.offer(Some(&(index as usize)))
    }

    fn tree(&self, file: &Offer) -> Option<Vec<u8>> {
        let record = self.files.get(usize::try_from(file.key).ok()?)?.record;
        let parts = match &self.trees {
            Trees::Held(library) => library.lock().ok()?.parts(&record),
            Trees::At(dir) => Library::open(dir).and_then(|library| library.parts(&record)),
        };
        match parts {
            Ok(Some(parts)) => Some(parts.tree.to_levels()),
            // A short file: its root is its tree.
            Ok(None) => Some(record.tiger.0.to_vec()),
            Err(error) => {
                tracing::warn!(%error, "a hash tree cannot be read");
                None
            }
        }
    }

    fn browse(&self) -> Option<Vec<u8>> {
        let (node, speed) = self.browsed.get()?;
        let snapshot = node.snapshot();
        let answerer = Answerer {
            addr: snapshot.listen?,
            speed: *speed,
            vendor: *b"SHOA",
            status: Status::default(),
            proxies: snapshot.links.iter().filter_map(|l| l.proxy).collect(),
            browsable: true,
            tls: false,
            servent: node.servent(),
        };
        let shared = self.files.iter().zip(0..).map(|(file, index)| SharedFile {
            index,
            size: file.record.stamp.len,
            name: file.name.clone(),
            sha1: Some(file.record.sha1),
            tiger: Some(file.record.tiger),
        });
        let shared: Vec<SharedFile> = shared.take(MAX_BROWSED).collect();
        let mut out = Vec::new();
        answerer.write(&shared, |payload| {
            let packet = Packet::ours(Kind::Hit, Guid::default(), 1, payload);
            out.extend_from_slice(packet.bytes());
        });
        Some(out)
    }
}

impl Openable for LibraryFiles {
    fn open(&self, key: u64) -> io::Result<Served> {
        let known = usize::try_from(key).ok().and_then(|n| self.files.get(n));
        let known = known.ok_or(io::ErrorKind::NotFound)?;
        let served = Served::open(&known.path)?;
        let stamp = &known.record.stamp;
        if served.len() != stamp.len || served.modified_ns() != Some(stamp.mtime_ns) {
            let why = "the file has changed since it was hashed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(served)
    }
}
