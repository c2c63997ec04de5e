//! Scanning: what is in the folders is compared with what is known of them, both in the same
//! order, so that no set of names is ever held; what is new or changed is hashed by several
//! threads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redb::StorageError;
use rustix::fs::OFlags;
use shoal_content::FileHashes;

use super::database::{Changes, Database, FilesView};
use super::hash::{HashFault, Pace, Reader};
use super::record::{FileParts, FileRecord, SharedFolder, Stamp, file_key};
use super::walk::{Visitor, Walk};
use super::{LibraryError, Target};
use crate::folder::Folder;

/// Files on their way between two threads.
const QUEUE: usize = 256;
/// Changes that become durable together, and for how long they are gathered.
const BATCH: usize = 8192;
const BATCH_TIME: Duration = Duration::from_secs(2);
/// Between calls of the progress function.
const TICK: Duration = Duration::from_millis(100);
/// Oddities that are told one by one.
const MAX_ODDITIES: usize = 100;

/// How to scan.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScanOptions {
    /// Threads that hash; none: as many as there are processors.
    pub threads: Option<usize>,
    /// Bytes a second that are read at most, all threads together.
    pub rate: Option<u64>,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanProgress {
    /// Whether all files have been seen, so that the numbers below are the whole.
    pub walked: bool,
    /// Files seen, and their bytes.
    pub files: u64,
    /// Bytes of the files seen.
    pub bytes: u64,
    /// Files as they were.
    pub unchanged: u64,
    /// Files that lay elsewhere, or have another name; not hashed again.
    pub moved: u64,
    /// Files that are to be hashed.
    pub to_hash: u64,
    /// Their bytes.
    pub bytes_to_hash: u64,
    /// Files hashed.
    pub hashed: u64,
    /// Bytes hashed.
    pub bytes_hashed: u64,
    /// Files that are not there any more.
    pub removed: u64,
}

/// Something that is not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// How a scan ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// What was done.
    pub done: ScanProgress,
    /// Whether it was stopped; what was hashed until then is kept.
    pub cancelled: bool,
    /// What is not shared and why, a hundred at most.
    pub oddities: Vec<Oddity>,
    /// All of those.
    pub odd: u64,
    /// Folders that are not there.
    pub away: Vec<PathBuf>,
}

#[derive(Default)]
struct Counters {
    walked: AtomicBool,
    files: AtomicU64,
    bytes: AtomicU64,
    unchanged: AtomicU64,
    moved: AtomicU64,
    to_hash: AtomicU64,
    bytes_to_hash: AtomicU64,
    hashed: AtomicU64,
    bytes_hashed: AtomicU64,
    removed: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    fn now(&self) -> ScanProgress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScanProgress {
            walked: self.walked.load(Ordering::Relaxed),
            files: get(&self.files),
            bytes: get(&self.bytes),
            unchanged: get(&self.unchanged),
            moved: get(&self.moved),
            to_hash: get(&self.to_hash),
            bytes_to_hash: get(&self.bytes_to_hash),
            hashed: get(&self.hashed),
            bytes_hashed: get(&self.bytes_hashed),
            removed: get(&self.removed),
        }
    }
}

/// A file to be hashed.
struct Work {
    folder: usize,
    key: Vec<u8>,
    path: String,
}

/// What the other threads tell the one that writes the database.
enum News {
    Moved(Vec<u8>, FileRecord),
    Hashed(Vec<u8>, Stamp, Box<FileHashes>),
    Gone(Vec<u8>),
    Odd(Oddity),
    Broken(StorageError),
}

/// How many files and bytes came and went, by folder.
pub(super) type Deltas = BTreeMap<u32, (i64, i64)>;

struct Scan<'a> {
    folders: &'a [(SharedFolder, Folder, String)],
    apart: &'a BTreeSet<PathBuf>,
    counters: Counters,
    stop: AtomicBool,
    pace: Pace,
}

