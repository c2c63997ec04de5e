//! Faults of jobs that are rarer or take longer: a full disk, a straggler, a master that is killed
//! again and again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use shoal_mapreduce::log::{Reader, Record};

use crate::jobs::{SUMS, WORDS, books, master, notes, one_each, output, script, streaming, worker};
use crate::process::{LONG, World};

/// The only job of a master.
fn show(world: &World, addr: &str) -> Value {
    let shown = world
        .run(&["job", "show", "1", "--master", addr, "--json"])
        .expect(0);
    serde_json::from_str(&shown.stdout).expect("a job")
}

#[test]
fn a_full_disk_on_one_worker_fails_its_attempts_there_and_nothing_else() {
    let world = World::new();
    let books = world.path("books");
    fs::create_dir(&books).expect("a folder");
    let mut expected = Vec::new();
    for n in 0..3 {
        // What does not pack well, so that map output is too much for the disk.
        let raw = fs::read(world.file("raw", 300_000, n + 1)).expect("a file");
        let line = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let lines: Vec<String> = raw.chunks(40).map(line).collect();
        fs::write(books.join(format!("b{n}")), lines.join("\n") + "\n").expect("a book");
        expected.extend(lines);
    }
    expected.sort();
    let (_master, addr) = master(&world, "127.0.0.1:0");
    fs::create_dir(world.path("w1")).expect("a folder");
    let args = [
        "worker", "--master", &addr, "--slots", "1", "--dir", "w1", "--host", "w1",
    ];
    let Some(mut full) = world.start_on_small_disk(&args, &world.path("w1"), 128 << 10) else {
        let _ = writeln!(
            std::io::stderr(),
            "not tested: mounting a disk is not allowed here"
        );
        return;
    };
    full.event("worker_connected");
    let _other = worker(&world, &addr, "w2");
    let map = script(
        &world,
        "m",
        "case $PWD in */w2/*) note $T ran;; esac; cat\n",
    );
    let split = one_each(&books);
    let mut args = streaming(&addr, &map, "/bin/cat", &split);
    // So little memory that map output goes to files.
    args.extend(["--memory", "1MiB"]);
    let run = world.start(&args);
    let ended = full.wait_for("a failed attempt", |v| {
        v["event"] == "attempt_ended" && !v["error"].is_null()
    });
    let why = ended["error"].as_str().unwrap_or_default();
    assert!(why.contains("No space left"), "{why}");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    // A line without a value reaches the reducer with its tab, as under Hadoop.
    let out = output(&world.path("out")).replace('\t', "");
    assert!(out == expected.join("\n") + "\n", "the output differs");
    let mut ran = notes(&world, "ran");
    ran.dedup();
    assert_eq!(ran, ["0", "1", "2"], "all maps ran elsewhere");
    let job = show(&world, &addr);
    let failures = job["failures"].as_array().expect("a list");
    assert!(!failures.is_empty());
    for failure in failures {
        assert_eq!(failure["host"], "w1");
        assert!(
            failure["what"]
                .as_str()
                .expect("text")
                .contains("No space left")
        );
    }
    let hosts = job["hosts_failed"].as_object().expect("hosts");
    assert_eq!(hosts.keys().collect::<Vec<_>>(), ["w1"], "{job:#}");
}

