//! The environment of a streaming process, as Hadoop Streaming documents it: every property of
//! the job with its dots turned into underscores, and what is true of this task.

use crate::code::Attempt;
use shoal_mapreduce::id::{JobId, TaskId, TaskKind};
use std::collections::BTreeMap;

/// Longest value that is passed on; the kernel takes no variable above 128 KiB.
const VALUE_MAX: usize = 100_000;

/// The part of the input that a process is about to get, for mappers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InputPart {
    /// Name of the file.
    pub(super) file: String,
    /// Where in the file it begins, in bytes.
    pub(super) start: u64,
}

/// What is set in addition to what the worker's own environment holds.
pub(super) fn variables(attempt: &Attempt, input: Option<&InputPart>) -> BTreeMap<String, String> {
    let spec = &attempt.spec;
    let mut out = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        let name = safe_name(name);
        if !name.is_empty() && value.len() <= VALUE_MAX && !value.contains('\0') {
            out.insert(name, value);
        }
    };
    for (name, value) in &spec.properties {
        set(name, value.clone());
    }
    let ids = Ids::of(attempt);
    let TaskId { kind, index, .. } = attempt.id.task;
    let is_map = (kind == TaskKind::Map).to_string();
    // The second name of each pair is that of Hadoop 1, which old scripts still read.
    for (new, old, value) in [
        ("mapreduce.job.id", "mapred.job.id", ids.job),
        ("mapreduce.task.id", "mapred.tip.id", ids.task),
        ("mapreduce.task.attempt.id", "mapred.task.id", ids.attempt),
        (
            "mapreduce.task.partition",
            "mapred.task.partition",
            index.to_string(),
        ),
        ("mapreduce.task.ismap", "mapred.task.is.map", is_map),
        ("mapreduce.job.name", "mapred.job.name", spec.name.clone()),
        (
            "mapreduce.job.reduces",
            "mapred.reduce.tasks",
            spec.reduces.to_string(),
        ),
        (
            "mapreduce.input.fileinputformat.inputdir",
            "mapred.input.dir",
            spec.inputs.join(","),
        ),
        (
            "mapreduce.output.fileoutputformat.outputdir",
            "mapred.output.dir",
            spec.output.clone(),
        ),
    ] {
        set(new, value.clone());
        set(old, value);
    }
    if let Some(InputPart { file, start }) = input {
        for (new, old, value) in [
            ("mapreduce.map.input.file", "map.input.file", file.clone()),
            (
                "mapreduce.map.input.start",
                "map.input.start",
                start.to_string(),
            ),
        ] {
            set(new, value.clone());
            set(old, value);
        }
    }
    for (name, value) in &spec.environment {
        if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            out.insert(name.clone(), value.clone());
        }
    }
    out
}

/// Hadoop's rule: what is neither letter nor digit becomes an underscore.
fn safe_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

struct Ids {
    job: String,
    task: String,
    attempt: String,
}

impl Ids {
    /// Names in Hadoop's form, `job_STARTED_NNNN`. The job may bring its own as the property
    /// `mapreduce.job.id`, of which the others are made.
    fn of(attempt: &Attempt) -> Self {
        let TaskId {
            job: JobId(number),
            kind,
            index,
        } = attempt.id.task;
        let job = match attempt.spec.properties.get("mapreduce.job.id") {
            Some(id) if id.starts_with("job_") => id.clone(),
            _ => format!("job_0_{number:04}"),
        };
        let stem = job.trim_start_matches("job_").to_owned();
        let kind = match kind {
            TaskKind::Map => 'm',
            TaskKind::Reduce => 'r',
        };
        Self {
            job,
            task: format!("task_{stem}_{kind}_{index:06}"),
            attempt: format!("attempt_{stem}_{kind}_{index:06}_{}", attempt.id.number),
        }
    }
}
