//! Reads the records of one run.

use super::super::error::{DataError, RunError};
use super::block::read_block;
use crate::batch::HEADER_BYTES;
use std::fmt;
use std::io::Read;

/// Where a run came from, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A map task: index in the list that the reduce was given.
    Map(usize),
    /// A scratch file of this attempt.
    Spill,
}

/// A run as it is read: one record at a time, with one block in memory.
pub struct RunReader {
    source: Box<dyn Read + Send>,
    origin: Origin,
    /// Stored bytes before the next block.
    next_block: u64,
    /// Stored bytes before the block in memory.
    this_block: u64,
    block: Vec<u8>,
    stored: Vec<u8>,
    key: usize,
    value: usize,
    end: usize,
    ended: bool,
}

impl fmt::Debug for RunReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunReader")
            .field("this_block", &self.this_block)
            .field("end", &self.end)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl RunReader {
    /// Reads a run from `source`. Nothing is read before the first call of [`RunReader::advance`].
    pub fn new(source: Box<dyn Read + Send>, origin: Origin) -> Self {
        Self {
            source,
            origin,
            next_block: 0,
            this_block: 0,
            block: Vec::new(),
            stored: Vec::new(),
            key: 0,
            value: 0,
            end: 0,
            ended: false,
        }
    }

    /// Goes to the next record; false when there is none.
    ///
    /// # Errors
    /// When the run cannot be read or is not what a map wrote. It has ended then.
    #[inline]
    pub fn advance(&mut self) -> Result<bool, DataError> {
        if self.end == self.block.len() && !self.load()? {
            return Ok(false);
        }
        let rest = self.block.get(self.end..).unwrap_or_default();
        let Some((&[a, b, c, d, e, f, g, h], body)) = rest.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(self.halved());
        };
        let key_len = u32::from_le_bytes([a, b, c, d]) as usize;
        let value_len = u32::from_le_bytes([e, f, g, h]) as usize;
        // Neither sum overflows: both lengths have 32 bits, usize has 64.
        if key_len + value_len > body.len() {
            return Err(self.halved());
        }
        self.key = self.end + HEADER_BYTES;
        self.value = self.key + key_len;
        self.end = self.value + value_len;
        Ok(true)
    }

    /// The key of the record that [`RunReader::advance`] went to.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.block.get(self.key..self.value).unwrap_or_default()
    }

    /// Its value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.block.get(self.value..self.end).unwrap_or_default()
    }

    /// Key and value with their lengths, as [`crate::batch`] has them.
    #[inline]
    pub fn record(&self) -> &[u8] {
        let start = self.key.saturating_sub(HEADER_BYTES);
        self.block.get(start..self.end).unwrap_or_default()
    }

    /// Stored bytes read so far.
    pub const fn stored_bytes(&self) -> u64 {
        self.next_block
    }

    #[cold]
    fn halved(&mut self) -> DataError {
        self.finish();
        self.fault(RunError::Block {
            at: self.this_block,
            what: "ends within a record",
        })
    }

    fn fault(&self, problem: RunError) -> DataError {
        match self.origin {
            Origin::Map(run) => DataError::Run { run, problem },
            Origin::Spill => DataError::Spill(problem),
        }
    }

    /// The error for a record that comes after a greater one.
    #[cold]
    pub fn out_of_order(&self) -> DataError {
        self.fault(RunError::Order {
            at: self.this_block,
        })
    }

    fn finish(&mut self) {
        self.ended = true;
        self.block = Vec::new();
        self.stored = Vec::new();
        (self.key, self.value, self.end) = (0, 0, 0);
    }

    #[cold]
    fn load(&mut self) -> Result<bool, DataError> {
        if self.ended {
            return Ok(false);
        }
        let read = read_block(
            &mut self.source,
            self.next_block,
            &mut self.block,
            &mut self.stored,
        );
        let len = match read {
            Ok(len) => len,
            Err(e) => {
                self.finish();
                return Err(self.fault(e));
            }
        };
        self.this_block = self.next_block;
        self.next_block += len;
        self.end = 0;
        if self.block.is_empty() {
            self.finish();
        }
        Ok(!self.ended)
    }
}
