//! The hashes a content is checked against.
//!
//! A v1 torrent has one SHA-1 per piece (BEP 3); a v2 torrent one SHA-256 merkle root per file
//! (BEP 52). Hashing itself happens where the bytes are, in the store.

use crate::PieceIndex;

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
}

impl PieceHashes {
    /// SHA-1 of `piece`; none past the end or in a v2-only torrent.
    pub fn v1(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        self.v1_all().get(usize::try_from(piece).ok()?).copied()
    }

    /// SHA-1 of every piece in order; empty in a v2-only torrent.
    pub fn v1_all(&self) -> &[[u8; 20]] {
        match self {
            Self::V1(v1) | Self::Hybrid { v1, .. } => v1,
            Self::V2 { .. } => &[],
        }
    }

    /// Merkle root of file number `file` of the layout, if it has one.
    pub fn root(&self, file: usize) -> Option<[u8; 32]> {
        match self {
            Self::V1(_) => None,
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

    #[test]
    fn pieces_past_the_end_have_no_hash() {
        let hashes = PieceHashes::V1(PieceHashes::cut_v1(&[7; 40]).expect("two hashes"));
        assert_eq!(hashes.v1(1), Some([7; 20]));
        assert_eq!(hashes.v1(2), None);
        assert_eq!(hashes.root(0), None);
        assert_eq!(PieceHashes::cut_v1(&[7; 39]), None);
        assert_eq!(PieceHashes::V2 { roots: [].into() }.v1(0), None);
    }
}
