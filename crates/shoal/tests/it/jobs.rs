//! `shoal run` on one machine, and on clusters of real processes that are killed, stopped and
//! robbed of their files. Tasks are held back by files that the test makes when it wants them to go
//! on; how often a task ran is what its script wrote down. The scenarios that every engine must pass
//! are in `jobs_scenarios.rs`, rarer faults in `jobs_faults.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::process::{Running, World};

/// A text in several files, and how often each word is in it.
pub(crate) fn books(world: &World, files: usize, lines: usize) -> (PathBuf, String) {
    let dir = world.path("books");
    fs::create_dir_all(&dir).expect("a folder");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for file in 0..files {
        let mut text = String::new();
        for line in 0..lines {
            for word in 0..6 {
                let word = format!("w{}", (file * 31 + line * 7 + word * word * 13) % 401);
                *counts.entry(word.clone()).or_default() += 1;
                text.push_str(&word);
                text.push(' ');
            }
            text.push('\n');
        }
        fs::write(dir.join(format!("b{file}")), text).expect("a file");
    }
    let lines = counts.iter().map(|(w, n)| format!("{w}\t{n}\n"));
    (dir, lines.collect())
}

/// All lines of an output folder, sorted.
#[track_caller]
pub(crate) fn output(dir: &Path) -> String {
    assert!(
        dir.join("_SUCCESS").exists(),
        "{} is not sealed",
        dir.display()
    );
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).expect("an output folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        assert!(name.starts_with("part-") || name == "_SUCCESS", "{name}");
        let text = fs::read_to_string(&path).expect("a part");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    lines.iter().map(|l| format!("{l}\n")).collect()
}

fn str(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A script for `--mapper` or `--reducer`; `$D` is the world's folder, `$T` the task's number.
pub(crate) fn script(world: &World, name: &str, body: &str) -> String {
    let path = world.path(name);
    let dir = world.path("");
    let head = format!(
        "PATH=/usr/bin:/bin; D={}; T=$mapreduce_task_partition\n\
         note() {{ echo \"$1\" >> \"$D/$2\"; }}\n\
         wait_for() {{ while [ ! -e \"$D/$1\" ]; do sleep 0.02; done; }}\n",
        dir.display()
    );
    fs::write(&path, head + body).expect("a script");
    format!("/bin/sh {}", path.display())
}

/// Lines that scripts wrote to a file, sorted.
pub(crate) fn notes(world: &World, name: &str) -> Vec<String> {
    let text = fs::read_to_string(world.path(name)).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A standing master.
pub(crate) fn master(world: &World, listen: &str) -> (Running, String) {
    let args = [
        "serve", "master", "--dir", "master", "--lease", "2", "--listen", listen,
    ];
    let mut master = world.start(&args);
    let addr = master.addr();
    (master, addr)
}

/// A worker of one slot that its master knows.
pub(crate) fn worker(world: &World, addr: &str, name: &str) -> Running {
    let args = [
        "worker", "--master", addr, "--slots", "1", "--dir", name, "--host", name,
    ];
    let mut worker = world.start(&args);
    worker.event("worker_connected");
    worker
}

/// `shoal run` of scripts, one map task for each book.
pub(crate) fn streaming<'a>(
    addr: &'a str,
    mapper: &'a str,
    reducer: &'a str,
    split: &'a str,
) -> Vec<&'a str> {
    vec![
        "run",
        "--master",
        addr,
        "--input",
        "books",
        "--output",
        "out",
        "--mapper",
        mapper,
        "--reducer",
        reducer,
        "--split-size",
        split,
    ]
}

/// The length of the longest book: as a split size it makes one map task for each.
pub(crate) fn one_each(books: &Path) -> String {
    let lens = fs::read_dir(books).expect("books").map(|e| {
        let meta = e.expect("an entry").metadata().expect("a file");
        meta.len()
    });
    lens.max().unwrap_or(1).to_string()
}

/// Word count by scripts: words from the mapper, sums from the reducer.
pub(crate) const WORDS: &str = "tr -s ' ' '\\n' | grep .\n";
pub(crate) const SUMS: &str = "cut -f1 | uniq -c | awk '{ print $2 \"\\t\" $1 }'\n";

