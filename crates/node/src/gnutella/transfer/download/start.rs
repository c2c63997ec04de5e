//! Before the first block: what the file is, whether there is a hash tree, what is there already.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_base::{Bitfield, InfoHash, Time};
use shoal_content::path::Naming;
use shoal_content::{SafePath, TigerRoot, TigerTree};
use shoal_gnutella::http::client::Told;
use shoal_store::{
    DiskPool, Job, OpenOptions, Registration, ResumeId, ResumeState, TorrentFiles, TorrentSettings,
};

use super::blocks::{KEY, Transfer, prepare};
use super::run::{Fetch, Who};
use super::{DownloadEvent, Ended};
use crate::gnutella::transfer::content::Content;
use crate::gnutella::transfer::source::Order;

/// How long the other hosts have to say where a tree is, once the first has answered.
const TREE_PATIENCE: Duration = Duration::from_secs(3);
/// Threads that write and hash.
const DISK_THREADS: usize = 2;
/// Numbers that are tried for a name that is taken.
const MAX_NUMBER: u64 = 10_000;

/// What is heard before the transfer begins.
#[derive(Debug, Default)]
pub(super) struct Asking {
    len: Option<u64>,
    name: Option<String>,
    since: Option<Time>,
    /// Trees that hosts offer: whose, where, and of which root.
    offers: Vec<(u32, String, TigerRoot)>,
    /// The host that was asked for its tree.
    asked: Option<(u32, TigerRoot)>,
    tried: BTreeSet<SocketAddr>,
    /// Whose tree was taken.
    pub(super) teller: Option<SocketAddr>,
}

impl Asking {
    /// Of a file of that length, if it is known.
    pub(super) fn of(len: Option<u64>) -> Self {
        Self {
            len,
            ..Self::default()
        }
    }
}

impl Fetch {
    /// The file's length, if it is known.
    pub(super) fn len(&self) -> Option<u64> {
        self.transfer
            .as_ref()
            .map(|t| t.content.len)
            .or(self.asking.len)
    }

    fn hash(&self) -> InfoHash {
        // The database names what it keeps by twenty bytes of any kind.
        InfoHash(self.settings.urn.key())
    }

    /// Goes on where an earlier run ended, if there was one.
    pub(super) fn take_up(&mut self) {
        let state = match self.resume.load(&self.hash()) {
            Ok(state) => state,
            Err(error) => return self.end(Ended::System(error.to_string())),
        };
        let content = state
            .as_ref()
            .and_then(|s| Content::decode(s.info.as_deref()?));
        if let Some(content) = content {
            self.begin(content, state, true);
        }
    }

    /// A host is connected: it is asked what it knows, or for blocks.
    pub(super) fn begin_with(&mut self, key: u32, now: Time) {
        if self.transfer.is_some() {
            self.join(key, now);
        } else if let Some(live) = self.live.get(&key) {
            live.source.order(Order::Probe);
        }
    }

