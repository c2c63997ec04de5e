//! The library as the server of files knows it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

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

/// What a library shared when it was read.
struct Held {
    /// How often it was read before: a key of another time names no file of this.
    generation: u32,
    files: Vec<Known>,
    by_sha1: BTreeMap<[u8; 20], usize>,
    by_tiger: BTreeMap<TigerRoot, usize>,
}

/// All files of a library that everybody may have.
pub struct LibraryFiles {
    held: RwLock<Held>,
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
            .field("files", &self.held().files.len())
            .finish_non_exhaustive()
    }
}

impl Held {
    fn read(library: &Library, generation: u32) -> Result<Self, LibraryError> {
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
            generation,
            by_sha1,
            by_tiger,
            files,
        })
    }

    fn offer(&self, n: Option<&usize>) -> Lookup {
        let file = n.and_then(|n| Some((*n, self.files.get(*n)?)));
        file.map_or(Lookup::Unknown, |(n, file)| {
            Lookup::Found(Offer {
                key: u64::from(self.generation) << 32 | n as u64,
                name: file.name.clone(),
                len: file.record.stamp.len,
                sha1: file.record.sha1,
                tiger: Some(file.record.tiger),
                available: None,
            })
        })
    }

    fn by_key(&self, key: u64) -> Option<&Known> {
        let same = key >> 32 == u64::from(self.generation);
        let n = usize::try_from(key & u64::from(u32::MAX)).ok()?;
        self.files.get(n).filter(|_| same)
    }
}

impl LibraryFiles {
    /// Takes up what a library knows now. The library stays open, for its hash trees.
    ///
    /// # Errors
    /// What the database says.
    pub fn new(library: Library) -> Result<Self, LibraryError> {
        let held = Held::read(&library, 0)?;
        Ok(Self::of(held, Trees::Held(Mutex::new(library))))
    }

    /// Takes up what a library knows now, and leaves it to others. `dir` is its folder.
    ///
    /// # Errors
    /// What the database says.
    pub fn of_shared(library: &Library, dir: PathBuf) -> Result<Self, LibraryError> {
        Ok(Self::of(Held::read(library, 0)?, Trees::At(dir)))
    }

    fn of(held: Held, trees: Trees) -> Self {
        Self {
            held: RwLock::new(held),
            trees,
            browsed: OnceLock::new(),
        }
    }

    /// Takes up what a library knows by now instead of what it knew before.
    ///
    /// # Errors
    /// What the database says; nothing has changed then.
    pub fn read_again(&self, library: &Library) -> Result<(), LibraryError> {
        let generation = self.held().generation.wrapping_add(1);
        let held = Held::read(library, generation)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    /// Lets others browse, as files of this node with so many kB/s.
    pub fn let_browse(&self, node: Control, speed: u32) {
        // It is said once, when the node has begun.
        let _ = self.browsed.set((node, speed));
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many files, and how many bytes.
    pub fn size(&self) -> (usize, u64) {
        let held = self.held();
        let bytes = held.files.iter().map(|f| f.record.stamp.len).sum();
        (held.files.len(), bytes)
    }

    /// Hands over every file's URN, length in bytes and name.
    pub fn each(&self, mut each: impl FnMut(Urn, u64, &str)) {
        for f in &self.held().files {
            let urn = Urn::Bitprint(f.record.sha1, f.record.tiger);
            each(urn, f.record.stamp.len, f.name.as_str());
        }
    }

    /// Hands over where every file is, its path below its folder, with `/`, and what is known of it.
    pub fn records(&self, mut each: impl FnMut(&Path, &str, &FileRecord)) {
        for f in &self.held().files {
            each(&f.path, &f.below, &f.record);
        }
    }
}

impl Files for LibraryFiles {
    fn by_urn(&self, urn: &Urn) -> Lookup {
        let held = self.held();
        let found = match (urn.sha1(), urn.tiger()) {
            (Some(sha1), _) => held.offer(held.by_sha1.get(&sha1)),
            (None, Some(tiger)) => held.offer(held.by_tiger.get(&tiger)),
            (None, None) => Lookup::Unknown,
        };
        match (&found, urn.tiger()) {
            (Lookup::Found(offer), Some(tiger)) if offer.tiger != Some(tiger) => Lookup::Unknown,
            _ => found,
        }
    }

    fn by_index(&self, index: u32) -> Lookup {
        self.held().offer(Some(&(index as usize)))
    }

    fn tree(&self, file: &Offer) -> Option<Vec<u8>> {
        let record = self.held().by_key(file.key)?.record;
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
            overlay: None,
            servent: node.servent(),
        };
        let held = self.held();
        let shared = held.files.iter().zip(0..).map(|(file, index)| SharedFile {
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
        let held = self.held();
        let known = held.by_key(key).ok_or(io::ErrorKind::NotFound)?;
        let served = Served::open(&known.path)?;
        let stamp = &known.record.stamp;
        if served.len() != stamp.len || served.modified_ns() != Some(stamp.mtime_ns) {
            let why = "the file has changed since it was hashed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(served)
    }
}
