//! Walks a file or folder that is to be shared: which files, in which order.
//!
//! Files come sorted by their path's bytes, so that the same folder makes the same torrent
//! everywhere. Symbolic links that stay inside the folder are kept as links (BEP 47); those that
//! lead out of it, dangle or lead to the folder itself are left out and named, as are sockets,
//! pipes and devices. A file that cannot be read, or whose name no other system could write,
//! stops the walk's caller: sharing half a folder in silence helps nobody.

use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use shoal_content::SafePath;

/// How deep folders may nest; far above real ones, and safe for the stack.
const MAX_DEPTH: usize = 256;

/// One file found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path below the folder; for a single file its name.
    pub(crate) path: SafePath,
    /// Where it is on disk.
    pub(crate) disk: PathBuf,
    /// Bytes; zero for links.
    pub(crate) len: u64,
    /// When it was last changed, to notice a change while hashing.
    pub(crate) modified: Option<SystemTime>,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
    /// For a symbolic link: where it leads, below the folder.
    pub(crate) symlink: Option<SafePath>,
}

/// A thing that was left out or could not be read.
#[derive(Debug)]
pub(crate) struct Oddity {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is odd.
    pub(crate) why: String,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Whether the path is a folder.
    pub(crate) is_folder: bool,
    /// Its name on disk.
    pub(crate) name: String,
    /// The folder it lies in.
    pub(crate) parent: PathBuf,
    /// The files in order.
    pub(crate) files: Vec<Found>,
    /// Left out, for reasons that harm nobody.
    pub(crate) skipped: Vec<Oddity>,
    /// Should be shared but cannot.
    pub(crate) unreadable: Vec<Oddity>,
}

/// Why a path cannot be walked at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// It does not exist, or may not be looked at.
    #[error("cannot look at it")]
    Io(#[from] io::Error),
    /// A socket, pipe or device.
    #[error("it is neither a file nor a folder")]
    NotData,
    /// The root of the file system.
    #[error("the root folder has no name to share it under")]
    NoName,
    /// Its name is not UTF-8, or holds what no file name can.
    #[error("its name is not valid UTF-8; rename it, or give it a name with --name")]
    BadName,
}

/// Walks `path`, which may itself be a symbolic link.
pub(crate) fn scan(path: &Path) -> Result<Scan, ScanError> {
    let root = fs::canonicalize(path)?;
    let meta = fs::metadata(&root)?;
    let file_name = root.file_name().ok_or(ScanError::NoName)?;
    let mut scan = Scan {
        is_folder: meta.is_dir(),
        name: file_name.to_str().ok_or(ScanError::BadName)?.to_owned(),
        parent: root.parent().ok_or(ScanError::NoName)?.to_owned(),
        ..Scan::default()
    };
    if meta.is_file() {
        let name = SafePath::new(&scan.name).map_err(|_| ScanError::BadName)?;
        scan.add_file(name, root, &meta);
    } else if meta.is_dir() {
        scan.walk(&root, &root, 0);
        scan.files
            .sort_by(|a, b| a.path.components().cmp(b.path.components()));
    } else {
        return Err(ScanError::NotData);
    }
    Ok(scan)
}

