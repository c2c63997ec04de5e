use super::super::arguments;
use super::*;
use proptest::prelude::*;

fn job(line: &[&str]) -> Result<StreamingJob, ArgumentError> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let store = JobStore::open(dir.path(), "me").expect("a store");
    std::fs::write(store.root().join("lib.tar.gz"), "").expect("written");
    let mut words = vec!["-input", "in", "-output", "out", "-mapper", "cat"];
    words.extend(line);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    streaming(&arguments::parse(&words)?, &store)
}

fn part(first: u32, last: Option<u32>, numeric: bool, reverse: bool) -> KeyPart {
    KeyPart {
        first,
        last,
        numeric,
        reverse,
    }
}

#[test]
fn a_job_without_a_reducer_is_sorted_unless_there_are_no_reduces() {
    let spec = job(&[]).expect("a job").spec;
    assert_eq!((spec.reduces, spec.reducer), (1, Some(Code::Identity)));
    assert_eq!(spec.inputs, ["hdfs:///user/me/in"]);
    for none in [
        &["-D", "mapred.reduce.tasks=0", "-reducer", "x"][..],
        &["-numReduceTasks", "0"],
        &["-reducer", "NONE"],
    ] {
        let spec = job(none).expect("a job").spec;
        assert_eq!((spec.reduces, spec.reducer), (0, None));
    }
}

#[test]
fn secondary_sort_is_understood_by_old_names_and_new() {
    let new = job(&[
        "-D",
        "stream.num.map.output.key.fields=2",
        "-D",
        "mapreduce.partition.keypartitioner.options=-k1,1",
        "-D",
        "mapreduce.job.output.key.comparator.class=org.apache.hadoop.mapred.lib.KeyFieldBasedComparator",
        "-D",
        "mapreduce.partition.keycomparator.options=-k1 -k2nr",
        "-partitioner",
        "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
    ]);
    let old = job(&[
        "-D",
        "stream.num.map.output.key.fields=2",
        "-D",
        "mapred.text.key.partitioner.options=-k1,1",
        "-D",
        "mapred.output.key.comparator.class=org.apache.hadoop.mapred.lib.KeyFieldBasedComparator",
        "-D",
        "mapred.text.key.comparator.options=-k1 -k2nr",
        "-partitioner",
        "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
    ]);
    for spec in [new.expect("a job").spec, old.expect("a job").spec] {
        assert_eq!(spec.map_fields.key_fields, 2);
        let first = part(1, Some(1), false, false);
        assert_eq!(spec.partitioner, Partitioner::Fields(vec![first]));
        let parts = vec![part(1, None, false, false), part(2, None, true, true)];
        assert_eq!(spec.order, Order::Fields(parts));
        assert_eq!(
            spec.properties["mapred.text.key.partitioner.options"],
            "-k1,1"
        );
    }
}

#[test]
fn separators_are_apart() {
    let spec = job(&[
        "-D",
        "stream.map.output.field.separator=.",
        "-D",
        "stream.num.map.output.key.fields=4",
        "-D",
        "map.output.key.field.separator=.",
        "-D",
        "mapreduce.output.textoutputformat.separator=,",
    ])
    .expect("a job")
    .spec;
    assert_eq!(
        (spec.map_fields.separator, spec.map_fields.key_fields),
        (b'.', 4)
    );
    assert_eq!(spec.key_separator(), b'.');
    assert_eq!(spec.reduce_fields.separator, b',');
    let plain = job(&["-D", "stream.map.output.field.separator=."])
        .expect("a job")
        .spec;
    assert_eq!(plain.key_separator(), b'\t');
}

#[test]
fn limits_come_from_properties() {
    let got = job(&[
        "-D",
        "mapreduce.map.maxattempts=2",
        "-D",
        "mapred.task.timeout=5000",
        "-D",
        "mapreduce.input.fileinputformat.split.maxsize=1000",
        "-D",
        "io.sort.mb=64",
        "-D",
        "mapreduce.job.priority=HIGH",
        "-D",
        "mapreduce.map.speculative=false",
        "-D",
        "mapreduce.reduce.speculative=false",
        "-D",
        "mapred.job.name=mine",
    ])
    .expect("a job");
    let limits = &got.spec.limits;
    assert_eq!((limits.attempts_max, limits.stalled_ms), (2, 5000));
    assert_eq!((limits.split_bytes, limits.memory_bytes), (1000, 64 << 20));
    assert!(got.split_given && !got.spec.speculative);
    assert_eq!((got.spec.priority, got.spec.name.as_str()), (1, "mine"));
}

