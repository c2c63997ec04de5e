//! `shoal dht`, and torrents that have no tracker, between processes on loopback.

use std::fs;
use std::net::SocketAddr;

use crate::process::{Running, World};

/// A network of `n` nodes, and where the last one listens.
fn network(world: &World, n: usize) -> (Vec<Running>, String) {
    let mut nodes: Vec<Running> = Vec::new();
    let mut last: Option<String> = None;
    for _ in 0..n {
        let mut args = vec!["dht", "node", "--listen", "127.0.0.1:0"];
        args.extend(["--stats-interval", "1"]);
        if let Some(addr) = &last {
            args.extend(["--bootstrap", addr]);
        }
        let mut node = world.start(&args);
        last = Some(node.addr());
        nodes.push(node);
    }
    for node in &mut nodes {
        while node.event("dht_status")["contacts"] == 0 {}
    }
    (nodes, last.expect("a node"))
}

fn dht<'a>(verb: &'a str, via: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["dht", verb, "--listen", "127.0.0.1:0", "--bootstrap", via];
    all.extend(args);
    all
}

#[test]
fn values_are_found_by_name_and_replaced_by_newer_ones() {
    let world = World::new();
    let (_nodes, via) = network(&world, 4);
    let stored = world.run(&dht("put", &via, &["hello world"])).expect(0);
    assert_eq!(stored.stdout.trim_end(), HELLO);
    let got = world.run(&dht("get", &via, &[HELLO])).expect(0);
    assert_eq!(got.stdout, "hello world\n");

    let put = |value: &str| {
        let args = ["--key", "me.key", "--salt", "s", value];
        let ran = world.run(&dht("put", &via, &args)).expect(0);
        ran.stdout.trim_end().to_owned()
    };
    let name = put("one");
    let mut subscriber = world.start(&dht("subscribe", &via, &[&name, "--salt", "s"]));
    assert_eq!(subscriber.event("value")["text"], "one");
    assert_eq!(put("two"), name);
    let heard = subscriber.event("value");
    assert_eq!((&heard["text"], &heard["seq"]), (&"two".into(), &2.into()));
    let got = world.run(&dht("get", &via, &[&name, "--salt", "s"]));
    assert_eq!(got.expect(0).stdout, "two\n");
    // Another salt is another value.
    world.run(&dht("get", &via, &[&name])).expect(3);
    let late = ["--key", "me.key", "--salt", "s", "--seq", "1", "late"];
    world.run(&dht("put", &via, &late)).expect(5);
    let wrong = ["--key", "me.key", "--salt", "s", "--cas", "7", "x"];
    world.run(&dht("put", &via, &wrong)).expect(5);
    world.run(&dht("put", &via, &["--bencode", "i1"])).expect(2);
}

/// SHA-1 of `11:hello world`.
const HELLO: &str = "6d33adc2b6b2c14c3036feefb7fedbca1a880527";

#[test]
fn peers_are_found_under_what_they_announced() {
    let world = World::new();
    let (_nodes, via) = network(&world, 3);
    world.run(&dht("peers", &via, &[HELLO])).expect(3);
    let args = [HELLO, "--port", "7001", "--seed"];
    world.run(&dht("announce", &via, &args)).expect(0);
    let found = world.run(&dht("peers", &via, &[HELLO])).expect(0);
    assert_eq!(found.stdout, "127.0.0.1:7001\n");
}

#[test]
fn a_node_that_nobody_answers_is_unreachable() {
    let world = World::new();
    let alone = [
        "dht",
        "get",
        HELLO,
        "--listen",
        "127.0.0.1:0",
        "--timeout",
        "1",
    ];
    world.run(&alone).expect(4);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let addr: SocketAddr = silent.local_addr().expect("bound");
    let via = addr.to_string();
    world
        .run(&dht("get", &via, &[HELLO, "--timeout", "1"]))
        .expect(4);
}

