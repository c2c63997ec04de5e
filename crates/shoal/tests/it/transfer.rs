//! `shoal share` and `shoal fetch` between processes on loopback.

use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{Running, World};

const MIB: usize = 1 << 20;

/// Shares `args`; the process and the magnet link, which names its address.
fn share(world: &World, args: &[&str]) -> (Running, String) {
    let mut all = vec!["share", "--listen", "127.0.0.1:0", "--no-lsd"];
    all.extend(args);
    let mut running = world.start(&all);
    let magnet = running.event("magnet")["magnet"]
        .as_str()
        .expect("a link")
        .to_owned();
    (running, magnet)
}

fn fetch_args<'a>(what: &'a str, dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "fetch",
        what,
        "--dir",
        dir,
        "--listen",
        "127.0.0.1:0",
        "--no-lsd",
    ];
    all.extend(more);
    all
}

#[track_caller]
fn complete(running: Running) -> Vec<Value> {
    let (status, seen, stderr) = running.end();
    assert_eq!(status.code(), Some(0), "{seen:#?} {stderr}");
    assert_eq!(
        seen.last().expect("events")["event"],
        "complete",
        "{seen:#?}"
    );
    seen
}

#[track_caller]
fn assert_same(a: impl AsRef<Path>, b: impl AsRef<Path>) {
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([a.as_ref(), b.as_ref()])
        .output()
        .expect("diff runs");
    assert!(
        diff.status.success(),
        "{}",
        String::from_utf8_lossy(&diff.stdout)
    );
}

