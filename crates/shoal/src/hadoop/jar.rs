//! `hadoop jar`: a Streaming job, run here, told as Hadoop's client tells it.

mod running;

use std::io::{self, Stderr};
use std::path::{Path, PathBuf};

use shoal_jobs::hadoop::arguments::{self, ArgumentError};
use shoal_jobs::hadoop::job::{self, StreamingJob};
use shoal_jobs::hadoop::log::{self, Ids, Log};
use shoal_jobs::hadoop::store::JobStore;
use shoal_jobs::view::JobView;
use shoal_mapreduce::master::Outcome;

use self::running::{Running, Woken};
use super::{complain, say, store};
use crate::failure::Exit;
use crate::signals::Interrupt;
use shoal_jobs::engine::attempt::chain;

/// The property that names the master of a cluster; so does the variable SHOAL_MASTER.
const MASTER: &str = "shoal.master";
/// The class that tells what becomes of a Streaming job.
const STREAM: &str = "streaming.StreamJob";

/// What a job came to, but for success.
enum Stopped {
    /// It failed or could not begin; all is said but the last word.
    Failed,
    Interrupted,
}

/// `jar FILE …`: the only jar there is one is that of Streaming.
pub(super) fn jar(words: &[String]) -> u8 {
    let Some((jar, rest)) = words.split_first() else {
        complain("hadoop jar: needs the name of a Streaming jar and its arguments\n");
        return 255;
    };
    let name = jar.rsplit('/').next().unwrap_or(jar);
    if !(name.contains("streaming") && name.ends_with(".jar")) {
        complain(&format!(
            "Not a valid JAR: {jar}\n\
             hint: no Java runs here; what runs is hadoop-streaming.jar, with -mapper and -reducer\n"
        ));
        return 255;
    }
    // Some name its main class.
    match rest.split_first() {
        Some((first, rest)) if first.starts_with("org.apache.hadoop.streaming.") => streaming(rest),
        _ => streaming(rest),
    }
}

/// A Streaming job.
pub(super) fn streaming(words: &[String]) -> u8 {
    let mut log = Log::new(io::stderr());
    let arguments = match arguments::parse(words) {
        Ok(arguments) if arguments.help => {
            say(USAGE);
            return 0;
        }
        Ok(arguments) => arguments,
        Err(e) => return refused(&mut log, &e),
    };
    let store = match store() {
        Ok(store) => store,
        Err(e) => {
            log.line("ERROR", STREAM, &chain(&e));
            return failed(&mut log);
        }
    };
    let job = match job::streaming(&arguments, &store) {
        Ok(job) => job,
        Err(e) => return refused(&mut log, &e),
    };
    for warning in &job.warnings {
        log.line("WARN", STREAM, warning);
    }
    if arguments.verbose {
        let spec = serde_json::to_string_pretty(&job.spec).unwrap_or_default();
        log.line("INFO", STREAM, &format!("the job is\n{spec}"));
    }
    match run(job, &store, &mut log) {
        Ok(()) => 0,
        Err(Stopped::Failed) => failed(&mut log),
        Err(Stopped::Interrupted) => Exit::Interrupted as u8,
    }
}

fn refused(log: &mut Log<Stderr>, error: &ArgumentError) -> u8 {
    log.line("ERROR", STREAM, &error.to_string());
    if let Some(hint) = &error.hint {
        log.bare(&format!("hint: {hint}"));
    }
    failed(log)
}

fn failed(log: &mut Log<Stderr>) -> u8 {
    log.bare("Streaming Command Failed!");
    1
}

/// A folder that is removed when it is of no more use.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(job: StreamingJob, store: &JobStore, log: &mut Log<Stderr>) -> Result<(), Stopped> {
    let interrupt = Interrupt::install().map_err(|e| {
        log.line("ERROR", STREAM, &e.what);
        Stopped::Failed
    })?;
    let ids = Ids::now(std::process::id());
    let StreamingJob {
        mut spec,
        output,
        split_given,
        lazy_output,
        ..
    } = job;
    let folder = PathBuf::from(&spec.output);
    spec.properties
        .insert("mapreduce.job.id".to_owned(), ids.job());
    let scratch = Scratch(store.root().join("tmp/.shoal-logs").join(ids.application()));
    let master = spec.properties.get(MASTER).cloned();
    let master = master.or_else(|| std::env::var("SHOAL_MASTER").ok().filter(|m| !m.is_empty()));
    let begun = match &master {
        None => running::here(spec, split_given, store, &scratch.0),
        Some(master) => running::there(spec, split_given, store, master, &scratch.0),
    };
    let mut running = begun.map_err(|why| {
        log.line("ERROR", STREAM, &format!("Error Launching job : {why}"));
        Stopped::Failed
    })?;
    if running.resumed() {
        log.line(
            "INFO",
            STREAM,
            "going on where the same command was interrupted",
        );
    }
    log.line(
        "INFO",
        "impl.YarnClientImpl",
        &format!("Submitted application {}", ids.application()),
    );
    log.job(&format!("Running job: {}", ids.job()));
    let mut following = Following {
        ids: &ids,
        store,
        logs: &scratch.0,
        told: 0,
        progress: String::new(),
    };
    let ended = following.follow(&mut running, &interrupt, log);
    running.stop();
    let (outcome, view) = ended?;
    let name = ids.job();
    match &outcome {
        Outcome::Succeeded => log.job(&format!("Job {name} completed successfully")),
        Outcome::Cancelled => log.job(&format!("Job {name} was cancelled")),
        Outcome::Failed { attempt, .. } => {
            let task = ids.renamed(&attempt.task.to_string());
            log.job(&format!(
                "Job {name} failed with state FAILED due to: Task failed {task}"
            ));
        }
    }
    log.job(&log::counters_text(&log::counters(&view)));
    if outcome != Outcome::Succeeded {
        log.line("ERROR", STREAM, "Job not successful!");
        return Err(Stopped::Failed);
    }
    if lazy_output {
        remove_empty(&folder);
    }
    log.line(
        "INFO",
        STREAM,
        &format!("Output directory: {}", output.uri()),
    );
    Ok(())
}

