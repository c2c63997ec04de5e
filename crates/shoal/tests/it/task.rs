//! `shoal task`: what other engines run, joined by nothing but pipes and `sort`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::process::{Ran, World};

const TEXT: &str = "to be or not to be\nthat is the question\n";
const COUNTS: &str = "be\t2\nis\t1\nnot\t1\nor\t1\nquestion\t1\nthat\t1\nthe\t1\nto\t2\n";

/// Lines in the order of their bytes.
fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Map, combine in two heaps, reduce; with nothing but `shoal task`.
#[track_caller]
fn through(world: &World, job: &[&str], input: &str) -> Ran {
    let run = |phase: &str, input: &str| {
        let mut args = vec!["task", phase];
        args.extend(job);
        world.run_with(&args, input.as_bytes()).expect(0).stdout
    };
    let mut combined = String::new();
    for line in input.split_inclusive('\n') {
        combined += &run("combine", &sorted(&run("map", line)));
    }
    let mut args = vec!["task", "reduce"];
    args.extend(job);
    world.run_with(&args, sorted(&combined).as_bytes())
}

#[test]
fn words_are_counted_by_three_filters() {
    let world = World::new();
    let ran = through(&world, &["wordcount"], TEXT).expect(0);
    assert_eq!(ran.stdout, COUNTS);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_job_file_of_commands_gets_its_side_files_environment_and_counters() {
    let world = World::new();
    fs::write(world.path("stop"), "the\nis\n").expect("a file");
    let map = "tr -s ' ' '\\n' | grep -vxf stop | sed \"s/$/$MARK/\"\n\
               echo reporter:counter:g,n,$mapreduce_task_partition >&2; echo heard >&2\n";
    fs::write(world.path("map.sh"), map).expect("a script");
    let reduce = "cut -f1 | uniq -c | awk '{ print $2, $1 }'\n";
    fs::write(world.path("reduce.sh"), reduce).expect("a script");
    let job = "mapper = 'sh map.sh'\nreducer = 'sh reduce.sh'\n\
               files = ['stop', 'map.sh', 'reduce.sh']\n[environment]\nMARK = '!'\n";
    fs::write(world.path("job.toml"), job).expect("a job file");
    let args = ["task", "map", "job.toml"];
    let mut command = world.command(&args);
    command
        .env("PATH", "/usr/bin:/bin")
        .env("mapreduce_task_partition", "7")
        .env("TMPDIR", world.path("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(TEXT.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("reporter:counter:g,n,7\n"), "{said}");
    assert!(said.contains("heard\n"), "{said}");
    let mapped = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        sorted(&mapped),
        "be!\nbe!\nnot!\nor!\nquestion!\nthat!\nto!\nto!\n"
    );
    let left: Vec<_> = fs::read_dir(world.path("home")).expect("a home").collect();
    assert!(left.is_empty(), "{left:?}");
    let sorted = sorted(&mapped);
    let reduced = world.run_with(&["task", "reduce", "job.toml"], sorted.as_bytes());
    assert_eq!(
        reduced.expect(0).stdout,
        "be! 2\nnot! 1\nor! 1\nquestion! 1\nthat! 1\nto! 2\n"
    );
}

#[test]
fn the_file_and_its_input_are_told_to_an_index_and_a_join() {
    let world = World::new();
    let args = ["task", "map", "index", "--from", "books/a"];
    let ran = world.run_with(&args, b"x y\n").expect(0);
    assert_eq!(sorted(&ran.stdout), "x\tbooks/a\ny\tbooks/a\n");
    let job = "builtin = 'join'\ninputs = ['/data/people', '/data/pets/*']\n";
    fs::write(world.path("join.toml"), job).expect("a job file");
    let side = |from: &[&str], text: &[u8]| {
        let mut args = vec!["task", "map", "join.toml"];
        args.extend(from);
        world.run_with(&args, text).expect(0).stdout
    };
    let people = side(&["--from", "file:/data/people/part-0"], b"1\tann\n2\tbob\n");
    let pets = side(&["--from", "hdfs://n/data/pets/x"], b"1\tcat\n1\tdog\n");
    assert_eq!(
        pets,
        side(&["--from", "-", "--from-input", "1"], b"1\tcat\n1\tdog\n")
    );
    let both = sorted(&(people + &pets));
    let ran = world.run_with(&["task", "reduce", "join.toml"], both.as_bytes());
    assert_eq!(ran.expect(0).stdout, "1\tann\tcat\n1\tann\tdog\n");
}

#[test]
fn what_is_wrong_with_the_input_is_told_with_its_line() {
    let world = World::new();
    let reduce = |job: &str, input: &[u8]| world.run_with(&["task", "reduce", job], input);
    reduce("wordcount", b"a\t1\nc\t1\nb\t1\n")
        .expect(1)
        .says("line 3 is out of order: its key \"b\" comes after \"c\"")
        .says("hint: lines have to come by the bytes of their keys: LC_ALL=C sort");
    reduce("wordcount", b"a\t1\nb\tmany\n")
        .expect(1)
        .says("\"many\"")
        .says("at line 2 of the input");
    reduce("wordcount", b"no count\n")
        .expect(1)
        .says("at line 1 of the input");
    reduce("grep", b"").expect(2).says("--pattern");
    reduce("nonsense", b"").expect(2).says("nonsense");
    let args = ["task", "combine", "sort"];
    world
        .run_with(&args, b"")
        .expect(2)
        .says("the job has no combiner");
    let failing = [
        "task",
        "map",
        "--mapper",
        "sh -c 'cat >/dev/null; echo broken >&2; exit 7'",
    ];
    let ran = world.run_with(&failing, b"a\nb\n").expect(1);
    ran.says("it exited with code 7")
        .says("broken")
        .says("at line 2 of the input");
}

#[test]
fn a_reader_that_has_enough_ends_a_task_well() {
    let world = World::new();
    let text = "word ".repeat(10_000) + "\n";
    let mut command = world.command(&["task", "map", "wordcount"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    // Much more than any pipe holds: it ends before the input does.
    let fed = (0..2000).try_for_each(|_| stdin.write_all(text.as_bytes()));
    fed.expect_err("it has stopped reading");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
