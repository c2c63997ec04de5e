//! `shoal task`: one phase of a job as a filter, for clusters of other engines.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_jobs::code::{Role, Stop};
use shoal_jobs::filter::{Filter, FilterError, Place, Source};
use shoal_mapreduce::data::{DataError, LinesError};
use shoal_mapreduce::id::TaskKind;

use crate::cli::{MapTaskArgs, TaskCommand};
use crate::failure::{Exit, Failure, Outcome};
use crate::run::spec;
use crate::signals::Interrupt;

/// Runs the command.
pub(crate) fn task(command: &TaskCommand) -> Outcome<Exit> {
    let (args, kind) = match command {
        TaskCommand::Map(args) => (&args.code, TaskKind::Map),
        TaskCommand::Combine(args) => (&args.code, TaskKind::Map),
        TaskCommand::Reduce(args) => (&args.code, TaskKind::Reduce),
    };
    let spec = spec::code(args)?.spec;
    let source = match command {
        TaskCommand::Map(args) => source(args, &spec.inputs),
        _ => None,
    };
    let folder = Folder::make()?;
    let place = place(&folder)?;
    let filter = Filter::new(spec, kind, place);
    let (input, output, notes) = (io::stdin().lock(), io::stdout().lock(), io::stderr());
    let done = match command {
        TaskCommand::Map(_) => filter.map(source.as_ref(), input, output, notes),
        TaskCommand::Combine(_) => filter.reduce(Role::Combine, input, output, notes),
        TaskCommand::Reduce(_) => filter.reduce(Role::Reduce, input, output, notes),
    };
    match done {
        // Whoever read the output has what they wanted.
        Ok(()) | Err(FilterError::Closed) => Ok(Exit::Ok),
        Err(e) => Err(failure(&e)),
    }
}

fn failure(error: &FilterError) -> Failure {
    let exit = match error {
        FilterError::NoCode(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let mut failure = Failure::new(exit, "the task failed");
    if let FilterError::Code { .. } = error {
        for line in error.to_string().lines() {
            failure = failure.reason(line);
        }
    } else {
        failure = failure.because(error);
    }
    if let FilterError::Data(DataError::Lines(LinesError::Order { .. })) = error {
        failure = failure.hint("lines have to come by the bytes of their keys: LC_ALL=C sort");
    }
    failure
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("shoal-task-{}", std::process::id()));
        // What is left there is of a process that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(|e| Failure::io("make the folder", &path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the code runs. A signal ends it and removes the folder.
fn place(folder: &Folder) -> Outcome<Place> {
    let stop = Arc::new(Stop::default());
    let interrupt = Interrupt::install()?;
    let (ender, dir) = (Arc::clone(&stop), folder.0.clone());
    let waiting = std::thread::Builder::new().name("ender".to_owned());
    waiting
        .spawn(move || {
            // Ends when the sender goes, which is the signal.
            let _ = interrupt.woken().recv();
            ender.stop();
            let _ = fs::remove_dir_all(&dir);
            std::process::exit(Exit::Interrupted as i32);
        })
        .map_err(|e| Failure::failed("cannot start a thread").because(&e))?;
    // What code says goes where it would without us; that cannot be opened if it is a socket.
    let stderr = Path::new("/dev/stderr");
    let log = if File::options().append(true).open(stderr).is_ok() {
        stderr.to_owned()
    } else {
        folder.0.join("log")
    };
    let index = std::env::var("mapreduce_task_partition");
    Ok(Place {
        dir: folder.0.clone(),
        log,
        index: index.ok().and_then(|n| n.parse().ok()).unwrap_or(0),
        stop,
    })
}

/// Where the lines come from.
fn source(args: &MapTaskArgs, inputs: &[String]) -> Option<Source> {
    let file = args.from.clone()?;
    let found = || inputs.iter().position(|input| belongs(&file, input));
    let input = args.from_input;
    let input = input.or_else(|| found().and_then(|n| u32::try_from(n).ok()));
    Some(Source {
        input: input.unwrap_or(0),
        file,
    })
}

/// Whether a file is, or lies below, what an input names. Engines write paths as URLs.
fn belongs(file: &str, input: &str) -> bool {
    let fixed = input.split(['*', '?', '[', '{']).next().unwrap_or(input);
    let whole = fixed.len() == input.len();
    let path = |text: &str| {
        let rest = text
            .split_once(':')
            .filter(|(_, rest)| rest.starts_with('/'));
        let path = rest.map_or(text, |(_, rest)| rest);
        path.trim_start_matches('/').to_owned()
    };
    let (file, named) = (path(file), path(fixed));
    let named = if whole {
        named.trim_end_matches('/')
    } else {
        &named
    };
    file.match_indices(named).any(|(at, _)| {
        let (before, after) = (file.get(..at), file.get(at + named.len()..));
        let starts = before.is_none_or(|b| b.is_empty() || b.ends_with('/'));
        let ends = after.is_none_or(|a| a.is_empty() || a.starts_with('/') || !whole);
        starts && ends
    })
}

#[cfg(test)]
mod tests {
    use super::belongs;

    #[test]
    fn a_file_belongs_to_the_input_that_names_it() {
        for (file, input) in [
            ("file:/data/a/part-0", "/data/a"),
            ("file:///data/a/part-0", "/data/a/"),
            ("hdfs://node:8020/user/me/a.txt", "a.txt"),
            ("hdfs://node:8020/user/me/a.txt", "hdfs:///user/me"),
            ("file:/data/logs-1.gz", "/data/logs-*.gz"),
            ("a", "a"),
        ] {
            assert!(belongs(file, input), "{file} {input}");
        }
        for (file, input) in [
            ("file:/data/ab/part-0", "/data/a"),
            ("file:/data/b/a", "/data/a"),
            ("file:/data/a.txt.gz", "a.txt"),
            ("file:/data/log", "/data/logs-*"),
        ] {
            assert!(!belongs(file, input), "{file} {input}");
        }
    }
}
