//! Services reached by overlay addresses, on loopback. Through NATs: `./dev nat`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::process::{LONG, Running, World};
use crate::supernode::Overlay as Supernodes;

const ANY: &str = "127.0.0.1:0";

/// A login server and a supernode with a relay.
struct Net {
    world: World,
    at: String,
    _login: Running,
    _supernode: Running,
}

impl Net {
    fn new() -> Self {
        Self::with(&["--relay", ANY])
    }

    fn with(relay: &[&str]) -> Self {
        let Supernodes { world, login, at } = Supernodes::new();
        let args = ["supernode", "node", "--login", &at, "--supernode"];
        let more = ["--listen", ANY, "--state-dir", "super", "--keep-role"];
        let args = [&args[..], &more, relay].concat();
        let mut supernode = world.start(&args);
        supernode.wait_for("a supernode", |v| {
            v["event"] == "listening" && v["proto"] == "supernode"
        });
        Self {
            world,
            at,
            _login: login,
            _supernode: supernode,
        }
    }

    /// The arguments of a command that is on the overlay.
    fn args<'a>(&'a self, args: &[&'a str], state: &'a str) -> Vec<&'a str> {
        let own = ["--login", &self.at, "--state-dir", state];
        [args, &own].concat()
    }

    fn start(&self, args: &[&str], state: &str) -> Running {
        self.world.start(&self.args(args, state))
    }
}

/// Where it is reached by the overlay.
fn overlay_addr(run: &mut Running) -> String {
    let event = run.wait_for("an overlay address", |v| {
        v["event"] == "listening" && v["proto"] == "overlay"
    });
    let addr = event["addr"].as_str().expect("an address").to_owned();
    assert!(addr.starts_with("[fc"), "{addr}");
    addr
}

#[test]
fn a_torrent_is_fetched_from_an_overlay_address_alone() {
    let net = Net::new();
    let file = net.world.file("shared/data.bin", 3_000_000, 5);
    let path = file.to_str().expect("text");
    let quiet = ["--listen", ANY, "--no-dht", "--no-lsd"];
    let mut share = net.start(&[&["share", path], &quiet[..]].concat(), "sharer");
    let at = overlay_addr(&mut share);
    let magnet = share.event("magnet");
    let magnet = magnet["magnet"].as_str().expect("a link");
    assert!(
        magnet.contains("x.pe=[fc") || magnet.contains("x.pe=%5Bfc"),
        "{magnet}"
    );
    let hash = magnet.split("urn:btih:").nth(1).expect("a hash");
    let hash = hash.get(..40).expect("40 digits");
    let args = ["fetch", hash, "--dir", "got", "--peer", &at];
    let fetch = net.start(&[&args[..], &quiet].concat(), "fetcher");
    let (status, events, errors) = fetch.end();
    assert!(status.success(), "{events:#?} {errors}");
    let got = fs::read(net.world.path("got/data.bin")).expect("there");
    assert!(got == fs::read(file).expect("there"), "the same bytes");
}