#[test]
fn a_folder_of_many_small_files_arrives_exactly() {
    let world = World::new();
    for n in 0..300_usize {
        world.file(&format!("src/d{}/f{n}", n % 7), n * n % 50_000, n as u64);
    }
    let run = world.file("src/run.sh", 50, 1);
    fs::set_permissions(run, fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink("d1/f1", world.path("src/link")).expect("a link");
    let (_seeder, magnet) = share(&world, &["src"]);
    let seen = complete(world.start(&fetch_args(&magnet, "out", &[])));

    assert_same(world.path("src"), world.path("out/src"));
    let mode = fs::metadata(world.path("out/src/run.sh"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o100, 0o100, "the executable bit is kept");
    let done = seen.last().expect("complete");
    assert_eq!(done["path"], world.path("out/src").to_str().expect("UTF-8"));
    let metadata = seen
        .iter()
        .find(|v| v["event"] == "metadata")
        .expect("metadata");
    assert_eq!(metadata["name"], "src");
    assert_eq!(metadata["files"], 302);
    assert_eq!(metadata["bytes"], done["bytes"]);
    let left: Vec<_> = fs::read_dir(world.path("home/.local/state/shoal"))
        .map(|dir| dir.flatten().map(|e| e.file_name()))
        // The seeder's hashes are kept, so that it need not hash again.
        .map(|names| {
            names
                .filter(|name| name != "dht-contacts" && name != "library")
                .collect()
        })
        .unwrap_or_default();
    assert!(
        left.len() <= 1,
        "a finished fetch leaves no state behind: {left:?}"
    );
}

#[test]
fn progress_keeps_the_json_contract() {
    let world = World::new();
    world.file("big", 12 * MIB, 1);
    let (_seeder, magnet) = share(&world, &["big", "--up-limit", "6MiB"]);
    let seen = complete(world.start(&fetch_args(&magnet, ".out", &[])));
    let progress: Vec<_> = seen.iter().filter(|v| v["event"] == "progress").collect();
    let mut last = 0;
    for p in &progress {
        let number = |key: &str| p[key].as_u64().unwrap_or_else(|| panic!("{key} in {p}"));
        for key in [
            "bytes_total",
            "rate_down",
            "rate_up",
            "peers",
            "downloaded",
            "uploaded",
            "seeds",
        ] {
            number(key);
        }
        assert!(p["eta_s"].is_u64() || p["eta_s"].is_null());
        assert_eq!(p["info_hash_v1"].as_str().map(str::len), Some(40));
        assert!(number("bytes_done") >= last);
        last = number("bytes_done");
    }
    assert_eq!(last, 12 * MIB as u64, "one last progress at completion");
    let done = seen.last().expect("complete");
    assert_eq!(done["bytes"], 12 * MIB);
    let seconds = done["seconds"].as_f64().expect("seconds");
    // Four a second, the first at once, and the last at completion.
    assert!(
        progress.len() as f64 <= seconds * 4.0 + 3.0,
        "{} in {seconds} s",
        progress.len()
    );
    assert!(seconds > 0.5, "the seeder's limit holds: {seconds}");
}

#[test]
fn a_torrent_file_with_a_peer_works_and_a_second_run_finds_it_complete() {
    let world = World::new();
    world.file("data.bin", 3 * MIB + 17, 5);
    let (mut seeder, _) = share(&world, &["data.bin", "--torrent-out", "data.torrent"]);
    let addr = seeder
        .seen
        .iter()
        .find(|v| v["event"] == "listening")
        .expect("it listens")["addr"]
        .as_str()
        .expect("an address")
        .to_owned();
    let args = fetch_args("data.torrent", "out", &["--peer", &addr]);
    complete(world.start(&args));
    assert_same(world.path("data.bin"), world.path("out/data.bin"));
    seeder.kill();

    let seen = complete(world.start(&args));
    assert_eq!(seen.last().expect("complete")["downloaded"], 0);
    let ran = world.run(&args).expect(0);
    let path = world.path("out/data.bin");
    assert_eq!(ran.stdout.trim_end(), path.to_str().expect("UTF-8"));
    world
        .run(&["torrent", "verify", "data.torrent", "out"])
        .expect(0);
}

/// Waits until `running` has some but not all of the bytes.
fn part_way(running: &mut Running, at_least: usize) {
    running.wait_for("progress part of the way", |v| {
        let done = v["bytes_done"].as_u64().unwrap_or(0);
        v["event"] == "progress" && done >= at_least as u64
    });
}

#[test]
fn a_killed_fetch_goes_on_where_it_was() {
    let world = World::new();
    let total = 24 * MIB;
    world.file("big", total, 3);
    let (_seeder, magnet) = share(
        &world,
        &["big", "--up-limit", "12MiB", "--piece-size", "256K"],
    );
    let args = fetch_args(&magnet, "out", &[]);
    let mut had = 0;
    for round in 1..=3 {
        let mut running = world.start(&args);
        part_way(&mut running, round * 5 * MIB);
        running.kill();
        let before = had;
        had = running
            .seen
            .iter()
            .filter_map(|v| v["bytes_done"].as_u64())
            .max()
            .expect("progress");
        assert!(had > before);
    }
    let seen = complete(world.start(&args));
    let done = seen.last().expect("complete");
    let downloaded = done["downloaded"].as_u64().expect("a number");
    // What was verified is not fetched again; blocks in flight at the kill may be.
    assert!(
        downloaded <= total as u64 - had + MIB as u64,
        "{downloaded} fetched again although {had} of {total} were there"
    );
    assert!(
        !seen.iter().any(|v| v["event"] == "checking"),
        "no recheck: {seen:#?}"
    );
    assert_same(world.path("big"), world.path("out/big"));
}

#[test]
fn ctrl_c_keeps_everything_and_exits_130() {
    let world = World::new();
    world.file("big", 16 * MIB, 3);
    let (seeder, magnet) = share(&world, &["big", "--up-limit", "8MiB"]);
    let args = fetch_args(&magnet, "out", &[]);
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = world.start(&args);
        part_way(&mut running, 1);
        running.signal(signal);
        let (status, seen, _) = running.end();
        assert_eq!(status.code(), Some(130), "{signal:?}");
        let last = seen.last().expect("events");
        assert_eq!(last["event"], "interrupted");
        assert!(last["bytes_done"].as_u64() > Some(0));
    }
    let seen = complete(world.start(&args));
    assert!(seen.last().expect("complete")["downloaded"].as_u64() < Some(16 * MIB as u64));
    assert_same(world.path("big"), world.path("out/big"));

    seeder.signal(Signal::INT);
    let (status, ..) = seeder.end();
    assert_eq!(status.code(), Some(130));
}

#[test]
fn fetches_at_the_same_time_do_not_disturb_each_other() {
    let world = World::new();
    world.file("one/a", 5 * MIB, 1);
    world.file("two", 4 * MIB, 2);
    let (_a, one) = share(&world, &["one"]);
    let (_b, two) = share(&world, &["two"]);
    let all: Vec<_> = [(&one, "x"), (&two, "x"), (&one, "y"), (&two, "y")]
        .into_iter()
        .map(|(magnet, dir)| world.start(&fetch_args(magnet, dir, &[])))
        .collect();
    for running in all {
        complete(running);
    }
    for dir in ["x", "y"] {
        assert_same(world.path("one"), world.path(dir).join("one"));
        assert_same(world.path("two"), world.path(dir).join("two"));
    }
}

#[test]
fn who_fetched_with_seed_serves_others() {
    let world = World::new();
    world.file("data", 3 * MIB, 9);
    let (mut seeder, magnet) = share(&world, &["data", "--torrent-out", "d.torrent"]);
    let mut second = world.start(&fetch_args(&magnet, "b", &["--seed"]));
    let addr = second.addr();
    second.event("complete");
    seeder.kill();
    complete(world.start(&fetch_args("d.torrent", "c", &["--peer", &addr])));
    assert_same(world.path("data"), world.path("c/data"));
    second.signal(Signal::INT);
    assert_eq!(second.end().0.code(), Some(130));
}

#[test]
fn only_the_selected_files_are_fetched() {
    let world = World::new();
    for name in ["a.iso", "b.txt", "docs/c.txt"] {
        world.file(&format!("set/{name}"), 300_000, name.len() as u64);
    }
    let (_seeder, magnet) = share(&world, &["set", "--torrent-out", "set.torrent"]);
    let peer = magnet
        .rsplit_once("x.pe=")
        .expect("an address")
        .1
        .replace("%3A", ":");
    for (n, (what, select)) in [(magnet.as_str(), "*.iso"), ("set.torrent", "1")]
        .into_iter()
        .enumerate()
    {
        let dir = format!("out{n}");
        let seen = complete(world.start(&fetch_args(
            what,
            &dir,
            &["--select", select, "--peer", &peer],
        )));
        assert_same(world.path("set/a.iso"), world.path(&dir).join("set/a.iso"));
        assert!(!world.path(&dir).join("set/docs/c.txt").exists(), "{what}");
        let done = seen.last().expect("complete");
        assert!(done["bytes"].as_u64() < Some(600_000), "{done}");
    }
    world
        .run(&fetch_args("set.torrent", "out9", &["--select", "*.mp3"]))
        .expect(3)
        .says("*.mp3");
}

#[test]
fn several_paths_are_several_torrents() {
    let world = World::new();
    world.file("one", 100_000, 1);
    world.file("two", 100_000, 2);
    fs::create_dir(world.path("torrents")).expect("a folder");
    let mut seeder = world.start(&[
        "share",
        "one",
        "two",
        "--listen",
        "127.0.0.1:0",
        "--no-lsd",
        "--torrent-out",
        "torrents",
    ]);
    for name in ["one", "two"] {
        let event = seeder.event("magnet");
        assert_eq!(event["name"], name);
        let magnet = event["magnet"].as_str().expect("a link");
        complete(world.start(&fetch_args(magnet, "out", &[])));
        assert_same(world.path(name), world.path("out").join(name));
        let torrent = format!("torrents/{name}.torrent");
        world.run(&["torrent", "verify", &torrent, "."]).expect(0);
    }
}

#[test]
fn a_renamed_share_is_fetched_under_its_new_name() {
    let world = World::new();
    world.file("folder/x", 200_000, 1);
    let (_seeder, magnet) = share(&world, &["folder", "--name", "other"]);
    complete(world.start(&fetch_args(&magnet, "out", &[])));
    assert_same(world.path("folder"), world.path("out/other"));
}

#[test]
fn a_fetch_that_finds_nobody_times_out_with_exit_4() {
    let world = World::new();
    let ran = world.run(&fetch_args(&"ab".repeat(20), "out", &["--timeout", "1"]));
    ran.expect(4).says("no peers found").says("hint:");
    let json = world.run(&fetch_args(
        &"ab".repeat(20),
        "out",
        &["--timeout", "1", "--json"],
    ));
    let error = json.expect(4).json().pop().expect("an error");
    assert_eq!(error["event"], "error");
    assert_eq!(error["code"], 4);
}

#[test]
fn a_timeout_names_the_leg_that_failed() {
    let world = World::new();
    // Nobody has the metadata.
    let hash = "cd".repeat(20);
    let mut other = world.start(&fetch_args(&hash, "a", &[]));
    let addr = other.addr();
    let ran = world.run(&fetch_args(
        &hash,
        "b",
        &["--peer", &addr, "--timeout", "2"],
    ));
    ran.expect(4).says("metadata not found: 1 peer connected");

    // Nobody has all of the data.
    world.file("set/a", 400_000, 1);
    world.file("set/b", 400_000, 2);
    let (mut seeder, magnet) = share(&world, &["set", "--torrent-out", "set.torrent"]);
    let mut part = world.start(&fetch_args(&magnet, "part", &["--select", "a", "--seed"]));
    let addr = part.addr();
    part.event("complete");
    seeder.kill();
    let args = ["--peer", &addr, "--timeout", "3"];
    let ran = world.run(&fetch_args("set.torrent", "c", &args));
    ran.expect(4)
        .says("stalled at")
        .says("none sends what is missing");

    // Nobody answers, and the DHT knows nobody who fetches this.
    let hash = "ef".repeat(20);
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = unused.local_addr().expect("bound").to_string();
    drop(unused);
    let tracker = format!("http://{addr}/announce");
    let args = ["--tracker", &tracker, "--timeout", "3"];
    let ran = world.run(&fetch_args(&hash, "d", &args));
    ran.expect(4)
        .says("no peers found")
        .says(&format!("tracker {tracker}: "));
}

#[test]
fn what_cannot_be_fetched_is_refused_with_the_reason() {
    let world = World::new();
    world.file("file", 10, 1);
    world.file("x", 100_000, 1);
    world.run(&["torrent", "create", "x"]).expect(0);
    for (what, more, code, reason) in [
        ("nothing.torrent", &[][..], 3, "nothing.torrent"),
        ("magnet:?xt=urn:btih:zz", &[], 1, "magnet"),
        ("x.torrent", &["--dir", "file"], 1, "file"),
        ("x.torrent", &["--peer", "nonsense"], 2, "nonsense"),
        ("x.torrent", &["--select", "7"], 3, "numbered from 1 to 1"),
        ("x.torrent", &["--listen", "192.0.2.1:0"], 1, "192.0.2.1"),
    ] {
        let mut args = vec!["fetch", what, "--no-lsd", "--timeout", "1"];
        args.extend(more);
        let ran = world.run(&args).expect(code).says("error: ");
        assert!(ran.stderr.contains(reason), "{args:?}: {}", ran.stderr);
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let ran = world.run(&["fetch", "x.torrent", "--listen", &addr, "--no-lsd"]);
    ran.expect(1).says("cannot listen").says("another port");
}

/// Serves `body` with `status` to one request.
fn serve_once(status: &'static str, body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let Ok((mut socket, _)) = listener.accept() else {
            return;
        };
        let mut request = [0; 4096];
        let _ = socket.read(&mut request);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = socket.write_all(head.as_bytes());
        let _ = socket.write_all(&body);
    });
    format!("http://{addr}/x.torrent")
}

