//! `shoal serve tracker`, asked by `shoal share` and `shoal fetch`.

use rustix::process::Signal;
use std::fs;

use crate::process::{Running, World};

/// Starts a tracker with both protocols; its announce URLs.
fn tracker(world: &World, more: &[&str]) -> (Running, String, String) {
    let mut args = vec![
        "serve",
        "tracker",
        "--http",
        "127.0.0.1:0",
        "--udp",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--stats-interval",
        "1",
    ];
    args.extend(more);
    let mut running = world.start(&args);
    let mut url = |proto: &str| {
        let event = running.wait_for(proto, |v| v["event"] == "listening" && v["proto"] == proto);
        format!(
            "{proto}://{}/announce",
            event["addr"].as_str().expect("an address")
        )
    };
    let udp = url("udp");
    let http = url("http");
    (running, http, udp)
}

#[test]
fn peers_find_each_other_by_http_and_udp() {
    let world = World::new();
    let (mut tracker, http, udp) = tracker(&world, &[]);
    for (n, url) in [http, udp].iter().enumerate() {
        let name = format!("data{n}");
        world.file(&name, 500_000, n as u64);
        let mut seeder = world.start(&[
            "share",
            &name,
            "--listen",
            "127.0.0.1:0",
            "--no-lsd",
            "--tracker",
            url,
        ]);
        let hash = seeder.event("magnet")["info_hash_v1"]
            .as_str()
            .expect("a hash")
            .to_owned();
        let told = seeder.event("tracker");
        assert_eq!(told["url"], url.as_str());
        assert!(told["error"].is_null(), "{told}");

        let fetch = world.start(&[
            "fetch",
            &hash,
            "--dir",
            "out",
            "--listen",
            "127.0.0.1:0",
            "--no-lsd",
            "--tracker",
            url,
        ]);
        let (status, seen, stderr) = fetch.end();
        assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
        assert_eq!(
            fs::read(world.path(&name)).expect("shared"),
            fs::read(world.path("out").join(&name)).expect("fetched")
        );
    }
    let stats = tracker.wait_for("statistics of both swarms", |v| {
        v["event"] == "tracker_stats" && v["announces"].as_u64() >= Some(4)
    });
    assert!(stats["swarms"].as_u64() >= Some(1), "{stats}");
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.end().0.code(), Some(130));
}

#[test]
fn a_torrent_that_is_not_allowed_is_refused_with_the_reason() {
    let world = World::new();
    world.file("data", 100_000, 1);
    fs::write(world.path("allow.txt"), format!("{}\n", "ab".repeat(20))).expect("a list");
    let (_tracker, http, _) = tracker(&world, &["--allow", "allow.txt"]);
    let mut seeder = world.start(&[
        "share",
        "data",
        "--listen",
        "127.0.0.1:0",
        "--no-lsd",
        "--tracker",
        &http,
    ]);
    let told = seeder.event("tracker");
    assert!(told["peers"].is_null());
    assert!(told["error"].is_string(), "{told}");
}

#[test]
fn a_tracker_that_cannot_start_says_why() {
    let world = World::new();
    fs::write(world.path("bad.txt"), "not a hash\n").expect("a list");
    let serve = |more: &[&str]| {
        let mut args = vec!["serve", "tracker", "--http", "127.0.0.1:0"];
        args.extend(more);
        world.run(&args)
    };
    serve(&["--allow", "bad.txt"])
        .expect(1)
        .says("bad.txt")
        .says("hint:");
    serve(&["--deny", "gone.txt"]).expect(1).says("gone.txt");
    serve(&["--udp", "192.0.2.1:0"])
        .expect(1)
        .says("cannot listen on udp 192.0.2.1:0");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let ran = world.run(&["serve", "tracker", "--http", &addr]).expect(1);
    ran.says("another program listens there");
}
