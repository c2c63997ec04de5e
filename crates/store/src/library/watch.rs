//! Hearing of changes in the library's folders as they happen (inotify).
//!
//! Every folder takes one watch, of which the system gives a user so many. When they run out, or
//! changes come faster than they are heard, the user of this scans everything now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::{SharedFolder, Target};

/// No change for so long ends a burst of them.
const QUIET: Duration = Duration::from_secs(1);
/// A burst that does not end is told of after this.
const LONGEST: Duration = Duration::from_secs(10);
const BUFFER: usize = 16 << 10;

const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::EXCL_UNLINK);

/// Where a watch is: the folder's number and the path below it.
type Place = (u32, String);

/// Watches on all folders of a library.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    roots: BTreeMap<u32, PathBuf>,
    places: BTreeMap<i32, Place>,
    incomplete: bool,
}

impl Watch {
    /// Watches these folders and all that are in them.
    ///
    /// # Errors
    /// If the system has no way to watch, or none left for this user.
    pub fn start(folders: &[SharedFolder]) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let roots = folders.iter().map(|f| (f.id, f.path.clone())).collect();
        let mut watch = Self {
            fd,
            roots,
            places: BTreeMap::new(),
            incomplete: false,
        };
        for folder in folders {
            watch.add(folder.id, "");
        }
        Ok(watch)
    }

    /// Whether some folders are not watched, because the system gives no more watches.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    fn add(&mut self, folder: u32, below: &str) {
        let Some(root) = self.roots.get(&folder) else {
            return;
        };
        let mut left = vec![(root.join(below), below.to_owned())];
        while let Some((path, below)) = left.pop() {
            match inotify::add_watch(&self.fd, &path, CHANGES) {
                // The watch comes before the look, so that what appears between them is heard of.
                Ok(wd) => {
                    self.places.insert(wd, (folder, below.clone()));
                }
                Err(Errno::NOSPC | Errno::NOMEM) => {
                    self.incomplete = true;
                    return;
                }
                // It is gone, or may not be looked into: then a scan tells.
                Err(_) => continue,
            }
            left.extend(folders_in(&path, &below));
        }
    }

    /// Waits for changes for at most `timeout`; the places to be scanned, none if nothing changed.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Vec<Target>> {
        let mut changed = BTreeSet::new();
        let mut patience = timeout;
        let begun = Instant::now();
        while self.poll(patience)? {
            self.read(&mut changed)?;
            if !changed.is_empty() {
                if begun.elapsed() > timeout + LONGEST {
                    break;
                }
                patience = QUIET;
            } else {
                patience = timeout.saturating_sub(begun.elapsed());
            }
        }
        Ok(topmost(changed))
    }

    fn poll(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(n) => Ok(n > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&mut self, changed: &mut BTreeSet<Place>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut fresh = Vec::new();
        {
            let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                };
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    changed.extend(self.roots.keys().map(|id| (*id, String::new())));
                    continue;
                }
                if event.events().contains(ReadFlags::IGNORED) {
                    self.places.remove(&event.wd());
                    continue;
                }
                let Some((folder, below)) = self.places.get(&event.wd()).cloned() else {
                    continue;
                };
                let comes = ReadFlags::CREATE | ReadFlags::MOVED_TO;
                if event.events().contains(ReadFlags::ISDIR)
                    && event.events().intersects(comes)
                    && let Some(Ok(name)) = event.file_name().map(|name| name.to_str())
                {
                    fresh.push((folder, join(&below, name)));
                }
                changed.insert((folder, below));
            }
        }
        for (folder, below) in fresh {
            self.add(folder, &below);
        }
        Ok(())
    }
}

fn join(below: &str, name: &str) -> String {
    match below {
        "" => name.to_owned(),
        below => format!("{below}/{name}"),
    }
}

fn folders_in(path: &Path, below: &str) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let folders = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_folder = entry.file_type().ok()?.is_dir();
        let name = entry.file_name().into_string().ok()?;
        is_folder.then(|| (entry.path(), join(below, &name)))
    });
    folders.collect()
}

/// The places that lie below no other.
fn topmost(changed: BTreeSet<Place>) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::new();
    for (folder, below) in changed {
        let covered = |t: &Target| {
            t.folder == folder
                && (t.below.is_empty()
                    || below
                        .strip_prefix(&t.below)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        if !all.iter().any(covered) {
            all.push(Target { folder, below });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_changed_folder_is_scanned_with_it() {
        let places = [(1, "a"), (1, "a/b"), (1, "ab"), (2, ""), (2, "x")];
        let changed = places.map(|(id, below)| (id, below.to_owned()));
        let targets = topmost(changed.into());
        let shown: Vec<_> = targets
            .iter()
            .map(|t| (t.folder, t.below.as_str()))
            .collect();
        assert_eq!(shown, [(1, "a"), (1, "ab"), (2, "")]);
    }
}
