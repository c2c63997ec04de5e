//! `shoal fetch` from who cannot be connected to: a Gnutella leaf that is called through its
//! ultrapeer, and a user of a Napster hub that is asked to connect.

use std::fs;
use std::time::Instant;

use shoal_content::Magnet;

use crate::process::{LONG, Running, World};

const LEN: usize = 3_000_000;

fn start(world: &World, args: &[&str]) -> (Running, String) {
    let mut running = world.start(&[args, &["--listen", "127.0.0.1:0"]].concat());
    let addr = running.addr();
    (running, addr)
}

/// The link of what is found, once it is.
fn find(world: &World, args: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        let ran = world.run(&[&["find", "song", "--json"], args].concat());
        let mut hits = ran.json().into_iter();
        if let Some(hit) = hits.find(|v| v["event"] == "found") {
            return hit["link"].as_str().expect("a link").to_owned();
        }
        assert!(begun.elapsed() < LONG, "nothing is found: {}", ran.stderr);
    }
}

/// A `.torrent` file of what is shared.
fn torrent(world: &World) {
    let args = [
        "torrent",
        "create",
        "shared/song.bin",
        "--piece-size",
        "64KiB",
    ];
    world.run(&args).expect(0);
}

fn fetch(world: &World, what: &[&str], dir: &str) {
    let net = ["--listen", "127.0.0.1:0", "--no-dht", "--no-lsd"];
    let args = [&["fetch"], what, &["--timeout", "60", "--dir", dir], &net].concat();
    world.run(&args).expect(0);
    let got = fs::read(world.path(dir).join("song.bin")).expect("there");
    assert!(got == fs::read(world.path("shared/song.bin")).expect("shared"));
}

fn source(link: &str, scheme: &str) -> String {
    let magnet: Magnet = link.parse().expect("a link");
    let mut all = magnet.sources.iter().map(ToString::to_string);
    let found = all.find(|source| source.starts_with(scheme));
    found.unwrap_or_else(|| panic!("no {scheme} in {link}"))
}

#[test]
fn a_gnutella_leaf_is_called_through_its_ultrapeer() {
    let world = World::new();
    fs::create_dir(world.path("shared")).expect("made");
    world.file("shared/song.bin", LEN, 1);
    let state = ["--state-dir", "up"];
    let (_up, up) = start(
        &world,
        &[&["gnutella", "node", "--ultrapeer"], &state[..]].concat(),
    );
    let hidden = [
        "gnutella",
        "node",
        "--leaf",
        "--firewalled",
        "--connect",
        &up,
    ];
    let more = ["--share", "shared", "--state-dir", "hidden"];
    let (_hidden, _) = start(&world, &[&hidden[..], &more].concat());
    let link = find(
        &world,
        &["--connect", &up, "--listen", "127.0.0.1:0", "--wait", "5"],
    );
    let who = source(&link, "gnutella://");
    // By the file's own hash, and by a torrent's pieces.
    fetch(&world, &["1"], "got");
    torrent(&world);
    fetch(&world, &["song.bin.torrent", "--source", &who], "again");
}

#[test]
fn a_napster_user_brings_what_it_is_asked_for() {
    let world = World::new();
    fs::create_dir(world.path("shared")).expect("made");
    world.file("shared/song.bin", LEN, 1);
    let (_hub, hub) = start(&world, &["serve", "napster"]);
    let args = [
        "napster",
        "share",
        "shared",
        "--hub",
        &hub,
        "--nick",
        "bob",
        "--firewalled",
    ];
    let mut bob = world.start(&args);
    bob.wait_for("a hub", |v| v["event"] == "hub" && v["connected"] == true);
    let link = find(&world, &["--hub", &hub]);
    let who = source(&link, "napster://");
    torrent(&world);
    fetch(&world, &["song.bin.torrent", "--source", &who], "got");
}

/// A network in which the one who shares is behind a firewall and names no proxy: an ultrapeer that nobody can
/// connect to. Where to join it.
fn hidden_ultrapeer(world: &World) -> (String, [Running; 2]) {
    world.file("shared/song.bin", LEN, 1);
    let (middle, up) = start(
        world,
        &["gnutella", "node", "--ultrapeer", "--state-dir", "up"],
    );
    let hidden = ["gnutella", "node", "--ultrapeer", "--firewalled"];
    let more = ["--connect", &up, "--share", "shared", "--state-dir", "hid"];
    let (hidden, _) = start(world, &[&hidden[..], &more].concat());
    (up, [middle, hidden])
}

#[test]
fn who_names_no_proxy_is_called_by_the_way_of_its_answer() {
    let world = World::new();
    let (up, _nodes) = hidden_ultrapeer(&world);
    let listen = ["--listen", "127.0.0.1:0"];
    let net = [&["--connect", &up, "--wait", "5"][..], &listen].concat();
    let link = find(&world, &net);
    let magnet: Magnet = link.parse().expect("a link");
    assert!(magnet.sources.is_empty(), "it names a proxy: {link}");
    let urn = magnet.urn().expect("a name").to_string();
    fetch(&world, &[&urn, "--connect", &up], "got");
    torrent(&world);
    let metainfo = fs::read(world.path("song.bin.torrent")).expect("made");
    let metainfo = shoal_content::Metainfo::parse(&metainfo).expect("a torrent");
    let btih = shoal_base::id::to_hex(&metainfo.info.info_hash().0);
    // Its metadata come from somebody who has nothing of it.
    let (_peer, at) = start(
        &world,
        &[
            "fetch",
            "song.bin.torrent",
            "--dir",
            "none",
            "--no-dht",
            "--no-lsd",
            "--state-dir",
            "none",
        ],
    );
    let link = format!("magnet:?xt=urn:btih:{btih}&xt={urn}&x.pe={at}&xl={LEN}");
    fetch(&world, &[&link, "--connect", &up], "again");
}
