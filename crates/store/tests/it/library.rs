//! The library beside real folders: what is hashed, what is not hashed again, what is not shared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use sha1::{Digest, Sha1};
use shoal_content::TigerRoot;
use shoal_content::tiger::root_of;
use std::time::Duration;

use shoal_content::keywords::{Search, Terms};
use shoal_store::library::{
    Audience, Library, LibraryError, ScanOptions, ScanReport, Target, View, Watch,
};
use tempfile::TempDir;

/// A library, and a folder that is in it.
struct Set {
    dir: TempDir,
    library: Library,
}

impl Set {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("files")).expect("made");
        let library = Library::open(&dir.path().join("state")).expect("opened");
        let mut set = Self { dir, library };
        let root = set.root();
        set.library
            .add(&root, Audience::Everyone, false)
            .expect("added");
        set
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("files")
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn scan(&mut self) -> ScanReport {
        let options = ScanOptions::default();
        self.library.scan(&[], &options, |_| true).expect("scanned")
    }

    /// Every file by its path, with its names by hash.
    fn files(&self) -> BTreeMap<String, ([u8; 20], TigerRoot)> {
        let mut all = BTreeMap::new();
        let each = self.library.each(|f| {
            let path = f.folder.path.join(f.path).to_string_lossy().into_owned();
            let root = self.root().to_string_lossy().into_owned();
            let below = path.strip_prefix(&format!("{root}/")).map(str::to_owned);
            all.insert(below.unwrap_or(path), (f.record.sha1, f.record.tiger));
            true
        });
        each.expect("read");
        all
    }
}

fn names(bytes: &[u8]) -> ([u8; 20], TigerRoot) {
    (Sha1::digest(bytes).into(), root_of(bytes))
}

#[test]
fn every_file_is_hashed_once_and_again_only_when_it_changed() {
    let mut set = Set::new();
    let big: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    for (path, bytes) in [
        ("a", &b"one"[..]),
        ("deep/er/b", b""),
        ("a.txt", b"two"),
        ("big", &big),
    ] {
        set.write(path, bytes);
    }
    let report = set.scan();
    assert_eq!((report.done.hashed, report.done.bytes_hashed), (4, 300_006));
    assert!(report.done.walked && report.oddities.is_empty());
    let files = set.files();
    assert_eq!(files.len(), 4);
    assert_eq!(files["big"], names(&big));
    assert_eq!(files["deep/er/b"], names(b""));

    let again = set.scan().done;
    assert_eq!((again.unchanged, again.hashed, again.removed), (4, 0, 0));
    set.write("a", b"other");
    fs::remove_file(set.root().join("a.txt")).expect("removed");
    let changed = set.scan().done;
    assert_eq!(
        (changed.unchanged, changed.hashed, changed.removed),
        (2, 1, 1)
    );
    assert_eq!(set.files()["a"], names(b"other"));
    let folder = &set.library.folders()[0];
    assert_eq!((folder.files, folder.bytes), (3, 300_005));
    assert!(folder.scanned.is_some());

    let record = set
        .library
        .file(&set.root().join("big"))
        .expect("read")
        .expect("known");
    let parts = set
        .library
        .parts(&record)
        .expect("read")
        .expect("several pieces");
    let pieces: Vec<[u8; 20]> = big
        .chunks(parts.piece_len as usize)
        .map(|p| Sha1::digest(p).into())
        .collect();
    assert_eq!(parts.pieces, pieces);
    assert!(parts.tree.check(1, &big[65_536..131_072]));
}

#[test]
fn what_was_moved_is_not_hashed_again() {
    let mut set = Set::new();
    set.write("old/name", b"content");
    set.write("old/other", b"more");
    assert_eq!(set.scan().done.hashed, 2);
    fs::rename(set.root().join("old"), set.root().join("a new folder")).expect("moved");
    fs::hard_link(
        set.root().join("a new folder/name"),
        set.root().join("twin"),
    )
    .expect("linked");
    let done = set.scan().done;
    assert_eq!((done.moved, done.hashed, done.removed), (3, 0, 2));
    let files = set.files();
    assert_eq!(files.len(), 3);
    assert_eq!(files["a new folder/name"], names(b"content"));
    assert_eq!(files["twin"], names(b"content"));
}