#[test]
fn words_are_counted_by_one_command() {
    let world = World::new();
    let (_, expected) = books(&world, 5, 200);
    let args = ["run", "wordcount", "--input", "books", "--output", "out"];
    let ran = world.run(&args).expect(0).says("1000 records in");
    assert_eq!(ran.stdout.trim_end(), str(&world.path("out")));
    assert_eq!(output(&world.path("out")), expected);
    world.run(&args).expect(5).says("exists already");
    // Several reduce tasks, and the same by scripts.
    let mut more = args.to_vec();
    more.extend(["--output", "out3", "--reduces", "3", "--split-size", "1000"]);
    more.drain(4..6);
    world.run(&more).expect(0);
    assert_eq!(output(&world.path("out3")), expected);
    let (map, reduce) = (script(&world, "m", WORDS), script(&world, "r", SUMS));
    let scripts = [
        "run",
        "--mapper",
        &map,
        "--reducer",
        &reduce,
        "--input",
        "books",
        "--output",
        "out4",
    ];
    world.run(&scripts).expect(0);
    assert_eq!(output(&world.path("out4")), expected);
}

#[test]
fn mistakes_have_exit_codes_causes_and_leave_no_folder() {
    let world = World::new();
    books(&world, 1, 5);
    let run = |args: &[&str]| {
        let mut all = vec!["run"];
        all.extend(args);
        all.extend(["--output", "out"]);
        world.run(&all)
    };
    run(&["wordcount", "--input", "none"])
        .expect(3)
        .says("does not exist");
    run(&["nonsense", "--input", "books"])
        .expect(2)
        .says("nonsense");
    run(&["grep", "--input", "books"])
        .expect(2)
        .says("--pattern");
    run(&["wordcount"]).expect(2).says("--input");
    let map = script(
        &world,
        "m",
        "cat >/dev/null; echo it is broken >&2; exit 7\n",
    );
    run(&["--mapper", &map, "--input", "books"])
        .expect(1)
        .says("it is broken");
    assert!(!world.path("out").exists());
}

