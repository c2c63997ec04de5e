//! One file that comes, or goes, as a plain stream of bytes.
//!
//! What comes is written to `NAME.part` beneath its folder, never through a link, and gets its name
//! when it is whole; a file of that name stays, the new one gets a number.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use shoal_content::SafePath;

use crate::error::{Operation, StoreError};
use crate::folder::Folder;
use crate::library::Stamp;

/// Names that are tried before giving up.
const MAX_NUMBER: u64 = 10_000;

/// A file that is not whole yet.
#[derive(Debug)]
pub struct Partial {
    folder: Folder,
    name: SafePath,
    part: PathBuf,
    file: File,
    len: u64,
}

impl Partial {
    /// Opens what is there of a file, or begins it. `name` is a single component.
    ///
    /// # Errors
    /// What the file system says; another process that is at it.
    pub fn open(dir: &Path, name: &SafePath) -> Result<Self, StoreError> {
        let folder = Folder::open(dir, true)?;
        let mut part = name.file_name().to_owned();
        part.push_str(".part");
        let part = PathBuf::from(part);
        let shown = dir.join(&part);
        let err = |operation| {
            let shown = shown.clone();
            move |e: Errno| StoreError::os(operation, &shown, e)
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
        let fd = folder
            .open_file(&part, flags)
            .map_err(err(Operation::Open))?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(err(Operation::Open))?;
        let stat = rustix::fs::fstat(&fd).map_err(err(Operation::Inspect))?;
        Ok(Self {
            folder,
            name: name.clone(),
            part,
            file: fd.into(),
            len: u64::try_from(stat.st_size).unwrap_or(0),
        })
    }

    fn error(&self, operation: Operation, e: &io::Error) -> StoreError {
        let errno = Errno::from_io_error(e).unwrap_or(Errno::IO);
        StoreError::os(operation, self.folder.path().join(&self.part), errno)
    }

    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is there yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The last bytes, `most` of them at most.
    ///
    /// # Errors
    /// What the file system says.
    pub fn tail(&self, most: usize) -> Result<Vec<u8>, StoreError> {
        let n = usize::try_from(self.len).map_or(most, |len| len.min(most));
        let mut tail = vec![0; n];
        let read = self.file.read_exact_at(&mut tail, self.len - n as u64);
        read.map_err(|e| self.error(Operation::Read, &e))?;
        Ok(tail)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| self.error(Operation::Write, &e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .map_err(|e| self.error(Operation::Allocate, &e))?;
        self.len = 0;
        Ok(())
    }

    /// Gives the file its name; where it is now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self) -> Result<PathBuf, StoreError> {
        self.file
            .sync_all()
            .map_err(|e| self.error(Operation::Sync, &e))?;
        for n in 0..MAX_NUMBER {
            let name = if n == 0 {
                self.name.clone()
            } else {
                self.name.numbered(n)
            };
            match self.folder.rename_new(&self.part, name.as_path()) {
                Ok(()) => return Ok(self.folder.path().join(name.as_path())),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(self.error(Operation::Write, &e.into())),
            }
        }
        Err(self.error(Operation::Write, &Errno::EXIST.into()))
    }
}

/// A file of the user's that is served.
#[derive(Debug)]
pub struct Served {
    file: File,
    len: u64,
}

impl Served {
    /// Opens a plain file.
    ///
    /// # Errors
    /// What the file system says; that it is no plain file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a plain file",
            ));
        }
        let len = metadata.len();
        Ok(Self { file, len })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When its bytes last changed, in nanoseconds since 1970; none if the system does not say.
    pub fn modified_ns(&self) -> Option<i64> {
        let stat = rustix::fs::fstat(&self.file).ok()?;
        Some(Stamp::of(&stat).mtime_ns)
    }

    /// Sends up to `len` bytes from an offset to a socket without taking them into memory; how many
    /// went.
    ///
    /// # Errors
    /// What the file or the socket says; that the file is shorter than it was.
    pub fn send_to(&self, socket: impl AsFd, offset: u64, len: usize) -> io::Result<usize> {
        let mut at = offset;
        match rustix::fs::sendfile(socket, &self.file, Some(&mut at), len) {
            Ok(0) if len > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(n),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads at an offset; how many bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_goes_on_and_replaces_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let name = SafePath::new("song.mp3").expect("safe");
        let mut partial = Partial::open(dir.path(), &name).expect("begun");
        partial.append(b"one ").expect("written");
        assert!(Partial::open(dir.path(), &name).is_err(), "locked");
        drop(partial);
        let mut partial = Partial::open(dir.path(), &name).expect("opened");
        assert_eq!(
            (partial.len(), partial.tail(2).expect("read")),
            (4, b"e ".to_vec())
        );
        partial.append(b"two").expect("written");
        std::fs::write(dir.path().join("song.mp3"), "mine").expect("written");
        let at = partial.finish().expect("named");
        assert_ne!(at, dir.path().join("song.mp3"));
        assert_eq!(std::fs::read(at).expect("read"), b"one two");
        assert_eq!(
            std::fs::read(dir.path().join("song.mp3")).expect("read"),
            b"mine"
        );
        let mut again = Partial::open(dir.path(), &name).expect("begun");
        again.append(b"x").expect("written");
        again.restart().expect("emptied");
        again.append(b"y").expect("written");
        assert_eq!(again.tail(9).expect("read"), b"y");
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outside = dir.path().join("outside");
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).expect("made");
        std::os::unix::fs::symlink(&outside, inside.join("a.part")).expect("linked");
        let name = SafePath::new("a").expect("safe");
        assert!(Partial::open(&inside, &name).is_err());
        assert!(!outside.exists());
    }
}
