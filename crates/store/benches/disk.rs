//! What a gibibyte costs: written and hashed through the pool beside a plain loop of SHA-1 and
//! pwrite, and checked. Page cache, two workers.
//!
//! `cargo bench -p shoal-store [-- DIR]`; DIR defaults to the system's temporary folder.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use sha1::{Digest, Sha1};
use shoal_base::{Bitfield, InfoHash};
use shoal_content::{BLOCK_LEN, Layout, PieceHashes, PieceOutcome, SafePath};
use shoal_store::{
    BlockWrite, DiskPool, Done, Job, OpenOptions, Registration, Resume, TorrentFiles,
    TorrentSettings, WriteBatch,
};

const TOTAL: u64 = 1 << 30;
const BATCH_BLOCKS: u32 = 16;
const BATCH_LEN: usize = (BATCH_BLOCKS * BLOCK_LEN) as usize;
const BUFFERS: usize = 32;
const HEADER: usize = 13;
const ROUNDS: usize = 5;

fn cpu() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Wall and CPU seconds of the best round.
struct Best(f64, f64);

impl Best {
    fn new() -> Self {
        Self(f64::MAX, f64::MAX)
    }

    fn time(&mut self, f: impl FnOnce()) {
        let (wall, used) = (Instant::now(), cpu());
        f();
        self.0 = self.0.min(wall.elapsed().as_secs_f64());
        self.1 = self.1.min(cpu() - used);
    }
}

impl std::fmt::Display for Best {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} s wall, {:.3} CPU s", self.0, self.1)
    }
}

/// Bytes that repeat with every batch, so that nothing has to be made while measuring.
fn pattern() -> Vec<u8> {
    let mut bytes = vec![0; BATCH_LEN];
    let mut x = 1u32;
    for byte in &mut bytes {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (x >> 24) as u8;
    }
    bytes
}

/// The hashes of all pieces; both lengths are powers of two, so that they repeat too.
fn hashes(piece_len: u32) -> PieceHashes {
    let pattern = pattern();
    let distinct: Vec<[u8; 20]> = if piece_len as usize >= BATCH_LEN {
        let mut hasher = Sha1::new();
        for _ in 0..piece_len as usize / BATCH_LEN {
            hasher.update(&pattern);
        }
        vec![hasher.finalize().into()]
    } else {
        let pieces = pattern.chunks(piece_len as usize);
        pieces.map(|piece| Sha1::digest(piece).into()).collect()
    };
    let pieces = (TOTAL / u64::from(piece_len)) as usize;
    PieceHashes::V1(distinct.into_iter().cycle().take(pieces).collect())
}

fn layout(piece_len: u32) -> Arc<Layout> {
    let path = SafePath::new("payload").expect("safe");
    Arc::new(Layout::single(path, TOTAL, piece_len).expect("sensible"))
}

/// SHA-1 and pwrite of 256 KiB at a time, or one of them, on one thread; from as many buffers as
/// the pool gets, so that the processor's cache helps neither.
fn floor(dir: &Path, hash: bool, write: bool) -> Best {
    let mut best = Best::new();
    let buffers = vec![pattern(); BUFFERS];
    for _ in 0..ROUNDS {
        let path = dir.join("floor");
        let _ = std::fs::remove_file(&path);
        let file = std::fs::File::create(&path).expect("writable");
        file.set_len(TOTAL).expect("sparse");
        best.time(|| {
            let mut hasher = Sha1::new();
            let offsets = (0..TOTAL).step_by(BATCH_LEN);
            for (at, pattern) in offsets.zip(buffers.iter().cycle()) {
                if write {
                    let parts = [IoSlice::new(pattern)];
                    let n = rustix::io::pwritev(&file, &parts, at).expect("room");
                    assert_eq!(n, BATCH_LEN);
                }
                if hash {
                    hasher.update(pattern);
                }
            }
            std::hint::black_box(hasher.finalize());
        });
        let _ = std::fs::remove_file(&path);
    }
    best
}

struct Bench {
    pool: DiskPool,
    resume: Arc<Resume>,
    woken: mpsc::Receiver<()>,
    hashes: Arc<PieceHashes>,
    layout: Arc<Layout>,
}

impl Bench {
    fn new(dir: &Path, piece_len: u32) -> Self {
        let resume = Arc::new(Resume::open(&dir.join("state")).expect("opens"));
        let (wake, woken) = channel();
        let notify = Arc::new(move || {
            let _ = wake.send(());
        });
        let layout = layout(piece_len);
        Self {
            pool: DiskPool::new(2, notify, Arc::clone(&resume)),
            resume,
            woken,
            hashes: Arc::new(hashes(piece_len)),
            layout,
        }
    }

    fn register(&self, dir: &Path) {
        let geometry = self.layout.geometry();
        let info = Some((&b"de"[..], geometry));
        let hash = InfoHash([1; 20]);
        let id = self.resume.add(&hash, TorrentSettings::default(), info);
        let layout = Arc::clone(&self.layout);
        let files = TorrentFiles::open(dir, layout, OpenOptions::default()).expect("opens");
        let registration = Registration {
            files: Arc::new(files),
            hashes: Arc::clone(&self.hashes),
            have: Bitfield::new(geometry.pieces()),
            partial: Vec::new(),
            resume: Some(id.expect("added")),
        };
        self.pool.register(1, registration).expect("registered");
    }