#[test]
fn a_job_file_a_packed_input_and_a_sort_in_total_order() {
    let world = World::new();
    let (books, expected) = books(&world, 3, 100);
    let text = "builtin = 'wordcount'\ninputs = ['books']\noutput = 'out'\n";
    fs::write(world.path("job.toml"), text).expect("a job file");
    world.run(&["run", "job.toml"]).expect(0);
    assert_eq!(output(&world.path("out")), expected);
    world
        .run(&["run", "sort", "-i", "books", "-o", "sorted", "-r", "3"])
        .expect(0);
    let parts: String = (0..3)
        .map(|n| fs::read_to_string(world.path(format!("sorted/part-r-0000{n}"))).expect("a part"))
        .collect();
    let mut lines: Vec<String> = (0..3)
        .flat_map(|n| {
            let book = fs::read_to_string(books.join(format!("b{n}"))).expect("a book");
            book.lines().map(|l| format!("{l}\n")).collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    assert_eq!(parts, lines.concat());
}

#[test]
fn a_poison_record_is_found_left_out_and_told() {
    let world = World::new();
    fs::write(
        world.path("in"),
        "a\nb\npoison\nc\nd\n".to_owned() + &"e\n".repeat(200),
    )
    .expect("a file");
    let body = "while read -r l; do [ \"$l\" = poison ] && exit 3; echo \"$l\"; done\n";
    let map = script(&world, "m", body);
    let args = [
        "run",
        "--mapper",
        &map,
        "--input",
        "in",
        "--output",
        "out",
        "--skip-bad",
        "2",
    ];
    let ran = world.run(&[&args[..], &["--json"]].concat()).expect(0);
    let done = ran.json().pop().expect("events");
    assert_eq!(
        (&done["event"], &done["skipped"]),
        (&"job_done".into(), &1.into())
    );
    let expected = "a\nb\nc\nd\n".to_owned() + &"e\n".repeat(200);
    assert_eq!(output(&world.path("out")), expected);
}

#[test]
fn an_interrupted_job_goes_on_with_what_it_has() {
    let world = World::new();
    let (books, expected) = books(&world, 4, 50);
    let split = one_each(&books);
    let body = format!("note $T ran; [ $T = 3 ] && {{ note x held; wait_for go; }}\n{WORDS}");
    let (map, reduce) = (script(&world, "m", &body), script(&world, "r", SUMS));
    let args = [
        "run",
        "--mapper",
        &map,
        "--reducer",
        &reduce,
        "--input",
        "books",
        "--output",
        "out",
        "--split-size",
        &split,
        "--workers",
        "2",
    ];
    let mut run = world.start(&args);
    run.wait_for("three maps", |v| {
        v["event"] == "job_progress" && v["maps_done"] == 3
    });
    run.signal(Signal::INT);
    let (status, _, _) = run.end();
    assert_eq!(status.code(), Some(130));
    assert!(!world.path("out/_SUCCESS").exists());
    fs::write(world.path("go"), "").expect("a file");
    world.run(&args).expect(0).says("Resuming");
    assert_eq!(output(&world.path("out")), expected);
}

#[test]
fn a_cluster_does_what_one_process_does() {
    let world = World::new();
    let (_, expected) = books(&world, 9, 300);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let _workers: Vec<_> = ["w1", "w2", "w3"].map(|w| worker(&world, &addr, w)).into();
    let args = [
        "run",
        "wordcount",
        "-i",
        "books",
        "-o",
        "out",
        "-r",
        "3",
        "--split-size",
        "5000",
    ];
    world
        .run(&[&args[..], &["--master", &addr]].concat())
        .expect(0);
    assert_eq!(output(&world.path("out")), expected);
    let index = [
        "run",
        "index",
        "-i",
        "books",
        "--split-size",
        "5000",
        "-r",
        "2",
        "-o",
    ];
    world.run(&[&index[..], &["one"]].concat()).expect(0);
    world
        .run(&[&index[..], &["many", "--master", &addr]].concat())
        .expect(0);
    assert_eq!(output(&world.path("one")), output(&world.path("many")));
    let list = world.run(&["job", "list", "--master", &addr]).expect(0);
    assert_eq!(
        list.stdout.matches("succeeded").count(),
        2,
        "{}",
        list.stdout
    );
    world
        .run(&["job", "show", "9", "--master", &addr])
        .expect(3);
    world
        .run(&["job", "cancel", "1", "--master", &addr])
        .expect(5);
}

#[test]
fn a_cluster_with_a_secret_lets_nobody_else_in() {
    let world = World::new();
    fs::write(world.path("secret"), "0123456789abcdef0123").expect("a file");
    fs::write(world.path("wrong"), "0123456789abcdef9999").expect("a file");
    let args = [
        "serve",
        "master",
        "--dir",
        "m",
        "--listen",
        "127.0.0.1:0",
        "--secret-file",
        "secret",
    ];
    let mut master = world.start(&args);
    let addr = master.addr();
    let list = ["job", "list", "--master", &addr];
    world.run(&list).expect(5);
    world
        .run(&[&list[..], &["--secret-file", "wrong"]].concat())
        .expect(5)
        .says("secret");
    world
        .run(&[&list[..], &["--secret-file", "secret"]].concat())
        .expect(0);
    let open = ["serve", "master", "--dir", "n", "--listen", "0.0.0.0:0"];
    world.run(&open).expect(1).says("secret");
}

#[test]
fn workers_that_die_in_map_and_in_reduce_are_replaced() {
    let world = World::new();
    let (books, expected) = books(&world, 6, 40);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    // The first attempt at every third map and at every reduce takes its worker with it.
    let die = |when: &str, kind: &str| {
        format!("if {when} && mkdir $D/{kind}-$T 2>/dev/null; then kill -9 $PPID; sleep 60; fi\n")
    };
    let map = script(&world, "m", &(die("[ $((T % 3)) = 0 ]", "map") + WORDS));
    let reduce = script(&world, "r", &(die("true", "reduce") + SUMS));
    let split = one_each(&books);
    let args: Vec<String> = streaming(&addr, &map, &reduce, &split)
        .into_iter()
        .chain(["--reduces", "2"])
        .map(str::to_owned)
        .collect();
    let names = ["w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"];
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            world.run(&args)
        });
        let mut workers: Vec<_> = names.iter().map(|w| worker(&world, &addr, w)).collect();
        ran.join().expect("it ran").expect(0);
        workers.clear();
    });
    assert_eq!(output(&world.path("out")), expected);
    for died in ["map-0", "map-3", "reduce-0", "reduce-1"] {
        assert!(world.path(died).exists(), "{died}");
    }
}

#[test]
fn maps_whose_output_died_with_their_worker_run_again() {
    let world = World::new();
    let (books, expected) = books(&world, 4, 40);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let mut first = worker(&world, &addr, "w1");
    let map = script(
        &world,
        "m",
        &format!("note $T ran; [ $T = 3 ] && wait_for go\n{WORDS}"),
    );
    let reduce = script(&world, "r", SUMS);
    let split = one_each(&books);
    let run = world.start(&streaming(&addr, &map, &reduce, &split));
    for _ in 0..3 {
        first.event("attempt_ended");
    }
    first.kill();
    let _second = worker(&world, &addr, "w2");
    fs::write(world.path("go"), "").expect("a file");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert_eq!(output(&world.path("out")), expected);
    let ran = notes(&world, "ran");
    for task in ["0", "1", "2"] {
        assert_eq!(ran.iter().filter(|t| *t == task).count(), 2, "{ran:?}");
    }
}

