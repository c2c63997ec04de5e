//! One attempt, in a thread of its own: input through the job's code into output.

mod mapping;
mod reducing;
mod trouble;

use super::outputs::{Kept, Outputs};
use super::scratch::FileStorage;
use super::worker::WorkerHandle;
use crate::code::{self, Attempt, Role, Stop};
use crate::digest;
use crate::input::Inputs;
use crate::side::SideFiles;
pub(super) use mapping::map;
pub(super) use reducing::reduce;
use shoal_mapreduce::code::{CodeError, MapCode};
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::data::{LineWriter, Reduction, TaskCounters, builtin};
use shoal_mapreduce::id::{AttemptId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec, Limits};
use shoal_mapreduce::message::{
    Assignment, Counters, Failure, JobInfo, Phase, Progress, TaskOutput,
};
use shoal_store::job::OutputFolder;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trouble::Trouble;
pub use trouble::chain;
pub(super) use trouble::{code_failure, host_failure};

/// How often an attempt tells how far it is.
const TELL: Duration = Duration::from_millis(100);
/// The name under which a job says what its output folder was claimed with.
pub const CLAIM: &str = "shoal.output.claim";

/// What a worker lends its attempts.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub dir: PathBuf,
    /// Where what code says for people is kept, a file for each attempt.
    pub logs: PathBuf,
    pub inputs: Inputs,
    pub side: Arc<SideFiles>,
    pub worker: WorkerHandle,
    pub outputs: Outputs,
    pub sandbox_only: bool,
    /// How map output is compressed.
    pub codec: Codec,
}

/// What an attempt says while it runs.
pub(super) struct Told(pub Progress);

/// What an attempt came to.
pub(super) enum Finished {
    Done {
        output: TaskOutput,
        counters: Counters,
        kept: Option<Kept>,
    },
    Failed(Failure),
}

/// The folder of an attempt below that of its worker.
pub(super) fn dir(worker: &Path, attempt: AttemptId) -> PathBuf {
    worker.join("attempts").join(attempt.to_string())
}

/// Removes an attempt's folder when it is over.
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is the same in both kinds of task.
struct Work<'a> {
    setting: &'a Setting,
    assignment: &'a Assignment,
    job: &'a JobInfo,
    stop: &'a Arc<Stop>,
    folder: Folder,
    attempt: Attempt,
}

impl<'a> Work<'a> {
    fn begin(
        setting: &'a Setting,
        assignment: &'a Assignment,
        job: &'a JobInfo,
        stop: &'a Arc<Stop>,
    ) -> Result<Self, Trouble> {
        let id = assignment.attempt;
        let spec = &job.spec;
        let folder = Folder::make(dir(&setting.dir, id)).map_err(Trouble::Disk)?;
        if setting.sandbox_only {
            fit_for_guests(spec)?;
        }
        let mut side_files = Vec::with_capacity(spec.side_files.len());
        for file in &spec.side_files {
            side_files.push(setting.side.path(file).map_err(Trouble::Disk)?);
        }
        let logs = setting.logs.clone();
        std::fs::create_dir_all(&logs).map_err(Trouble::Disk)?;
        let attempt = Attempt {
            spec: Arc::clone(spec),
            id,
            dir: folder.0.clone(),
            side_files,
            log: logs.join(id.to_string()),
            stop: Arc::clone(stop),
        };
        Ok(Self {
            setting,
            assignment,
            job,
            stop,
            folder,
            attempt,
        })
    }

    fn spec(&self) -> &JobSpec {
        &self.job.spec
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        if self.stop.is_stopped() {
            return Err(Trouble::Stopped);
        }
        Ok(())
    }

    fn reduction(&self, code: &Code, role: Role) -> Result<Reduction, CodeError> {
        reduction(code, role, &self.attempt)
    }

    fn storage(&self) -> FileStorage {
        let name = self.assignment.attempt.to_string();
        let output = self.setting.dir.join("outputs").join(name);
        FileStorage::new(self.folder.0.clone(), output)
    }

    /// Where the job's output goes: into its folder if that can be reached from here, else below
    /// the worker's, from where the master fetches it.
    fn output_path(&self) -> Result<PathBuf, Trouble> {
        let id = self.assignment.attempt.to_string();
        let folder = OutputFolder::claimed(Path::new(&self.spec().output));
        let claim = self.spec().properties.get(CLAIM);
        // A stranger's job writes nowhere but below the worker's folder.
        let shared = !self.setting.sandbox_only
            && claim.is_some_and(|claim| {
                folder
                    .claim_of()
                    .is_ok_and(|found| found == claim.as_bytes())
            });
        let dir = if shared {
            folder.attempts()
        } else {
            self.setting.dir.join("outputs")
        };
        std::fs::create_dir_all(&dir).map_err(Trouble::Disk)?;
        Ok(dir.join(id))
    }
}

