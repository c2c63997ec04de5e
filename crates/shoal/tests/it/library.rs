//! `shoal library`, and what `share` takes from it.

use std::fs;

use rustix::process::Signal;

use crate::process::World;

fn music() -> World {
    let world = World::new();
    world.file("music/Björk/Début/Venus as a Boy.mp3", 100_000, 1);
    world.file("music/shanty.ogg", 300_000, 2);
    world.file("music/cover.jpg", 10, 3);
    world
}

#[test]
fn folders_are_added_searched_scanned_again_and_removed() {
    let world = music();
    let added = world
        .run(&["library", "add", "music", "--json"])
        .expect(0)
        .json();
    let scanned = added.last().expect("an end");
    assert_eq!(scanned["event"], "scanned");
    assert_eq!(
        (&scanned["hashed"], &scanned["bytes_hashed"]),
        (&3.into(), &400_010.into())
    );

    let found = world
        .run(&["library", "search", "bjork", "ven*", "--json"])
        .expect(0)
        .json();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["bytes"], 100_000);
    let urn = found[0]["urn"].as_str().expect("a name").to_owned();
    assert!(
        urn.starts_with("urn:bitprint:") && urn.len() == 13 + 32 + 1 + 39,
        "{urn}"
    );
    let shown = world.run(&[
        "library", "search", "--type", "audio", "--", "shanty", "-boy",
    ]);
    assert!(shown.expect(0).stdout.ends_with("music/shanty.ogg\n"));
    world
        .run(&["library", "search", "nothing", "here"])
        .expect(3);
    world.run(&["library", "search", "?!"]).expect(2);

    fs::rename(
        world.path("music/shanty.ogg"),
        world.path("music/sea shanty.ogg"),
    )
    .expect("moved");
    let again = world.run(&["library", "rescan", "--json"]).expect(0).json();
    let again = again.last().expect("an end");
    assert_eq!(
        (
            &again["unchanged"],
            &again["moved"],
            &again["hashed"],
            &again["removed"]
        ),
        (&2.into(), &1.into(), &0.into(), &1.into())
    );
    let file = "music/Björk/Début/Venus as a Boy.mp3";
    let shown = world
        .run(&["library", "show", file, "--json"])
        .expect(0)
        .json();
    assert_eq!(shown[0]["urn"], urn);
    assert!(
        world
            .run(&["library", "show", file])
            .expect(0)
            .stdout
            .contains("7 of 16.0 KiB")
    );
    world.run(&["library", "show", "home"]).expect(3);

    let list = world.run(&["library", "list", "--json"]).expect(0).json();
    assert_eq!(
        (&list[0]["files"], &list[0]["with"][0]),
        (&3.into(), &"everyone".into())
    );
    world.run(&["library", "remove", "music"]).expect(0);
    world.run(&["library", "remove", "music"]).expect(3);
    assert_eq!(world.run(&["library", "list"]).expect(0).stdout, "");
}

#[test]
fn folders_are_shared_with_whom_they_are_for() {
    let world = music();
    let key = "ab".repeat(32);
    world
        .run(&["library", "add", "music", "--with", &key, "--no-scan"])
        .expect(0);
    let list = world.run(&["library", "list", "--json"]).expect(0).json();
    assert_eq!(
        (&list[0]["with"][0], &list[0]["files"]),
        (&key.into(), &0.into())
    );
    world
        .run(&["library", "add", "music", "--with", "nobody", "--no-scan"])
        .expect(0);
    assert!(
        world
            .run(&["library", "list"])
            .expect(0)
            .stdout
            .contains("with nobody")
    );
    world
        .run(&["library", "add", "music", "--with", "friends"])
        .expect(2);
    world
        .run(&[
            "library", "add", "music", "--with", "nobody", "--with", "everyone",
        ])
        .expect(2);
    world.run(&["library", "add", "music/shanty.ogg"]).expect(1);
    world.run(&["library", "add", "missing"]).expect(3);
}

#[test]
fn a_watched_folder_is_scanned_when_it_changes() {
    let world = music();
    world.run(&["library", "add", "music"]).expect(0);
    let mut watching = world.start(&["library", "rescan", "--watch"]);
    watching.event("scanned");
    world.file("music/new/late.ogg", 5000, 9);
    let scanned = watching.event("scanned");
    assert_eq!(scanned["hashed"], 1);
    // The library is free meanwhile.
    let found = world
        .run(&["library", "search", "late", "--json"])
        .expect(0)
        .json();
    assert_eq!(found.len(), 1);
    watching.signal(Signal::INT);
    assert_eq!(watching.end().0.code(), Some(130));
}

