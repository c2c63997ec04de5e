//! What searches found, from every overlay, put together: hits of the same content are one result,
//! the most available first.
//!
//! Hits come one by one and change results as they come. Two hits are of the same content if a
//! hash says so; hits without a hash are of the same if name and size are, and are told apart from
//! the others, for nothing proves it. What a hit says is its sharer's word: a result shows where
//! the words of sharers disagree ([`Found::doubts`]).

mod filter;
mod seen;

pub use filter::Filter;
pub use seen::Seen;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_base::words::each_word;

use crate::magnet::FileSource;
use crate::tiger::TigerRoot;

/// Results of one search at most; hits of further contents are counted and dropped.
pub const MAX_FOUND: usize = 10_000;
/// Hits of one result at most.
pub const MAX_HITS: usize = 500;
/// Bytes a second that a sharer may say to have and be believed in part: 100 Mbit/s.
const MAX_CLAIM: u64 = 12_500_000;

/// The hashes that a hit names its content by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hashes {
    /// SHA-1 of the whole file (Gnutella).
    pub sha1: Option<[u8; 20]>,
    /// The root of its Tiger tree (Gnutella).
    pub tiger: Option<TigerRoot>,
    /// The v1 info-hash of a torrent (BitTorrent).
    pub info_hash: Option<[u8; 20]>,
    /// The v2 root of a file (BitTorrent).
    pub root: Option<[u8; 32]>,
}

/// One hash of a content, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Sha1([u8; 20]),
    Root([u8; 32]),
    Tiger(TigerRoot),
    InfoHash([u8; 20]),
}

impl Hashes {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those there are, what proves most first.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let all = [
            self.sha1.map(Key::Sha1),
            self.root.map(Key::Root),
            self.tiger.map(Key::Tiger),
            self.info_hash.map(Key::InfoHash),
        ];
        all.into_iter().flatten()
    }

    /// Whether both name a hash of one kind, and not the same.
    fn contradict(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_some() && b.is_some() && a != b
        }
        differ(&self.sha1, &other.sha1)
            || differ(&self.tiger, &other.tiger)
            || differ(&self.info_hash, &other.info_hash)
            || differ(&self.root, &other.root)
    }

    fn learn(&mut self, other: &Self) {
        self.sha1 = self.sha1.or(other.sha1);
        self.tiger = self.tiger.or(other.tiger);
        self.info_hash = self.info_hash.or(other.info_hash);
        self.root = self.root.or(other.root);
    }
}

/// One sharer's word that they have a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hit {
    /// The overlay that it came by, such as `napster`.
    pub via: &'static str,
    /// Who: an address, a nick; the same sharer is counted once.
    pub sharer: String,
    /// The file's path or name as the sharer tells it: to show, never a path of ours.
    pub name: String,
    /// Length in bytes, as the sharer tells it.
    pub size: u64,
    /// Kilobits a second of sound; zero if unknown.
    pub bitrate: u32,
    /// What names the content.
    pub hashes: Hashes,
    /// How long the sharer took to answer us; none if that was not measured or they did not.
    pub answered: Option<Duration>,
    /// Bytes a second measured from this sharer.
    pub rate: Option<u64>,
    /// Others before us in the sharer's queue; none if it was not said.
    pub queue: Option<u32>,
    /// Bytes a second that the sharer says they send: their word, and nobody's measurement.
    pub claimed: Option<u64>,
    /// Earlier fetches in a row in which the sharer gave nothing.
    pub refused: u32,
    /// Whether the sharer sent wrong bytes in an earlier fetch.
    pub lied: bool,
    /// Whether the sharer says that nobody can connect to them.
    pub firewalled: bool,
    /// How the sharer can be asked for the file; none if that cannot be written down.
    pub source: Option<FileSource>,
}

/// Why a result is to be looked at twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubts {
    /// Hits that tell another size than most.
    pub sizes: usize,
    /// Hits whose names share no word with those of most.
    pub names: usize,
    /// Hits that name another hash of a kind than the first one did.
    pub hashes: usize,
    /// No hash names it: only name and size say that its hits are one file.
    pub unproven: bool,
}

