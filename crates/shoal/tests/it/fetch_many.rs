//! `shoal fetch` from four kinds of source at once: a BitTorrent peer, Gnutella hosts, users of a
//! Napster hub, a web seed, each a process of its own but for the web server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, World};

const MIB: usize = 1 << 20;
const LEN: usize = 24 * MIB + 4321;

/// Everything that has the file.
struct Sources {
    bytes: Vec<u8>,
    /// The link's parts: info-hash, SHA-1, peer, hosts, users, web seed.
    btih: String,
    peer: String,
    urn: String,
    host: String,
    hub: String,
    web: String,
    /// Bytes a second that the web server sends on a connection.
    web_rate: Arc<AtomicUsize>,
    gnutella: Running,
    alice: Running,
    _others: Vec<Running>,
}

/// A web server that sends ranges of one file, `rate` bytes a second on each connection; its URL.
fn web_server(path: PathBuf, rate: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (path, rate) = (path.clone(), Arc::clone(&rate));
            std::thread::spawn(move || {
                // The other end goes when it likes.
                let _ = answer(stream, &path, &rate);
            });
        }
    });
    format!("http://{addr}/song.bin")
}

fn answer(stream: TcpStream, path: &Path, rate: &AtomicUsize) -> std::io::Result<()> {
    let data = fs::read(path)?;
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let (mut first, mut last) = (0, data.len() - 1);
        loop {
            let Some(line) = lines.next().transpose()? else {
                return Ok(());
            };
            if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
                let (a, b) = range.split_once('-').expect("a range");
                first = a.parse().expect("a number");
                last = b.parse().unwrap_or(last);
            }
            if line.is_empty() {
                break;
            }
        }
        let body = &data[first..=last];
        write!(
            out,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
            data.len(),
            body.len()
        )?;
        for part in body.chunks(16 << 10) {
            out.write_all(part)?;
            let rate = rate.load(Ordering::Relaxed) as f64;
            // The server is slow on purpose: this is what is tested.
            std::thread::sleep(Duration::from_secs_f64(part.len() as f64 / rate));
        }
    }
}

fn user(world: &World, hub: &str, nick: &str, dir: &str) -> Running {
    let file = format!("{dir}/song.bin");
    let args = ["napster", "share", &file, "--hub", hub, "--nick", nick];
    let mut user = world.start(&[&args[..], &["--listen", "127.0.0.1:0"]].concat());
    user.wait_for("a hub", |v| v["event"] == "hub" && v["connected"] == true);
    user
}

impl Sources {
    /// Alice's bytes are right, mallory's are not.
    fn start(world: &World) -> Self {
        let path = world.file("one/song.bin", LEN, 3);
        let bytes = fs::read(&path).expect("read");
        fs::create_dir(world.path("two")).expect("a folder");
        let bad: Vec<u8> = bytes.iter().map(|b| !b).collect();
        fs::write(world.path("two/song.bin"), bad).expect("written");
        let mut share = world.start(&[
            "share",
            "one/song.bin",
            "--listen",
            "127.0.0.1:0",
            "--no-dht",
            "--no-lsd",
            "--piece-size",
            "64KiB",
            "--state-dir",
            "state-share",
        ]);
        let peer = share.addr();
        let btih = share.event("magnet")["info_hash_v1"]
            .as_str()
            .expect("a hash")
            .to_owned();
        let mut gnutella = world.start(&[
            "gnutella",
            "serve",
            "one",
            "--listen",
            "127.0.0.1:0",
            "--per-host",
            "9",
            "--max-range",
            "256KiB",
            "--state-dir",
            "state-gnutella",
        ]);
        let urn = gnutella.event("serving")["urn"]
            .as_str()
            .expect("a name")
            .to_owned();
        let host = gnutella.addr();
        let mut hub_process = world.start(&["serve", "napster", "--listen", "127.0.0.1:0"]);
        let hub = hub_process.addr();
        let alice = user(world, &hub, "alice", "one");
        let mallory = user(world, &hub, "mallory", "two");
        let web_rate = Arc::new(AtomicUsize::new(2 * MIB));
        Self {
            bytes,
            btih,
            peer,
            urn,
            host,
            hub,
            web: web_server(path, Arc::clone(&web_rate)),
            web_rate,
            gnutella,
            alice,
            _others: vec![share, hub_process, mallory],
        }
    }

