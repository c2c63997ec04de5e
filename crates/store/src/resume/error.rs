//! Why resume data cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::ResumeId;

/// Why the resume data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Another process holds the folder.
    #[error("another process uses {}{}", dir.display(), holder(*.pid))]
    Locked {
        /// The state folder.
        dir: PathBuf,
        /// The other process, if it said.
        pid: Option<u32>,
    },
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database is not one, or its bytes were changed by others.
    #[error("resume database {} is damaged: {reason}", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What makes no sense.
        reason: String,
    },
    /// The database failed.
    #[error("resume database {}: {reason}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// No such torrent is loaded.
    #[error("torrent {0:?} is not loaded")]
    NotLoaded(ResumeId),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResumeError {
    let path = path.to_owned();
    move |source| ResumeError::Io { what, path, source }
}
