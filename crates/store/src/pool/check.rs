//! Checking pieces that are, or should be, on disk.
//!
//! All workers take chunks of the content in order, so that the disk sees one nearly sequential
//! reader; between two reads each looks after reads and writes that came in. Holes and missing files
//! cost a system call, not a read. What was found out is journalled and told for several pieces at
//! once: a wake-up and a write for each would cost more than hashing a small one.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use shoal_base::Bitfield;
use shoal_content::{PieceDigest, PieceIndex};

use super::hashing::{PieceHasher, PieceProgress};
use super::job::Done;
use super::lock;
use super::torrent::Torrent;
use super::worker::Worker;
use crate::error::StoreError;
use crate::resume::{Change, Entry};

/// Bytes read at a time: small enough to stay in the processor's cache until hashed.
const READ_LEN: usize = 64 * 1024;
/// Bytes a worker takes at a time; a larger piece is taken whole.
const CHUNK_LEN: u64 = 1 << 20;
/// Findings are journalled and told once they cover so many bytes, or are so old: what a killed
/// process has to check again is less than a tenth of a second's work.
const BATCH_LEN: u64 = 16 << 20;
const BATCH_AGE: Duration = Duration::from_millis(50);
/// How far ahead the kernel is told to read.
const AHEAD_LEN: u64 = 8 << 20;

/// What a worker keeps between chunks.
pub(super) struct Checker {
    buf: Vec<u8>,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            buf: vec![0; READ_LEN],
        }
    }
}

/// How a check stands after a worker's step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do.
    Working,
    /// No chunk is left to take.
    Exhausted,
}

/// A check on its way.
pub(super) struct CheckRun {
    pub(super) torrent: Arc<Torrent>,
    pieces: Option<Bitfield>,
    total: u32,
    /// Where the next chunk begins, and how many workers hold one.
    cursor: Mutex<Cursor>,
    /// Findings of all workers, not yet journalled.
    batch: Mutex<Batch>,
    checked: AtomicU32,
    cancelled: AtomicBool,
    error: Mutex<Option<StoreError>>,
    /// The hash of zeros, by length.
    zeros: Mutex<Option<(u32, PieceDigest)>>,
}

/// What was found out since the last time it was told.
#[derive(Default)]
struct Batch {
    /// Pieces looked at.
    looked: Vec<Range<PieceIndex>>,
    /// Those that are right.
    good: Vec<PieceIndex>,
    bytes: u64,
    since: Option<Instant>,
}

struct Cursor {
    next: PieceIndex,
    working: u32,
    advised: u64,
    begun: bool,
    reported: bool,
}

impl CheckRun {
    /// A check of `pieces`, or of all.
    pub(super) fn new(torrent: Arc<Torrent>, pieces: Option<Bitfield>) -> Self {
        let all = torrent.geometry.pieces();
        let total = pieces.as_ref().map_or(all, |pieces| {
            pieces.iter().filter(|piece| *piece < all).count() as u32
        });
        Self {
            torrent,
            pieces,
            total,
            cursor: Mutex::new(Cursor {
                next: 0,
                working: 0,
                advised: 0,
                begun: false,
                reported: false,
            }),
            batch: Mutex::default(),
            checked: AtomicU32::new(0),
            cancelled: AtomicBool::new(false),
            error: Mutex::new(None),
            zeros: Mutex::new(None),
        }
    }

    /// Ends it after the reads under way.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the next pieces, if any are left, and tells the kernel of those after them.
    fn take(&self) -> Option<Range<PieceIndex>> {
        let geometry = self.torrent.geometry;
        let end = geometry.pieces();
        let wanted = |piece: PieceIndex| self.pieces.as_ref().is_none_or(|p| p.get(piece));
        let mut cursor = lock(&self.cursor);
        if !std::mem::replace(&mut cursor.begun, true) {
            // What was deleted is not there, even if it could still be read.
            self.torrent.files.forget_deleted();
        }
        if self.is_cancelled() {
            cursor.next = end;
        }
        let first = (cursor.next..end).find(|piece| wanted(*piece));
        let Some(first) = first else {
            cursor.next = end;
            return None;
        };
        let mut len = u64::from(geometry.piece_size(first));
        let mut last = first;
        while last + 1 < end && wanted(last + 1) {
            len += u64::from(geometry.piece_size(last + 1));
            if len > CHUNK_LEN {
                break;
            }
            last += 1;
        }
        cursor.next = last + 1;
        cursor.working += 1;
        let chunk_end = geometry.piece_start(last) + u64::from(geometry.piece_size(last));
        let from = cursor.advised.max(geometry.piece_start(first));
        let advise = (chunk_end + AHEAD_LEN / 2 > from).then_some((from, chunk_end + AHEAD_LEN));
        if let Some((_, to)) = advise {
            cursor.advised = to;
        }
        drop(cursor);
        if let Some((from, to)) = advise {
            self.torrent.files.will_read(from, to - from);
        }
        Some(first..last + 1)
    }

