//! `shoal supernode` and its servers as real processes: everything found from everywhere, supernodes
//! killed, downloads that go on, promotion, tokens that do not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use serde_json::Value;
use shoal_base::id::{from_hex, to_hex};
use shoal_node::supernode::{NodeDriver, NodeSettings, Place};
use shoal_supernode::node::{Config, Event, Role};
use shoal_supernode::token::Token;

use crate::process::{LONG, Running, World};

/// What re-homing and registering again may take.
const REHOMED: Duration = Duration::from_secs(10);

/// Supernodes and peers: `SHOAL_OVERLAY=6x60` sets their number.
fn size() -> (usize, usize) {
    let Ok(text) = std::env::var("SHOAL_OVERLAY") else {
        return (3, 12);
    };
    let size = text
        .split_once('x')
        .and_then(|(s, p)| Some((s.parse().ok()?, p.parse().ok()?)));
    size.unwrap_or_else(|| panic!("SHOAL_OVERLAY={text}, not 6x60"))
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) run: Running,
    pub(crate) addr: String,
}

pub(crate) struct Overlay {
    pub(crate) world: World,
    pub(crate) login: Running,
    pub(crate) at: String,
}

impl Overlay {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let login = [
            "serve",
            "login",
            "--with-list",
            "--listen",
            "127.0.0.1:0",
            "--dir",
            "login",
        ];
        let mut login = world.start(&login);
        let at = login.addr();
        Self { world, login, at }
    }

    /// A node that shares one small file, `song-of-NAME.ogg`, if no folder is named.
    pub(crate) fn node(&self, name: &str, more: &[&str]) -> Node {
        let dir = format!("share-{name}");
        self.world
            .file(&format!("{dir}/song of {name}.ogg"), 1000, seed(name));
        self.node_with(name, &[&["--share", &dir], more].concat())
    }

    pub(crate) fn node_with(&self, name: &str, more: &[&str]) -> Node {
        let state = format!("state-{name}");
        let mut args = vec!["supernode", "node", "--login", &self.at, "--name", name];
        args.extend(["--state-dir", &state, "--ask", "--stats-interval", "1"]);
        args.extend(["--listen", "127.0.0.1:0"]);
        args.extend(more);
        let mut run = self.world.start_listening(&args);
        let addr = run.addr();
        Node {
            name: name.to_owned(),
            run,
            addr,
        }
    }

    pub(crate) fn supernodes(&self, n: usize) -> Vec<Node> {
        let one = |n| self.node(&format!("super{n}"), &["--supernode", "--keep-role"]);
        (0..n).map(one).collect()
    }

    pub(crate) fn fetch(&self, more: &[&str]) -> Running {
        let mut args = vec!["supernode", "fetch", "--login", &self.at];
        args.extend(["--listen", "127.0.0.1:0", "--dir", "got", "--wait", "3"]);
        args.extend(more);
        self.world.start(&args)
    }
}

fn seed(name: &str) -> u64 {
    name.bytes().fold(7, |n, b| n * 31 + u64::from(b))
}

/// Waits until a node has a supernode; where that is.
#[track_caller]
pub(crate) fn home(node: &mut Node) -> String {
    let at_home = |v: &Value| v["event"] == "home" && v["addr"].is_string();
    let event = node.run.wait_for("a home", at_home);
    event["addr"].as_str().expect("checked").to_owned()
}

/// Who shares what a node finds when it asks for all songs; asks again until all of `wanted` are
/// there.
#[track_caller]
pub(crate) fn finds(node: &mut Node, wanted: &BTreeSet<String>) -> Duration {
    let begun = Instant::now();
    let mut found = BTreeSet::new();
    while begun.elapsed() < LONG {
        node.run.say("song");
        // Answers of the farthest supernode take a few milliseconds; a busy machine takes longer.
        let until = Instant::now() + Duration::from_secs(3);
        found = BTreeSet::new();
        while let Some(event) = node.run.next_until(until) {
            if event["event"] == "supernode_hit" {
                found.insert(event["sharer"].as_str().expect("a name").to_owned());
            }
            if wanted.is_subset(&found) {
                return begun.elapsed();
            }
        }
    }
    let missing: Vec<_> = wanted.difference(&found).collect();
    panic!("{} does not find {missing:?}", node.name);
}