#[test]
fn a_straggler_is_overtaken_by_its_backup_task_and_nothing_comes_twice() {
    let world = World::new();
    let (books, expected) = books(&world, 4, 40);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let mut slow = worker(&world, &addr, "w1");
    // Forty lines at three seconds each take two minutes; elsewhere it is no time at all. The task
    // is small: its input is in the pipe at once, so that only the time it stands still tells.
    let body = format!(
        "note $T ran\n\
         case $PWD in */w1/*) while read -r l; do sleep 3; echo \"$l\"; done;; *) cat;; esac | {WORDS}"
    );
    let (map, reduce) = (script(&world, "m", &body), script(&world, "r", SUMS));
    let split = one_each(&books);
    let run = world.start(&streaming(&addr, &map, &reduce, &split));
    slow.event("attempt_started");
    let _others = [worker(&world, &addr, "w2"), worker(&world, &addr, "w3")];
    let killed = slow.event("attempt_ended");
    let (status, seen, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert_eq!(output(&world.path("out")), expected);
    assert!(
        !killed["error"].is_null(),
        "the straggler did not count: {killed}"
    );
    // The map and the backup of it; every other task once.
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for task in notes(&world, "ran") {
        *times.entry(task).or_default() += 1;
    }
    assert_eq!(times.len(), 4);
    assert_eq!(times.values().sum::<u32>(), 5, "{times:?}");
    let done = seen.last().expect("events");
    let counted = &done["counters"]["shoal"];
    assert_eq!(counted["backup_tasks"], 1, "{done:#}");
    // What a killed attempt counted does not count.
    let lines = 4 * 40;
    assert_eq!(counted["map_input_records"], lines);
}

/// How often each task was committed, and how many outputs were lost, by the log.
fn committed(log: &Path) -> (BTreeMap<String, u32>, usize, usize) {
    let bytes = fs::read(log).expect("the log");
    let (mut commits, mut lost, mut masters) = (BTreeMap::new(), 0, 0);
    for record in Reader::new(&bytes).expect("a log") {
        match record {
            Record::Committed(commit) => {
                *commits.entry(commit.attempt.task.to_string()).or_default() += 1;
            }
            Record::Lost { .. } => lost += 1,
            Record::Started { .. } => masters += 1,
            _ => {}
        }
    }
    (commits, lost, masters)
}

/// Waits for files to change. They tell nobody when they do, so they are looked at often.
fn poll(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !holds() {
        assert!(
            std::time::Instant::now() < end,
            "not within {LONG:?}: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Kills the master so often, each time when its log has grown by a random number of bytes: in the
/// middle of whatever it then does.
fn killed_master(seed: u64, kills: usize) {
    let world = World::new();
    let (books, expected) = books(&world, 12, 10);
    // A lease that outlasts a restart on a busy machine: then not even what only ran runs again.
    let args = [
        "serve", "master", "--dir", "master", "--lease", "60", "--listen",
    ];
    let mut now = world.start(&[&args[..], &["127.0.0.1:0"]].concat());
    let addr = now.addr();
    let mut workers = [worker(&world, &addr, "w1"), worker(&world, &addr, "w2")];
    let map = script(&world, "m", &format!("note m$T ran; sleep 0.1\n{WORDS}"));
    let reduce = script(&world, "r", &format!("note r$T ran; sleep 0.1\n{SUMS}"));
    let split = one_each(&books);
    let mut args_run = streaming(&addr, &map, &reduce, &split);
    args_run.extend(["--reduces", "3"]);
    let _run = world.start(&args_run);
    let log = world.path("master/log");
    let len = || fs::metadata(&log).map_or(0, |m| m.len());
    // The job is taken on once its submission is in the log.
    poll("the log has the submission", || len() >= 100);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut over = false;
    for _ in 0..kills {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let until = len() + x % 800;
        poll("the log grows or the job is over", || {
            over |= world.path("out/_SUCCESS").exists();
            over || len() >= until
        });
        now.kill();
        now = world.start(&[&args[..], &[&addr]].concat());
        now.event("listening");
    }
    for worker in &mut workers {
        worker.event("worker_connected");
    }
    // Sealed, and nothing left of what the job needed while it ran.
    poll("the job is over and has cleared up", || {
        assert!(!now.has_ended(), "seed {seed}");
        world.path("out/_SUCCESS").exists() && !world.path("out/_shoal").exists()
    });
    assert_eq!(output(&world.path("out")), expected, "seed {seed}");
    let (commits, lost, masters) = committed(&log);
    assert_eq!(commits.len(), 15, "seed {seed}: {commits:?}");
    assert!(
        commits.values().all(|n| *n == 1),
        "seed {seed}: {commits:?}"
    );
    assert_eq!(lost, 0, "seed {seed}");
    assert!(masters > 1 || over, "seed {seed}");
    let ran = notes(&world, "ran");
    let mut once = ran.clone();
    once.dedup();
    assert_eq!(ran, once, "seed {seed}: a task ran twice");
    assert_eq!(ran.len(), 15, "seed {seed}");
}

#[test]
fn a_master_killed_at_random_times_runs_no_finished_task_again() {
    killed_master(1, 3);
}

/// The same with more seeds and more kills: `cargo test -p shoal --test it jobs_faults -- --ignored`.
// Not in CI, which runs three kills of it in the test above: each kill waits for workers to come back.
#[test]
#[ignore = "takes minutes"]
fn a_master_killed_at_random_times_many_rounds() {
    for seed in 2..12 {
        killed_master(seed, 6);
    }
}