#[test]
fn a_tracker_hears_the_overlay_address_of_who_has_one() {
    let net = Net::new();
    let file = net.world.file("shared/data.bin", 30_000, 5);
    let path = file.to_str().expect("text");
    let mut tracker = net.world.start(&["serve", "tracker", "--http", ANY]);
    let at = tracker.addr();
    let url = format!("http://{at}/announce");
    let quiet = ["--listen", ANY, "--no-dht", "--no-lsd", "--tracker", &url];
    let args = [&["share", path], &quiet[..]].concat();
    let mut on = net.start(&args, "on");
    on.event("tracker");
    let mut off = net
        .world
        .start(&[&args[..], &["--state-dir", "off"]].concat());
    off.event("tracker");
    let get = |target: &str| {
        let mut stream = TcpStream::connect(&at).expect("it listens");
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").expect("asked");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("answered");
        String::from_utf8_lossy(&all).into_owned()
    };
    let stats = get("/stats");
    assert!(stats.contains(r#""peers_v4":2,"#), "{stats}");
    assert!(stats.contains(r#""peers_overlay":1,"#), "{stats}");
}

/// Whether the way between two ends of a pipe is direct.
fn piped_directly(net: &Net, more: &[&str]) -> bool {
    let listen = ["pipe", "--listen", "--to", ANY, "--udp", ANY];
    let mut listener = net.start(&[&listen, more].concat(), "listener");
    let node = listener.event("reachable")["node"].clone();
    let node = node.as_str().expect("a key");
    let caller = ["pipe", node, "--forward", ANY, "--udp", ANY];
    let mut caller = net.start(&[&caller, more].concat(), "caller");
    caller.event("way")["direct"].as_bool().expect("it says so")
}

#[test]
fn a_pipe_needs_no_relay_between_neighbours() {
    assert!(piped_directly(&Net::with(&[]), &[]));
}

#[test]
fn a_hidden_pipe_goes_by_relays_alone() {
    assert!(!piped_directly(&Net::new(), &["--hidden"]));
}

#[test]
fn a_master_and_its_workers_meet_by_overlay_addresses() {
    let net = Net::new();
    fs::write(net.world.path("secret"), "sixteen bytes at least").expect("a secret");
    let mut text = String::new();
    (0..2000).for_each(|n| text.push_str(&format!("both w{}\n", n % 10)));
    fs::write(net.world.path("text"), &text).expect("a text");
    let secret = ["--secret-file", "secret"];
    let args = ["serve", "master", "--dir", "jobs", "--listen", ANY];
    let mut master = net.start(&[&args[..], &secret].concat(), "master");
    let here = master.addr();
    let at = overlay_addr(&mut master);
    let worker = |name: &'static str| {
        let args = ["worker", "--master", &at, "--slots", "1", "--host", name];
        let more = ["--no-dht", "--no-lsd", "--dir", name];
        let mut worker = net.start(&[&args[..], &more, &secret].concat(), name);
        let at = overlay_addr(&mut worker);
        worker.event("worker_connected");
        (worker, at)
    };
    let workers = [worker("one"), worker("two")];
    assert_ne!(workers[0].1, workers[1].1);
    let args = ["run", "wordcount", "--input", "text", "--output", "counts"];
    let more = ["--master", &here, "--split-size", "4KiB", "--reduces", "2"];
    net.world
        .run(&[&args[..], &more, &secret].concat())
        .expect(0);
    let counts = crate::jobs::output(&net.world.path("counts"));
    assert!(counts.contains("both\t2000"), "{counts}");
    assert!(counts.contains("w7\t200"), "{counts}");
    // Who hands the job in comes by the overlay too.
    let args = ["run", "wordcount", "--input", "text", "--output", "again"];
    let more = ["--master", &at, "--split-size", "4KiB", "--reduces", "2"];
    let run = [&args[..], &more, &secret].concat();
    net.world.run(&net.args(&run, "asker")).expect(0);
    assert_eq!(crate::jobs::output(&net.world.path("again")), counts);
    let list = [&["job", "list", "--master", &at][..], &secret].concat();
    let listed = net.world.run(&net.args(&list, "asker")).expect(0);
    assert_eq!(listed.stdout.matches("succeeded").count(), 2, "{listed:#?}");
    net.world.run(&list).expect(2).says("--login");
}

#[test]
fn without_a_secret_nobody_is_let_in_by_the_overlay() {
    let net = Net::new();
    let args = ["serve", "master", "--dir", "jobs", "--listen", ANY];
    let args = net.args(&args, "master");
    net.world.run(&args).expect(1).says("without a secret");
}

#[test]
fn a_ring_is_joined_at_an_overlay_address() {
    let net = Net::new();
    let node = ["dht", "node", "--via", "chord", "--listen", ANY];
    let node = [&node[..], &["--stats-interval", "1"]].concat();
    let mut first = net.start(&[&node[..], &["--ring-overlay"]].concat(), "first");
    let one = first.addr();
    let mut second = net.start(&[&node[..], &["--bootstrap", &one]].concat(), "second");
    let two = second.addr();
    assert!(
        one.starts_with("[fc") && two.starts_with("[fc"),
        "{one} {two}"
    );
    second.wait_for("a member", |v| {
        v["event"] == "dht_status" && v["contacts"].as_u64() > Some(0)
    });
    let brief = ["--via", "chord", "--listen", ANY, "--bootstrap"];
    let put = [&["dht", "put", "kept by both"], &brief[..], &[&two]].concat();
    let stored = net.world.run(&net.args(&put, "third")).expect(0);
    let name = stored.stdout.trim_end();
    let get = [&["dht", "get", name], &brief[..], &[&one]].concat();
    let got = net.world.run(&net.args(&get, "third")).expect(0);
    assert_eq!(got.stdout, "kept by both\n");
    for member in [&mut first, &mut second] {
        member.wait_for("the value", |v| {
            v["event"] == "dht_status" && v["items"].as_u64() > Some(0)
        });
    }
}

#[test]
fn what_a_sharer_behind_a_firewall_has_is_fetched_from_its_overlay_address() {
    let net = Net::new();
    let file = net.world.file("hidden/night ferry.bin", 700_000, 5);
    let args = ["supernode", "node", "--firewalled", "--share", "hidden"];
    let mut sharer = net.start(&args, "sharer");
    let at = overlay_addr(&mut sharer);
    sharer.wait_for("a home", |v| v["event"] == "home" && v["addr"].is_string());
    let find = ["find", "night", "ferry", "--via", "supernode"];
    let found = net.world.run(&net.args(&find, "finder")).expect(0);
    assert!(found.stdout.contains("night ferry.bin"), "{found:#?}");
    let fetch = ["fetch", "1", "--dir", "got", "--listen", ANY];
    let ran = net.world.run(&net.args(&fetch, "finder")).expect(0);
    let got = fs::read(net.world.path("got/night ferry.bin")).expect("there");
    assert!(got == fs::read(file).expect("there"), "{at} {ran:#?}");
}

/// A node of Gnutella that is on the overlay, and its address there.
fn servent(net: &Net, state: &'static str, more: &[&str]) -> (Running, String) {
    let args = ["gnutella", "node", "--listen", ANY, "--stats-interval", "1"];
    let mut node = net.start(&[&args[..], more].concat(), state);
    let at = overlay_addr(&mut node);
    (node, at)
}

fn linked(node: &mut Running, ultrapeers: u64, leaves: u64) {
    node.wait_for("its neighbours", |v| {
        v["event"] == "gnutella_stats"
            && v["ultrapeers"].as_u64() >= Some(ultrapeers)
            && v["leaves"].as_u64() >= Some(leaves)
    });
}

#[test]
fn gnutella_links_searches_and_files_go_by_overlay_addresses() {
    let net = Net::new();
    let file = net.world.file("shared/tide tables.bin", 600_000, 5);
    let (mut top, at) = servent(&net, "top", &["--ultrapeer"]);
    // Each knows one ultrapeer by its overlay address alone.
    let second = ["--ultrapeer", "--connect", &at];
    let (mut second, other) = servent(&net, "second", &second);
    linked(&mut top, 1, 0);
    let leaf = ["--share", "shared", "--firewalled", "--connect", &other];
    let (mut leaf, sharer) = servent(&net, "leaf", &leaf);
    // It hears of the first from the second, and is linked with both.
    linked(&mut leaf, 2, 0);
    linked(&mut top, 1, 1);
    linked(&mut second, 1, 1);
    let find = ["gnutella", "find", "tide", "tables", "--connect", &at];
    let find = [&find[..], &["--listen", ANY, "--wait", "5", "--json"]].concat();
    let find = net.args(&find, "asker");
    let begun = Instant::now();
    let hit = loop {
        // Tables of words go around every ten seconds.
        let found = net.world.run(&find).json();
        if let Some(hit) = found.into_iter().find(|v| v["event"] == "gnutella_hit") {
            break hit;
        }
        assert!(begun.elapsed() < LONG, "nothing found");
    };
    assert_eq!(hit["overlay"], sharer);
    let urn = hit["urn"].as_str().expect("a name").to_owned();
    // By the search, and from the address itself.
    let fetch = ["gnutella", "fetch", &urn, "--listen", ANY, "--dir"];
    for (dir, how) in [("one", ["--connect", &at]), ("two", ["--from", &sharer])] {
        let args = [&fetch[..], &[dir], &how].concat();
        let ran = net.world.run(&net.args(&args, "asker")).expect(0);
        let got = fs::read(net.world.path(format!("{dir}/tide tables.bin"))).expect("there");
        assert!(got == fs::read(&file).expect("there"), "{ran:#?}");
    }
    let browse = net.args(&["gnutella", "browse", &sharer], "asker");
    let listed = net.world.run(&browse).expect(0);
    assert!(listed.stdout.contains("tide tables.bin"), "{listed:#?}");
    let args = ["gnutella", "browse", &sharer];
    net.world.run(&args).expect(2).says("--login");
}

#[test]
fn files_are_served_to_gnutella_at_an_overlay_address_alone() {
    let net = Net::new();
    let file = net.world.file("shared/night ferry.bin", 300_000, 5);
    let args = ["gnutella", "serve", "shared", "--listen", ANY];
    let mut server = net.start(&args, "sharer");
    let serving = server.event("serving");
    let urn = serving["urn"].as_str().expect("a name");
    let at = overlay_addr(&mut server);
    let fetch = ["gnutella", "fetch", urn, "--from", &at, "--dir", "got"];
    let ran = net.world.run(&net.args(&fetch, "fetcher")).expect(0);
    let got = fs::read(net.world.path("got/night ferry.bin")).expect("there");
    assert!(got == fs::read(file).expect("there"), "{ran:#?}");
}

#[test]
fn a_web_seed_at_an_overlay_address_is_all_that_a_torrent_needs() {
    let net = Net::new();
    let file = net.world.file("shared/night ferry.bin", 3_000_000, 5);
    let args = ["gnutella", "serve", "shared", "--listen", ANY];
    let mut server = net.start(&args, "sharer");
    let urn = server.event("serving")["urn"].clone();
    let at = overlay_addr(&mut server);
    let url = format!("http://{at}/uri-res/N2R?{}", urn.as_str().expect("a name"));
    let path = file.to_str().expect("text");
    let create = [
        "torrent",
        "create",
        path,
        "--output",
        "ferry.torrent",
        "--web-seed",
        &url,
    ];
    net.world.run(&create).expect(0);
    let quiet = ["--listen", ANY, "--no-dht", "--no-lsd"];
    let fetch = [&["fetch", "ferry.torrent", "--dir", "got"], &quiet[..]].concat();
    let ran = net.world.run(&net.args(&fetch, "fetcher")).expect(0);
    let got = fs::read(net.world.path("got/night ferry.bin")).expect("there");
    assert!(got == fs::read(file).expect("there"), "{ran:#?}");
}

#[test]
fn two_users_of_a_hub_behind_firewalls_exchange_a_file() {
    let net = Net::new();
    let file = net.world.file("music/Night Ferry.mp3", 400_000, 5);
    let mut hub = net.world.start(&["serve", "napster", "--listen", ANY]);
    let hub_at = hub.addr();
    let share = [
        "napster",
        "share",
        "music",
        "--hub",
        &hub_at,
        "--firewalled",
    ];
    let mut sharer = net.start(&share, "sharer");
    overlay_addr(&mut sharer);
    sharer.wait_for("the hub", |v| v["event"] == "hub" && v["connected"] == true);
    let fetch = ["napster", "fetch", "night", "ferry", "--hub", &hub_at];
    let fetch = [&fetch[..], &["--dir", "got"]].concat();
    // Neither listens: by the hub alone there is no way.
    net.world.run(&fetch).expect(4);
    let ran = net.world.run(&net.args(&fetch, "fetcher")).expect(0);
    let got = fs::read(net.world.path("got/Night Ferry.mp3")).expect("there");
    assert!(got == fs::read(&file).expect("there"), "{ran:#?}");
    let uploaded = sharer.event("uploaded");
    assert_eq!(uploaded["whole"], true);
    // As one source among others, of what a search over all networks told.
    let find = ["find", "night", "ferry", "--hub", &hub_at, "--no-ping"];
    let find = [&find[..], &["--via", "napster", "--json"]].concat();
    let found = net.world.run(&find).expect(0).json();
    let hit = found.iter().find(|v| v["event"] == "found").expect("one");
    let link = hit["link"].as_str().expect("a link");
    let fetch = ["fetch", link, "--listen", ANY, "--no-dht", "--no-lsd"];
    let fetch = [&fetch[..], &["--dir", "found"]].concat();
    let ran = net.world.run(&net.args(&fetch, "fetcher")).expect(0);
    let got = fs::read(net.world.path("found/Night Ferry.mp3")).expect("there");
    assert!(got == fs::read(&file).expect("there"), "{ran:#?}");
}

#[test]
fn a_sharer_who_is_not_where_it_says_is_reached_at_its_overlay_address() {
    let net = Net::new();
    let file = net.world.file("hidden/morning ferry.bin", 300_000, 5);
    // As behind a router that forwards nothing, and nobody told it so.
    let dead = std::net::TcpListener::bind(ANY).expect("loopback");
    let there = dead.local_addr().expect("bound").to_string();
    drop(dead);
    let args = ["supernode", "node", "--listen", ANY, "--share", "hidden"];
    let mut sharer = net.start(&[&args[..], &["--external", &there]].concat(), "sharer");
    overlay_addr(&mut sharer);
    sharer.wait_for("a home", |v| v["event"] == "home" && v["addr"].is_string());
    let fetch = ["supernode", "fetch", "morning", "ferry", "--dir", "got"];
    let fetch = [&fetch[..], &["--listen", ANY]].concat();
    let ran = net.world.run(&net.args(&fetch, "fetcher")).expect(0);
    let got = fs::read(net.world.path("got/morning ferry.bin")).expect("there");
    assert!(got == fs::read(file).expect("there"), "{ran:#?}");
}
