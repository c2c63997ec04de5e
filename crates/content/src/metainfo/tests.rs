//! Tests of reading and writing torrents.

use super::*;
use crate::layout::Span;
use proptest::prelude::*;
use shoal_base::id::to_hex;

/// Keys of an info dictionary and their bencoded values.
type Fields<'a> = &'a [(&'a str, &'a [u8])];

/// An info dictionary of one field per entry; `fields` replace or add to those of a sound
/// torrent of one file, a field of no bytes is left out.
fn info_with(fields: Fields<'_>) -> Vec<u8> {
    let mut all: std::collections::BTreeMap<&[u8], &[u8]> = [
        (&b"length"[..], &b"i3e"[..]),
        (b"name", b"1:a"),
        (b"piece length", b"i16384e"),
        (b"pieces", b"20:aaaaaaaaaaaaaaaaaaaa"),
    ]
    .into();
    for (key, value) in fields {
        all.insert(key.as_bytes(), value);
    }
    let mut out = Encoder::new();
    out.dict(|d| {
        for (key, value) in all.iter().filter(|(_, v)| !v.is_empty()) {
            d.key(key).raw(value);
        }
    });
    out.into_bytes()
}

fn files_with(files: &str) -> Result<Info, MetainfoError> {
    Info::parse(&info_with(&[("length", b""), ("files", files.as_bytes())]))
}

fn paths(info: &Info) -> Vec<String> {
    let files = info.layout.files().iter();
    files.map(|f| f.path.as_str().to_owned()).collect()
}

#[test]
fn one_file_is_read() {
    let info = Info::parse(&info_with(&[("private", b"i1e"), ("source", b"2:sh")])).expect("sound");
    assert_eq!((info.name.as_str(), info.private), ("a", true));
    assert_eq!(info.source.as_deref(), Some("sh"));
    assert_eq!(paths(&info), ["a"]);
    assert_eq!(info.hashes.v1(0), Some([b'a'; 20]));
    assert_eq!((info.layout.total_len(), info.geometry().pieces()), (3, 1));
    assert_eq!(info.info_hash_v2(), None);
    assert_eq!(info.check_supported(), Ok(()));
}

