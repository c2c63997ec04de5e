//! What can go wrong with files, told so that a driver can pause a torrent and explain why.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What kind of trouble an error is: decides the reason shown and whether waiting may cure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No room left on the device, or over quota (ENOSPC, EDQUOT).
    Full,
    /// The place may not be written (EROFS, EACCES, EPERM).
    ReadOnly,
    /// A file, folder or device is not there any more, or ends too early (ENOENT, ESTALE, EIO).
    Gone,
    /// Anything else.
    Other,
}

/// What was being done when it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening the download folder.
    OpenFolder,
    /// Opening a file.
    Open,
    /// Making a folder.
    MakeFolder,
    /// Making a symbolic link.
    MakeLink,
    /// Setting a file's length or reserving its room.
    Allocate,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making written data durable.
    Sync,
    /// Looking at a file's size and times.
    Inspect,
    /// Setting a file's attributes.
    SetAttributes,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenFolder => "open the folder",
            Self::Open => "open",
            Self::MakeFolder => "make the folder",
            Self::MakeLink => "make the link",
            Self::Allocate => "reserve room for",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Inspect => "look at",
            Self::SetAttributes => "set the attributes of",
        })
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Os(i32),
    EndsEarly,
    NotAFile,
    Unknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(code) => io::Error::from_raw_os_error(*code).fmt(f),
            Self::EndsEarly => f.write_str("the file ends too early"),
            Self::NotAFile => f.write_str("not a plain file"),
            Self::Unknown => f.write_str("no such torrent is open"),
        }
    }
}

/// A failed file operation: on what path, doing what, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", path.display())]
pub struct StoreError {
    operation: Operation,
    path: PathBuf,
    cause: Cause,
}

impl StoreError {
    pub(crate) fn os(operation: Operation, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self {
            operation,
            path: path.into(),
            cause: Cause::Os(errno.raw_os_error()),
        }
    }

    pub(crate) fn ends_early(operation: Operation, path: impl Into<PathBuf>) -> Self {
        Self {
            operation,
            path: path.into(),
            cause: Cause::EndsEarly,
        }
    }

    pub(crate) fn not_a_file(path: impl Into<PathBuf>) -> Self {
        Self {
            operation: Operation::Open,
            path: path.into(),
            cause: Cause::NotAFile,
        }
    }

    pub(crate) fn unknown(operation: Operation) -> Self {
        Self {
            operation,
            path: PathBuf::new(),
            cause: Cause::Unknown,
        }
    }

    /// The file or folder concerned.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was being done.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether it only says that a file is not there or too short.
    pub(crate) fn is_absence(&self) -> bool {
        match self.cause {
            Cause::Os(code) => {
                matches!(Errno::from_raw_os_error(code), Errno::NOENT | Errno::NOTDIR)
            }
            Cause::EndsEarly => true,
            Cause::NotAFile | Cause::Unknown => false,
        }
    }

    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        match self.cause {
            Cause::Os(code) => match Errno::from_raw_os_error(code) {
                Errno::NOSPC | Errno::DQUOT => ErrorClass::Full,
                Errno::ROFS | Errno::ACCESS | Errno::PERM => ErrorClass::ReadOnly,
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::STALE
                | Errno::IO
                | Errno::NODEV
                | Errno::NXIO
                | Errno::NOTCONN
                | Errno::HOSTDOWN
                | Errno::TIMEDOUT => ErrorClass::Gone,
                _ => ErrorClass::Other,
            },
            Cause::EndsEarly => ErrorClass::Gone,
            Cause::NotAFile | Cause::Unknown => ErrorClass::Other,
        }
    }

    /// Whether the same operation may succeed later without anybody changing the request: the
    /// driver then asks with [`Job::Probe`](crate::Job::Probe) now and then.
    pub fn may_recover(&self) -> bool {
        match self.class() {
            ErrorClass::Full | ErrorClass::ReadOnly | ErrorClass::Gone => true,
            ErrorClass::Other => matches!(
                self.cause,
                Cause::Os(code) if matches!(
                    Errno::from_raw_os_error(code),
                    Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::BUSY
                )
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_and_where_and_whether_to_wait() {
        let check = |errno, class, recovers| {
            let e = StoreError::os(Operation::Write, "/d/a file", errno);
            assert_eq!((e.class(), e.may_recover()), (class, recovers), "{e}");
            assert!(e.to_string().starts_with("cannot write /d/a file: "), "{e}");
        };
        check(Errno::NOSPC, ErrorClass::Full, true);
        check(Errno::DQUOT, ErrorClass::Full, true);
        check(Errno::ROFS, ErrorClass::ReadOnly, true);
        check(Errno::NOENT, ErrorClass::Gone, true);
        check(Errno::IO, ErrorClass::Gone, true);
        check(Errno::MFILE, ErrorClass::Other, true);
        check(Errno::FBIG, ErrorClass::Other, false);
        check(Errno::LOOP, ErrorClass::Other, false);
        let short = StoreError::ends_early(Operation::Read, "x");
        assert_eq!(short.to_string(), "cannot read x: the file ends too early");
        assert_eq!(short.class(), ErrorClass::Gone);
    }
}