/// Scans targets of the library, whose folders are all given.
pub(super) fn scan(
    database: &Database,
    folders: &[SharedFolder],
    targets: &[Target],
    options: &ScanOptions,
    mut go_on: impl FnMut(&ScanProgress) -> bool,
) -> Result<(ScanReport, Deltas), LibraryError> {
    let mut report = ScanReport::default();
    let mut open = Vec::new();
    for target in targets {
        let Some(folder) = folders.iter().find(|f| f.id == target.folder) else {
            continue;
        };
        match Folder::open(&folder.path, false) {
            Ok(fd) => open.push((folder.clone(), fd, target.below.clone())),
            Err(_) => report.away.push(folder.path.clone()),
        }
    }
    let apart: BTreeSet<PathBuf> = folders.iter().map(|f| f.path.clone()).collect();
    let scan = Scan {
        folders: &open,
        apart: &apart,
        counters: Counters::default(),
        stop: AtomicBool::new(false),
        pace: Pace::new(options.rate),
    };
    let threads = options.threads.unwrap_or_else(|| {
        let all = std::thread::available_parallelism();
        all.map_or(1, std::num::NonZero::get)
    });
    let view = database.view()?;
    let (work_in, work_out) = bounded(QUEUE);
    let (news_in, news_out) = bounded(QUEUE);
    let mut deltas = Deltas::new();
    let written = std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (work, news) = (work_out.clone(), news_in.clone());
            let scan = &scan;
            scope.spawn(move || scan.hash(&work, &news));
        }
        // The threads hold the only ends left, so that both channels close by themselves.
        drop(work_out);
        let scan = &scan;
        scope.spawn(move || scan.walk(&view, &work_in, &news_in));
        scan.write(database, news_out, &mut report, &mut deltas, &mut go_on)
    });
    written?;
    report.done = scan.counters.now();
    go_on(&report.done);
    Ok((report, deltas))
}

impl Scan<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn walk(&self, view: &FilesView, work: &Sender<Work>, news: &Sender<News>) {
        for (n, (folder, fd, below)) in self.folders.iter().enumerate() {
            let mut prefix = file_key(folder.id, below);
            if !below.is_empty() {
                prefix.push(0);
            }
            let known = match view.files.range(prefix.as_slice()..) {
                Ok(known) => known,
                Err(e) => return drop(news.send(News::Broken(e))),
            };
            let mut merge = Merge {
                scan: self,
                n,
                id: folder.id,
                prefix,
                known,
                next: None,
                view,
                work,
                news,
            };
            if !merge.advance() {
                return;
            }
            let from = if below.is_empty() { "." } else { below };
            let opened = fd.open_file(Path::new(from), OFlags::RDONLY | OFlags::DIRECTORY);
            let walk = Walk {
                root: &folder.path,
                hidden: folder.hidden,
                apart: self.apart,
            };
            let whole = match opened {
                Ok(opened) => walk.run(&opened, below, &mut merge),
                // A folder in it that is gone, with all that was in it.
                Err(_) if !below.is_empty() => true,
                Err(e) => {
                    merge.odd(Oddity {
                        path: folder.path.clone(),
                        why: std::io::Error::from(e).to_string(),
                    });
                    continue;
                }
            };
            if !whole || !merge.rest_is_gone() {
                return;
            }
        }
        self.counters.walked.store(true, Ordering::Relaxed);
    }

    fn hash(&self, work: &Receiver<Work>, news: &Sender<News>) {
        let mut reader = Reader::new(&self.pace, &self.stop, &self.counters.bytes_hashed);
        for Work { folder, key, path } in work {
            let Some((folder, fd, _)) = self.folders.get(folder) else {
                return;
            };
            let told = match reader.hash(fd, Path::new(&path)) {
                Ok((stamp, hashes)) => {
                    let hashed = News::Hashed(key, stamp, Box::new(hashes));
                    news.send(hashed).is_ok()
                }
                Err(HashFault::Stopped) => return,
                Err(fault) => {
                    let why = match fault {
                        HashFault::Io(e) => e.to_string(),
                        _ => "it changes while it is hashed".to_owned(),
                    };
                    let path = folder.path.join(&path);
                    let odd = News::Odd(Oddity { path, why });
                    news.send(News::Gone(key)).is_ok() && news.send(odd).is_ok()
                }
            };
            if !told {
                return;
            }
        }
    }

    /// Writes what comes, until all other threads are done.
    fn write(
        &self,
        database: &Database,
        news: Receiver<News>,
        report: &mut ScanReport,
        deltas: &mut Deltas,
        go_on: &mut dyn FnMut(&ScanProgress) -> bool,
    ) -> Result<(), LibraryError> {
        let mut tick = Instant::now();
        let mut wait = || {
            loop {
                if tick.elapsed() >= TICK {
                    tick = Instant::now();
                    if !go_on(&self.counters.now()) {
                        report.cancelled = true;
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
                match news.recv_timeout(TICK) {
                    Ok(one) => return Some(one),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            }
        };
        let mut oddities = Vec::new();
        let mut odd = 0;
        let mut all = || {
            let mut next = wait();
            while let Some(first) = next.take() {
                let txn = database.begin()?;
                let mut changes = database.changes(&txn)?;
                let begun = Instant::now();
                next = Some(first);
                for _ in 0..BATCH {
                    match next.take() {
                        None => break,
                        Some(News::Odd(oddity)) => {
                            odd += 1;
                            if oddities.len() < MAX_ODDITIES {
                                oddities.push(oddity);
                            }
                        }
                        Some(one) => {
                            let applied = self.apply(&mut changes, one, deltas);
                            applied.map_err(|e| database.err(e))?;
                        }
                    }
                    next = wait();
                    if begun.elapsed() >= BATCH_TIME {
                        break;
                    }
                }
                drop(changes);
                txn.commit().map_err(|e| database.err(e))?;
            }
            Ok(())
        };
        let written = all();
        // Whoever still waits to tell something hears that nobody listens.
        self.stop.store(true, Ordering::Relaxed);
        drop(news);
        (report.oddities, report.odd) = (oddities, odd);
        written
    }

    fn apply(
        &self,
        changes: &mut Changes<'_>,
        news: News,
        deltas: &mut Deltas,
    ) -> Result<(), StorageError> {
        let (key, old, new) = match news {
            News::Moved(key, record) => (key.clone(), changes.put(&key, &record)?, Some(record)),
            News::Hashed(key, stamp, hashes) => {
                let record = FileRecord::new(stamp, &hashes);
                if let Some(parts) = FileParts::of(&hashes) {
                    changes.put_parts(&record.sha1, &parts)?;
                }
                add(&self.counters.hashed, 1);
                (key.clone(), changes.put(&key, &record)?, Some(record))
            }
            News::Gone(key) => {
                let old = changes.remove(&key)?;
                add(&self.counters.removed, u64::from(old.is_some()));
                (key, old, None)
            }
            News::Odd(_) => return Ok(()),
            News::Broken(e) => return Err(e),
        };
        let Some((folder, _)) = super::record::read_key(&key) else {
            return Ok(());
        };
        let delta = deltas.entry(folder).or_default();
        for (record, sign) in [(old, -1), (new, 1)] {
            if let Some(record) = record {
                delta.0 += sign;
                delta.1 += sign * record.stamp.len.cast_signed();
            }
        }
        Ok(())
    }
}

/// What a walk comes upon beside what is known of the folder, both in the order of keys.
struct Merge<'a> {
    scan: &'a Scan<'a>,
    n: usize,
    id: u32,
    prefix: Vec<u8>,
    known: redb::Range<'static, &'static [u8], &'static [u8]>,
    /// The first known file that the walk has not passed.
    next: Option<(Vec<u8>, FileRecord)>,
    view: &'a FilesView,
    work: &'a Sender<Work>,
    news: &'a Sender<News>,
}

impl Merge<'_> {
    /// Goes to the next known file; false if the database cannot be read.
    fn advance(&mut self) -> bool {
        self.next = None;
        match self.known.next() {
            None => {}
            Some(Err(e)) => {
                // If nobody listens any more, the error that made it so is told.
                let _ = self.news.send(News::Broken(e));
                return false;
            }
            Some(Ok((key, record))) if key.value().starts_with(&self.prefix) => {
                // A record of another version is none: the file is hashed again.
                let record = FileRecord::decode(record.value()).unwrap_or(FileRecord {
                    stamp: Stamp::default(),
                    sha1: [0; 20],
                    tiger: shoal_content::TigerRoot([0; 24]),
                    root: None,
                });
                self.next = Some((key.value().to_vec(), record));
            }
            Some(Ok(_)) => {}
        }
        true
    }

    /// Tells of the known files before `key`, or of all, that they are gone.
    fn pass(&mut self, key: Option<&[u8]>) -> bool {
        while let Some((known, _)) = &self.next
            && key.is_none_or(|key| known.as_slice() < key)
        {
            let gone = News::Gone(known.clone());
            if self.news.send(gone).is_err() || !self.advance() {
                return false;
            }
        }
        true
    }

    fn rest_is_gone(&mut self) -> bool {
        self.pass(None)
    }
}

