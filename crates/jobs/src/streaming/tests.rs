//! Real processes: what they may do wrong, and what the engine makes of it.

use super::*;
use crate::code::{Stop, mapper, reducer};
use shoal_mapreduce::batch;
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec, Limits, SideFile};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

#[derive(Default)]
struct Collected {
    records: Vec<(String, String)>,
    counters: BTreeMap<(String, String), u64>,
    status: Vec<String>,
}

impl Collect for Collected {
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.records.push((text(key), text(value)));
    }
    fn count(&mut self, group: &str, name: &str, by: u64) {
        *self
            .counters
            .entry((group.to_owned(), name.to_owned()))
            .or_default() += by;
    }
    fn status(&mut self, text: &str) {
        self.status.push(text.to_owned());
    }
}

fn streaming(command: &str) -> Code {
    Code::Streaming {
        command: command.to_owned(),
    }
}

fn spec(map: &str, reduce: Option<&str>) -> JobSpec {
    JobSpec {
        name: "test".to_owned(),
        inputs: vec!["in".to_owned()],
        output: "out".to_owned(),
        mapper: streaming(map),
        combiner: None,
        reducer: reduce.map(streaming),
        reduces: u32::from(reduce.is_some()),
        partitioner: Default::default(),
        order: Default::default(),
        order_values: false,
        associative: false,
        map_fields: Fields::default(),
        reduce_fields: Fields::default(),
        side_files: Vec::new(),
        environment: BTreeMap::new(),
        properties: BTreeMap::new(),
        limits: Limits::default(),
        speculative: false,
        priority: 0,
    }
}

fn attempt(dir: &Path, spec: JobSpec, kind: TaskKind) -> Attempt {
    let side_files = spec.side_files.iter().map(|f| f.source.clone().into());
    Attempt {
        side_files: side_files.collect(),
        spec: Arc::new(spec),
        id: AttemptId {
            task: TaskId {
                job: JobId(7),
                kind,
                index: 3,
            },
            number: 1,
        },
        dir: dir.to_owned(),
        log: dir.join("log"),
        stop: Arc::new(Stop::default()),
    }
}

/// Maps text as one file in one attempt.
fn map(spec: JobSpec, text: &[u8]) -> (Result<(), CodeError>, Collected, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let attempt = attempt(dir.path(), spec, TaskKind::Map);
    let mut out = Collected::default();
    let mut run = || {
        let mut code = mapper(&attempt.spec.mapper, &attempt)?;
        code.file("some/input.txt", 0)?;
        for (n, chunk) in text.chunks(50_000).enumerate() {
            code.lines(chunk, n as u64 * 50_000, &mut out)?;
        }
        code.finish(&mut out)
    };
    let ended = run();
    let log = fs::read_to_string(&attempt.log).unwrap_or_default();
    (ended, out, log)
}

fn mapped(command: &str, text: &[u8]) -> Vec<(String, String)> {
    let (ended, out, _) = map(spec(command, Some("cat")), text);
    ended.expect("success");
    out.records
}

fn refused(command: &str, text: &[u8]) -> String {
    map(spec(command, Some("cat")), text)
        .0
        .expect_err("a failure")
        .what
}

fn big() -> Vec<u8> {
    // Chunks of 50,000 bytes end at line borders: lines are 50 bytes.
    (0..60_000)
        .flat_map(|n| format!("{n:049}\n").into_bytes())
        .collect()
}

