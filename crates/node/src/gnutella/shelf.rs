//! One's own files, as a node of Gnutella shares them.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use shoal_content::keywords::{Found, LocalFiles, Search, Terms};
use shoal_gnutella::huge::{Sha1, Urn};
use shoal_gnutella::shared::{Shared, SharedFile};
use shoal_gnutella::words::has_all;

/// Files that are shared, found by word and by hash. Clones are one shelf.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<RwLock<Held>>);

#[derive(Debug, Default)]
struct Held {
    files: LocalFiles,
    /// Versions that there were before these files.
    before: u64,
}

impl Shelf {
    /// Shares these.
    pub fn new(files: LocalFiles) -> Self {
        Self(Arc::new(RwLock::new(Held { files, before: 0 })))
    }

    /// Shares these instead.
    pub fn replace(&self, files: LocalFiles) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = held.before + held.files.version() + 1;
        *held = Held { files, before };
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shared(found: &Found) -> SharedFile {
    SharedFile {
        index: found.id,
        size: found.file.size,
        name: found.name().to_owned(),
        sha1: Some(found.file.sha1),
        tiger: Some(found.file.tiger),
    }
}

impl Shared for Shelf {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        let mut terms = Terms::default();
        words.iter().for_each(|word| terms.require_beginning(word));
        let mut left = most;
        self.held().files.search(&Search::words(terms), 0, |found| {
            // Others see the name alone: what only folders match they would take for a lie.
            if left > 0 && has_all(found.name(), words) {
                out.push(shared(&found));
                left -= 1;
            }
            left > 0
        });
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        self.held().files.with_urn(urn).as_ref().map(shared)
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.held().files.each(|found| {
            each(found.name(), Some(found.file.sha1));
            true
        });
    }

    fn size(&self) -> (u32, u32) {
        let held = self.held();
        let files = u32::try_from(held.files.len()).unwrap_or(u32::MAX);
        let kib = u32::try_from(held.files.bytes() >> 10).unwrap_or(u32::MAX);
        (files, kib)
    }

    fn version(&self) -> u64 {
        let held = self.held();
        held.before + held.files.version()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_content::TigerRoot;
    use shoal_content::keywords::LocalFile;
    use shoal_gnutella::words::fold;

    #[test]
    fn files_are_found_by_words_of_their_names_and_by_hashes() {
        let mut files = LocalFiles::default();
        let paths = ["rare/Song.ogg", "Rare Recordings.txt", "song of songs.ogg"];
        for (path, n) in paths.iter().zip(1_u8..) {
            let file = LocalFile {
                size: 1 << 20,
                sha1: [n; 20],
                tiger: TigerRoot([n; 24]),
            };
            files.add(0, path, &file);
        }
        let mut shelf = Shelf::new(files);
        let mut find = |text: &str, most| {
            let mut out = Vec::new();
            shelf.search(&fold(text.as_bytes()), most, &mut out);
            let mut names: Vec<String> = out.into_iter().map(|f| f.name).collect();
            names.sort();
            names
        };
        assert_eq!(find("song", 9), ["Song.ogg", "song of songs.ogg"]);
        assert_eq!(find("RARE", 9), ["Rare Recordings.txt"]);
        assert_eq!(find("rec rare", 9), ["Rare Recordings.txt"]);
        assert_eq!(find("song", 1).len(), 1);
        assert!(find("ong", 9).is_empty());
        let name = |f: Option<SharedFile>| f.map(|f| f.name);
        let want = Some("Rare Recordings.txt".to_owned());
        assert_eq!(name(shelf.find(&Urn::Sha1([2; 20]))), want);
        assert_eq!(name(shelf.find(&Urn::Tiger(TigerRoot([2; 24])))), want);
        assert_eq!(
            shelf.find(&Urn::Bitprint([2; 20], TigerRoot([3; 24]))),
            None
        );
        assert_eq!(shelf.size(), (3, 3072));
        let before = shelf.version();
        shelf.clone().replace(LocalFiles::default());
        assert_eq!(shelf.size(), (0, 0));
        assert!(shelf.version() > before, "tables of words are made anew");
    }
}
