//! Small files that are replaced whole: what a crash leaves is the old one or the new one.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The content of the file at `path`; none if there is no such file, or if it is longer than
/// `limit` bytes, and so none that [`save`] wrote.
pub fn load(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Replaces the file at `path`, durably. Its folder is made if it is missing. Several processes
/// may do so: the last one wins.
pub fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o666)
}

/// The same for secrets: only its owner may read the file.
pub fn save_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let write = || {
        let mut new = fs::OpenOptions::new();
        new.write(true).create(true).truncate(true).mode(mode);
        let mut file = new.open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        // What cannot be removed does no harm.
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("deep/contacts");
        assert_eq!(load(&path, 10).expect("no fault"), None);
        for bytes in [&b"one"[..], b"another"] {
            save(&path, bytes).expect("saved");
            assert_eq!(load(&path, 10).expect("loaded").as_deref(), Some(bytes));
        }
        assert_eq!(load(&path, 6).expect("loaded"), None);
        let names = fs::read_dir(path.parent().expect("a folder")).expect("listed");
        assert_eq!(names.count(), 1);
    }
}
