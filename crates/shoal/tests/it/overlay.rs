//! Services reached by overlay addresses, on loopback. Through NATs: `./dev nat`.

use std::fs;

use crate::process::{Running, World};
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
        let Supernodes { world, login, at } = Supernodes::new();
        let args = ["supernode", "node", "--login", &at, "--supernode"];
        let more = ["--listen", ANY, "--relay", ANY, "--state-dir", "super"];
        let args = [&args[..], &more, &["--keep-role"]].concat();
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
