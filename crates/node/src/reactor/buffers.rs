//! The receive buffers: a fixed number, so that a slow disk slows the senders instead of filling
//! the memory.

use shoal_store::WriteBatch;

/// Bytes in a receive buffer: large enough to amortise a system call, small enough for the cache;
/// a quarter of a megabyte and half a block in hand. No web seed's buffer has this length.
pub(super) const BUFFER_LEN: usize = 264 * 1024;
/// A read is only begun with this much room, so that the kernel can hand over whole blocks.
pub(super) const MIN_ROOM: usize = 48 * 1024;
/// Buffers in all: 8 MiB between the sockets and the disk.
const MAX_BUFFERS: usize = 32;

/// A batch being filled from the sockets.
pub(super) struct Filling {
    pub(super) batch: WriteBatch,
    /// Bytes of the buffer in use.
    pub(super) used: usize,
}

/// The buffers that are not in use.
#[derive(Default)]
pub(super) struct BufferPool {
    free: Vec<Vec<u8>>,
    made: usize,
}

impl BufferPool {
    /// A buffer, unless all are in flight.
    pub(super) fn take(&mut self) -> Option<Filling> {
        let buf = match self.free.pop() {
            Some(buf) => buf,
            None if self.made < MAX_BUFFERS => {
                self.made += 1;
                vec![0; BUFFER_LEN]
            }
            None => return None,
        };
        Some(Filling {
            batch: WriteBatch {
                buf,
                blocks: Vec::new(),
            },
            used: 0,
        })
    }

    /// Takes back a buffer that came from here; false, and lets it go, if it did not (a web
    /// seed's own).
    pub(super) fn give_back(&mut self, buf: Vec<u8>) -> bool {
        let ours = buf.len() == BUFFER_LEN && self.free.len() < self.made;
        if ours {
            self.free.push(buf);
        }
        ours
    }

    /// Whether a buffer can be had now.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.made < MAX_BUFFERS
    }

    /// Whether every buffer made is here: nothing is on its way to the disk.
    pub(super) fn all_home(&self) -> bool {
        self.free.len() == self.made
    }
}