    /// Writes everything in order through the pool.
    fn write(&self) {
        let pattern = pattern();
        let mut free: Vec<WriteBatch> = (0..BUFFERS)
            .map(|_| {
                let mut buf = Vec::with_capacity(BATCH_LEN + 16 * HEADER);
                for block in pattern.chunks(BLOCK_LEN as usize) {
                    buf.extend_from_slice(&[0; HEADER]);
                    buf.extend_from_slice(block);
                }
                let blocks = Vec::with_capacity(BATCH_BLOCKS as usize);
                WriteBatch { buf, blocks }
            })
            .collect();
        let geometry = self.layout.geometry();
        let mut blocks =
            (0..geometry.pieces()).flat_map(|p| (0..geometry.blocks(p)).map(move |n| (p, n)));
        let (mut pieces, mut done) = (0, Vec::new());
        while pieces < geometry.pieces() {
            while let Some(mut batch) = free.pop() {
                for n in 0..BATCH_BLOCKS as usize {
                    if let Some((piece, number)) = blocks.next() {
                        batch.blocks.push(BlockWrite {
                            torrent: 1,
                            block: geometry.block(piece, number),
                            start: n * (BLOCK_LEN as usize + HEADER) + HEADER,
                        });
                    }
                }
                if batch.blocks.is_empty() {
                    break;
                }
                self.pool.submit(Job::Write(batch));
            }
            self.woken.recv().expect("the pool lives");
            self.pool.drain(&mut done);
            for answer in done.drain(..) {
                match answer {
                    Done::Written {
                        buf,
                        mut blocks,
                        failed,
                    } => {
                        assert!(failed.is_empty());
                        blocks.clear();
                        free.push(WriteBatch { buf, blocks });
                    }
                    Done::Piece {
                        outcome: PieceOutcome::Verified { .. },
                        ..
                    } => pieces += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn check(&self) {
        self.pool.submit(Job::Check {
            torrent: 1,
            pieces: None,
        });
        let mut done = Vec::new();
        loop {
            self.woken.recv().expect("the pool lives");
            self.pool.drain(&mut done);
            for answer in done.drain(..) {
                if let Done::Checked { have, .. } = answer {
                    assert!(have.is_full());
                    return;
                }
            }
        }
    }
}

/// Bytes of memory that belong to this process alone.
fn private_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    let numbers = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    numbers.sum()
}

/// Opening the resume data of many torrents.
fn resume(dir: &Path) {
    const MANY: u32 = 5_000;
    let dir = dir.join("many");
    let hash = |n: u32| {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        InfoHash(hash)
    };
    let before = private_kib();
    let info = vec![7; 20_000];
    let geometry = layout(1 << 20).geometry();
    let settings = || TorrentSettings {
        name: "a name as long as many".into(),
        dir: "/a/folder".into(),
        trackers: vec![vec!["http://tracker.example/announce".into()]; 3],
        ..TorrentSettings::default()
    };
    let start = Instant::now();
    let all = (0..MANY).map(|n| (hash(n), settings(), Some((info.as_slice(), geometry))));
    Resume::open(&dir)
        .expect("opens")
        .add_all(all)
        .expect("added");
    println!(
        "{MANY} torrents added       {:.3} s",
        start.elapsed().as_secs_f64()
    );
    let (start, used) = (Instant::now(), cpu());
    let resume = Resume::open(&dir).expect("opens");
    let opened = start.elapsed().as_secs_f64();
    let alone = private_kib().saturating_sub(before);
    for (hash, _) in resume.list().expect("listed") {
        assert!(resume.load(&hash).expect("loaded").is_some());
    }
    println!(
        "{MANY} torrents opened      {opened:.3} s; listed and loaded {:.3} s, {:.3} CPU s; {alone} KiB private, then {} KiB",
        start.elapsed().as_secs_f64(),
        cpu() - used,
        private_kib().saturating_sub(before),
    );
}

fn main() {
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = match given {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("a temporary folder");
    resume(dir.path());
    println!(
        "1 GiB, best of {ROUNDS} rounds, page cache, in {}",
        dir.path().display()
    );
    println!(
        "SHA-1 alone              {}",
        floor(dir.path(), true, false)
    );
    println!(
        "pwrite alone             {}",
        floor(dir.path(), false, true)
    );
    println!("SHA-1 + pwrite, 1 thread {}", floor(dir.path(), true, true));
    for (name, piece_len) in [
        ("16 KiB", 16 << 10),
        ("1 MiB", 1 << 20),
        ("16 MiB", 16 << 20),
    ] {
        let bench = Bench::new(dir.path(), piece_len);
        let mut best = Best::new();
        for _ in 0..ROUNDS {
            let _ = std::fs::remove_file(dir.path().join("payload"));
            bench.register(dir.path());
            best.time(|| bench.write());
        }
        println!("pool, {name:6} pieces: write+hash {best}");
        let mut best = Best::new();
        for _ in 0..ROUNDS {
            best.time(|| bench.check());
        }
        println!("pool, {name:6} pieces: check      {best}");
        let start = Instant::now();
        bench.pool.stop().expect("saved");
        println!(
            "pool, {name:6} pieces: stop       {:.3} s wall",
            start.elapsed().as_secs_f64()
        );
    }
}
