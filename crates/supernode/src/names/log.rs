//! An append-only log as a Merkle tree: RFC 9162, section 2.1 (hashes, inclusion and consistency
//! proofs), over SHA-256.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::token::{Key, Sealed};

/// A node of the tree.
pub type Hash = [u8; 32];
/// Hashes of a proof at most: a tree of 2^64 leaves has no longer one.
pub const MAX_PROOF: usize = 65;

const HEAD: &str = "names head";

/// The hash of a leaf.
pub fn leaf(data: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(data)
        .finalize()
        .into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let both = Sha256::new().chain_update([1]).chain_update(left);
    both.chain_update(right).finalize().into()
}

/// The tree: of each whole subtree its hash, so that proofs cost a few lookups.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Leaves.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |l| l.len() as u64)
    }

    /// Whether there is no leaf.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let Some(row) = self.levels.get_mut(level) else {
                return;
            };
            row.push(hash);
            match row.as_slice() {
                [.., left, right] if row.len().is_multiple_of(2) => hash = node(left, right),
                _ => return,
            }
        }
    }

    /// The hash over leaves `from..to`.
    fn range(&self, from: u64, to: u64) -> Option<Hash> {
        let n = to.checked_sub(from).filter(|n| *n > 0)?;
        if n.is_power_of_two() && from.is_multiple_of(n) {
            let level = self.levels.get(n.trailing_zeros() as usize)?;
            return level.get(usize::try_from(from / n).ok()?).copied();
        }
        let split = from + half(n);
        Some(node(&self.range(from, split)?, &self.range(split, to)?))
    }

    /// The root of the first `size` leaves; of none the hash of nothing.
    pub fn root(&self, size: u64) -> Option<Hash> {
        match size {
            0 => Some(Sha256::digest([]).into()),
            _ => self.range(0, size),
        }
    }

    /// Proves that leaf `index` is among the first `size`.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.len() {
            return None;
        }
        let (mut from, mut to) = (0, size);
        let mut proof = Vec::new();
        while to - from > 1 {
            let split = from + half(to - from);
            if index < split {
                proof.push(self.range(split, to)?);
                to = split;
            } else {
                proof.push(self.range(from, split)?);
                from = split;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// Proves that the first `to` leaves begin with the first `from`.
    pub fn consistency(&self, from: u64, to: u64) -> Option<Vec<Hash>> {
        if from > to || to > self.len() {
            return None;
        }
        let mut proof = Vec::new();
        if from == 0 || from == to {
            return Some(proof);
        }
        let (mut low, mut high, mut whole) = (0, to, true);
        while high != from {
            let split = low + half(high - low);
            if from <= split {
                proof.push(self.range(split, high)?);
                high = split;
            } else {
                proof.push(self.range(low, split)?);
                low = split;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.range(low, high)?);
        }
        proof.reverse();
        Some(proof)
    }
}

/// The largest power of two below `n`, which is at least 2.
fn half(n: u64) -> u64 {
    match n.checked_sub(1).and_then(u64::checked_ilog2) {
        Some(log) => 1 << log,
        None => 1,
    }
}

/// Whether a proof shows that `leaf` is number `index` of the tree with this size and root.
pub fn includes(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for other in proof {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            hash = node(other, &hash);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, other);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether a proof shows that the tree of size and root `to` begins with that of `from`.
pub fn extends(from: (u64, &Hash), to: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((first, old), (second, new)) = (from, to);
    if first == second || first == 0 {
        return first <= second && proof.is_empty() && (first == 0 || old == new);
    }
    if first > second {
        return false;
    }
    let (begin, rest) = match (first.is_power_of_two(), proof.split_first()) {
        (true, _) => (*old, proof),
        (false, Some((begin, rest))) => (*begin, rest),
        (false, None) => return false,
    };
    let (mut at, mut last) = (first - 1, second - 1);
    while at % 2 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut one, mut two) = (begin, begin);
    for other in rest {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            one = node(other, &one);
            two = node(other, &two);
            while at.is_multiple_of(2) && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            two = node(&two, other);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && one == *old && two == *new
}

/// The log at one moment, as the login server signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// When it was signed, in Unix seconds.
    pub unix: u64,
    seal: Sealed,
}

impl Head {
    /// Signs one.
    pub fn sign(server: &SigningKey, size: u64, root: Hash, unix: u64) -> Self {
        let seal = Sealed::new(server, HEAD, &(size, root, unix));
        Self {
            size,
            root,
            unix,
            seal,
        }
    }

    /// Whether this login server signed it.
    pub fn is_by(&self, server: &Key) -> bool {
        self.seal
            .is_by(server, HEAD, &(self.size, self.root, self.unix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(n: u64) -> Tree {
        let mut tree = Tree::default();
        (0..n).for_each(|i| tree.push(leaf(&i.to_be_bytes())));
        tree
    }

    /// The roots of the tree in RFC 6962's reference implementation (Certificate Transparency).
    #[test]
    fn the_published_roots_come_out() {
        let hex = shoal_base::id::to_hex;
        let leaves: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let mut tree = Tree::default();
        leaves.iter().for_each(|l| tree.push(leaf(l)));
        let root = |n| hex(&tree.root(n).expect("there"));
        assert_eq!(
            root(0),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            root(1),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            root(2),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
        assert_eq!(
            root(3),
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
        );
        assert_eq!(
            root(8),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    #[test]
    fn every_leaf_and_every_beginning_is_proven_and_nothing_else() {
        let big = tree(40);
        for size in 1..=40 {
            let root = big.root(size).expect("there");
            for index in 0..size {
                let proof = big.inclusion(index, size).expect("proven");
                let own = leaf(&index.to_be_bytes());
                assert!(
                    includes(&own, index, size, &root, &proof),
                    "{index} of {size}"
                );
                assert!(!includes(&leaf(b"x"), index, size, &root, &proof));
                assert!(!includes(&own, index + 1, size, &root, &proof) || size == 0);
            }
            for from in 0..=size {
                let old = big.root(from).expect("there");
                let proof = big.consistency(from, size).expect("proven");
                assert!(
                    extends((from, &old), (size, &root), &proof),
                    "{from} {size}"
                );
                if from > 0 {
                    assert!(!extends((from, &leaf(b"x")), (size, &root), &proof));
                    assert!(!extends((from, &old), (size, &leaf(b"x")), &proof));
                }
            }
        }
        assert_eq!(big.inclusion(40, 40), None);
        assert_eq!(big.consistency(3, 41), None);
    }

    proptest! {
        #[test]
        fn any_proof_is_checked_or_refused(
            index: u64, size: u64, first: u64,
            proof in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            let root = [7; 32];
            prop_assert!(!includes(&[1; 32], index, size, &root, &proof));
            let shown = extends((first, &[2; 32]), (size, &root), &proof);
            prop_assert!(!shown || first == 0);
        }
    }
}
