//! `shoal dht --via chord`, and torrents on a private ring, between processes on loopback.

use std::fs;
use std::time::{Duration, Instant};

use crate::process::{Running, World};

const ANY: &str = "127.0.0.1:0";
/// SHA-1 of `11:hello world`.
const HELLO: &str = "6d33adc2b6b2c14c3036feefb7fedbca1a880527";

/// A ring of `n` nodes, each joined at the one before, and where each listens.
pub(crate) fn ring(world: &World, n: usize, more: &[&str]) -> (Vec<Running>, Vec<String>) {
    let (mut nodes, mut addrs): (Vec<Running>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let mut args = vec!["dht", "node", "--via", "chord", "--listen", ANY];
        args.extend(["--stats-interval", "1"]);
        args.extend(more);
        if let Some(addr) = addrs.last() {
            args.extend(["--bootstrap", addr]);
        }
        let mut node = world.start(&args);
        let addr = node.addr();
        if !addrs.is_empty() {
            node.wait_for("a member", |v| v["contacts"].as_u64() >= Some(1));
        }
        addrs.push(addr);
        nodes.push(node);
    }
    (nodes, addrs)
}

pub(crate) fn dht<'a>(verb: &'a str, via: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["dht", verb, "--via", "chord", "--listen", ANY];
    all.extend(["--bootstrap", via]);
    all.extend(args);
    all
}

#[test]
fn what_is_put_at_one_node_is_got_at_another() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 5, &[]);
    let stored = world.run(&dht("put", &at[1], &["hello world"])).expect(0);
    assert_eq!(stored.stdout.trim_end(), HELLO);
    let got = world.run(&dht("get", &at[4], &[HELLO])).expect(0);
    assert_eq!(got.stdout, "hello world\n");
    world.run(&dht("get", &at[2], &[&"0".repeat(40)])).expect(3);

    world.run(&dht("peers", &at[0], &[HELLO])).expect(3);
    let args = [HELLO, "--port", "7001", "--seed"];
    world.run(&dht("announce", &at[3], &args)).expect(0);
    let found = world.run(&dht("peers", &at[2], &[HELLO])).expect(0);
    assert_eq!(found.stdout, "127.0.0.1:7001\n");

    let args = ["--key", "me.key", "--seq", "5", "five"];
    world.run(&dht("put", &at[0], &args)).expect(0);
    let late = ["--key", "me.key", "--seq", "4", "four"];
    world.run(&dht("put", &at[1], &late)).expect(5);
    // Not with --via mainline.
    let find = ["dht", "find", "word", "--listen", ANY];
    world.run(&find).expect(2).says("--via chord");
}

#[test]
fn a_subscriber_hears_a_new_value_within_seconds() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 5, &[]);
    let put = |value: &str, via: usize| {
        let args = ["--key", "me.key", "--salt", "s", value];
        let ran = world.run(&dht("put", &at[via], &args)).expect(0);
        ran.stdout.trim_end().to_owned()
    };
    let name = put("one", 0);
    let mut subscribers: Vec<Running> = (0..3)
        .map(|n| world.start(&dht("subscribe", &at[n + 1], &[&name, "--salt", "s"])))
        .collect();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.event("value")["text"], "one");
    }
    let begun = Instant::now();
    put("two", 4);
    for subscriber in &mut subscribers {
        let heard = subscriber.event("value");
        assert_eq!((&heard["text"], &heard["seq"]), (&"two".into(), &2.into()));
    }
    // Pushed: nobody renews or reads as soon as this.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn killing_owners_loses_nothing() {
    let world = World::new();
    let (mut nodes, at) = ring(&world, 7, &[]);
    // A put goes to as many as the owner knows: here it shall know enough, which takes seconds.
    for node in &mut nodes {
        node.wait_for("members enough", |v| v["contacts"].as_u64() >= Some(4));
    }
    let values: Vec<String> = (0..8).map(|i| format!("value {i}")).collect();
    let names: Vec<String> = values
        .iter()
        .map(|value| {
            let ran = world.run(&dht("put", &at[0], &[value])).expect(0);
            ran.stdout.trim_end().to_owned()
        })
        .collect();
    // Three of seven die; each value was on four.
    for node in &mut nodes[2..5] {
        node.kill();
    }
    for (name, value) in names.iter().zip(&values) {
        let got = world.run(&dht("get", &at[6], &[name])).expect(0);
        assert_eq!(got.stdout.trim_end(), value);
    }
}

