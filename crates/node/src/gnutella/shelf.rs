//! The files that a node shares, found by word and by hash.

use std::collections::BTreeMap;
use std::ops::Bound;

use shoal_gnutella::huge::{Sha1, TigerRoot, Urn};
use shoal_gnutella::shared::{Shared, SharedFile};
use shoal_gnutella::words::{each_word, has_all};

/// Words that begin as a query's are looked at, at most.
const MAX_BEGINNINGS: usize = 1000;

/// Files in memory, with an index of their names' words.
#[derive(Debug, Default)]
pub struct Shelf {
    files: Vec<SharedFile>,
    words: BTreeMap<Box<str>, Vec<u32>>,
    sha1s: BTreeMap<Sha1, u32>,
    tigers: BTreeMap<TigerRoot, u32>,
    bytes: u64,
}

impl Shelf {
    /// Puts up files; their numbers become their places in the list.
    pub fn new(files: impl IntoIterator<Item = SharedFile>) -> Self {
        let mut shelf = Self::default();
        let mut buf = String::new();
        for (index, mut file) in (0_u32..).zip(files) {
            file.index = index;
            each_word(&file.name, &mut buf, |word| {
                let list = match shelf.words.get_mut(word) {
                    Some(list) => list,
                    None => shelf.words.entry(word.into()).or_default(),
                };
                if list.last() != Some(&index) {
                    list.push(index);
                }
            });
            if let Some(sha1) = file.sha1 {
                shelf.sha1s.entry(sha1).or_insert(index);
            }
            if let Some(root) = file.tiger {
                shelf.tigers.entry(root).or_insert(index);
            }
            shelf.bytes += file.size;
            shelf.files.push(file);
        }
        shelf
    }

    /// The files, by their numbers.
    pub fn files(&self) -> &[SharedFile] {
        &self.files
    }

    fn file(&self, index: u32) -> Option<&SharedFile> {
        self.files.get(index as usize)
    }

    /// The lists of files of all words that begin so.
    fn lists<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a Vec<u32>> + Clone {
        let range = (Bound::Included(word), Bound::Unbounded);
        let from = self.words.range::<str, _>(range);
        from.take_while(move |(w, _)| w.starts_with(word))
            .map(|(_, list)| list)
            .take(MAX_BEGINNINGS)
    }
}

impl Shared for Shelf {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        // The rarest word decides which files are looked at.
        let size = |word: &&String| self.lists(word).map(Vec::len).sum::<usize>();
        let Some(rarest) = words.iter().min_by_key(size) else {
            return;
        };
        let mut seen: Vec<u32> = self.lists(rarest).flatten().copied().collect();
        seen.sort_unstable();
        seen.dedup();
        let files = seen.into_iter().filter_map(|index| self.file(index));
        out.extend(
            files
                .filter(|f| has_all(&f.name, words))
                .take(most)
                .cloned(),
        );
    }

    fn find(&mut self, urn: &Urn) -> Option<SharedFile> {
        let by_sha1 = urn.sha1().and_then(|s| self.sha1s.get(&s));
        let by_tiger = || urn.tiger().and_then(|t| self.tigers.get(&t));
        self.file(*by_sha1.or_else(by_tiger)?).cloned()
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.files.iter().for_each(|f| each(&f.name, f.sha1));
    }

    fn size(&self) -> (u32, u32) {
        let files = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        (files, u32::try_from(self.bytes >> 10).unwrap_or(u32::MAX))
    }

    fn version(&self) -> u64 {
        // What is put up stays.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_gnutella::words::fold;

    fn shelf() -> Shelf {
        let names = ["Rare Song.ogg", "rare recordings.txt", "song of songs.ogg"];
        Shelf::new(names.iter().zip(1_u8..).map(|(name, n)| SharedFile {
            index: 9,
            size: 1 << 20,
            name: (*name).into(),
            sha1: Some([n; 20]),
            tiger: Some([n; 24]),
        }))
    }

    #[test]
    fn files_are_found_by_words_their_beginnings_and_hashes() {
        let mut shelf = shelf();
        let mut find = |text: &str, most| {
            let mut out = Vec::new();
            shelf.search(&fold(text.as_bytes()), most, &mut out);
            out.iter().map(|f| f.index).collect::<Vec<_>>()
        };
        assert_eq!(find("song", 9), [0, 2]);
        assert_eq!(find("SONG rare", 9), [0]);
        assert_eq!(find("rec", 9), [1]);
        assert_eq!(find("song", 1), [0]);
        assert!(find("ong", 9).is_empty());
        let name = |f: Option<SharedFile>| f.map(|f| f.name);
        let want = Some("rare recordings.txt".to_owned());
        assert_eq!(name(shelf.find(&Urn::Sha1([2; 20]))), want);
        assert_eq!(name(shelf.find(&Urn::Tiger([2; 24]))), want);
        assert_eq!(shelf.find(&Urn::Sha1([7; 20])), None);
        assert_eq!(shelf.size(), (3, 3072));
    }
}
