//! `--engine hadoop`: a line of Hadoop Streaming (its options: Hadoop's "Hadoop Streaming" guide).

use std::fs;
use std::path::{Path, PathBuf};

use shoal_mapreduce::job::{Code, KeyPart, Order, Partitioner};

use super::{CommandLine, Handed, program};
use crate::cli::RunArgs;
use crate::failure::{Failure, Outcome};

/// Where Hadoop may be installed.
const HOMES: [&str; 3] = ["HADOOP_HOME", "HADOOP_PREFIX", "HADOOP_INSTALL"];

/// The command that runs the job.
pub(super) fn command(
    handed: &Handed,
    reduces: Option<u32>,
    args: &RunArgs,
) -> Outcome<CommandLine> {
    let spec = &handed.spec;
    let mut words = vec![program(&HOMES, "hadoop"), "jar".to_owned(), jar()?];
    let mut add = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    // Options that all of Hadoop knows come before those of streaming.
    add("-D", &format!("mapreduce.job.name={}", spec.name));
    let reduces = if spec.reducer.is_none() {
        Some(0)
    } else {
        reduces
    };
    if let Some(reduces) = reduces {
        add("-D", &format!("mapreduce.job.reduces={reduces}"));
    }
    for (name, value) in fields(handed).into_iter().chain(spec.properties.clone()) {
        add("-D", &format!("{name}={value}"));
    }
    let partitioner = partitioning(handed, reduces, &mut add)?;
    let (files, archives) = files(handed);
    if !files.is_empty() {
        add("-files", &files.join(","));
    }
    if !archives.is_empty() {
        add("-archives", &archives.join(","));
    }
    words.extend(args.hand_over.engine_args.iter().cloned());
    let mut add = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    for input in &spec.inputs {
        add("-input", input);
    }
    add("-output", &spec.output);
    add("-mapper", &executable(&spec.mapper, "map"));
    let folds = spec.reducer.as_ref().filter(|_| spec.associative);
    if let Some(code) = spec.combiner.as_ref().or(folds) {
        add("-combiner", &executable(code, "combine"));
    }
    if let Some(code) = &spec.reducer {
        add("-reducer", &executable(code, "reduce"));
    }
    if let Some(class) = partitioner {
        add("-partitioner", class);
    }
    for (name, value) in &spec.environment {
        add("-cmdenv", &format!("{name}={value}"));
    }
    Ok(CommandLine(words))
}

/// The user's own commands as they are, all else as a task of ours.
fn executable(code: &Code, phase: &str) -> String {
    match code {
        Code::Streaming { command } => command.clone(),
        _ => format!("./shoal task {phase} job.json"),
    }
}

fn codes(handed: &Handed) -> impl Iterator<Item = &Code> {
    let spec = &handed.spec;
    let codes = [
        Some(&spec.mapper),
        spec.combiner.as_ref(),
        spec.reducer.as_ref(),
    ];
    codes.into_iter().flatten()
}

/// What `-files` and `-archives` name.
fn files(handed: &Handed) -> (Vec<String>, Vec<String>) {
    let commands = codes(handed).any(|c| matches!(c, Code::Streaming { .. }));
    let ours = codes(handed).any(|c| !matches!(c, Code::Streaming { .. }));
    let entry = |source: &str, name: &str| format!("{}#{name}", handed.path(source));
    let mut files = Vec::new();
    if ours {
        files.extend(["shoal", "job.json"].map(|name| entry(name, name)));
    }
    let mut archives = Vec::new();
    for file in &handed.spec.side_files {
        if !file.archive || ours {
            files.push(entry(&file.source, &file.source));
        }
        if file.archive && commands {
            archives.push(entry(&file.source, &file.name));
        }
    }
    (files, archives)
}

/// How lines become keys and values, where that is not as Hadoop has it anyway.
fn fields(handed: &Handed) -> Vec<(String, String)> {
    let fields = &handed.spec.map_fields;
    let mut all = Vec::new();
    if fields.key_fields != 1 {
        let name = "stream.num.map.output.key.fields";
        all.push((name.to_owned(), fields.key_fields.to_string()));
    }
    if fields.separator != b'\t' {
        let separator = char::from(fields.separator).to_string();
        for name in [
            "stream.map.output.field.separator",
            "stream.reduce.input.field.separator",
            "mapreduce.map.output.key.field.separator",
        ] {
            all.push((name.to_owned(), separator.clone()));
        }
    }
    all
}

/// Adds how keys are spread and ordered; returns the partitioner's class.
fn partitioning(
    handed: &Handed,
    reduces: Option<u32>,
    add: &mut impl FnMut(&str, &str),
) -> Outcome<Option<&'static str>> {
    let spec = &handed.spec;
    let refused = |what: &str, hint: &str| Err(Failure::usage(what).hint(hint));
    if spec.order_values {
        return refused(
            "Hadoop Streaming does not order the values of a key",
            "make what orders them a part of the key: map_fields, order and partitioner in a job file",
        );
    }
    if let Order::Fields(parts) = &spec.order {
        let class = "org.apache.hadoop.mapreduce.lib.partition.KeyFieldBasedComparator";
        add(
            "-D",
            &format!("mapreduce.job.output.key.comparator.class={class}"),
        );
        // The whole key last, so that equal keys come together.
        let options = format!("{} -k1", options(parts));
        add(
            "-D",
            &format!("mapreduce.partition.keycomparator.options={options}"),
        );
    }
    match &spec.partitioner {
        Partitioner::Hash => Ok(None),
        Partitioner::Range if reduces.is_none_or(|n| n < 2) => Ok(None),
        Partitioner::Range => refused(
            "Hadoop Streaming cannot sample a total order over several reduce tasks",
            "--reduces 1 puts all into one",
        ),
        Partitioner::Fields(parts) => {
            add(
                "-D",
                &format!(
                    "mapreduce.partition.keypartitioner.options={}",
                    options(parts)
                ),
            );
            Ok(Some(
                "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner",
            ))
        }
    }
}

/// Parts of keys as `sort -k` writes them.
fn options(parts: &[KeyPart]) -> String {
    let option = |part: &KeyPart| {
        let last = part.last.map(|n| format!(",{n}")).unwrap_or_default();
        let numeric = if part.numeric { "n" } else { "" };
        let reverse = if part.reverse { "r" } else { "" };
        format!("-k{}{last}{numeric}{reverse}", part.first)
    };
    parts.iter().map(option).collect::<Vec<_>>().join(" ")
}

/// The library of Hadoop Streaming.
fn jar() -> Outcome<String> {
    if let Some(jar) = std::env::var_os("HADOOP_STREAMING_JAR").filter(|jar| !jar.is_empty()) {
        return Ok(jar.to_string_lossy().into_owned());
    }
    let homes = HOMES.iter().filter_map(std::env::var_os);
    let found = homes
        .flat_map(|home| {
            let home = PathBuf::from(home);
            ["share/hadoop/tools/lib", "contrib/streaming", "."].map(|below| home.join(below))
        })
        .find_map(|dir| streaming_jar(&dir));
    found.ok_or_else(|| {
        Failure::not_found("there is no hadoop-streaming*.jar below $HADOOP_HOME")
            .hint("set HADOOP_HOME, or HADOOP_STREAMING_JAR to the file")
    })
}

fn streaming_jar(dir: &Path) -> Option<String> {
    let mut jars: Vec<_> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.starts_with("hadoop") && name.contains("streaming") && name.ends_with(".jar")
        })
        .collect();
    jars.sort();
    Some(dir.join(jars.first()?).to_string_lossy().into_owned())
}
