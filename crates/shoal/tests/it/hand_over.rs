//! `shoal run --engine`: what other engines are given. Real clusters are in `interop/engines.py`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::process::World;

/// A Hadoop of one script, which writes down how it was called and from where.
fn hadoop(world: &World, script: &str) {
    for folder in ["hadoop/bin", "hadoop/share/hadoop/tools/lib"] {
        fs::create_dir_all(world.path(folder)).expect("a folder");
    }
    let jar = "hadoop/share/hadoop/tools/lib/hadoop-streaming-3.3.6.jar";
    fs::write(world.path(jar), "").expect("a file");
    let program = world.path("hadoop/bin/hadoop");
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
}

const JOB: &str = "
mapper = 'python3 map.py --x \"a b\"'
combiner = { builtin = 'sum' }
reducer = { builtin = 'sum' }
reduces = 3
files = ['map.py']
partitioner = { fields = [{ first = 1, last = 1 }] }
order = [{ first = 2, numeric = true, reverse = true }]
map_fields = { separator = ',', key_fields = 2 }
environment = { LC_ALL = 'C' }
";

#[test]
fn a_line_of_hadoop_streaming_says_all_that_the_job_is() {
    let world = World::new();
    hadoop(&world, "");
    fs::write(world.path("job.toml"), JOB).expect("a job file");
    fs::write(world.path("map.py"), "").expect("a file");
    let args = [
        "run",
        "job.toml",
        "--input",
        "hdfs:///in",
        "--output",
        "hdfs:///out",
        "--engine",
        "hadoop",
        "--engine-arg=-verbose",
        "--dry-run",
        "--engine-dir",
        "along",
    ];
    let mut command = world.command(&args);
    let output = command.env("HADOOP_HOME", world.path("hadoop")).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    let words = shlex(&said);
    let at = |name: &str| format!("{}#{name}", world.path("along").join(name).display());
    let files = ["shoal", "job.json", "map.py"].map(at).join(",");
    let comparator = "org.apache.hadoop.mapreduce.lib.partition.KeyFieldBasedComparator";
    let jar = "hadoop/share/hadoop/tools/lib/hadoop-streaming-3.3.6.jar";
    let expected: Vec<String> = [
        world.path("hadoop/bin/hadoop").to_str().expect("text"),
        "jar",
        world.path(jar).to_str().expect("text"),
        "-D",
        "mapreduce.job.name=job",
        "-D",
        "mapreduce.job.reduces=3",
        "-D",
        "stream.num.map.output.key.fields=2",
        "-D",
        "stream.map.output.field.separator=,",
        "-D",
        "stream.reduce.input.field.separator=,",
        "-D",
        "mapreduce.map.output.key.field.separator=,",
        "-D",
        &format!("mapreduce.job.output.key.comparator.class={comparator}"),
        "-D",
        "mapreduce.partition.keycomparator.options=-k2nr -k1",
        "-D",
        "mapreduce.partition.keypartitioner.options=-k1,1",
        "-files",
        &files,
        "-verbose",
        "-input",
        "hdfs:///in",
        "-output",
        "hdfs:///out",
        "-mapper",
        "python3 map.py --x \"a b\"",
        "-combiner",
        "./shoal task combine job.json",
        "-reducer",
        "./shoal task reduce job.json",
        "-partitioner",
        "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
        "-cmdenv",
        "LC_ALL=C",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(words, expected);
    // What goes along works where it is put.
    let reduced = world.run_with(&["task", "reduce", "along/job.json"], b"a,1,2\na,1,3\n");
    assert_eq!(reduced.expect(0).stdout, "a,1\t5\n");
}

/// Words of a command line; single quotes are all that is written.
fn shlex(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.trim_end().chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("one").push(c),
        }
    }
    words
}

#[test]
fn the_engine_is_run_and_its_exit_decides() {
    let world = World::new();
    // Runs the mapper on a line of its own, as Hadoop would: in a folder with links to the files.
    hadoop(
        &world,
        "#!/bin/sh\nset -e\nPATH=/usr/bin:/bin\nmkdir task; cd task\nwhile [ $# -gt 0 ]; do case $1 in\n\
         -files) for f in $(echo $2 | tr , ' '); do ln -s ${f%#*} ${f#*#}; done ;;\n\
         -mapper) map=$2 ;;\n -reducer) reduce=$2 ;;\n -output) out=$2 ;;\n esac; shift; done\n\
         mkdir ../$out; echo 'b a b' | $map | LC_ALL=C sort | $reduce > ../$out/part-00000\n\
         echo done by hadoop\n",
    );
    fs::write(world.path("in"), "").expect("a file");
    let args = [
        "run",
        "wordcount",
        "--input",
        "in",
        "--output",
        "out",
        "--engine",
        "hadoop",
    ];
    let run = || {
        let mut command = world.command(&args);
        command.env("HADOOP_HOME", world.path("hadoop"));
        command.env("TMPDIR", world.path("home"));
        command.output().expect("it starts")
    };
    let output = run();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"out\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("done by hadoop"), "{said}");
    let part = fs::read_to_string(world.path("out/part-00000")).expect("a part");
    assert_eq!(part, "a\t1\nb\t2\n");
    // Once more: it fails, as `task` is there already.
    let output = run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("hadoop failed") && said.contains("exit status: 1"),
        "{said}"
    );
    let left: Vec<_> = fs::read_dir(world.path("home")).expect("a home").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_another_engine_cannot_do_is_refused() {
    let world = World::new();
    hadoop(&world, "");
    let run = |args: &[&str]| {
        let mut all = vec!["run", "--output", "out", "--dry-run"];
        all.extend(args);
        let mut command = world.command(&all);
        command.env("HADOOP_STREAMING_JAR", "x.jar");
        command.env("TMPDIR", world.path("home"));
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let left = fs::read_dir(world.path("home")).expect("a home").count();
        assert_eq!(left, 0, "{said}");
        (output.status.code(), said)
    };
    for (args, why) in [
        (
            &["wordcount", "--input", "magnet:?xt=x", "--engine", "spark"][..],
            "cannot read magnet",
        ),
        (
            &[
                "wordcount",
                "--input",
                "a",
                "--engine",
                "spark",
                "--skip-bad",
                "3",
            ],
            "--skip-bad",
        ),
        (
            &[
                "wordcount",
                "--input",
                "a",
                "--engine",
                "hadoop",
                "--master",
                "x:1",
            ],
            "--master",
        ),
        (
            &["join", "--input", "a", "--engine", "hadoop"],
            "does not order the values",
        ),
        (
            &[
                "sort",
                "--input",
                "a",
                "--engine",
                "hadoop",
                "--reduces",
                "2",
            ],
            "--reduces 1",
        ),
        (&["wordcount", "--input", "a"], "--engine spark"),
        (
            &[
                "--mapper", "cat", "--file", "in#shoal", "--input", "a", "--engine", "spark",
            ],
            "PATH#NAME",
        ),
    ] {
        fs::write(world.path("in"), "").expect("a file");
        let (code, said) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    }
}
