//! Jobs handed over to another engine, for clusters that exist already: a PySpark program, or a
//! command line of Hadoop Streaming. What is no command of the user's own runs there as
//! `shoal task`, by this very program, which travels along.

mod hadoop;
mod spark;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use rustix::process::{Pid, Signal, kill_process};
use shoal_jobs::side;
use shoal_jobs::streaming::command::quoted;
use shoal_mapreduce::job::{Code, JobSpec};

use super::spec::Job;
use crate::cli::{Engine, RunArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::Interrupt;
use crate::ui::Ui;

/// How often an engine is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a job by another engine, or shows how.
pub(super) fn run(job: Job, args: &RunArgs, ui: &Ui) -> Outcome<Exit> {
    let options = &args.hand_over;
    refuse_flags(options.engine, args)?;
    let reduces = job.reduces_given.then_some(job.spec.reduces);
    let handed = Handed::stage(job.spec, options.engine_dir.as_deref())?;
    let command = match options.engine {
        Engine::Hadoop => hadoop::command(&handed, reduces, args),
        Engine::Spark | Engine::Shoal => spark::command(&handed, reduces, args),
    };
    let shown = options.dry_run && command.is_ok();
    let outcome = command.and_then(|command| {
        if options.dry_run {
            ui.data(&command.shown());
            ui.hint(&format!("what goes along is in {}", handed.dir.display()));
            return Ok(Exit::Ok);
        }
        ui.status("Running", &command.shown());
        match command.run()? {
            None => Ok(Exit::Interrupted),
            Some(status) if status.success() => {
                ui.result(&handed.spec.output);
                Ok(Exit::Ok)
            }
            Some(status) => Err(Failure::failed(format!("{} failed", command.program()))
                .reason(format!("it ended with {status}; what it said is above"))),
        }
    });
    if options.engine_dir.is_none() && !shown {
        let _ = fs::remove_dir_all(&handed.dir);
    }
    outcome
}

/// Flags that mean nothing to another engine.
fn refuse_flags(engine: Engine, args: &RunArgs) -> Outcome {
    let given = [
        (
            "--master",
            engine == Engine::Hadoop && args.master.is_some(),
        ),
        ("--master-listen", args.master_listen.is_some()),
        ("--workers", args.workers.is_some()),
        ("--memory", args.memory.is_some()),
        ("--split-size", args.split_size.is_some()),
        ("--max-attempts", args.max_attempts.is_some()),
        ("--skip-bad", args.skip_bad.is_some()),
        ("--no-speculation", args.no_speculation),
        ("--priority", args.priority.is_some()),
        ("--share-output", args.share_output),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::usage(format!("{flag} is for shoal's own engine"))
            .hint("options of the engine's own go through --engine-arg")),
    }
}

/// A job and all that goes along with it, in one folder.
struct Handed {
    dir: PathBuf,
    /// The job as `job.json` has it: side files by the names they have in the folder.
    spec: JobSpec,
}

impl Handed {
    fn stage(mut spec: JobSpec, dir: Option<&Path>) -> Outcome<Self> {
        for input in &spec.inputs {
            let lower = input.to_ascii_lowercase();
            if ["magnet:", "http:", "https:"]
                .iter()
                .any(|s| lower.starts_with(s))
                || lower.ends_with(".torrent")
            {
                return Err(
                    Failure::usage(format!("another engine cannot read {input}"))
                        .hint("fetch it to where the cluster reads"),
                );
            }
        }
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("shoal-hand-over-{}", std::process::id())),
        };
        fs::create_dir(&dir).map_err(|e| Failure::io("make the folder", &dir, &e))?;
        let staged = stage_files(&dir, &mut spec);
        if let Err(failure) = staged {
            let _ = fs::remove_dir_all(&dir);
            return Err(failure);
        }
        Ok(Self { dir, spec })
    }

    fn path(&self, name: &str) -> String {
        let whole = std::path::absolute(self.dir.join(name));
        whole
            .unwrap_or_else(|_| self.dir.join(name))
            .to_string_lossy()
            .into_owned()
    }

    /// Names in the folder of all that goes along.
    fn names(&self) -> Vec<&str> {
        let side = self.spec.side_files.iter().map(|f| f.source.as_str());
        ["shoal", "job.json"].into_iter().chain(side).collect()
    }
}

