//! One's own files as searches from any overlay see them: by words, by kind and size, by hash.

use std::ops::RangeInclusive;

use super::{Entry, Facts, Index, Terms};
use crate::file_kind::FileKind;
use crate::tiger::TigerRoot;
use shoal_base::Urn;

/// What is kept of a file beside its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalFile {
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
    /// The root of its Tiger tree.
    pub tiger: TigerRoot,
}

impl Facts for LocalFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.sha1);
        out.extend_from_slice(&self.tiger.0);
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (sha1, rest) = rest.split_first_chunk::<20>()?;
        let (tiger, rest) = rest.split_first_chunk::<24>()?;
        let file = Self {
            size: u64::from_le_bytes(*size),
            sha1: *sha1,
            tiger: TigerRoot(*tiger),
        };
        Some((file, rest))
    }

    fn hashes(&self) -> [Option<&[u8]>; 2] {
        [Some(&self.sha1), Some(&self.tiger.0)]
    }
}

/// What a file must be to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The words of its path.
    pub terms: Terms,
    /// What its ending promises.
    pub kind: Option<FileKind>,
    /// Its length in bytes.
    pub size: RangeInclusive<u64>,
}

impl Search {
    /// A search for words alone.
    #[must_use]
    pub fn words(terms: Terms) -> Self {
        Self {
            terms,
            kind: None,
            size: 0..=u64::MAX,
        }
    }
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number, which is another file's some day.
    pub id: u32,
    /// The number of the folder that it is shared in.
    pub folder: u32,
    /// Its path below that, with `/`.
    pub path: String,
    /// What is kept of it.
    pub file: LocalFile,
}

impl Found {
    fn of(entry: &Entry<'_, LocalFile>) -> Self {
        let path = [entry.folder, entry.name].concat();
        Self {
            id: entry.id,
            folder: entry.owner,
            path: String::from_utf8_lossy(&path).into_owned(),
            file: entry.facts,
        }
    }

    /// Its name without folders.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// What it is called by its hashes.
    #[must_use]
    pub fn urn(&self) -> Urn {
        Urn::Bitprint(self.file.sha1, self.file.tiger)
    }
}

/// The files of a library that somebody may have.
#[derive(Debug)]
pub struct LocalFiles {
    index: Index<LocalFile>,
    version: u64,
}

impl Default for LocalFiles {
    fn default() -> Self {
        Self {
            index: Index::with_beginnings(),
            version: 0,
        }
    }
}

/// A path below a folder, cut before its name.
fn split(path: &str) -> (&[u8], &[u8]) {
    let cut = path.rfind('/').map_or(0, |at| at + 1);
    path.as_bytes().split_at(cut)
}

impl LocalFiles {
    /// Files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index.bytes()
    }

    /// Different words in their paths.
    #[must_use]
    pub fn words(&self) -> usize {
        self.index.words()
    }

    /// A number that grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds a file, or changes what is kept of one.
    pub fn add(&mut self, folder: u32, path: &str, file: &LocalFile) {
        let (dir, name) = split(path);
        if !self.index.add(folder, dir, name, file) {
            self.index.remove(folder, dir, name);
            self.index.add(folder, dir, name, file);
        }
        self.version += 1;
    }

    /// Takes a file out; false if it is not in.
    pub fn remove(&mut self, folder: u32, path: &str) -> bool {
        let (dir, name) = split(path);
        let was = self.index.remove(folder, dir, name);
        self.version += u64::from(was);
        was
    }

    /// Calls `each` with files that are what is searched until it returns false. `luck` decides
    /// which of many come first.
    pub fn search(&self, wanted: &Search, luck: usize, mut each: impl FnMut(Found) -> bool) {
        self.index.search(&wanted.terms, luck, |entry| {
            let fits = wanted.size.contains(&entry.facts.size)
                && wanted
                    .kind
                    .as_ref()
                    .is_none_or(|kind| kind.is_of(entry.name));
            !fits || each(Found::of(entry))
        });
    }

    /// A file of this content. Of a name with two hashes both must be right.
    #[must_use]
    pub fn with_urn(&self, urn: &Urn) -> Option<Found> {
        let mut found = None;
        let (sha1, tiger) = (urn.sha1(), urn.tiger());
        let hash = match (&sha1, &tiger) {
            (Some(sha1), _) => sha1.as_slice(),
            (None, Some(tiger)) => tiger.0.as_slice(),
            (None, None) => return None,
        };
        self.index.with_hash(hash, |entry| {
            if tiger.is_none_or(|tiger| tiger == entry.facts.tiger) {
                found = Some(Found::of(entry));
            }
            found.is_none()
        });
        found
    }

    /// The file with a number that a search gave.
    #[must_use]
    pub fn with_id(&self, id: u32) -> Option<Found> {
        self.index.entry(id).map(|entry| Found::of(&entry))
    }

    /// Calls `each` with every file until it returns false.
    pub fn each(&self, mut each: impl FnMut(Found) -> bool) {
        self.index.each(|entry| each(Found::of(entry)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u8) -> LocalFile {
        LocalFile {
            size: u64::from(n) * 1000,
            sha1: [n; 20],
            tiger: TigerRoot([n; 24]),
        }
    }

    fn paths(files: &LocalFiles, search: &Search) -> Vec<String> {
        let mut all = Vec::new();
        files.search(search, 0, |found| {
            all.push(found.path);
            true
        });
        all.sort();
        all
    }

    #[test]
    fn files_are_found_by_words_kind_size_and_hash() {
        let mut files = LocalFiles::default();
        for (n, path) in [
            (1, "Björk/Début/Venus as a Boy.mp3"),
            (2, "Björk/Début/cover.jpg"),
            (3, "Venus in Furs.ogg"),
        ] {
            files.add(7, path, &file(n));
        }
        let words = |text| Search::words(Terms::parse(text));
        assert_eq!(paths(&files, &words("bjork debut")).len(), 2);
        assert_eq!(
            paths(&files, &words("ven* -furs")),
            ["Björk/Début/Venus as a Boy.mp3"]
        );
        let audio = Search {
            kind: FileKind::parse(b"audio"),
            ..words("venus")
        };
        assert_eq!(paths(&files, &audio).len(), 2);
        let large = Search {
            size: 2000..=u64::MAX,
            ..audio
        };
        assert_eq!(paths(&files, &large), ["Venus in Furs.ogg"]);

        let found = files.with_urn(&Urn::Sha1([2; 20])).expect("shared");
        assert_eq!(
            (found.name(), found.folder, found.file),
            ("cover.jpg", 7, file(2))
        );
        assert_eq!(files.with_id(found.id), Some(found.clone()));
        assert_eq!(files.with_urn(&Urn::Tiger(TigerRoot([2; 24]))), Some(found));
        let liar = Urn::Bitprint([2; 20], TigerRoot([3; 24]));
        assert_eq!(files.with_urn(&liar), None);

        let before = files.version();
        files.add(7, "Venus in Furs.ogg", &file(9));
        assert_eq!((files.len(), files.bytes()), (3, 12_000));
        assert!(files.with_urn(&Urn::Sha1([3; 20])).is_none());
        assert!(files.remove(7, "Venus in Furs.ogg") && !files.remove(8, "x"));
        assert!(files.version() > before && files.len() == 2);
    }
}
