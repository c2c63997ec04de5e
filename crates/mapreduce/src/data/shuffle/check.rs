//! Checks a run's stored bytes as they pass, without unpacking them: what a reduce task does with
//! bytes that it fetches and keeps.

use super::super::error::RunError;
use super::block::{BLOCK_HEADER_BYTES, Header};

/// The sums of one run's blocks, as its bytes pass in pieces of any size.
#[derive(Debug, Default)]
pub struct StoredCheck {
    /// Bytes of the header that came so far.
    header: [u8; BLOCK_HEADER_BYTES],
    header_len: usize,
    /// Bytes of the block's body that are still to come, and what their sum is and should be.
    left: usize,
    sum: u32,
    expected: u32,
    /// Stored bytes before the block.
    at: u64,
    ended: bool,
}

impl StoredCheck {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When a block is damaged, or bytes come after the last.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), RunError> {
        while !bytes.is_empty() {
            if self.ended {
                return Err(self.wrong("comes after the last"));
            }
            if self.header_len < BLOCK_HEADER_BYTES {
                let len = bytes.len().min(BLOCK_HEADER_BYTES - self.header_len);
                let (some, rest) = bytes.split_at(len);
                let place = self.header_len..self.header_len + len;
                if let Some(place) = self.header.get_mut(place) {
                    place.copy_from_slice(some);
                }
                self.header_len += len;
                bytes = rest;
                if self.header_len == BLOCK_HEADER_BYTES {
                    let header = Header::parse(&self.header).map_err(|what| self.wrong(what))?;
                    self.left = header.stored_len;
                    self.sum = header.sum_so_far;
                    self.expected = header.sum;
                    self.ended = header.raw_len == 0;
                }
            } else {
                let (some, rest) = bytes.split_at(bytes.len().min(self.left));
                self.sum = crc32c::crc32c_append(self.sum, some);
                self.left -= some.len();
                bytes = rest;
            }
            if self.header_len == BLOCK_HEADER_BYTES && self.left == 0 {
                if self.sum != self.expected {
                    return Err(self.wrong("is damaged: its checksum differs"));
                }
                let stored = u32::from_le_bytes([
                    self.header[4],
                    self.header[5],
                    self.header[6],
                    self.header[7],
                ]);
                self.at += BLOCK_HEADER_BYTES as u64 + u64::from(stored);
                self.header_len = 0;
            }
        }
        Ok(())
    }

    /// There are no more bytes.
    ///
    /// # Errors
    /// When the run has not ended.
    pub fn finish(&self) -> Result<(), RunError> {
        if self.ended && self.header_len == 0 {
            Ok(())
        } else {
            Err(self.wrong("is cut off"))
        }
    }

    const fn wrong(&self, what: &'static str) -> RunError {
        RunError::Block { at: self.at, what }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{Codec, write_block};
    use super::*;
    use proptest::prelude::*;

    fn run() -> Vec<u8> {
        let mut run = Vec::new();
        for raw in [&b"some bytes"[..], &[7; 3000], b""] {
            write_block(Codec::Lz4, raw, &mut run);
        }
        run
    }

    fn check(run: &[u8], step: usize) -> Result<(), RunError> {
        let mut check = StoredCheck::new();
        for piece in run.chunks(step) {
            check.update(piece)?;
        }
        check.finish()
    }

    proptest! {
        #[test]
        fn whole_runs_pass_in_any_pieces_and_no_others(step in 1..70usize, at: usize, bit in 0..8u32) {
            let mut run = run();
            prop_assert!(check(&run, step).is_ok());
            let at = at % run.len();
            prop_assert!(check(&run[..at], step).is_err());
            run[at] ^= 1u8 << bit;
            prop_assert!(check(&run, step).is_err());
        }
    }

    #[test]
    fn bytes_after_the_end_are_found() {
        let mut run = run();
        run.push(0);
        assert!(check(&run, 10).is_err());
    }
}