#[test]
fn a_killed_master_goes_on_and_runs_no_finished_task_again() {
    let world = World::new();
    let (books, expected) = books(&world, 6, 40);
    let (mut first, addr) = master(&world, "127.0.0.1:0");
    let mut workers = [worker(&world, &addr, "w1"), worker(&world, &addr, "w2")];
    let map = script(
        &world,
        "m",
        &format!("note $T ran; [ $T -ge 4 ] && wait_for go\n{WORDS}"),
    );
    let reduce = script(&world, "r", &format!("note r$T ran\n{SUMS}"));
    let split = one_each(&books);
    let mut run = world.start(&streaming(&addr, &map, &reduce, &split));
    run.wait_for("four maps", |v| {
        v["event"] == "job_progress" && v["maps_done"] == 4
    });
    first.kill();
    for worker in &mut workers {
        worker.event("worker_lost");
    }
    let (mut second, again) = master(&world, &addr);
    assert_eq!(again, addr);
    for worker in &mut workers {
        worker.event("worker_connected");
    }
    fs::write(world.path("go"), "").expect("a file");
    let ended = second.event("job_ended");
    assert_eq!(ended["outcome"], "succeeded");
    assert_eq!(output(&world.path("out")), expected);
    let ran = notes(&world, "ran");
    assert_eq!(ran, ["0", "1", "2", "3", "4", "5", "r0"]);
}

#[test]
fn a_stopped_worker_that_comes_back_changes_nothing() {
    let world = World::new();
    let (books, expected) = books(&world, 2, 40);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let stopped = worker(&world, &addr, "w1");
    let body =
        format!("note $T ran; case $PWD in */w1/*) : > $D/held; wait_for go;; esac\n{WORDS}");
    let (map, reduce) = (script(&world, "m", &body), script(&world, "r", SUMS));
    let split = one_each(&books);
    let mut args = streaming(&addr, &map, &reduce, &split);
    args.push("--no-speculation");
    let run = world.start(&args);
    let mut stopped = stopped;
    stopped.event("attempt_started");
    stopped.signal(Signal::STOP);
    let _other = worker(&world, &addr, "w2");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert_eq!(output(&world.path("out")), expected);
    fs::write(world.path("go"), "").expect("a file");
    stopped.signal(Signal::CONT);
    // What it had is of no use to anybody any more; it is known again and serves further jobs.
    stopped.event("worker_connected");
    assert_eq!(output(&world.path("out")), expected);
}

#[test]
fn damaged_map_output_is_noticed_and_made_again() {
    let world = World::new();
    // Nothing that packs well: it has to be too much for memory.
    let books = world.path("books");
    for n in 0..3 {
        let raw = fs::read(world.file("raw", 1 << 20, n + 1)).expect("a file");
        let line =
            |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
        let text: String = raw.chunks(40).map(line).collect();
        fs::create_dir_all(&books).expect("a folder");
        fs::write(books.join(format!("b{n}")), text).expect("a book");
    }
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let mut holder = worker(&world, &addr, "w1");
    let map = script(&world, "m", "note $T ran; [ $T = 2 ] && wait_for go; cat\n");
    let split = one_each(&books);
    let mut args = streaming(&addr, &map, "/bin/cat", &split);
    // So little memory that output goes to files.
    args.extend(["--memory", "1MiB"]);
    let run = world.start(&args);
    for _ in 0..2 {
        holder.event("attempt_ended");
    }
    let outputs = world.path("w1/worker/outputs");
    let file = fs::read_dir(&outputs)
        .expect("outputs")
        .next()
        .expect("one")
        .expect("an entry");
    let mut bytes = fs::read(file.path()).expect("map output");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new()
            .write(true)
            .open(file.path())
            .expect("opens");
        file.write_all_at(&bytes, 0).expect("damaged");
    }
    fs::write(world.path("go"), "").expect("a file");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let mut lines: Vec<String> = Vec::new();
    for n in 0..3 {
        let book = fs::read_to_string(books.join(format!("b{n}"))).expect("a book");
        lines.extend(book.lines().map(|l| format!("{l}\n")));
    }
    lines.sort();
    // A line without a value reaches the reducer with its tab, as under Hadoop.
    let out = output(&world.path("out")).replace('\t', "");
    assert!(out == lines.concat(), "the output differs");
    assert!(notes(&world, "ran").len() > 3);
}