/// Memory of one task of a stranger's job, and of its code, at most.
const GUEST_MEMORY: u64 = 1 << 30;

/// Whether a worker that runs strangers' jobs runs this one.
fn fit_for_guests(spec: &JobSpec) -> Result<(), Trouble> {
    let refused = |what: String| Err(Trouble::Disk(io::Error::other(what)));
    for code in spec.code() {
        if let Code::Streaming { command } = code {
            return refused(format!(
                "{command:?} is no sandboxed code: not run for strangers"
            ));
        }
    }
    let Limits {
        memory_bytes,
        code_memory_bytes,
        ..
    } = spec.limits;
    if memory_bytes.max(code_memory_bytes) > GUEST_MEMORY {
        let most = GUEST_MEMORY >> 20;
        return refused(format!("strangers' tasks get {most} MiB of memory at most"));
    }
    Ok(())
}

/// The mapper of an attempt, whatever it is made of.
///
/// # Errors
/// When there is no such code, or it cannot be started.
pub fn mapper(attempt: &Attempt) -> Result<Box<dyn MapCode + Send>, CodeError> {
    match &attempt.spec.mapper {
        code @ (Code::Identity | Code::Builtin { .. }) => {
            builtin::mapper(code, &attempt.spec.map_fields)
        }
        code => code::mapper(code, attempt),
    }
}

/// A reducer or combiner of an attempt, whatever it is made of.
///
/// # Errors
/// When there is no such code, or it cannot be started.
pub fn reduction(code: &Code, role: Role, attempt: &Attempt) -> Result<Reduction, CodeError> {
    match code {
        Code::Identity | Code::Builtin { .. } => builtin::reduction(code, &attempt.spec.map_fields),
        code => code::reducer(code, role, attempt).map(Reduction::Code),
    }
}

/// Tells now and then how far an attempt is.
struct Teller {
    worker: WorkerHandle,
    attempt: AttemptId,
    phase: Phase,
    total: u64,
    last: Instant,
}

impl Teller {
    fn tell(&mut self, done: u64) {
        if self.last.elapsed() >= TELL {
            self.last = Instant::now();
            let progress = Progress {
                phase: self.phase,
                done,
                total: self.total,
            };
            self.worker.told(self.attempt, Told(progress));
        }
    }
}

/// Ends a file of the job's output.
fn finish_output(
    work: &Work<'_>,
    out: LineWriter<File>,
    path: &Path,
    task: &mut TaskCounters,
    kind: TaskKind,
) -> Result<Finished, Trouble> {
    let records = out.written().0;
    let kept = Kept::File(path.to_owned());
    let (file, counters) = out.finish()?;
    let bytes = file.metadata().map_err(Trouble::Disk)?.len();
    drop(file);
    task.output_records = records;
    task.output_bytes = bytes;
    let digest = match work.assignment.verified {
        true => {
            let part = File::open(path).and_then(digest::part_of);
            digest::of(&[part.map_err(Trouble::Disk)?])
        }
        false => digest::NONE,
    };
    Ok(Finished::Done {
        output: TaskOutput {
            bytes,
            records,
            digest,
            place: String::new(),
        },
        counters: all_counters(&counters, kind, task),
        kept: work.assignment.probe.is_none().then_some(kept),
    })
}

/// Counters of the code, and the engine's own in the group `shoal`.
fn all_counters(
    code: &shoal_mapreduce::data::Counters,
    kind: TaskKind,
    task: &TaskCounters,
) -> Counters {
    let mut all = Counters::new();
    for (group, name, value) in code.iter() {
        all.insert((group.to_owned(), name.to_owned()), value);
    }
    let phase = match kind {
        TaskKind::Map => "map",
        TaskKind::Reduce => "reduce",
    };
    for (name, value) in [
        ("input_bytes", task.input_bytes),
        ("input_records", task.input_records),
        ("output_bytes", task.output_bytes),
        ("output_records", task.output_records),
        ("combined_records", task.combined_records),
        ("spilled_records", task.spilled_records),
        ("groups", task.groups),
    ] {
        if value > 0 {
            let sum = all
                .entry(("shoal".to_owned(), format!("{phase}_{name}")))
                .or_default();
            *sum = sum.saturating_add(value);
        }
    }
    all
}