#[test]
fn side_files_lie_here_or_in_the_store() {
    let got = job(&[
        "-archives",
        "hdfs:///lib.tar.gz#lib",
        "-files",
        "/etc/passwd",
    ]);
    let spec = got.expect("a job").spec;
    let names: Vec<_> = spec
        .side_files
        .iter()
        .map(|f| (f.name.as_str(), f.archive))
        .collect();
    assert_eq!(names, [("passwd", false), ("lib", true)]);
    assert!(
        job(&["-files", "/etc"])
            .expect_err("a folder")
            .hint
            .is_some()
    );
    assert!(job(&["-cacheFile", "/none#x"]).is_err());
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    for (line, named) in [
        (&["-mapper", "x"][..], "-mapper"),
        (
            &["-reducer", "org.example.Reduce"],
            "-reducer org.example.Reduce",
        ),
        (
            &["-inputformat", "org.example.Xml"],
            "-inputformat org.example.Xml",
        ),
        (
            &["-outputformat", "nicknack.Out"],
            "-outputformat nicknack.Out",
        ),
        (
            &["-partitioner", "org.example.P"],
            "-partitioner org.example.P",
        ),
        (
            &["-D", "mapred.output.compress=true"],
            "-D mapreduce.output.fileoutputformat.compress=true",
        ),
        (
            &["-D", "mapreduce.job.reduces=x"],
            "-D mapreduce.job.reduces=x",
        ),
        (
            &["-D", "stream.map.output=typedbytes"],
            "-D stream.map.output=typedbytes",
        ),
        (
            &["-D", "stream.map.output.field.separator=ab"],
            "-D stream.map.output.field.separator=ab",
        ),
        (&["-conf", "/none.xml"], "-conf /none.xml"),
        (&["-input", "/etc/passwd"], "-input /etc/passwd"),
        (&["-input", "s3a://b/x"], "-input s3a://b/x"),
    ] {
        let error = job(line).map(|j| j.spec).expect_err(named);
        assert_eq!(error.option, named);
    }
    assert!(job(&["-reducer", "my.script.py"]).is_ok());
}

#[test]
fn lines_by_number_come_with_their_place() {
    let spec = job(&[
        "-inputformat",
        "org.apache.hadoop.mapred.lib.NLineInputFormat",
        "-D",
        "mapred.line.input.format.linespermap=3",
    ])
    .expect("a job")
    .spec;
    assert_eq!(spec.properties[prepare::SPLIT_LINES], "3");
    assert_eq!(spec.properties[streaming::IGNORE_KEY], "false");
}

/// Options with values that are likely to be taken, and some that are not.
fn option() -> impl Strategy<Value = Vec<String>> {
    let property = prop_oneof![
        Just("mapreduce.job.reduces"),
        Just("mapred.text.key.partitioner.options"),
        Just("mapreduce.partition.keycomparator.options"),
        Just("mapreduce.job.output.key.comparator.class"),
        Just("stream.map.output.field.separator"),
        Just("stream.num.map.output.key.fields"),
        Just("mapreduce.task.timeout"),
        Just("io.sort.mb"),
        Just("mapreduce.job.priority"),
        Just("fs.defaultFS"),
    ];
    let value = prop_oneof![
        "[-k0-9,nr ]{0,8}",
        "[0-9]{0,20}",
        "[a-z./:]{0,8}",
        Just("KeyFieldBasedComparator".to_owned()),
    ];
    let named = prop_oneof![
        Just("-reducer"),
        Just("-combiner"),
        Just("-partitioner"),
        Just("-inputformat"),
        Just("-input"),
        Just("-cacheFile"),
        Just("-cmdenv"),
        Just("-fs"),
    ];
    let class = prop_oneof![
        "[a-zA-Z./*{},= ]{0,10}",
        Just("aggregate".to_owned()),
        Just("x.lib.KeyFieldBasedPartitioner".to_owned()),
        Just("NLineInputFormat".to_owned()),
    ];
    prop_oneof![
        (property, value).prop_map(|(n, v)| vec!["-D".to_owned(), format!("{n}={v}")]),
        (named, class).prop_map(|(n, v)| vec![n.to_owned(), v]),
    ]
}

proptest! {
    #[test]
    fn any_options_are_a_sound_job_or_an_error(
        options in proptest::collection::vec(option(), 0..6), output in "[a-z./]{1,8}",
    ) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let store = JobStore::open(dir.path(), "me").expect("a store");
        let mut words = vec!["-input", "in", "-mapper", "cat", "-output", &output];
        words.extend(options.iter().flatten().map(String::as_str));
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let Ok(read) = arguments::parse(&words) else { return Ok(()) };
        match streaming(&read, &store) {
            Err(e) => prop_assert!(!e.option.is_empty() && !e.why.is_empty()),
            Ok(made) => {
                let spec = made.spec;
                prop_assert_eq!(spec.reduces == 0, spec.reducer.is_none());
                prop_assert!(spec.map_fields.key_fields >= 1 && spec.limits.attempts_max >= 1);
                prop_assert!(spec.limits.split_bytes >= 1 && spec.limits.memory_bytes >= 1 << 20);
                prop_assert!(!made.output.stored || made.output.real.starts_with(store.root()));
                if let Order::Fields(parts) = &spec.order {
                    prop_assert!(parts.iter().all(|p| p.first >= 1));
                }
            }
        }
    }
}
