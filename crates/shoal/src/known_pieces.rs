//! Pieces that were hashed before: `share` reads no file again that has not changed.
//!
//! They are kept in the library under a name that follows from what the files look like: piece
//! length, and of each file in order its length, inode and time of change. A file of the library
//! itself has its pieces there already.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha1::{Digest, Sha1};
use shoal_content::Layout;
use shoal_store::library::{Library, Stamp};

/// How much older than the hashing the last change must be: two changes within one step of the
/// file system's clock leave the same time.
const SETTLED: Duration = Duration::from_millis(20);
/// How long another process may hold the library before it is done without.
const PATIENCE: Duration = Duration::from_secs(1);

/// The files of a torrent as they look now.
pub(crate) struct Looks {
    name: [u8; 20],
    newest_ns: i64,
    looked: SystemTime,
}

/// How the files of `layout` look; none if one is not as the layout has it. Waits a moment for one
/// that was written just now.
pub(crate) fn look(layout: &Layout, paths: &[Option<PathBuf>]) -> Option<Looks> {
    let looks = look_once(layout, paths)?;
    if looks.are_settled() {
        return Some(looks);
    }
    // The clock itself is waited for: a change within its step could not be told from this one.
    std::thread::sleep(SETTLED);
    look_once(layout, paths)
}

fn look_once(layout: &Layout, paths: &[Option<PathBuf>]) -> Option<Looks> {
    let looked = SystemTime::now();
    let mut sha1 = Sha1::new();
    sha1.update(b"pieces 1");
    sha1.update(layout.geometry().piece_len().to_le_bytes());
    let mut newest_ns = i64::MIN;
    for (file, path) in layout.files().iter().zip(paths) {
        sha1.update(file.len.to_le_bytes());
        let Some(path) = path.as_ref().filter(|_| file.len > 0) else {
            continue;
        };
        let stamp = Stamp::at(path).ok().filter(|s| s.len == file.len)?;
        sha1.update(stamp.inode.to_le_bytes());
        sha1.update(stamp.mtime_ns.to_le_bytes());
        newest_ns = newest_ns.max(stamp.mtime_ns);
    }
    let name = sha1.finalize().into();
    Some(Looks {
        name,
        newest_ns,
        looked,
    })
}

impl Looks {
    fn are_settled(&self) -> bool {
        let since = self.looked.checked_sub(SETTLED);
        let since = since.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        since.is_some_and(|t| t.as_nanos().cast_signed() > i128::from(self.newest_ns))
    }
}

/// None if it is in use for long or cannot be read: no error, the files are hashed.
fn open(dir: &Path) -> Option<Library> {
    Library::open_within(dir, PATIENCE).ok()
}

/// The pieces of a torrent whose files look so, if they are known.
pub(crate) fn find(
    dir: &Path,
    looks: &Looks,
    layout: &Layout,
    paths: &[Option<PathBuf>],
) -> Option<Vec<[u8; 20]>> {
    let library = open(dir)?;
    let need = usize::try_from(layout.geometry().pieces()).ok()?;
    let kept = library.pieces(&looks.name).ok().flatten();
    let right = |pieces: &Vec<_>| pieces.len() == need;
    kept.filter(right).or_else(|| {
        let [Some(path)] = paths else {
            return None;
        };
        let record = library.file(path).ok()??;
        let pieces = match library.parts(&record).ok()? {
            Some(parts) if parts.piece_len == layout.geometry().piece_len() => parts.pieces,
            Some(_) => return None,
            None => vec![record.sha1],
        };
        Some(pieces).filter(right)
    })
}

/// Keeps pieces that were hashed after the look.
pub(crate) fn keep(dir: &Path, looks: &Looks, pieces: &[[u8; 20]]) {
    if looks.are_settled()
        && let Some(library) = open(dir)
    {
        // What cannot be kept is hashed again.
        let _ = library.keep_pieces(&looks.name, pieces);
    }
}
