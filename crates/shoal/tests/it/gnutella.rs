//! `shoal gnutella`: ultrapeers and leaves as real processes, searches by word and by content,
//! neighbours that die and come back.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use sha1::{Digest, Sha1};
use shoal_gnutella::huge::Urn;

use crate::process::{LONG, Running, World};

/// A node, and where it listens.
fn node(world: &World, state: &str, more: &[&str]) -> (Running, String) {
    let mut args = vec![
        "gnutella",
        "node",
        "--stats-interval",
        "1",
        "--state-dir",
        state,
    ];
    if !more.contains(&"--listen") {
        args.extend(["--listen", "127.0.0.1:0"]);
    }
    args.extend(more);
    let mut running = world.start(&args);
    let addr = running.addr();
    (running, addr)
}

fn has_neighbours(node: &mut Running, ultrapeers: u64, leaves: u64) {
    node.wait_for("its neighbours", |v| {
        v["event"] == "gnutella_stats"
            && v["ultrapeers"].as_u64() >= Some(ultrapeers)
            && v["leaves"].as_u64() >= Some(leaves)
    });
}

#[test]
fn who_is_let_go_hears_why_while_it_still_sends() {
    let world = World::new();
    let (_node, at) = node(&world, "up", &["--ultrapeer"]);
    let mut stream = TcpStream::connect(&at).expect("it listens");
    let head = "GNUTELLA CONNECT/0.6\r\nX-Ultrapeer: True\r\nX-Query-Routing: 0.2\r\nBye-Packet: 0.1\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1);
        got.push(byte[0]);
    }
    stream
        .write_all(b"GNUTELLA/0.6 200 OK\r\n\r\n")
        .expect("sent");
    // Queries without a text, far more than it bears, and some that it never reads.
    let mut nonsense = Vec::new();
    for n in 0..60_000_u32 {
        nonsense.extend_from_slice(&[n.to_le_bytes(); 4].concat());
        nonsense.extend_from_slice(&[0x80, 1, 0, 2, 0, 0, 0, 0, 0]);
    }
    let mut writer = stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || writer.write_all(&nonsense));
    let mut heard = Vec::new();
    stream
        .read_to_end(&mut heard)
        .expect("an end, and no reset");
    // Of too many queries, or of too many malformed messages: whichever it sees first.
    let why = b"Too many ";
    let bye = heard.windows(why.len()).any(|part| part == why);
    assert!(bye, "no Bye in {:?}", String::from_utf8_lossy(&heard));
    drop(stream);
    let _ = sending.join();
}

/// What a search finds; asked again until the nodes' tables have gone around.
fn find(world: &World, words: &[&str], at: &str) -> Value {
    let begun = Instant::now();
    loop {
        let mut args = vec!["gnutella", "find", "--json", "--limit", "1", "--wait", "5"];
        args.extend(["--listen", "127.0.0.1:0", "--connect", at]);
        args.extend(words);
        let ran = world.run(&args);
        if let Some(hit) = ran
            .json()
            .into_iter()
            .find(|v| v["event"] == "gnutella_hit")
        {
            return hit;
        }
        assert!(begun.elapsed() < LONG, "{words:?} is not found");
    }
}

