//! What a saved search has told already, so that it tells only what is new.

use std::collections::BTreeSet;

use sha1::{Digest, Sha1};

use super::{Found, Key};

/// Contents remembered of one search at most; then nothing more counts as new, rather than all.
const MAX_SEEN: usize = 100_000;
/// Bytes of a mark.
const MARK: usize = 8;

/// Marks of the results told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    marks: BTreeSet<[u8; MARK]>,
}

fn mark(kind: u8, bytes: &[&[u8]]) -> [u8; MARK] {
    let mut sha1 = Sha1::new_with_prefix([kind]);
    bytes.iter().for_each(|part| sha1.update(part));
    let digest: [u8; 20] = sha1.finalize().into();
    let (mark, _) = digest.split_first_chunk().unwrap_or((&[0; MARK], &[]));
    *mark
}

/// A mark for each hash of a result; of one without, for its size and name.
fn marks(found: &Found) -> Vec<[u8; MARK]> {
    let mut all: Vec<_> = found
        .hashes
        .keys()
        .map(|key| match key {
            Key::Sha1(hash) => mark(1, &[&hash]),
            Key::Root(hash) => mark(2, &[&hash]),
            Key::Tiger(root) => mark(3, &[&root.0]),
            Key::InfoHash(hash) => mark(4, &[&hash]),
        })
        .collect();
    if all.is_empty() {
        let name = super::folded(found.name()).join(" ");
        all.push(mark(0, &[&found.size().to_le_bytes(), name.as_bytes()]));
    }
    all
}

impl Seen {
    /// Whether a result was not seen before; it is from now on, by all its hashes.
    pub fn is_new(&mut self, found: &Found) -> bool {
        let marks = marks(found);
        let new = !marks.iter().any(|mark| self.marks.contains(mark));
        if self.marks.len() + marks.len() > MAX_SEEN {
            return false;
        }
        self.marks.extend(marks);
        new
    }

    /// The marks side by side, ascending.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.marks.iter().flatten().copied().collect()
    }

    /// What [`Seen::to_bytes`] wrote; none if it is something else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (marks, rest) = bytes.as_chunks::<MARK>();
        let sound = rest.is_empty() && marks.len() <= MAX_SEEN && marks.is_sorted_by(|a, b| a < b);
        sound.then(|| Self {
            marks: marks.iter().copied().collect(),
        })
    }
}
