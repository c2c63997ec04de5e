//! What a file is: pieces, hashes and names; and the multi-source download of it.
//!
//! Knows neither where blocks come from nor how they reach a disk.

pub mod block;
pub mod create;
pub mod download;
pub mod file_hashes;
pub mod file_kind;
pub mod hashes;
pub mod hits;
pub mod keywords;
pub mod layout;
pub mod magnet;
pub mod merkle;
pub mod metainfo;
mod names;
pub mod path;
pub mod picker;
pub mod tiger;
pub mod url;

pub use self::tiger::{TigerRoot, TigerTree};
pub use block::{BLOCK_LEN, Block, Geometry, PieceIndex};
pub use create::{CreateError, CreateOptions, NewFile, Plan};
pub use download::{BlockDigest, Download, DownloadConfig, DownloadOutput, PieceOutcome, SourceId};
pub use file_hashes::{FileHasher, FileHashes};
pub use file_kind::FileKind;
pub use hashes::{PieceDigest, PieceHashes};
pub use layout::{FileAttr, FileEntry, Layout, LayoutError, Span};
pub use magnet::{FileSource, Magnet, MagnetError, Publisher, Selection};
pub use metainfo::{Info, MAX_PIECE_LEN, Metainfo, MetainfoError};
pub use path::{Naming, PathError, SafePath};
pub use picker::{Picker, Priority};
pub use shoal_base::Urn;
