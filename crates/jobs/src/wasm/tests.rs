//! Modules as text: what they may do wrong, and what becomes of it.

use super::*;
use crate::code::Stop;
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec, SideFile};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The parts that every module needs; the input goes to address 1024.
const FRAME: &str = r#"
    (import "shoal" "emit" (func $emit (param i32 i32)))
    (import "shoal" "count" (func $count (param i32 i32 i32 i32 i64)))
    (import "shoal" "fail" (func $fail (param i32 i32)))
    (memory (export "memory") 16)
    (func (export "shoal_abi") (result i32) (i32.const 1))
    (func (export "shoal_input") (param i32) (result i32) (i32.const 1024))
"#;

#[derive(Default, Debug, PartialEq)]
struct Collected {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    counters: BTreeMap<(String, String), u64>,
}

impl Collect for Collected {
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        self.records.push((key.to_vec(), value.to_vec()));
    }
    fn count(&mut self, group: &str, name: &str, by: u64) {
        *self
            .counters
            .entry((group.to_owned(), name.to_owned()))
            .or_default() += by;
    }
    fn status(&mut self, _text: &str) {}
}

fn attempt(dir: &Path, module: &[u8], kind: TaskKind) -> Attempt {
    let path = dir.join("module.wasm");
    fs::write(&path, module).expect("written");
    let spec: JobSpec = serde_json::from_value(serde_json::json!({
        "name": "test", "inputs": ["in"], "output": "out", "reduces": 1,
        "mapper": { "wasm": { "module": "m.wasm" } },
    }))
    .expect("a job");
    let mut spec = spec;
    spec.side_files = vec![SideFile {
        name: "m.wasm".to_owned(),
        source: path.to_string_lossy().into_owned(),
        sha256: String::new(),
        archive: false,
    }];
    Attempt {
        spec: Arc::new(spec),
        id: AttemptId {
            task: TaskId {
                job: JobId(1),
                kind,
                index: 0,
            },
            number: 0,
        },
        dir: dir.to_owned(),
        side_files: vec![path],
        log: dir.join("log"),
        stop: Arc::new(Stop::default()),
    }
}

fn code() -> Code {
    Code::Wasm {
        module: "m.wasm".to_owned(),
        args: Vec::new(),
    }
}

fn wat(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {FRAME} {body})")).expect("a module")
}

/// Maps text with a module, after a change to the attempt.
fn map_with(
    module: &[u8],
    text: &[u8],
    change: impl FnOnce(&mut Attempt),
) -> Result<Collected, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut attempt = attempt(dir.path(), module, TaskKind::Map);
    change(&mut attempt);
    let mut out = Collected::default();
    let mut run = || {
        let mut code = crate::code::mapper(&code(), &attempt)?;
        code.file("input", 0)?;
        code.lines(text, 0, &mut out)?;
        code.finish(&mut out)
    };
    run().map_err(|e| e.what)?;
    Ok(out)
}

fn refused(body: &str) -> String {
    map_with(&wat(body), b"a\n", |_| {}).expect_err("a failure")
}

