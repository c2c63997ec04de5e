//! What a server shares, as it must know it: who keeps the files says so, and opens them.

use super::ranges::RangeSet;
use crate::huge::{Sha1, TigerRoot, Urn};

/// A file that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// By which its bytes are asked for; means nothing here.
    pub key: u64,
    /// Its name, without a path.
    pub name: String,
    /// Bytes of all of it.
    pub len: u64,
    /// What names it.
    pub sha1: Sha1,
    /// The root of its hash tree, if that is known.
    pub tiger: Option<TigerRoot>,
    /// Verified bytes of a file that is not all there; none: all of it is.
    pub available: Option<RangeSet>,
}

/// What became of a file that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It is shared.
    Found(Offer),
    /// It was, and is no more.
    Gone,
    /// It never was, as far as anybody remembers.
    Unknown,
}

/// Files that are shared. Answers from memory: nothing may wait for a disk.
pub trait Files {
    /// The file that a name is of; a bitprint must fit in both its parts.
    fn by_urn(&self, urn: &Urn) -> Lookup;

    /// The file with a number of the node's choice, as query hits tell it.
    fn by_index(&self, index: u32) -> Lookup;

    /// The hash tree of a file, root first, level by level, if it is known.
    fn tree(&self, file: &Offer) -> Option<Vec<u8>>;

    /// All files as query hits, whole messages one after another, for who browses; none: not
    /// allowed.
    fn browse(&self) -> Option<Vec<u8>>;
}
