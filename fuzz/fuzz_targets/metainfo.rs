//! Torrents: what is read is safe on disk, tiles its range and reads back the same.
//! `crates/content/tests/fixtures` makes a good start of a corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_content::{Info, Metainfo, Naming, SafePath};
use std::collections::BTreeSet;
use std::path::Component;

fuzz_target!(|data: &[u8]| {
    if let Ok(info) = Info::parse(data) {
        check(&info);
    }
    for naming in [Naming::Download, Naming::Portable, Naming::Local] {
        let Ok(torrent) = Metainfo::parse_named(data, naming) else {
            continue;
        };
        check(&torrent.info);
        let again = Metainfo::parse_named(&torrent.to_bytes(), naming);
        assert_eq!(again.as_ref(), Ok(&torrent));
        let mut link = torrent.magnet();
        // The name in a link is made safe once more, which changes local names.
        link.name = None;
        assert_eq!(link.to_string().parse(), Ok(link));
    }
});

fn check(info: &Info) {
    let layout = &info.layout;
    let mut seen = BTreeSet::new();
    for file in layout.files() {
        check_path(&file.path);
        assert!(file.path.as_path().starts_with(&info.name));
        assert!(
            file.attr.pad || seen.insert(file.path.clone()),
            "twice: {:?}",
            file.path
        );
        if let Some(target) = &file.attr.symlink {
            check_path(target);
            assert!(target.as_path().starts_with(&info.name));
            assert_eq!(file.len, 0);
        }
    }
    // No file, so no link either, is a folder of another.
    for file in layout.files().iter().filter(|f| !f.attr.pad) {
        let mut above = file.path.parent();
        while let Some(folder) = above {
            assert!(!seen.contains(&folder), "{folder:?} is a file and a folder");
            above = folder.parent();
        }
    }
    let mut at = 0;
    for span in layout.spans(0, u64::MAX) {
        let file = &layout.files()[span.file];
        assert_eq!((file.offset + span.offset, file.len), (at, span.len));
        at += span.len;
    }
    assert_eq!(at, layout.total_len());
    if info.check_supported().is_ok() {
        let pieces = info.geometry().pieces();
        assert_eq!(info.hashes.v1_all().len(), pieces as usize);
        if let Some(last) = pieces.checked_sub(1) {
            assert!(layout.piece_spans(last).count() > 0);
        }
    }
}

fn check_path(path: &SafePath) {
    assert_eq!(SafePath::new(path.as_str()).as_ref(), Ok(path));
    for part in path.as_path().components() {
        assert!(matches!(part, Component::Normal(_)));
    }
    assert_eq!(
        path.as_path().components().count(),
        path.components().count()
    );
}
