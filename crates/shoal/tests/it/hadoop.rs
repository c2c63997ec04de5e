//! `shoal hadoop` as Hadoop's users meet it: a job store, Streaming jobs, and links by Hadoop's names.
//! mrjob itself is driven by `interop/mrjob_cases.py`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::jobs::{master, worker};
use crate::process::World;

const JAR: &str = "/opt/hadoop/hadoop-streaming-3.3.6.jar";

struct Hadoop {
    world: World,
}

impl Hadoop {
    fn new() -> Self {
        let this = Self {
            world: World::new(),
        };
        this.file("in", "b 2\na 10\nc 7\na 9\nb 1\na 8\n");
        this.ok(&["fs", "-put", "in", "in"]);
        this
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.world.path(name), text).expect("a file");
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("it runs")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut args = vec!["hadoop"];
        args.extend(words);
        let mut command = self.world.command(&args);
        command.env("SHOAL_HADOOP_DIR", self.world.path("store"));
        command
            .env("HADOOP_USER_NAME", "me")
            .env("PATH", "/usr/bin:/bin");
        command
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert!(ran.status.success(), "{words:?}: {}", text(&ran.stderr));
        text(&ran.stdout)
    }

    /// A Streaming job from `in` to `out` that succeeds; what it said.
    #[track_caller]
    fn job(&self, words: &[&str]) -> String {
        let ran = self.streaming(words);
        let said = text(&ran.stderr);
        assert!(ran.status.success(), "{words:?}: {said}");
        said
    }

    fn streaming(&self, words: &[&str]) -> Output {
        let mut args = vec!["jar", JAR];
        args.extend(words);
        args.extend(["-input", "in", "-output", "out"]);
        self.run(&args)
    }

    fn part(&self, n: u32) -> String {
        self.ok(&["fs", "-cat", &format!("out/part-{n:05}")])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_streaming_job_is_told_as_hadoop_tells_it() {
    let hadoop = Hadoop::new();
    hadoop.file(
        "count.sh",
        "while read -r key value; do echo \"$key\t1\"; echo reporter:counter:my,lines,1 >&2; done\n",
    );
    let said = hadoop.job(&[
        "-files",
        "count.sh",
        "-mapper",
        "sh count.sh",
        "-reducer",
        "uniq -c",
    ]);
    assert_eq!(hadoop.part(0), "      3 a\t1\n      2 b\t1\n      1 c\t1\n");
    let names = hadoop.ok(&["fs", "-ls", "-C", "out"]);
    assert_eq!(names, "out/_SUCCESS\nout/part-00000\n");
    let after = |what: &str| {
        let (_, rest) = said
            .split_once(what)
            .unwrap_or_else(|| panic!("{what}: {said}"));
        rest.lines().next().unwrap_or_default().to_owned()
    };
    let (job, application) = (
        after("Running job: job_"),
        after("Submitted application application_"),
    );
    assert_eq!(job, application);
    assert!(
        said.contains("INFO mapreduce.Job:  map 100% reduce 100%\n"),
        "{said}"
    );
    assert!(said.contains("\n\tmy\n\t\tlines=6\n"), "{said}");
    assert!(said.contains("\t\tMap input records=6\n"), "{said}");
    assert_eq!(after("Output directory: "), "hdfs:///user/me/out");
    let again = hadoop.streaming(&["-mapper", "cat"]);
    assert_eq!(again.status.code(), Some(1));
    let why = text(&again.stderr);
    assert!(
        why.contains("Output directory hdfs:///user/me/out already exists"),
        "{why}"
    );
    assert!(why.ends_with("Streaming Command Failed!\n"), "{why}");
}

#[test]
fn fields_decide_where_keys_go_and_in_which_order() {
    let hadoop = Hadoop::new();
    hadoop.job(&[
        "-D", "stream.map.output.field.separator= ",
        "-D", "stream.num.map.output.key.fields=2",
        "-D", "mapreduce.map.output.key.field.separator= ",
        "-D", "mapreduce.partition.keypartitioner.options=-k1,1",
        "-D", "mapreduce.job.output.key.comparator.class=org.apache.hadoop.mapred.lib.KeyFieldBasedComparator",
        "-D", "mapreduce.partition.keycomparator.options=-k1,1 -k2,2nr",
        "-D", "mapred.reduce.tasks=3",
        "-partitioner", "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
        "-mapper", "cat", "-reducer", "cut -f1",
    ]);
    let parts: Vec<String> = (0..3).map(|n| hadoop.part(n)).collect();
    let all = parts.concat();
    assert!(all.contains("a 10\na 9\na 8\n"), "{parts:?}");
    assert!(all.contains("b 2\nb 1\n"), "{parts:?}");
    // All of a key's lines in one part.
    for key in ["a ", "b ", "c "] {
        assert_eq!(parts.iter().filter(|part| part.contains(key)).count(), 1);
    }
}

#[test]
fn separators_of_the_output_are_the_jobs() {
    let hadoop = Hadoop::new();
    hadoop.job(&[
        "-D",
        "stream.reduce.output.field.separator= ",
        "-D",
        "mapreduce.output.textoutputformat.separator=;",
        "-mapper",
        "sort",
        "-reducer",
        "sort -u",
    ]);
    assert_eq!(
        hadoop.part(0),
        "a;10\t\na;8\t\na;9\t\nb;1\t\nb;2\t\nc;7\t\n"
    );
}

#[test]
fn aggregate_needs_no_reducer_of_ones_own() {
    let hadoop = Hadoop::new();
    let map = "while read -r k v; do echo \"LongValueSum:$k\t$v\"; echo \"UniqValueCount:keys\t$k\"; done";
    hadoop.file("map.sh", map);
    hadoop.job(&[
        "-file",
        "map.sh",
        "-mapper",
        "sh map.sh",
        "-reducer",
        "aggregate",
    ]);
    assert_eq!(hadoop.part(0), "a\t27\nb\t3\nc\t7\nkeys\t3\n");
}

#[test]
fn lines_by_number_are_a_task_each_with_their_place() {
    let hadoop = Hadoop::new();
    let said = hadoop.job(&[
        "-inputformat",
        "org.apache.hadoop.mapred.lib.NLineInputFormat",
        "-D",
        "mapreduce.input.lineinputformat.linespermap=2",
        "-numReduceTasks",
        "0",
        "-mapper",
        "cat",
    ]);
    assert!(said.contains("Launched map tasks=3"), "{said}");
    assert_eq!(hadoop.part(0), "0\tb 2\n4\ta 10\n");
    assert_eq!(hadoop.part(2), "17\tb 1\n21\ta 8\n");
}

#[test]
fn lazy_output_leaves_out_empty_parts() {
    let hadoop = Hadoop::new();
    hadoop.job(&[
        "-lazyOutput",
        "-numReduceTasks",
        "4",
        "-mapper",
        "true",
        "-reducer",
        "cat",
    ]);
    assert_eq!(hadoop.ok(&["fs", "-ls", "-C", "out"]), "out/_SUCCESS\n");
}

#[test]
fn what_tasks_are_told_is_in_their_environment() {
    let hadoop = Hadoop::new();
    hadoop.file(
        "say.sh",
        "cat >/dev/null; echo $mapreduce_map_input_file $my_own $TZ $mapreduce_job_name\n",
    );
    hadoop.job(&[
        "-D",
        "my.own=x",
        "-D",
        "mapred.job.name=named",
        "-cmdenv",
        "TZ=UTC",
        "-numReduceTasks",
        "0",
        "-file",
        "say.sh",
        "-mapper",
        "sh say.sh",
    ]);
    assert_eq!(hadoop.part(0), "hdfs:///user/me/in x UTC named\n");
}

#[test]
fn a_failure_shows_its_cause_and_keeps_its_log() {
    let hadoop = Hadoop::new();
    hadoop.file("bad.sh", "echo it is the third line >&2; exit 3\n");
    let ran = hadoop.streaming(&[
        "-D",
        "mapreduce.map.maxattempts=2",
        "-files",
        "bad.sh",
        "-mapper",
        "sh bad.sh",
    ]);
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stderr);
    assert_eq!(
        said.matches("Status : FAILED\nError: subprocess failed: ")
            .count(),
        2,
        "{said}"
    );
    assert!(said.contains("it exited with code 3"), "{said}");
    assert!(
        said.contains("failed with state FAILED due to: Task failed task_"),
        "{said}"
    );
    assert!(
        said.ends_with("Job not successful!\nStreaming Command Failed!\n"),
        "{said}"
    );
    let logs = hadoop.ok(&[
        "fs",
        "-cat",
        "/tmp/hadoop-yarn/staging/userlogs/*/attempt_*_m_000000_0/stderr",
    ]);
    assert_eq!(logs, "it is the third line\n");
    assert_eq!(
        hadoop.run(&["fs", "-test", "-e", "out"]).status.code(),
        Some(1)
    );
}