#[test]
fn a_magnet_link_without_trackers_finds_its_peers() {
    let world = World::new();
    let (_nodes, via) = network(&world, 2);
    fs::write(world.path("data.bin"), vec![7; 300_000]).expect("written");
    let net = [
        "--listen",
        "127.0.0.1:0",
        "--no-lsd",
        "--dht-bootstrap",
        &via,
    ];
    let mut share = vec!["share", "data.bin"];
    share.extend(net);
    let mut sharing = world.start(&share);
    let magnet = sharing.event("magnet");
    let hash = magnet["info_hash_v1"].as_str().expect("a hash");
    let mut fetch = vec!["fetch", hash, "--dir", "copy"];
    fetch.extend(net);
    let (status, seen, stderr) = world.start(&fetch).end();
    assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
    // Whoever hears of the other first calls: it is told by one of them at least.
    if !seen.iter().any(|e| e["event"] == "dht_peers") {
        sharing.event("dht_peers");
    }
    let copy = fs::read(world.path("copy/data.bin")).expect("it is there");
    assert!(copy == vec![7; 300_000]);
}

#[test]
fn a_link_of_what_is_updated_fetches_the_newest_version() {
    let world = World::new();
    let (_nodes, via) = network(&world, 3);
    let net = |verb: &'static str, args: &[&str]| -> Vec<String> {
        let common = ["--listen", "127.0.0.1:0", "--no-lsd", "--dht-bootstrap"];
        let all = [verb].into_iter().chain(args.iter().copied());
        let all = all.chain(common).chain([via.as_str()]);
        all.map(str::to_owned).collect()
    };
    let start =
        |args: Vec<String>| world.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let key = ["--update-key", "me.key", "--update-salt", "news"];
    let publish = |text: &str| {
        fs::write(world.path("data.txt"), text).expect("written");
        let mut sharing = start(net("share", &[&["data.txt"][..], &key].concat()));
        let published = sharing.event("published");
        (sharing, published)
    };
    let fetched = |link: &str, dir: &str| {
        let (status, seen, stderr) = start(net("fetch", &[link, "--dir", dir])).end();
        assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
        let resolved = seen.into_iter().find(|e| e["event"] == "resolved");
        let copy = fs::read_to_string(world.path(dir).join("data.txt")).expect("it is there");
        (resolved.expect("told"), copy)
    };

    let (first, published) = publish("version one");
    let link = published["magnet"].as_str().expect("a link").to_owned();
    assert!(link.starts_with("magnet:?xs=urn:btpk:") && link.ends_with("&s=6e657773"));
    let (resolved, copy) = fetched(&link, "copy");
    assert_eq!(resolved["info_hash_v1"], published["info_hash_v1"]);
    assert_eq!(copy, "version one");
    drop(first);

    // The same key later, another content: the link stands for that, also over the old copy.
    let (_second, newer) = publish("version two, longer");
    assert_eq!(newer["magnet"], link.as_str());
    assert!(newer["seq"].as_i64() > published["seq"].as_i64());
    let (resolved, copy) = fetched(&link, "copy");
    assert_eq!(resolved["seq"], newer["seq"]);
    assert_eq!(copy, "version two, longer");

    let unknown = link.replace("&s=6e657773", "");
    let none = net("fetch", &[&unknown, "--dir", "copy"]);
    let none: Vec<&str> = none.iter().map(String::as_str).collect();
    world.run(&none).expect(3);
    world.run(&["fetch", &link, "--no-dht"]).expect(2);
    let two = ["share", "data.txt", "copy", "--update-key", "me.key"];
    world.run(&two).expect(2);
    world
        .run(&["share", "data.txt", "--update-salt", "x"])
        .expect(2);
    let salt = "x".repeat(65);
    let long = net(
        "share",
        &["data.txt", "--update-key", "me.key", "--update-salt", &salt],
    );
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    world.run(&long).expect(2);
}
