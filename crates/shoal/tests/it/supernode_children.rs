//! OpenNap clients as children of a supernode, and what a Gnutella network finds of its children: real
//! processes.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::process::{LONG, Running};
use crate::supernode::{Node, Overlay, home};

/// A supernode that is a hub for OpenNap clients too, and where.
fn hub(overlay: &Overlay) -> (Node, String) {
    let args = ["--supernode", "--keep-role", "--napster", "127.0.0.1:0"];
    let mut node = overlay.node("hub", &args);
    let at = node.run.wait_for("the hub's address", |v| {
        v["event"] == "listening" && v["proto"] == "napster"
    });
    let at = at["addr"].as_str().expect("an address").to_owned();
    (node, at)
}

/// An OpenNap client that shares a folder.
fn sharer(overlay: &Overlay, hub: &str, nick: &str, folder: &str) -> Running {
    let args = ["napster", "share", folder, "--hub", hub, "--nick", nick];
    let args = [&args[..], &["--listen", "127.0.0.1:0"]].concat();
    let mut running = overlay.world.start(&args);
    running.wait_for("the hub", |v| v["event"] == "hub" && v["connected"] == true);
    running
}

#[test]
fn an_opennap_client_is_a_child_whose_file_any_peer_fetches() {
    let overlay = Overlay::new();
    let (mut node, at) = hub(&overlay);
    let other = overlay.supernodes(1).pop().expect("one");
    node.run.wait_for("a neighbour", |v| {
        v["event"] == "supernode_stats" && v["neighbours"] == 1
    });
    let bytes = overlay.world.file("ann/sea/an old shanty.mp3", 300_000, 4);
    let mut ann = sharer(&overlay, &at, "ann", "ann");
    // It is fetched from its sharer when it is asked for: the first question may come too early.
    let begun = Instant::now();
    let hit = loop {
        let find = ["supernode", "find", "old", "shanty", "--login", &overlay.at];
        let find = [&find[..], &["--limit", "1", "--json"]].concat();
        let found = overlay.world.run(&find).json().into_iter();
        if let Some(hit) = found.into_iter().find(|v| v["event"] == "supernode_hit") {
            break hit;
        }
        assert!(begun.elapsed() < LONG, "not found");
    };
    assert_eq!(
        (&hit["sharer"], &hit["bytes"]),
        (&"hub".into(), &300_000.into())
    );
    let mirrored = node.run.event("mirrored");
    assert_eq!(mirrored["nick"], "ann");
    let (status, events, errors) = overlay.fetch(&["old", "shanty"]).end();
    assert!(status.success(), "{events:#?} {errors}");
    let got = fs::read(overlay.world.path("got/an old shanty.mp3")).expect("there");
    assert_eq!(got, fs::read(&bytes).expect("read"));
    let up = ann.event("uploaded");
    assert_eq!(
        (&up["bytes"], &up["whole"]),
        (&300_000.into(), &true.into())
    );
    // When its sharer is gone it is found no more.
    ann.kill();
    let begun = Instant::now();
    loop {
        let find = ["supernode", "find", "old", "shanty", "--login", &overlay.at];
        let found = overlay
            .world
            .run(&[&find[..], &["--wait", "1", "--json"]].concat());
        if !found.json().iter().any(|v| v["event"] == "supernode_hit") {
            break;
        }
        assert!(begun.elapsed() < LONG, "still found");
    }
    drop(other);
}

