//! What a file is: pieces, hashes and names; and the multi-source download of it.
//!
//! Knows neither where blocks come from nor how they reach a disk.

pub mod block;

pub use block::{BLOCK_LEN, Block, Geometry, PieceIndex};