#[test]
fn a_hub_is_told_what_the_library_shares_with_everyone() {
    let world = music();
    world.file("private/diary of the sea.txt", 100, 7);
    world.run(&["library", "add", "music"]).expect(0);
    world
        .run(&["library", "add", "private", "--with", "nobody"])
        .expect(0);
    let mut hub = world.start(&["serve", "napster", "--listen", "127.0.0.1:0"]);
    let addr = hub.addr();
    let mut sharer = world.start(&[
        "napster",
        "share",
        "--library",
        "--hub",
        &addr,
        "--listen",
        "127.0.0.1:0",
        "--nick",
        "ann",
    ]);
    sharer.event("hub");
    let find = |word: &str| world.run(&["find", word, "--hub", &addr, "--no-ping", "--json"]);
    // The hub has read all of the list when it has read the last of it.
    // The hub's hit names no hash, one's own does: they stay apart, and the proven one is known by it.
    let found = find("debut").expect(0).json();
    let found: Vec<_> = found.iter().filter(|v| v["event"] == "found").collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    let of = |via: &str| {
        found
            .iter()
            .find(|v| v["via"][0] == via)
            .expect("found by it")
    };
    assert_eq!(
        of("napster")["file"],
        "music\\Björk\\Début\\Venus as a Boy.mp3"
    );
    assert!(of("napster")["urn"].is_null() && of("library")["urn"].is_string());
    find("shanty").expect(0);
    world
        .run(&["find", "diary", "--hub", &addr, "--via", "napster"])
        .expect(3);
    // A saved search tells what is new, once.
    let again = [
        "find", "shanty", "--via", "library", "--new", "shanties", "--json",
    ];
    let told = world.run(&again).expect(0).json();
    assert_eq!(told.iter().filter(|v| v["event"] == "found").count(), 1);
    world.run(&again).expect(3).says("nothing new");
    world.run(&["find", "shanty", "--new", "../x"]).expect(2);
    world
        .run(&["find", "shanty", "--via", "gnutella"])
        .expect(2)
        .says("--connect");
    let args = ["napster", "fetch", "shanty", "--hub", &addr, "--dir", "got"];
    world.run(&args).expect(0);
    let got = fs::read(world.path("got/shanty.ogg")).expect("fetched");
    assert_eq!(got, fs::read(world.path("music/shanty.ogg")).expect("read"));
}

#[test]
fn one_content_found_on_two_networks_is_one_result() {
    let world = music();
    world.run(&["library", "add", "music"]).expect(0);
    let mut node = world.start(&[
        "gnutella",
        "node",
        "--ultrapeer",
        "--share",
        "music",
        "--listen",
        "127.0.0.1:0",
    ]);
    let addr = node.addr();
    let args = [
        "find",
        "shanty",
        "--connect",
        &addr,
        "--listen",
        "127.0.0.1:0",
        "--wait",
        "3",
        "--json",
    ];
    let told = world.run(&args).expect(0).json();
    let heard = told.iter().filter(|v| v["event"] == "heard").count();
    let found: Vec<_> = told.iter().filter(|v| v["event"] == "found").collect();
    assert_eq!((heard, found.len()), (2, 1), "{told:#?}");
    assert_eq!(found[0]["via"], serde_json::json!(["gnutella", "library"]));
    assert_eq!(
        (&found[0]["sharers"], &found[0]["bytes"]),
        (&2.into(), &300_000.into())
    );
    // A network that cannot be asked is told, and the others count.
    let gone = ["find", "shanty", "--hub", "127.0.0.1:1"];
    world.run(&gone).expect(0).says("napster did not answer");
    world
        .run(&["find", "nothing", "--hub", "127.0.0.1:1"])
        .expect(4);
    // A mistake in a name is one, and no network that did not answer.
    for place in [["--hub", "127.0.0.1"], ["--connect", "hub.example:x"]] {
        let args = [&["find", "nothing"][..], &place].concat();
        world.run(&args).expect(2).says("HOST:PORT");
    }
}

/// Starts `share`, waits for its link, ends it; the link, and whether anything was hashed.
fn share(world: &World, path: &str) -> (String, bool) {
    let args = [
        "share",
        path,
        "--listen",
        "127.0.0.1:0",
        "--no-dht",
        "--no-lsd",
    ];
    let mut running = world.start(&args);
    let magnet = running.event("magnet");
    running.signal(Signal::INT);
    let (_, seen, _) = running.end();
    let hashed = seen.iter().any(|e| e["event"] == "hashing");
    (
        magnet["info_hash_v1"].as_str().expect("a hash").to_owned(),
        hashed,
    )
}

