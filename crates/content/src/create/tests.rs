//! Tests of making torrents.

use super::*;
use crate::Metainfo;
use proptest::prelude::*;

fn file(path: &str, len: u64) -> NewFile {
    NewFile {
        path: path.split('/').map(str::to_owned).collect(),
        len,
        ..NewFile::default()
    }
}

fn link(path: &str, target: &str) -> NewFile {
    NewFile {
        symlink: Some(target.split('/').map(str::to_owned).collect()),
        ..file(path, 0)
    }
}

/// As many hashes as `plan` needs.
fn some_hashes(plan: &Plan) -> Vec<[u8; 20]> {
    let pieces = plan.layout().geometry().pieces();
    (0..pieces).map(|n| [n as u8; 20]).collect()
}

fn folder(files: Vec<NewFile>, options: CreateOptions) -> Result<Info, CreateError> {
    let plan = Plan::folder("t", files, options)?;
    let info = plan.finish(&some_hashes(&plan))?;
    assert_eq!(
        info.layout,
        *plan.layout(),
        "what was hashed is what is read"
    );
    Ok(info)
}

#[test]
fn pieces_grow_with_the_content() {
    let cases = [
        (0, 16 << 10),
        (1, 16 << 10),
        (32 << 20, 16 << 10),
        ((32 << 20) + 1, 32 << 10),
        (1 << 30, 512 << 10),
        (32 << 30, 16 << 20),
        (1 << 40, 16 << 20),
        (u64::MAX, 16 << 20),
    ];
    for (total, expected) in cases {
        assert_eq!(piece_len_for(total), expected, "{total}");
    }
}

#[test]
fn files_come_in_one_order() {
    let names = ["b", "a/c", "a-b", "a/b", "B", "a.x"];
    let forward: Vec<_> = names.iter().map(|n| file(n, 1)).collect();
    let backward = forward.iter().rev().cloned().collect();
    let made = folder(forward, CreateOptions::default()).expect("sound");
    let same = folder(backward, CreateOptions::default()).expect("sound");
    assert_eq!(made.info_hash(), same.info_hash());
    let paths: Vec<_> = made
        .layout
        .files()
        .iter()
        .map(|f| f.path.to_string())
        .collect();
    assert_eq!(paths, ["t/B", "t/a/b", "t/a/c", "t/a-b", "t/a.x", "t/b"]);
}

#[test]
fn options_and_attributes_are_written() {
    let options = CreateOptions {
        piece_len: Some(16 << 10),
        private: true,
        align: true,
        source: Some("here".into()),
    };
    let files = vec![
        NewFile {
            executable: true,
            hidden: true,
            ..file("x", 1)
        },
        file("y", 0),
        file("z", 16 << 10),
        link("zz", "x"),
    ];
    let info = folder(files, options).expect("sound");
    assert!(info.private);
    assert_eq!(info.source.as_deref(), Some("here"));
    let files: Vec<_> = info
        .layout
        .files()
        .iter()
        .map(|f| (f.offset, f.len, f.attr.pad))
        .collect();
    let expected = [
        (0, 1, false),
        (1, 16_383, true),
        (16_384, 0, false),
        (16_384, 16_384, false),
        (32_768, 0, false),
    ];
    assert_eq!(files, expected);
    let first = &info.layout.files()[0].attr;
    assert!(first.executable && first.hidden);
    let target = info.layout.files()[4]
        .attr
        .symlink
        .as_ref()
        .expect("a link");
    assert_eq!(target.as_str(), "t/x");
    let text = info.raw().escape_ascii().to_string();
    assert!(text.starts_with("d5:filesld4:attr2:hx6:lengthi1e4:pathl1:xeed4:attr1:p6:lengthi16383e4:pathl4:.pad5:16383ee"), "{text}");
    assert!(text.contains("d4:attr1:l6:lengthi0e4:pathl2:zze12:symlink pathl1:xee"));
    assert!(text.ends_with("7:privatei1e6:source4:heree"));

    let single = Plan::file("run.sh", 3, true, CreateOptions::default()).expect("sound");
    let info = single.finish(&[[1; 20]]).expect("sound");
    assert!(info.layout.files()[0].attr.executable);
    assert_eq!(info.raw()[..13], *b"d4:attr1:x6:l");
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let refused = |files: Vec<NewFile>| {
        let made = folder(files, CreateOptions::default());
        made.expect_err("refused").to_string()
    };
    assert_eq!(refused(vec![]), "no files");
    assert_eq!(refused(vec![file("a", 0)]), "all files are empty");
    assert_eq!(
        refused(vec![file("a", 1), file("a", 1)]),
        "t/a: there is another file of this name"
    );
    assert_eq!(
        refused(vec![file("a/b", 1), file("a", 1)]),
        "t/a: there is another file of this name"
    );
    assert_eq!(
        refused(vec![file("a/../../b", 1)]),
        "\"a/../../b\": has a component that is not a safe file name"
    );
    let slash = NewFile {
        path: vec!["a/b".into()],
        ..file("", 1)
    };
    assert_eq!(
        refused(vec![slash]),
        "\"a/b\": has a component that is not a safe file name"
    );
    assert_eq!(
        refused(vec![file("a", 1), link("l", "../x")]),
        "\"../x\": has a component that is not a safe file name"
    );
    assert_eq!(
        refused(vec![file("a", 1), link("l", "a/x")]),
        "t/l.symlink path: the symbolic link leads through another link or file"
    );
    assert_eq!(
        refused(vec![file("d/x", 1), link("d/l", "x")]),
        "t/d/l: the symbolic link leads to nothing in the torrent"
    );
    assert_eq!(
        refused(vec![file("a", u64::MAX), file("b", 2)]),
        "info: the lengths of the files add up to more than 2^63 - 1 bytes"
    );
    let long = NewFile {
        len: 1,
        ..link("l", "a")
    };
    assert_eq!(
        refused(vec![long]),
        "t/l: a symbolic link has no bytes of its own"
    );
    for bad in [0, 1, 16 << 9, 100_000, 1 << 29] {
        let options = CreateOptions {
            piece_len: Some(bad),
            ..CreateOptions::default()
        };
        let made = Plan::file("a", 1, false, options);
        assert_eq!(made.expect_err("refused"), CreateError::PieceLength(bad));
    }
    for bad in ["", "..", "a/b"] {
        let made = Plan::file(bad, 1, false, CreateOptions::default());
        assert_eq!(made.expect_err("refused"), CreateError::Name(bad.into()));
    }
    let plan = Plan::file("a", 1, false, CreateOptions::default()).expect("sound");
    let expected = CreateError::PieceCount { got: 0, need: 1 };
    assert_eq!(plan.finish(&[]).expect_err("too few"), expected);
}