#[test]
fn what_a_leaf_shares_is_found_three_ultrapeers_away_before_and_after_one_died() {
    let world = World::new();
    fs::create_dir(world.path("music")).expect("made");
    let song = world.file("music/Sea Shanty (live).ogg", 50_000, 1);
    world.file("music/other.txt", 10, 2);
    let (mut near, near_addr) = node(&world, "near", &["--ultrapeer"]);
    let middle = ["--ultrapeer", "--connect", &near_addr];
    let (mut between, between_addr) = node(&world, "between", &middle);
    let last = [
        "--ultrapeer",
        "--max-ultrapeers",
        "1",
        "--connect",
        &between_addr,
    ];
    let (mut far, far_addr) = node(&world, "far", &last);
    // Without answers out of band: the way through the ultrapeers is what is seen here.
    let share = [
        "--no-oob",
        "--share",
        "music",
        "--max-ultrapeers",
        "1",
        "--connect",
        &far_addr,
    ];
    let (mut leaf, leaf_addr) = node(&world, "leaf", &share);
    has_neighbours(&mut leaf, 1, 0);
    has_neighbours(&mut far, 1, 1);
    has_neighbours(&mut near, 1, 0);

    let hit = find(&world, &["shanty", "sea"], &near_addr);
    assert_eq!(hit["file"], "Sea Shanty (live).ogg");
    assert_eq!(
        (&hit["addr"], &hit["bytes"]),
        (&leaf_addr.as_str().into(), &50_000.into())
    );
    assert_eq!(hit["hops"], 4, "{hit}");
    let sha1 = Sha1::digest(fs::read(song).expect("read"));
    let urn = Urn::Sha1(sha1.into()).to_string();
    let hit = find(&world, &[&urn], &near_addr);
    assert_eq!(hit["file"], "Sea Shanty (live).ogg");
    let told = hit["urn"].as_str().expect("a name");
    assert!(told.starts_with(&urn.replace("sha1", "bitprint")), "{told}");

    // The one between dies without a word, and comes back where it was.
    between.kill();
    let again = [
        "--ultrapeer",
        "--connect",
        &near_addr,
        "--listen",
        &between_addr,
    ];
    let (mut between, _) = node(&world, "between", &again);
    has_neighbours(&mut between, 2, 0);
    let hit = find(&world, &["shanty"], &near_addr);
    assert_eq!(hit["file"], "Sea Shanty (live).ogg");

    // One that is stopped says so, and its neighbour knows at once.
    leaf.signal(Signal::TERM);
    assert_eq!(leaf.end().0.code(), Some(130));
    far.wait_for("the leaf to be gone", |v| {
        v["event"] == "gnutella_stats" && v["leaves"] == 0
    });
}

#[test]
fn a_host_is_browsed_unless_it_does_not_want_to_be() {
    let world = World::new();
    fs::create_dir(world.path("music")).expect("made");
    world.file("music/one song.ogg", 5_000, 1);
    world.file("music/two.txt", 10, 2);
    let share = ["--ultrapeer", "--share", "music"];
    let (_open, addr) = node(&world, "open", &share);
    let ran = world.run(&["gnutella", "browse", &addr, "--json"]);
    let hits = ran.json();
    let mut names: Vec<&str> = hits.iter().filter_map(|v| v["file"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["one song.ogg", "two.txt"]);
    assert!(
        hits.iter()
            .all(|v| v["event"] != "gnutella_hit" || v["addr"] == *addr)
    );
    let (_closed, addr) = node(&world, "closed", &[&share[..], &["--no-browse"]].concat());
    world
        .run(&["gnutella", "browse", &addr])
        .expect(5)
        .says("the host answers 403");
}

#[test]
fn a_search_begins_at_a_gwebcache() {
    let world = World::new();
    fs::create_dir(world.path("music")).expect("made");
    world.file("music/one song.ogg", 5_000, 1);
    let (_node, addr) = node(&world, "state", &["--ultrapeer", "--share", "music"]);
    let args = ["serve", "gwebcache", "--listen", "127.0.0.1:0"];
    let mut cache = world.start(&args);
    let cache = cache.addr();
    let mut told = TcpStream::connect(&cache).expect("connected");
    let update = format!("GET /?update=1&ip={addr}&client=TEST HTTP/1.1\r\n\r\n");
    told.write_all(update.as_bytes()).expect("sent");
    let mut said = String::new();
    told.read_to_string(&mut said).expect("an answer");
    assert!(said.contains("I|update|OK"), "{said}");
    let url = format!("http://{cache}/");
    let mut args = vec!["gnutella", "find", "song", "--json", "--limit", "1"];
    args.extend(["--listen", "127.0.0.1:0", "--gwebcache", &url]);
    let ran = world.run(&args);
    let hit = ran
        .json()
        .into_iter()
        .find(|v| v["event"] == "gnutella_hit");
    assert_eq!(hit.expect("found")["file"], "one song.ogg");
}

#[test]
fn what_is_not_there_and_who_is_not_there_have_their_exit_codes() {
    let world = World::new();
    let (_node, addr) = node(&world, "state", &["--ultrapeer"]);
    let ask = |more: &[&str]| {
        let mut args = vec!["gnutella", "find", "--listen", "127.0.0.1:0", "--wait", "1"];
        args.extend(more);
        world.run(&args)
    };
    ask(&["nothing", "--connect", &addr])
        .expect(3)
        .says("nobody shares \"nothing\"");
    ask(&["nothing"]).expect(2).says("no host to begin with");
    ask(&["urn:sha1:ABC", "--connect", &addr])
        .expect(2)
        .says("not the name of a content");
}
