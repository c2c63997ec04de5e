//! Pieces and blocks: how a content's byte range is cut.

/// Bytes in a full block, the unit of a request (BEP 3: "all current implementations use 2^14").
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The number of a piece, from zero.
pub type PieceIndex = u32;

/// A range inside one piece: what a request asks for and a piece message carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block {
    /// The piece it lies in.
    pub piece: PieceIndex,
    /// Offset of its first byte within the piece.
    pub begin: u32,
    /// Length in bytes; [`BLOCK_LEN`] but for the last block of the last piece.
    pub len: u32,
}

/// How a byte range of `total_len` is cut into pieces and blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    total_len: u64,
    piece_len: u32,
}

impl Geometry {
    /// A cut of `total_len` bytes into pieces of `piece_len`; none if the piece length is zero or
    /// the pieces cannot be numbered in 32 bits.
    pub fn new(total_len: u64, piece_len: u32) -> Option<Self> {
        if piece_len == 0 || total_len.div_ceil(u64::from(piece_len)) > u64::from(u32::MAX) {
            return None;
        }
        Some(Self {
            total_len,
            piece_len,
        })
    }

    /// Bytes in all.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Bytes in every piece but the last.
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u32 {
        self.total_len.div_ceil(u64::from(self.piece_len)) as u32
    }

    /// Bytes in `piece`; zero past the end.
    pub fn piece_size(&self, piece: PieceIndex) -> u32 {
        let start = u64::from(piece) * u64::from(self.piece_len);
        self.total_len
            .saturating_sub(start)
            .min(u64::from(self.piece_len)) as u32
    }

    /// Offset of the first byte of `piece`.
    pub fn piece_start(&self, piece: PieceIndex) -> u64 {
        u64::from(piece) * u64::from(self.piece_len)
    }

    /// How many blocks `piece` has.
    pub fn blocks(&self, piece: PieceIndex) -> u32 {
        self.piece_size(piece).div_ceil(BLOCK_LEN)
    }

    /// Block number `n` of `piece`.
    pub fn block(&self, piece: PieceIndex, n: u32) -> Block {
        let begin = n * BLOCK_LEN;
        Block {
            piece,
            begin,
            len: self.piece_size(piece).saturating_sub(begin).min(BLOCK_LEN),
        }
    }

    /// Whether `block` is one that [`Geometry::block`] would give: aligned, whole, in range.
    pub fn is_block(&self, block: Block) -> bool {
        block.len > 0
            && block.begin.is_multiple_of(BLOCK_LEN)
            && self.block(block.piece, block.begin / BLOCK_LEN) == block
    }

    /// Whether `block` lies inside its piece, aligned or not: what a peer may ask of us.
    pub fn contains(&self, block: Block) -> bool {
        block.len > 0
            && u64::from(block.begin) + u64::from(block.len)
                <= u64::from(self.piece_size(block.piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_tile_the_range(total in 0u64..5_000_000, piece_len in 1u32..300_000) {
            let g = Geometry::new(total, piece_len).expect("few pieces");
            let mut sum = 0;
            for p in 0..g.pieces() {
                let mut begin = 0;
                for n in 0..g.blocks(p) {
                    let b = g.block(p, n);
                    prop_assert!(g.is_block(b) && g.contains(b));
                    prop_assert_eq!(b.begin, begin);
                    begin += b.len;
                    sum += u64::from(b.len);
                }
                prop_assert_eq!(begin, g.piece_size(p));
            }
            prop_assert_eq!(sum, total);
            prop_assert_eq!(g.piece_size(g.pieces()), 0);
        }
    }

    #[test]
    fn refuses_what_cannot_be_numbered() {
        assert_eq!(Geometry::new(10, 0), None);
        assert_eq!(Geometry::new(u64::MAX, 1), None);
    }
}