#[test]
fn lines_become_keys_and_values() {
    let records = mapped("sed s/x/\\\\t/", b"axb\nc\ndxexf");
    let expected = [("a", "b"), ("c", ""), ("d", "exf")];
    assert_eq!(records, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn several_fields_may_be_the_key() {
    let mut job = spec("cat", Some("cat"));
    job.map_fields.key_fields = 2;
    let (ended, out, _) = map(job, b"a\tb\tc\td\ne\tf\n");
    ended.expect("success");
    assert_eq!(out.records[0], ("a\tb".to_owned(), "c\td".to_owned()));
    assert_eq!(out.records[1], ("e\tf".to_owned(), String::new()));
}

#[test]
fn without_a_reducer_lines_stay_as_they_are() {
    let (ended, out, _) = map(spec("cat", None), b"a\tb\tc\nd\t\n");
    ended.expect("success");
    assert_eq!(out.records[0], ("a\tb\tc".to_owned(), String::new()));
    assert_eq!(out.records[1], ("d\t".to_owned(), String::new()));
}

#[test]
fn more_than_the_pipes_hold_goes_through() {
    let text = big();
    let records = mapped("cat", &text);
    assert_eq!(records.len(), 60_000);
    assert_eq!(records[59_999].0, format!("{:049}", 59_999));
}

#[test]
fn a_process_that_writes_before_it_reads_blocks_nobody() {
    let text = big();
    let records = mapped(
        "sh -c 'head -c 3000000 /dev/zero | tr \\\\0 a; echo; cat'",
        &text,
    );
    assert_eq!(records.len(), 60_001);
    assert_eq!(records[0].0.len(), 3_000_000);
}

#[test]
fn a_process_that_never_reads_or_ends_early_with_success_is_no_failure() {
    assert_eq!(mapped("true", &big()), []);
    let first = mapped("head -n 1", &big());
    assert_eq!(first, [(format!("{:049}", 0), String::new())]);
    // It closes its input, and still has something to say later.
    let late = mapped("sh -c 'exec 0<&-; sleep 0.3; echo late'", &big());
    assert_eq!(late, [("late".to_owned(), String::new())]);
}

#[test]
fn without_input_it_runs_all_the_same() {
    let (ended, out, _) = map(spec("sh -c 'cat; echo end'", Some("cat")), b"");
    ended.expect("success");
    assert_eq!(out.records.len(), 1);
}

#[test]
fn a_failure_names_code_last_lines_input_and_how_to_reproduce_it() {
    let what = refused(
        "sh -c 'head -n 2 >/dev/null; echo one >&2; echo two >&2; exit 3'",
        b"a\nb\nc\n",
    );
    for expected in [
        "exited with code 3",
        "    one\n    two",
        "6 bytes of some/input.txt from byte 0",
        "to reproduce: head -c 6 some/input.txt | mapreduce_map_input_file=some/input.txt",
    ] {
        assert!(what.contains(expected), "{expected:?} is not in {what}");
    }
}

#[test]
fn a_failure_is_noticed_while_input_is_left() {
    let begun = Instant::now();
    let what = refused("sh -c 'exit 9'", &big());
    assert!(what.contains("exited with code 9"), "{what}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_signal_is_named() {
    let what = refused("sh -c 'kill -SEGV $$'", b"a\n");
    assert!(what.contains("signal 11 (SIGSEGV)"), "{what}");
}

#[test]
fn what_cannot_be_started_is_told() {
    let what = refused("no-such-program --x", b"a\n");
    assert!(
        what.contains("cannot start the mapper \"no-such-program --x\""),
        "{what}"
    );
    assert!(what.contains("PATH"), "{what}");
}

#[test]
fn a_process_that_does_nothing_is_killed_with_its_children() {
    let mut job = spec("sh -c 'sleep 1000 & echo $! >&2; wait'", Some("cat"));
    job.limits.stalled_ms = 300;
    let (ended, _, log) = map(job, b"a\n");
    let what = ended.expect_err("stalled").what;
    assert!(what.contains("neither read nor wrote"), "{what}");
    assert_gone(log.trim());
}

#[test]
fn what_a_process_leaves_running_does_not_outlive_it() {
    let (ended, out, log) = map(
        spec("sh -c 'cat; sleep 1000 & echo $! >&2'", Some("cat")),
        b"a\n",
    );
    ended.expect("success");
    assert_eq!(out.records.len(), 1);
    assert_gone(log.trim());
}

/// A killed process may be seen for a moment until it is reaped.
fn assert_gone(pid: &str) {
    let stat = Path::new("/proc").join(pid).join("stat");
    for _ in 0..500 {
        match fs::read_to_string(&stat) {
            Err(_) => return,
            Ok(stat) if stat.contains(") Z ") => return,
            Ok(_) => std::thread::yield_now(),
        }
        // Nobody tells when a process of another parent ends: it is looked for, until it does.
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {pid} lives on");
}

#[test]
fn an_attempt_is_ended_from_another_thread() {
    let dir = tempfile::tempdir().expect("a folder");
    let attempt = attempt(dir.path(), spec("sleep 1000", Some("cat")), TaskKind::Map);
    let stop = Arc::clone(&attempt.stop);
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            let mut out = Collected::default();
            let mut code = mapper(&attempt.spec.mapper, &attempt)?;
            code.lines(b"a\n", 0, &mut out)?;
            code.finish(&mut out)
        });
        stop.stop();
        let what = ended.join().expect("no panic").expect_err("stopped").what;
        assert!(what.contains("stopped"), "{what}");
    });
}