#[test]
fn an_opennap_client_finds_and_fetches_what_the_overlay_has() {
    let overlay = Overlay::new();
    let (mut node, at) = hub(&overlay);
    let other = overlay.supernodes(1).pop().expect("one");
    node.run.wait_for("a neighbour", |v| {
        v["event"] == "supernode_stats" && v["neighbours"] == 1
    });
    let bytes = overlay.world.file("far/a far away tune.mp3", 700_000, 5);
    // Frames of 128 kbit/s at 44,100 Hz: 417 bytes each.
    let mut frame = vec![0xff, 0xfb, 0x90, 0x00];
    frame.resize(417, 0);
    let song = frame.repeat(400);
    fs::write(overlay.world.path("far/a loud march.mp3"), song).expect("written");
    let mut far = overlay.node_with("far", &["--share", "far"]);
    let _ = home(&mut far);
    let find = ["find", "tune", "--hub", &at, "--via", "napster", "--json"];
    let found = overlay.world.run(&find).expect(0).json();
    let found: Vec<&Value> = found.iter().filter(|v| v["event"] == "found").collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    // What its sharer says of its sound bounds it, as of a hub's own files.
    let march = ["find", "march", "--hub", &at, "--via", "napster", "--json"];
    let at_least = |rate| [&march[..], &["--min-bitrate", rate]].concat();
    let found = overlay.world.run(&at_least("128")).expect(0).json();
    let found = found.iter().find(|v| v["event"] == "found");
    assert_eq!(found.expect("one")["bitrate"], 128);
    overlay.world.run(&at_least("129")).expect(3);
    // So it does in the overlay itself, with how its sharer stands.
    let find = ["supernode", "find", "march", "--login", &overlay.at];
    let hits = overlay
        .world
        .run(&[&find[..], &["--wait", "3", "--json"]].concat());
    let hits = hits.json();
    let hit = hits.iter().find(|v| v["event"] == "supernode_hit");
    let hit = hit.expect("one");
    assert_eq!(
        (&hit["bitrate"], &hit["duration_s"]),
        (&128.into(), &10.into())
    );
    assert_eq!((&hit["free"], &hit["waiting"]), (&4.into(), &0.into()));
    let out = ["--dir", "out", "--json"];
    // What the supernode itself shares is there too.
    for (words, file, whole) in [
        (
            "far tune",
            "out/a far away tune.mp3",
            fs::read(bytes).expect("read"),
        ),
        (
            "song of hub",
            "out/song of hub.ogg",
            fs::read(overlay.world.path("share-hub/song of hub.ogg")).expect("read"),
        ),
    ] {
        let fetch = ["napster", "fetch", words, "--hub", &at];
        overlay.world.run(&[&fetch[..], &out].concat()).expect(0);
        assert_eq!(fs::read(overlay.world.path(file)).expect("there"), whole);
        node.run.event("lent");
    }
    // A part that is there already is not fetched again, but for its end.
    let whole = fs::read(overlay.world.path("out/a far away tune.mp3")).expect("there");
    fs::remove_file(overlay.world.path("out/a far away tune.mp3")).expect("removed");
    fs::write(
        overlay.world.path("out/a far away tune.mp3.part"),
        &whole[..400_000],
    )
    .expect("written");
    let fetch = ["napster", "fetch", "far tune", "--hub", &at];
    overlay.world.run(&[&fetch[..], &out].concat()).expect(0);
    let got = fs::read(overlay.world.path("out/a far away tune.mp3")).expect("there");
    assert_eq!(got, whole);
    drop(other);
}

#[test]
fn a_gnutella_network_finds_and_fetches_what_a_supernodes_children_share() {
    let overlay = Overlay::new();
    let args = ["--supernode", "--keep-role", "--gnutella", "127.0.0.1:0"];
    // It tells its place in the Gnutella network first.
    let both = overlay.node("both", &args);
    let bytes = overlay.world.file("kid/a small lullaby.ogg", 200_000, 6);
    let mut kid = overlay.node_with("kid", &["--share", "kid"]);
    let _ = home(&mut kid);
    let begun = Instant::now();
    let hit = loop {
        let find = [
            "gnutella", "find", "small", "lullaby", "--json", "--limit", "1",
        ];
        let more = [
            "--wait",
            "5",
            "--listen",
            "127.0.0.1:0",
            "--connect",
            &both.addr,
        ];
        let found = overlay.world.run(&[&find[..], &more].concat()).json();
        let mut hits = found.into_iter().filter(|v| v["event"] == "gnutella_hit");
        if let Some(hit) = hits.next() {
            break hit;
        }
        assert!(begun.elapsed() < LONG, "not found");
    };
    assert_eq!(hit["addr"], kid.addr, "the hit names the child: {hit}");
    let urn = hit["urn"].as_str().expect("its hash");
    let fetch = [
        "gnutella",
        "fetch",
        urn,
        "--from",
        &kid.addr,
        "--timeout",
        "60",
    ];
    let fetch = [&fetch[..], &["--dir", "got"]].concat();
    overlay.world.run(&fetch).expect(0);
    let got = fs::read(overlay.world.path("got/a small lullaby.ogg")).expect("there");
    assert_eq!(got, fs::read(bytes).expect("read"));
}
