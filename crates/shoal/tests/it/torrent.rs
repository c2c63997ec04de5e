//! `shoal torrent`: making, showing and checking .torrent files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::process::World;

fn photos() -> World {
    let world = World::new();
    world.file("photos/a.jpg", 40_000, 1);
    world.file("photos/sub/b.jpg", 70_000, 2);
    world.file("photos/sub/empty", 0, 3);
    world
}

#[test]
fn a_folder_round_trips_through_create_show_and_verify() {
    let world = photos();
    symlink("sub/b.jpg", world.path("photos/link")).expect("a link");
    let ran = world.run(&[
        "torrent",
        "create",
        "photos",
        "--tracker",
        "http://a.example/announce",
        "--tracker",
        "udp://b.example:80",
        "--web-seed",
        "https://w.example/",
        "--comment",
        "hello",
    ]);
    assert_eq!(ran.expect(0).stdout, "photos.torrent\n");
    let shown = world
        .run(&["torrent", "show", "photos.torrent", "--json"])
        .expect(0);
    let v = &shown.json()[0];
    assert_eq!(v["name"], "photos");
    assert_eq!(v["total_size"], 110_000);
    assert_eq!(v["piece_length"], 16_384);
    assert_eq!(v["pieces"], 7);
    assert_eq!(v["private"], false);
    assert_eq!(v["comment"], "hello");
    assert_eq!(
        v["trackers"],
        json!([["http://a.example/announce"], ["udp://b.example:80"]])
    );
    assert_eq!(v["web_seeds"], json!(["https://w.example/"]));
    assert_eq!(
        v["files"],
        json!([
            {"path": "photos/a.jpg", "length": 40_000},
            {"path": "photos/link", "length": 0, "symlink": "photos/sub/b.jpg"},
            {"path": "photos/sub/b.jpg", "length": 70_000},
            {"path": "photos/sub/empty", "length": 0},
        ])
    );
    let hash = v["info_hash_v1"].as_str().expect("a hash");
    assert_eq!(hash.len(), 40);
    assert!(v["info_hash_v2"].is_null());
    let magnet = v["magnet"].as_str().expect("a link");
    assert!(magnet.starts_with(&format!("magnet:?xt=urn:btih:{hash}")));

    let table = world
        .run(&["torrent", "show", "photos.torrent"])
        .expect(0)
        .stdout;
    for text in [
        "photos",
        hash,
        "110000 bytes",
        "photos/link -> sub/b.jpg",
        "udp://b.example:80",
    ] {
        assert!(table.contains(text), "no {text:?} in {table}");
    }
    world
        .run(&["torrent", "verify", "photos.torrent"])
        .expect(0);

    let link = world.run(&["torrent", "show", magnet, "--json"]).expect(0);
    assert_eq!(link.json()[0]["info_hash_v1"], hash);
}

#[test]
fn the_same_folder_gives_the_same_info_hash_and_options_change_it() {
    let world = photos();
    let hash = |args: &[&str]| {
        let mut all = vec!["torrent", "create", "photos", "--force", "--json"];
        all.extend(args);
        let ran = world.run(&all).expect(0);
        let magnet = ran.json().into_iter().find(|v| v["event"] == "magnet");
        magnet.expect("a magnet event")["info_hash_v1"].to_string()
    };
    let plain = hash(&[]);
    assert_eq!(hash(&["--tracker", "http://t/"]), plain);
    assert_ne!(hash(&["--private"]), plain);
    assert_ne!(hash(&["--name", "other"]), plain);
    assert_ne!(hash(&["--piece-size", "32K"]), plain);
}

