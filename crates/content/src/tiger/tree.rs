//! A finished tree: its upper levels, checking parts of the file against them, and the levels as
//! they travel.

use super::{LEAF_LEN, MAX_BASE, MAX_LEVELS, TigerHash, TigerRoot, above, root_of};

/// The upper levels of a file's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TigerTree {
    len: u64,
    /// From the root alone down to the lowest level kept; never empty, no level empty.
    levels: Vec<Vec<TigerHash>>,
}

/// Why hashes make no tree of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Not even a root.
    #[error("the tree holds no hash")]
    Empty,
    /// The hashes fill no level of a tree of this length.
    #[error("{0} bytes are no whole levels of the file's tree")]
    Length(usize),
    /// A node is not the hash of those below it.
    #[error("a hash of the tree does not fit those below it")]
    Inconsistent,
    /// It is the tree of something else.
    #[error("it is the tree of another file")]
    Root,
}

/// Leaves of a file; an empty one has one, of no bytes.
fn leaves(len: u64) -> u64 {
    len.div_ceil(LEAF_LEN as u64).max(1)
}

/// Levels of a file's whole tree, that of its leaves and that of the root counted.
fn full_levels(len: u64) -> u32 {
    leaves(len).next_power_of_two().trailing_zeros() + 1
}

/// Hashes in a level `height` steps above the leaves.
fn width(len: u64, height: u32) -> u64 {
    leaves(len).div_ceil(1 << height)
}

impl TigerTree {
    /// A tree over its lowest level.
    pub(super) fn from_builder(len: u64, base: Vec<TigerHash>) -> Self {
        debug_assert!(!base.is_empty() && base.len() <= MAX_BASE);
        let mut levels = vec![base];
        while let Some(lowest) = levels.last()
            && lowest.len() > 1
        {
            let next = above(lowest);
            levels.push(next);
        }
        levels.reverse();
        Self { len, levels }
    }

    /// Reads levels as THEX writes them: root first, level by level, each from the left, as many
    /// as there are. Every hash is checked against those above it, the root against `root`.
    /// [`MAX_LEVELS`] are kept; nobody looks at what lies below.
    ///
    /// # Errors
    /// [`TreeError`]: the bytes are not such levels of a file of `len` bytes.
    pub fn from_levels(len: u64, root: TigerRoot, bytes: &[u8]) -> Result<Self, TreeError> {
        let cut = || TreeError::Length(bytes.len());
        let (mut rest, odd) = bytes.as_chunks::<24>();
        if !odd.is_empty() {
            return Err(cut());
        }
        let full = full_levels(len);
        let mut levels: Vec<Vec<TigerHash>> = Vec::new();
        for depth in 0..full.min(MAX_LEVELS) {
            if rest.is_empty() {
                break;
            }
            let wide = usize::try_from(width(len, full - 1 - depth));
            let split = wide.ok().and_then(|wide| rest.split_at_checked(wide));
            let (level, more) = split.ok_or_else(cut)?;
            if levels.last().is_some_and(|upper| above(level) != *upper) {
                return Err(TreeError::Inconsistent);
            }
            levels.push(level.to_vec());
            rest = more;
        }
        if full <= MAX_LEVELS && !rest.is_empty() {
            return Err(cut());
        }
        match levels.first().map(Vec::as_slice) {
            None => Err(TreeError::Empty),
            Some([top]) if *top == root.0 => Ok(Self { len, levels }),
            Some(_) => Err(TreeError::Root),
        }
    }

    /// The hash that names the file.
    #[must_use]
    pub fn root(&self) -> TigerRoot {
        let top = self.levels.first().and_then(|level| level.first());
        TigerRoot(top.copied().unwrap_or_default())
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// The levels kept, from the root's down.
    #[must_use]
    pub fn levels(&self) -> &[Vec<TigerHash>] {
        &self.levels
    }

    /// The levels as THEX writes them, root first: what [`Self::from_levels`] reads.
    #[must_use]
    pub fn to_levels(&self) -> Vec<u8> {
        self.levels.iter().flatten().flatten().copied().collect()
    }

    /// The same tree without the levels whose hashes stand for less than `min` bytes; the root
    /// stays.
    #[must_use]
    pub fn with_spans_of(mut self, min: u64) -> Self {
        while self.levels.len() > 1 && self.span_len() < min {
            self.levels.pop();
        }
        self
    }

    /// Hashes of the lowest level kept, one for each span of the file.
    #[must_use]
    pub fn spans(&self) -> &[TigerHash] {
        self.levels.last().map_or(&[], Vec::as_slice)
    }

    /// Bytes that one hash of the lowest level stands for, but for the last: 1024 times a power
    /// of two.
    #[must_use]
    pub fn span_len(&self) -> u64 {
        let below = full_levels(self.len).saturating_sub(self.levels.len() as u32);
        (LEAF_LEN as u64) << below
    }

    /// Whether `found`, the root of the tree of a span's own bytes, is right for span `n`; false
    /// too for a span that there is not. A [`super::TreeBuilder`] fed with the span's bytes finds
    /// it without holding them.
    #[must_use]
    pub fn span_is(&self, n: usize, found: TigerRoot) -> bool {
        self.spans().get(n) == Some(&found.0)
    }

    /// Whether `bytes` are those of span `n`.
    #[must_use]
    pub fn check(&self, n: usize, bytes: &[u8]) -> bool {
        let start = (n as u64).checked_mul(self.span_len());
        let want = start.and_then(|start| self.len.checked_sub(start));
        want.is_some_and(|rest| rest.min(self.span_len()) == bytes.len() as u64)
            && self.span_is(n, root_of(bytes))
    }
}
