//! Side files on a worker: where the submitter has them if that is here, else fetched once and kept
//! by their hash.

use sha2::{Digest, Sha256};
use shoal_mapreduce::job::{Code, JobSpec, SideFile};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Fetches side files by their SHA-256 from whoever has them.
pub trait SideSource: Send + Sync {
    /// Fetches one into a new file at `to`.
    ///
    /// # Errors
    /// When nobody has it, or the file cannot be written.
    fn fetch(&self, sha256: &str, to: &Path) -> io::Result<()>;
}

/// The side files of one worker.
pub struct SideFiles {
    dir: PathBuf,
    source: Option<Box<dyn SideSource>>,
    /// One is fetched at a time: attempts of one job want the same ones.
    turn: Mutex<()>,
}

impl std::fmt::Debug for SideFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SideFiles({})", self.dir.display())
    }
}

/// The lower-case hexadecimal SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(chunk.get(..n).unwrap_or_default()),
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    shoal_base::id::to_hex(bytes)
}

/// All files that a job needs beside its input: those it names, then its modules.
pub fn needed(spec: &mut JobSpec) {
    let codes = [
        Some(&spec.mapper),
        spec.combiner.as_ref(),
        spec.reducer.as_ref(),
    ];
    let modules: Vec<String> = codes
        .into_iter()
        .flatten()
        .filter_map(|code| match code {
            Code::Wasm { module, .. } => Some(module.clone()),
            _ => None,
        })
        .collect();
    for module in modules {
        let known = |file: &SideFile| file.source == module || file.name == module;
        if !spec.side_files.iter().any(known) {
            spec.side_files
                .push(crate::job_file::side_file(&module, None, false));
        }
    }
}

impl SideFiles {
    /// Kept in `dir`; what is not here is fetched from `source`.
    pub fn new(dir: PathBuf, source: Option<Box<dyn SideSource>>) -> Self {
        Self {
            dir,
            source,
            turn: Mutex::new(()),
        }
    }

    /// Where a side file lies on this machine.
    ///
    /// # Errors
    /// When it is not here and cannot be fetched, or what was fetched is another file.
    pub fn path(&self, file: &SideFile) -> io::Result<PathBuf> {
        let Some(source) = &self.source else {
            return Ok(PathBuf::from(&file.source));
        };
        let digits = file.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        if file.sha256.len() != 64 || !digits {
            let what = format!("side file {} has no hash", file.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let path = self.dir.join(&file.sha256);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(&self.dir)?;
        let partial = self.dir.join(format!("{}.part", file.sha256));
        let _ = std::fs::remove_file(&partial);
        source.fetch(&file.sha256, &partial)?;
        if sha256_of(&partial)? != file.sha256 {
            let _ = std::fs::remove_file(&partial);
            let what = format!("side file {} came with other bytes", file.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        std::fs::rename(&partial, &path)?;
        Ok(path)
    }
}
