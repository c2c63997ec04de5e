//! Input from object stores: `s3://`, `gs://`, `az://` and their like, listed by prefix or glob and
//! read by ranges. Addresses and credentials come from the environment, as their vendors' tools take
//! them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME` and so on).

use super::{ContentSource, InputError, InputFile, hidden};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, parse_url_opts,
};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::runtime::Runtime;
use url::Url;

/// Asked for beyond what a task is known to read, for the rest of its last line; then in steps.
const BEYOND: u64 = 64 << 10;
const STEP: u64 = 4 << 20;
/// Times a broken body is asked for again from where it broke.
const RETRIES: u32 = 4;
/// Environment that is shown to the stores.
const PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// All stores of this process. Nothing is set up before the first is named.
pub(super) struct Stores {
    options: Vec<(String, String)>,
    runtime: OnceLock<Arc<Runtime>>,
    known: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

impl Default for Stores {
    fn default() -> Self {
        let ours = |name: &str| PREFIXES.iter().any(|p| name.starts_with(p));
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            ours(&name).then(|| (name.to_ascii_lowercase(), value))
        });
        Self::with(vars.collect())
    }
}

/// An object, or the beginning of the names of several, within its store.
struct Place {
    /// What stands before the name: `s3://bucket`.
    root: String,
    key: String,
}

impl Place {
    fn of(what: &str) -> Result<Self, InputError> {
        let unknown = || InputError::Scheme(what.to_owned());
        let (scheme, rest) = what.split_once("://").ok_or_else(unknown)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self {
            root: format!("{}://{bucket}", scheme.to_ascii_lowercase()),
            key: key.to_owned(),
        })
    }
}

fn failed(what: &str, why: &dyn std::error::Error) -> InputError {
    InputError::Web {
        url: what.to_owned(),
        why: crate::engine::attempt::chain(why),
    }
}

impl Stores {
    fn with(options: Vec<(String, String)>) -> Self {
        Self {
            options,
            runtime: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    fn runtime(&self, what: &str) -> Result<Arc<Runtime>, InputError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(Arc::clone(runtime));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(|e| failed(what, &e))?;
        Ok(Arc::clone(self.runtime.get_or_init(|| Arc::new(runtime))))
    }

    fn store(&self, root: &str) -> Result<Arc<dyn ObjectStore>, InputError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = known.get(root) {
            return Ok(Arc::clone(store));
        }
        let url = Url::parse(&format!("{root}/")).map_err(|e| failed(root, &e))?;
        // The client is made with it. One that is installed already serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = self.options.iter().cloned();
        let (store, _) = parse_url_opts(&url, options).map_err(|e| failed(root, &e))?;
        let store: Arc<dyn ObjectStore> = Arc::from(store);
        known.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Objects whose names begin with these whole components, in order of their names.
    fn list(&self, what: &str, root: &str, prefix: &str) -> Result<Vec<ObjectMeta>, InputError> {
        let store = self.store(root)?;
        let prefix = path(what, prefix.trim_end_matches('/'))?;
        let all = store.list(Some(&prefix)).try_collect::<Vec<_>>();
        let mut all = self
            .runtime(what)?
            .block_on(all)
            .map_err(|e| failed(what, &e))?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(all)
    }
}

fn path(what: &str, key: &str) -> Result<Path, InputError> {
    Path::parse(key).map_err(|e| failed(what, &e))
}

/// Whether a name is to be read that matches a pattern, or lies beneath a folder that does.
fn matches(pattern: &glob::Pattern, depth: usize, name: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let mut parts: Vec<&str> = name.split('/').collect();
    let below = parts.split_off(depth.min(parts.len()));
    let last = parts.last().is_some_and(|part| hidden(part));
    !last
        && !below.iter().any(|part| hidden(part))
        && pattern.matches_with(&parts.join("/"), options)
}

impl ContentSource for Stores {
    fn takes(&self, what: &str) -> bool {
        super::is_store(what)
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        let Place { root, key } = Place::of(what)?;
        let found = if let Some(at) = key.find(['*', '?', '[']) {
            let pattern = glob::Pattern::new(&key).map_err(|source| InputError::Glob {
                what: what.to_owned(),
                source,
            })?;
            let base = key.get(..at).and_then(|k| k.rfind('/')).unwrap_or(0);
            let mut all = self.list(what, &root, key.get(..base).unwrap_or_default())?;
            let depth = key.split('/').count();
            all.retain(|object| matches(&pattern, depth, object.location.as_ref()));
            all
        } else {
            let store = self.store(&root)?;
            let one = match key.is_empty() || key.ends_with('/') {
                true => None,
                false => {
                    let location = path(what, &key)?;
                    match self.runtime(what)?.block_on(store.head(&location)) {
                        Ok(object) => Some(object),
                        Err(Error::NotFound { .. }) => None,
                        Err(e) => return Err(failed(what, &e)),
                    }
                }
            };
            match one {
                Some(object) => vec![object],
                None => {
                    let mut all = self.list(what, &root, &key)?;
                    if all.is_empty() {
                        return Err(InputError::Missing(what.to_owned()));
                    }
                    let depth = key.trim_end_matches('/').len();
                    all.retain(|object| {
                        let below = object.location.as_ref().get(depth..).unwrap_or_default();
                        !below.split('/').any(hidden)
                    });
                    all
                }
            }
        };
        if found.is_empty() {
            return Err(InputError::Empty(what.to_owned()));
        }
        let file = |object: ObjectMeta| InputFile {
            name: format!("{root}/{}", object.location),
            bytes: object.size,
            splittable: true,
            unit: 0,
            lead: 0,
            holders: Vec::new(),
        };
        Ok(found.into_iter().map(file).collect())
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        self.body(name, from, from.saturating_add(bytes), bytes)
    }

