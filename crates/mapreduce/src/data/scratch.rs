//! Where a task keeps what does not fit into its memory.

use std::fmt;
use std::io;
use std::sync::Arc;

/// A file of one task: appended to, then read anywhere. Its space is free again when it is dropped.
pub trait Scratch: Send + Sync {
    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buf` with what stands at `offset`.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Makes the files of one attempt.
pub trait Storage: Send {
    /// A new, empty file for runs that do not outlive the attempt.
    ///
    /// # Errors
    /// What the file system says.
    fn spill(&mut self) -> io::Result<Box<dyn Scratch>>;

    /// The file for the output of a map task, once that is too large to be served from memory.
    ///
    /// # Errors
    /// What the file system says.
    fn output(&mut self) -> io::Result<Box<dyn Scratch>>;
}

/// A part of a scratch file as a stream.
#[derive(Clone)]
pub struct Section {
    file: Arc<dyn Scratch>,
    at: u64,
    end: u64,
}

impl Section {
    /// The `len` bytes of `file` from `offset` on.
    pub fn new(file: Arc<dyn Scratch>, offset: u64, len: u64) -> Self {
        Self {
            file,
            at: offset,
            end: offset.saturating_add(len),
        }
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({}..{})", self.at, self.end)
    }
}

impl io::Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let (part, _) = buf.split_at_mut(len);
        self.file.read_at(self.at, part)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Scratch files in memory: for tests, and for what is known to be small.
#[derive(Debug, Default, Clone)]
pub struct MemoryStorage;

impl Storage for MemoryStorage {
    fn spill(&mut self) -> io::Result<Box<dyn Scratch>> {
        Ok(Box::new(Vec::new()))
    }

    fn output(&mut self) -> io::Result<Box<dyn Scratch>> {
        Ok(Box::new(Vec::new()))
    }
}

impl Scratch for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let stored = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..)?.get(..buf.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(stored);
        Ok(())
    }
}
