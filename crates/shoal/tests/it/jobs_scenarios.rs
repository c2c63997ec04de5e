//! The scenarios that every MapReduce engine must pass (those of MIT's course on distributed systems,
//! restated), with real processes: a master, workers, jobs of scripts.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::jobs::{SUMS, WORDS, books, master, notes, one_each, output, script, streaming, worker};
use crate::process::World;

/// A built-in job on a cluster of so many workers puts out what it does in one process.
fn equals_one_process(job: &str, workers: &[&str]) {
    let world = World::new();
    books(&world, 6, 100);
    let alone = [
        "run",
        job,
        "-i",
        "books",
        "-r",
        "2",
        "--split-size",
        "5000",
        "-o",
    ];
    world.run(&[&alone[..], &["one"]].concat()).expect(0);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let _workers: Vec<_> = workers.iter().map(|w| worker(&world, &addr, w)).collect();
    world
        .run(&[&alone[..], &["many", "--master", &addr]].concat())
        .expect(0);
    assert_eq!(output(&world.path("one")), output(&world.path("many")));
}

#[test]
fn scenario_1_word_count_by_three_workers_equals_a_run_in_one_process() {
    equals_one_process("wordcount", &["w1", "w2", "w3"]);
}

#[test]
fn scenario_2_inverted_index_by_two_workers_equals_a_run_in_one_process() {
    equals_one_process("index", &["w1", "w2"]);
}

/// Both workers must run tasks of this kind at once: each task goes on only once it has seen another
/// one alive; alone it would wait for ever.
fn runs_at_once(kind: &str) {
    let world = World::new();
    let (books, expected) = books(&world, 4, 20);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let _workers = [worker(&world, &addr, "w1"), worker(&world, &addr, "w2")];
    let meet = "note \"$PWD\" where; : > $D/met-$T\n\
                while [ $(ls $D | grep -c '^met-[0-9]') -lt 2 ]; do sleep 0.02; done\n";
    let when = |this: &str, body: &str| match this == kind {
        true => format!("{meet}{body}"),
        false => body.to_owned(),
    };
    let map = script(&world, "m", &when("map", WORDS));
    let reduce = script(&world, "r", &when("reduce", SUMS));
    let split = one_each(&books);
    let mut args = streaming(&addr, &map, &reduce, &split);
    args.extend(["--reduces", "2"]);
    world.run(&args).expect(0);
    assert_eq!(output(&world.path("out")), expected);
    let all = notes(&world, "where");
    for w in ["/w1/", "/w2/"] {
        assert!(all.iter().any(|dir| dir.contains(w)), "{w} in {all:?}");
    }
}

#[test]
fn scenario_3_maps_run_at_once_on_both_workers() {
    runs_at_once("map");
}

#[test]
fn scenario_4_reduces_run_at_once_on_both_workers() {
    runs_at_once("reduce");
}

#[test]
fn scenario_5_without_failures_every_task_runs_once_also_with_idle_workers() {
    let world = World::new();
    let (books, expected) = books(&world, 8, 20);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    let _workers: Vec<_> = ["w1", "w2", "w3"].map(|w| worker(&world, &addr, w)).into();
    let map = script(&world, "m", &format!("note $T ran\n{WORDS}"));
    let reduce = script(&world, "r", &format!("note r$T ran\n{SUMS}"));
    let split = one_each(&books);
    world
        .run(&streaming(&addr, &map, &reduce, &split))
        .expect(0);
    assert_eq!(output(&world.path("out")), expected);
    let ran = notes(&world, "ran");
    assert_eq!(ran, ["0", "1", "2", "3", "4", "5", "6", "7", "r0"]);
}

#[test]
fn scenario_6_when_the_first_process_exits_the_output_is_final() {
    let world = World::new();
    let (books, expected) = books(&world, 3, 20);
    // One reduce is slow: the other and its worker have nothing left to do.
    let body = format!("[ $T = 0 ] && {{ note x held; wait_for go; }}\nnote r$T done\n{SUMS}");
    let (map, reduce) = (script(&world, "m", WORDS), script(&world, "r", &body));
    let split = one_each(&books);
    let args = [
        "run",
        "--master-listen",
        "127.0.0.1:0",
        "--input",
        "books",
        "--output",
        "out",
        "--mapper",
        &map,
        "--reducer",
        &reduce,
        "--split-size",
        &split,
        "--reduces",
        "2",
    ];
    let mut run = world.start(&args);
    let addr = run.addr();
    let mut workers = [worker(&world, &addr, "w1"), worker(&world, &addr, "w2")];
    run.wait_for("one reduce of two", |v| {
        v["event"] == "job_progress" && v["reduces_done"] == 1
    });
    assert!(!run.has_ended() && !workers.iter_mut().any(|w| w.has_ended()));
    assert!(!world.path("out/_SUCCESS").exists());
    fs::write(world.path("go"), "").expect("a file");
    let (status, _, errors) = run.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let first = output(&world.path("out"));
    assert_eq!(first, expected);
    for worker in &mut workers {
        worker.event("worker_lost");
    }
    drop(workers);
    assert_eq!(output(&world.path("out")), first, "nothing comes after");
}

#[test]
fn scenario_7_tasks_that_crash_their_worker_or_stall_at_random_leave_the_output_exact() {
    let world = World::new();
    let (books, expected) = books(&world, 6, 40);
    let (_master, addr) = master(&world, "127.0.0.1:0");
    // What an attempt does follows from its name: a third kill their worker, a third stall.
    let fate = "set -- $(echo seed7 $mapreduce_task_attempt_id | cksum)\n\
                case $(($1 % 3)) in\n\
                0) note $mapreduce_task_attempt_id crashed; kill -9 $PPID; sleep 60;;\n\
                1) note $mapreduce_task_attempt_id stalled; sleep 0.$(($1 / 3 % 10));;\n\
                esac\n";
    let map = script(&world, "m", &format!("{fate}{WORDS}"));
    let reduce = script(&world, "r", &format!("{fate}{SUMS}"));
    let split = one_each(&books);
    let mut args = streaming(&addr, &map, &reduce, &split);
    args.extend(["--reduces", "3"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["w1", "w2", "w3"] {
            let (world, addr, over) = (&world, &addr, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let mut worker = worker(world, addr, name);
                    while !worker.has_ended() && !over.load(Ordering::Acquire) {
                        // A process tells nobody here that it has ended: it is asked again and again.
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
            });
        }
        let ran = world.run(&args);
        over.store(true, Ordering::Release);
        ran.expect(0);
    });
    assert_eq!(output(&world.path("out")), expected);
    assert!(!notes(&world, "crashed").is_empty(), "somebody crashed");
    assert!(!notes(&world, "stalled").is_empty(), "somebody stalled");
}