#[test]
fn what_is_shared_again_is_not_hashed_again() {
    let world = music();
    let (first, hashed) = share(&world, "music");
    assert!(hashed);
    assert_eq!(share(&world, "music"), (first.clone(), false));
    world.file("music/cover.jpg", 10, 4);
    let (other, hashed) = share(&world, "music");
    assert!(hashed && other != first);
    // A file of the library was hashed when it was added.
    let alone = world.file("disk.img", 300_000, 5);
    let (hash, hashed) = share(&world, "disk.img");
    assert!(hashed);
    fs::remove_dir_all(world.path("home/.local")).expect("forgotten");
    fs::create_dir(world.path("images")).expect("made");
    fs::rename(alone, world.path("images/disk.img")).expect("moved");
    world.run(&["library", "add", "images"]).expect(0);
    assert_eq!(share(&world, "images/disk.img"), (hash, false));
}

#[test]
fn what_others_find_is_checked_and_what_they_do_not_find_is_told() {
    let world = music();
    world.run(&["library", "add", "music"]).expect(0);
    let mut hub = world.start(&["serve", "napster", "--listen", "127.0.0.1:0"]);
    let hub = hub.addr();
    let args = ["library", "check", "--hub", &hub, "--nick", "alice"];
    let missing = world.run(&[&args[..], &["--json"]].concat()).expect(3);
    let missing = missing.json();
    let checked = |seen: &[serde_json::Value], found: bool| {
        let is = |v: &&serde_json::Value| v["event"] == "checked" && v["found"] == found;
        seen.iter().filter(is).count()
    };
    assert_eq!(checked(&missing, false), 3, "{missing:#?}");
    let mut share = world.start(&[
        "napster",
        "share",
        "--library",
        "--hub",
        &hub,
        "--nick",
        "alice",
        "--listen",
        "127.0.0.1:0",
    ]);
    share.wait_for("the hub", |v| v["event"] == "hub" && v["connected"] == true);
    let found = world.run(&[&args[..], &["--json"]].concat()).expect(0);
    assert_eq!(checked(&found.json(), true), 3);
    world
        .run(&["library", "check"])
        .expect(2)
        .says("nobody to ask");
}

#[test]
fn who_shares_the_library_tells_what_comes_and_what_goes() {
    let world = music();
    world.run(&["library", "add", "music"]).expect(0);
    let mut hub = world.start(&["serve", "napster", "--listen", "127.0.0.1:0"]);
    let hub = hub.addr();
    let share = ["napster", "share", "--library", "--hub", &hub];
    let listen = ["--listen", "127.0.0.1:0"];
    let mut sharer = world.start(&[&share[..], &listen, &["--nick", "ann"]].concat());
    sharer.event("hub");
    let node = ["gnutella", "node", "--library", "--ultrapeer"];
    let mut node = world.start(&[&node[..], &listen].concat());
    let at = node.addr();
    // Nobody asked for a scan: who shares it watches its folders.
    world.file("music/a late chorus.ogg", 5000, 9);
    fs::remove_file(world.path("music/shanty.ogg")).expect("removed");
    let sharing = |v: &serde_json::Value| v["event"] == "sharing" && v["files"] == 3;
    let late = |args: &[&str]| {
        let found = world.run(&[args, &["--json"]].concat());
        found
            .json()
            .iter()
            .any(|v| v["file"].as_str().is_some_and(|f| f.contains("late")))
    };
    // The one of the two that scans first tells the other by what it leaves.
    let begun = std::time::Instant::now();
    let hub_find = [
        "find",
        "chorus",
        "--hub",
        &hub,
        "--via",
        "napster",
        "--no-ping",
    ];
    let node_find = [
        "gnutella",
        "find",
        "chorus",
        "--connect",
        &at,
        "--wait",
        "2",
    ];
    let node_find = [&node_find[..], &listen].concat();
    while !(late(&hub_find) && late(&node_find)) {
        assert!(begun.elapsed() < crate::process::LONG, "it is not told");
    }
    sharer.wait_for("three files", sharing);
    node.wait_for("three files", sharing);
    world
        .run(&[
            "find",
            "shanty",
            "--hub",
            &hub,
            "--via",
            "napster",
            "--no-ping",
        ])
        .expect(3);
    // What another command takes out goes too.
    world.run(&["library", "remove", "music"]).expect(0);
    let none = |v: &serde_json::Value| v["event"] == "sharing" && v["files"] == 0;
    sharer.wait_for("nothing", none);
    node.wait_for("nothing", none);
}
