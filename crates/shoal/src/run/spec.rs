//! From the command line and job files to a job.

use std::path::Path;

use shoal_jobs::job_file::{self, JobFile, side_file};
use shoal_mapreduce::data::builtin;
use shoal_mapreduce::job::{Code, JobSpec};

use crate::cli::{CodeArgs, RunArgs};
use crate::failure::{Failure, Outcome};

/// A job, and what was left open.
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) reduces_given: bool,
}

/// What the command line asks for.
pub(super) fn from_args(args: &RunArgs) -> Outcome<Job> {
    let mut job = code(&args.code)?;
    let spec = &mut job.spec;
    if !args.inputs.is_empty() {
        spec.inputs.clone_from(&args.inputs);
    }
    if let Some(output) = &args.output {
        spec.output.clone_from(output);
    }
    if spec.inputs.is_empty() {
        return Err(Failure::usage("no --input is given").hint("shoal run --help shows examples"));
    }
    if spec.output.is_empty() {
        return Err(Failure::usage("no --output is given").hint("shoal run --help shows examples"));
    }
    if let Some(reduces) = args.reduces {
        job.reduces_given = true;
        spec.reduces = reduces;
        if reduces == 0 {
            spec.reducer = None;
            spec.combiner = None;
        } else if spec.reducer.is_none() && spec.mapper != Code::Identity && args.code.job.is_none()
        {
            // Sorted by key, as Hadoop does when only a mapper is given.
            spec.reducer = Some(Code::Identity);
        }
    }
    let limits = &mut spec.limits;
    limits.memory_bytes = args.memory.unwrap_or(limits.memory_bytes).max(1 << 20);
    limits.split_bytes = args.split_size.unwrap_or(limits.split_bytes).max(1);
    limits.attempts_max = args.max_attempts.unwrap_or(limits.attempts_max);
    limits.skip_records_max = args.skip_bad.unwrap_or(limits.skip_records_max);
    spec.speculative &= !args.no_speculation;
    spec.priority = args.priority.unwrap_or(spec.priority);
    Ok(job)
}

/// What a job does; of its input and output only what a job file says.
pub(crate) fn code(args: &CodeArgs) -> Outcome<Job> {
    let mut job = base(args)?;
    let spec = &mut job.spec;
    let limits = &mut spec.limits;
    limits.code_memory_bytes = args.code_memory.unwrap_or(limits.code_memory_bytes);
    for file in &args.files {
        let (path, name) = match file.rsplit_once('#') {
            Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
            _ => (file.as_str(), None),
        };
        spec.side_files.push(side_file(path, name, false));
    }
    spec.environment.extend(args.env.iter().cloned());
    spec.properties.extend(args.properties.iter().cloned());
    Ok(job)
}

fn base(args: &CodeArgs) -> Outcome<Job> {
    let mut spec = JobSpec::default();
    if let Some(mapper) = &args.mapper {
        let command = |c: &String| Code::Streaming { command: c.clone() };
        spec.name = mapper
            .split_whitespace()
            .next()
            .map_or("streaming", |word| word.rsplit('/').next().unwrap_or(word))
            .to_owned();
        spec.mapper = command(mapper);
        spec.combiner = args.combiner.as_ref().map(command);
        spec.reducer = args.reducer.as_ref().map(command);
        spec.reduces = u32::from(spec.reducer.is_some());
        return Ok(Job {
            spec,
            reduces_given: false,
        });
    }
    let name = args.job.as_deref().unwrap_or_default();
    if name.ends_with(".toml") || name.ends_with(".json") {
        return from_file(name, args);
    }
    if name.ends_with(".wasm") {
        let code = Code::Wasm {
            module: name.to_owned(),
            args: args.args.clone(),
        };
        spec.name = stem(name);
        spec.mapper = code.clone();
        spec.reducer = Some(code);
        spec.reduces = 1;
        return Ok(Job {
            spec,
            reduces_given: false,
        });
    }
    fill_in(name, args, &mut spec)?;
    Ok(Job {
        reduces_given: spec.reducer.is_none(),
        spec,
    })
}

fn stem(path: &str) -> String {
    let stem = Path::new(path).file_stem();
    stem.map_or_else(|| path.to_owned(), |s| s.to_string_lossy().into_owned())
}

fn fill_in(name: &str, args: &CodeArgs, spec: &mut JobSpec) -> Outcome {
    let mut all: Vec<String> = args.pattern.iter().cloned().collect();
    all.extend(args.args.iter().cloned());
    if name == "grep" && all.is_empty() {
        return Err(Failure::usage("grep needs a --pattern"));
    }
    builtin::fill_in(name, &all, spec).map_err(|e| {
        let failure = Failure::usage(format!("cannot run {name:?}")).reason(e.what);
        if builtin::NAMES.contains(&name) {
            failure
        } else {
            failure.hint("a job file ends in .toml, a module in .wasm; --mapper takes a command")
        }
    })
}

fn from_file(path: &str, args: &CodeArgs) -> Outcome<Job> {
    if !args.args.is_empty() || args.pattern.is_some() {
        return Err(
            Failure::usage("--arg and --pattern are for built-in jobs and modules")
                .hint("write `args` into the job file"),
        );
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::io("read the job file", Path::new(path), &e))?;
    if path.ends_with(".json") {
        return from_json(path, &text);
    }
    let JobFile {
        mut spec,
        builtin,
        reduces_given,
    } = job_file::parse(&text)
        .map_err(|e| Failure::usage(format!("{path} is no job file")).because(&e))?;
    if spec.name.is_empty() {
        spec.name = stem(path);
    }
    if let Some((name, words)) = builtin {
        let own = spec.name.clone();
        builtin::fill_in(&name, &words, &mut spec)
            .map_err(|e| Failure::usage(format!("cannot run {path}")).reason(e.what))?;
        spec.name = own;
    }
    Ok(Job {
        spec,
        reduces_given,
    })
}

/// A job as it is handed to other engines; its side files lie beside it.
fn from_json(path: &str, text: &str) -> Outcome<Job> {
    let mut spec: JobSpec = serde_json::from_str(text)
        .map_err(|e| Failure::usage(format!("{path} is no job")).because(&e))?;
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    for file in &mut spec.side_files {
        file.source = folder.join(&file.source).to_string_lossy().into_owned();
    }
    Ok(Job {
        spec,
        reduces_given: true,
    })
}
