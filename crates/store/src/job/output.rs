//! The folder of a job's output: claimed once, filled by renaming, sealed with `_SUCCESS`.
//!
//! ```text
//! OUT/_shoal/job            what the job is, in the words of whoever claimed the folder
//! OUT/_shoal/attempts/…     output of attempts, private until it counts
//! OUT/part-r-00000          output that counts
//! OUT/_SUCCESS              the job is over and all output is there
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Why a folder cannot be a job's output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It exists and is not this job's.
    #[error("the output folder {} exists already", .0.display())]
    Exists(PathBuf),
    /// What the file system says.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError::Io { what, path, source }
}

/// A claimed output folder.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Makes the folder for a job. An empty folder is taken over. One that was claimed with the
    /// same `claim` and not sealed is taken up again: the second result says so.
    ///
    /// # Errors
    /// When there is something else already, or it cannot be made.
    pub fn claim(path: &Path, claim: &[u8]) -> Result<(Self, bool), OutputError> {
        let this = Self {
            path: path.to_owned(),
        };
        let private = this.private();
        let note = private.join("job");
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(io_error("make", path))?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let exists = || OutputError::Exists(path.to_owned());
                let mut entries = fs::read_dir(path).map_err(|_| exists())?;
                if let Ok(there) = fs::read(&note)
                    && there == claim
                    && !path.join("_SUCCESS").exists()
                {
                    return Ok((this, true));
                }
                if entries.next().is_some() {
                    return Err(exists());
                }
            }
            Err(e) => return Err(io_error("make", path)(e)),
        }
        fs::create_dir_all(this.attempts()).map_err(io_error("make", &private))?;
        // Whole or not at all: a torn note would make the folder nobody's.
        let draft = private.join("job.new");
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(claim)?;
            file.sync_data()?;
            fs::rename(&draft, &note)
        };
        write().map_err(io_error("write", &note))?;
        Ok((this, false))
    }

    /// One that was claimed before, by somebody else on this file system.
    pub fn claimed(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is not output, and goes when the job is over.
    pub fn private(&self) -> PathBuf {
        self.path.join("_shoal")
    }

    /// Where attempts write.
    pub fn attempts(&self) -> PathBuf {
        self.private().join("attempts")
    }

    /// What the folder was claimed with.
    ///
    /// # Errors
    /// When it was not claimed.
    pub fn claim_of(&self) -> io::Result<Vec<u8>> {
        fs::read(self.private().join("job"))
    }

    /// Gives an attempt's file its final name, durably. If that name is taken, what has it stays
    /// and the file is removed; if the file is gone and the name is taken, it was done before.
    ///
    /// # Errors
    /// When the file is gone, or what the file system says.
    pub fn publish(&self, attempt: &Path, name: &str) -> io::Result<()> {
        let target = self.path.join(name);
        match File::open(attempt) {
            Ok(file) => file.sync_data()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound && target.exists() => return Ok(()),
            Err(e) => return Err(e),
        }
        match renameat_with(CWD, attempt, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                fs::remove_file(attempt)?;
                return Ok(());
            }
            // Not every file system knows of it; only the master publishes, so nobody races.
            Err(Errno::INVAL | Errno::NOSYS) if !target.exists() => fs::rename(attempt, &target)?,
            Err(e) => return Err(e.into()),
        }
        File::open(&self.path)?.sync_all()
    }

    /// Writes `_SUCCESS` and removes what is private.
    ///
    /// # Errors
    /// When `_SUCCESS` cannot be written.
    pub fn seal(&self) -> io::Result<()> {
        File::create(self.path.join("_SUCCESS"))?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        // Left-overs are hidden by their name and do no harm.
        let _ = fs::remove_dir_all(self.private());
        Ok(())
    }

    /// Removes all of it: the job failed or was cancelled, and nobody wants half of its output.
    pub fn abandon(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_resumed_by_its_owner_and_sealed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a/out");
        let (folder, again) = OutputFolder::claim(&path, b"job 1").expect("claimed");
        assert!(!again);
        let attempt = folder.attempts().join("x");
        fs::write(&attempt, "1").expect("written");
        folder.publish(&attempt, "part-r-00000").expect("published");
        folder
            .publish(&attempt, "part-r-00000")
            .expect("done before");
        // A second attempt's output changes nothing.
        fs::write(&attempt, "2").expect("written");
        folder.publish(&attempt, "part-r-00000").expect("published");
        assert!(!attempt.exists());
        assert!(folder.publish(&attempt, "part-r-00001").is_err());
        assert_eq!(fs::read(path.join("part-r-00000")).expect("read"), b"1");
        let (folder, again) = OutputFolder::claim(&path, b"job 1").expect("resumed");
        assert!(again);
        let other = OutputFolder::claim(&path, b"job 2").expect_err("another job");
        assert!(matches!(other, OutputError::Exists(_)));
        folder.seal().expect("sealed");
        assert!(path.join("_SUCCESS").exists() && !folder.private().exists());
        OutputFolder::claim(&path, b"job 1").expect_err("over");
    }

    #[test]
    fn an_empty_folder_is_taken_and_a_file_is_not() {
        let dir = tempfile::tempdir().expect("temporary folder");
        OutputFolder::claim(dir.path(), b"j").expect("empty");
        let file = dir.path().join("f");
        fs::write(&file, "").expect("written");
        assert!(OutputFolder::claim(&file, b"j").is_err());
    }
}
