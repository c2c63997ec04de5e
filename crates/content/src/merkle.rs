//! The merkle tree of BitTorrent v2 (BEP 52): SHA-256 over blocks of 16 KiB, two by two.
//!
//! Missing leaves of the last row count as 32 zero bytes. A file longer than a piece has a *piece
//! layer*, the hashes that each stand for one piece; its root is all that an info dictionary holds.

use sha2::{Digest, Sha256};

use crate::block::BLOCK_LEN;

/// SHA-256 of a block or of two hashes.
pub type MerkleHash = [u8; 32];

/// What a file hashes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileTree {
    /// The `pieces root`; none of an empty file, which has no tree.
    pub root: Option<MerkleHash>,
    /// One hash a piece; empty unless the file is longer than a piece.
    pub layer: Vec<MerkleHash>,
}

/// Hashes a file's bytes as they come; holds the leaves of one piece and the piece layer.
#[derive(Clone, Debug)]
pub struct MerkleBuilder {
    block: Sha256,
    in_block: usize,
    /// Blocks of a piece.
    per_piece: usize,
    leaves: Vec<MerkleHash>,
    layer: Vec<MerkleHash>,
}

fn pair(left: &MerkleHash, right: &MerkleHash) -> MerkleHash {
    let both = Sha256::new().chain_update(left).chain_update(right);
    both.finalize().into()
}

/// The root over `row` made as wide as `width`, a power of two, with `pad`.
fn root_of(mut row: Vec<MerkleHash>, width: usize, mut pad: MerkleHash) -> MerkleHash {
    let mut width = width.max(1);
    while width > 1 {
        let pairs = row.chunks(2);
        row = pairs
            .map(|two| match two {
                [left, right] => pair(left, right),
                [left] => pair(left, &pad),
                _ => pad,
            })
            .collect();
        pad = pair(&pad, &pad);
        width /= 2;
    }
    row.first().copied().unwrap_or(pad)
}

impl MerkleBuilder {
    /// For pieces of `piece_len` bytes, a power of two of at least 16 KiB; shorter ones count as
    /// 16 KiB.
    #[must_use]
    pub fn new(piece_len: u32) -> Self {
        Self {
            block: Sha256::new(),
            in_block: 0,
            per_piece: (piece_len / BLOCK_LEN).max(1) as usize,
            leaves: Vec::new(),
            layer: Vec::new(),
        }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_LEN as usize - self.in_block;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.block.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK_LEN as usize {
                self.close_block();
            }
            bytes = later;
        }
    }

    fn close_block(&mut self) {
        if self.in_block == 0 {
            return;
        }
        // A full piece goes to the layer when more comes: a file of one piece has none.
        if self.leaves.len() == self.per_piece {
            self.close_piece();
        }
        self.leaves.push(self.block.finalize_reset().into());
        self.in_block = 0;
    }

    fn close_piece(&mut self) {
        let leaves = std::mem::take(&mut self.leaves);
        self.layer.push(root_of(leaves, self.per_piece, [0; 32]));
    }

    /// What all bytes hash to.
    #[must_use]
    pub fn finish(mut self) -> FileTree {
        self.close_block();
        if self.leaves.is_empty() {
            let (root, layer) = (None, self.layer);
            return FileTree { root, layer };
        }
        if self.layer.is_empty() {
            let width = self.leaves.len().next_power_of_two();
            let root = Some(root_of(self.leaves, width, [0; 32]));
            let layer = Vec::new();
            return FileTree { root, layer };
        }
        self.close_piece();
        let pad = root_of(Vec::new(), self.per_piece, [0; 32]);
        let width = self.layer.len().next_power_of_two();
        FileTree {
            root: Some(root_of(self.layer.clone(), width, pad)),
            layer: self.layer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: all leaves in one row, made a power of two wide with zeros.
    fn naive(bytes: &[u8]) -> Option<MerkleHash> {
        let leaves = bytes.chunks(BLOCK_LEN as usize).map(Sha256::digest);
        let mut row: Vec<MerkleHash> = leaves.map(Into::into).collect();
        if row.is_empty() {
            return None;
        }
        row.resize(row.len().next_power_of_two(), [0; 32]);
        while row.len() > 1 {
            row = row.chunks(2).map(|two| pair(&two[0], &two[1])).collect();
        }
        row.pop()
    }

    #[test]
    fn short_files_have_a_root_and_no_layer() {
        for (len, has_root) in [(0, false), (1, true), (16_384, true), (65_536, true)] {
            let mut builder = MerkleBuilder::new(65_536);
            builder.update(&vec![7; len]);
            let tree = builder.finish();
            assert_eq!(tree.root.is_some(), has_root, "{len}");
            assert!(tree.layer.is_empty());
        }
        let mut builder = MerkleBuilder::new(16_384);
        builder.update(b"short");
        let root: MerkleHash = Sha256::digest(b"short").into();
        assert_eq!(builder.finish().root, Some(root));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn roots_are_those_of_the_definition(
            len in 0..400_000_usize,
            chunk in 1..70_000_usize,
            power in 0..5_u32,
        ) {
            let bytes: Vec<u8> = (0..len).map(|n| (n / 3 % 251) as u8).collect();
            let piece_len = BLOCK_LEN << power;
            let mut builder = MerkleBuilder::new(piece_len);
            bytes.chunks(chunk).for_each(|part| builder.update(part));
            let tree = builder.finish();
            prop_assert_eq!(tree.root, naive(&bytes));
            let pieces = len.div_ceil(piece_len as usize);
            prop_assert_eq!(tree.layer.len(), if pieces > 1 { pieces } else { 0 });
            // A whole piece of the layer is the root of a file of its bytes.
            for (hash, piece) in tree.layer.iter().zip(bytes.chunks_exact(piece_len as usize)) {
                prop_assert_eq!(Some(*hash), naive(piece));
            }
        }
    }
}