fn stage_files(dir: &Path, spec: &mut JobSpec) -> Outcome {
    side::needed(spec);
    let program = std::env::current_exe()
        .map_err(|e| Failure::failed("cannot find this program's file").because(&e))?;
    link(&program, dir, "shoal")?;
    let mut named = Vec::new();
    for file in &mut spec.side_files {
        let source = fs::canonicalize(&file.source)
            .map_err(|e| Failure::io("read the side file", file.source.as_ref(), &e))?;
        // An archive is known by how its name ends.
        let last = source.file_name().unwrap_or_default().to_string_lossy();
        let name = if file.archive {
            last.into_owned()
        } else {
            file.name.clone()
        };
        if name.contains(['/', ',', '#'])
            || ["shoal", "job.json", spark::PROGRAM].contains(&name.as_str())
        {
            return Err(
                Failure::usage(format!("a side file called {name:?} cannot go along"))
                    .hint("give it another name: --file PATH#NAME"),
            );
        }
        link(&source, dir, &name)?;
        named.push((std::mem::replace(&mut file.source, name), file.name.clone()));
    }
    let codes = [
        Some(&mut spec.mapper),
        spec.combiner.as_mut(),
        spec.reducer.as_mut(),
    ];
    for code in codes.into_iter().flatten() {
        if let Code::Wasm { module, .. } = code
            && let Some((_, name)) = named.iter().find(|(source, _)| source == module)
        {
            module.clone_from(name);
        }
    }
    // How many there are is the engine's affair; whether there are any is the mapper's, too.
    spec.reduces = u32::from(spec.reducer.is_some());
    let json = serde_json::to_vec_pretty(spec)
        .map_err(|e| Failure::failed("cannot write the job").because(&e))?;
    let path = dir.join("job.json");
    fs::write(&path, json).map_err(|e| Failure::io("write", &path, &e))
}

fn link(source: &Path, dir: &Path, name: &str) -> Outcome {
    let place = dir.join(name);
    symlink(source, &place).map_err(|e| Failure::io("make", &place, &e))
}

/// A program and its arguments.
struct CommandLine(Vec<String>);

impl CommandLine {
    fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// As a shell would have to be given it.
    fn shown(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    /// Runs it, its output on our standard error. None if the user asked to stop.
    fn run(&self) -> Outcome<Option<ExitStatus>> {
        let interrupt = Interrupt::install()?;
        let mut child = Command::new(self.program())
            .args(self.0.iter().skip(1))
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .spawn()
            .map_err(|e| Failure::io("start", self.program().as_ref(), &e))?;
        loop {
            match interrupt.woken().recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => {
                    end(&mut child);
                    return Ok(None);
                }
            }
            let ended = child.try_wait();
            if let Some(status) = ended.map_err(|e| Failure::failed("cannot wait").because(&e))? {
                return Ok(Some(status));
            }
        }
    }
}

/// Asks it to end, as it should when it is told by its own user.
fn end(child: &mut Child) {
    // It has not been waited for, so the number is still its own.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let _ = child.wait();
}

/// A program in the `bin` of a home that the environment names, or on the path.
fn program(homes: &[&str], name: &str) -> String {
    let set = |home: &&str| std::env::var_os(home).filter(|h: &OsString| !h.is_empty());
    homes
        .iter()
        .filter_map(set)
        .map(|home| Path::new(&home).join("bin").join(name))
        .find(|path| path.is_file())
        .map_or_else(|| name.to_owned(), |p| p.to_string_lossy().into_owned())
}