    /// What a host said of the file.
    pub(super) fn hear(&mut self, key: u32, addr: SocketAddr, told: Told, now: Time) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        live.probe_at = now + super::run::PROBE_EVERY;
        if live.available != told.available {
            live.available = told.available;
            self.update_pieces(key, now);
        }
        if self.transfer.is_some() {
            return;
        }
        if let Some(len) = told.len {
            let known = *self.asking.len.get_or_insert(len);
            self.asking.since.get_or_insert(now);
            if known != len {
                let why = format!("the file has {len} bytes there, and {known} elsewhere");
                self.live.remove(&key);
                self.sources.dead(&addr);
                return self.say(DownloadEvent::Failed { addr, why });
            }
        }
        if let Some(name) = told.name {
            self.asking.name.get_or_insert(name);
        }
        if let Some((uri, root)) = told.tree {
            let wanted = self.settings.urn.tiger().is_none_or(|tiger| tiger == root);
            if !wanted && self.settings.urn.sha1().is_none() {
                let why = "it has another file under that name".to_owned();
                self.live.remove(&key);
                self.sources.dead(&addr);
                return self.say(DownloadEvent::Failed { addr, why });
            }
            if wanted && self.asking.tried.insert(addr) {
                self.asking.offers.push((key, uri, root));
            }
        }
    }

    /// Begins as soon as enough is known.
    pub(super) fn settle(&mut self, now: Time) {
        let (None, Some(len)) = (&self.transfer, self.asking.len) else {
            return;
        };
        if let Some((key, _)) = self.asking.asked {
            if self.live.contains_key(&key) {
                return;
            }
            self.asking.asked = None;
        }
        while let Some((key, uri, root)) = self.asking.offers.pop() {
            if let Some(live) = self.live.get(&key) {
                live.source.order(Order::Tree(uri));
                self.asking.asked = Some((key, root));
                return;
            }
        }
        // A length that was known from the start begins to count with the first look.
        let since = now.since(*self.asking.since.get_or_insert(now));
        if since < TREE_PATIENCE && self.live.values().any(|live| !live.heard) {
            return;
        }
        self.begin_new(len, None);
    }

    /// A hash tree came.
    pub(super) fn on_tree(&mut self, key: u32, levels: &[u8]) {
        let Some((asked, root)) = self.asking.asked.take_if(|(asked, _)| *asked == key) else {
            return;
        };
        let (Some(len), None) = (self.asking.len, &self.transfer) else {
            return;
        };
        match TigerTree::from_levels(len, root, levels) {
            Ok(tree) => {
                self.asking.teller = self.live.get(&asked).and_then(|live| match live.who {
                    Who::Host(addr) => Some(addr),
                    Who::Other(_) => None,
                });
                self.begin_new(len, Some((tree, self.settings.urn.tiger().is_some())));
            }
            Err(error) => {
                let who = self.live.get(&key).map(|live| live.who);
                tracing::info!(?who, %error, "a hash tree that does not fit");
            }
        }
    }

    /// A host has no tree after all.
    pub(super) fn on_no_tree(&mut self, key: u32) {
        self.asking.asked.take_if(|(asked, _)| *asked == key);
    }

    fn begin_new(&mut self, len: u64, tree: Option<(TigerTree, bool)>) {
        let urn = self.settings.urn.shortest().to_string();
        let named = self
            .settings
            .name
            .as_deref()
            .or(self.asking.name.as_deref());
        // The last step of what a stranger calls it; by its hash if that says nothing.
        let named = named.and_then(|name| name.rsplit(['/', '\\']).next());
        let named = named.filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| urn.rsplit(':').next().unwrap_or_default());
        match SafePath::sanitise([name.as_bytes()], Naming::Download) {
            Ok(name) => self.begin(Content::new(len, name, tree), None, false),
            Err(error) => self.end(Ended::System(error.to_string())),
        }
    }

    /// Opens the file and begins. `resumed`: what is remembered of it. `own`: a file of the name is
    /// ours.
    pub(super) fn begin(&mut self, content: Content, resumed: Option<ResumeState>, own: bool) {
        if let Err(why) = self.try_begin(content, resumed, own) {
            self.end(Ended::System(why));
        }
    }

    fn try_begin(
        &mut self,
        mut content: Content,
        resumed: Option<ResumeState>,
        own: bool,
    ) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let plain = content.name.clone();
        let mut number = 0;
        let files = loop {
            let layout = Arc::new(content.layout().map_err(|e| text(&e))?);
            let options = OpenOptions::default();
            let files = TorrentFiles::open(&self.settings.dir, layout, options);
            let files = files.map_err(|e| text(&e))?;
            if own || !files.has_data() {
                break Arc::new(files);
            }
            // Somebody else's file: it stays.
            number += 1;
            if number > MAX_NUMBER {
                return Err(format!("too many files are called {plain}"));
            }
            content.name = plain.numbered(number);
        };
        let geometry = files.layout().geometry();
        let (mut have, mut partial) = (Bitfield::new(geometry.pieces()), Vec::new());
        let mut recheck = Bitfield::new(geometry.pieces());
        let id = match resumed {
            Some(mut state) if state.have.len() == geometry.pieces() => {
                self.resume.reconcile(&mut state, &files);
                for piece in &state.recheck {
                    recheck.set(*piece);
                }
                (have, partial) = (state.have, state.partial);
                state.id
            }
            _ => self.remember(&content, geometry)?,
        };
        let registration = Registration {
            files: Arc::clone(&files),
            hashes: Arc::new(content.hashes(geometry)),
            have: have.clone(),
            partial: partial.clone(),
            resume: Some(id),
        };
        let wake = self.wake.0.clone();
        let disk = self.disk.get_or_insert_with(|| {
            let notify = Arc::new(move || {
                // Woken already if it is full.
                let _ = wake.try_send(());
            });
            DiskPool::new(DISK_THREADS, notify, Arc::clone(&self.resume))
        });
        disk.register(KEY, registration).map_err(|e| text(&e))?;
        disk.submit(prepare());
        // Without a tree nothing can be checked: what is in doubt is fetched again.
        let checking = recheck.count() > 0 && content.tree.is_some();
        if checking {
            disk.submit(Job::Check {
                torrent: KEY,
                pieces: Some(recheck),
            });
        }
        self.say(DownloadEvent::Known {
            name: content.name.as_str().to_owned(),
            len: content.len,
            pieces: geometry.pieces(),
            piece_len: geometry.piece_len(),
            tiger: content.tree.as_ref().map(|(tree, _)| tree.root()),
        });
        // Others ask for a file by its SHA-1.
        if let (Some(partial), Some(sha1)) = (&self.settings.partial, self.settings.urn.sha1()) {
            // What is in doubt counts when it was checked.
            let checked = if checking {
                Bitfield::new(geometry.pieces())
            } else {
                have.clone()
            };
            let path = files.root().join(content.name.as_path());
            let levels = content.tree.as_ref().map(|(tree, _)| tree.to_levels());
            let name = content.name.as_str();
            partial.begin((path, name), sha1, levels, geometry, &checked);
        }
        let rng = self.rng.fork();
        self.transfer = Some(Transfer::new(
            content, files, id, have, &partial, checking, rng,
        ));
        let now = self.now();
        let keys: Vec<u32> = self.live.keys().copied().collect();
        for key in keys {
            self.join(key, now);
        }
        Ok(())
    }

    fn remember(
        &self,
        content: &Content,
        geometry: shoal_content::Geometry,
    ) -> Result<ResumeId, String> {
        let settings = TorrentSettings {
            name: content.name.as_str().to_owned(),
            dir: self.settings.dir.clone(),
            ..TorrentSettings::default()
        };
        let raw = content.encode();
        let info = Some((raw.as_slice(), geometry));
        let added = self.resume.add(&self.hash(), settings, info);
        added.map_err(|e| e.to_string())
    }
}
