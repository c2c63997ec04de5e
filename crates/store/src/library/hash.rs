//! Hashing one file in one read, and not believing it if it changed meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, OFlags};
use shoal_base::{Time, TokenBucket};
use shoal_content::{FileHasher, FileHashes};

use super::record::Stamp;
use crate::folder::Folder;

/// Bytes read at once: what is read stays in the processor's cache until it is hashed.
const READ_LEN: usize = 64 << 10;
/// How old the last change must be before reading begins: two changes within one step of the file
/// system's clock leave the same time.
const SETTLED: Duration = Duration::from_millis(20);
/// How often a file that changes is begun again.
const ATTEMPTS: usize = 2;
/// Between looks at whether a large file has changed, in reads: 64 MiB.
const LOOK: u64 = 1024;
/// The longest sleep of a thread that must not read faster, so that it hears of a stop.
const NAP: Duration = Duration::from_millis(100);

/// Why a file has no hashes.
#[derive(Debug)]
pub(super) enum HashFault {
    /// What the system says.
    Io(io::Error),
    /// Something writes to it.
    Changing,
    /// It was to stop.
    Stopped,
}

impl From<io::Error> for HashFault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Bytes a second for all threads together.
pub(super) struct Pace {
    begun: Instant,
    bucket: Option<Mutex<TokenBucket>>,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            begun: Instant::now(),
            bucket: rate.map(|rate| Mutex::new(TokenBucket::new(Some(rate.max(1))))),
        }
    }

    /// Waits until `bytes` may be read; false if it was to stop.
    fn pass(&self, bytes: usize, stop: &AtomicBool) -> bool {
        let Some(bucket) = &self.bucket else {
            return !stop.load(Ordering::Relaxed);
        };
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let now = self.begun.elapsed();
            let now = Time::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
            let ready = {
                let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                if bucket.available(now) > 0 {
                    bucket.spend(bytes);
                    return true;
                }
                bucket.ready_at(now, bytes)
            };
            // A real wait: the user asked for a rate.
            std::thread::sleep(ready.since(now).min(NAP));
        }
    }
}

/// What a thread hashes with.
pub(super) struct Reader<'a> {
    buf: Vec<u8>,
    pace: &'a Pace,
    stop: &'a AtomicBool,
    done: &'a AtomicU64,
    /// What was added to `done` for the file at hand.
    mine: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(pace: &'a Pace, stop: &'a AtomicBool, done: &'a AtomicU64) -> Self {
        Self {
            buf: vec![0; READ_LEN],
            pace,
            stop,
            done,
            mine: 0,
        }
    }

    /// The hashes of a file, and what it looked like before and after its bytes were read.
    pub(super) fn hash(
        &mut self,
        folder: &Folder,
        path: &Path,
    ) -> Result<(Stamp, FileHashes), HashFault> {
        for _ in 0..ATTEMPTS {
            let fd = folder.open_file(path, OFlags::RDONLY);
            let mut file = File::from(fd.map_err(io::Error::from)?);
            let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::other("it is no plain file any more").into());
            }
            settle(&Stamp::of(&stat));
            let before = stamp(&file)?;
            self.mine = 0;
            if let Some(hashes) = self.read(&mut file, &before)?
                && stamp(&file)? == before
            {
                return Ok((before, hashes));
            }
            self.done.fetch_sub(self.mine, Ordering::Relaxed);
        }
        Err(HashFault::Changing)
    }

    fn read(&mut self, file: &mut File, before: &Stamp) -> Result<Option<FileHashes>, HashFault> {
        if before.len > READ_LEN as u64 {
            // Only a hint: double the kernel's read-ahead.
            let _ = rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::Sequential);
        }
        let mut hasher = FileHasher::new(before.len);
        let mut reads = 0_u64;
        while hasher.len() < before.len {
            let left = before.len - hasher.len();
            let want = usize::try_from(left).map_or(READ_LEN, |left| left.min(READ_LEN));
            if !self.pace.pass(want, self.stop) {
                return Err(HashFault::Stopped);
            }
            let buf = self.buf.get_mut(..want).unwrap_or_default();
            let n = match file.read(buf) {
                Ok(0) => return Ok(None),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            hasher.update(buf.get(..n).unwrap_or_default());
            self.done.fetch_add(n as u64, Ordering::Relaxed);
            self.mine += n as u64;
            reads += 1;
            if reads.is_multiple_of(LOOK) && stamp(file)? != *before {
                return Ok(None);
            }
        }
        Ok(Some(hasher.finish()))
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    Ok(Stamp::of(&rustix::fs::fstat(file)?))
}

/// Waits until a change that comes now would show.
fn settle(stamp: &Stamp) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    if let Ok(age) = u64::try_from(now.saturating_sub(stamp.mtime_ns))
        && let Some(wait) = SETTLED.checked_sub(Duration::from_nanos(age))
    {
        // At most once a file, for files written a moment ago.
        std::thread::sleep(wait);
    }
}
