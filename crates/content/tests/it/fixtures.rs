//! Torrents that other programs made: libtorrent 2.0.8, mktorrent 1.1 and Transmission 3.00, each
//! of the same small tree of files. The hashes are those libtorrent names for them.

use shoal_content::{Info, Metainfo, Naming};

fn read(name: &str) -> Metainfo {
    let path = format!(
        "{}/tests/fixtures/{name}.torrent",
        env!("CARGO_MANIFEST_DIR")
    );
    let bytes = std::fs::read(&path).expect(&path);
    let torrent = Metainfo::parse(&bytes).expect(&path);
    let again = Metainfo::parse(&torrent.to_bytes()).expect(&path);
    assert_eq!(again, torrent, "{name} round-trips");
    torrent
}

#[test]
fn info_hashes_are_those_of_libtorrent() {
    let cases = [
        (
            "libtorrent-v1",
            "d0d791d0de4ff62f26893101e187e89f841f08c3",
            "",
            9,
        ),
        (
            "libtorrent-hybrid",
            "ac14fb5640072434d774f4deb8f36d46a93a3acf",
            "627ae0ac17ba7caaba524a9ee6c89820e1f30a56f25de934f5c467e05acc4060",
            13,
        ),
        (
            "libtorrent-v2",
            "",
            "6594804dc4524cc46268e3994c451df49465553dd0349ffc0d93e65dac86e888",
            13,
        ),
        (
            "libtorrent-single-hybrid",
            "1ed961157b650fd37969d513e667919a1104ff38",
            "33f4045e1e8636468120236451eeee11195f6a10ae22ab647cb47f9dda9358d9",
            7,
        ),
        (
            "libtorrent-single-v2",
            "",
            "2cbd658dc7a24cc0318d218667b993f4c98925099994c37e5ff792296681819a",
            7,
        ),
        (
            "mktorrent",
            "a32ec414f66dae7977ca0802e3c8fd98dd3bfc3b",
            "",
            11,
        ),
        (
            "transmission",
            "c1bd5c842a10f854cc4cd439f3a3844d3a255dc5",
            "",
            4,
        ),
    ];
    for (name, v1, v2, pieces) in cases {
        let info = read(name).info;
        let text = |hash: Option<String>| hash.unwrap_or_default();
        assert_eq!(
            text(info.info_hash_v1().map(|h| h.to_string())),
            v1,
            "{name}"
        );
        assert_eq!(
            text(info.info_hash_v2().map(|h| h.to_string())),
            v2,
            "{name}"
        );
        assert_eq!(info.geometry().pieces(), pieces, "{name}");
        assert_eq!(info.check_supported().is_ok(), !v1.is_empty(), "{name}");
    }
}

/// Paths, lengths and links of what is stored.
fn stored(info: &Info) -> Vec<(String, u64, Option<String>)> {
    let files = info.layout.files().iter().filter(|f| !f.attr.pad);
    let link = |l: &shoal_content::SafePath| l.as_str().to_owned();
    files
        .map(|f| {
            (
                f.path.as_str().to_owned(),
                f.len,
                f.attr.symlink.as_ref().map(link),
            )
        })
        .collect()
}

#[test]
fn v1_hybrid_and_v2_hold_the_same_files() {
    let expected: Vec<_> = [
        ("tree/.hidden", 1, None),
        ("tree/What? 1:2.txt", 1, None),
        ("tree/a.bin", 100_000, None),
        ("tree/link", 0, Some("tree/a.bin")),
        ("tree/sub/b.bin", 33_000, None),
        ("tree/sub/deep/run.sh", 2, None),
        ("tree/sub/dirlink", 0, Some("tree/sub/deep")),
        ("tree/sub/up", 0, Some("tree/a.bin")),
        ("tree/sub/zero", 0, None),
    ]
    .map(|(path, len, link): (&str, u64, Option<&str>)| {
        (path.to_owned(), len, link.map(str::to_owned))
    })
    .into();
    for name in ["libtorrent-v1", "libtorrent-hybrid", "libtorrent-v2"] {
        let torrent = read(name);
        let local = torrent.info.renamed(Naming::Local).expect("sound");
        let mut files = stored(&local);
        files.sort();
        assert_eq!(files, expected, "{name}");
        let run = local
            .layout
            .files()
            .iter()
            .find(|f| f.path.file_name() == "run.sh");
        assert!(run.expect("there").attr.executable);
        assert_eq!(
            torrent.trackers,
            [
                ["udp://127.0.0.1:1/announce"],
                ["http://127.0.0.1:2/announce"]
            ]
        );
        assert_eq!(torrent.web_seeds, ["http://127.0.0.1:3/"]);
        assert_eq!(torrent.comment.as_deref(), Some("made by libtorrent"));
        assert_eq!(torrent.piece_layers.is_some(), name != "libtorrent-v1");
    }
}

#[test]
fn hybrids_know_the_roots_of_their_files() {
    let hybrid = read("libtorrent-hybrid").info;
    let v2 = read("libtorrent-v2").info;
    let roots = |info: &Info| -> Vec<_> {
        let files = info.layout.files().iter().enumerate();
        let stored = files.filter(|(_, f)| !f.attr.pad && f.len > 0);
        stored
            .map(|(n, _)| info.hashes.root(n).expect("has bytes"))
            .collect()
    };
    assert_eq!(roots(&hybrid), roots(&v2));
    assert_eq!(roots(&hybrid).len(), 5);
}
