//! What is shared on Gnutella: folders given, or the library.

use crate::cli::LibraryPlace;
use crate::failure::{Failure, Outcome};
use crate::library;
use crate::report::Report;
use crate::ui::Ui;
use crate::units::{Size, count};
use shoal_content::keywords::{LocalFile, LocalFiles};
use shoal_node::gnutella::Shelf;
use shoal_node::gnutella::transfer::LibraryFiles;
use shoal_store::library::{Audience, Library, ScanOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Hashes what is to be shared; what was hashed before is not read again.
pub(crate) fn shelf(folders: &[PathBuf], dir: &Path, ui: &Ui) -> Outcome<Shares> {
    if folders.is_empty() {
        return Ok((Shelf::default(), None));
    }
    let cannot = |e: &shoal_store::library::LibraryError| {
        Failure::failed("cannot read what is to be shared").because(e)
    };
    let mut library = Library::open(&dir.join("library")).map_err(|e| cannot(&e))?;
    for note in library.notes() {
        ui.warn(note);
    }
    let before: Vec<PathBuf> = library.folders().iter().map(|f| f.path.clone()).collect();
    for folder in folders {
        let added = library.add(folder, Audience::Everyone, false);
        added.map_err(|e| cannot(&e))?;
    }
    for old in before {
        let wanted = folders.iter().any(|f| {
            let path = std::fs::canonicalize(f);
            path.is_ok_and(|path| path == old)
        });
        if !wanted {
            library.remove(&old).map_err(|e| cannot(&e))?;
        }
    }
    let scanned = library.scan(&[], &ScanOptions::default(), |p| {
        let (done, all) = (Size(p.bytes_hashed), Size(p.bytes_to_hash));
        ui.line(
            "Hashing",
            &format!("{}, {done} of {all}", count(p.files, "file")),
        );
        true
    });
    ui.finish_step();
    let scan = scanned.map_err(|e| cannot(&e))?;
    for oddity in &scan.oddities {
        ui.warn(&format!("{}: {}", oddity.path.display(), oddity.why));
    }
    let files = local_files(&library)?;
    ui.status("Sharing", &count(files.len() as u64, "file"));
    let served = LibraryFiles::new(library).map_err(|e| cannot(&e))?;
    Ok((Shelf::new(files), Some(Arc::new(served))))
}

/// What is found, and what is served.
pub(crate) type Shares = (Shelf, Option<Arc<LibraryFiles>>);

/// What `shoal library` keeps, as it stands now.
pub(crate) fn shared_library(state_dir: Option<&Path>, ui: &Ui) -> Outcome<Shares> {
    let place = LibraryPlace {
        state_dir: state_dir.map(Path::to_owned),
    };
    let library = library::open(&place, ui)?;
    let files = local_files(&library)?;
    ui.status("Sharing", &count(files.len() as u64, "file"));
    if files.is_empty() {
        ui.hint("shoal library add FOLDER");
    }
    let served = LibraryFiles::of_shared(&library, library::dir(state_dir));
    let cannot = Failure::failed("cannot read the library");
    let served = served.map_err(|e| cannot.because(&e))?;
    Ok((Shelf::new(files), Some(Arc::new(served))))
}

/// Shares what the library does by now; whether that could be read.
pub(crate) fn share_again(
    place: &LibraryPlace,
    shelf: &Shelf,
    files: &LibraryFiles,
    ui: &Ui,
) -> bool {
    let read = || -> Outcome {
        let library = library::open_quietly(place)?;
        let found = local_files(&library)?;
        let again = files.read_again(&library);
        again.map_err(|e| Failure::failed("cannot read the library").because(&e))?;
        shelf.replace(found);
        Ok(())
    };
    let read = read();
    match &read {
        Ok(()) => {
            let (files, _) = files.size();
            ui.report(&Report::Sharing { files });
            ui.news("Sharing", &count(files as u64, "file"));
        }
        Err(failure) => ui.warn(&format!("what is shared stays as it was: {}", failure.what)),
    }
    read.is_ok()
}

pub(super) fn local_files(library: &Library) -> Outcome<LocalFiles> {
    let mut files = LocalFiles::default();
    let read = library.each(|file| {
        if file.folder.audience != Audience::Everyone {
            return true;
        }
        let record = &file.record;
        let local = LocalFile {
            size: record.stamp.len,
            sha1: record.sha1,
            tiger: record.tiger,
        };
        files.add(file.folder.id, file.path, &local);
        true
    });
    read.map_err(|e| Failure::failed("cannot read the library").because(&e))?;
    Ok(files)
}
