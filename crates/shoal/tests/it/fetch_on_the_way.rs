//! What happens while a file is fetched: others who have it are looked for, and what is there of it is
//! served to who asks.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::process::{LONG, Running, World};

const MIB: usize = 1 << 20;
const LEN: usize = 8 * MIB + 4321;
const NET: [&str; 6] = [
    "--listen",
    "127.0.0.1:0",
    "--no-dht",
    "--no-lsd",
    "--timeout",
    "60",
];

fn start(world: &World, args: &[&str]) -> (Running, String) {
    let mut running = world.start(&[args, &["--listen", "127.0.0.1:0"]].concat());
    let addr = running.addr();
    (running, addr)
}

/// A host that sends no more than `rate` bytes a second; its address, and the file's name and SHA-1.
fn slow_host(world: &World, rate: &str) -> (Running, String, String, String) {
    world.file("one/song.bin", LEN, 3);
    let args = ["gnutella", "serve", "one", "--per-host", "9"];
    let limits = ["--up-limit", rate, "--max-range", "256KiB"];
    let place = ["--state-dir", "slow", "--listen", "127.0.0.1:0"];
    let mut host = world.start(&[&args[..], &limits, &place].concat());
    let urn = host.event("serving")["urn"]
        .as_str()
        .expect("a name")
        .to_owned();
    let hash = urn.strip_prefix("urn:bitprint:").expect("a bitprint");
    let sha1 = format!("urn:sha1:{}", hash.split('.').next().expect("a SHA-1"));
    let addr = host.addr();
    (host, addr, urn, sha1)
}

fn source(addr: &str, sha1: &str) -> String {
    format!("http://{addr}/uri-res/N2R?{sha1}")
}

/// A network of an ultrapeer and a leaf that shares the file, once a search finds it; the ultrapeer's address, and
/// the leaf.
fn network(world: &World, sha1: &str) -> (String, [Running; 2]) {
    fs::create_dir_all(world.path("two")).expect("made");
    fs::copy(world.path("one/song.bin"), world.path("two/song.bin")).expect("copied");
    let up = ["gnutella", "node", "--ultrapeer", "--state-dir", "up"];
    let (ultrapeer, up) = start(world, &up);
    let leaf = ["gnutella", "node", "--leaf", "--connect", &up];
    let share = ["--share", "two", "--state-dir", "leaf"];
    let (leaf, _) = start(world, &[&leaf[..], &share].concat());
    let begun = Instant::now();
    let find = ["gnutella", "find", sha1, "--connect", &up, "--limit", "1"];
    let find = [&find[..], &["--listen", "127.0.0.1:0", "--wait", "3"]].concat();
    while world.run(&find).code != 0 {
        assert!(begun.elapsed() < LONG, "the leaf is not found");
    }
    (up, [leaf, ultrapeer])
}

/// Waits until that much is there.
fn has(running: &mut Running, bytes: usize) {
    running.wait_for("bytes", |v| {
        v["event"].as_str().is_some_and(|e| e.ends_with("progress"))
            && v["bytes_done"].as_u64() >= Some(bytes as u64)
    });
}

/// It ends with all of the file in `dir`; what it told.
#[track_caller]
fn completes(world: &World, running: Running, dir: &str) -> Vec<Value> {
    let (status, events, errors) = running.end();
    assert!(status.success(), "{events:#?} {errors}");
    let got = fs::read(world.path(dir).join("song.bin")).expect("there");
    assert!(got == fs::read(world.path("one/song.bin")).expect("shared"));
    events
}

/// Seeds it as a torrent, slowly; the peer's address, and the link's parameters for it.
fn torrent(world: &World, rate: &str) -> (Running, String) {
    let args = ["share", "one/song.bin", "--up-limit", rate];
    let more = ["--piece-size", "64KiB", "--state-dir", "share"];
    let args = [&args[..], &more, &NET[..4]].concat();
    let mut share = world.start(&args);
    let peer = share.addr();
    let hash = share.event("magnet");
    let hash = hash["info_hash_v1"].as_str().expect("a hash").to_owned();
    (share, format!("xt=urn:btih:{hash}&x.pe={peer}"))
}

fn gnutella_addr(running: &mut Running) -> String {
    let listens = |v: &Value| v["event"] == "listening" && v["proto"] == "gnutella";
    let event = running.wait_for("a port for Gnutella", listens);
    event["addr"].as_str().expect("an address").to_owned()
}

#[test]
fn who_shares_a_file_is_found_while_it_is_fetched() {
    let world = World::new();
    let (mut slow, addr, urn, sha1) = slow_host(&world, "256KiB");
    let (up, [mut leaf, _ultrapeer]) = network(&world, &sha1);
    // The one that is named is soon gone: the rest comes from who was found on the way.
    let named = source(&addr, &sha1);
    let args = ["fetch", &urn, "--source", &named, "--connect", &up];
    let mut fetch = world.start(&[&args[..], &NET, &["--dir", "got"]].concat());
    has(&mut fetch, 1);
    slow.kill();
    completes(&world, fetch, "got");
    assert!(leaf.event("sent")["bytes"].as_u64() > Some(0));
}