    /// Does one chunk on `worker`.
    pub(super) fn step(&self, worker: &mut Worker<'_>, checker: &mut Checker) -> Step {
        let Some(chunk) = self.take() else {
            self.report_end(worker, false);
            return Step::Exhausted;
        };
        let (good, end) = self.check(chunk.clone(), worker, checker);
        if let Some(batch) = self.add(chunk.start..end, good) {
            self.conclude(batch, worker);
        }
        self.report_end(worker, true);
        Step::Working
    }

    /// Whether the pieces of `chunk` are right: the good ones, and the first not looked at (the
    /// check may be cancelled on the way).
    fn check(
        &self,
        chunk: Range<PieceIndex>,
        worker: &mut Worker<'_>,
        checker: &mut Checker,
    ) -> (Vec<PieceIndex>, PieceIndex) {
        let torrent = &*self.torrent;
        let geometry = torrent.geometry;
        let mut good = Vec::new();
        let start = geometry.piece_start(chunk.start);
        let end = geometry.piece_start(chunk.end).min(geometry.total_len());
        if let Ok(None) = torrent.files.next_data(start, end - start) {
            let zeros = |piece: &PieceIndex| self.is_zeros(*piece);
            good.extend(chunk.clone().filter(zeros));
            return (good, chunk.end);
        }
        let mut piece = chunk.start;
        while piece < chunk.end {
            worker.yield_to_urgent();
            if self.is_cancelled() {
                return (good, piece);
            }
            let size = geometry.piece_size(piece) as usize;
            if size > READ_LEN {
                if self.check_large(piece, worker, checker) {
                    good.push(piece);
                }
                piece += 1;
                continue;
            }
            // As many as fit, in one read.
            let fit = (READ_LEN / size.max(1)) as u32;
            let group = piece..chunk.end.min(piece.saturating_add(fit));
            self.check_small(group.clone(), checker, &mut good);
            piece = group.end;
        }
        (good, chunk.end)
    }

    fn check_small(
        &self,
        group: Range<PieceIndex>,
        checker: &mut Checker,
        good: &mut Vec<PieceIndex>,
    ) {
        let geometry = self.torrent.geometry;
        let len: u64 = group
            .clone()
            .map(|p| u64::from(geometry.piece_size(p)))
            .sum();
        let offset = geometry.piece_start(group.start);
        match self.read(offset, len as usize, checker) {
            Ok(mut bytes) => {
                for piece in group {
                    let size = geometry.piece_size(piece) as usize;
                    let Some((head, tail)) = bytes.split_at_checked(size) else {
                        return;
                    };
                    bytes = tail;
                    let digest = PieceHasher::digest(&self.torrent.hashes, head);
                    if self.matches(piece, &digest) {
                        good.push(piece);
                    }
                }
            }
            Err(error) if group.len() == 1 => self.note_error(error),
            // One of them is at fault: which?
            Err(_) => {
                for piece in group {
                    self.check_small(piece..piece + 1, checker, good);
                }
            }
        }
    }

    fn check_large(
        &self,
        piece: PieceIndex,
        worker: &mut Worker<'_>,
        checker: &mut Checker,
    ) -> bool {
        let geometry = self.torrent.geometry;
        let start = geometry.piece_start(piece);
        let end = start + u64::from(geometry.piece_size(piece));
        let mut hasher = PieceHasher::new(&self.torrent.hashes);
        let mut at = start;
        while at < end {
            let len = (end - at).min(READ_LEN as u64);
            match self.read(at, len as usize, checker) {
                Ok(bytes) => hasher.update(bytes),
                Err(error) => {
                    self.note_error(error);
                    return false;
                }
            }
            at += len;
            worker.yield_to_urgent();
        }
        self.matches(piece, &hasher.finish())
    }

