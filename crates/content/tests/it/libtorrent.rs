//! Torrents that we make, read by libtorrent's Python module where there is one.

use shoal_content::{CreateOptions, Metainfo, NewFile, Plan};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

const SCRIPT: &str = "
import sys, libtorrent as lt
info = lt.torrent_info(sys.stdin.buffer.read())
files = info.files()
print(info.info_hashes().v1, info.num_pieces(), info.priv(), len(list(info.trackers())), len(info.web_seeds()))
for n in range(files.num_files()):
    print(files.file_path(n), files.file_size(n), files.file_offset(n), files.file_flags(n), files.symlink(n))
";

/// What libtorrent says about `torrent`; none without libtorrent.
fn ask_libtorrent(torrent: &[u8]) -> Option<String> {
    let there = Command::new("/usr/bin/python3")
        .args(["-c", "import libtorrent"])
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut child = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(torrent).expect("python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "libtorrent refuses the torrent");
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn check(plan: &Plan) {
    let pieces = plan.layout().geometry().pieces();
    let hashes: Vec<_> = (0..pieces).map(|n| [n as u8; 20]).collect();
    let info = plan.finish(&hashes).expect("sound");
    let mut torrent = Metainfo::new(info);
    torrent.trackers = vec![
        vec!["udp://h:1".into(), "http://h/a".into()],
        vec!["udp://h:2".into()],
    ];
    torrent.web_seeds = vec!["http://w/a".into(), "http://w/b".into()];
    let Some(said) = ask_libtorrent(&torrent.to_bytes()) else {
        return;
    };
    let info = &torrent.info;
    let mut expected = format!(
        "{} {pieces} {} 3 2\n",
        info.info_hash(),
        if info.private { "True" } else { "False" }
    );
    for file in info.layout.files() {
        let attr = &file.attr;
        // libtorrent's numbers for the attributes of BEP 47.
        let flags = u8::from(attr.pad)
            | u8::from(attr.hidden) << 1
            | u8::from(attr.executable) << 2
            | u8::from(attr.symlink.is_some()) << 3;
        let link = attr.symlink.as_ref().map_or("", |target| target.as_str());
        let _ = writeln!(
            expected,
            "{} {} {} {flags} {link}",
            file.path.as_str(),
            file.len,
            file.offset
        );
    }
    assert_eq!(said, expected);
}

#[test]
fn libtorrent_reads_our_folders_as_we_do() {
    let file = |path: &str, len| NewFile {
        path: path.split('/').map(str::to_owned).collect(),
        len,
        ..NewFile::default()
    };
    let link = |path: &str, target: &str| NewFile {
        symlink: Some(target.split('/').map(str::to_owned).collect()),
        ..file(path, 0)
    };
    let mut files = vec![
        file("a.bin", 100_000),
        file("sub/b.bin", 33_000),
        file("sub/deep/é?", 2),
        file("sub/zero", 0),
        link("link", "a.bin"),
        link("sub/dir", "sub/deep"),
        link("sub/up", "a.bin"),
        link("sub/up2", "sub/up"),
    ];
    files[0].executable = true;
    files[1].hidden = true;
    for (align, private) in [(false, false), (true, true)] {
        let options = CreateOptions {
            piece_len: Some(16 << 10),
            align,
            private,
            source: Some("s".into()),
        };
        check(&Plan::folder("tree", files.clone(), options).expect("sound"));
    }
}

#[test]
fn libtorrent_reads_our_single_files_as_we_do() {
    let plan = Plan::file("one.bin", 5 << 20, false, CreateOptions::default());
    check(&plan.expect("sound"));
}
