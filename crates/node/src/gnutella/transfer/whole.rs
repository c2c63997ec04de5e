//! The hash of a whole file while it comes: hashed as far as it is there without a gap. Its SHA-1, or its Tiger
//! tree's root where that alone is to be compared with.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use sha1::{Digest, Sha1};
use shoal_content::tiger::TreeBuilder;
use shoal_gnutella::huge::Urn;
use shoal_store::{StoreError, TorrentFiles};

/// Bytes read at a time: they stay in the processor's cache until hashed.
const READ: usize = 64 << 10;

/// A hash on its way; its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Whole {
    upto: Sender<u64>,
    /// The hash, once all is there.
    pub(super) result: Receiver<Result<Urn, StoreError>>,
}

impl Whole {
    /// Begins to hash a file of `len` bytes, for comparing with `by`.
    pub(super) fn spawn(files: Arc<TorrentFiles>, len: u64, by: &Urn) -> std::io::Result<Self> {
        let mut hasher = Hasher::of(by);
        // Holds a message for each piece at most.
        let (upto, told) = unbounded();
        let (sender, result) = bounded(1);
        thread::Builder::new()
            .name("gnutella-hash".into())
            .stack_size(256 << 10)
            .spawn(move || {
                if let Some(read) = hash(&mut hasher, &files, len, &told) {
                    // Whoever waited may be gone.
                    let _ = sender.send(read.map(|()| hasher.finish()));
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

/// One of the two hashes.
enum Hasher {
    Sha1(Sha1),
    Tiger(Box<TreeBuilder>),
}

impl Hasher {
    fn of(urn: &Urn) -> Self {
        match urn {
            Urn::Sha1(_) | Urn::Bitprint(..) => Self::Sha1(Sha1::new()),
            Urn::Tiger(_) => Self::Tiger(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Tiger(builder) => builder.update(bytes),
        }
    }

    fn finish(self) -> Urn {
        match self {
            Self::Sha1(hasher) => Urn::Sha1(hasher.finalize().into()),
            Self::Tiger(builder) => Urn::Tiger(builder.finish().root()),
        }
    }
}

/// Hashes all of it; none if whoever wanted that is gone.
fn hash(
    hasher: &mut Hasher,
    files: &TorrentFiles,
    len: u64,
    told: &Receiver<u64>,
) -> Option<Result<(), StoreError>> {
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
    Some(Ok(()))
}
