//! Files as wholes: made, finished, looked at.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use shoal_content::{FileEntry, Layout, PieceIndex};

use super::{FileStamp, TorrentFiles, clear_bit, has_bit, lock};
use crate::error::{Operation, StoreError};
use crate::fd_cache::OpenFile;
use crate::folder::Folder;
use crate::library::Stamp;

impl TorrentFiles {
    /// Makes what writing bytes would not: empty files and symbolic links, and with
    /// [`preallocate`](crate::OpenOptions::preallocate) the files that `wanted` picks, at full length. Files already
    /// there are left alone.
    pub fn prepare(&self, wanted: impl Fn(usize) -> bool) -> Result<(), StoreError> {
        let folder = self.folder();
        for (index, entry) in self.layout.files().iter().enumerate() {
            if entry.attr.pad || !wanted(index) {
                continue;
            }
            if let Some(target) = &entry.attr.symlink {
                let text = entry.path.link_to(target);
                folder
                    .make_link(entry.path.as_path(), Path::new(&text))
                    .map_err(|e| self.error(Operation::MakeLink, entry, e))?;
            } else if entry.len == 0 || self.options.preallocate {
                // Not kept open.
                self.open_entry(index, entry, true)?;
            }
        }
        Ok(())
    }

    /// What finished files need: attributes (BEP 47: executable), and that nothing stands behind
    /// their end. A file that was written and is not there any more is an error.
    pub fn finish(&self) -> Result<(), StoreError> {
        let stamps = self.stamps();
        for (index, (entry, stamp)) in self.layout.files().iter().zip(stamps).enumerate() {
            let Some(stamp) = stamp else {
                if entry.len > 0 && has_bit(&self.seen, index) {
                    return Err(self.error(Operation::Open, entry, Errno::NOENT));
                }
                continue;
            };
            if stamp.len > entry.len && entry.len > 0 && self.options.writable {
                // Was there before, and its head proved right.
                self.file(index, true)?;
            }
            if !entry.attr.executable {
                continue;
            }
            let file = self.file(index, false)?;
            let stat = rustix::fs::fstat(&file.fd)
                .map_err(|e| self.error(Operation::Inspect, entry, e))?;
            let mode = Mode::from_raw_mode(stat.st_mode);
            // Whoever may read it may run it.
            let run = Mode::from_bits_truncate((mode.bits() & 0o444) >> 2);
            if !mode.contains(run) {
                rustix::fs::fchmod(&file.fd, mode | run)
                    .map_err(|e| self.error(Operation::SetAttributes, entry, e))?;
            }
        }
        Ok(())
    }

    /// What every file looks like now, in the layout's order; none for one that is missing, is no
    /// plain file, or is padding.
    pub fn stamps(&self) -> Vec<Option<FileStamp>> {
        let folder = self.folder();
        let stamp = |entry: &FileEntry| {
            if entry.attr.pad || entry.attr.symlink.is_some() {
                return None;
            }
            let stat = folder.stat(entry.path.as_path()).ok()?;
            (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| FileStamp {
                len: stat.st_size as u64,
                mtime_ns: Stamp::of(&stat).mtime_ns,
            })
        };
        self.layout.files().iter().map(stamp).collect()
    }

    /// Whether any of the content's bytes may be on disk already.
    pub fn has_data(&self) -> bool {
        let stamps = self.stamps();
        stamps.into_iter().flatten().any(|stamp| stamp.len > 0)
    }

    /// Looks whether trouble is over: opens the folder anew, forgets files that were deleted or
    /// replaced behind our back, and tries to write if this is for writing.
    pub fn probe(&self) -> Result<(), StoreError> {
        let fresh = Folder::open(self.folder().path(), self.options.writable)?;
        let fresh = Arc::new(fresh);
        *self.folder.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        self.forget_deleted();
        for (index, stamp) in self.stamps().iter().enumerate() {
            if stamp.is_none() {
                clear_bit(&self.seen, index);
            }
        }
        if self.options.writable {
            fresh.try_writing()?;
        }
        Ok(())
    }

    /// Forgets open files that are no longer in the folder.
    pub(crate) fn forget_deleted(&self) {
        let mut open = lock(&self.open);
        let gone = |file: &OpenFile| rustix::fs::fstat(&file.fd).is_ok_and(|s| s.st_nlink == 0);
        let deleted: Vec<u32> = open
            .iter()
            .filter(|(_, file)| gone(file))
            .map(|(index, _)| index)
            .collect();
        for index in deleted {
            open.remove(index);
        }
    }

    /// The pieces, in rising order and each once, whose bytes cannot all be on disk, because a
    /// file is missing or too short.
    pub fn missing_pieces(&self) -> Vec<PieceIndex> {
        self.forget_deleted();
        missing_pieces(&self.layout, &self.stamps())
    }
}

/// The pieces, in rising order and each once, that `stamps` leave no room for.
pub(crate) fn missing_pieces(layout: &Layout, stamps: &[Option<FileStamp>]) -> Vec<PieceIndex> {
    let mut missing: Vec<PieceIndex> = Vec::new();
    for (index, entry) in layout.files().iter().enumerate() {
        if entry.attr.pad || entry.attr.symlink.is_some() {
            continue;
        }
        let there = stamps.get(index).copied().flatten().map_or(0, |s| s.len);
        if there >= entry.len {
            continue;
        }
        let first_byte = entry.offset + there;
        let piece_len = u64::from(layout.geometry().piece_len()).max(1);
        let pieces = layout.pieces_of(index);
        let first = ((first_byte / piece_len) as u32).max(pieces.start);
        let first = missing.last().map_or(first, |last| first.max(last + 1));
        missing.extend(first..pieces.end);
    }
    missing
}
