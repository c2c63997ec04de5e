//! Walks a folder, every folder in it sorted by name, without following links.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::record::Stamp;
use super::scan::Oddity;

/// How deep folders may nest; far above real ones, and safe for the stack and open files.
const MAX_DEPTH: usize = 128;
/// Endings of files that are not whole yet: ours and those of browsers and other clients.
const UNFINISHED: [&str; 5] = [".part", ".crdownload", ".!qB", ".!ut", ".aria2"];

/// What is walked, and what is left out.
pub(super) struct Walk<'a> {
    /// The folder of the library, absolute.
    pub(super) root: &'a Path,
    /// Whether names that begin with a dot count.
    pub(super) hidden: bool,
    /// Folders that are walked for themselves, absolute.
    pub(super) apart: &'a BTreeSet<PathBuf>,
}

/// What a walk comes upon.
pub(super) trait Visitor {
    /// A plain file, by its path below the folder; false ends the walk.
    fn file(&mut self, path: &str, stamp: Stamp) -> bool;
    /// What cannot be shared.
    fn odd(&mut self, oddity: Oddity);
}

impl Walk<'_> {
    /// Walks what lies below `from`, a path in the folder, the empty one for all of it, whose open
    /// folder is `fd`. Whether it came to its end.
    pub(super) fn run(&self, fd: &OwnedFd, from: &str, visitor: &mut dyn Visitor) -> bool {
        self.folder(fd, from, 0, visitor)
    }

    fn folder(&self, fd: &OwnedFd, path: &str, depth: usize, visitor: &mut dyn Visitor) -> bool {
        let names = match names(fd) {
            Ok(names) => names,
            Err(e) => {
                visitor.odd(self.oddity(path, &std::io::Error::from(e).to_string()));
                return true;
            }
        };
        for name in names {
            let Some(utf8) = name.to_str() else {
                let shown = format!("{path}/{}", name.to_string_lossy());
                visitor.odd(self.oddity(&shown, "its name is not UTF-8"));
                continue;
            };
            if utf8.starts_with('.') && !self.hidden {
                continue;
            }
            let below = match path {
                "" => utf8.to_owned(),
                path => format!("{path}/{utf8}"),
            };
            if !self.entry(fd, &name, &below, depth, visitor) {
                return false;
            }
        }
        true
    }

    fn entry(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &str,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> bool {
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went while the folder was walked.
            Err(Errno::NOENT) => return true,
            Err(e) => {
                visitor.odd(self.oddity(path, &std::io::Error::from(e).to_string()));
                return true;
            }
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if UNFINISHED.iter().any(|end| path.ends_with(end)) => true,
            FileType::RegularFile => visitor.file(path, Stamp::of(&stat)),
            FileType::Directory if self.apart.contains(&self.root.join(path)) => true,
            FileType::Directory if depth >= MAX_DEPTH => {
                visitor.odd(self.oddity(path, "folders nest too deeply"));
                true
            }
            FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(folder, name, flags, Mode::empty()) {
                    Ok(fd) => self.folder(&fd, path, depth + 1, visitor),
                    Err(Errno::NOENT | Errno::NOTDIR) => true,
                    Err(e) => {
                        visitor.odd(self.oddity(path, &std::io::Error::from(e).to_string()));
                        true
                    }
                }
            }
            FileType::Symlink => {
                visitor.odd(self.oddity(path, "links are not followed"));
                true
            }
            // Sockets, pipes and devices hold nothing to share.
            _ => true,
        }
    }

    fn oddity(&self, path: &str, why: &str) -> Oddity {
        Oddity {
            path: self.root.join(path),
            why: why.to_owned(),
        }
    }
}

/// The names in a folder, sorted by their bytes.
fn names(folder: &OwnedFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name != c"." && name != c".." {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
