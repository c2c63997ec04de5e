//! One folder and what lies beneath it: every path is opened without following a symbolic link,
//! so that nothing planted in the folder can lead out of it.
//!
//! The folder itself is the user's choice and may be reached through links.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Operation, StoreError};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
// A planted FIFO must not block us: non-blocking is without effect on plain files.
const PLAIN: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);

/// Set once the kernel has refused openat2 (before Linux 5.6, or under a filter).
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens `path`, making it and its parents first if `create`.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let opened = rustix::fs::open(path, FOLDER, Mode::empty());
        let fd = match opened {
            Err(Errno::NOENT) if create => {
                std::fs::create_dir_all(path).map_err(|e| {
                    let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                    StoreError::os(Operation::MakeFolder, path, errno)
                })?;
                rustix::fs::open(path, FOLDER, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(|e| StoreError::os(Operation::OpenFolder, path, e))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file at `relative`; no component may be a symbolic link or lead upwards.
    pub(crate) fn open_file(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(0o666);
        if !NO_OPENAT2.load(Ordering::Relaxed) {
            for _ in 0..4 {
                match rustix::fs::openat2(
                    &self.fd,
                    relative,
                    flags | PLAIN,
                    if flags.contains(OFlags::CREATE) {
                        mode
                    } else {
                        Mode::empty()
                    },
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
                ) {
                    // A rename raced with the walk: openat2(2) says to try again.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::NOSYS) => {
                        NO_OPENAT2.store(true, Ordering::Relaxed);
                        break;
                    }
                    // Some system call filters answer EPERM to what they do not know.
                    Err(Errno::PERM) => break,
                    other => return other,
                }
            }
        }
        self.open_by_steps(relative, flags)
    }

    fn open_by_steps(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let (parent, name) = self.parent_of(relative, false)?;
        rustix::fs::openat(&parent, name, flags | PLAIN, Mode::from_raw_mode(0o666))
    }

    /// Makes the folders that `relative` lies in.
    pub(crate) fn make_parents(&self, relative: &Path) -> Result<(), Errno> {
        self.parent_of(relative, true).map(drop)
    }

    /// Walks to the folder holding `relative`, one component at a time.
    fn parent_of<'p>(
        &self,
        relative: &'p Path,
        create: bool,
    ) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = relative.file_name().ok_or(Errno::INVAL)?;
        let mut at = self.fd.try_clone().map_err(|_| Errno::MFILE)?;
        for component in relative.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(step) = component else {
                return Err(Errno::XDEV);
            };
            let open = |at: &OwnedFd| {
                rustix::fs::openat(at, step, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            };
            at = match open(&at) {
                Err(Errno::NOENT) if create => {
                    match rustix::fs::mkdirat(&at, step, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => open(&at)?,
                        Err(e) => return Err(e),
                    }
                }
                other => other?,
            };
        }
        Ok((at, name))
    }

    /// Makes a symbolic link at `relative` to `target`; one already there with that target is fine.
    pub(crate) fn make_link(&self, relative: &Path, target: &Path) -> Result<(), Errno> {
        let (parent, name) = self.parent_of(relative, true)?;
        match rustix::fs::symlinkat(target, &parent, name) {
            Err(Errno::EXIST) => {
                let there = rustix::fs::readlinkat(&parent, name, Vec::new());
                match there {
                    Ok(there) if there.as_bytes() == target.as_os_str().as_encoded_bytes() => {
                        Ok(())
                    }
                    _ => Err(Errno::EXIST),
                }
            }
            other => other,
        }
    }

    /// Gives a file of this folder another name in it, unless there is one of that name.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        use rustix::fs::RenameFlags;
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // File systems that cannot do it in one step.
            Err(Errno::INVAL | Errno::NOSYS) => match self.stat(to) {
                Err(Errno::NOENT) => rustix::fs::renameat(&self.fd, from, &self.fd, to),
                Err(e) => Err(e),
                Ok(_) => Err(Errno::EXIST),
            },
            other => other,
        }
    }

    /// Size and times of what is at `relative`; a link is not followed.
    pub(crate) fn stat(&self, relative: &Path) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, relative, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Writes a little into a nameless file here and lets it go: can anything be written?
    pub(crate) fn try_writing(&self) -> Result<(), StoreError> {
        let err = |e| StoreError::os(Operation::Write, &self.path, e);
        let space = rustix::fs::fstatvfs(&self.fd).map_err(err)?;
        let unit = if space.f_frsize == 0 {
            space.f_bsize
        } else {
            space.f_frsize
        };
        // Some file systems report no sizes at all.
        if space.f_blocks > 0 && space.f_bavail.saturating_mul(unit) < PROBE_LEN as u64 {
            return Err(err(Errno::NOSPC));
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => write_all(&file, &vec![0xa5; PROBE_LEN]).map_err(err),
            // Not every file system has nameless files; the next real write will tell.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(()),
            Err(e) => Err(err(e)),
        }
    }
}