#[test]
fn every_fault_names_its_field() {
    let sixty_bytes = [&b"60:"[..], &[7; 60]].concat();
    let cases: &[(Fields<'_>, &str)] = &[
        (&[("name", b"")], "info.name: missing"),
        (&[("name", b"i1e")], "info.name: not a string"),
        (&[("length", b"")], "info.length: missing"),
        (&[("length", b"i-1e")], "info.length: negative (-1)"),
        (&[("length", b"1:x")], "info.length: not an integer"),
        (&[("piece length", b"")], "info.piece length: missing"),
        (
            &[("piece length", b"i0e")],
            "info.piece length: 0 bytes; supported are 1 byte to 256 MiB",
        ),
        (
            &[("piece length", b"i268435457e")],
            "info.piece length: 268435457 bytes; supported are 1 byte to 256 MiB",
        ),
        (&[("pieces", b"")], "info.pieces: missing"),
        (&[("pieces", b"le")], "info.pieces: not a string"),
        (
            &[("pieces", b"3:abc")],
            "info.pieces: 3 bytes long, not a multiple of 20",
        ),
        (&[("pieces", b"0:")], "info.pieces: 0 hashes for 1 pieces"),
        (
            &[("pieces", &sixty_bytes)],
            "info.pieces: 3 hashes for 1 pieces",
        ),
        (
            &[
                ("piece length", b"i1e"),
                ("length", b"i9223372036854775807e"),
            ],
            "info: more pieces than can be numbered in 32 bits; the pieces are too short",
        ),
        (&[("files", b"i1e")], "info.files: not a list"),
        (&[("files", b"le")], "info.files: empty"),
        (&[("files", b"li1ee")], "info.files[0]: not a dictionary"),
        (
            &[("meta version", b"i3e")],
            "info.meta version: version 3 is not known",
        ),
        (&[("meta version", b"i2e")], "info.file tree: missing"),
        (
            &[("meta version", b"i2e"), ("piece length", b"i16385e")],
            "info.piece length: 16385 bytes; a v2 torrent needs a power of two of at least 16 KiB",
        ),
    ];
    for (fields, expected) in cases {
        let error = Info::parse(&info_with(fields)).expect_err(expected);
        assert_eq!(error.to_string(), *expected);
    }
    let files = [
        ("ld6:lengthi1e4:pathleee", "info.files[0].path: empty"),
        ("ld6:lengthi1eee", "info.files[0].path: missing"),
        ("ld6:lengthi1e4:path1:aee", "info.files[0].path: not a list"),
        (
            "ld6:lengthi1e4:pathl1:ai1eeee",
            "info.files[0].path[1]: not a string",
        ),
        ("ld4:pathl1:aeee", "info.files[0].length: missing"),
        (
            "ld6:lengthi1e4:pathl1:aeed6:lengthi-5e4:pathl1:beee",
            "info.files[1].length: negative (-5)",
        ),
        (
            "ld6:lengthi9223372036854775807e4:pathl1:aeed6:lengthi1e4:pathl1:beee",
            "info: the lengths of the files add up to more than 2^63 - 1 bytes",
        ),
    ];
    for (list, expected) in files {
        assert_eq!(files_with(list).expect_err(expected).to_string(), expected);
    }
    assert_eq!(Info::parse(b"le"), Err(MetainfoError::NotADictionary));
    assert_eq!(
        Metainfo::parse(b"de").expect_err("none").to_string(),
        "info: missing"
    );
    let cut = Metainfo::parse(b"d4:info").expect_err("cut").to_string();
    assert_eq!(
        cut,
        "not valid bencode: input ends inside the value at byte 7"
    );
}

#[test]
fn names_from_strangers_stay_below_the_folder() {
    let list = "ld6:lengthi1e4:pathl2:..2:..4:evileed6:lengthi1e4:pathl4:/x\\yeed6:lengthi1e4:pathl4:EVILee\
                d6:lengthi0e4:pathl4:evil1:xee d6:lengthi0e4:pathl2:..eee"
        .replace(' ', "");
    let info = files_with(&list).expect("made safe");
    let expected = ["a/evil.1", "a/_x_y", "a/EVIL.2", "a/evil/x", "a/_"];
    assert_eq!(paths(&info), expected);

    let named = |name: &[u8]| Info::parse(&info_with(&[("name", name)])).expect("made safe");
    assert_eq!(named(b"9:../../etc").name, ".._.._etc");
    assert_eq!(named(b"2:\xff\x00").name, "__");
    for nameless in [&b"2:.."[..], b"1:.", b"0:"] {
        let info = named(nameless);
        assert_eq!(info.name, info.info_hash().to_string());
    }
}

#[test]
fn utf8_names_are_preferred_when_valid() {
    let info = info_with(&[("name", b"1:\xe9"), ("name.utf-8", "2:é".as_bytes())]);
    assert_eq!(Info::parse(&info).expect("sound").name, "é");
    let list =
        "ld6:lengthi1e4:pathl1:ae10:path.utf-8l1:beed6:lengthi1e4:pathl1:ce10:path.utf-8leee";
    assert_eq!(paths(&files_with(list).expect("sound")), ["a/b", "a/c"]);
}

#[test]
fn padding_takes_room_but_no_name() {
    let list = "ld6:lengthi1e4:pathl1:xeed4:attr1:p6:lengthi2e4:pathl4:.pad1:2ee\
                d4:attr1:p6:lengthi2e4:pathl4:.pad1:2eed4:attr2:xh6:lengthi4e4:pathl1:yeee";
    let info = files_with(list).expect("sound");
    assert_eq!(paths(&info), ["a/x", "a/.pad/2", "a/.pad/2", "a/y"]);
    assert_eq!((info.layout.total_len(), info.layout.stored_len()), (9, 5));
    let y = &info.layout.files()[3];
    assert!(y.attr.executable && y.attr.hidden && !y.attr.pad);
    let spans: Vec<_> = info.layout.spans(2, 4).collect();
    let span = |file, offset, len| Span { file, offset, len };
    assert_eq!(spans, [span(1, 1, 1), span(2, 0, 2), span(3, 0, 1)]);
}

#[test]
fn links_stay_inside() {
    let link = |path: &str, target: &str| {
        let encode = |text: &str| -> String {
            let parts = text.split('/');
            parts.map(|p| format!("{}:{p}", p.len())).collect()
        };
        let (path, target) = (encode(path), encode(target));
        format!("d4:attr1:l6:lengthi0e4:pathl{path}e12:symlink pathl{target}ee")
    };
    let with = |links: &[String]| {
        let links = links.concat();
        files_with(&format!(
            "ld6:lengthi1e4:pathl1:d1:feed6:lengthi0e4:pathl1:Feed6:lengthi0e4:pathl1:fee{links}e"
        ))
    };
    let info = with(&[
        link("d/l", "d/f"),
        link("m", "f"),
        link("n", "d"),
        link("o", "n"),
    ]);
    let info = info.expect("inside");
    let target = |n: usize| info.layout.files()[n].attr.symlink.clone().expect("a link");
    let targets: Vec<_> = (3..7).map(|n| target(n).to_string()).collect();
    assert_eq!(targets, ["a/d/f", "a/f.1", "a/d", "a/n"]);
    assert_eq!(info.layout.files()[3].path.link_to(&target(3)), "f");

    // As libtorrent writes them: from the link's folder.
    let info = with(&[
        link("d/l", "../F"),
        link("d/m", "./f"),
        link("d/d/n", "../../d/f"),
        link("d/o", ".."),
        link("d/p", "gone"),
        link("d/q", "../gone"),
    ]);
    let info = info.expect("inside");
    let links = info.layout.files().iter().skip(3);
    let targets: Vec<_> = links.filter_map(|f| f.attr.symlink.as_ref()).collect();
    let expected = ["a/F", "a/f.1", "a/d/f", "a", "a/gone", "a/gone"];
    assert_eq!(
        targets.iter().map(|t| t.as_str()).collect::<Vec<_>>(),
        expected
    );

    let out = "the symbolic link points out of the torrent's folder";
    let through = "the symbolic link leads through another link or file";
    let cases = [
        (vec![link("l", "..")], "3", out),
        (vec![link("l", "../x")], "3", out),
        (vec![link("l", "d/../../x")], "3", out),
        (vec![link("d/l", "../..")], "3", out),
        (vec![link("d/l", "../../a/f")], "3", out),
        (vec![link("l", "/etc")], "3", out),
        (vec![link("l", "d\\..\\..")], "3", out),
        (vec![link("l", "\u{202e}")], "3", out),
        (vec![link("l", "\u{202e}..")], "3", out),
        (vec![link("l", "d"), link("m", "l/x")], "4", through),
        (vec![link("l", "d"), link("m", "L/x")], "4", through),
        (vec![link("l", "f/x")], "3", through),
    ];
    for (links, file, expected) in cases {
        let error = with(&links).expect_err(expected).to_string();
        assert_eq!(
            error,
            format!("info.files[{file}].symlink path: {expected}")
        );
    }
    // A file below a link moves the link aside.
    let info = with(&[link("l", "d"), "d6:lengthi1e4:pathl1:l1:xee".to_owned()]).expect("inside");
    assert_eq!(&paths(&info)[3..], ["a/l.1", "a/l/x"]);

    let error = files_with("ld4:attr1:l6:lengthi7e4:pathl1:aeee").expect_err("has bytes");
    let expected = "info.files[0].length: a symbolic link has no bytes, this one has 7";
    assert_eq!(error.to_string(), expected);
    let error = files_with("ld4:attr1:l6:lengthi0e4:pathl1:aeee").expect_err("leads nowhere");
    assert_eq!(error.to_string(), "info.files[0].symlink path: missing");
}

/// A tree of one folder per `/`, its files with roots of their length.
fn tree(files: &[(&str, u32)]) -> String {
    let leaf = |len: &u32| match len {
        0 => "d0:d6:lengthi0eee".to_owned(),
        len => format!("d0:d6:lengthi{len}e11:pieces root32:{:032}ee", len),
    };
    let mut out = String::new();
    let mut open = "";
    for (path, len) in files {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if folder != open {
            if !open.is_empty() {
                out.push('e');
            }
            if !folder.is_empty() {
                out += &format!("{}:{folder}d", folder.len());
            }
            open = folder;
        }
        out += &format!("{}:{name}{}", name.len(), leaf(len));
    }
    if !open.is_empty() {
        out.push('e');
    }
    format!("d{out}e")
}

fn v2(files: &[(&str, u32)], more: Fields<'_>) -> Result<Info, MetainfoError> {
    let tree = tree(files);
    let mut fields: Vec<(&str, &[u8])> = vec![
        ("length", b""),
        ("pieces", b""),
        ("meta version", b"i2e"),
        ("file tree", tree.as_bytes()),
    ];
    fields.extend_from_slice(more);
    Info::parse(&info_with(&fields))
}

#[test]
fn v2_torrents_are_shown_but_not_downloaded() {
    let info = v2(&[("d/x", 20_000), ("d/z", 0), ("e", 16_384), ("f", 5)], &[]).expect("sound");
    let expected = ["a/d/x", "a/.pad/12768", "a/d/z", "a/e", "a/f"];
    assert_eq!(paths(&info), expected);
    assert_eq!(info.layout.stored_len(), 36_389);
    assert_eq!(info.info_hash_v1(), None);
    let v2_hash = info.info_hash_v2().expect("v2");
    assert_eq!(info.info_hash(), v2_hash.truncated());
    assert_eq!(info.check_supported(), Err(MetainfoError::V2Only));
    assert!(info.hashes.root(0).is_some() && info.hashes.root(1).is_none());
    assert_eq!(info.hashes.v1(0), None);

    assert_eq!(paths(&v2(&[("a", 1)], &[]).expect("sound")), ["a"]);
    assert_eq!(paths(&v2(&[("b", 1)], &[]).expect("sound")), ["a/b"]);
}

#[test]
fn hybrid_halves_must_agree() {
    let files = [("x", 20_000), ("y", 5)];
    let hybrid = |list: &str| {
        let pieces = [&b"60:"[..], &[7; 60]].concat();
        v2(&files, &[("files", list.as_bytes()), ("pieces", &pieces)])
    };
    let pad = "d4:attr1:p6:lengthi12768e4:pathl4:.pad1:0ee";
    let x = "d6:lengthi20000e4:pathl1:xee";
    let y = "d6:lengthi5e4:pathl1:yee";
    let info = hybrid(&format!("l{x}{pad}{y}e")).expect("they agree");
    assert!(info.info_hash_v1().is_some() && info.info_hash_v2().is_some());
    assert_eq!(info.check_supported(), Ok(()));
    assert!(info.hashes.v1(2).is_some());
    let roots: Vec<_> = (0..3).map(|n| info.hashes.root(n).is_some()).collect();
    assert_eq!(roots, [true, false, true]);

    let differs = "info.file tree: differs from the v1 part of this hybrid torrent in file";
    let cases = [
        (format!("l{x}{pad}e"), format!("{differs} 1")),
        (format!("l{y}{pad}{x}e"), format!("{differs} 0")),
        (format!("l{x}{pad}{y}{y}e"), format!("{differs} 2")),
        (
            format!("l{x}{y}e"),
            "info.files: file 1 of this hybrid torrent does not start at a piece".to_owned(),
        ),
    ];
    for (list, expected) in cases {
        assert_eq!(hybrid(&list).expect_err(&expected).to_string(), expected);
    }
}

#[test]
fn file_trees_are_checked() {
    let cases: &[(&[u8], &str)] = &[
        (b"de", "info.file tree: empty"),
        (b"d1:xi1ee", "info.file tree.x: not a dictionary"),
        (
            b"d0:d6:lengthi1eee",
            "info.file tree: not a folder or a file",
        ),
        (
            b"d1:xd0:d6:lengthi0ee1:ydeee",
            "info.file tree.x: not a folder or a file",
        ),
        (b"d1:xd0:deee", "info.file tree.x.length: missing"),
        (
            b"d1:xd0:d6:lengthi1eeee",
            "info.file tree.x.pieces root: missing",
        ),
        (
            b"d1:xd0:d6:lengthi1e11:pieces root1:aeee",
            "info.file tree.x.pieces root: 1 bytes long, not 32",
        ),
    ];
    for (tree, expected) in cases {
        let fields: Fields<'_> = &[
            ("pieces", b""),
            ("meta version", b"i2e"),
            ("file tree", tree),
        ];
        let error = Info::parse(&info_with(fields)).expect_err(expected);
        assert_eq!(error.to_string(), *expected);
    }
}

