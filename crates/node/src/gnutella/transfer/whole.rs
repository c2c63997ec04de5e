//! The SHA-1 of a whole file while it comes: hashed as far as it is there without a gap.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use sha1::{Digest, Sha1};
use shoal_store::{StoreError, TorrentFiles};

/// Bytes read at a time: they stay in the processor's cache until hashed.
const READ: usize = 64 << 10;

/// A hash on its way; its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Whole {
    upto: Sender<u64>,
    /// The hash, once all is there.
    pub(super) result: Receiver<Result<[u8; 20], StoreError>>,
}

impl Whole {
    /// Begins to hash a file of `len` bytes.
    pub(super) fn spawn(files: Arc<TorrentFiles>, len: u64) -> std::io::Result<Self> {
        // Holds a message for each piece at most.
        let (upto, told) = unbounded();
        let (sender, result) = bounded(1);
        thread::Builder::new()
            .name("gnutella-sha1".into())
            .stack_size(256 << 10)
            .spawn(move || {
                if let Some(found) = hash(&files, len, &told) {
                    // Whoever waited may be gone.
                    let _ = sender.send(found);
                }
            })?;
        Ok(Self { upto, result })
    }

    /// All bytes before `end` are there.
    pub(super) fn upto(&self, end: u64) {
        // The thread ends early only when it could not read: the result says so.
        let _ = self.upto.send(end);
    }
}

fn hash(
    files: &TorrentFiles,
    len: u64,
    told: &Receiver<u64>,
) -> Option<Result<[u8; 20], StoreError>> {
    let mut hasher = Sha1::new();
    let mut buf = vec![0; READ];
    let mut at = 0;
    while at < len {
        let end = told.recv().ok()?.min(len);
        while at < end {
            let n = usize::try_from(end - at).map_or(READ, |left| left.min(READ));
            let (part, _) = buf.split_at_mut(n);
            if let Err(error) = files.read_at(at, &mut [IoSliceMut::new(part)]) {
                return Some(Err(error));
            }
            hasher.update(&*part);
            at += n as u64;
        }
    }
    Some(Ok(hasher.finalize().into()))
}
