//! What outputs hash to, so that results of strangers can be compared and what is fetched from them
//! be checked: SHA-256 over the length (u64, little endian) and the SHA-256 of each partition, in
//! order. Who fetches one partition is given the list of all and checks both.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shoal_mapreduce::message::Digest;
use std::io::{self, Read};

/// The digest of what nobody compares.
pub(crate) const NONE: Digest = [0; 32];

/// One partition of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

/// Takes in a partition as it comes.
#[derive(Clone, Default)]
pub(crate) struct PartHasher {
    bytes: u64,
    hash: Sha256,
}

impl PartHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub(crate) fn finish(self) -> Part {
        Part {
            bytes: self.bytes,
            hash: self.hash.finalize().into(),
        }
    }
}

/// Reads a partition to its end.
pub(crate) fn part_of(mut from: impl Read) -> io::Result<Part> {
    let mut all = PartHasher::default();
    let mut chunk = vec![0; 128 << 10];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(all.finish()),
            Ok(n) => all.update(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The digest of an output of these partitions.
pub fn of(parts: &[Part]) -> Digest {
    let mut all = Sha256::new();
    for part in parts {
        all.update(part.bytes.to_le_bytes());
        all.update(part.hash);
    }
    all.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_the_borders_of_partitions_count() {
        let part = |text: &str| part_of(text.as_bytes()).expect("reads");
        let (ab, c, a, bc) = (part("ab"), part("c"), part("a"), part("bc"));
        assert_eq!(of(&[ab, c]), of(&[part("ab"), part("c")]));
        assert_ne!(of(&[ab, c]), of(&[c, ab]));
        assert_ne!(of(&[ab, c]), of(&[a, bc]));
        assert_ne!(of(&[ab]), of(&[ab, part("")]));
    }
}