#[test]
fn a_mapper_gets_lines_and_emits_batches() {
    // One record a call: no key, the lines as they came as the value.
    let module = wat(r#"
        (func (export "shoal_map") (param $at i32) (param $len i32) (param $offset i64)
            (i32.store (i32.const 1016) (i32.const 0))
            (i32.store (i32.const 1020) (local.get $len))
            (call $emit (i32.const 1016) (i32.add (local.get $len) (i32.const 8)))
            (call $count (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1)
                (i64.add (local.get $offset) (i64.const 1))))"#);
    let text: Vec<u8> = (0..40_000)
        .flat_map(|n| format!("{n:09}\n").into_bytes())
        .collect();
    let out = map_with(&module, &text, |_| {}).expect("success");
    assert!(out.records.len() > 1, "one call for {} bytes", text.len());
    let back: Vec<u8> = out
        .records
        .iter()
        .flat_map(|(_, value)| value.clone())
        .collect();
    assert_eq!(back, text);
    assert!(out.records.iter().all(|(_, value)| value.ends_with(b"\n")));
    let counted = out.counters[&("0".to_owned(), "0".to_owned())];
    let second = out.records[0].1.len() as u64;
    assert_eq!(counted, 2 + second, "the second call's offset");
}

#[test]
fn a_reducer_gets_batches_and_may_emit_them_at_the_end() {
    // Remembers the last batch and emits it when all is over.
    let module = wat(r#"
        (global $len (mut i32) (i32.const 0))
        (func (export "shoal_reduce") (param $at i32) (param $len i32)
            (global.set $len (local.get $len)))
        (func (export "shoal_finish")
            (call $emit (i32.const 1024) (global.get $len)))"#);
    let dir = tempfile::tempdir().expect("a folder");
    let attempt = attempt(dir.path(), &module, TaskKind::Reduce);
    let mut out = Collected::default();
    let mut run = crate::code::reducer(&code(), Role::Reduce, &attempt).expect("a reducer");
    let mut records = Vec::new();
    batch::push(&mut records, b"k", b"1").expect("short");
    batch::push(&mut records, b"k", b"2").expect("short");
    run.records(&records, &mut out).expect("records");
    run.finish(&mut out).expect("an end");
    let expected = [
        (b"k".to_vec(), b"1".to_vec()),
        (b"k".to_vec(), b"2".to_vec()),
    ];
    assert_eq!(out.records, expected);
}

const LOOPS: &str = r#"(func (export "shoal_map") (param i32 i32 i64) (loop $again (br $again)))"#;

#[test]
fn a_module_that_loops_for_ever_is_interrupted() {
    let what = map_with(&wat(LOOPS), b"a\n", |attempt| {
        let mut spec = (*attempt.spec).clone();
        spec.limits.stalled_ms = 100;
        attempt.spec = Arc::new(spec);
    })
    .expect_err("interrupted");
    assert!(what.contains("took longer than 0.1 s"), "{what}");
}

#[test]
fn a_module_that_loops_in_its_start_function_is_interrupted() {
    let module = wat("(func $go (loop $again (br $again))) (start $go)");
    let what = map_with(&module, b"a\n", |attempt| {
        let mut spec = (*attempt.spec).clone();
        spec.limits.stalled_ms = 100;
        attempt.spec = Arc::new(spec);
    })
    .expect_err("interrupted");
    assert!(
        what.contains("cannot be started: a call took longer"),
        "{what}"
    );
}

#[test]
fn a_sandbox_is_ended_from_another_thread_and_others_go_on() {
    let ends = wat(r#"(func (export "shoal_map") (param i32 i32 i64))"#);
    std::thread::scope(|scope| {
        let stop = Arc::new(Stop::default());
        let handle = Arc::clone(&stop);
        let looping =
            scope.spawn(move || map_with(&wat(LOOPS), b"a\n", |attempt| attempt.stop = handle));
        map_with(&ends, b"a\n", |_| {}).expect("success beside it");
        stop.stop();
        let what = looping.join().expect("no panic").expect_err("stopped");
        assert!(what.contains("the attempt was stopped"), "{what}");
    });
}

#[test]
fn a_module_that_grows_without_end_is_told_its_limit() {
    let module = wat(r#"
        (func (export "shoal_map") (param i32 i32 i64)
            (loop $again
                (br_if $again (i32.ne (memory.grow (i32.const 100)) (i32.const -1))))
            unreachable)"#);
    let what = map_with(&module, b"a\n", |attempt| {
        let mut spec = (*attempt.spec).clone();
        spec.limits.code_memory_bytes = 64 << 20;
        attempt.spec = Arc::new(spec);
    })
    .expect_err("denied");
    assert!(
        what.contains("unreachable") && what.contains("64 MiB"),
        "{what}"
    );
}

#[test]
fn traps_are_told_with_their_reason_and_place() {
    let divides = refused(
        r#"(func (export "shoal_map") (param i32 i32 i64)
            (drop (i32.div_u (i32.const 1) (i32.const 0))))"#,
    );
    assert!(
        divides.contains("m.wasm")
            && divides.contains("shoal_map")
            && divides.contains("divide by zero"),
        "{divides}"
    );
    let recurses = refused(
        r#"(func $f (export "f") (call $f))
        (func (export "shoal_map") (param i32 i32 i64) (call $f))"#,
    );
    assert!(recurses.contains("stack"), "{recurses}");
    let reaches = refused(
        r#"(func (export "shoal_map") (param i32 i32 i64)
            (drop (i32.load (i32.const -8))))"#,
    );
    assert!(reaches.contains("out of bounds"), "{reaches}");
    let says = refused(
        r#"(data (i32.const 0) "no such word")
        (func (export "shoal_map") (param i32 i32 i64)
            (call $fail (i32.const 0) (i32.const 12)))"#,
    );
    assert!(says.contains("it says: no such word"), "{says}");
}

#[test]
fn malformed_batches_are_refused() {
    let map = |body: &str| {
        refused(&format!(
            r#"(func (export "shoal_map") (param i32 i32 i64) {body})"#
        ))
    };
    let short = map("(call $emit (i32.const 1024) (i32.const 5))");
    assert!(short.contains("malformed batch"), "{short}");
    let long = map(
        "(i32.store (i32.const 0) (i32.const -1)) (i32.store (i32.const 4) (i32.const -1))
         (call $emit (i32.const 0) (i32.const 100))",
    );
    assert!(long.contains("malformed batch"), "{long}");
    let outside = map("(call $emit (i32.const 1048570) (i32.const 100))");
    assert!(outside.contains("its memory ends at 1048576"), "{outside}");
    let beyond = map("(call $emit (i32.const -1) (i32.const -1))");
    assert!(beyond.contains("its memory ends"), "{beyond}");
    let endless =
        map("(loop $again (call $emit (i32.const 4096) (i32.const 1000000)) (br $again))");
    assert!(endless.contains("more than 256 MiB"), "{endless}");
}

#[test]
fn a_module_without_the_interface_is_refused_by_what_it_lacks() {
    let whole = |text: &str| {
        let module = wat::parse_str(text).expect("a module");
        map_with(&module, b"a\n", |_| {}).expect_err("refused")
    };
    assert!(whole("(module)").contains("exports no memory"));
    let memory = r#"(memory (export "memory") 1)"#;
    assert!(whole(&format!("(module {memory})")).contains("no function shoal_abi"));
    let old = r#"(func (export "shoal_abi") (result i32) (i32.const 9))"#;
    assert!(whole(&format!("(module {memory} {old})")).contains("speaks version 9"));
    let odd = r#"(func (export "shoal_abi") (result f32) (f32.const 1))"#;
    assert!(whole(&format!("(module {memory} {odd})")).contains("another type"));
    let asks = whole(r#"(module (import "env" "open" (func)))"#);
    assert!(asks.contains("env") && asks.contains("open"), "{asks}");
    assert!(refused("").contains("no function shoal_map"));
    let junk = map_with(b"\0asm but not really", b"a\n", |_| {}).expect_err("refused");
    assert!(junk.contains("cannot be compiled"), "{junk}");
    let nowhere = r#"(module (memory (export "memory") 1)
        (func (export "shoal_abi") (result i32) (i32.const 1))
        (func (export "shoal_input") (param i32) (result i32) (i32.const 65535))
        (func (export "shoal_map") (param i32 i32 i64)))"#;
    assert!(whole(nowhere).contains("beyond its memory"));
}

#[test]
fn there_is_no_clock_and_no_chance() {
    let module = wat::parse_str(
        r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "shoal" "emit" (func $emit (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "shoal_abi") (result i32) (i32.const 1))
        (func (export "shoal_input") (param i32) (result i32) (i32.const 1024))
        (func (export "shoal_map") (param i32 i32 i64)
            (i32.store (i32.const 0) (i32.const 24))
            (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8)))
            (drop (call $random (i32.const 16) (i32.const 8)))
            ;; Of all the values that are no number, one is the value.
            (f64.store (i32.const 24) (f64.div (f64.const 0) (f64.neg (f64.const 0))))
            (call $emit (i32.const 0) (i32.const 32))))"#,
    )
    .expect("a module");
    let out = map_with(&module, b"a\n", |_| {}).expect("success");
    let mut expected = vec![0; 16];
    expected.extend_from_slice(&0x7ff8_0000_0000_0000_u64.to_le_bytes());
    assert_eq!(out.records, [(expected, Vec::new())]);
}