/// Every node finds the file of every other.
#[track_caller]
pub(crate) fn all_find_all(nodes: &mut [Node]) -> Duration {
    let names: BTreeSet<String> = nodes.iter().map(|n| n.name.clone()).collect();
    let mut longest = Duration::ZERO;
    for node in nodes {
        let mut others = names.clone();
        others.remove(&node.name);
        longest = longest.max(finds(node, &others));
    }
    longest
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "how long it takes at the full size is read by whoever runs it"
)]
fn all_find_all_and_go_on_when_a_supernode_is_killed() {
    let overlay = Overlay::new();
    let (supers, peers) = size();
    let mut supers = overlay.supernodes(supers);
    for node in &mut supers {
        node.run.wait_for("a neighbour", |v| {
            v["event"] == "supernode_stats" && v["neighbours"].as_u64() > Some(0)
        });
    }
    let mut peers: Vec<Node> = (0..peers)
        .map(|n| overlay.node(&format!("peer{n}"), &[]))
        .collect();
    let mut homes: BTreeMap<String, String> = BTreeMap::new();
    for peer in &mut peers {
        let home = home(peer);
        homes.insert(peer.name.clone(), home);
    }
    let used: BTreeSet<&String> = homes.values().collect();
    assert!(used.len() > 1, "queries cross supernodes");
    eprintln!("found by all: {:?} at most", all_find_all(&mut peers));

    // Somebody fetches, slowly, from a peer.
    let bytes = overlay.world.file("share-slow/a long song.ogg", 6 << 20, 3);
    let slow = ["--share", "share-slow", "--up-limit", "512KiB"];
    let mut slow = overlay.node_with("slow", &slow);
    let _ = home(&mut slow);
    let (mut fetch, dead) = loop {
        let mut fetch = overlay.fetch(&["long", "song"]);
        let event = fetch.event("home");
        let at = event["addr"].as_str().expect("at home").to_owned();
        // Which supernode it comes to is chance; the one that dies shall have children.
        if used.contains(&at) {
            break (fetch, at);
        }
    };
    fetch.wait_for("progress", |v| {
        v["event"] == "file_progress" && v["downloaded"].as_u64() > Some(0)
    });

    // Its supernode dies without a word.
    let at = supers
        .iter()
        .position(|s| s.addr == dead)
        .expect("one of ours");
    let mut gone = supers.remove(at);
    gone.run.kill();
    let killed = Instant::now();
    let mut orphans = 0;
    let mut longest = Duration::ZERO;
    for peer in &mut peers {
        if homes.get(&peer.name) == Some(&dead) {
            let new = home(peer);
            longest = longest.max(killed.elapsed());
            assert_ne!(new, dead);
            orphans += 1;
        }
    }
    assert!(orphans > 0, "it had children");
    assert!(longest < REHOMED, "{longest:?}");
    eprintln!("{orphans} orphans at home again after {longest:?} at most");
    eprintln!("found again by all: {:?} at most", all_find_all(&mut peers));
    assert!(killed.elapsed() < LONG);

    let (status, events, errors) = fetch.end();
    assert!(status.success(), "{events:#?} {errors}");
    let homes: Vec<&Value> = events.iter().filter(|v| v["event"] == "home").collect();
    let last = homes.last().expect("it told of its homes");
    assert!(
        last["addr"].is_string() && last["addr"] != dead,
        "{homes:?}"
    );
    let got = fs::read(overlay.world.path("got/a long song.ogg")).expect("there");
    assert_eq!(got, fs::read(bytes).expect("read"));
}

#[test]
fn a_sharer_behind_a_firewall_connects_when_its_supernodes_ask_it() {
    let overlay = Overlay::new();
    let mut supers = overlay.supernodes(2);
    for node in &mut supers {
        node.run.wait_for("a neighbour", |v| {
            v["event"] == "supernode_stats" && v["neighbours"] == 1
        });
    }
    let bytes = overlay
        .world
        .file("share-hidden/hidden treasure.bin", 700_000, 5);
    let mut hidden = overlay.node_with("hidden", &["--share", "share-hidden", "--firewalled"]);
    let _ = home(&mut hidden);
    let fetch = overlay.fetch(&["treasure"]);
    let (status, events, errors) = fetch.end();
    assert!(status.success(), "{events:#?} {errors}");
    hidden.run.event("pushing");
    let got = fs::read(overlay.world.path("got/hidden treasure.bin")).expect("there");
    assert_eq!(got, fs::read(bytes).expect("read"));
}

