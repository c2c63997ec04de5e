//! What can be wrong with a torrent, and where.

use crate::layout::LayoutError;
use crate::path::PathError;
use shoal_base::bencode::BencodeError;
use std::fmt;

/// Why bytes are not a torrent (or an info dictionary) we can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencode at all.
    #[error("not valid bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Bencode, but not a dictionary.
    #[error("not a bencoded dictionary")]
    NotADictionary,
    /// A field is wrong; `key` is the way to it, such as `info.files[3].path`.
    #[error("{key}: {fault}")]
    Field {
        /// Where.
        key: String,
        /// What.
        fault: Fault,
    },
    /// The files cannot be laid out.
    #[error("info: {0}")]
    Layout(#[from] LayoutError),
    /// Sound, but it has no v1 hashes.
    #[error("v2-only torrents are not supported yet")]
    V2Only,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has to be there.
    #[error("missing")]
    Missing,
    /// It is of another type.
    #[error("not {0}")]
    NotA(&'static str),
    /// A list or text without content.
    #[error("empty")]
    Empty,
    /// A number below zero.
    #[error("negative ({0})")]
    Negative(i64),
    /// A path that cannot be made safe.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A piece length outside what is supported.
    #[error("{0} bytes; supported are 1 byte to 256 MiB")]
    PieceLength(i64),
    /// BEP 52 wants a power of two of at least 16 KiB.
    #[error("{0} bytes; a v2 torrent needs a power of two of at least 16 KiB")]
    PieceLengthV2(u32),
    /// `pieces` does not consist of whole hashes.
    #[error("{0} bytes long, not a multiple of 20")]
    CutHash(usize),
    /// As many hashes as pieces are needed.
    #[error("{got} hashes for {need} pieces")]
    PieceCount {
        /// Hashes there are.
        got: usize,
        /// Pieces there are.
        need: u32,
    },
    /// A merkle root of a length other than 32.
    #[error("{0} bytes long, not 32")]
    RootLength(usize),
    /// A symbolic link with bytes of its own.
    #[error("a symbolic link has no bytes, this one has {0}")]
    LinkLength(u64),
    /// A symbolic link that is absolute or climbs out with `..`.
    #[error("the symbolic link points out of the torrent's folder")]
    LinkEscapes,
    /// A symbolic link whose target lies below another link or file.
    #[error("the symbolic link leads through another link or file")]
    LinkThroughFile,
    /// `meta version` is unknown.
    #[error("version {0} is not known")]
    Version(i64),
    /// A hybrid torrent whose two halves describe different files.
    #[error("differs from the v1 part of this hybrid torrent in file {0}")]
    HybridDiffers(usize),
    /// A hybrid torrent whose files do not start at pieces.
    #[error("file {0} of this hybrid torrent does not start at a piece")]
    HybridUnaligned(usize),
}

/// An error about the field at `key`.
pub(super) fn fail(key: impl fmt::Display, fault: impl Into<Fault>) -> MetainfoError {
    MetainfoError::Field {
        key: key.to_string(),
        fault: fault.into(),
    }
}
