//! Why a task's data could not be processed.

use super::sorted_lines::LinesError;
use crate::code::CodeError;
use std::io;

/// An attempt failed. The three causes call for different reactions: code fails again elsewhere,
/// a damaged run means running its map task again, a full disk means another machine.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The mapper, combiner or reducer failed.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// A run is not what a map task wrote.
    #[error("run {run}: {problem}")]
    Run {
        /// Index of the run in the list that the reduce was given.
        run: usize,
        /// What is wrong with it, and where.
        problem: RunError,
    },
    /// A run in a scratch file of this attempt is not what was written there.
    #[error("a spilled run: {0}")]
    Spill(#[source] RunError),
    /// Lines from elsewhere are not what a reducer takes.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The index of a map output is not what a map task wrote.
    #[error("index of a map output: {0}")]
    Index(&'static str),
    /// A scratch file could not be made, written or read.
    #[error("scratch file: {0}")]
    Scratch(#[source] io::Error),
    /// The output could not be written.
    #[error("output: {0}")]
    Output(#[source] io::Error),
    /// One record is longer than the format or the memory allows.
    #[error("a record of {bytes} bytes is too long: {limit} bytes are the limit here")]
    RecordTooLong {
        /// Key and value together.
        bytes: u64,
        /// The most that fits.
        limit: u64,
    },
}

/// What is wrong with a run of records.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be read.
    #[error("reading its block at byte {at}: {source}")]
    Read {
        /// Stored bytes before the block.
        at: u64,
        /// What the file or the network says.
        source: io::Error,
    },
    /// A block is damaged.
    #[error("its block at byte {at} {what}")]
    Block {
        /// Stored bytes before the block.
        at: u64,
        /// How it is damaged.
        what: &'static str,
    },
    /// Its keys are not in order.
    #[error("its keys are out of order in the block at byte {at}")]
    Order {
        /// Stored bytes before the block.
        at: u64,
    },
}