#[test]
fn a_leaver_hands_over_what_only_it_had() {
    let world = World::new();
    let (mut nodes, at) = ring(&world, 1, &["--identity", "id.key"]);
    world.run(&dht("put", &at[0], &["hello world"])).expect(0);
    let join = ["--stats-interval", "1", "--contacts", "met"];
    let mut second = world.start(&dht("node", &at[0], &join));
    let via = second.addr();
    second.wait_for("a member", |v| v["contacts"].as_u64() == Some(1));
    let first = nodes.pop().expect("a node");
    first.signal(rustix::process::Signal::INT);
    assert_eq!(first.end().0.code(), Some(130));
    let got = world.run(&dht("get", &via, &[HELLO])).expect(0);
    assert_eq!(got.stdout, "hello world\n");
    // It comes back to its place by the same key, and finds the ring by whom the other knew.
    let again = ["--stats-interval", "1", "--identity", "id.key"];
    let mut first = world.start(&dht("node", &via, &again));
    first.wait_for("a member", |v| v["contacts"].as_u64() == Some(1));
    second.signal(rustix::process::Signal::INT);
    assert_eq!(second.end().0.code(), Some(130));
    let met = fs::read_to_string(world.path("met")).expect("kept");
    assert_eq!(
        met.trim_end(),
        first.seen[0]["addr"].as_str().expect("it listens")
    );
}

#[test]
fn who_does_not_know_the_secret_gets_no_answer() {
    let world = World::new();
    fs::write(world.path("secret"), "between us\n").expect("written");
    fs::write(world.path("wrong"), "between others").expect("written");
    let with = ["--ring-secret", "secret"];
    let (_nodes, at) = ring(&world, 2, &with);
    let put = |more: &[&str]| {
        let mut args = vec!["hello world", "--timeout", "3"];
        args.extend(more);
        world.run(&dht("put", &at[1], &args))
    };
    put(&with).expect(0);
    put(&["--ring-secret", "wrong"]).expect(4);
    put(&[]).expect(4);
    put(&["--ring-secret", "secret", "--ring-name", "other"]).expect(4);
    put(&["--ring-secret", "nothing"]).expect(3);
}

#[test]
fn content_is_found_by_the_words_of_its_title() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 4, &[]);
    let publish = |content: &str, title: &str| {
        let args = [content, title, "--key", "me.key", "--size", "5MiB"];
        world.run(&dht("publish", &at[0], &args)).expect(0);
    };
    let other = "0".repeat(40);
    publish(HELLO, "Debian 12 netinst");
    publish(&other, "Debian 13 DVD");
    let found = world.run(&dht("find", &at[3], &["netinst", "DEBIAN"]));
    assert_eq!(
        found.expect(0).stdout,
        format!("{HELLO}\t5.0 MiB\tDebian 12 netinst\n")
    );
    let both = world
        .run(&dht("find", &at[2], &["debian", "--json"]))
        .expect(0);
    let both = both.json();
    let records = both.iter().filter(|v| v["event"] == "record");
    assert_eq!(records.count(), 2, "{both:?}");
    world
        .run(&dht("find", &at[2], &["netinst", "dvd"]))
        .expect(3);
}

#[test]
fn one_search_asks_a_ring_and_joins_what_several_published_of_one_content() {
    let world = World::new();
    let (_nodes, at) = ring(&world, 3, &[]);
    for key in ["me.key", "you.key"] {
        let args = [HELLO, "Sea Shanty live", "--key", key, "--size", "5MiB"];
        world.run(&dht("publish", &at[0], &args)).expect(0);
    }
    let find = |more: &[&str]| {
        let args = ["find", "shanty", "sea", "--listen", ANY, "--ring", &at[2]];
        world.run(&[&args, more].concat())
    };
    let found = find(&["--via", "dht", "--json"]).expect(0).json();
    let found: Vec<_> = found.iter().filter(|v| v["event"] == "found").collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["via"], serde_json::json!(["dht"]));
    assert_eq!(found[0]["sharers"], 2);
    assert_eq!(found[0]["bytes"], 5 << 20);
    let link = found[0]["link"].as_str().expect("a link");
    assert!(link.contains(&format!("urn:btih:{HELLO}")), "{link}");
    find(&["--without", "live"]).expect(3);
    world
        .run(&["find", "shanty", "--via", "dht"])
        .expect(2)
        .says("--ring");
    let gone = ["find", "x", "--listen", ANY, "--ring", "127.0.0.1:1"];
    world.run(&[&gone[..], &["--wait", "1"]].concat()).expect(4);
}