impl Visitor for Merge<'_> {
    fn file(&mut self, path: &str, stamp: Stamp) -> bool {
        if self.scan.stopped() {
            return false;
        }
        let counters = &self.scan.counters;
        add(&counters.files, 1);
        add(&counters.bytes, stamp.len);
        let key = file_key(self.id, path);
        if !self.pass(Some(&key)) {
            return false;
        }
        if let Some((known, record)) = &self.next
            && *known == key
        {
            let same = record.stamp.same_at_path(&stamp);
            if !self.advance() {
                return false;
            }
            if same {
                add(&counters.unchanged, 1);
                return true;
            }
        }
        match self.view.moved(&stamp) {
            Ok(Some(record)) => {
                add(&counters.moved, 1);
                self.news.send(News::Moved(key, record)).is_ok()
            }
            Ok(None) => {
                add(&counters.to_hash, 1);
                add(&counters.bytes_to_hash, stamp.len);
                let work = Work {
                    folder: self.n,
                    key,
                    path: path.to_owned(),
                };
                self.work.send(work).is_ok()
            }
            Err(e) => {
                let _ = self.news.send(News::Broken(e));
                false
            }
        }
    }

    fn odd(&mut self, oddity: Oddity) {
        // If nobody listens any more, the walk ends at its next file.
        let _ = self.news.send(News::Odd(oddity));
    }
}