#[test]
fn a_torrent_file_is_fetched_from_a_url() {
    let world = World::new();
    world.file("x", 100_000, 1);
    world.run(&["torrent", "create", "x"]).expect(0);
    let torrent = fs::read(world.path("x.torrent")).expect("made");
    let url = serve_once("200 OK", torrent);
    // The data lies in the folder already.
    let seen = complete(world.start(&fetch_args(&url, ".", &[])));
    assert_eq!(seen.last().expect("complete")["downloaded"], 0);

    for (status, code) in [
        ("404 Not Found", 3),
        ("403 Forbidden", 5),
        ("500 Internal Server Error", 1),
    ] {
        let url = serve_once(status, Vec::new());
        world
            .run(&fetch_args(&url, ".", &[]))
            .expect(code)
            .says("cannot download");
    }
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = unused.local_addr().expect("bound");
    drop(unused);
    let url = format!("http://{addr}/x.torrent");
    world.run(&fetch_args(&url, ".", &[])).expect(4);
    let url = serve_once("200 OK", b"<html>".to_vec());
    world
        .run(&fetch_args(&url, ".", &[]))
        .expect(1)
        .says("web page");
}

#[test]
fn a_reader_that_goes_away_ends_a_share_without_error() {
    let world = World::new();
    world.file("x", 100_000, 1);
    let mut child = world
        .command(&[
            "share",
            "x",
            "--listen",
            "127.0.0.1:0",
            "--no-lsd",
            "--json",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn the_same_transfer_twice_at_once_is_refused_with_the_reason() {
    let world = World::new();
    let hash = "ab".repeat(20);
    let args = fetch_args(&hash, "out", &[]);
    let mut first = world.start(&args);
    first.event("listening");
    let ran = world
        .run(&args)
        .expect(1)
        .says("another process")
        .says("hint:");
    assert!(ran.stdout.is_empty());
}

#[test]
fn state_is_kept_where_the_flag_or_the_environment_says() {
    let world = World::new();
    let hash = "ab".repeat(20);
    let mut by_flag = world.start(&fetch_args(&hash, "out", &["--state-dir", "flag"]));
    by_flag.event("listening");
    let by_env = world
        .command(&fetch_args(&hash, "out", &["--timeout", "1"]))
        .env("SHOAL_STATE_DIR", world.path("env"))
        .output()
        .expect("it starts");
    assert_eq!(by_env.status.code(), Some(4), "{by_env:?}");
    for dir in ["flag", "env"] {
        let folders = fs::read_dir(world.path(dir)).expect("it was made").count();
        assert_eq!(folders, 1, "{dir}");
    }
    assert!(!world.path("home/.local").exists());
}

/// Serves byte ranges of `body` to every connection, as a web seed does; its URL.
fn range_server(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let body = body.clone();
            std::thread::spawn(move || answer_ranges(socket, &body));
        }
    });
    format!("http://{addr}/big")
}

