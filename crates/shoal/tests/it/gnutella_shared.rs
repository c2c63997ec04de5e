//! What a node of Gnutella shares: by whom it can be had, from the library, and how fast.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha1::{Digest, Sha1};
use shoal_gnutella::huge::Urn;

use crate::process::{LONG, Running, World};

const MIB: usize = 1 << 20;

/// A node that runs, and where it listens.
fn node(world: &World, state: &str, more: &[&str]) -> (Running, String) {
    let mut args = vec!["gnutella", "node", "--listen", "127.0.0.1:0"];
    args.extend(["--stats-interval", "1", "--state-dir", state]);
    args.extend(more);
    let mut running = world.start(&args);
    let addr = running.addr();
    (running, addr)
}

/// A folder with one file; its bytes, and its name by its SHA-1.
fn song(world: &World, len: usize) -> (Vec<u8>, String) {
    fs::create_dir(world.path("music")).expect("made");
    let bytes = fs::read(world.file("music/a song.ogg", len, 3)).expect("read");
    let urn = Urn::Sha1(Sha1::digest(&bytes).into()).to_string();
    (bytes, urn)
}

/// Waits until a search by hash finds somebody: its table must have come first.
fn is_found(world: &World, urn: &str, at: &str) -> Value {
    let begun = Instant::now();
    loop {
        let mut args = vec!["gnutella", "find", urn, "--json", "--limit", "1"];
        args.extend(["--wait", "5", "--listen", "127.0.0.1:0", "--connect", at]);
        let hits = world.run(&args).json();
        if let Some(hit) = hits.into_iter().find(|v| v["event"] == "gnutella_hit") {
            return hit;
        }
        assert!(begun.elapsed() < LONG, "{urn} is not found");
    }
}

#[track_caller]
fn completes(world: &World, running: Running, dir: &str, bytes: &[u8]) {
    let (status, events, errors) = running.end();
    assert!(status.success(), "{status}: {events:#?} {errors}");
    let got = fs::read(world.path(format!("{dir}/a song.ogg")));
    assert!(got.expect("there") == bytes, "other bytes");
}

#[test]
fn a_sharer_that_nobody_reaches_is_pushed_by_whoever_fetches() {
    let world = World::new();
    let (bytes, urn) = song(&world, 700_000);
    let (_up, up) = node(&world, "up", &["--ultrapeer"]);
    let share = ["--firewalled", "--share", "music", "--connect", &up];
    let (_leaf, _) = node(&world, "leaf", &share);
    let hit = is_found(&world, &urn, &up);
    assert_eq!(hit["firewalled"], true, "{hit}");

    let mut args = vec!["gnutella", "fetch", &urn, "--connect", &up, "--dir", "one"];
    args.extend(["--listen", "127.0.0.1:0", "--timeout", "60"]);
    completes(&world, world.start(&args), "one", &bytes);

    // By the push proxies alone, which the answer names.
    let link = format!("magnet:?xt={urn}&dn=a+song.ogg&xl={}", bytes.len());
    let mut args = vec!["fetch", &link, "--connect", &up, "--dir", "two"];
    args.extend(["--listen", "127.0.0.1:0", "--state-dir", "fetching"]);
    completes(&world, world.start(&args), "two", &bytes);
}

#[test]
fn a_node_shares_the_library_and_no_faster_than_it_may() {
    let world = World::new();
    let (bytes, urn) = song(&world, 3 * MIB);
    let add = ["library", "add", "music", "--state-dir", "state"];
    world.run(&add).expect(0);
    let share = ["--ultrapeer", "--library", "--up-limit", "1MiB"];
    let (_node, addr) = node(&world, "state", &share);
    assert_eq!(is_found(&world, &urn, &addr)["file"], "a song.ogg");
    let begun = Instant::now();
    let mut args = vec!["gnutella", "fetch", &urn, "--from", &addr, "--dir", "got"];
    args.extend(["--timeout", "60"]);
    completes(&world, world.start(&args), "got", &bytes);
    // What may go at once does; the rest takes its time.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1500), "{took:?}");
}