#[test]
fn trackers_come_in_tiers() {
    let info = String::from_utf8(info_with(&[])).expect("ascii");
    let read = |before: &str, after: &str| {
        let file = format!("d{before}4:info{info}{after}e");
        Metainfo::parse(file.as_bytes()).expect("sound")
    };
    let tiers = read(
        "8:announce3:u:013:announce-listll3:u:13:u:2el3:u:1e1:xlei5ee",
        "",
    );
    assert_eq!(tiers.trackers, [vec!["u:1", "u:2"], vec!["x"]]);
    assert_eq!(
        read("8:announce3:u:013:announce-listle", "").trackers,
        [["u:0"]]
    );
    assert!(read("8:announcei1e", "").trackers.is_empty());
    assert_eq!(read("", "8:url-list3:u:1").web_seeds, ["u:1"]);
    let seeds = read("", "8:url-listl3:u:13:u:13:u 20:i1ee").web_seeds;
    assert_eq!(seeds, ["u:1", "u%202"]);
    assert!(read("", "8:url-list0:").web_seeds.is_empty());
}

#[test]
fn files_round_trip() {
    let info = Info::parse(&info_with(&[])).expect("sound");
    let mut file = Metainfo::new(info);
    assert_eq!(Metainfo::parse(&file.to_bytes()).as_ref(), Ok(&file));
    file.trackers = vec![vec!["u:1".into(), "u:2".into()], vec!["u:3".into()]];
    file.web_seeds = vec!["http://w".into()];
    file.comment = Some("é".into());
    file.created_by = Some("shoal".into());
    file.creation_date = Some(7);
    file.piece_layers = Some(b"de"[..].into());
    assert_eq!(Metainfo::parse(&file.to_bytes()).as_ref(), Ok(&file));
    file.web_seeds.push("http://v".into());
    file.trackers.truncate(1);
    assert_eq!(Metainfo::parse(&file.to_bytes()).as_ref(), Ok(&file));
    let line = [&file.to_bytes()[..], b"\r\n"].concat();
    assert_eq!(Metainfo::parse(&line).as_ref(), Ok(&file));
    let more = [&file.to_bytes()[..], b"x"].concat();
    assert!(Metainfo::parse(&more).is_err());
    let magnet = file.magnet();
    assert_eq!(magnet.info_hash, file.info.info_hash_v1());
    assert_eq!(magnet.trackers, ["u:1", "u:2"]);
}