fn new_files() -> impl Strategy<Value = Vec<NewFile>> {
    let one = (
        prop::collection::vec("[a-cA-Cé. ]{1,3}", 1..4),
        prop_oneof![Just(0), 1u64..100_000],
        any::<[bool; 3]>(),
    );
    prop::collection::vec(one, 1..8).prop_map(|files| {
        let made = files
            .into_iter()
            .map(|(path, len, [executable, hidden, linked])| {
                let symlink = linked.then(|| path.iter().take(1).cloned().collect());
                NewFile {
                    len: if symlink.is_some() { 0 } else { len },
                    path,
                    executable: executable && !linked,
                    hidden,
                    symlink,
                }
            });
        made.collect()
    })
}

proptest! {
    #[test]
    fn what_is_made_reads_back_the_same(
        files in new_files(),
        align in any::<bool>(),
        private in any::<bool>(),
        tiers in prop::collection::vec(prop::collection::vec("udp://[a-z]{1,5}", 1..3), 0..3),
    ) {
        let options = CreateOptions { align, private, piece_len: Some(16 << 10), source: None };
        let Ok(plan) = Plan::folder("t", files.clone(), options) else { return Ok(()) };
        let info = plan.finish(&some_hashes(&plan)).expect("a plan can be finished");
        prop_assert_eq!(&info.layout, plan.layout());
        prop_assert_eq!(info.private, private);
        let stored = info.layout.files().iter().filter(|f| !f.attr.pad);
        prop_assert_eq!(stored.clone().count(), files.len());
        for file in stored {
            let same = files.iter().any(|f| {
                file.path.as_str() == format!("t/{}", f.path.join("/"))
                    && (f.len, f.executable, f.hidden) == (file.len, file.attr.executable, file.attr.hidden)
                    && f.symlink.is_some() == file.attr.symlink.is_some()
            });
            prop_assert!(same, "{:?}", file);
            prop_assert!(!align || file.len == 0 || file.offset % (16 << 10) == 0);
        }
        // Strangers' names are changed, but never the bytes' places.
        let read = Info::parse(info.raw()).expect("sound for others too");
        prop_assert_eq!(read.info_hash(), info.info_hash());
        prop_assert_eq!(read.geometry(), info.geometry());

        let mut torrent = Metainfo::new(info);
        let mut seen = std::collections::BTreeSet::new();
        torrent.trackers = tiers;
        for tier in &mut torrent.trackers {
            tier.retain(|url| seen.insert(url.clone()));
        }
        torrent.trackers.retain(|tier| !tier.is_empty());
        let read = Metainfo::parse_named(&torrent.to_bytes(), Naming::Local);
        prop_assert_eq!(read, Ok(torrent));
    }
}
