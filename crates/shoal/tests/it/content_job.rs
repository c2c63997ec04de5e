//! Jobs whose input is content of a swarm.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::process::World;

/// Lines of words, the same for the same `seed`.
pub(crate) fn text(len: usize, seed: u64) -> String {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(len + 16);
    while text.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        text.push_str(&format!("w{}", x % 997));
        text.push(if x.is_multiple_of(11) { '\n' } else { ' ' });
    }
    text
}

/// How often each word stands in `text`, as a job writes it.
pub(crate) fn counted(text: &str) -> String {
    let mut counts = BTreeMap::new();
    for word in text.split_ascii_whitespace() {
        *counts.entry(word).or_insert(0u64) += 1;
    }
    counts
        .iter()
        .map(|(word, n)| format!("{word}\t{n}\n"))
        .collect()
}

/// The output of a job with one reduce task.
pub(crate) fn output(dir: &Path) -> String {
    assert!(dir.join("_SUCCESS").exists());
    fs::read_to_string(dir.join("part-r-00000")).expect("one output")
}

#[test]
fn words_are_counted_in_what_a_magnet_link_names() {
    let world = World::new();
    let (one, two) = (text(3_000_000, 1), text(500_000, 2));
    fs::create_dir_all(world.path("books/more")).expect("a folder");
    fs::write(world.path("books/one.txt"), &one).expect("a file");
    fs::write(world.path("books/more/two.txt"), &two).expect("a file");
    fs::write(world.path("books/.hidden"), "w0 w0 w0").expect("a file");
    let args = ["share", "books", "--torrent-out", "books.torrent"];
    let net = ["--listen", "127.0.0.1:0", "--no-dht", "--no-lsd"];
    let mut seed = world.start(&[&args[..], &net].concat());
    let addr = seed.addr();
    let link = seed.event("magnet")["magnet"].clone();
    let link = format!("{}&x.pe={addr}", link.as_str().expect("a link"));
    let offline = ["--content-listen", "127.0.0.1:0", "--no-dht", "--no-lsd"];
    let job = ["run", "wordcount", "--reduces", "1", "--split-size", "1MiB"];
    let io = ["--input", link.as_str(), "--output", "out"];
    world.run(&[&job[..], &io, &offline].concat()).expect(0);
    let expected = counted(&format!("{one}\n{two}"));
    assert!(output(&world.path("out")) == expected);

    // From a .torrent file and what is on disk, with nobody to ask.
    drop(seed);
    let io = ["--input", "books.torrent", "--output", "again"];
    let here = ["--content-dir", ".", "--state-dir", "state"];
    world
        .run(&[&job[..], &io, &offline, &here].concat())
        .expect(0);
    assert!(output(&world.path("again")) == expected);
    let io = ["--input", "magnet:?xt=urn:btih:12", "--output", "bad"];
    let ran = world.run(&[&job[..], &io, &offline].concat());
    assert_ne!(ran.code, 0);
    ran.says("xt: urn:btih: needs 40")
        .says("magnet:?xt=urn:btih:12");
}

#[test]
fn tasks_go_to_the_workers_that_hold_a_link_and_the_output_is_a_link_again() {
    const WORKERS: usize = 5;
    const PIECE: usize = 16 * 1024;
    let world = World::new();
    // Equal splits of it would end amid pieces.
    let mut all = text(80 * WORKERS * PIECE, 3);
    all.truncate(80 * WORKERS * PIECE - 9000);
    fs::write(world.path("text"), &all).expect("a file");
    let mut tracker = world.start(&["serve", "tracker", "--http", "127.0.0.1:0"]);
    let url = format!("http://{}/announce", tracker.addr());
    let made = [
        "torrent",
        "create",
        "text",
        "-o",
        "text.torrent",
        "--tracker",
        &url,
    ];
    let made = world.run(&[&made[..], &["--piece-size", "16KiB", "--json"]].concat());
    let made = made.expect(0).json();
    let link = made.iter().find_map(|event| event["magnet"].as_str());
    let link = link.expect("a link").to_owned();
    let mut master = world.start(&[
        "serve",
        "master",
        "--listen",
        "127.0.0.1:0",
        "--dir",
        "jobs",
    ]);
    let at = master.addr();
    let offline = ["--content-listen", "127.0.0.1:0", "--no-dht", "--no-lsd"];
    let mut workers = Vec::new();
    for n in 0..WORKERS {
        // A fifth of the content, and holes.
        let (from, to) = (n * 80 * PIECE, (n + 1) * 80 * PIECE);
        let mut part = vec![0; all.len()];
        let to = to.min(all.len());
        part[from..to].copy_from_slice(&all.as_bytes()[from..to]);
        let dir = format!("worker-{n}");
        fs::create_dir_all(world.path(&dir)).expect("a folder");
        fs::write(world.path(&dir).join("text"), part).expect("a file");
        let state = format!("state-{n}");
        let args = ["worker", "--master", &at, "--slots", "1", "--host", &dir];
        let content = [
            "--seed",
            "text.torrent",
            "--content-dir",
            &dir,
            "--state-dir",
            &state,
        ];
        let mut worker = world.start(&[&args[..], &content, &offline].concat());
        worker.event("worker_connected");
        workers.push(worker);
    }
    let job = ["run", "wordcount", "--reduces", "1", "--master", &at];
    let io = [
        "--input",
        &link,
        "--output",
        "out",
        "--split-size",
        "640KiB",
    ];
    let share = ["--share-output", "--tracker", &url];
    let mut ran = world.start(&[&job[..], &io, &offline, &share].concat());
    let done = ran.event("job_done");
    let at_home = &done["counters"]["shoal"]["map tasks at their input"];
    let result = ran.event("magnet")["magnet"].clone();
    let expected = counted(&all);
    assert!(output(&world.path("out")) == expected);
    // A sixth peer knows nothing but the link.
    let result = result.as_str().expect("a link");
    let fetch = ["fetch", result, "--dir", "sixth", "--listen", "127.0.0.1:0"];
    world
        .run(&[&fetch[..], &["--no-dht", "--no-lsd"]].concat())
        .expect(0);
    assert!(output(&world.path("sixth/out")) == expected);
    ran.signal(rustix::process::Signal::INT);
    assert_eq!(ran.end().0.code(), Some(130));
    let mut moved = 0;
    for worker in workers {
        worker.signal(rustix::process::Signal::INT);
        let (_, events, _) = worker.end();
        let told = events.iter().find(|e| e["event"] == "content");
        moved += told.expect("traffic is told")["downloaded"]
            .as_u64()
            .expect("a number");
    }
    let share = moved as f64 / all.len() as f64;
    // A map task reads on to the end of its last line: a piece at each border between two parts,
    // and none twice; unless a worker was so slow that another took its task.
    let borders = ((WORKERS - 1) * PIECE) as u64;
    assert!(moved <= borders || at_home != 10, "{moved} bytes moved");
    assert!(share < 0.1, "{moved} of {} bytes moved", all.len());
}