#[test]
fn memory_is_capped() {
    let mut job = spec(
        "python3 -c 'import sys; sys.stdin.read(); x = bytearray(1 << 30); print(len(x))'",
        Some("cat"),
    );
    job.limits.code_memory_bytes = 512 << 20;
    let (ended, _, _) = map(job, b"a\n");
    let what = ended.expect_err("no memory").what;
    assert!(what.contains("MemoryError"), "{what}");
}

#[test]
fn processor_time_is_capped() {
    let mut job = spec("sh -c 'while :; do :; done'", Some("cat"));
    job.properties
        .insert("shoal.task.cpu.seconds".to_owned(), "1".to_owned());
    let what = map(job, b"a\n").0.expect_err("killed").what;
    assert!(
        what.contains("SIGXCPU") || what.contains("SIGKILL"),
        "{what}"
    );
}

#[test]
fn counters_status_and_log_are_told_apart() {
    let (ended, out, log) = map(
        spec(
            "sh -c 'cat >/dev/null; echo reporter:counter:g,n,2 >&2; echo plain >&2; \
             echo reporter:counter:g,n,3 >&2; printf reporter:status:busy >&2'",
            Some("cat"),
        ),
        b"a\n",
    );
    ended.expect("success");
    assert_eq!(out.counters[&("g".to_owned(), "n".to_owned())], 5);
    assert_eq!(out.status, ["busy"]);
    assert_eq!(log, "plain\n");
}

#[test]
fn the_environment_is_hadoops() {
    let mut job = spec("env", Some("cat"));
    job.properties
        .insert("my.prop-erty".to_owned(), "v w".to_owned());
    job.properties.insert(
        "mapreduce.job.id".to_owned(),
        "job_1700000000000_0001".to_owned(),
    );
    job.environment.insert("MINE".to_owned(), "x=y".to_owned());
    let (ended, out, _) = map(job, b"a\n");
    ended.expect("success");
    for expected in [
        "my_prop_erty=v w",
        "MINE=x=y",
        "mapreduce_map_input_file=some/input.txt",
        "mapreduce_job_id=job_1700000000000_0001",
        "mapreduce_task_id=task_1700000000000_0001_m_000003",
        "mapreduce_task_attempt_id=attempt_1700000000000_0001_m_000003_1",
        "mapreduce_task_partition=3",
        "mapreduce_task_ismap=true",
        "mapreduce_job_reduces=1",
        "map_input_file=some/input.txt",
    ] {
        assert!(
            out.records.iter().any(|(line, _)| line == expected),
            "{expected}"
        );
    }
}