    fn sha1(&self) -> &str {
        let hash = self.urn.strip_prefix("urn:bitprint:").expect("a bitprint");
        hash.split('.').next().expect("a SHA-1")
    }

    /// The one link that names them all; `torrent`: with what BitTorrent needs.
    fn link(&self, torrent: bool) -> String {
        let mut link = "magnet:?".to_owned();
        if torrent {
            link += &format!("xt=urn:btih:{}&x.pe={}&", self.btih, self.peer);
        }
        let (sha1, hub) = (self.sha1(), &self.hub);
        link + &format!(
            "xt={}&xl={LEN}&dn=song.bin&ws={}&xs=http://{}/uri-res/N2R%3Furn:sha1:{sha1}\
             &xs=napster://{hub}/mallory/song.bin&xs=napster://{hub}/alice/song.bin",
            self.urn, self.web, self.host
        )
    }
}

fn args<'a>(link: &'a str, limit: &'a str) -> Vec<&'a str> {
    vec![
        "fetch",
        link,
        "--dir",
        "got",
        "--listen",
        "127.0.0.1:0",
        "--no-dht",
        "--no-lsd",
        "--timeout",
        "60",
        "--down-limit",
        limit,
        "--state-dir",
        "state-fetch",
    ]
}

/// What a kind of source has sent by a progress event.
fn bytes_of(progress: &Value, kind: &str) -> u64 {
    let kinds = progress["by_kind"].as_array().expect("a list").iter();
    let of_kind = kinds.filter(|k| k["kind"] == kind);
    of_kind.filter_map(|k| k["bytes"].as_u64()).sum()
}

fn is_banned(event: &Value, who: &str) -> bool {
    let source = event["source"].as_str().unwrap_or_default();
    event["event"] == "source" && event["state"] == "banned" && source.starts_with(who)
}

#[test]
fn four_kinds_at_once_one_killed_one_corrupt_one_slow() {
    let world = World::new();
    let mut sources = Sources::start(&world);
    let link = sources.link(true);
    let mut fetch = world.start(&args(&link, "4MiB"));
    // All four kinds have sent something before one of them dies.
    let kinds = ["bittorrent", "gnutella", "napster", "web"];
    fetch.wait_for("bytes of every kind", |v| {
        v["event"] == "progress" && kinds.iter().all(|kind| bytes_of(v, kind) > 0)
    });
    sources.gnutella.kill();
    sources.web_rate.store(32 << 10, Ordering::Relaxed);
    let (status, events, errors) = fetch.end();
    assert!(status.success(), "{events:#?} {errors}");
    assert!(
        events.iter().any(|v| is_banned(v, "mallory@")),
        "{events:#?}"
    );
    assert!(!events.iter().any(|v| is_banned(v, "alice@")));
    let lost = |v: &Value| v["event"] == "source" && v["source"] == sources.host.as_str();
    assert!(
        events.iter().any(|v| lost(v) && v["state"] == "failed"),
        "{events:#?}"
    );
    let got = fs::read(world.path("got/song.bin")).expect("there");
    assert!(got == sources.bytes);
}

