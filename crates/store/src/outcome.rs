//! What hashing a piece came to.

/// SHA-1 of one block: tells which of several senders of a bad piece lied.
pub type BlockDigest = [u8; 20];

/// Whether a piece matches its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceOutcome {
    /// It does.
    Verified {
        /// SHA-1 of every block in order, if the piece had been corrupt before.
        digests: Option<Vec<BlockDigest>>,
    },
    /// It does not; its blocks are to be requested anew.
    Corrupt {
        /// SHA-1 of every block in order; empty if they could not be read back.
        digests: Vec<BlockDigest>,
    },
}
