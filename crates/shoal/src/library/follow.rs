//! What the library shares, for programs that share it while it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use shoal_store::library::{Library, ScanOptions, SharedFolder, Target, Watch};

use super::{PATIENCE, dir};
use crate::cli::LibraryPlace;
use crate::ui::Ui;

/// How often other commands' changes are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Scans what changes in the library's folders, and hears of what other commands change, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The library is another now, or why that cannot be seen.
    told: Receiver<Result<(), String>>,
    stop: Arc<AtomicBool>,
}

impl Follower {
    /// Begins. What changed before is not told.
    pub(crate) fn start(place: &LibraryPlace) -> Self {
        let (tell, told) = bounded(8);
        let stop = Arc::new(AtomicBool::new(false));
        let dir = dir(place.state_dir.as_deref());
        let mut follow = Follow {
            seen: Library::changed_at(&dir),
            dir,
            folders: Vec::new(),
            watch: None,
            tell,
            stop: Arc::clone(&stop),
        };
        // It ends by itself when nobody holds the other end: a scan is not waited for.
        thread::spawn(move || follow.run());
        Self { told, stop }
    }

    /// Whether the library changed since the last call. What goes wrong is told.
    pub(crate) fn has_changed(&self, ui: &Ui) -> bool {
        let mut changed = false;
        for told in self.told.try_iter() {
            match told {
                Ok(()) => changed = true,
                Err(why) => ui.warn(&why),
            }
        }
        changed
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Follow {
    dir: PathBuf,
    /// When the library was changed last, as far as is known.
    seen: Option<SystemTime>,
    /// The folders that are watched.
    folders: Vec<(u32, PathBuf)>,
    watch: Option<Watch>,
    tell: Sender<Result<(), String>>,
    stop: Arc<AtomicBool>,
}

impl Follow {
    fn run(&mut self) {
        self.look_at_folders();
        while !self.stop.load(Ordering::Relaxed) {
            let targets = self.wait();
            if !targets.is_empty() {
                self.scan(&targets);
            }
            let now = Library::changed_at(&self.dir);
            if now != self.seen {
                self.seen = now;
                self.look_at_folders();
                self.say(Ok(()));
            }
        }
    }

    fn say(&self, what: Result<(), String>) {
        // Who has not heard of the last few changes looks at all of them.
        let _ = self.tell.try_send(what);
    }

    /// What changed within a moment.
    fn wait(&mut self) -> Vec<Target> {
        let changed = self.watch.as_mut().map(|watch| watch.wait(LOOK));
        match changed {
            Some(Ok(targets)) => targets,
            Some(Err(error)) => {
                self.say(Err(format!(
                    "the library's folders are not watched any more: {error}"
                )));
                self.watch = None;
                Vec::new()
            }
            None => {
                // Nothing can be waited on: other commands only leave a file changed.
                thread::sleep(LOOK);
                Vec::new()
            }
        }
    }

    /// Watches the library's folders, if they are others than before.
    fn look_at_folders(&mut self) {
        let Ok(library) = Library::open_within(&self.dir, PATIENCE) else {
            return;
        };
        let of = |f: &SharedFolder| (f.id, f.path.clone());
        let folders: Vec<_> = library.folders().iter().map(of).collect();
        if folders != self.folders {
            self.watch = match Watch::start(library.folders()) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    self.say(Err(format!(
                        "the library's folders cannot be watched: {error}"
                    )));
                    None
                }
            };
            self.folders = folders;
        }
    }

    fn scan(&self, targets: &[Target]) {
        let scanned = Library::open_within(&self.dir, PATIENCE).and_then(|mut library| {
            let go_on = |_: &_| !self.stop.load(Ordering::Relaxed);
            library.scan(targets, &ScanOptions::default(), go_on)
        });
        if let Err(error) = scanned {
            // Whoever has it open scans it, or the next change does.
            self.say(Err(format!(
                "what changed in the library's folders was not scanned: {error}"
            )));
        }
    }
}