/// All hits of one content.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What names it.
    pub hashes: Hashes,
    /// Its hits in the order in which they came.
    pub hits: Vec<Hit>,
    /// Hits whose hashes contradict [`Found::hashes`].
    contradicting: usize,
}

/// What a hit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A result that was not there: its number.
    New(usize),
    /// One more sharer of a result.
    Grew(usize),
    /// Nothing: the same sharer said it before, or there is no room.
    Nothing,
}

/// The results of one search.
#[derive(Debug, Default)]
pub struct Hits {
    found: Vec<Found>,
    by_hash: BTreeMap<Key, usize>,
    by_name: BTreeMap<(u64, String), usize>,
    dropped: u64,
}

fn folded(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    each_word(name, &mut String::new(), |word| words.push(word.to_owned()));
    words
}

/// A name without its folders.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

impl Hits {
    /// Takes a hit.
    pub fn add(&mut self, hit: Hit) -> Change {
        let keys: Vec<Key> = hit.hashes.keys().collect();
        let name = (hit.size, folded(file_name(&hit.name)).join(" "));
        // The hash that proves most decides; a hit never makes one result of two, or a single
        // liar could.
        let known = match keys.is_empty() {
            true => self.by_name.get(&name).copied(),
            false => keys.iter().find_map(|key| self.by_hash.get(key).copied()),
        };
        let at = known.unwrap_or(self.found.len());
        let change = match self.found.get_mut(at) {
            None if at >= MAX_FOUND => {
                self.dropped += 1;
                return Change::Nothing;
            }
            None => {
                self.found.push(Found {
                    hashes: hit.hashes,
                    hits: vec![hit],
                    contradicting: 0,
                });
                Change::New(at)
            }
            Some(found) => found.add(hit, at),
        };
        if change == Change::Nothing {
            self.dropped += 1;
            return change;
        }
        if keys.is_empty() {
            self.by_name.entry(name).or_insert(at);
        } else if let Some(found) = self.found.get(at) {
            for key in found.hashes.keys() {
                self.by_hash.entry(key).or_insert(at);
            }
        }
        change
    }

    /// A result by its number.
    #[must_use]
    pub fn get(&self, n: usize) -> Option<&Found> {
        self.found.get(n)
    }

    /// The result without a hash whose hits are of this size and name.
    #[must_use]
    pub fn unproven(&self, size: u64, name: &str) -> Option<&Found> {
        let name = (size, folded(file_name(name)).join(" "));
        self.get(*self.by_name.get(&name)?)
    }

    /// Results there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Hits that said nothing new, or for which there was no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was measured of a sharer holds for all their hits.
    pub fn answered(&mut self, via: &str, sharer: &str, took: Duration) {
        let hits = self.found.iter_mut().flat_map(|f| &mut f.hits);
        for hit in hits.filter(|h| h.via == via && h.sharer == sharer) {
            hit.answered = Some(took);
        }
    }

    /// The numbers of the results, the best first: see [`Found::score`]. Equals in the order in
    /// which they came.
    #[must_use]
    pub fn ranked(&self) -> Vec<usize> {
        let mut all: Vec<(f64, usize)> = self
            .found
            .iter()
            .enumerate()
            .map(|(n, f)| (f.score(), n))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.into_iter().map(|(_, n)| n).collect()
    }
}

impl Found {
    fn add(&mut self, hit: Hit, at: usize) -> Change {
        let again = |h: &Hit| h.via == hit.via && h.sharer == hit.sharer && h.name == hit.name;
        if self.hits.len() >= MAX_HITS || self.hits.iter().any(again) {
            return Change::Nothing;
        }
        if self.hashes.contradict(&hit.hashes) {
            self.contradicting += 1;
        } else {
            self.hashes.learn(&hit.hashes);
        }
        self.hits.push(hit);
        Change::Grew(at)
    }

