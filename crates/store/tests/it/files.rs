//! Files as wholes: made lazily, sparse, inside their folder, never too many open.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use shoal_content::{FileAttr, Layout, SafePath};
use shoal_store::{ErrorClass, OpenOptions, TorrentFiles};

fn layout(files: &[(&str, u64, FileAttr)]) -> Arc<Layout> {
    let files = files
        .iter()
        .map(|(path, len, attr)| (SafePath::new(path).unwrap(), *len, attr.clone()));
    Arc::new(Layout::new(files, 16_384).unwrap())
}

fn plain(files: &[(&str, u64)]) -> Arc<Layout> {
    let files: Vec<_> = files
        .iter()
        .map(|(path, len)| (*path, *len, FileAttr::default()))
        .collect();
    layout(&files)
}

fn open(dir: &Path, layout: &Arc<Layout>, options: OpenOptions) -> TorrentFiles {
    TorrentFiles::open(dir, Arc::clone(layout), options).unwrap()
}

fn write(files: &TorrentFiles, offset: u64, bytes: &[u8]) -> Result<(), shoal_store::StoreError> {
    files.write_at(offset, &[IoSlice::new(bytes)])
}

fn read(files: &TorrentFiles, offset: u64, len: usize) -> Result<Vec<u8>, shoal_store::StoreError> {
    let mut bytes = vec![0xaa; len];
    let (a, b) = bytes.split_at_mut(len / 3);
    files.read_at(offset, &mut [IoSliceMut::new(a), IoSliceMut::new(b)])?;
    Ok(bytes)
}

#[test]
fn nothing_is_made_before_it_is_written_and_then_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let layout = plain(&[("t/a", 1 << 30), ("t/b", 10)]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!files.has_data());
    write(&files, (1 << 30) - 5, b"0123456789").unwrap();
    let a = std::fs::metadata(dir.path().join("t/a")).unwrap();
    assert_eq!(a.len(), 1 << 30);
    assert!(a.blocks() * 512 < 1 << 20, "sparse");
    assert_eq!(read(&files, (1 << 30) - 5, 10).unwrap(), b"0123456789");
    assert_eq!(read(&files, 5, 3).unwrap(), [0; 3]);
    assert!(files.has_data() && files.is_dirty());
    files.sync().unwrap();
    assert!(!files.is_dirty());
}

#[test]
fn room_is_reserved_if_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let layout = plain(&[("a", 4 << 20), ("b", 4 << 20)]);
    let options = OpenOptions {
        preallocate: true,
        ..OpenOptions::default()
    };
    let files = open(dir.path(), &layout, options);
    files.prepare(|n| n == 0).unwrap();
    let a = std::fs::metadata(dir.path().join("a")).unwrap();
    assert_eq!(a.len(), 4 << 20);
    assert!(a.blocks() * 512 >= 4 << 20, "reserved");
    assert!(!dir.path().join("b").exists(), "not wanted");
}

#[test]
fn empty_files_links_and_attributes_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |p| Some(SafePath::new(p).unwrap());
    let attr = |executable, pad, symlink| FileAttr {
        executable,
        pad,
        symlink,
        ..FileAttr::default()
    };
    let layout = layout(&[
        ("t/run", 3, attr(true, false, None)),
        ("t/pad", 7, attr(false, true, None)),
        ("t/e/empty", 0, attr(false, false, None)),
        ("t/l/link", 0, attr(false, false, path("t/run"))),
    ]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    files.prepare(|_| true).unwrap();
    files.prepare(|_| true).unwrap();
    write(&files, 0, b"run+padding").unwrap();
    assert_eq!(read(&files, 0, 10).unwrap(), b"run\0\0\0\0\0\0\0");
    files.finish().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_ne!(
        std::fs::metadata(at("t/run")).unwrap().permissions().mode() & 0o100,
        0
    );
    assert_eq!(std::fs::metadata(at("t/e/empty")).unwrap().len(), 0);
    assert_eq!(std::fs::read(at("t/l/link")).unwrap(), b"run");
    assert!(!at("t/pad").exists());
}