    fn read<'c>(
        &self,
        offset: u64,
        len: usize,
        checker: &'c mut Checker,
    ) -> Result<&'c [u8], StoreError> {
        let (bytes, _) = checker.buf.split_at_mut(len.min(READ_LEN));
        let files = &self.torrent.files;
        files.read_at(offset, &mut [IoSliceMut::new(bytes)])?;
        Ok(bytes)
    }

    /// Whether a piece was looked at and found right: one of which nothing is known was not.
    fn matches(&self, piece: PieceIndex, digest: &PieceDigest) -> bool {
        *digest != PieceDigest::Unknown && self.torrent.hashes.accepts(piece, digest)
    }

    /// Whether `piece` is right if it is all zeros.
    fn is_zeros(&self, piece: PieceIndex) -> bool {
        let size = self.torrent.geometry.piece_size(piece);
        let mut zeros = lock(&self.zeros);
        let digest = match *zeros {
            Some((len, digest)) if len == size => digest,
            _ => {
                let mut hasher = PieceHasher::new(&self.torrent.hashes);
                let mut left = size as usize;
                while left > 0 {
                    let n = left.min(ZEROS.len());
                    hasher.update(&ZEROS[..n]);
                    left -= n;
                }
                let digest = hasher.finish();
                *zeros = Some((size, digest));
                digest
            }
        };
        self.matches(piece, &digest)
    }

    /// Keeps the first error that says more than that a file is not there.
    fn note_error(&self, error: StoreError) {
        if !error.is_absence() {
            lock(&self.error).get_or_insert(error);
        }
    }

    /// Adds findings to the batch; takes it if it is full.
    fn add(&self, looked: Range<PieceIndex>, good: Vec<PieceIndex>) -> Option<Batch> {
        let geometry = self.torrent.geometry;
        let end = geometry.piece_start(looked.end).min(geometry.total_len());
        let mut batch = lock(&self.batch);
        batch.bytes += end.saturating_sub(geometry.piece_start(looked.start));
        batch.good.extend(good);
        batch.looked.push(looked);
        let since = *batch.since.get_or_insert_with(Instant::now);
        let full = batch.bytes >= BATCH_LEN || since.elapsed() >= BATCH_AGE;
        full.then(|| std::mem::take(&mut *batch))
    }

    /// Takes a batch of findings into the torrent and the journal.
    fn conclude(&self, mut batch: Batch, worker: &mut Worker<'_>) {
        let torrent = &*self.torrent;
        // In order, so that neighbours share a record whichever worker looked at them.
        batch.looked.sort_unstable_by_key(|range| range.start);
        batch.good.sort_unstable();
        let mut entries: Vec<Entry> = Vec::new();
        let mut count = 0;
        {
            let mut pieces = lock(&torrent.pieces);
            let mut next_good = batch.good.iter().copied().peekable();
            for piece in batch.looked.iter().cloned().flatten() {
                count += 1;
                let is_good = next_good.next_if_eq(&piece).is_some();
                if is_good {
                    pieces.have.set(piece);
                    pieces.open.remove(&piece);
                } else if pieces.open.get(&piece).is_some_and(|open| is_filling(open)) {
                    // Being downloaded: what is there of it is not in doubt.
                    continue;
                } else {
                    pieces.have.clear(piece);
                }
                note(&mut entries, torrent, piece, is_good);
            }
        }
        worker.shared().resume.record(&entries);
        let checked = self.checked.fetch_add(count, Ordering::Relaxed);
        worker.answer(Done::CheckProgress {
            torrent: torrent.key,
            good: batch.good,
            checked: checked + count,
            total: self.total,
        });
    }

    /// Tells that the check is over when the last worker is done with it.
    fn report_end(&self, worker: &mut Worker<'_>, had_chunk: bool) {
        let over = {
            let mut cursor = lock(&self.cursor);
            cursor.working -= u32::from(had_chunk);
            let over = cursor.working == 0
                && cursor.next >= self.torrent.geometry.pieces()
                && !cursor.reported;
            cursor.reported |= over;
            over
        };
        if over {
            let rest = std::mem::take(&mut *lock(&self.batch));
            if !rest.looked.is_empty() {
                self.conclude(rest, worker);
            }
            let checked = self.checked.load(Ordering::Relaxed);
            let have = lock(&self.torrent.pieces).have.clone();
            worker.answer(Done::Checked {
                torrent: self.torrent.key,
                have,
                cancelled: checked < self.total,
                error: lock(&self.error).take(),
            });
        }
    }
}

/// Zeros to hash.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Whether blocks of the piece are on disk or just coming.
fn is_filling(progress: &Mutex<PieceProgress>) -> bool {
    match progress.try_lock() {
        Ok(progress) => progress.has_any(),
        Err(TryLockError::Poisoned(_)) => false,
        // A worker is at it.
        Err(TryLockError::WouldBlock) => true,
    }
}

/// Adds a piece's outcome to journal entries, one for each run of the same outcome.
fn note(entries: &mut Vec<Entry>, torrent: &Torrent, piece: PieceIndex, is_good: bool) {
    if let Some(last) = entries.last_mut() {
        match &mut last.change {
            Change::Verified { first, count } if is_good && *first + *count == piece => {
                *count += 1;
                return;
            }
            Change::Lost { first, count } if !is_good && *first + *count == piece => {
                *count += 1;
                return;
            }
            _ => {}
        }
    }
    let (first, count) = (piece, 1);
    entries.extend(torrent.entry(if is_good {
        Change::Verified { first, count }
    } else {
        Change::Lost { first, count }
    }));
}
