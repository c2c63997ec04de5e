//! Where attempts keep what does not fit into their memory: files in the worker's folder.

use shoal_mapreduce::data::{Scratch, Storage};
use shoal_store::job::SpillFile;
use std::io;
use std::path::PathBuf;

/// The files of one attempt.
#[derive(Debug)]
pub struct FileStorage {
    dir: PathBuf,
    output: PathBuf,
    spills: u32,
}

impl FileStorage {
    /// Spills go into `dir`, a folder of the attempt alone; map output that is too long for memory
    /// goes to `output`.
    pub fn new(dir: PathBuf, output: PathBuf) -> Self {
        Self {
            dir,
            output,
            spills: 0,
        }
    }
}

impl Storage for FileStorage {
    fn spill(&mut self) -> io::Result<Box<dyn Scratch>> {
        self.spills += 1;
        let path = self.dir.join(format!("spill-{}", self.spills));
        Ok(Box::new(ScratchFile(SpillFile::create(&path)?)))
    }

    fn output(&mut self) -> io::Result<Box<dyn Scratch>> {
        Ok(Box::new(ScratchFile(SpillFile::create(&self.output)?)))
    }
}

/// A spill file as the core sees it.
#[derive(Debug)]
pub struct ScratchFile(pub SpillFile);

impl Scratch for ScratchFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }
}