#[test]
fn a_single_file_and_a_torrent_on_stdout_work() {
    let world = World::new();
    let path = world.file("run.sh", 100, 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let ran = world
        .run(&["torrent", "create", "run.sh", "-o", "-"])
        .expect(0);
    let shown = world
        .run_with(&["torrent", "show", "-", "--json"], &ran.raw)
        .expect(0);
    assert_eq!(
        shown.json()[0]["files"],
        json!([{"path": "run.sh", "length": 100, "executable": true}])
    );
    world
        .run_with(&["torrent", "verify", "-"], &ran.raw)
        .expect(0);
    assert!(!world.path("run.sh.torrent").exists());
}

#[test]
fn verify_names_each_bad_file_and_exits_1() {
    let world = World::new();
    for n in 0..6_usize {
        world.file(&format!("d/{n}"), 50_000, n as u64);
    }
    world.run(&["torrent", "create", "d"]).expect(0);
    fs::remove_file(world.path("d/1")).expect("removed");
    fs::write(world.path("d/3"), "short").expect("written");
    let mut bytes = fs::read(world.path("d/5")).expect("read");
    bytes[40_000] ^= 1;
    fs::write(world.path("d/5"), bytes).expect("written");

    let ran = world.run(&["torrent", "verify", "d.torrent"]).expect(1);
    assert!(ran.stdout.contains("d/1: missing"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("d/3: 5 bytes instead of 50000"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("d/5: differs"), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    let ran = ran
        .says("error: d does not match")
        .says("because:")
        .says("hint:");
    assert!(ran.stderr.contains("3 files bad"));

    let json = world
        .run(&["torrent", "verify", "d.torrent", "--json"])
        .expect(1)
        .json();
    let problems: Vec<_> = json
        .iter()
        .filter(|v| v["event"] == "bad_file")
        .map(|v| (v["path"].as_str(), v["problem"].as_str()))
        .collect();
    assert_eq!(
        problems,
        [
            (Some("d/1"), Some("missing")),
            (Some("d/3"), Some("size")),
            (Some("d/5"), Some("content")),
        ]
    );
    let sum = json
        .iter()
        .find(|v| v["event"] == "verified")
        .expect("a sum");
    assert_eq!(sum["ok"], false);
    assert_eq!(json.last().expect("an error")["event"], "error");
}

#[test]
fn invalid_torrents_exit_1_and_name_what_and_where() {
    let world = World::new();
    for (bytes, reason) in [
        (&b""[..], "bencode"),
        (b"hello", "bencode"),
        (b"d4:infod6:lengthi1eee", "info.piece length"),
        (b"d4:infod6:lengthi-1e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee", "info.length"),
        (b"d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces3:012ee", "info.pieces"),
        (b"d4:infod6:lengthi999999999999e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee", "info.pieces"),
        (b"i1e", "dictionary"),
        (b"<html>", "web page"),
    ] {
        let ran = world.run_with(&["torrent", "show", "-"], bytes).expect(1);
        let ran = ran.says("not a valid .torrent file");
        assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
        fs::write(world.path("bad.torrent"), bytes).expect("written");
        world.run(&["fetch", "bad.torrent", "--no-lsd"]).expect(1);
        world.run(&["torrent", "verify", "bad.torrent"]).expect(1);
    }
    let json = world
        .run_with(&["torrent", "show", "-", "--json"], b"x")
        .expect(1)
        .json();
    assert_eq!(json[0]["event"], "error");
    assert_eq!(json[0]["code"], 1);
    assert!(json[0]["because"].is_array());
}

#[test]
fn a_strangers_names_do_not_reach_the_terminal() {
    let world = World::new();
    let torrent = b"d7:comment6:\x1b[2Jab4:infod6:lengthi1e4:name9:\x1b]0;\x07evil12:piece lengthi16384e6:pieces20:01234567890123456789ee";
    let ran = world.run_with(&["torrent", "show", "-"], torrent);
    let ran = ran.expect(0);
    assert!(
        !ran.stdout.contains('\x1b') && !ran.stdout.contains('\x07'),
        "{:?}",
        ran.stdout
    );
}

#[test]
fn what_cannot_be_shared_is_refused_with_the_reason() {
    let world = photos();
    fs::create_dir(world.path("empty")).expect("a folder");
    world.file("zero/z", 0, 1);
    for (args, code, reason) in [
        (&["torrent", "create", "nothing"][..], 3, "nothing"),
        (&["torrent", "create", "empty"], 1, "no files"),
        (&["torrent", "create", "zero"], 1, "empty"),
        (
            &["torrent", "create", "photos", "--v2"],
            2,
            "not supported yet",
        ),
        (
            &["torrent", "create", "photos", "--hybrid"],
            2,
            "not supported yet",
        ),
        (
            &["torrent", "create", "photos", "--piece-size", "100K"],
            2,
            "power of two",
        ),
        (&["torrent", "create", "photos", "--name", "a/b"], 2, "name"),
        (
            &["torrent", "create", "photos", "-o", "no/where.torrent"],
            3,
            "no/where.torrent",
        ),
        (&["torrent", "show", "gone.torrent"], 3, "gone.torrent"),
        (&["torrent", "show", "photos"], 1, "folder"),
        (&["torrent", "verify", "gone.torrent"], 3, "gone.torrent"),
        (&["torrent", "show", "magnet:?dn=x"], 1, "xt"),
    ] {
        let ran = world.run(args).expect(code).says("error: ");
        assert!(ran.stderr.contains(reason), "{args:?}: {}", ran.stderr);
    }
    world.run(&["torrent", "create", "photos"]).expect(0);
    world
        .run(&["torrent", "create", "photos"])
        .expect(1)
        .says("--force");
    let leftovers = fs::read_dir(world.path("")).expect("readable").flatten();
    assert!(
        leftovers
            .into_iter()
            .all(|e| !e.file_name().to_string_lossy().starts_with('.'))
    );
}

#[test]
fn links_out_of_the_folder_are_left_out_and_named() {
    let world = photos();
    symlink("/etc/hostname", world.path("photos/out")).expect("a link");
    let ran = world
        .run(&["torrent", "create", "photos"])
        .expect(0)
        .says("left out");
    assert!(ran.stderr.contains("photos/out"));
    let shown = world
        .run(&["torrent", "show", "photos.torrent"])
        .expect(0)
        .stdout;
    assert!(!shown.contains("photos/out"));
}