#[test]
fn after_a_kill_what_was_verified_is_not_fetched_again() {
    let world = World::new();
    let sources = Sources::start(&world);
    let link = sources.link(true);
    let mut fetch = world.start(&args(&link, "6MiB"));
    let half = fetch.wait_for("half of it", |v| {
        v["event"] == "progress" && v["bytes_done"].as_u64() > Some(LEN as u64 / 2)
    });
    fetch.kill();
    let done = half["bytes_done"].as_u64().expect("a number");
    let (status, events, errors) = world.start(&args(&link, "0")).end();
    assert!(status.success(), "{events:#?} {errors}");
    let complete = events
        .iter()
        .find(|v| v["event"] == "complete")
        .expect("one");
    let again = complete["downloaded"].as_u64().expect("a number");
    // What was under way from each source may come twice, what mallory sends in vain too.
    let slack = 4 * MIB as u64;
    assert!(
        again <= LEN as u64 - done + slack,
        "{again} after {done} of {LEN}"
    );
    let got = fs::read(world.path("got/song.bin")).expect("there");
    assert!(got == sources.bytes);
}

#[test]
fn a_file_without_a_torrent_comes_from_hosts_users_and_web_servers() {
    let world = World::new();
    let mut sources = Sources::start(&world);
    let link = sources.link(false);
    let fetch = world.start(&args(&link, "0"));
    let (status, events, errors) = fetch.end();
    assert!(status.success(), "{events:#?} {errors}");
    let known = events
        .iter()
        .find(|v| v["event"] == "file_known")
        .expect("one");
    assert!(known["tree"].is_string());
    let got = fs::read(world.path("got/song.bin")).expect("there");
    assert!(got == sources.bytes);
    // Without its host, and so without a tree: mallory is found out when the whole is wrong.
    sources.gnutella.kill();
    let mut link = link.replace("&ws=", "&x-ws=");
    link = link.replace("&xs=http", "&x-xs=http");
    let mut again = args(&link, "0");
    let at = again.iter().position(|a| *a == "got").expect("named");
    again[at] = "again";
    let (status, events, errors) = world.start(&again).end();
    assert!(status.success(), "{events:#?} {errors}");
    assert!(
        events.iter().any(|v| is_banned(v, "mallory@")),
        "{events:#?}"
    );
    let got = fs::read(world.path("again/song.bin")).expect("there");
    assert!(got == sources.bytes);
    // The next search knows who lied, and who gave how fast.
    let hosts = fs::read_to_string(world.path("state-fetch/hosts")).expect("kept");
    let of = |who: &str| hosts.lines().find(|line| line.contains(who));
    assert!(
        of(" mallory@").is_some_and(|line| line.contains(" lied ")),
        "{hosts}"
    );
    let rated = |line: &str| line.split(' ').nth(2).is_some_and(|rate| rate != "-");
    assert!(hosts.lines().any(rated), "{hosts}");
    drop(sources.alice);
}

#[test]
fn a_link_of_two_contents_is_found_out_at_the_end() {
    let world = World::new();
    let sources = Sources::start(&world);
    let link = sources.link(true);
    let other = "urn:sha1:".to_owned() + &"A".repeat(32);
    let link = link.replace(&sources.urn, &other);
    let (status, events, errors) = world.start(&args(&link, "0")).end();
    assert_eq!(status.code(), Some(1), "{events:#?}");
    assert!(
        errors.contains("is not the file that the link names"),
        "{errors}"
    );
}

#[test]
fn what_find_told_is_fetched_by_its_number() {
    let world = World::new();
    let sources = Sources::start(&world);
    let hub = sources.hub.as_str();
    let found = world
        .run(&["find", "song", "--hub", hub, "--no-ping", "--json"])
        .expect(0);
    let hits = found.json();
    let hit = hits.iter().find(|v| v["event"] == "found").expect("one");
    let link = hit["link"].as_str().expect("a link");
    assert!(link.contains("napster%3A%2F%2F"), "{link}");
    let n = hit["n"].to_string();
    let ran = world
        .run(&["fetch", &n, "--dir", "got", "--listen", "127.0.0.1:0"])
        .expect(0);
    assert_eq!(
        ran.stdout.trim(),
        world.path("got/song.bin").to_string_lossy()
    );
    world.run(&["fetch", "77"]).expect(3).says("no result 77");
    let urn = format!("urn:sha1:{}", sources.sha1());
    world
        .run(&["fetch", &urn])
        .expect(3)
        .says("nobody is known");
}