/// Removes parts without a record.
fn remove_empty(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let part = entry.file_name().to_string_lossy().starts_with("part-");
        if part && entry.metadata().is_ok_and(|m| m.len() == 0) {
            // One that stays does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// What was told of a job so far.
struct Following<'a> {
    ids: &'a Ids,
    store: &'a JobStore,
    logs: &'a Path,
    /// Failed attempts.
    told: usize,
    progress: String,
}

impl Following<'_> {
    /// Tells of a job until it is over.
    fn follow(
        &mut self,
        running: &mut Running,
        interrupt: &Interrupt,
        log: &mut Log<Stderr>,
    ) -> Result<(Outcome, JobView), Stopped> {
        let broken = |why: &str, log: &mut Log<Stderr>| {
            log.line("ERROR", STREAM, why);
            Stopped::Failed
        };
        loop {
            let view = running.view().map_err(|why| broken(&why, log))?;
            self.failures(&view, log);
            if let Some(outcome) = view.outcome.clone() {
                if outcome == Outcome::Succeeded {
                    self.progress(&view, log);
                }
                return Ok((outcome, view));
            }
            self.progress(&view, log);
            match running.wait(interrupt) {
                Woken::Look => {}
                Woken::Notice(text) => log.line("INFO", "shoal", &text),
                Woken::Broken(why) => return Err(broken(&why, log)),
                Woken::Interrupted(what) => {
                    log.line("WARN", STREAM, &format!("interrupted; {what}"));
                    return Err(Stopped::Interrupted);
                }
            }
        }
    }

    fn progress(&mut self, view: &JobView, log: &mut Log<Stderr>) {
        let text = log::progress(view);
        if text != self.progress {
            log.job(&text);
            self.progress = text;
        }
    }

    /// Tells of attempts that failed since it was asked last, and keeps their logs.
    fn failures(&mut self, view: &JobView, log: &mut Log<Stderr>) {
        for failure in view.failures.iter().skip(self.told) {
            let name = self.ids.renamed(&failure.attempt);
            // The same again and again is told once.
            let before = view.failures.iter().take(self.told);
            let task = |name: &str| name.rsplit_once('_').map(|(task, _)| task.to_owned());
            let again = before
                .into_iter()
                .any(|b| task(&b.attempt) == task(&failure.attempt));
            let mut error = log::error_text(failure);
            if again {
                error.truncate(error.find('\n').unwrap_or(error.len()));
            }
            log.job(&format!("Task Id : {name}, Status : FAILED\n{error}"));
            let stderr = self.logs.join(&failure.attempt);
            if let Err(e) = log::keep(self.store, self.ids, failure, &stderr) {
                let why = format!("the log of {name} could not be kept: {e}");
                log.line("WARN", STREAM, &why);
            }
            self.told += 1;
        }
    }
}

const USAGE: &str = "\
Usage: hadoop jar hadoop-streaming.jar [options]

  -input PATH              of the job store, file:///PATH, a URL or a magnet link; may be repeated
  -output PATH             a folder that does not exist
  -mapper COMMAND          reads lines, writes key<TAB>value lines
  -combiner COMMAND        reduces the output of one map task
  -reducer COMMAND         reads key<TAB>value lines in order of their keys; also: aggregate, NONE
  -numReduceTasks N        1 unless given; 0 makes the map output the job's output
  -file PATH, -files LIST  files that every task finds in its folder: PATH or PATH#NAME
  -archives LIST           .tar, .tar.gz, .zip, .jar that are unpacked there
  -cacheFile, -cacheArchive PATH   the same, from the job store
  -cmdenv NAME=VALUE       environment of the commands
  -inputformat CLASS       TextInputFormat, KeyValueTextInputFormat, NLineInputFormat, CombineTextInputFormat
  -outputformat CLASS      TextOutputFormat
  -partitioner CLASS       HashPartitioner, KeyFieldBasedPartitioner, TotalOrderPartitioner
  -lazyOutput              no part files without a record
  -D NAME=VALUE            a property, by its old name or its new one
  -conf FILE               a file of properties
  -fs URI                  file:/// makes paths without a scheme this machine's
  -verbose                 print the job

  -D shoal.master=HOST:PORT, or SHOAL_MASTER, hands the job to a master of `shoal serve master`.
";