#[test]
fn an_interrupted_job_goes_on_with_the_same_command() {
    let hadoop = Hadoop::new();
    let dir = hadoop.world.path("");
    let body = format!(
        "D={}; while [ ! -e $D/go ]; do sleep 0.02; done; cat\n",
        dir.display()
    );
    hadoop.file("wait.sh", &body);
    let line = [
        "jar",
        JAR,
        "-file",
        "wait.sh",
        "-input",
        "in",
        "-output",
        "out",
        "-mapper",
        "sh wait.sh",
    ];
    let mut command = hadoop.command(&line);
    let mut first = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(first.stderr.take().expect("piped")).lines();
    let running = said.any(|line| line.expect("text").contains("Running job: "));
    assert!(running);
    kill_process(Pid::from_child(&first), Signal::INT).expect("it runs");
    assert_eq!(first.wait().expect("it ends").code(), Some(130));
    assert!(said.any(|line| line.expect("text").contains("the same command goes on")));
    hadoop.file("go", "");
    let second = hadoop.run(&line);
    let said = text(&second.stderr);
    assert!(second.status.success(), "{said}");
    assert!(
        said.contains("going on where the same command was interrupted"),
        "{said}"
    );
    assert_eq!(hadoop.part(0).lines().count(), 6);
}

#[test]
fn workers_of_a_master_run_it_too() {
    let hadoop = Hadoop::new();
    let (_master, addr) = master(&hadoop.world, "127.0.0.1:0");
    let _worker = worker(&hadoop.world, &addr, "w1");
    hadoop.file(
        "where.sh",
        "cat; pwd >&2; case $PWD in */w1/*) echo reporter:counter:ran,there,1 >&2; esac",
    );
    let master = format!("shoal.master={addr}");
    let said = hadoop.job(&[
        "-D",
        &master,
        "-file",
        "where.sh",
        "-mapper",
        "sh where.sh",
        "-reducer",
        "cut -f1",
    ]);
    assert!(said.contains("\n\tran\n\t\tthere=1\n"), "{said}");
    assert_eq!(hadoop.part(0), "a 10\na 8\na 9\nb 1\nb 2\nc 7\n");
    let names = hadoop.ok(&["fs", "-ls", "-C", "out"]);
    assert_eq!(names, "out/_SUCCESS\nout/part-00000\n");
    let taken = hadoop.streaming(&["-D", &master, "-mapper", "cat"]);
    assert!(
        text(&taken.stderr).contains("exists already"),
        "{}",
        text(&taken.stderr)
    );
}