#[test]
fn the_hash_is_over_the_bytes_as_sent() {
    // Keys out of order and unknown ones are kept: the hash is of what was sent.
    let odd = b"d4:name1:a6:lengthi1e12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaa3:zzz1:xe";
    let info = Info::parse(odd).expect("sound");
    assert_eq!(info.raw(), odd);
    assert_eq!(
        to_hex(info.info_hash().as_bytes()),
        "a77c06b365a9ef97663f1cc74fa004392eada3d1"
    );
}

/// Bencode that is often nearly a torrent.
fn near_torrent() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("d4:info".to_owned()),
        Just("d6:lengthi1e".to_owned()),
        Just("12:piece lengthi16384e".to_owned()),
        Just("6:pieces20:aaaaaaaaaaaaaaaaaaaa".to_owned()),
        Just("4:name1:a".to_owned()),
        Just("5:filesld6:lengthi1e4:pathl1:aeee".to_owned()),
        Just("9:file treed1:ad0:d6:lengthi0eeee".to_owned()),
        Just("12:meta versioni2e".to_owned()),
        Just("4:attr1:l12:symlink pathl1:ae".to_owned()),
        Just("e".to_owned()),
        "[dlie0-9:a]{0,4}",
    ];
    prop::collection::vec(piece, 0..14).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Metainfo::parse(&bytes);
        let _ = Info::parse(&bytes);
    }

    #[test]
    fn near_torrents_are_read_or_refused(bytes in near_torrent()) {
        let _ = Info::parse(&bytes);
        if let Ok(file) = Metainfo::parse(&bytes) {
            prop_assert_eq!(Metainfo::parse(&file.to_bytes()), Ok(file));
        }
    }
}