/// Shares by a ring that it begins, and fetches by it alone, with nothing else to find peers by.
#[test]
fn a_torrent_is_fetched_by_a_private_ring_alone() {
    let world = World::new();
    fs::write(world.path("data.bin"), vec![7; 300_000]).expect("written");
    fs::write(world.path("secret"), "between us").expect("written");
    let net = ["--listen", ANY, "--no-lsd", "--no-dht"];
    let secret = ["--ring-secret", "secret"];
    let mut share = vec!["share", "data.bin", "--ring-listen", ANY];
    share.extend(net);
    share.extend(secret);
    let mut sharing = world.start(&share);
    let begun = sharing.wait_for("the ring", |v| v["proto"] == "ring");
    let ring = begun["addr"].as_str().expect("an address").to_owned();
    let magnet = sharing.event("magnet");
    let hash = magnet["info_hash_v1"].as_str().expect("a hash").to_owned();

    let fetch = |dir: &str, more: &[&str]| {
        let mut args = vec!["fetch", &hash, "--dir", dir, "--ring", &ring];
        args.extend(net);
        args.extend(more);
        world.start(&args)
    };
    let mut more = secret.to_vec();
    more.push("--seed");
    let mut first = fetch("one", &more);
    first.event("complete");
    assert!(
        first.seen.iter().any(|e| e["via"] == "ring"),
        "{:#?}",
        first.seen
    );
    // Who began it dies; the other member and its copy remain.
    let ring_of_first = first.seen.iter().find(|v| v["proto"] == "ring");
    let at = ring_of_first.expect("it joined")["addr"]
        .as_str()
        .expect("an address");
    sharing.kill();
    let mut args = vec!["fetch", &hash, "--dir", "two", "--ring", at];
    args.extend(net);
    args.extend(secret);
    let (status, seen, stderr) = world.start(&args).end();
    assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
    for copy in ["one/data.bin", "two/data.bin"] {
        assert!(fs::read(world.path(copy)).expect("it is there") == vec![7; 300_000]);
    }
    // A stranger to the ring finds nobody.
    let (status, ..) = fetch("three", &["--timeout", "4"]).end();
    assert_eq!(status.code(), Some(4));
}

/// Mainline, the ring and a peer given by hand feed one download.
#[test]
fn peers_of_the_ring_and_of_mainline_merge() {
    let world = World::new();
    let node = ["dht", "node", "--listen", ANY, "--stats-interval", "1"];
    let mut first = world.start(&node);
    let mainline = first.addr();
    let mut second = world.start(&[&node[..], &["--bootstrap", &mainline]].concat());
    while second.event("dht_status")["contacts"] == 0 {}
    let data = world.file("data.bin", 300_000, 5);
    fs::create_dir(world.path("two")).expect("a folder");
    fs::copy(&data, world.path("two/data.bin")).expect("copied");
    let net = ["--listen", ANY, "--no-lsd"];
    // Slowly, so that peers are wanted for long enough to find both.
    let slow = ["--up-limit", "8K"];
    let mut on_ring = vec!["share", "data.bin", "--ring-listen", ANY, "--no-dht"];
    on_ring.extend(net);
    on_ring.extend(slow);
    let mut on_ring = world.start(&on_ring);
    let begun = on_ring.wait_for("the ring", |v| v["proto"] == "ring");
    let ring = begun["addr"].as_str().expect("an address").to_owned();
    let magnet = on_ring.event("magnet");
    let hash = magnet["info_hash_v1"].as_str().expect("a hash").to_owned();
    let mut on_mainline = vec!["share", "two/data.bin", "--dht-bootstrap", &mainline];
    on_mainline.extend(net);
    on_mainline.extend(slow);
    let mut on_mainline = world.start(&on_mainline);
    on_mainline.event("magnet");

    let mut both = vec!["fetch", &hash, "--dir", "copy", "--seed"];
    both.extend(["--ring", &ring, "--dht-bootstrap", &mainline]);
    both.extend(net);
    let mut both = world.start(&both);
    let (mut of_ring, mut of_mainline) = (false, false);
    both.wait_for("peers of both", |v| {
        of_ring |= v["via"] == "ring";
        of_mainline |= v["via"] == "mainline";
        of_ring && of_mainline
    });
}
