//! The files that a node shares, and what of them changes while it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use shoal_node::gnutella::transfer::LibraryFiles;
use shoal_node::supernode::{HubFront, NodeDriver};
use shoal_supernode::wire::{File, MAX_PATH, Sound};

use crate::cli::{LibraryPlace, SupernodeNodeArgs};
use crate::failure::Outcome;
use crate::gnutella::{self, Shares};
use crate::library::Follower;
use crate::mp3;
use crate::supernode::folder;
use crate::ui::Ui;
use crate::units::count;

/// What a node shares: folders that were given, or the library, which it follows.
pub(super) struct Shared {
    shares: Shares,
    place: LibraryPlace,
    follower: Option<Follower>,
    /// What others were told last.
    told: Vec<File>,
}

impl Shared {
    pub(super) fn open(args: &SupernodeNodeArgs, ui: &Ui) -> Outcome<Self> {
        let state_dir = args.state_dir.as_deref();
        let shares = match args.library {
            true => gnutella::shared_library(state_dir, ui)?,
            false => gnutella::shelf(&args.share, &folder(state_dir), ui)?,
        };
        let place = LibraryPlace {
            state_dir: args.state_dir.clone(),
        };
        let follower = args.library.then(|| Follower::start(&place));
        let told = shares.1.as_ref().map_or_else(Vec::new, |f| told(f, ui));
        Ok(Self {
            shares,
            place,
            follower,
            told,
        })
    }

    /// What others are told of it.
    pub(super) fn told(&self) -> Vec<File> {
        self.told.clone()
    }

    pub(super) fn files(&self) -> Option<Arc<LibraryFiles>> {
        self.shares.1.clone()
    }

    pub(super) fn shelf(&self) -> shoal_node::gnutella::Shelf {
        self.shares.0.clone()
    }

    /// Tells everybody what of the library has changed, if something has.
    pub(super) fn follow(&mut self, driver: &NodeDriver, hub: Option<&mut HubFront>, ui: &Ui) {
        let (shelf, files) = &self.shares;
        let (Some(follower), Some(files)) = (&self.follower, files) else {
            return;
        };
        if !follower.has_changed(ui) || !gnutella::share_again(&self.place, shelf, files, ui) {
            return;
        }
        let now = told(files, ui);
        share_anew(driver, &self.told, &now);
        if let Some(hub) = hub {
            hub.set_own(now.clone());
        }
        self.told = now;
    }
}

/// What an MP3 is like, as the overlay is told.
fn sound(disk: &Path, len: u64) -> Option<Sound> {
    let sound = mp3::read(disk, len)?;
    Some(Sound {
        bitrate: u16::try_from(sound.bitrate).ok()?,
        frequency: sound.frequency,
        seconds: sound.seconds,
    })
}

/// What others are told of the files.
fn told(files: &LibraryFiles, ui: &Ui) -> Vec<File> {
    let mut told = Vec::new();
    let mut long = 0;
    files.records(|disk, path, record| {
        if path.len() > MAX_PATH {
            long += 1;
            return;
        }
        told.push(File {
            path: path.to_owned(),
            size: record.stamp.len,
            sha1: record.sha1,
            tiger: Some(record.tiger.0),
            sound: sound(disk, record.stamp.len),
        });
    });
    if long > 0 {
        let what = count(long, "path");
        ui.warn(&format!("{what} of more than {MAX_PATH} bytes left out"));
    }
    told
}

/// Tells the overlay what came and what went.
fn share_anew(driver: &NodeDriver, before: &[File], now: &[File]) {
    let by_path = |files: &[File]| -> BTreeMap<String, File> {
        let files = files.iter().cloned();
        files.map(|file| (file.path.clone(), file)).collect()
    };
    let (before, now) = (by_path(before), by_path(now));
    for path in before
        .keys()
        .filter(|path| before.get(*path) != now.get(*path))
    {
        driver.unshare(path.clone());
    }
    for (path, file) in &now {
        if before.get(path) != Some(file) {
            driver.share(file.clone());
        }
    }
}
