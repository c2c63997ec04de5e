//! Files of a supernode's children, for a Gnutella network that it is in, too: its answers name the
//! child that has the file, which serves it by the same HTTP.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use shoal_content::keywords::Terms;
use shoal_gnutella::huge::{Sha1, TigerRoot, Urn};
use shoal_gnutella::shared::{Shared, SharedFile};
use shoal_gnutella::words::has_all;
use shoal_supernode::node::OfChildren;
use shoal_supernode::wire::File;

use super::driver::Input;
use crate::gnutella::Shelf;

/// How long the supernode may take to answer: the node of Gnutella waits meanwhile.
const PATIENCE: Duration = Duration::from_millis(50);
/// Questions a second: more of a flood are answered for the node itself only.
const PER_SECOND: u32 = 100;

/// A node's own files, and its children's.
pub struct ChildrenShelf {
    own: Shelf,
    inputs: Sender<Input>,
    version: Arc<AtomicU64>,
    /// The second that it is, and the questions in it.
    asked: (Instant, u32),
}

impl std::fmt::Debug for ChildrenShelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildrenShelf").finish_non_exhaustive()
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl ChildrenShelf {
    pub(super) fn new(own: Shelf, inputs: Sender<Input>, version: Arc<AtomicU64>) -> Self {
        let asked = (Instant::now(), 0);
        Self {
            own,
            inputs,
            version,
            asked,
        }
    }

    fn ask(&mut self, wanted: OfChildren, most: usize) -> Vec<(File, SocketAddr)> {
        if self.asked.0.elapsed() >= Duration::from_secs(1) {
            self.asked = (Instant::now(), 0);
        }
        self.asked.1 += 1;
        if self.asked.1 > PER_SECOND {
            return Vec::new();
        }
        let (answer, got) = bounded(1);
        let question = Input::OfChildren(wanted, most, answer);
        match self.inputs.send_timeout(question, PATIENCE) {
            Ok(()) => got.recv_timeout(PATIENCE).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

impl Shared for ChildrenShelf {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        self.own.search(words, most, out);
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        self.own.find(urn)
    }

    fn elsewhere(
        &mut self,
        words: &[String],
        urns: &[Urn],
        most: usize,
    ) -> Vec<(SocketAddrV4, SharedFile)> {
        let mut found = Vec::new();
        for sha1 in urns.iter().filter_map(Urn::sha1) {
            found.extend(self.ask(OfChildren::Sha1(sha1), most));
        }
        if urns.is_empty() {
            let mut terms = Terms::default();
            words.iter().for_each(|word| terms.require(word));
            found = self.ask(OfChildren::Words(terms), most);
        }
        let file = |(file, at): (File, SocketAddr)| {
            let SocketAddr::V4(at) = at else {
                return None;
            };
            let name = name(&file.path);
            // Others see the name alone: what only folders match they would take for a lie.
            let fits = !urns.is_empty() || has_all(name, words);
            let shared = SharedFile {
                index: 0,
                size: file.size,
                name: name.to_owned(),
                sha1: Some(file.sha1),
                tiger: file.tiger.map(TigerRoot),
            };
            fits.then_some((at, shared))
        };
        found.into_iter().filter_map(file).collect()
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.own.names(each);
        let (answer, got) = bounded(1);
        let sent = self
            .inputs
            .send_timeout(Input::ChildrensNames(answer), PATIENCE);
        // A busy supernode tells them when they change again.
        let names = sent
            .ok()
            .and_then(|()| got.recv_timeout(PATIENCE * 20).ok());
        for (path, sha1) in names.unwrap_or_default() {
            each(name(&path), Some(sha1));
        }
    }

    fn size(&self) -> (u32, u32) {
        self.own.size()
    }

    fn version(&self) -> u64 {
        let children = self.version.load(Ordering::Relaxed);
        self.own.version().wrapping_add(children)
    }
}