#[test]
fn a_library_survives_being_closed_and_is_open_once() {
    let mut set = Set::new();
    set.write("a", b"one");
    set.scan();
    let state = set.dir.path().join("state");
    let busy = Library::open(&state).expect_err("it is open");
    assert!(matches!(busy, LibraryError::Busy { .. }), "{busy}");
    let Set { dir, library } = set;
    let folders = library.folders().to_vec();
    library
        .keep_pieces(&[7; 20], &[[1; 20], [2; 20]])
        .expect("kept");
    drop(library);
    let library = Library::open(&state).expect("opened");
    assert_eq!(library.folders(), folders);
    assert_eq!(
        library.pieces(&[7; 20]).expect("read"),
        Some(vec![[1; 20], [2; 20]])
    );
    assert_eq!(library.pieces(&[8; 20]).expect("read"), None);
    let mut set = Set { dir, library };
    assert_eq!(set.scan().done.unchanged, 1);
}

#[test]
fn a_damaged_database_costs_hashing_and_no_folder() {
    let mut set = Set::new();
    set.write("a", b"one");
    set.scan();
    let Set { dir, library } = set;
    drop(library);
    let state = dir.path().join("state");
    fs::write(state.join("hashes.redb"), vec![0x55; 100_000]).expect("written");
    let library = Library::open(&state).expect("opened");
    assert_eq!(library.notes().len(), 1);
    assert_eq!(library.folders().len(), 1);
    let mut set = Set { dir, library };
    assert_eq!(set.scan().done.hashed, 1);
    assert_eq!(set.files()["a"], names(b"one"));
}