#[test]
fn who_shares_a_torrents_file_is_found_while_it_is_fetched() {
    let world = World::new();
    let (host, _, urn, sha1) = slow_host(&world, "256KiB");
    drop(host);
    let (up, [mut leaf, _ultrapeer]) = network(&world, &sha1);
    let (mut peer, link) = torrent(&world, "256KiB");
    let link = format!("magnet:?{link}&xt={urn}&xl={LEN}&dn=song.bin");
    let args = ["fetch", &link, "--connect", &up, "--dir", "got"];
    let mut fetch = world.start(&[&args[..], &NET].concat());
    has(&mut fetch, 1);
    peer.kill();
    let events = completes(&world, fetch, "got");
    let found = |v: &Value| v["event"] == "source" && v["state"] == "known";
    assert!(events.iter().any(found), "{events:#?}");
    assert!(leaf.event("sent")["bytes"].as_u64() > Some(0));
}

#[test]
fn a_second_download_takes_from_the_first_while_that_runs() {
    let world = World::new();
    let (_slow, addr, urn, sha1) = slow_host(&world, "1MiB");
    let named = source(&addr, &sha1);
    let args = ["fetch", &urn, "--source", &named, "--dir", "first"];
    let mut first = world.start(&[&args[..], &NET].concat());
    let at = gnutella_addr(&mut first);
    has(&mut first, MIB);
    // The second knows nobody but the first.
    let part = source(&at, &sha1);
    let args = ["fetch", &urn, "--source", &part, "--dir", "second"];
    let args = [&args[..], &NET, &["--state-dir", "second-state"]].concat();
    let mut second = world.start(&args);
    has(&mut second, MIB);
    assert!(!first.has_ended(), "it was whole already");
    second.kill();
    completes(&world, first, "first");
    // What came from the first is not fetched again.
    let args = ["fetch", &urn, "--source", &named, "--dir", "second"];
    let args = [&args[..], &NET, &["--state-dir", "second-state"]].concat();
    let events = completes(&world, world.start(&args), "second");
    let complete = events.iter().find(|v| v["event"] == "file_complete");
    let again = complete.expect("one")["downloaded"].as_u64();
    assert!(
        again.expect("a number") <= (LEN - MIB + 65_536) as u64,
        "{again:?}"
    );
}

#[test]
fn what_is_there_of_a_torrent_is_served_by_its_files_hash() {
    let world = World::new();
    let (host, _, urn, sha1) = slow_host(&world, "1MiB");
    drop(host);
    let (_peer, link) = torrent(&world, "512KiB");
    let link = format!("magnet:?{link}&xt={urn}&xl={LEN}&dn=song.bin");
    // In order: without a tree the second takes whole MiBs alone.
    let args = ["fetch", &link, "--dir", "first", "--sequential"];
    let mut first = world.start(&[&args[..], &NET].concat());
    let at = gnutella_addr(&mut first);
    has(&mut first, MIB);
    let args = ["gnutella", "fetch", &sha1, "--from", &at, "--dir", "second"];
    let mut second = world.start(&[&args[..], &["--timeout", "60"]].concat());
    has(&mut second, MIB);
    assert!(!first.has_ended(), "it was whole already");
    drop(second);
    completes(&world, first, "first");
}

#[test]
fn a_file_is_fetched_by_its_tigers_root_alone() {
    let world = World::new();
    let (_slow, addr, urn, sha1) = slow_host(&world, "100MiB");
    let root = urn.split('.').nth(1).expect("a root");
    let tree = format!("urn:tree:tiger:{root}");
    // From a host that is named, by its tree's root or by what it calls the file itself.
    let by_tree = source(&addr, &tree);
    let args = ["fetch", &tree, "--source", &by_tree, "--dir", "named"];
    completes(&world, world.start(&[&args[..], &NET].concat()), "named");
    let args = ["gnutella", "fetch", &tree, "--from", &addr];
    let args = [&args[..], &["--dir", "from", "--timeout", "60"]].concat();
    completes(&world, world.start(&args), "from");
    // From whom a search by it finds.
    let (up, _network) = network(&world, &sha1);
    let args = ["fetch", &tree, "--connect", &up, "--dir", "found"];
    completes(&world, world.start(&[&args[..], &NET].concat()), "found");
    let link = format!("magnet:?xt={tree}&dn=song.bin");
    let args = [
        "gnutella",
        "fetch",
        &tree,
        "--connect",
        &up,
        "--dir",
        "node",
    ];
    let listen = ["--listen", "127.0.0.1:0", "--timeout", "60"];
    completes(&world, world.start(&[&args[..], &listen].concat()), "node");
    // Another file is none of its parts.
    let other = format!("urn:tree:tiger:{}", "A".repeat(39));
    let args = ["gnutella", "fetch", &other, "--from", &addr];
    world.run(&args).expect(3);
    world
        .run(&["fetch", &link, "--dir", "nowhere"])
        .expect(3)
        .says("nobody is known");
}
