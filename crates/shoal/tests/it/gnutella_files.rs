//! `shoal gnutella serve` and `fetch` between processes on loopback.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use crate::process::{Running, World};

const MIB: usize = 1 << 20;
/// Answers this short make a transfer of many, so that there is time to interfere.
const SHORT: [&str; 2] = ["--max-range", "64KiB"];

/// Serves a folder; the process, its address, and the SHA-1 of its only file.
fn serve(world: &World, dir: &str, more: &[&str]) -> (Running, String, String) {
    let state = format!("state-{dir}");
    let mut args = vec!["gnutella", "serve", dir, "--listen", "127.0.0.1:0"];
    args.extend(["--per-host", "9", "--state-dir", &state]);
    args.extend(more);
    let mut running = world.start(&args);
    let urn = running.event("serving")["urn"]
        .as_str()
        .expect("a name")
        .to_owned();
    let sha1 = urn.strip_prefix("urn:bitprint:").expect("a bitprint");
    let sha1 = format!("urn:sha1:{}", sha1.split('.').next().expect("a SHA-1"));
    let addr = running.addr();
    (running, addr, sha1)
}

fn fetch<'a>(urn: &'a str, from: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["gnutella", "fetch", urn, "--timeout", "60"];
    for addr in from {
        args.extend(["--from", addr]);
    }
    args.extend(more);
    args
}

/// The same file in two folders.
fn twice(world: &World, len: usize) -> Vec<u8> {
    let path = world.file("one/a song.mp3", len, 7);
    fs::create_dir(world.path("two")).expect("a folder");
    fs::copy(&path, world.path("two/a song.mp3")).expect("copied");
    fs::read(path).expect("read")
}

/// Changes a byte.
fn corrupt(file: &mut File, at: u64) {
    file.seek(SeekFrom::Start(at)).expect("moved");
    let mut byte = [0];
    file.read_exact(&mut byte).expect("read");
    file.seek(SeekFrom::Start(at)).expect("moved");
    file.write_all(&[!byte[0]]).expect("written");
}

fn all<'v>(events: &'v [Value], name: &str) -> Vec<&'v Value> {
    events.iter().filter(|v| v["event"] == name).collect()
}

/// A fetch runs to its end with success; its events.
#[track_caller]
fn completes(running: Running) -> Vec<Value> {
    let (status, events, errors) = running.end();
    assert!(status.success(), "{status}: {events:#?} {errors}");
    assert_eq!(all(&events, "file_complete").len(), 1);
    events
}

#[test]
fn a_corrupt_host_among_two_is_found_by_the_tree_and_dropped() {
    let world = World::new();
    let bytes = twice(&world, 8 * MIB + 12_345);
    let (_one, good, urn) = serve(&world, "one", &SHORT);
    let (_two, bad, same) = serve(&world, "two", &SHORT);
    assert_eq!(urn, same);
    let path = world.path("two/a song.mp3");
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = file.expect("opened");
    let modified = file.metadata().expect("there").modified().expect("known");
    // Every other piece: a host is dropped after two.
    for at in (0..8 * MIB as u64).step_by(131_072) {
        corrupt(&mut file, at + 99);
    }
    // The file looks as it did: only its bytes tell.
    file.set_modified(modified).expect("set");
    let args = fetch(&urn, &[&bad, &good], &["--dir", "got"]);
    let events = completes(world.start(&args));
    let known = all(&events, "file_known");
    assert_eq!(known[0]["piece_length"], 65_536);
    assert!(known[0]["tree"].is_string(), "{known:?}");
    let banned = all(&events, "source_banned");
    assert_eq!(banned.len(), 1, "{events:#?}");
    assert_eq!(banned[0]["addr"], bad.as_str());
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        bytes
    );
}

#[test]
fn a_host_that_dies_is_made_up_for_by_the_other() {
    let world = World::new();
    let bytes = twice(&world, 24 * MIB);
    let (mut one, first, urn) = serve(&world, "one", &SHORT);
    let (_two, second, _) = serve(&world, "two", &SHORT);
    let running = world.start(&fetch(&urn, &[&first, &second], &["--dir", "got"]));
    one.event("sent");
    one.event("sent");
    one.kill();
    let events = completes(running);
    let failed = all(&events, "source_failed");
    assert!(
        failed.iter().any(|v| v["addr"] == first.as_str()),
        "{events:#?}"
    );
    assert_eq!(all(&events, "source_banned"), [] as [&Value; 0]);
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        bytes
    );
}

