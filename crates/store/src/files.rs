//! A content's files in a folder: positioned vectored reads and writes over its one range of
//! bytes.
//!
//! Files are made when first written, sparse unless room is to be reserved. Padding never touches
//! the disk. No path is followed through a symbolic link (see [`crate::folder`]).

mod whole;

use std::io::{IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, FileType, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use shoal_content::{FileEntry, Layout};
use smallvec::SmallVec;

use crate::error::{Operation, StoreError};
use crate::fd_cache::{FdCache, OpenFile};
use crate::folder::Folder;

pub(crate) use whole::missing_pieces;

/// Most parts one system call takes (IOV_MAX).
const MAX_PARTS: usize = 1024;

/// How a content's files are opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Whether files may be made and written; the folder is then made if missing.
    pub writable: bool,
    /// Whether a file's room is reserved when it is made (where the file system can), so that a
    /// full disk shows at the start and the file lies in one piece.
    pub preallocate: bool,
    /// How many files may be open at a time.
    pub max_open: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            writable: true,
            preallocate: false,
            max_open: 128,
        }
    }
}

/// What a file looked like from outside: enough to notice that it was changed by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of its bytes, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// A content's files in a folder.
#[derive(Debug)]
pub struct TorrentFiles {
    folder: RwLock<Arc<Folder>>,
    layout: Arc<Layout>,
    options: OpenOptions,
    open: Mutex<FdCache>,
    /// One bit per file: written since the last sync.
    dirty: Box<[AtomicU64]>,
    /// One bit per file: was there when last opened. Such a file is not made again when it is
    /// missing, for what it held is lost then: an error tells, and [`TorrentFiles::probe`] forgets.
    seen: Box<[AtomicU64]>,
    /// Whether reads that must not wait are refused by this file system.
    no_nowait: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TorrentFiles {
    /// Opens the folder `root` that the files of `layout` go into or lie in; no file is touched.
    pub fn open(
        root: &Path,
        layout: Arc<Layout>,
        options: OpenOptions,
    ) -> Result<Self, StoreError> {
        let folder = Folder::open(root, options.writable)?;
        let words = layout.files().len().div_ceil(64);
        Ok(Self {
            folder: RwLock::new(Arc::new(folder)),
            layout,
            options,
            open: Mutex::new(FdCache::new(options.max_open)),
            dirty: (0..words).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
            no_nowait: AtomicBool::new(false),
        })
    }

    /// Where which file lies.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The folder the files lie in.
    pub fn root(&self) -> PathBuf {
        self.folder().path().to_owned()
    }

    fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.folder.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn entry(&self, file: usize) -> Option<&FileEntry> {
        self.layout.files().get(file)
    }

    fn error(&self, operation: Operation, entry: &FileEntry, errno: Errno) -> StoreError {
        let path = self.folder().path().join(entry.path.as_path());
        StoreError::os(operation, path, errno)
    }

    // ---- reading and writing ----

    /// Writes `parts`, one after the other, at `offset` of the content. Bytes that fall on
    /// padding are dropped; bytes past the end too.
    pub fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<(), StoreError> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let mut skip = 0;
        for span in self.layout.spans(offset, len) {
            let Some(entry) = self.entry(span.file).filter(|e| !e.attr.pad) else {
                skip += span.len as usize;
                continue;
            };
            let file = self.file(span.file, true)?;
            let (mut at, end) = (span.offset, span.offset + span.len);
            while at < end {
                let slices = gather(parts, skip, (end - at) as usize);
                let n = match rustix::io::pwritev(&file.fd, &slices, at) {
                    Ok(0) => return Err(self.error(Operation::Write, entry, Errno::NOSPC)),
                    Ok(n) => n,
                    Err(Errno::INTR) => continue,
                    Err(e) => {
                        self.forget(span.file);
                        return Err(self.error(Operation::Write, entry, e));
                    }
                };
                at += n as u64;
                skip += n;
            }
            // After the write: a sync that clears the mark has then seen the bytes.
            self.mark_dirty(span.file);
        }
        Ok(())
    }