#[test]
fn each_file_has_a_process_unless_the_job_says_otherwise() {
    for (many, expected) in [(false, vec!["one 2", "two 1"]), (true, vec!["one 3"])] {
        let dir = tempfile::tempdir().expect("a folder");
        let command = "sh -c 'echo $mapreduce_map_input_file $(wc -l)'";
        let mut job = spec(command, Some("cat"));
        job.properties
            .insert("shoal.streaming.many.files".to_owned(), many.to_string());
        let attempt = attempt(dir.path(), job, TaskKind::Map);
        let mut out = Collected::default();
        let mut code = mapper(&attempt.spec.mapper, &attempt).expect("a mapper");
        code.file("one", 0).expect("a file");
        code.lines(b"a\n", 0, &mut out).expect("lines");
        code.lines(b"b", 2, &mut out).expect("lines");
        code.file("two", 0).expect("a file");
        code.lines(b"c\n", 0, &mut out).expect("lines");
        code.finish(&mut out).expect("an end");
        let lines: Vec<_> = out.records.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn side_files_are_linked_archives_unpacked_and_programs_made_executable() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = dir.path().join("script");
    fs::write(&script, "#!/bin/sh\ncat side tree/deep/leaf\n").expect("written");
    fs::write(dir.path().join("data"), "side file\n").expect("written");
    let packed = dir.path().join("tree.tar.gz");
    let gz = flate2::write::GzEncoder::new(
        fs::File::create(&packed).expect("a file"),
        flate2::Compression::fast(),
    );
    let mut tar = tar::Builder::new(gz);
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, "deep/leaf", &b"leaf\n"[..])
        .expect("packed");
    tar.into_inner().expect("ended").finish().expect("ended");

    let mut job = spec("./go.sh", Some("cat"));
    let side = |name: &str, source: &str, archive| SideFile {
        name: name.to_owned(),
        source: dir.path().join(source).to_string_lossy().into_owned(),
        sha256: String::new(),
        archive,
    };
    job.side_files = vec![
        side("go.sh", "script", false),
        side("side", "data", false),
        side("tree", "tree.tar.gz", true),
    ];
    let (ended, out, _) = map(job.clone(), b"a\n");
    ended.expect("success");
    let lines: Vec<_> = out.records.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(lines, ["side file", "leaf"]);

    job.side_files = vec![side("../x", "data", false)];
    let what = map(job, b"a\n").0.expect_err("refused").what;
    assert!(what.contains("not a plain file name"), "{what}");
}

#[test]
fn a_reducer_reads_keys_and_values_and_its_lines_are_the_output() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = spec("cat", Some("sh -c 'uniq -c | tr -s \" \"'"));
    let code = job.reducer.clone().expect("a reducer");
    let attempt = attempt(dir.path(), job, TaskKind::Reduce);
    let mut out = Collected::default();
    let mut run = reducer(&code, Role::Reduce, &attempt).expect("a reducer");
    for _ in 0..3 {
        let mut records = Vec::new();
        for _ in 0..20_000 {
            batch::push(&mut records, b"key", b"value").expect("short");
        }
        run.records(&records, &mut out).expect("records");
    }
    run.finish(&mut out).expect("an end");
    assert_eq!(
        out.records,
        [(" 60000 key\tvalue".to_owned(), String::new())]
    );
}

#[test]
fn a_failing_reducer_names_the_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = spec("cat", Some("sh -c 'cat >/dev/null; exit 4'"));
    let code = job.reducer.clone().expect("a reducer");
    let attempt = attempt(dir.path(), job, TaskKind::Reduce);
    let mut run = reducer(&code, Role::Reduce, &attempt).expect("a reducer");
    let mut records = Vec::new();
    batch::push(&mut records, b"the key", b"value").expect("short");
    let mut out = Collected::default();
    run.records(&records, &mut out).expect("records");
    let what = run.finish(&mut out).expect_err("a failure").what;
    assert!(
        what.contains("exited with code 4") && what.contains("\"the key\""),
        "{what}"
    );
}

#[test]
fn a_code_that_the_job_allows_is_success() {
    let mut job = spec("sh -c 'cat; exit 1'", Some("cat"));
    job.properties.insert(
        "stream.non.zero.exit.is.failure".to_owned(),
        "false".to_owned(),
    );
    let (ended, out, log) = map(job, b"a\n");
    ended.expect("allowed");
    assert_eq!(out.records.len(), 1);
    assert!(log.contains("exited with code 1, which the job allows"));
}