#[test]
fn what_a_gnutella_network_has_is_found_and_fetched_through_a_supernode_in_both() {
    let overlay = Overlay::new();
    let both = ["--supernode", "--keep-role", "--gnutella", "127.0.0.1:0"];
    // It tells its place in the Gnutella network first.
    let both = overlay.node("both", &both);
    let bytes = overlay.world.file("far/a far away tune.ogg", 300_000, 9);
    let leaf = [
        "gnutella",
        "node",
        "--share",
        "far",
        "--connect",
        &both.addr,
    ];
    let leaf = [
        &leaf[..],
        &["--listen", "127.0.0.1:0", "--state-dir", "leaf"],
    ]
    .concat();
    let mut leaf = overlay.world.start(&leaf);
    let at = leaf.addr();
    let begun = Instant::now();
    let hit = loop {
        let find = ["supernode", "find", "far", "tune", "--login", &overlay.at];
        let find = [&find[..], &["--limit", "1", "--json"]].concat();
        let found = overlay.world.run(&find).json().into_iter();
        let mut hits = found.filter(|v| v["event"] == "supernode_hit");
        if let Some(hit) = hits.next() {
            break hit;
        }
        assert!(begun.elapsed() < LONG, "not found");
    };
    assert_eq!(hit["elsewhere"], true, "{hit}");
    assert_eq!((&hit["sharer"], &hit["addr"]), (&"both".into(), &at.into()));
    let (status, events, errors) = overlay.fetch(&["far", "tune"]).end();
    assert!(status.success(), "{events:#?} {errors}");
    let bytes = fs::read(bytes).expect("read");
    let got = fs::read(overlay.world.path("got/a far away tune.ogg")).expect("there");
    assert_eq!(got, bytes);
    // The link that `find` tells is enough too.
    let find = ["find", "far", "tune", "--via", "supernode"];
    let find = [&find[..], &["--login", &overlay.at]].concat();
    overlay.world.run(&find).expect(0);
    let fetch = ["fetch", "1", "--dir", "linked", "--listen", "127.0.0.1:0"];
    overlay.world.run(&fetch).expect(0);
    let linked = overlay.world.path("linked/a far away tune.ogg");
    assert_eq!(fs::read(linked).expect("there"), bytes);
}

/// What a supernode tells a node that shows it this token.
fn told(overlay: &Overlay, trusted: &SigningKey, token: Token, key: &SigningKey) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("bound");
    let list: SocketAddr = overlay.at.parse().expect("an address");
    let driver = NodeDriver::start(NodeSettings {
        place: Place::Reached(listener, at),
        serves: false,
        others: None,
        boxes: None,
        key: key.clone(),
        token,
        list,
        config: Config {
            may_change: false,
            ..Config::new(trusted.verifying_key().to_bytes(), Role::Peer)
        },
        files: Vec::new(),
        seed: 1,
    })
    .expect("started");
    let until = Instant::now() + LONG;
    loop {
        match driver.events.recv_deadline(until).expect("told") {
            Event::Refused(_, why) => return why.to_string(),
            Event::Home(Some(_)) => return "welcome".to_owned(),
            _ => {}
        }
    }
}

