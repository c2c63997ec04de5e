//! Files that tasks append to and read anywhere: spilled runs, map output, fetched runs.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file that is removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct SpillFile {
    file: File,
    path: PathBuf,
    end: u64,
    keep: bool,
}

impl SpillFile {
    /// Makes a new file; the folder is made if need be.
    ///
    /// # Errors
    /// What the file system says, also when the name is taken.
    pub fn create(path: &Path) -> io::Result<Self> {
        let make = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        };
        let file = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                make()?
            }
            other => other?,
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            end: 0,
            keep: false,
        })
    }

    /// Opens one that was kept.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            end,
            keep: true,
        })
    }

    /// Leaves the file there when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// What the file system says, above all that it is full.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Fills `buf` with what stands at `offset`.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A buffered writer at the end of the file.
    ///
    /// # Errors
    /// When the file cannot be opened a second time.
    pub fn writer(&self, buffer: usize) -> io::Result<BufWriter<File>> {
        use std::io::Seek;
        let mut file = self.file.try_clone()?;
        file.seek(io::SeekFrom::Start(self.end))?;
        Ok(BufWriter::with_capacity(buffer, file))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed goes with its folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spill_file_goes_when_it_is_dropped_unless_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("deep/er/spill");
        let mut file = SpillFile::create(&path).expect("made");
        file.append(b"abc").expect("written");
        file.append(b"def").expect("written");
        let mut buf = [0; 3];
        file.read_at(2, &mut buf).expect("read");
        assert_eq!(&buf, b"cde");
        assert!(file.read_at(4, &mut buf).is_err());
        assert!(SpillFile::create(&path).is_err());
        drop(file);
        assert!(!path.exists());
        let mut file = SpillFile::create(&path).expect("made again");
        file.append(b"x").expect("written");
        file.keep();
        drop(file);
        assert_eq!(SpillFile::open(&path).expect("kept").len(), 1);
    }
}
