//! Everything on disk: a content's files, the pool of threads that writes, hashes and reads them,
//! and the database that lets an interrupted download go on.
//!
//! The only crate that opens files. Knows no protocol.

mod error;
mod fd_cache;
mod files;
mod folder;
pub mod job;
pub mod library;
mod pool;
pub mod resume;
mod single;
pub mod snapshot;

pub use error::{ErrorClass, Operation, StoreError};
pub use files::{FileStamp, OpenOptions, TorrentFiles};

pub use pool::{
    BlockWrite, DiskPool, Done, Job, Notify, ReadPart, Registration, TorrentKey, WriteBatch,
};
pub use single::{Partial, Served};

pub use resume::{Resume, ResumeError, ResumeId, ResumeState, TorrentSettings};
