//! The file of an execution log: read whole, cut behind its last whole record, appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// An execution log, open and locked: two masters never write one log.
#[derive(Debug)]
pub struct JobLog {
    file: File,
    end: u64,
}

impl JobLog {
    /// Opens the log, making it if need be, and reads all of it.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::WouldBlock`] when another process has it open.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<u8>)> {
        let new = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // A new file is found again after a crash only once its folder is durable.
        if new && let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let end = bytes.len() as u64;
        Ok((Self { file, end }, bytes))
    }

    /// Cuts off what comes after the last whole record.
    ///
    /// # Errors
    /// What the file system says.
    pub fn cut(&mut self, bytes: u64) -> io::Result<()> {
        if bytes < self.end {
            self.file.set_len(bytes)?;
            self.end = bytes;
        }
        Ok(())
    }

    /// Appends bytes and makes them durable. After an error the file may end in a torn record; the
    /// next append writes over it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_found_again_cut_and_locked() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("log");
        let (mut log, empty) = JobLog::open(&path).expect("made");
        assert!(empty.is_empty());
        log.append(b"one").expect("appended");
        log.append(b"two").expect("appended");
        let second = JobLog::open(&path).expect_err("locked");
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(log);
        let (mut log, bytes) = JobLog::open(&path).expect("opened");
        assert_eq!(bytes, b"onetwo");
        log.cut(4).expect("cut");
        log.append(b"X").expect("appended");
        drop(log);
        assert_eq!(std::fs::read(&path).expect("read"), b"onetX");
    }
}
