//! Every hash that any overlay names a file by, of one pass over its bytes.

use sha1::{Digest, Sha1};

use crate::create::piece_len_for;
use crate::merkle::{MerkleBuilder, MerkleHash};
use crate::tiger::{TigerTree, TreeBuilder};

/// Bytes hashed by one function before the next takes its turn: they stay in the nearest cache.
const STRIDE: usize = 16 << 10;

/// What a file hashes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileHashes {
    /// Its length in bytes.
    pub len: u64,
    /// SHA-1 of the whole (Gnutella).
    pub sha1: [u8; 20],
    /// Its Tiger tree (Gnutella, Direct Connect).
    pub tree: TigerTree,
    /// Bytes in a piece: what a torrent of this file alone has.
    pub piece_len: u32,
    /// SHA-1 of every piece, if there are several (BEP 3).
    pub pieces: Vec<[u8; 20]>,
    /// The v2 root; none of an empty file (BEP 52).
    pub root: Option<MerkleHash>,
    /// The v2 hash of every piece, if there are several.
    pub layer: Vec<MerkleHash>,
}

/// Hashes a file's bytes as they come.
#[derive(Clone, Debug)]
pub struct FileHasher {
    whole: Sha1,
    tree: TreeBuilder,
    piece_len: u32,
    /// None if one piece holds the file as it was said to be.
    piece: Option<Sha1>,
    in_piece: usize,
    pieces: Vec<[u8; 20]>,
    merkle: MerkleBuilder,
}

impl FileHasher {
    /// For a file of `len` bytes: the pieces follow from it. The hashes of fewer or more bytes
    /// are right, but for pieces when all was said to fit one.
    #[must_use]
    pub fn new(len: u64) -> Self {
        let piece_len = piece_len_for(len);
        Self {
            whole: Sha1::new(),
            tree: TreeBuilder::new(),
            piece_len,
            piece: (len > u64::from(piece_len)).then(Sha1::new),
            in_piece: 0,
            pieces: Vec::new(),
            merkle: MerkleBuilder::new(piece_len),
        }
    }

    /// Bytes hashed so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tree.len()
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(STRIDE) {
            self.whole.update(bytes);
            self.tree.update(bytes);
            self.merkle.update(bytes);
            self.update_pieces(bytes);
        }
    }

    fn update_pieces(&mut self, mut bytes: &[u8]) {
        let Some(piece) = &mut self.piece else {
            return;
        };
        while !bytes.is_empty() {
            let room = self.piece_len as usize - self.in_piece;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            piece.update(now);
            self.in_piece += now.len();
            if self.in_piece == self.piece_len as usize {
                self.pieces.push(piece.finalize_reset().into());
                self.in_piece = 0;
            }
            bytes = later;
        }
    }

    /// The hashes of all bytes.
    #[must_use]
    pub fn finish(mut self) -> FileHashes {
        if let (Some(piece), true) = (self.piece, self.in_piece > 0) {
            self.pieces.push(piece.finalize().into());
        }
        let merkle = self.merkle.finish();
        let tree = self.tree.finish();
        FileHashes {
            len: tree.file_len(),
            sha1: self.whole.finalize().into(),
            tree,
            piece_len: self.piece_len,
            pieces: self.pieces,
            root: merkle.root,
            layer: merkle.layer,
        }
    }
}

impl FileHashes {
    /// SHA-1 of every piece of a torrent of this file alone: of a file that fits one, its own.
    #[must_use]
    pub fn v1_pieces(&self) -> Vec<[u8; 20]> {
        match (self.len, self.pieces.as_slice()) {
            (0, _) => Vec::new(),
            (_, []) => vec![self.sha1],
            (_, pieces) => pieces.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiger::root_of;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn one_pass_gives_what_each_hash_gives_alone(len in 0..200_000_usize, chunk in 1..99_999_usize) {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 / 5) as u8).collect();
            let mut hasher = FileHasher::new(len as u64);
            bytes.chunks(chunk).for_each(|part| hasher.update(part));
            let hashes = hasher.finish();
            prop_assert_eq!(hashes.len, len as u64);
            prop_assert_eq!(hashes.sha1, <[u8; 20]>::from(Sha1::digest(&bytes)));
            prop_assert_eq!(hashes.tree.root(), root_of(&bytes));
            let pieces = bytes.chunks(hashes.piece_len as usize).map(|p| Sha1::digest(p).into());
            prop_assert_eq!(hashes.v1_pieces(), pieces.collect::<Vec<[u8; 20]>>());
            prop_assert_eq!(hashes.pieces.len(), hashes.layer.len());
            prop_assert_eq!(hashes.root.is_none(), len == 0);
        }
    }
}