impl Scan {
    fn walk(&mut self, root: &Path, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return self.unreadable(folder, &"folders nest too deeply");
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => return self.unreadable(folder, &e),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.visit(root, entry.path(), depth),
                Err(e) => self.unreadable(folder, &e),
            }
        }
    }

    fn visit(&mut self, root: &Path, disk: PathBuf, depth: usize) {
        let meta = match fs::symlink_metadata(&disk) {
            Ok(meta) => meta,
            Err(e) => return self.unreadable(&disk, &e),
        };
        if meta.is_dir() {
            return self.walk(root, &disk, depth + 1);
        }
        if !meta.is_file() && !meta.is_symlink() {
            return self.skip(&disk, &"it is a socket, pipe or device");
        }
        let Some(path) = relative(root, &disk) else {
            return self.unreadable(
                &disk,
                &"its name cannot be written in a torrent (not UTF-8, or too long)",
            );
        };
        if meta.is_symlink() {
            self.add_link(root, path, disk);
        } else {
            self.add_file(path, disk, &meta);
        }
    }

    fn add_file(&mut self, path: SafePath, disk: PathBuf, meta: &Metadata) {
        // Opening tells permission problems now rather than after an hour of hashing.
        if let Err(e) = File::open(&disk) {
            return self.unreadable(&disk, &e);
        }
        self.files.push(Found {
            path,
            disk,
            len: meta.len(),
            modified: meta.modified().ok(),
            executable: meta.permissions().mode() & 0o100 != 0,
            symlink: None,
        });
    }

    fn add_link(&mut self, root: &Path, path: SafePath, disk: PathBuf) {
        let target = match fs::canonicalize(&disk) {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.skip(&disk, &"it is a symbolic link that leads nowhere");
            }
            Err(e) => {
                return self.skip(
                    &disk,
                    &format!("it is a symbolic link that cannot be followed: {e}"),
                );
            }
        };
        if !target.starts_with(root) {
            return self.skip(
                &disk,
                &"it is a symbolic link that leads out of the shared folder",
            );
        }
        match relative(root, &target) {
            Some(target) => self.files.push(Found {
                path,
                disk,
                len: 0,
                modified: None,
                executable: false,
                symlink: Some(target),
            }),
            None => self.skip(&disk, &"it is a symbolic link to the shared folder itself"),
        }
    }

    fn skip(&mut self, path: &Path, why: &dyn Display) {
        self.skipped.push(Oddity {
            path: path.to_owned(),
            why: why.to_string(),
        });
    }

    fn unreadable(&mut self, path: &Path, why: &dyn Display) {
        self.unreadable.push(Oddity {
            path: path.to_owned(),
            why: why.to_string(),
        });
    }
}

fn relative(root: &Path, path: &Path) -> Option<SafePath> {
    SafePath::new(path.strip_prefix(root).ok()?.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/deep")).expect("folders");
        for (name, data) in [
            ("b", "bb"),
            ("a/z", "z"),
            ("a/deep/x", ""),
            ("a.txt", "text"),
        ] {
            fs::write(root.join(name), data).expect("a file");
        }
        dir
    }

    #[test]
    fn files_come_sorted_by_component() {
        let dir = tree();
        let scan = scan(&dir.path().join("root")).expect("readable");
        let paths: Vec<_> = scan.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a/deep/x", "a/z", "a.txt", "b"]);
        assert_eq!(scan.files.iter().map(|f| f.len).sum::<u64>(), 7);
        assert_eq!(scan.name, "root");
        assert!(scan.skipped.is_empty() && scan.unreadable.is_empty());
    }

    #[test]
    fn links_inside_are_kept_and_others_are_named() {
        let dir = tree();
        let root = dir.path().join("root");
        fs::write(dir.path().join("secret"), "s").expect("a file");
        for (target, link) in [
            ("a/z", "inside"),
            ("../secret", "outside"),
            ("gone", "dangling"),
            (".", "itself"),
            ("loop", "loop"),
        ] {
            symlink(target, root.join(link)).expect("a link");
        }
        let scan = scan(&root).expect("readable");
        let links: Vec<_> = scan
            .files
            .iter()
            .filter_map(|f| Some((f.path.as_str(), f.symlink.as_ref()?.as_str())))
            .collect();
        assert_eq!(links, [("inside", "a/z")]);
        let mut skipped: Vec<_> = scan
            .skipped
            .iter()
            .filter_map(|o| o.path.file_name()?.to_str())
            .collect();
        skipped.sort_unstable();
        assert_eq!(skipped, ["dangling", "itself", "loop", "outside"]);
    }

    #[test]
    fn a_single_file_is_its_own_tree() {
        let dir = tree();
        let scan = scan(&dir.path().join("root/b")).expect("readable");
        assert!(!scan.is_folder);
        assert_eq!(scan.files.len(), 1);
        assert_eq!(scan.files[0].path.as_str(), "b");
    }

    #[test]
    fn what_is_not_there_or_has_no_name_is_refused() {
        assert!(matches!(
            scan(Path::new("/nonexistent-path")),
            Err(ScanError::Io(_))
        ));
        assert!(matches!(scan(Path::new("/")), Err(ScanError::NoName)));
        assert!(matches!(
            scan(Path::new("/dev/null")),
            Err(ScanError::NotData)
        ));
    }

    #[test]
    fn names_that_are_not_utf8_are_named_as_unreadable() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree();
        let root = dir.path().join("root");
        let name = std::ffi::OsStr::from_bytes(b"bad\xff");
        if fs::write(root.join(name), "x").is_err() {
            return; // This file system takes UTF-8 only.
        }
        let scan = scan(&root).expect("readable");
        assert_eq!(scan.unreadable.len(), 1);
        assert_eq!(scan.files.len(), 4);
    }
}
