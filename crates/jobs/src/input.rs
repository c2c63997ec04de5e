//! What a job reads: files, folders, globs and URLs as the user wrote them become a list of
//! [`InputFile`]s, of which any range can be opened.
//!
//! Names that begin with `_` or `.` are skipped in folders and globs, as Hadoop does. What ends in
//! `.gz`, `.zst`, `.bz2` or `.lz4` is unpacked while it is read and cannot be split.

mod compressed;
mod local;
#[cfg(feature = "object-store")]
mod store;
mod web;

pub use compressed::Compression;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where content of one kind comes from: the node gives one for magnet links and `.torrent` files.
pub trait ContentSource: Send + Sync {
    /// Whether `what`, as the user wrote it, is of this kind.
    fn takes(&self, what: &str) -> bool;

    /// The files it stands for, in the order in which they are read.
    ///
    /// # Errors
    /// When it names nothing, or cannot be reached.
    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError>;

    /// Opens the file called `name` (a name that `expand` gave) from byte `from`, up to `bytes`
    /// long. Only what is read needs to be fetched.
    ///
    /// # Errors
    /// When it cannot be opened or reached.
    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError>;

    /// The same for a reader that will read about `about` bytes and may go on past them: no more
    /// than those is worth fetching ahead.
    ///
    /// # Errors
    /// As for `open`.
    fn open_about(
        &self,
        name: &str,
        from: u64,
        _about: u64,
    ) -> Result<Box<dyn Read + Send>, InputError> {
        self.open(name, from, u64::MAX)
    }

    /// An input of a job that is about to be read here, as its submitter wrote it: it may say where
    /// the files that `open` is asked for come from. Told before the first is opened, and again.
    fn learn(&self, _input: &str) {}
}

/// One file of a job's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// A path or URL by which every worker can open it.
    pub name: String,
    /// Its length as stored, in bytes.
    pub bytes: u64,
    /// Whether a reader can begin in the middle.
    pub splittable: bool,
    /// Cuts are best made where pieces of this many bytes begin (a torrent's); 0 for anywhere.
    pub unit: u64,
    /// Where the first piece begins that does not begin before the file, in bytes from its start.
    pub lead: u64,
    /// Who holds which range, as addresses of workers; empty when it does not matter.
    pub holders: Vec<Holder>,
}

/// A worker that has a range of an input file at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The worker's name.
    pub worker: String,
    /// First byte.
    pub from: u64,
    /// Past the last byte.
    pub to: u64,
}

/// Why an input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing there.
    #[error("input {0} does not exist")]
    Missing(String),
    /// A glob without a match, or a folder of nothing but skipped names.
    #[error("input {0} names no files")]
    Empty(String),
    /// Not a pattern.
    #[error("input {what} is not a pattern")]
    Glob {
        /// As written.
        what: String,
        /// Where it goes wrong.
        #[source]
        source: glob::PatternError,
    },
    /// The system said no.
    #[error("cannot read {name}")]
    Io {
        /// Which file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A server said no, or could not be reached.
    #[error("cannot fetch {url}: {why}")]
    Web {
        /// What was asked for.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// Object stores are not built in.
    #[error("no way to read {0}: build shoal with --features object-store")]
    NoStores(String),
    /// No source takes it.
    #[error("no way to read {0} here")]
    Scheme(String),
    /// A name that cannot be told to others.
    #[error("the name {0} is not text (UTF-8)")]
    Name(String),
}

impl InputError {
    fn io(name: &str, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            return Self::Missing(name.to_owned());
        }
        Self::Io {
            name: name.to_owned(),
            source,
        }
    }
}

/// All sources of this process.
#[derive(Clone)]
pub struct Inputs {
    sources: Vec<Arc<dyn ContentSource>>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("sources", &self.sources.len())
            .finish()
    }
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            sources: vec![
                #[cfg(feature = "object-store")]
                Arc::new(store::Stores::default()),
                Arc::new(web::Web::default()),
                Arc::new(local::Local),
            ],
        }
    }
}

impl Inputs {
    /// Puts a source before all others.
    #[must_use]
    pub fn with(mut self, source: Arc<dyn ContentSource>) -> Self {
        self.sources.insert(0, source);
        self
    }

    pub(crate) fn source(&self, what: &str) -> Result<&dyn ContentSource, InputError> {
        let found = self.sources.iter().find(|s| s.takes(what));
        found.map(AsRef::as_ref).ok_or_else(|| {
            if is_store(what) {
                InputError::NoStores(what.to_owned())
            } else {
                InputError::Scheme(what.to_owned())
            }
        })
    }

    /// A job with these inputs is about to be read.
    pub fn learn(&self, inputs: &[String]) {
        for source in &self.sources {
            for input in inputs {
                source.learn(input);
            }
        }
    }

    /// The files that `inputs` stand for, in the order written, folders and globs sorted by name.
    ///
    /// # Errors
    /// For the first input that names nothing or cannot be reached.
    pub fn expand(&self, inputs: &[String]) -> Result<Vec<InputFile>, InputError> {
        let mut files = Vec::new();
        for what in inputs {
            files.append(&mut self.source(what)?.expand(what)?);
        }
        for file in &mut files {
            if Compression::of(&file.name) != Compression::None {
                file.splittable = false;
            }
        }
        Ok(files)
    }

    /// Opens a file at a byte, to read about `about` bytes and maybe more, unpacked if its name says
    /// that it is packed. Of a packed file all is read, whatever `from` and `about` say. Bytes that
    /// are read, as stored, are added to `read`.
    ///
    /// # Errors
    /// When it cannot be opened; later ones come out of the reader.
    pub fn open(
        &self,
        name: &str,
        from: u64,
        about: u64,
        read: &Arc<AtomicU64>,
    ) -> Result<Box<dyn Read + Send>, InputError> {
        let source = self.source(name)?;
        let compression = Compression::of(name);
        let (from, about) = match compression {
            Compression::None => (from, about),
            _ => (0, u64::MAX),
        };
        let stored = Box::new(Counted {
            inner: source.open_about(name, from, about)?,
            read: Arc::clone(read),
        });
        compression
            .unpack(stored)
            .map_err(|e| InputError::io(name, e))
    }
}

/// How names of objects in stores begin.
const STORES: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"];

/// Whether an input lies in an object store.
fn is_store(what: &str) -> bool {
    let scheme = what.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|s| STORES.iter().any(|known| s.eq_ignore_ascii_case(known)))
}

/// Counts what passes.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The part of a name or path by which it is skipped: Hadoop's rule for hidden files.
fn hidden(name: &str) -> bool {
    name.starts_with(['_', '.'])
}

#[cfg(all(test, not(feature = "object-store")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_object_stores_says_so() {
        let what = ["S3://bucket/key".to_owned()];
        let error = Inputs::default().expand(&what).expect_err("no stores");
        assert!(error.to_string().contains("--features object-store"));
        let what = ["ftp://host/file".to_owned()];
        let error = Inputs::default().expand(&what).expect_err("no such thing");
        assert!(matches!(error, InputError::Scheme(_)), "{error}");
    }
}
