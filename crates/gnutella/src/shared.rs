//! What a node shares, as the node sees it.

use std::net::SocketAddrV4;

use crate::huge::{Sha1, TigerRoot, Urn};

/// A file that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFile {
    /// Its number, by which older programs ask for it.
    pub index: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its name, without folders.
    pub name: String,
    /// Its SHA-1, once it is known.
    pub sha1: Option<Sha1>,
    /// The root of its Tiger tree, once it is known.
    pub tiger: Option<TigerRoot>,
}

/// A library of shared files.
pub trait Shared {
    /// Adds to `out` up to `most` files whose names have all of `words`. The words are folded
    /// ([`crate::words::fold`]), and there is at least one.
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>);
    /// The file with this content.
    fn find(&mut self, urn: &Urn) -> Option<SharedFile>;
    /// Files of others for whom this node answers, as [`Shared::search`] or, where there are `urns`,
    /// by those; and the host that has each. They are told in hits that name that host.
    fn elsewhere(
        &mut self,
        words: &[String],
        urns: &[Urn],
        most: usize,
    ) -> Vec<(SocketAddrV4, SharedFile)> {
        let _ = (words, urns, most);
        Vec::new()
    }
    /// Hands over the name of every file and its SHA-1, for the query routing table.
    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>));
    /// How many files there are, and their size in KiB.
    fn size(&self) -> (u32, u32);
    /// A number that changes when the files do.
    fn version(&self) -> u64;
}

/// Nothing is shared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Shared for Nothing {
    fn search(&mut self, _: &[String], _: usize, _: &mut Vec<SharedFile>) {}

    fn find(&mut self, _: &Urn) -> Option<SharedFile> {
        None
    }

    fn names(&self, _: &mut dyn FnMut(&str, Option<Sha1>)) {}

    fn size(&self) -> (u32, u32) {
        (0, 0)
    }

    fn version(&self) -> u64 {
        0
    }
}

impl<T: Shared + ?Sized> Shared for Box<T> {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        (**self).search(words, most, out);
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        (**self).find(urn)
    }

    fn elsewhere(
        &mut self,
        words: &[String],
        urns: &[Urn],
        most: usize,
    ) -> Vec<(SocketAddrV4, SharedFile)> {
        (**self).elsewhere(words, urns, most)
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        (**self).names(each);
    }

    fn size(&self) -> (u32, u32) {
        (**self).size()
    }

    fn version(&self) -> u64 {
        (**self).version()
    }
}
