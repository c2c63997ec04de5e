//! Jobs that read content of the swarm: magnet links and .torrent files as input.
//!
//! A file of a torrent is named `magnet:?xt=urn:btih:HASH#PATH` wherever it goes, so that all
//! workers mean the same by it, whatever trackers and peers each was told.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_base::InfoHash;
use shoal_content::Magnet;
use shoal_jobs::input::{ContentSource, InputError, InputFile};
use shoal_mapreduce::split::Holding;
use shoal_node::swarm_files::{SwarmError, SwarmFiles};
use shoal_node::{AddTorrent, DhtSettings, Session, SessionConfig, What};

use crate::cli::ContentArgs;
use crate::failure::{Failure, Outcome};
use crate::source::{self, Source};
use crate::{dht, state};

/// How long metadata, and each piece, may take before reading fails; a task that fails is tried
/// again, here or elsewhere.
const PATIENCE: Duration = Duration::from_secs(120);

/// How file names of a torrent begin, up to its hash.
const PREFIX: &str = "magnet:?xt=urn:btih:";

/// The torrents that this process reads and serves. The node starts when the first is named.
pub(crate) struct Content {
    dir: PathBuf,
    state: PathBuf,
    config: SessionConfig,
    node: Mutex<Option<Arc<SwarmFiles>>>,
    /// What was named before, as it was written.
    known: Mutex<BTreeSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Content {
    /// As the flags say.
    pub(crate) fn new(args: &ContentArgs) -> Self {
        let base = state::base(args.state_dir.as_deref(), Path::new("."));
        let dir = args.content_dir.clone();
        let dir = dir.unwrap_or_else(|| base.join("content"));
        let state = state::folder(&base, [(InfoHash([0; 20]), dir.as_path())]);
        let config = SessionConfig {
            listen: Some(args.content_listen),
            state_dir: state.clone(),
            lsd: !args.no_lsd,
            dht: (!args.no_dht).then(|| DhtSettings {
                bootstrap: dht::bootstrap(&args.dht_bootstrap, args.content_listen),
                contacts: Some(base.join("dht-contacts")),
            }),
            ..SessionConfig::default()
        };
        Self {
            dir,
            state,
            config,
            node: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The node, started if it is not running yet.
    fn node(&self) -> Result<Arc<SwarmFiles>, String> {
        let mut node = lock(&self.node);
        if let Some(node) = &*node {
            return Ok(node.clone());
        }
        std::fs::create_dir_all(&self.dir)
            .map_err(|e| format!("cannot make {}: {e}", self.dir.display()))?;
        let session = Session::start(self.config.clone()).map_err(|e| {
            let why = Failure::failed("cannot start the node").because(&e);
            let why: Vec<_> = why.because.into_iter().collect();
            format!(
                "cannot start the node that fetches it: {} (its state is in {}; another process may use it: give --content-dir)",
                why.join(": "),
                self.state.display()
            )
        })?;
        let started = SwarmFiles::new(session, PATIENCE).map_err(|e| e.to_string())?;
        Ok(node.insert(Arc::new(started)).clone())
    }

    /// Where peers reach the node, if it runs.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        lock(&self.node).as_ref().and_then(|n| n.local_addr())
    }

    /// Payload bytes received and sent; none if the node never started.
    pub(crate) fn traffic(&self) -> Option<(u64, u64)> {
        let node = lock(&self.node).clone()?;
        let all = node
            .hashes()
            .into_iter()
            .filter_map(|hash| node.stats(hash));
        Some(all.fold((0, 0), |(down, up), s| {
            (down + s.downloaded, up + s.uploaded)
        }))
    }

    fn add(&self, what: &str) -> Result<(Arc<SwarmFiles>, InfoHash), InputError> {
        let failed = |why| InputError::Web {
            url: what.to_owned(),
            why,
        };
        let source = source::resolve(what).map_err(|f| failed(text(f)))?;
        let what = match source {
            Source::Metainfo(metainfo) => What::Metainfo(metainfo),
            Source::Magnet(magnet) => What::Magnet(magnet),
        };
        let node = self.node().map_err(failed)?;
        let added = node.add(AddTorrent::new(what, self.dir.clone()));
        let hash = added.map_err(|e| failed(with_causes(&e)))?;
        Ok((node, hash))
    }

    /// Takes part in the swarms of `what`: serves what is on disk here, and tells which files of
    /// which torrents that is.
    pub(crate) fn seed(&self, what: &[String]) -> Outcome<Vec<Holding>> {
        let mut holdings = Vec::new();
        for what in what {
            let failed = |e: &dyn std::error::Error| {
                Failure::failed(format!("cannot seed {what}")).reason(with_causes(e))
            };
            let (node, hash) = self.add(what).map_err(|e| failed(&e))?;
            let files = node.files(hash).map_err(|e| failed(&e))?;
            holdings.extend(files.into_iter().map(|file| Holding {
                file: name_of(hash, &file.path),
                ranges: file.held,
            }));
        }
        holdings.retain(|h| !h.ranges.is_empty());
        Ok(holdings)
    }

    /// Writes inputs so that workers elsewhere can follow them: a .torrent file becomes a magnet
    /// link with its trackers.
    pub(crate) fn portable(&self, inputs: &mut [String]) -> Outcome {
        for input in inputs {
            if !self.takes(input) || input.starts_with("magnet:") {
                continue;
            }
            if let Source::Metainfo(metainfo) = source::resolve(input)? {
                let mut magnet = metainfo.magnet();
                let here = self.add(input);
                here.map_err(|e| Failure::failed("cannot read the input").reason(with_causes(&e)))?;
                // Who was given the whole file can hand out its metadata.
                magnet.peers.extend(self.addr().map(|a| a.to_string()));
                *input = magnet.to_string();
            }
        }
        Ok(())
    }
}

impl ContentSource for Content {
    fn takes(&self, what: &str) -> bool {
        let lower = what.get(..7).map(str::to_ascii_lowercase);
        lower.as_deref() == Some("magnet:")
            || Path::new(what)
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("torrent"))
    }

    fn expand(&self, what: &str) -> Result<Vec<InputFile>, InputError> {
        let (node, hash) = self.add(what)?;
        lock(&self.known).insert(what.to_owned());
        let files = node.files(hash).map_err(|e| swarm_failed(what, &e))?;
        let only = what.parse::<Magnet>().ok().and_then(|m| m.select_only);
        let files: Vec<_> = (0..)
            .zip(files)
            .filter(|(n, _)| only.as_ref().is_none_or(|only| only.contains(*n)))
            .map(|(_, file)| file)
            .filter(|file| {
                !file
                    .path
                    .split('/')
                    .any(|part| part.starts_with(['_', '.']))
            })
            .map(|file| InputFile {
                name: name_of(hash, &file.path),
                bytes: file.bytes,
                splittable: true,
                unit: u64::from(file.piece_bytes),
                lead: u64::from(file.first_piece),
                holders: Vec::new(),
            })
            .collect();
        if files.is_empty() {
            return Err(InputError::Empty(what.to_owned()));
        }
        Ok(files)
    }

    fn open(&self, name: &str, from: u64, bytes: u64) -> Result<Box<dyn Read + Send>, InputError> {
        let reader = self.open_about(name, from, bytes)?;
        Ok(Box::new(reader.take(bytes)))
    }

    fn open_about(
        &self,
        name: &str,
        from: u64,
        about: u64,
    ) -> Result<Box<dyn Read + Send>, InputError> {
        let (link, path) = name
            .split_once('#')
            .ok_or_else(|| InputError::Scheme(name.to_owned()))?;
        let node = lock(&self.node).clone();
        let hash: Option<InfoHash> = link.strip_prefix(PREFIX).and_then(|h| h.parse().ok());
        let known = node.zip(hash).filter(|(n, h)| n.hashes().contains(h));
        let (node, hash) = match known {
            Some(known) => known,
            // Nobody told of trackers or peers: the DHT and the local network may know some.
            None => self.add(link)?,
        };
        let reader = node.open(hash, path, from, about);
        let reader = reader.map_err(|e| swarm_failed(name, &e))?;
        Ok(Box::new(reader))
    }

    fn learn(&self, input: &str) {
        if self.takes(input) && lock(&self.known).insert(input.to_owned()) {
            // If it is of no use, opening a file of it says why.
            let _ = self.add(input);
        }
    }
}

/// What a file of a torrent is called in splits and holdings.
fn name_of(hash: InfoHash, path: &str) -> String {
    format!("{PREFIX}{hash}#{path}")
}

fn swarm_failed(what: &str, error: &SwarmError) -> InputError {
    match error {
        SwarmError::NoFile { .. } => InputError::Missing(what.to_owned()),
        _ => InputError::Web {
            url: what.to_owned(),
            why: with_causes(error),
        },
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A failure in one line.
fn text(failure: Failure) -> String {
    let mut text = failure.what;
    for why in failure.because {
        text.push_str(": ");
        text.push_str(&why);
    }
    text
}