    /// Fills `parts`, one after the other, from `offset` of the content on; padding reads as
    /// zeros. A file that is missing or too short is an error.
    pub fn read_at(&self, offset: u64, parts: &mut [IoSliceMut<'_>]) -> Result<(), StoreError> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let mut skip = 0;
        for span in self.layout.spans(offset, len) {
            let Some(entry) = self.entry(span.file).filter(|e| !e.attr.pad) else {
                zero(parts, skip, span.len as usize);
                skip += span.len as usize;
                continue;
            };
            let file = self.file(span.file, false)?;
            let (mut at, end) = (span.offset, span.offset + span.len);
            while at < end {
                let mut slices = gather_mut(parts, skip, (end - at) as usize);
                let n = match rustix::io::preadv(&file.fd, &mut slices, at) {
                    Ok(0) => {
                        let path = self.folder().path().join(entry.path.as_path());
                        return Err(StoreError::ends_early(Operation::Read, path));
                    }
                    Ok(n) => n,
                    Err(Errno::INTR) => continue,
                    Err(e) => {
                        self.forget(span.file);
                        return Err(self.error(Operation::Read, entry, e));
                    }
                };
                at += n as u64;
                skip += n;
            }
        }
        Ok(())
    }

    /// Like [`TorrentFiles::read_at`], but only from memory and never waiting: false if a file is
    /// not open, a byte is not cached or the file system cannot tell; `parts` may then be half
    /// filled.
    pub fn try_read_cached(
        &self,
        offset: u64,
        parts: &mut [IoSliceMut<'_>],
    ) -> Result<bool, StoreError> {
        if self.no_nowait.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let len = parts.iter().map(|part| part.len() as u64).sum();
        let mut skip = 0;
        for span in self.layout.spans(offset, len) {
            let Some(entry) = self.entry(span.file).filter(|e| !e.attr.pad) else {
                zero(parts, skip, span.len as usize);
                skip += span.len as usize;
                continue;
            };
            let Some(file) = lock(&self.open).get(span.file as u32, false) else {
                return Ok(false);
            };
            let len = span.len as usize;
            let mut slices = gather_mut(parts, skip, len);
            if slices.len() == MAX_PARTS {
                return Ok(false);
            }
            let flags = ReadWriteFlags::NOWAIT;
            match rustix::io::preadv2(&file.fd, &mut slices, span.offset, flags) {
                Ok(n) if n == len => skip += n,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.no_nowait.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(e) => {
                    self.forget(span.file);
                    return Err(self.error(Operation::Read, entry, e));
                }
            }
        }
        Ok(true)
    }

    /// Where data begins at or after `offset` of the content within the next `len` bytes, as far
    /// as the file system tells: holes, missing ends and padding are skipped. None if there is
    /// none. A missing file is an error.
    pub(crate) fn next_data(&self, offset: u64, len: u64) -> Result<Option<u64>, StoreError> {
        for span in self.layout.spans(offset, len) {
            let Some(entry) = self.entry(span.file).filter(|e| !e.attr.pad) else {
                continue;
            };
            let file = self.file(span.file, false)?;
            match rustix::fs::seek(&file.fd, rustix::fs::SeekFrom::Data(span.offset)) {
                Ok(at) if at < span.offset + span.len => return Ok(Some(entry.offset + at)),
                Ok(_) | Err(Errno::NXIO) => {}
                // Cannot tell: take it for data.
                Err(_) => return Ok(Some(entry.offset + span.offset)),
            }
        }
        Ok(None)
    }

    /// Tells the kernel that the next `len` bytes from `offset` on will be read soon.
    pub(crate) fn will_read(&self, offset: u64, len: u64) {
        for span in self.layout.spans(offset, len) {
            if self.entry(span.file).is_none_or(|e| e.attr.pad) {
                continue;
            }
            if let Ok(file) = self.file(span.file, false) {
                let len = std::num::NonZeroU64::new(span.len);
                let advice = rustix::fs::Advice::WillNeed;
                // Only a hint.
                let _ = rustix::fs::fadvise(&file.fd, span.offset, len, advice);
            }
        }
    }

    // ---- open files ----

    fn forget(&self, file: usize) {
        lock(&self.open).remove(file as u32);
    }

    /// File number `file`, opened if it is not, made if it is missing and to be written.
    fn file(&self, index: usize, write: bool) -> Result<Arc<OpenFile>, StoreError> {
        if let Some(file) = lock(&self.open).get(index as u32, write) {
            return Ok(file);
        }
        let Some(entry) = self.entry(index) else {
            return Err(StoreError::unknown(Operation::Open));
        };
        let file = Arc::new(self.open_entry(index, entry, write)?);
        let closed = lock(&self.open).put(index as u32, Arc::clone(&file));
        drop(closed);
        Ok(file)
    }

    fn open_entry(
        &self,
        index: usize,
        entry: &FileEntry,
        write: bool,
    ) -> Result<OpenFile, StoreError> {
        let folder = self.folder();
        let path = entry.path.as_path();
        let err = |operation, errno| self.error(operation, entry, errno);
        if write && !self.options.writable {
            return Err(err(Operation::Open, Errno::ROFS));
        }
        let make = write && !has_bit(&self.seen, index);
        let flags = match (write, make) {
            (true, true) => OFlags::RDWR | OFlags::CREATE,
            (true, false) => OFlags::RDWR,
            (false, _) => OFlags::RDONLY,
        };
        let fd = match folder.open_file(path, flags) {
            Err(Errno::NOENT) if make => {
                folder
                    .make_parents(path)
                    .map_err(|e| err(Operation::MakeFolder, e))?;
                folder.open_file(path, flags)
            }
            other => other,
        };
        let fd = fd.map_err(|e| err(Operation::Open, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| err(Operation::Inspect, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::not_a_file(folder.path().join(path)));
        }
        if write {
            // An empty file has no bytes that could prove a longer one ours.
            if stat.st_size as u64 != entry.len && entry.len > 0 {
                rustix::fs::ftruncate(&fd, entry.len).map_err(|e| err(Operation::Allocate, e))?;
            }
            if self.options.preallocate && entry.len > 0 {
                match rustix::fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, entry.len) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                    Err(e) => return Err(err(Operation::Allocate, e)),
                }
            }
        }
        set_bit(&self.seen, index);
        Ok(OpenFile {
            fd,
            writable: write,
        })
    }

    /// Closes all files; they are opened again when next used.
    pub fn close(&self) {
        let files = lock(&self.open).take_all();
        drop(files);
    }

    /// How many files are open now.
    pub fn open_files(&self) -> usize {
        lock(&self.open).len()
    }

    // ---- durability ----

    fn mark_dirty(&self, file: usize) {
        set_bit(&self.dirty, file);
    }

    /// Whether something was written since the last [`TorrentFiles::sync`].
    pub fn is_dirty(&self) -> bool {
        self.dirty.iter().any(|w| w.load(Ordering::Relaxed) != 0)
    }

    /// Makes all written bytes durable (fdatasync of every file written since the last call).
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut first_error = None;
        for (n, word) in self.dirty.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let index = n * 64 + bit;
                if let Err(e) = self.sync_file(index) {
                    self.mark_dirty(index);
                    first_error.get_or_insert(e);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn sync_file(&self, index: usize) -> Result<(), StoreError> {
        let Some(entry) = self.entry(index) else {
            return Ok(());
        };
        let file = self.file(index, false)?;
        rustix::fs::fdatasync(&file.fd).map_err(|e| self.error(Operation::Sync, entry, e))
    }
}

fn has_bit(bits: &[AtomicU64], n: usize) -> bool {
    let word = bits.get(n / 64).map_or(0, |w| w.load(Ordering::Acquire));
    word & (1 << (n % 64)) != 0
}

fn set_bit(bits: &[AtomicU64], n: usize) {
    // Mostly set already: a read is cheaper.
    if !has_bit(bits, n)
        && let Some(word) = bits.get(n / 64)
    {
        word.fetch_or(1 << (n % 64), Ordering::AcqRel);
    }
}

fn clear_bit(bits: &[AtomicU64], n: usize) {
    if let Some(word) = bits.get(n / 64) {
        word.fetch_and(!(1 << (n % 64)), Ordering::AcqRel);
    }
}

/// The sub-slices of `parts` that make up `len` bytes after the first `skip`, as far as one
/// system call takes them.
fn gather<'a>(parts: &'a [IoSlice<'_>], skip: usize, len: usize) -> SmallVec<[IoSlice<'a>; 32]> {
    let (mut skip, mut left) = (skip, len);
    let mut out = SmallVec::new();
    for part in parts {
        if left == 0 || out.len() == MAX_PARTS {
            break;
        }
        let from = skip.min(part.len());
        skip -= from;
        let n = left.min(part.len() - from);
        if n > 0 {
            out.push(IoSlice::new(&part[from..from + n]));
            left -= n;
        }
    }
    out
}

/// As [`gather`], for reading into.
fn gather_mut<'a>(
    parts: &'a mut [IoSliceMut<'_>],
    skip: usize,
    len: usize,
) -> SmallVec<[IoSliceMut<'a>; 32]> {
    let (mut skip, mut left) = (skip, len);
    let mut out = SmallVec::new();
    for part in parts {
        if left == 0 || out.len() == MAX_PARTS {
            break;
        }
        let from = skip.min(part.len());
        skip -= from;
        let n = left.min(part.len() - from);
        if n > 0 {
            out.push(IoSliceMut::new(&mut part[from..from + n]));
            left -= n;
        }
    }
    out
}

fn zero(parts: &mut [IoSliceMut<'_>], skip: usize, len: usize) {
    let (mut skip, mut left) = (skip, len);
    for part in parts {
        let from = skip.min(part.len());
        skip -= from;
        let n = left.min(part.len() - from);
        part[from..from + n].fill(0);
        left -= n;
        if left == 0 {
            break;
        }
    }
}
