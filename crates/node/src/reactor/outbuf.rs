//! What is being sent on a connection: control bytes and blocks, ready for one system call.

use std::io::IoSliceMut;

/// A buffer of which `sent..filled` still has to go out. Its memory stays initialised between
/// uses, so that filling it with file data costs no clearing.
#[derive(Default)]
pub(super) struct OutBuf {
    bytes: Vec<u8>,
    sent: usize,
    filled: usize,
}

impl OutBuf {
    /// What still has to be sent.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..self.filled]
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    /// The first `n` pending bytes went out.
    pub(super) fn advance(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.filled);
        if self.is_empty() {
            (self.sent, self.filled) = (0, 0);
        }
    }

    /// Adds bytes to be sent.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds `len` bytes to be sent, for the caller to fill in.
    pub(super) fn reserve(&mut self, len: usize) -> &mut [u8] {
        let from = self.filled;
        self.filled += len;
        if self.bytes.len() < self.filled {
            self.bytes.resize(self.filled, 0);
        }
        &mut self.bytes[from..self.filled]
    }

    /// Takes back the last `len` bytes added.
    pub(super) fn unreserve(&mut self, len: usize) {
        self.filled = self.filled.saturating_sub(len).max(self.sent);
    }

    /// The `data_len`-byte gaps that follow each `header_len`-byte header in the last bytes added.
    pub(super) fn gaps<'a>(
        added: &'a mut [u8],
        header_len: usize,
        data_lens: impl Iterator<Item = usize>,
    ) -> Vec<IoSliceMut<'a>> {
        let mut rest = added;
        data_lens
            .map(|len| {
                let (_, tail) = std::mem::take(&mut rest).split_at_mut(header_len);
                let (gap, tail) = tail.split_at_mut(len);
                rest = tail;
                IoSliceMut::new(gap)
            })
            .collect()
    }

    /// Gives the memory back when it is large and nothing is pending.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.bytes.len() > 4096 {
            self.bytes = Vec::new();
        }
    }
}