    fn open_about(
        &self,
        name: &str,
        from: u64,
        about: u64,
    ) -> Result<Box<dyn Read + Send>, InputError> {
        self.body(name, from, u64::MAX, about.saturating_add(BEYOND))
    }
}

impl Stores {
    fn body(
        &self,
        name: &str,
        at: u64,
        end: u64,
        step: u64,
    ) -> Result<Box<dyn Read + Send>, InputError> {
        let Place { root, key } = Place::of(name)?;
        let mut body = Body {
            store: self.store(&root)?,
            runtime: self.runtime(name)?,
            location: path(name, &key)?,
            at,
            end,
            step,
            left: RETRIES,
            stream: None,
            ready: bytes::Bytes::new(),
        };
        match body.ask() {
            Ok(()) => Ok(Box::new(body)),
            Err(Error::NotFound { .. }) => Err(InputError::Missing(name.to_owned())),
            Err(e) => Err(failed(name, &e)),
        }
    }
}

/// An object from a byte on, in one request as far as its reader is known to go, then in steps.
struct Body {
    store: Arc<dyn ObjectStore>,
    runtime: Arc<Runtime>,
    location: Path,
    /// The next byte that the store is to send.
    at: u64,
    end: u64,
    step: u64,
    left: u32,
    stream: Option<BoxStream<'static, object_store::Result<bytes::Bytes>>>,
    ready: bytes::Bytes,
}

impl Body {
    fn ask(&mut self) -> object_store::Result<()> {
        let to = self.at.saturating_add(self.step).min(self.end);
        if self.at >= to {
            return Ok(());
        }
        let range = Some(GetRange::Bounded(self.at..to));
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let asked = self.store.get_opts(&self.location, options);
        let answer = self.runtime.block_on(asked)?;
        self.end = self.end.min(answer.meta.size);
        self.step = STEP;
        self.stream = Some(answer.into_stream());
        Ok(())
    }

    /// Goes on where the store left off.
    fn again(&mut self, why: Error) -> io::Result<()> {
        self.stream = None;
        if self.left == 0 {
            return Err(io::Error::other(why));
        }
        self.left -= 1;
        self.ask().map_err(io::Error::other)
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.ready.is_empty() {
            let Some(stream) = &mut self.stream else {
                if self.at >= self.end {
                    return Ok(0);
                }
                let before = self.at;
                self.ask().map_err(io::Error::other)?;
                if self.stream.is_none() && self.at == before {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            match self.runtime.block_on(stream.next()) {
                Some(Ok(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.ready = bytes;
                }
                Some(Err(e)) => self.again(e)?,
                None => self.stream = None,
            }
        }
        let n = self.ready.len().min(buf.len());
        let part = self.ready.split_to(n);
        if let Some(to) = buf.get_mut(..n) {
            to.copy_from_slice(&part);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
