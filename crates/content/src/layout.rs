//! Where the files of a content lie in its one range of bytes.
//!
//! Files follow one another without gaps (BEP 3); gaps are files of their own, marked as padding
//! (BEP 47), which no disk holds and which read as zeros.

use crate::path::SafePath;
use crate::{Geometry, PieceIndex};
use std::ops::Range;

/// One file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Where it goes below the download folder; begins with the torrent's name.
    pub path: SafePath,
    /// Length in bytes.
    pub len: u64,
    /// Where it starts in the content, in bytes.
    pub offset: u64,
    /// What else is known of it.
    pub attr: FileAttr,
}

/// What a file is besides its bytes (BEP 47).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileAttr {
    /// Zeros that align the next file; not stored.
    pub pad: bool,
    /// To be marked executable.
    pub executable: bool,
    /// To be hidden, where a system has that.
    pub hidden: bool,
    /// A symbolic link to this path, which like [`FileEntry::path`] begins with the torrent's
    /// name; [`SafePath::link_to`] makes the link's text. Such a file has no bytes.
    pub symlink: Option<SafePath>,
}

/// A part of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The file's number.
    pub file: usize,
    /// First byte within the file.
    pub offset: u64,
    /// Bytes; more than zero.
    pub len: u64,
}

/// Why files make no layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The lengths add up to more than 2^63 - 1 bytes.
    #[error("the lengths of the files add up to more than 2^63 - 1 bytes")]
    TooLarge,
    /// The piece length is zero.
    #[error("the piece length is zero")]
    NoPieceLength,
    /// There are 2^32 pieces or more.
    #[error("more pieces than can be numbered in 32 bits; the pieces are too short")]
    TooManyPieces,
}

/// All files of a content, in order, and how their bytes are cut into pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    files: Vec<FileEntry>,
    geometry: Geometry,
}

impl Layout {
    /// Lays files of (path, length in bytes, attributes) one behind the other, cut into pieces
    /// of `piece_len` bytes.
    pub fn new(
        files: impl IntoIterator<Item = (SafePath, u64, FileAttr)>,
        piece_len: u32,
    ) -> Result<Self, LayoutError> {
        let mut total = 0_u64;
        let mut entries = Vec::new();
        for (path, len, attr) in files {
            let offset = total;
            total = total
                .checked_add(len)
                .filter(|total| i64::try_from(*total).is_ok())
                .ok_or(LayoutError::TooLarge)?;
            entries.push(FileEntry {
                path,
                len,
                offset,
                attr,
            });
        }
        if piece_len == 0 {
            return Err(LayoutError::NoPieceLength);
        }
        let geometry = Geometry::new(total, piece_len).ok_or(LayoutError::TooManyPieces)?;
        Ok(Self {
            files: entries,
            geometry,
        })
    }

    /// One file.
    pub fn single(path: SafePath, len: u64, piece_len: u32) -> Result<Self, LayoutError> {
        Self::new([(path, len, FileAttr::default())], piece_len)
    }

    /// The files in order of their offset.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Bytes in all, padding included.
    pub fn total_len(&self) -> u64 {
        self.geometry.total_len()
    }

    /// Bytes without padding: what a finished download takes on disk.
    pub fn stored_len(&self) -> u64 {
        let stored = self.files.iter().filter(|f| !f.attr.pad);
        stored.map(|f| f.len).sum()
    }

    /// How the bytes are cut into pieces.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The parts of files that `len` bytes from `offset` on lie in, in order; nothing past the
    /// end. Together they are exactly the range.
    pub fn spans(&self, offset: u64, len: u64) -> impl Iterator<Item = Span> {
        let end = offset.saturating_add(len).min(self.total_len());
        let first = self.files.partition_point(|f| f.offset + f.len <= offset);
        let touched = self.files.iter().enumerate().skip(first);
        touched
            .take_while(move |(_, f)| f.offset < end)
            .filter_map(move |(file, f)| {
                let from = offset.max(f.offset);
                let to = end.min(f.offset + f.len);
                (from < to).then(|| Span {
                    file,
                    offset: from - f.offset,
                    len: to - from,
                })
            })
    }

    /// The parts of files that `piece` lies in.
    pub fn piece_spans(&self, piece: PieceIndex) -> impl Iterator<Item = Span> {
        let len = u64::from(self.geometry.piece_size(piece));
        self.spans(self.geometry.piece_start(piece), len)
    }

    /// The pieces that file number `file` has bytes in; empty for an empty or missing file.
    pub fn pieces_of(&self, file: usize) -> Range<PieceIndex> {
        let piece_len = u64::from(self.geometry.piece_len());
        match self.files.get(file) {
            // The geometry holds, so both quotients fit 32 bits.
            Some(f) if f.len > 0 => {
                (f.offset / piece_len) as u32..(f.offset + f.len).div_ceil(piece_len) as u32
            }
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(lens: &[u64], piece_len: u32) -> Result<Layout, LayoutError> {
        let files = lens.iter().enumerate().map(|(n, len)| {
            let path = SafePath::new(&format!("t/{n}")).expect("safe");
            (path, *len, FileAttr::default())
        });
        Layout::new(files, piece_len)
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let most = i64::MAX as u64;
        assert_eq!(layout(&[most, 1], 1 << 28), Err(LayoutError::TooLarge));
        assert_eq!(layout(&[u64::MAX, 2], 1 << 28), Err(LayoutError::TooLarge));
        assert_eq!(layout(&[most], 1 << 28), Err(LayoutError::TooManyPieces));
        assert_eq!(layout(&[1], 0), Err(LayoutError::NoPieceLength));
        assert_eq!(layout(&[], 1).expect("empty").total_len(), 0);
    }

    #[test]
    fn files_know_their_pieces() {
        let l = layout(&[10, 0, 1, 25], 10).expect("small");
        let pieces: Vec<_> = (0..5).map(|f| l.pieces_of(f)).collect();
        assert_eq!(pieces, [0..1, 0..0, 1..2, 1..4, 0..0]);
    }

    proptest! {
        #[test]
        fn spans_tile_the_range(
            lens in prop::collection::vec(prop_oneof![Just(0), 0u64..100], 0..12),
            offset in 0u64..1200,
            len in prop_oneof![0u64..1200, Just(u64::MAX)],
            piece_len in 1u32..64,
        ) {
            let l = layout(&lens, piece_len).expect("small");
            let mut at = offset;
            for span in l.spans(offset, len) {
                let file = &l.files()[span.file];
                prop_assert!(span.len > 0 && span.offset + span.len <= file.len);
                prop_assert_eq!(file.offset + span.offset, at);
                at += span.len;
            }
            let end = offset.saturating_add(len).min(l.total_len());
            prop_assert_eq!(at, end.max(offset));

            let touched = (0..l.geometry().pieces()).map(|p| l.piece_spans(p).collect::<Vec<_>>());
            for (piece, spans) in touched.enumerate() {
                for span in spans {
                    prop_assert!(l.pieces_of(span.file).contains(&(piece as u32)));
                }
            }
        }
    }
}