#[test]
fn bad_old_and_foreign_tokens_are_refused() {
    let overlay = Overlay::new();
    let _super = overlay.supernodes(1);
    let server = fs::read_to_string(overlay.world.path("login/key")).expect("kept");
    let server = SigningKey::from_bytes(&from_hex(server.trim()).expect("a key"));
    let (own, thief) = (
        SigningKey::from_bytes(&[1; 32]),
        SigningKey::from_bytes(&[2; 32]),
    );
    let key = own.verifying_key().to_bytes();
    let later = 4_000_000_000;
    let issue = |by: &SigningKey, expires| Token::issue(by, "mallory", key, expires);
    let mut renamed = issue(&server, later);
    renamed.name = "super0".to_owned();
    let cases = [
        ("good", issue(&server, later), &own, "welcome"),
        ("bad", renamed, &own, "the token is not by our login server"),
        (
            "old",
            issue(&server, 1_700_000_000),
            &own,
            "the token has expired",
        ),
        (
            "foreign",
            issue(&thief, later),
            &own,
            "the token is not by our login server",
        ),
        (
            "stolen",
            issue(&server, later),
            &thief,
            "it is not signed by the token's owner",
        ),
    ];
    for (what, token, key, wanted) in cases {
        assert_eq!(told(&overlay, &server, token, key), wanted, "{what}");
    }

    // A whole login server of another overlay's, by the commands.
    let other = [
        "serve",
        "login",
        "--listen",
        "127.0.0.1:0",
        "--dir",
        "other",
    ];
    let mut other = overlay.world.start(&other);
    let at = other.addr();
    let foreign = [
        "supernode",
        "find",
        "song",
        "--login",
        &at,
        "--list",
        &overlay.at,
    ];
    let ran = overlay
        .world
        .run(&[&foreign[..], &["--state-dir", "foreign"]].concat());
    ran.expect(5).says("the token is not by our login server");
    // A name is its first owner's, a server's key the one named.
    let thief = [
        "supernode",
        "node",
        "--name",
        "SUPER0",
        "--state-dir",
        "thief",
    ];
    let thief = [&thief[..], &["--login", &overlay.at]].concat();
    overlay
        .world
        .run(&thief)
        .expect(5)
        .says("the name is another's");
    let wrong = to_hex(&[7; 32]);
    let find = [
        "supernode",
        "find",
        "x",
        "--login",
        &overlay.at,
        "--trust",
        &wrong,
    ];
    overlay.world.run(&find).expect(5).says("has another key");
}

#[test]
fn what_is_not_there_and_who_is_not_there_have_their_exit_codes() {
    let mut overlay = Overlay::new();
    let list = ["supernode", "list", "--list", &overlay.at];
    overlay
        .world
        .run(&list)
        .expect(3)
        .says("no supernode is on the list");
    let _super = overlay.supernodes(1);
    let begun = Instant::now();
    while overlay.world.run(&list).code != 0 {
        assert!(begun.elapsed() < LONG, "not on the list");
    }
    let ask = |what: &[&str]| {
        let all = [&["supernode", "find", "--wait", "1"], what].concat();
        overlay.world.run(&all)
    };
    let login = ["--login", &overlay.at];
    ask(&[&["nothing"][..], &login].concat())
        .expect(3)
        .says("nobody shares \"nothing\"");
    ask(&["nothing"]).expect(2).says("no login server");
    ask(&[&["urn:sha1:ABC"][..], &login].concat())
        .expect(2)
        .says("not the name of a content");
    let find = [
        "find",
        "song",
        "super0",
        "--via",
        "supernode",
        "--wait",
        "2",
    ];
    let ran = overlay
        .world
        .run(&[&find[..], &login, &["--json"]].concat())
        .expect(0);
    let found = ran.json().into_iter().find(|v| v["event"] == "found");
    assert_eq!(found.expect("found")["sharer"], "super0");
    overlay.login.kill();
    ask(&[&["nothing"][..], &login].concat()).expect(4);
}

#[test]
fn the_library_is_free_while_a_node_shares_it() {
    let overlay = Overlay::new();
    overlay.world.file("music/a shared tune.ogg", 2000, 1);
    overlay.world.file("more/another tune.ogg", 2000, 2);
    let add = |folder| {
        let add = ["library", "add", folder, "--state-dir", "state-lib"];
        overlay.world.run(&add).expect(0);
    };
    add("music");
    let lib = overlay.node_with("lib", &["--supernode", "--keep-role", "--library"]);
    add("more");
    let (status, events, errors) = overlay.fetch(&["shared", "tune"]).end();
    assert!(status.success(), "{events:#?} {errors}");
    assert!(overlay.world.path("got/a shared tune.ogg").exists());
    drop(lib);
}