#[test]
fn what_cannot_be_had_is_refused_with_what_to_do() {
    let hadoop = Hadoop::new();
    for (words, named, hint) in [
        (
            &["-mapper", "org.example.Map"][..],
            "-mapper org.example.Map",
            "program or script",
        ),
        (
            &["-mapper", "cat", "-io", "typedbytes"],
            "-io typedbytes",
            "key<TAB>value",
        ),
        (&["-mapper", "cat", "-background"], "-background", "&"),
        (
            &["-mapper", "cat", "-input", "/etc/passwd"],
            "-input /etc/passwd",
            "file:///etc/passwd",
        ),
    ] {
        let ran = hadoop.streaming(words);
        let said = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(
            said.contains(named) && said.contains("hint: ") && said.contains(hint),
            "{said}"
        );
    }
    let jar = hadoop.run(&["jar", "examples.jar", "pi"]);
    assert!(text(&jar.stderr).contains("Not a valid JAR: examples.jar"));
    assert_eq!(hadoop.run(&["job", "-list"]).status.code(), Some(1));
    let none = hadoop.run(&[
        "jar", JAR, "-mapper", "cat", "-input", "none", "-output", "out",
    ]);
    let said = text(&none.stderr);
    assert!(
        said.contains("Input path does not exist: hdfs:///user/me/none"),
        "{said}"
    );
}

#[test]
fn by_hadoops_names_the_program_is_hadoop() {
    let hadoop = Hadoop::new();
    let home = hadoop.ok(&["setup", "home"]);
    let said = format!(
        "export HADOOP_HOME='{}'",
        hadoop.world.path("home").display()
    );
    assert!(home.starts_with(&said), "{home}");
    // Again: its links are made anew.
    hadoop.ok(&["setup", "home"]);
    let run = |name: &str, words: &[&str]| {
        let mut command = Command::new(hadoop.world.path("home/bin").join(name));
        command.args(words).env_clear();
        command.env("SHOAL_HADOOP_DIR", hadoop.world.path("store"));
        text(&command.output().expect("it runs").stdout)
    };
    assert!(run("hadoop", &["version"]).starts_with("Hadoop 3."));
    assert_eq!(
        run("hdfs", &["dfs", "-cat", "/user/me/in"]).lines().count(),
        6
    );
    assert!(run("mapred", &["streaming", "-help"]).contains("-mapper COMMAND"));
    let jar = hadoop
        .world
        .path("home/share/hadoop/tools/lib/hadoop-streaming-3.3.6.jar");
    assert!(jar.is_file());
    let other = hadoop.world.path("shoal-by-another-name");
    symlink(env!("CARGO_BIN_EXE_shoal"), &other).expect("a link");
    let help = Command::new(other).arg("--version").output();
    assert!(text(&help.expect("it runs").stdout).starts_with("shoal "));
}
