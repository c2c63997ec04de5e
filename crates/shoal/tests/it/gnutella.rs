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
