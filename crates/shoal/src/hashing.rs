//! SHA-1 of every piece of files on disk, on all processors.
//!
//! Each thread takes the next run of pieces, reads it in order into one small buffer that stays in
//! the processor's cache, and hashes as it reads. Runs are handed out in order, so that the disk
//! sees nearly one sequential read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use sha1::{Digest, Sha1};
use shoal_content::{Geometry, Layout};

/// Bytes read at once: large enough for the disk, small enough for the cache.
const READ_LEN: usize = 256 * 1024;
/// Bytes a thread takes at once, if pieces are smaller.
const RUN_LEN: u64 = 8 * 1024 * 1024;
/// Between calls of the progress function.
const TICK: Duration = Duration::from_millis(100);

/// What to do about files that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnFault {
    /// Stop at the first.
    Stop,
    /// Their pieces have no hash; go on.
    Note,
}

/// The hashes.
#[derive(Debug)]
pub(crate) struct Hashed {
    /// One per piece; none where bytes could not be read.
    pub(crate) pieces: Vec<Option<[u8; 20]>>,
    /// The files that could not be read, by their number in the layout, and why.
    pub(crate) faults: BTreeMap<usize, io::Error>,
    /// Whether `go_on` said no.
    pub(crate) cancelled: bool,
}

/// Hashes every piece of `layout`, whose file number `n` is at `paths[n]`; a file without a path
/// reads as zeros. `go_on` hears of the bytes done several times a second, and may cancel.
pub(crate) fn hash_pieces(
    layout: &Layout,
    paths: &[Option<PathBuf>],
    threads: usize,
    on_fault: OnFault,
    mut go_on: impl FnMut(u64) -> bool,
) -> Hashed {
    let geometry = layout.geometry();
    let shared = Shared {
        layout,
        paths,
        on_fault,
        run: run_len(geometry),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        pieces: Mutex::new(vec![None; geometry.pieces() as usize]),
        faults: Mutex::default(),
    };
    let mut cancelled = false;
    std::thread::scope(|scope| {
        // Nothing is ever sent: the channel closes when the last thread is done.
        let (alive, finished) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..threads.max(1) {
            let alive = alive.clone();
            let shared = &shared;
            scope.spawn(move || {
                shared.work();
                drop(alive);
            });
        }
        drop(alive);
        while finished.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !go_on(shared.done.load(Ordering::Relaxed)) {
                cancelled = true;
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    go_on(shared.done.load(Ordering::Relaxed));
    let unlock = "no thread panics with the lock held";
    Hashed {
        pieces: shared.pieces.into_inner().expect(unlock),
        faults: shared.faults.into_inner().expect(unlock),
        cancelled,
    }
}

/// Pieces in a run.
fn run_len(geometry: Geometry) -> u32 {
    (RUN_LEN / u64::from(geometry.piece_len())).max(1) as u32
}

struct Shared<'a> {
    layout: &'a Layout,
    paths: &'a [Option<PathBuf>],
    on_fault: OnFault,
    run: u32,
    /// The next run; 64 bits so that it cannot wrap.
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    pieces: Mutex<Vec<Option<[u8; 20]>>>,
    faults: Mutex<BTreeMap<usize, io::Error>>,
}

/// What one thread holds: its buffer and the file it read last.
struct Reader {
    buf: Vec<u8>,
    open: Option<(usize, File)>,
}

impl Shared<'_> {
    fn work(&self) {
        let pieces = self.layout.geometry().pieces();
        let mut reader = Reader {
            buf: vec![0; READ_LEN],
            open: None,
        };
        let mut hashes = Vec::with_capacity(self.run as usize);
        loop {
            let run = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(first) = u32::try_from(run)
                .ok()
                .and_then(|run| run.checked_mul(self.run))
                .filter(|first| *first < pieces)
            else {
                return;
            };
            let end = first.saturating_add(self.run).min(pieces);
            hashes.clear();
            for piece in first..end {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                hashes.push(self.hash(piece, &mut reader));
            }
            let mut all = self
                .pieces
                .lock()
                .expect("no thread panics with the lock held");
            all[first as usize..end as usize].copy_from_slice(&hashes);
        }
    }

    fn hash(&self, piece: u32, reader: &mut Reader) -> Option<[u8; 20]> {
        let mut sha1 = Sha1::new();
        let mut whole = true;
        for span in self.layout.piece_spans(piece) {
            if !whole {
                break;
            }
            let path = self.paths.get(span.file).and_then(Option::as_ref);
            let mut offset = span.offset;
            let end = span.offset + span.len;
            while offset < end {
                let want = (end - offset).min(READ_LEN as u64) as usize;
                let read = match path {
                    Some(path) => reader.read(span.file, path, offset, want),
                    None => {
                        reader.buf[..want].fill(0);
                        Ok(())
                    }
                };
                if let Err(error) = read {
                    self.fault(span.file, error);
                    whole = false;
                    break;
                }
                sha1.update(&reader.buf[..want]);
                offset += want as u64;
            }
        }
        let len = self.layout.geometry().piece_size(piece);
        self.done.fetch_add(u64::from(len), Ordering::Relaxed);
        whole.then(|| sha1.finalize().into())
    }

    fn fault(&self, file: usize, error: io::Error) {
        if self.on_fault == OnFault::Stop {
            self.stop.store(true, Ordering::Relaxed);
        }
        let mut faults = self
            .faults
            .lock()
            .expect("no thread panics with the lock held");
        faults.entry(file).or_insert(error);
    }
}

impl Reader {
    fn read(&mut self, file: usize, path: &PathBuf, offset: u64, len: usize) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(n, _)| *n != file) {
            self.open = None;
            let opened = File::open(path)?;
            // Only a hint: double the kernel's read-ahead.
            let _ = rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::Sequential);
            self.open = Some((file, opened));
        }
        let (_, opened) = self.open.as_ref().expect("opened above");
        opened
            .read_exact_at(&mut self.buf[..len], offset)
            .map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(e.kind(), "it is shorter than expected")
                }
                _ => e,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_content::{FileAttr, SafePath};
    use std::fs;

    fn layout(lens: &[u64], piece_len: u32) -> Layout {
        let files = lens.iter().enumerate().map(|(n, len)| {
            let path = SafePath::new(&format!("t/{n}")).expect("safe");
            (path, *len, FileAttr::default())
        });
        Layout::new(files, piece_len).expect("small")
    }

    fn write(dir: &std::path::Path, lens: &[u64]) -> (Vec<Option<PathBuf>>, Vec<u8>) {
        let mut all = Vec::new();
        let mut paths = Vec::new();
        for (n, len) in lens.iter().enumerate() {
            let data: Vec<u8> = (0..*len).map(|i| (i * 7 + n as u64) as u8).collect();
            let path = dir.join(n.to_string());
            fs::write(&path, &data).expect("a file");
            all.extend(data);
            paths.push(Some(path));
        }
        (paths, all)
    }

    #[test]
    fn pieces_across_files_hash_as_one_range() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lens = [10, 0, 700_000, 33, 1];
        let (paths, all) = write(dir.path(), &lens);
        for piece_len in [16, 1000, 16_384, 1 << 20] {
            for threads in [1, 3] {
                let l = layout(&lens, piece_len);
                let mut last = 0;
                let hashed = hash_pieces(&l, &paths, threads, OnFault::Stop, |done| {
                    assert!(done >= last);
                    last = done;
                    true
                });
                assert_eq!(last, all.len() as u64);
                assert!(hashed.faults.is_empty() && !hashed.cancelled);
                let expected: Vec<Option<[u8; 20]>> = all
                    .chunks(piece_len as usize)
                    .map(|p| Some(Sha1::digest(p).into()))
                    .collect();
                assert_eq!(hashed.pieces, expected);
            }
        }
    }

    #[test]
    fn missing_and_short_files_are_named_and_the_rest_is_hashed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (mut paths, _) = write(dir.path(), &[100, 100, 100, 100]);
        fs::write(dir.path().join("3"), "short").expect("a file");
        paths[1] = Some(dir.path().join("missing"));
        let l = layout(&[100; 4], 50);
        let hashed = hash_pieces(&l, &paths, 2, OnFault::Note, |_| true);
        let whole: Vec<_> = hashed.pieces.iter().map(Option::is_some).collect();
        assert_eq!(whole, [true, true, false, false, true, true, false, false]);
        let faults: Vec<_> = hashed.faults.into_keys().collect();
        assert_eq!(faults, [1, 3]);
    }

    #[test]
    fn files_without_a_path_are_zeros() {
        let l = layout(&[5], 5);
        let hashed = hash_pieces(&l, &[None], 1, OnFault::Stop, |_| true);
        assert_eq!(hashed.pieces, [Some(Sha1::digest([0; 5]).into())]);
    }
}
