//! Writes runs: partition after partition, to memory or to a scratch file.

use super::super::error::DataError;
use super::super::scratch::{Scratch, Section, Storage};
use super::block::{Codec, MAX_RECORD_BYTES, write_block};
use super::index::{Index, IndexEntry};
use super::read::{Origin, RunReader};
use crate::batch;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes that are in memory until there are too many, then in a file.
pub enum Growing {
    /// At most as long as the limit.
    Memory {
        /// The bytes.
        bytes: Vec<u8>,
        /// Above this they move to a file.
        limit: usize,
    },
    /// Longer.
    File(Box<dyn Scratch>),
}

impl Growing {
    /// Nothing yet; moves to a file above `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self::Memory {
            bytes: Vec::new(),
            limit,
        }
    }

    fn append(&mut self, more: &[u8], storage: &mut dyn Storage) -> io::Result<()> {
        match self {
            Self::Memory { bytes, limit } if bytes.len() + more.len() <= *limit => {
                bytes.extend_from_slice(more);
            }
            Self::Memory { bytes, .. } => {
                let mut file = storage.output()?;
                file.append(bytes)?;
                file.append(more)?;
                *self = Self::File(file);
            }
            Self::File(file) => file.append(more)?,
        }
        Ok(())
    }
}

impl Growing {
    /// The same for reading, where `index` says what stands where.
    pub fn into_runs(self, index: Index) -> Runs {
        match self {
            Self::Memory { mut bytes, .. } => {
                bytes.shrink_to_fit();
                let bytes = Arc::new(bytes);
                Runs {
                    data: bytes.clone(),
                    in_memory: Some(bytes),
                    index,
                }
            }
            Self::File(file) => Runs::new(Arc::from(file), index),
        }
    }
}

/// Where runs are: in memory or in a file, and where in it.
#[derive(Clone)]
pub struct Runs {
    data: Arc<dyn Scratch>,
    in_memory: Option<Arc<Vec<u8>>>,
    /// Where each partition's run is.
    pub index: Index,
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runs")
            .field("in_memory", &self.in_memory.is_some())
            .field("index", &self.index)
            .finish()
    }
}

impl Runs {
    /// Runs that stand in `data` as `index` says.
    pub fn new(data: Arc<dyn Scratch>, index: Index) -> Self {
        Self {
            data,
            in_memory: None,
            index,
        }
    }

    /// All bytes, if they are in memory.
    pub fn memory(&self) -> Option<&Arc<Vec<u8>>> {
        self.in_memory.as_ref()
    }

    /// The stored bytes of one partition's run as a stream; empty for a partition that is not there.
    pub fn section(&self, partition: u32) -> Section {
        let entry = self.entry(partition);
        Section::new(self.data.clone(), entry.offset, entry.stored_len)
    }

    /// The index entry of a partition.
    pub fn entry(&self, partition: u32) -> IndexEntry {
        self.index
            .entries
            .get(partition as usize)
            .copied()
            .unwrap_or_default()
    }

    /// The records of one partition's run.
    pub fn reader(&self, partition: u32, origin: Origin) -> RunReader {
        RunReader::new(Box::new(self.section(partition)), origin)
    }
}

/// Writes runs, partition by partition in order.
pub struct RunsWriter<'a> {
    storage: &'a mut dyn Storage,
    out: Growing,
    codec: Codec,
    block_bytes: usize,
    raw: Vec<u8>,
    stored: Vec<u8>,
    written: u64,
    index: Index,
    open: IndexEntry,
}

impl fmt::Debug for RunsWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunsWriter")
            .field("written", &self.written)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl<'a> RunsWriter<'a> {
    /// Writes to `out`, which holds `start` bytes already, in blocks of about `block_bytes`.
    pub fn new(
        storage: &'a mut dyn Storage,
        out: Growing,
        start: u64,
        codec: Codec,
        block_bytes: usize,
    ) -> Self {
        Self {
            storage,
            out,
            codec,
            block_bytes,
            raw: Vec::new(),
            stored: Vec::new(),
            written: start,
            index: Index::default(),
            open: IndexEntry {
                offset: start,
                ..IndexEntry::default()
            },
        }
    }

    /// Adds a record to the open partition's run.
    ///
    /// # Errors
    /// When it is too long, or the scratch file fails.
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataError> {
        let len = batch::HEADER_BYTES + key.len() + value.len();
        self.room(len)?;
        batch::push(&mut self.raw, key, value).map_err(|_| too_long(len))
    }

    /// Adds a record that is laid out as [`crate::batch`] says.
    ///
    /// # Errors
    /// As for [`RunsWriter::push`].
    #[inline]
    pub fn push_record(&mut self, record: &[u8]) -> Result<(), DataError> {
        self.room(record.len())?;
        self.raw.extend_from_slice(record);
        Ok(())
    }

    #[inline]
    fn room(&mut self, len: usize) -> Result<(), DataError> {
        if len > MAX_RECORD_BYTES {
            return Err(too_long(len));
        }
        if self.raw.len() + len > self.block_bytes && !self.raw.is_empty() {
            self.flush()?;
        }
        self.open.raw_len += len as u64;
        self.open.records += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.stored.clear();
        write_block(self.codec, &self.raw, &mut self.stored);
        self.raw.clear();
        self.written += self.stored.len() as u64;
        self.out
            .append(&self.stored, self.storage)
            .map_err(DataError::Scratch)
    }

    /// Ends the open partition's run and opens the next one's.
    ///
    /// # Errors
    /// When the scratch file fails.
    pub fn end_partition(&mut self) -> Result<(), DataError> {
        if !self.raw.is_empty() {
            self.flush()?;
        }
        self.flush()?;
        self.open.stored_len = self.written - self.open.offset;
        self.index.entries.push(self.open);
        self.open = IndexEntry {
            offset: self.written,
            ..IndexEntry::default()
        };
        Ok(())
    }

    /// What was written, for further writing to the same place, and where that ends.
    pub fn into_parts(self) -> (Growing, Index, u64) {
        (self.out, self.index, self.written)
    }

    /// What was written, for reading.
    pub fn finish(self) -> Runs {
        self.out.into_runs(self.index)
    }
}

#[cold]
fn too_long(len: usize) -> DataError {
    DataError::RecordTooLong {
        bytes: len as u64,
        limit: MAX_RECORD_BYTES as u64,
    }
}