    /// Different sharers.
    #[must_use]
    pub fn sharers(&self) -> usize {
        let mut all: Vec<_> = self.hits.iter().map(|h| (h.via, &h.sharer)).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// The size that most tell; of equals the one told first.
    #[must_use]
    pub fn size(&self) -> u64 {
        let told = self.hits.iter().map(|h| h.size);
        most(told).unwrap_or(0)
    }

    /// The name that most tell, without folders; of equals the one told first.
    #[must_use]
    pub fn name(&self) -> &str {
        let told = self.hits.iter().map(|h| file_name(&h.name));
        most(told).unwrap_or_default()
    }

    /// Where its hits disagree.
    #[must_use]
    pub fn doubts(&self) -> Doubts {
        let size = self.size();
        // Words that at least half of the names have; the ending says little.
        let names: Vec<Vec<String>> = self.hits.iter().map(|h| folded(stem(&h.name))).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names {
            let mut own: Vec<&str> = name.iter().map(String::as_str).collect();
            own.sort_unstable();
            own.dedup();
            own.into_iter()
                .for_each(|word| *counts.entry(word).or_default() += 1);
        }
        let common = |word: &String| {
            counts
                .get(word.as_str())
                .is_some_and(|n| *n * 2 >= names.len().max(2))
        };
        let any_common = counts.values().any(|n| *n * 2 >= names.len().max(2));
        let odd = names
            .iter()
            .filter(|name| any_common && !name.iter().any(common));
        Doubts {
            sizes: self.hits.iter().filter(|h| h.size != size).count(),
            names: odd.count(),
            hashes: self.contradicting,
            unproven: self.hashes.is_empty(),
        }
    }

    /// How good a result is to fetch. What was measured counts most: a sharer who answered us
    /// counts 1, one of whom nothing is known ½, one who is firewalled, has a long queue or gave
    /// nothing before less, one who lied nothing; their sum counts by its logarithm. To this come
    /// the best rate measured, two for ten times as fast (a quarter of that, and never more than
    /// for 100 Mbit/s, if sharers but say so), and an answer within 100 ms; disagreements take up
    /// to half of all.
    #[must_use]
    pub fn score(&self) -> f64 {
        let mut sharers: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for hit in &self.hits {
            let weight = sharers.entry((hit.via, hit.sharer.as_str())).or_default();
            *weight = weight.max(hit.availability());
        }
        let available = (1.0 + sharers.values().sum::<f64>()).log2() * 4.0;
        let honest = || self.hits.iter().filter(|h| !h.lied);
        let rate = honest().filter_map(|h| h.rate).max();
        let claimed = honest().filter_map(|h| h.claimed).max();
        let claimed = claimed.map(|rate| rate.min(MAX_CLAIM));
        // From 10 kB/s on.
        let points = |rate: Option<u64>| rate.map_or(0.0, |r| (r as f64 / 1e4).max(1.0).log10());
        let fast = (points(rate) * 2.0).max(points(claimed) * 0.5);
        let near = honest().filter_map(|h| h.answered).min();
        let near = near.map_or(0.0, |took| 0.1 / took.as_secs_f64().max(0.1));
        let doubts = self.doubts();
        let disagree = (doubts.sizes + doubts.names + doubts.hashes) as f64;
        let agreement = 1.0 - 0.5 * (disagree / self.hits.len().max(1) as f64).min(1.0);
        let proven = if doubts.unproven { 0.8 } else { 1.0 };
        (available + fast + near) * agreement * proven
    }
}

impl Hit {
    fn availability(&self) -> f64 {
        if self.lied {
            return 0.0;
        }
        let known = if self.answered.is_some() || self.rate.is_some() {
            1.0
        } else {
            0.5
        };
        let reach = if self.firewalled { 0.5 } else { 1.0 };
        let waits = self.queue.map_or(1.0, |n| 1.0 / (1.0 + f64::from(n) / 4.0));
        known * reach * waits / (1.0 + f64::from(self.refused))
    }
}

/// A name without folders and ending.
fn stem(name: &str) -> &str {
    let name = file_name(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// What comes most often; of equals what came first.
fn most<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, (usize, usize)> = BTreeMap::new();
    for (n, one) in all.enumerate() {
        counts.entry(one).or_insert((0, n)).0 += 1;
    }
    let best = counts
        .into_iter()
        .max_by_key(|(_, (count, first))| (*count, usize::MAX - first));
    best.map(|(one, _)| one)
}

#[cfg(test)]
mod tests;