#[test]
fn more_downloaders_than_slots_wait_in_a_queue_and_are_served() {
    let world = World::new();
    let bytes = twice(&world, 6 * MIB);
    let queue = ["--slots", "1", "--poll", "1s", "--max-range", "64KiB"];
    let (_one, addr, urn) = serve(&world, "one", &queue);
    let names = ["first", "second", "third"];
    let running: Vec<_> = names
        .iter()
        .map(|dir| world.start(&fetch(&urn, &[&addr], &["--dir", dir])))
        .collect();
    let mut queued = 0;
    for running in running {
        let events = completes(running);
        let places = all(&events, "source_queued");
        assert!(places.iter().all(|v| v["position"].is_u64()), "{places:?}");
        queued += places.len();
    }
    assert!(queued > 0, "nobody had to wait");
    for dir in names {
        let got = fs::read(world.path(format!("{dir}/a song.mp3")));
        assert_eq!(got.expect("there"), bytes);
    }
}

#[test]
fn a_sharer_behind_a_firewall_connects_to_the_downloader() {
    let world = World::new();
    let bytes = twice(&world, 3 * MIB);
    // Its own SHA-1 has to be known beforehand.
    let (server, _, urn) = serve(&world, "one", &[]);
    drop(server);
    let listen = ["--dir", "got", "--listen", "127.0.0.1:0"];
    let mut running = world.start(&fetch(&urn, &[], &listen));
    let addr = running.addr();
    let (mut server, _, _) = serve(&world, "two", &["--give", &addr]);
    let events = completes(running);
    assert_eq!(all(&events, "source_banned").len(), 0);
    assert_eq!(server.event("sent")["whole"], true);
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        bytes
    );
}

#[test]
fn a_fetch_that_was_killed_goes_on_where_it_was() {
    let world = World::new();
    let bytes = twice(&world, 24 * MIB);
    let (_one, addr, urn) = serve(&world, "one", &SHORT);
    let args = fetch(&urn, &[&addr], &["--dir", "got"]);
    let mut running = world.start(&args);
    let progress = running.wait_for("progress", |v| {
        v["event"] == "file_progress" && v["bytes_done"].as_u64() > Some(MIB as u64)
    });
    running.kill();
    let done = progress["bytes_done"].as_u64().expect("a number");
    let events = completes(world.start(&args));
    let complete = all(&events, "file_complete")[0];
    let again = complete["downloaded"].as_u64().expect("a number");
    assert!(
        again + done <= bytes.len() as u64 + 65_536,
        "{done} were there, {again} came"
    );
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        bytes
    );
}

#[test]
fn another_file_of_the_name_stays_and_what_is_not_there_is_told() {
    let world = World::new();
    let bytes = twice(&world, 100_000);
    let (_one, addr, urn) = serve(&world, "one", &[]);
    fs::create_dir(world.path("got")).expect("a folder");
    fs::write(world.path("got/a song.mp3"), "mine").expect("written");
    let events = completes(world.start(&fetch(&urn, &[&addr], &["--dir", "got"])));
    let path = all(&events, "file_complete")[0]["path"]
        .as_str()
        .expect("a path");
    assert_eq!(fs::read(path).expect("there"), bytes);
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        b"mine"
    );
    let other = "urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB";
    world
        .run(&fetch(other, &[&addr], &[]))
        .expect(3)
        .says("answers 404");
    world.run(&fetch(other, &[], &[])).expect(2).says("--from");
    world.run(&fetch("urn:sha1:x", &[&addr], &[])).expect(2);
}

/// A host that knows nothing of hash trees.
fn plain_host(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let addr = listener.local_addr().expect("bound");
    let bytes = Arc::new(bytes);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || answer(stream, &bytes));
        }
    });
    addr
}