#[test]
fn hidden_unfinished_and_linked_files_are_left_out() {
    let mut set = Set::new();
    for path in [
        "shown",
        ".hidden",
        ".folder/inside",
        "movie.part",
        "deep/.secret",
    ] {
        set.write(path, path.as_bytes());
    }
    fs::write(set.dir.path().join("outside"), "secret").expect("written");
    symlink(set.dir.path().join("outside"), set.root().join("link")).expect("linked");
    symlink(set.dir.path(), set.root().join("deep/up")).expect("linked");
    let report = set.scan();
    assert_eq!(set.files().into_keys().collect::<Vec<_>>(), ["shown"]);
    assert_eq!((report.odd, report.oddities.len()), (2, 2));
    let root = set.root();
    set.library
        .add(&root, Audience::Nobody, true)
        .expect("changed");
    set.scan();
    let files: Vec<_> = set.files().into_keys().collect();
    assert_eq!(
        files,
        [".folder/inside", ".hidden", "deep/.secret", "shown"]
    );
    assert_eq!(set.library.folders()[0].audience, Audience::Nobody);
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_not_shared() {
    let mut set = Set::new();
    set.write("log", &vec![1; 300_000]);
    set.write("still", b"as it is");
    let log = set.root().join("log");
    let options = ScanOptions {
        threads: Some(2),
        rate: Some(256 << 10),
    };
    let mut n = 0_u8;
    let report = set.library.scan(&[], &options, |_| {
        n = n.wrapping_add(1);
        let mut bytes = fs::read(&log).expect("read");
        bytes.push(n);
        fs::write(&log, bytes).expect("written");
        true
    });
    let report = report.expect("scanned");
    assert_eq!(set.files().into_keys().collect::<Vec<_>>(), ["still"]);
    assert_eq!(report.oddities.len(), 1);
    assert!(report.oddities[0].why.contains("changes"), "{report:?}");
    // When nothing writes any more it is.
    assert_eq!(set.scan().done.hashed, 1);
}

#[test]
fn a_folder_that_is_not_there_is_remembered_and_not_shared() {
    let mut set = Set::new();
    set.write("a", b"one");
    set.scan();
    let elsewhere = set.dir.path().join("elsewhere");
    fs::rename(set.root(), &elsewhere).expect("moved");
    let report = set.scan();
    assert_eq!(report.away, [set.root()]);
    assert!(set.files().is_empty());
    fs::rename(&elsewhere, set.root()).expect("moved");
    let done = set.scan().done;
    assert_eq!((done.unchanged, done.hashed), (1, 0));
    assert_eq!(set.files().len(), 1);
}

#[test]
fn a_folder_within_another_is_its_own() {
    let mut set = Set::new();
    set.write("public/a", b"a");
    set.write("private/b", b"b");
    set.scan();
    let private = set.root().join("private");
    set.library
        .add(&private, Audience::Nobody, false)
        .expect("added");
    let done = set.scan().done;
    assert_eq!((done.moved, done.hashed), (1, 0), "known by its inode");
    let mut audiences = BTreeMap::new();
    let each = set.library.each(|f| {
        let name = f.path.rsplit('/').next().unwrap_or_default();
        let twice = audiences.insert(name.to_owned(), f.folder.audience.clone());
        twice.is_none()
    });
    each.expect("read");
    assert_eq!(audiences["b"], Audience::Nobody);
    assert_eq!(audiences["a"], Audience::Everyone);
    assert!(set.library.remove(&private).expect("removed"));
    assert!(!set.library.remove(&private).expect("nothing to remove"));
    set.scan();
    assert_eq!(set.files().len(), 2);
}

#[test]
fn one_folder_of_a_folder_is_scanned_alone() {
    let mut set = Set::new();
    for path in ["a/x", "a.b", "b/y", "b.c"] {
        set.write(path, path.as_bytes());
    }
    set.scan();
    for path in ["a/new", "b/new"] {
        set.write(path, path.as_bytes());
    }
    fs::remove_file(set.root().join("a/x")).expect("removed");
    fs::remove_file(set.root().join("b.c")).expect("removed");
    let target = |below: &str| Target {
        folder: 1,
        below: below.to_owned(),
    };
    let options = ScanOptions::default();
    let report = set
        .library
        .scan(&[target("a")], &options, |_| true)
        .expect("scanned");
    assert_eq!((report.done.hashed, report.done.removed), (1, 1));
    let files: Vec<_> = set.files().into_keys().collect();
    assert_eq!(files, ["a.b", "a/new", "b.c", "b/y"]);
    // A folder that is gone takes its files with it.
    fs::remove_dir_all(set.root().join("a")).expect("removed");
    let report = set
        .library
        .scan(&[target("a")], &options, |_| true)
        .expect("scanned");
    assert_eq!(report.done.removed, 1);
    assert!(matches!(
        set.library
            .add(&set.dir.path().join("files/a.b"), Audience::Everyone, false),
        Err(LibraryError::NotAFolder(_))
    ));
}

#[test]
fn a_scan_that_is_stopped_keeps_what_it_has() {
    let mut set = Set::new();
    for n in 0..20 {
        set.write(&format!("{n:02}"), &vec![n; 100_000]);
    }
    let options = ScanOptions {
        threads: Some(1),
        rate: Some(1 << 20),
    };
    let report = set
        .library
        .scan(&[], &options, |p| p.hashed < 3)
        .expect("scanned");
    assert!(report.cancelled);
    let kept = set.files();
    assert!(kept.len() >= 3 && kept.len() < 20, "{}", kept.len());
    assert!(set.library.folders()[0].scanned.is_none());
    let done = set.scan().done;
    assert_eq!(done.unchanged, kept.len() as u64);
    assert_eq!(set.files().len(), 20);
}

#[test]
fn each_sees_what_is_shared_with_them() {
    let mut set = Set::new();
    let key = [9; 32];
    let audiences = [
        ("all", Audience::Everyone),
        ("friends", Audience::Keys([key].into())),
        ("mine", Audience::Nobody),
    ];
    for (name, audience) in audiences {
        set.write(&format!("{name}/a song.mp3"), name.as_bytes());
        let path = set.root().join(name);
        set.library.add(&path, audience, false).expect("added");
    }
    set.scan();
    for (view, files) in [
        (View::Owner, 3),
        (View::Anyone, 1),
        (View::Key(key), 2),
        (View::Key([8; 32]), 1),
    ] {
        let seen = set.library.local_files(&view).expect("read");
        assert_eq!(seen.len(), files, "{view:?}");
        let mut found = 0;
        seen.search(&Search::words(Terms::parse("song mp3")), 0, |_| {
            found += 1;
            true
        });
        assert_eq!(found, files);
    }
}

#[test]
fn changes_are_heard_of_where_they_are() {
    let mut set = Set::new();
    set.write("a/x", b"x");
    set.write("b/y", b"y");
    set.scan();
    let mut watch = Watch::start(set.library.folders()).expect("watches");
    assert_eq!(watch.wait(Duration::ZERO).expect("nothing"), []);
    set.write("a/new", b"new");
    set.write("b/made/deep/z", b"z");
    let targets = watch.wait(Duration::from_secs(30)).expect("changes");
    let below: Vec<_> = targets.iter().map(|t| t.below.as_str()).collect();
    assert_eq!(below, ["a", "b"]);
    set.library
        .scan(&targets, &ScanOptions::default(), |_| true)
        .expect("scanned");
    assert_eq!(set.files().len(), 4);
    // A folder that came while it was watched is watched too.
    set.write("b/made/deep/later", b"later");
    let targets = watch.wait(Duration::from_secs(30)).expect("changes");
    assert_eq!(
        targets,
        [Target {
            folder: 1,
            below: "b/made/deep".to_owned()
        }]
    );
    assert!(!watch.is_incomplete());
}

/// What somebody does to a folder.
#[derive(Debug, Clone)]
enum Deed {
    Write(u8, Vec<u8>),
    Remove(u8),
    Rename(u8, u8),
    Scan,
}

fn deed() -> impl Strategy<Value = Deed> {
    let name = 0..12_u8;
    prop_oneof![
        4 => (name.clone(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, b)| Deed::Write(n, b)),
        1 => name.clone().prop_map(Deed::Remove),
        2 => (name.clone(), name).prop_map(|(a, b)| Deed::Rename(a, b)),
        2 => Just(Deed::Scan),
    ]
}

/// Names of which some lie in folders that sort beside files.
fn name(n: u8) -> String {
    match n % 4 {
        0 => format!("f{n}"),
        1 => format!("f/{n}"),
        2 => format!("f.d/{n}"),
        _ => format!("f/e/{n}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_scan_finds_what_is_there(deeds in prop::collection::vec(deed(), 1..40)) {
        let mut set = Set::new();
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut hashed = 0;
        let mut written = 0;
        for deed in deeds.into_iter().chain([Deed::Scan]) {
            match deed {
                Deed::Write(n, bytes) => {
                    set.write(&name(n), &bytes);
                    model.insert(name(n), bytes);
                    written += 1;
                }
                Deed::Remove(n) => {
                    let _ = fs::remove_file(set.root().join(name(n)));
                    model.remove(&name(n));
                }
                Deed::Rename(a, b) if a != b => {
                    if let Some(bytes) = model.remove(&name(a)) {
                        set.write(&name(b), b"");
                        fs::rename(set.root().join(name(a)), set.root().join(name(b))).expect("moved");
                        model.insert(name(b), bytes);
                    }
                }
                Deed::Rename(..) => {}
                Deed::Scan => {
                    let report = set.scan();
                    prop_assert!(report.oddities.is_empty(), "{report:?}");
                    hashed += report.done.hashed;
                    let wanted: BTreeMap<_, _> =
                        model.iter().map(|(path, bytes)| (path.clone(), names(bytes))).collect();
                    prop_assert_eq!(set.files(), wanted);
                    let folder = &set.library.folders()[0];
                    prop_assert_eq!(folder.files, model.len() as u64);
                    let bytes: usize = model.values().map(Vec::len).sum();
                    prop_assert_eq!(folder.bytes, bytes as u64);
                }
            }
        }
        prop_assert!(hashed <= written, "a file that did not change was hashed again");
    }
}
