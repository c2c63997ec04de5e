//! The hashes a content is checked against.
//!
//! A v1 torrent has one SHA-1 per piece (BEP 3); a v2 torrent one SHA-256 merkle root per file
//! (BEP 52); a file of Gnutella or Direct Connect a Tiger tree, of which a level stands for its
//! pieces, or nothing but a hash of all of it. Hashing itself happens where the bytes are, in the
//! store.

use crate::PieceIndex;
use crate::tiger::{TigerHash, TigerTree};

/// What the bytes of a content must hash to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PieceHashes {
    /// SHA-1 of every piece.
    V1(Box<[[u8; 20]]>),
    /// SHA-1 of every piece, and the merkle root of every file.
    Hybrid {
        /// One per piece.
        v1: Box<[[u8; 20]]>,
        /// One per file of the layout; none for empty files and padding.
        roots: Box<[Option<[u8; 32]>]>,
    },
    /// Merkle roots alone: can be shown, not yet downloaded.
    V2 {
        /// One per file of the layout; none for empty files and padding.
        roots: Box<[Option<[u8; 32]>]>,
    },
    /// A level of a Tiger tree: the root of the tree of every piece.
    Tiger(Box<[TigerHash]>),
    /// Nothing is known of so many pieces: each is taken as it comes, and the whole judged by who
    /// reads it in the end.
    Unknown(u32),
}

/// What hashing a piece gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceDigest {
    /// Its SHA-1.
    Sha1([u8; 20]),
    /// The root of its own Tiger tree.
    Tiger(TigerHash),
    /// It was not hashed: nothing is known to compare with.
    Unknown,
}

impl PieceHashes {
    /// The lowest level of a tree: a piece for each of its spans.
    pub fn tiger(tree: &TigerTree) -> Self {
        Self::Tiger(tree.spans().into())
    }

    /// How many pieces there are hashes for; none where hashes are not of pieces.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Tiger(level) => level.len(),
            Self::Unknown(pieces) => *pieces as usize,
            _ => self.v1_all().len(),
        }
    }

    /// Whether a piece that hashes to `found` is right. What is not known is right.
    pub fn accepts(&self, piece: PieceIndex, found: &PieceDigest) -> bool {
        let n = piece as usize;
        match (self, found) {
            (Self::Tiger(level), PieceDigest::Tiger(found)) => level.get(n) == Some(found),
            (Self::Unknown(pieces), PieceDigest::Unknown) => piece < *pieces,
            (_, PieceDigest::Sha1(found)) => self.v1_all().get(n) == Some(found),
            _ => false,
        }
    }

    /// SHA-1 of `piece`; none past the end or in a v2-only torrent.
    pub fn v1(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        self.v1_all().get(usize::try_from(piece).ok()?).copied()
    }

    /// SHA-1 of every piece in order; empty in a v2-only torrent.
    pub fn v1_all(&self) -> &[[u8; 20]] {
        match self {
            Self::V1(v1) | Self::Hybrid { v1, .. } => v1,
            Self::V2 { .. } | Self::Tiger(_) | Self::Unknown(_) => &[],
        }
    }

    /// Merkle root of file number `file` of the layout, if it has one.
    pub fn root(&self, file: usize) -> Option<[u8; 32]> {
        match self {
            Self::V1(_) | Self::Tiger(_) | Self::Unknown(_) => None,
            Self::Hybrid { roots, .. } | Self::V2 { roots } => roots.get(file).copied().flatten(),
        }
    }

    /// Cuts the `pieces` string of BEP 3 into hashes; none unless its length is a multiple of 20.
    pub fn cut_v1(pieces: &[u8]) -> Option<Box<[[u8; 20]]>> {
        let (hashes, rest) = pieces.as_chunks::<20>();
        rest.is_empty().then(|| hashes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiger::{TreeBuilder, root_of};

    #[test]
    fn pieces_past_the_end_have_no_hash() {
        let hashes = PieceHashes::V1(PieceHashes::cut_v1(&[7; 40]).expect("two hashes"));
        assert_eq!(hashes.v1(1), Some([7; 20]));
        assert_eq!(hashes.v1(2), None);
        assert_eq!(hashes.root(0), None);
        assert_eq!(PieceHashes::cut_v1(&[7; 39]), None);
        assert_eq!(PieceHashes::V2 { roots: [].into() }.v1(0), None);
        assert!(hashes.accepts(1, &PieceDigest::Sha1([7; 20])));
        assert!(!hashes.accepts(2, &PieceDigest::Sha1([7; 20])));
        assert!(!hashes.accepts(0, &PieceDigest::Unknown));
        let unknown = PieceHashes::Unknown(2);
        assert!(unknown.accepts(1, &PieceDigest::Unknown));
        assert!(!unknown.accepts(2, &PieceDigest::Unknown));
    }

    #[test]
    fn a_level_of_a_tree_stands_for_pieces_that_are_long_enough() {
        let bytes = vec![5; 300_000];
        let mut builder = TreeBuilder::new();
        builder.update(&bytes);
        let tree = builder.finish();
        for (least, span) in [
            (1, 1024),
            (1500, 2048),
            (65_536, 65_536),
            (1 << 30, 524_288),
        ] {
            let tree = tree.clone().with_spans_of(least);
            let hashes = PieceHashes::tiger(&tree);
            assert_eq!(tree.span_len(), span);
            assert_eq!(hashes.pieces(), bytes.len().div_ceil(span as usize));
            for (n, piece) in bytes.chunks(span as usize).enumerate() {
                let digest = PieceDigest::Tiger(root_of(piece).0);
                assert!(hashes.accepts(n as u32, &digest));
            }
            assert!(!hashes.accepts(0, &PieceDigest::Tiger([0; 24])));
        }
    }
}
