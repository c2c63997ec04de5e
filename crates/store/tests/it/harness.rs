//! A content made of pseudo-random bytes, its layout and hashes, and a pool that can be waited
//! for.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sha1::{Digest, Sha1};
use shoal_base::{Bitfield, InfoHash, Rng};
use shoal_content::tiger::TreeBuilder;
use shoal_content::{FileAttr, Layout, PieceHashes, SafePath};
use shoal_store::{
    BlockWrite, DiskPool, Done, Job, OpenOptions, Registration, Resume, ResumeId, TorrentFiles,
    TorrentKey, TorrentSettings, WriteBatch,
};

pub(crate) const HEADER: usize = 13;
pub(crate) const INFO_HASH: InfoHash = InfoHash([7; 20]);

pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) hashes: Arc<PieceHashes>,
}

/// A file of the content: its path and length, and whether it is padding.
pub(crate) fn content(seed: u64, piece_len: u32, files: &[(&str, u64, bool)]) -> Content {
    let mut rng = Rng::from_seed(seed);
    let mut bytes = Vec::new();
    for (_, len, pad) in files {
        for _ in 0..*len {
            bytes.push(if *pad { 0 } else { rng.below(256) as u8 });
        }
    }
    let entries = files.iter().map(|(path, len, pad)| {
        let attr = FileAttr {
            pad: *pad,
            ..FileAttr::default()
        };
        (SafePath::new(path).expect("safe"), *len, attr)
    });
    let layout = Layout::new(entries, piece_len).expect("sensible");
    let hashes = bytes.chunks(piece_len as usize);
    let hashes = hashes.map(|piece| Sha1::digest(piece).into()).collect();
    Content {
        bytes,
        layout: Arc::new(layout),
        hashes: Arc::new(PieceHashes::V1(hashes)),
    }
}

impl Content {
    /// The same, checked by its Tiger tree.
    pub(crate) fn with_tiger(mut self) -> Self {
        let mut builder = TreeBuilder::new();
        builder.update(&self.bytes);
        let piece_len = u64::from(self.layout.geometry().piece_len());
        let tree = builder.finish().with_spans_of(piece_len);
        assert_eq!(tree.span_len(), piece_len);
        self.hashes = Arc::new(PieceHashes::tiger(&tree));
        self
    }

    pub(crate) fn files(&self, dir: &Path) -> Arc<TorrentFiles> {
        let files = TorrentFiles::open(dir, Arc::clone(&self.layout), OpenOptions::default());
        Arc::new(files.expect("the folder opens"))
    }

    pub(crate) fn registration(&self, dir: &Path, resume: Option<ResumeId>) -> Registration {
        Registration {
            files: self.files(dir),
            hashes: Arc::clone(&self.hashes),
            have: Bitfield::new(self.layout.geometry().pieces()),
            partial: Vec::new(),
            resume,
        }
    }

    /// A batch of the given (piece, block number), each behind a header of junk.
    pub(crate) fn batch(&self, torrent: TorrentKey, blocks: &[(u32, u32)]) -> WriteBatch {
        let geometry = self.layout.geometry();
        let mut batch = WriteBatch::default();
        for (piece, n) in blocks {
            let block = geometry.block(*piece, *n);
            batch.buf.extend_from_slice(&[0xee; HEADER]);
            let start = batch.buf.len();
            let from = (geometry.piece_start(*piece) + u64::from(block.begin)) as usize;
            batch
                .buf
                .extend_from_slice(&self.bytes[from..from + block.len as usize]);
            batch.blocks.push(BlockWrite {
                torrent,
                block,
                start,
            });
        }
        batch
    }

    /// All blocks in order, `per_batch` in each batch.
    pub(crate) fn all_batches(&self, torrent: TorrentKey, per_batch: usize) -> Vec<WriteBatch> {
        let blocks = self.all_blocks();
        let batches = blocks.chunks(per_batch);
        batches.map(|blocks| self.batch(torrent, blocks)).collect()
    }

    pub(crate) fn all_blocks(&self) -> Vec<(u32, u32)> {
        let g = self.layout.geometry();
        let pieces = 0..g.pieces();
        pieces
            .flat_map(|p| (0..g.blocks(p)).map(move |n| (p, n)))
            .collect()
    }

    /// Panics unless the files in `dir` hold exactly the content.
    pub(crate) fn assert_on_disk(&self, dir: &Path) {
        for file in self.layout.files() {
            let path = dir.join(file.path.as_path());
            if file.attr.pad {
                assert!(!path.exists(), "padding never touches the disk");
                continue;
            }
            let there = std::fs::read(&path).expect("the file is there");
            let want = &self.bytes[file.offset as usize..(file.offset + file.len) as usize];
            assert!(there == want, "{} differs", path.display());
        }
    }
}

pub(crate) struct Pool {
    pub(crate) pool: DiskPool,
    pub(crate) resume: Arc<Resume>,
    woken: Receiver<()>,
}

impl Pool {
    pub(crate) fn start(state: &Path) -> Self {
        Self::with_resume(Resume::open(state).expect("opens"))
    }

    pub(crate) fn with_resume(resume: Resume) -> Self {
        let (wake, woken) = channel();
        let resume = Arc::new(resume);
        let notify = Arc::new(move || {
            let _ = wake.send(());
        });
        Self {
            pool: DiskPool::new(2, notify, Arc::clone(&resume)),
            resume,
            woken,
        }
    }

    pub(crate) fn add(&self, content: &Content, dir: &Path) -> ResumeId {
        let settings = TorrentSettings {
            dir: dir.to_owned(),
            ..TorrentSettings::default()
        };
        let info = Some((&b"d4:infoe"[..], content.layout.geometry()));
        self.resume.add(&INFO_HASH, settings, info).expect("added")
    }

    /// Collects answers until `enough` says so.
    pub(crate) fn wait(&self, mut enough: impl FnMut(&[Done]) -> bool) -> Vec<Done> {
        let mut all = Vec::new();
        loop {
            self.pool.drain(&mut all);
            if enough(&all) {
                return all;
            }
            let woken = self.woken.recv_timeout(Duration::from_secs(30));
            woken.unwrap_or_else(|_| panic!("no answer; had {all:?}"));
        }
    }

    pub(crate) fn submit_all(&self, batches: Vec<WriteBatch>) -> Vec<Done> {
        let n = batches.len();
        for batch in batches {
            self.pool.submit(Job::Write(batch));
        }
        let is_written = |d: &&Done| matches!(d, Done::Written { .. });
        self.wait(|all| all.iter().filter(is_written).count() == n)
    }

    pub(crate) fn check(&self, torrent: TorrentKey) -> Vec<Done> {
        self.pool.submit(Job::Check {
            torrent,
            pieces: None,
        });
        self.wait(|all| all.iter().any(|d| matches!(d, Done::Checked { .. })))
    }
}