#[test]
fn planted_links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("t")).unwrap();
    symlink(&victim, dir.path().join("t/a")).unwrap();
    symlink(outside.path(), dir.path().join("t/sub")).unwrap();
    let layout = plain(&[("t/a", 8), ("t/sub/victim", 8), ("t/sub/deep/new", 8)]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    for offset in [0, 8, 16] {
        assert!(write(&files, offset, b"attacked").is_err());
        assert!(read(&files, offset, 8).is_err());
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn few_files_are_open_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("t/{}/{n}", n % 7)).collect();
    let list: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 10)).collect();
    let options = OpenOptions {
        max_open: 5,
        ..OpenOptions::default()
    };
    let layout = plain(&list);
    let files = open(dir.path(), &layout, options);
    let bytes: Vec<u8> = (0..3000).map(|n| (n / 7) as u8).collect();
    write(&files, 0, &bytes).unwrap();
    assert_eq!(read(&files, 0, 3000).unwrap(), bytes);
    assert_eq!(files.open_files(), 5);
    files.sync().unwrap();
    assert!(!files.is_dirty());
    files.close();
    assert_eq!(files.open_files(), 0);
}

#[test]
fn cached_reads_tell_when_they_would_wait() {
    let dir = tempfile::tempdir().unwrap();
    let layout = plain(&[("t/a", 20_000), ("t/b", 20_000)]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    let bytes: Vec<u8> = (0..40_000).map(|n| (n % 251) as u8).collect();
    write(&files, 0, &bytes).unwrap();
    let fresh = open(dir.path(), &layout, OpenOptions::default());
    let mut got = vec![0; 30_000];
    let mut cached = |files: &TorrentFiles| {
        let (a, b) = got.split_at_mut(11_111);
        files
            .try_read_cached(3, &mut [IoSliceMut::new(a), IoSliceMut::new(b)])
            .unwrap()
    };
    assert!(!cached(&fresh), "its files are not open yet");
    if cached(&files) {
        assert!(got == bytes[3..30_003]);
    } else {
        println!("skipped: this file system cannot read without waiting");
    }
}

#[test]
fn missing_and_short_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let layout = plain(&[("t/a", 40_000), ("t/b", 40_000), ("t/c", 1_000)]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    write(&files, 0, &[1; 81_000]).unwrap();
    assert_eq!(files.missing_pieces(), []);
    std::fs::remove_file(dir.path().join("t/a")).unwrap();
    assert!(read(&files, 0, 10).is_ok(), "still open");
    assert_eq!(files.missing_pieces(), [0, 1, 2]);
    let e = read(&files, 0, 10).unwrap_err();
    assert_eq!(e.class(), ErrorClass::Gone);
    assert!(e.path().ends_with("t/a") && e.may_recover());
    let b = std::fs::File::options()
        .write(true)
        .open(dir.path().join("t/b"));
    b.unwrap().set_len(20_000).unwrap();
    assert_eq!(files.missing_pieces(), [0, 1, 2, 3, 4]);
    assert_eq!(
        read(&files, 59_999, 2).unwrap_err().class(),
        ErrorClass::Gone
    );
    assert_eq!(files.stamps().iter().flatten().count(), 2);
}

#[test]
fn a_folder_only_read_is_never_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "0123456789 and more").unwrap();
    let layout = plain(&[("a", 10), ("none", 5)]);
    let options = OpenOptions {
        writable: false,
        ..OpenOptions::default()
    };
    let files = open(dir.path(), &layout, options);
    assert_eq!(read(&files, 2, 3).unwrap(), b"234");
    assert_eq!(
        write(&files, 0, b"x").unwrap_err().class(),
        ErrorClass::ReadOnly
    );
    assert_eq!(
        write(&files, 10, b"x").unwrap_err().class(),
        ErrorClass::ReadOnly
    );
    files.probe().unwrap();
    assert!(!dir.path().join("none").exists());
    let missing = dir.path().join("nowhere");
    let e = TorrentFiles::open(&missing, layout, options).unwrap_err();
    assert_eq!(e.class(), ErrorClass::Gone);
    assert!(!missing.exists());
}

#[test]
fn a_longer_file_that_proved_right_is_cut_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "0123456789 and more").unwrap();
    let layout = plain(&[("a", 10)]);
    open(dir.path(), &layout, OpenOptions::default())
        .finish()
        .unwrap();
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"0123456789");
}

#[test]
fn a_pipe_or_folder_in_place_of_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    let pipe = dir.path().join("b");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: no mkfifo");
        return;
    }
    let layout = plain(&[("a", 10), ("b", 10)]);
    let files = open(dir.path(), &layout, OpenOptions::default());
    for offset in [0, 10] {
        assert!(read(&files, offset, 5).is_err());
        assert!(write(&files, offset, b"x").is_err());
    }
}
