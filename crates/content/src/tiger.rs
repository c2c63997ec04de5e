//! The Tiger tree hash (TTH): one root that names a file, and below it hashes of its parts.
//!
//! Leaves are 1024 bytes hashed behind a zero byte, nodes two hashes behind a one; a node without
//! a sibling moves up as it is (THEX, "Tree Hash EXchange format", draft of March 2003, §2). Gnutella
//! and Direct Connect name files by the root, so that a part of a megabyte can be checked as soon
//! as it is there, whoever sent it.
//!
//! [`TreeBuilder`] takes a file's bytes as they come and keeps at most [`MAX_LEVELS`] levels;
//! [`TigerTree`] is what it leaves; [`TigerRoot`] names it.

mod rounds;
mod tree;

pub use shoal_base::urn::TigerRoot;
pub use tree::{TigerTree, TreeError};

use std::fmt;

use rounds::{LANES, hash};

/// Bytes of a leaf.
pub const LEAF_LEN: usize = 1024;
/// Levels that are kept at most, the root's among them: as other Gnutella servents do.
pub const MAX_LEVELS: u32 = 11;
/// Hashes of the lowest level kept at most: 24 KiB.
const MAX_BASE: usize = 1 << (MAX_LEVELS - 1);
/// Bytes hashed at once.
const AT_ONCE: usize = LANES * LEAF_LEN;
/// Levels that a file of 2^64 bytes has above its leaves.
const MAX_HEIGHT: usize = 54;

/// A hash of 192 bits: a leaf's, a node's or the root's.
pub type TigerHash = [u8; 24];

/// The root of some bytes that are all at hand.
#[must_use]
pub fn root_of(bytes: &[u8]) -> TigerRoot {
    let mut builder = TreeBuilder::new();
    builder.update(bytes);
    builder.finish().root()
}

/// The hash of a node above two others.
fn node(left: &TigerHash, right: &TigerHash) -> TigerHash {
    let mut both = [0; 48];
    let (to, from) = both.split_at_mut(24);
    to.copy_from_slice(left);
    from.copy_from_slice(right);
    let [hash] = hash(1, [&both]);
    hash
}

/// The level above `below`.
fn above(below: &[TigerHash]) -> Vec<TigerHash> {
    let pairs = below.chunks(2);
    pairs
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [alone] => *alone,
            _ => TigerHash::default(),
        })
        .collect()
}

/// Hashes a file's bytes as they come. Its memory is bounded by 28 KiB whatever the file's length:
/// when the lowest level grows beyond 1024 hashes, it gives way to the one above.
#[derive(Clone)]
pub struct TreeBuilder {
    /// Bytes that are not hashed yet: at most what is hashed at once.
    held: Vec<u8>,
    len: u64,
    /// Levels between the leaves and `base`.
    height: usize,
    /// What waits for its right sibling, by its height above the leaves; below `height` alone.
    waiting: [Option<TigerHash>; MAX_HEIGHT],
    base: Vec<TigerHash>,
}

impl fmt::Debug for TreeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeBuilder")
            .field("len", &self.len)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            held: Vec::new(),
            len: 0,
            height: 0,
            waiting: [None; MAX_HEIGHT],
            base: Vec::new(),
        }
    }

    /// Bytes hashed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() {
            // What is full is hashed when more comes, so that an empty leaf ends no file but the
            // empty one.
            if self.held.len() == AT_ONCE {
                let held = std::mem::take(&mut self.held);
                self.hash_leaves(&held);
                self.held = held;
                self.held.clear();
            }
            if self.held.is_empty() && bytes.len() > AT_ONCE {
                let (now, later) = bytes.split_at(AT_ONCE);
                self.hash_leaves(now);
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(AT_ONCE - self.held.len()));
            self.held.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Hashes whole leaves, side by side as many as there are lanes.
    fn hash_leaves(&mut self, bytes: &[u8]) {
        let (leaves, _) = bytes.as_chunks::<LEAF_LEN>();
        let (groups, rest) = leaves.as_chunks::<LANES>();
        for group in groups {
            let hashes = hash(0, group.each_ref().map(<[u8; LEAF_LEN]>::as_slice));
            hashes.into_iter().for_each(|leaf| self.push(leaf));
        }
        for leaf in rest {
            let [leaf] = hash(0, [leaf.as_slice()]);
            self.push(leaf);
        }
    }

    /// Takes the next leaf's hash.
    fn push(&mut self, mut hash: TigerHash) {
        for slot in self.waiting.iter_mut().take(self.height) {
            match slot.take() {
                Some(left) => hash = node(&left, &hash),
                None => {
                    *slot = Some(hash);
                    return;
                }
            }
        }
        if self.base.len() < MAX_BASE {
            return self.base.push(hash);
        }
        self.base = above(&self.base);
        if let Some(slot) = self.waiting.get_mut(self.height) {
            *slot = Some(hash);
        }
        self.height += 1;
    }

    /// The tree of all bytes hashed.
    #[must_use]
    pub fn finish(mut self) -> TigerTree {
        let held = std::mem::take(&mut self.held);
        self.hash_leaves(&held);
        let (_, short) = held.as_chunks::<LEAF_LEN>();
        if !short.is_empty() || self.len == 0 {
            let [leaf] = hash(0, [short]);
            self.push(leaf);
        }
        // The lowest waits at the right of all others, and moves up where it has no sibling.
        let waiting = self.waiting.iter().flatten();
        let rest = waiting.copied().reduce(|right, left| node(&left, &right));
        if rest.is_some() && self.base.len() == MAX_BASE {
            self.base = above(&self.base);
        }
        self.base.extend(rest);
        TigerTree::from_builder(self.len, self.base)
    }
}

#[cfg(test)]
mod tests;