const PROBE_LEN: usize = 512 * 1024;

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let outside = tempfile::tempdir().expect("temporary folder");
        std::fs::write(outside.path().join("secret"), "s").expect("written");
        let dir = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).expect("made");
        std::fs::write(at("d/plain"), "p").expect("written");
        symlink(outside.path(), at("link")).expect("linked");
        symlink(outside.path().join("secret"), at("d/file")).expect("linked");
        symlink("d", at("inside")).expect("linked");
        symlink(outside.path().join("new"), at("dangling")).expect("linked");
        let folder = Folder::open(dir.path(), false).expect("opens");
        let check = |path: &str, flags: OFlags, want: Option<Errno>| {
            for (how, got) in [
                ("openat2", folder.open_file(Path::new(path), flags)),
                ("steps", folder.open_by_steps(Path::new(path), flags)),
            ] {
                match (got, want) {
                    (Ok(_), None) => {}
                    // The kernel says ENOTDIR for a link where a folder is wanted.
                    (Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV), Some(Errno::LOOP)) => {}
                    (Err(e), Some(want)) if e == want => {}
                    (got, _) => panic!("{path} by {how}: {got:?}"),
                }
            }
        };
        let (read, write) = (OFlags::RDONLY, OFlags::RDWR | OFlags::CREATE);
        check("d/plain", read, None);
        check("d/plain", write, None);
        check("d/none", read, Some(Errno::NOENT));
        check("none/x", write, Some(Errno::NOENT));
        for path in ["link/secret", "d/file", "inside/plain", "dangling", "../x"] {
            check(path, read, Some(Errno::LOOP));
            check(path, write, Some(Errno::LOOP));
        }
        for path in ["link/new/file", "inside/new/file", "../new/file"] {
            let made = folder.make_parents(Path::new(path));
            assert!(made.is_err(), "{path}");
        }
        assert!(!outside.path().join("new").exists());
    }

    #[test]
    fn links_are_made_once_and_not_replaced() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = Folder::open(dir.path(), false).expect("opens");
        let link = Path::new("a/link");
        assert_eq!(folder.make_link(link, Path::new("../b")), Ok(()));
        assert_eq!(folder.make_link(link, Path::new("../b")), Ok(()));
        assert_eq!(folder.make_link(link, Path::new("../c")), Err(Errno::EXIST));
    }

    #[test]
    fn a_folder_is_made_if_wanted() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let deep = dir.path().join("a/b");
        let e = Folder::open(&deep, false).expect_err("not there");
        assert_eq!(e.class(), crate::ErrorClass::Gone);
        let folder = Folder::open(&deep, true).expect("made");
        assert_eq!(folder.try_writing(), Ok(()));
        assert_eq!(std::fs::read_dir(&deep).expect("a folder").count(), 0);
    }
}
