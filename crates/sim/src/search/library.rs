//! Who shares what, and what is asked for.

use shoal_base::Rng;
use shoal_gnutella::huge::{Sha1, Urn};
use shoal_gnutella::shared::{Shared, SharedFile};
use shoal_gnutella::words::has_all;

/// Popularity by Zipf's law: rank k (from 0) with a probability in proportion to 1 / (k + 1).
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// Sums of the weights up to each rank.
    sums: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(contents: u32) -> Self {
        let mut sum = 0.0;
        let sums = (1..=contents.max(1)).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> u32 {
        let all = self.sums.last().copied().unwrap_or(0.0);
        let at = rng.unit() * all;
        let rank = self.sums.partition_point(|sum| *sum <= at);
        rank.min(self.sums.len() - 1) as u32
    }
}

/// The word that names a content; of one length, as a word is also found by its beginning.
pub(super) fn word(content: u32) -> String {
    format!("song{content:07}")
}

/// The name of its file.
pub(super) fn name(content: u32) -> String {
    format!("{} of the simulator.mp3", word(content))
}

/// Its hash.
pub(super) fn sha1(content: u32) -> Sha1 {
    let mut sha1 = [0; 20];
    sha1[..4].copy_from_slice(&content.to_le_bytes());
    sha1
}

/// What one node shares: contents by number, sorted, none twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Library(pub(super) Vec<u32>);

impl Library {
    /// So many files, each drawn by its popularity; fewer if the same comes up again and again.
    pub(super) fn draw(files: u32, zipf: &Zipf, rng: &mut Rng) -> Self {
        let mut contents: Vec<u32> = (0..files).map(|_| zipf.draw(rng)).collect();
        contents.sort_unstable();
        contents.dedup();
        Self(contents)
    }

    pub(super) fn has(&self, content: u32) -> bool {
        self.0.binary_search(&content).is_ok()
    }

    fn file(content: u32) -> SharedFile {
        SharedFile {
            index: content,
            size: 4_000_000,
            name: name(content),
            sha1: Some(sha1(content)),
            tiger: None,
        }
    }
}

impl Shared for Library {
    fn search(&mut self, words: &[String], most: usize, out: &mut Vec<SharedFile>) {
        let files = self.0.iter().map(|content| Self::file(*content));
        out.extend(files.filter(|file| has_all(&file.name, words)).take(most));
    }

    fn find(&mut self, _urn: &Urn) -> Option<SharedFile> {
        None
    }

    fn names(&self, each: &mut dyn FnMut(&str, Option<Sha1>)) {
        self.0
            .iter()
            .for_each(|content| each(&name(*content), None));
    }

    fn size(&self) -> (u32, u32) {
        let files = self.0.len() as u32;
        (files, files * 4000)
    }

    fn version(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_is_drawn_twice_as_often_as_the_second() {
        let zipf = Zipf::new(1000);
        let mut rng = Rng::from_seed(1);
        let mut counts = [0_u32; 1000];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        // 1 / (ln 1000 + 0.5772) = 0.1336 of all.
        assert!((12_900..13_900).contains(&counts[0]), "{}", counts[0]);
        assert!((6_300..7_100).contains(&counts[1]), "{}", counts[1]);
    }

    #[test]
    fn a_library_finds_the_content_that_a_word_names_and_no_other() {
        let mut library = Library(vec![1, 12, 120]);
        let mut found = Vec::new();
        library.search(&[word(12)], 10, &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].index, 12);
        assert!(library.has(120) && !library.has(2));
    }
}
