//! Blocks of a stream, gathered into buffers that the disk pool takes.

use shoal_content::Block;
use std::io::{self, Read};

/// Bytes in a buffer, at most, unless a single block is longer.
pub(crate) const BUFFER_LEN: usize = 256 * 1024;

/// A buffer, and which blocks begin where in it.
pub(crate) type Full = (Vec<u8>, Vec<(Block, usize)>);

/// The blocks of a run, gathered into buffers of whole blocks.
pub(crate) struct Assembly<'a> {
    blocks: &'a [Block],
    /// How many of them go into the buffer, and how many bytes those are.
    count: usize,
    len: usize,
    buf: Vec<u8>,
}

impl<'a> Assembly<'a> {
    /// Of these blocks, in order.
    pub(crate) fn new(blocks: &'a [Block]) -> Self {
        let mut assembly = Self {
            blocks,
            count: 0,
            len: 0,
            buf: Vec::new(),
        };
        assembly.begin();
        assembly
    }

    fn begin(&mut self) {
        (self.count, self.len) = (0, 0);
        for block in self.blocks {
            let len = self.len + block.len as usize;
            if len > BUFFER_LEN && self.count > 0 {
                break;
            }
            self.len = len;
            self.count += 1;
        }
        self.buf = Vec::with_capacity(self.len);
    }

    /// How much of `len` still fits the buffer.
    fn room(&self, len: u64) -> usize {
        let room = self.len - self.buf.len();
        usize::try_from(len).map_or(room, |len| room.min(len))
    }

    /// Adds zeros, as far as there is room; how many.
    pub(crate) fn zeros(&mut self, len: u64) -> u64 {
        let n = self.room(len);
        self.buf.resize(self.buf.len() + n, 0);
        n as u64
    }

    /// Reads up to `len` bytes, as far as there is room; how many. Fewer than that are an error.
    pub(crate) fn read(&mut self, reader: &mut impl Read, len: u64) -> io::Result<u64> {
        let n = self.room(len) as u64;
        match reader.take(n).read_to_end(&mut self.buf)? {
            got if got as u64 == n && n > 0 => Ok(n),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the body ended early",
            )),
        }
    }

    /// The buffer and what is in it, if it is full.
    pub(crate) fn take(&mut self) -> Option<Full> {
        if self.buf.len() < self.len || self.count == 0 {
            return None;
        }
        let (full, rest) = self.blocks.split_at(self.count);
        self.blocks = rest;
        let buf = std::mem::take(&mut self.buf);
        let mut start = 0;
        let blocks = full
            .iter()
            .map(|block| {
                let at = start;
                start += block.len as usize;
                (*block, at)
            })
            .collect();
        self.begin();
        Some((buf, blocks))
    }
}
