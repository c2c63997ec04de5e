//! The format in which sorted records travel from maps to reduces, and to and from scratch files:
//! `docs/protocols/shuffle.md`.
//!
//! A *run* is what one map task has for one partition, in order of the keys: blocks of whole
//! records, each checked and compressed by itself, and a last, empty block, so that a run that was
//! cut off is told from one that ended. The output of a map task is all its runs in one file
//! and an *index* of where each begins.

mod block;
mod check;
mod index;
mod read;
mod write;

pub use block::{BLOCK_HEADER_BYTES, Codec, MAX_BLOCK_BYTES, MAX_RECORD_BYTES};
pub use check::StoredCheck;
pub use index::{Index, IndexEntry};
pub use read::{Origin, RunReader};
pub use write::{Growing, Runs, RunsWriter};