fn answer_ranges(socket: TcpStream, body: &[u8]) -> Option<()> {
    let mut requests = BufReader::new(socket.try_clone().ok()?);
    let mut socket = socket;
    loop {
        let mut range = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(bytes) = line.strip_prefix("range: bytes=") {
                let (first, last) = bytes.split_once('-')?;
                range = Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?));
            }
        }
        let (first, last) = range?;
        let part = body.get(first..=last.min(body.len() - 1))?;
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
            body.len(),
            part.len()
        );
        socket.write_all(head.as_bytes()).ok()?;
        socket.write_all(part).ok()?;
    }
}

#[test]
fn a_web_server_alone_is_enough() {
    let world = World::new();
    let path = world.file("big", 5 * MIB + 5, 4);
    let url = range_server(fs::read(path).expect("made"));
    world
        .run(&["torrent", "create", "big", "--web-seed", &url])
        .expect(0);
    let seen = complete(world.start(&fetch_args("big.torrent", "out", &[])));
    assert_same(world.path("big"), world.path("out/big"));
    assert_eq!(seen.last().expect("complete")["downloaded"], 5 * MIB + 5);

    world
        .run(&["torrent", "create", "big", "--force"])
        .expect(0);
    complete(world.start(&fetch_args("big.torrent", "out2", &["--web-seed", &url])));
    assert_same(world.path("big"), world.path("out2/big"));
}