/// Answers requests for ranges, in parts that no piece fits.
fn answer(mut stream: TcpStream, bytes: &[u8]) -> Option<()> {
    let mut buf = Vec::new();
    loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).ok().filter(|n| *n > 0)?;
        buf.extend_from_slice(&part[..n]);
        if !buf.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut buf)).into_owned();
        let range = head
            .split("bytes=")
            .nth(1)?
            .split("\r\n")
            .next()?
            .to_owned();
        let (from, to) = range.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to: usize = to
            .parse::<usize>()
            .ok()?
            .min(bytes.len() - 1)
            .min(from + 99_999);
        let head = format!(
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {from}-{to}/{}\r\nContent-Length: {}\r\n\r\n",
            bytes.len(),
            to + 1 - from
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&bytes[from..=to]).ok()?;
    }
}

#[test]
fn without_a_tree_the_liar_is_found_at_the_end() {
    let world = World::new();
    let bytes = twice(&world, 6 * MIB);
    let (mut server, _, urn) = serve(&world, "one", &[]);
    let serving = server.seen.iter().find(|v| v["event"] == "serving");
    let tree = serving.expect("it serves")["urn"]
        .as_str()
        .expect("a name")
        .to_owned();
    server.kill();
    let mut wrong = bytes.clone();
    for at in (0..wrong.len()).step_by(100_000) {
        wrong[at] ^= 1;
    }
    let hosts = [
        plain_host(wrong),
        plain_host(bytes.clone()),
        plain_host(bytes.clone()),
    ];
    let hosts = hosts.map(|addr| addr.to_string());
    let from: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let events = completes(world.start(&fetch(&urn, &from, &["--dir", "got", "--name", "x"])));
    assert_eq!(all(&events, "file_known")[0]["tree"], Value::Null);
    let banned = all(&events, "source_banned");
    assert_eq!(banned.len(), 1, "{events:#?}");
    assert_eq!(banned[0]["addr"], hosts[0].as_str());
    assert_eq!(fs::read(world.path("got/x")).expect("there"), bytes);
    // By the root of its tree, which no host serves, it is found out the same way.
    let tree = tree.split_once('.').expect("a root").1;
    let tree = format!("urn:tree:tiger:{tree}");
    let again = fetch(&tree, &from, &["--dir", "tree", "--name", "x"]);
    let events = completes(world.start(&again));
    let banned = all(&events, "source_banned");
    assert_eq!(banned.len(), 1, "{events:#?}");
    assert_eq!(banned[0]["addr"], hosts[0].as_str());
    assert_eq!(fs::read(world.path("tree/x")).expect("there"), bytes);
    // Alone it is told to be wrong.
    let alone = fetch(&urn, &from[..1], &["--dir", "alone", "--name", "x"]);
    world.run(&alone).expect(1).says("not the file");
}

#[test]
fn an_empty_file_and_a_tree_that_the_user_names() {
    let world = World::new();
    fs::create_dir(world.path("one")).expect("a folder");
    File::create(world.path("one/empty")).expect("made");
    let (_one, addr, urn) = serve(&world, "one", &[]);
    let tree = "urn:tree:tiger:LWPNACQDBZRYXW3VHJVCJ64QBZNGHOHHHZWCLNQ";
    let more = ["--dir", "got", "--tree", tree];
    completes(world.start(&fetch(&urn, &[&addr], &more)));
    assert_eq!(fs::read(world.path("got/empty")).expect("there"), b"");
}

#[test]
fn a_node_of_the_overlay_serves_what_it_shares() {
    let world = World::new();
    let bytes = twice(&world, 2 * MIB);
    let (server, _, urn) = serve(&world, "one", &[]);
    drop(server);
    let share = ["gnutella", "node", "--share", "one", "--state-dir", "node"];
    let mut node = world.start(&[&share[..], &["--listen", "127.0.0.1:0"]].concat());
    let addr = node.addr();
    completes(world.start(&fetch(&urn, &[&addr], &["--dir", "got"])));
    assert_eq!(
        fs::read(world.path("got/a song.mp3")).expect("there"),
        bytes
    );
    assert_eq!(node.event("sent")["whole"], true);
    // By its number, as older programs ask.
    let mut stream = TcpStream::connect(&addr).expect("the node listens");
    stream
        .write_all(b"HEAD /get/0/whatever HTTP/1.0\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains(&urn),
        "{answer}"
    );
}