#[test]
fn a_module_is_a_filter_too() {
    use crate::filter::{Filter, Place};
    // A mapper of lines to one record without a key; a reducer that counts what it gets.
    let module = wat(r#"
        (func (export "shoal_map") (param $at i32) (param $len i32) (param $offset i64)
            (i32.store (i32.const 1016) (i32.const 0))
            (i32.store (i32.const 1020) (i32.sub (local.get $len) (i32.const 1)))
            (call $emit (i32.const 1016) (i32.add (local.get $len) (i32.const 7))))
        (func (export "shoal_reduce") (param $at i32) (param $len i32)
            (call $count (i32.const 1032) (i32.const 1) (i32.const 1032) (i32.const 1) (i64.const 2))
            (call $emit (i32.const 1024) (local.get $len)))"#);
    let dir = tempfile::tempdir().expect("a folder");
    let filter = |kind| {
        let attempt = attempt(dir.path(), &module, kind);
        let place = Place {
            dir: attempt.dir.clone(),
            log: attempt.log.clone(),
            index: 0,
            stop: attempt.stop.clone(),
        };
        let spec = JobSpec {
            mapper: code(),
            reducer: Some(code()),
            ..(*attempt.spec).clone()
        };
        Filter::new(spec, kind, place)
    };
    let (mut mapped, mut notes) = (Vec::new(), Vec::new());
    let map = filter(TaskKind::Map);
    map.map(None, &b"a b\n"[..], &mut mapped, &mut notes)
        .expect("mapped");
    assert_eq!(
        (mapped.as_slice(), notes.as_slice()),
        (&b"\ta b\n"[..], &b""[..])
    );
    let (mut reduced, mut notes) = (Vec::new(), Vec::new());
    filter(TaskKind::Reduce)
        .reduce(Role::Reduce, &b"x\t1\ny\t2\n"[..], &mut reduced, &mut notes)
        .expect("reduced");
    assert_eq!(reduced, b"x\t1\ny\t2\n");
    assert_eq!(notes, b"reporter:counter:x,x,2\n");
}
