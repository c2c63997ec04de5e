//! One attempt, in a thread of its own: input through the job's code into output.

use super::fetch::Gathered;
use super::outputs::{Kept, Outputs};
use super::scratch::FileStorage;
use super::worker::WorkerHandle;
use crate::code::{self, Attempt, Role, Stop};
use crate::digest::{self, Part};
use crate::input::{Compression, InputError, Inputs};
use crate::net::data::is_magnet;
use crate::side::SideFiles;
use shoal_mapreduce::code::{CodeError, MapCode};
use shoal_mapreduce::data::partition::Cuts;
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::data::split::Lines;
use shoal_mapreduce::data::text::Output;
use shoal_mapreduce::data::{
    Combine, DataError, LineWriter, MapOutput, MapPlan, MapTask, ReducePlan, Reduction,
    TaskCounters, builtin, map::count_lines,
};
use shoal_mapreduce::id::{AttemptId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec, Limits};
use shoal_mapreduce::message::{
    Assignment, Blame, Counters, Failure, JobInfo, Phase, Progress, RecordRange, TaskOutput,
};
use shoal_store::job::OutputFolder;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Input is read in pieces of this many bytes.
const CHUNK: usize = 1 << 20;
/// Map outputs up to this length stay in memory, if all of the worker's do not take too much.
const IN_MEMORY: u64 = 32 << 20;
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

/// Why an attempt ends early.
enum Trouble {
    Data(DataError),
    Input(InputError),
    Disk(io::Error),
    Code(CodeError),
    Stopped,
}

impl From<DataError> for Trouble {
    fn from(e: DataError) -> Self {
        Self::Data(e)
    }
}

impl From<CodeError> for Trouble {
    fn from(e: CodeError) -> Self {
        Self::Code(e)
    }
}

impl From<InputError> for Trouble {
    fn from(e: InputError) -> Self {
        Self::Input(e)
    }
}

/// The folder of an attempt below that of its worker.
pub(super) fn dir(worker: &Path, attempt: AttemptId) -> PathBuf {
    worker.join("attempts").join(attempt.to_string())
}

/// A failure that is the machine's.
pub(super) fn host_failure(what: String) -> Failure {
    Failure {
        what,
        blame: Blame::Host,
        records: None,
    }
}

/// A failure that counts against the task.
pub(super) fn code_failure(what: String) -> Failure {
    Failure {
        what,
        blame: Blame::Code,
        records: None,
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let why = e.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        next = e.source();
    }
    text
}

impl Trouble {
    /// `at` is the record that the batch began with at which code failed, `until` the one after the
    /// last that it was given.
    fn failure(self, at: u64, until: u64) -> Failure {
        let code = |e: &CodeError| Failure {
            what: e.what.clone(),
            blame: Blame::Code,
            records: Some(match e.record {
                Some(n) => RecordRange {
                    from: at + n,
                    to: at + n + 1,
                },
                // What was given earlier may still have been on its way through the code.
                None => RecordRange { from: 0, to: until },
            })
            .filter(|r| !r.is_empty()),
        };
        match self {
            Self::Code(e) | Self::Data(DataError::Code(e)) => code(&e),
            Self::Data(e @ DataError::RecordTooLong { .. }) => code_failure(chain(&e)),
            Self::Data(e) => host_failure(chain(&e)),
            Self::Input(e) => code_failure(chain(&e)),
            Self::Disk(e) => host_failure(format!("the worker's folder: {e}")),
            Self::Stopped => host_failure("stopped".to_owned()),
        }
    }
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

/// Which records are left out, or the only ones that are mapped.
struct Choice<'a> {
    assignment: &'a Assignment,
    /// Number of the next record.
    next: u64,
}

impl Choice<'_> {
    fn all(&self) -> bool {
        self.assignment.skip.is_empty() && self.assignment.probe.is_none()
    }

    fn wants(&self, record: u64) -> bool {
        let within = |r: &RecordRange| (r.from..r.to).contains(&record);
        self.assignment.probe.as_ref().is_none_or(within)
            && !self.assignment.skip.iter().any(within)
    }

    /// The stretches of `lines` that are wanted: number of the first record, place, bytes.
    fn pick<'l>(&mut self, lines: &'l [u8]) -> Vec<(u64, usize, &'l [u8])> {
        let mut picked: Vec<(u64, usize, usize)> = Vec::new();
        let mut at = 0;
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let end = at + line.len();
            if self.wants(self.next) {
                match picked.last_mut() {
                    Some((_, _, last)) if *last == at => *last = end,
                    _ => picked.push((self.next, at, end)),
                }
            }
            self.next += 1;
            at = end;
        }
        let part = |(n, from, to)| (n, from, lines.get(from..to).unwrap_or_default());
        picked.into_iter().map(part).collect()
    }
}

/// Where lines go: into a map task with its sorter, or straight into the output.
enum Mapping {
    Shuffled(Box<MapTask>),
    Straight {
        code: Box<dyn MapCode + Send>,
        out: LineWriter<File>,
        path: PathBuf,
        task: TaskCounters,
    },
}

impl Mapping {
    fn file(&mut self, name: &str, input: u32) -> Result<(), Trouble> {
        match self {
            Self::Shuffled(task) => Ok(task.file(name, input)?),
            Self::Straight { code, .. } => Ok(code.file(name, input)?),
        }
    }

    fn lines(&mut self, lines: &[u8], offset: u64) -> Result<(), Trouble> {
        match self {
            Self::Shuffled(task) => Ok(task.lines(lines, offset)?),
            Self::Straight {
                code, out, task, ..
            } => {
                code.lines(lines, offset, out)?;
                task.input_bytes += lines.len() as u64;
                task.input_records += count_lines(lines);
                Ok(out.check()?)
            }
        }
    }
}

/// Runs a map attempt.
pub(super) fn map(
    setting: &Setting,
    assignment: &Assignment,
    job: &JobInfo,
    stop: &Arc<Stop>,
) -> Finished {
    let mut at = (0, 0);
    let done = Work::begin(setting, assignment, job, stop).and_then(|work| map_all(&work, &mut at));
    done.unwrap_or_else(|trouble| Finished::Failed(trouble.failure(at.0, at.1)))
}

fn map_all(work: &Work<'_>, at: &mut (u64, u64)) -> Result<Finished, Trouble> {
    let spec = work.spec();
    let assignment = work.assignment;
    let mut mapping = begin_map(work)?;
    let read = Arc::new(AtomicU64::new(0));
    let mut teller = Teller {
        worker: work.setting.worker.clone(),
        attempt: assignment.attempt,
        phase: Phase::Map,
        total: assignment.split.len(),
        last: Instant::now(),
    };
    let mut choice = Choice {
        assignment,
        next: 0,
    };
    let count = spec.limits.skip_records_max > 0 || !choice.all();
    let mut lines: Option<Lines> = None;
    let magnets = |i: &&String| !work.setting.sandbox_only || is_magnet(i);
    let inputs: Vec<String> = spec.inputs.iter().filter(magnets).cloned().collect();
    work.setting.inputs.learn(&inputs);
    for part in &assignment.split.parts {
        let whole = Compression::of(&part.file) != Compression::None;
        let (start, len) = if whole {
            (0, u64::MAX)
        } else {
            (part.offset, part.len)
        };
        // One buffer for all parts.
        let lines = match &mut lines {
            Some(lines) => {
                lines.restart(start, len);
                lines
            }
            none => none.insert(Lines::new(start, len, CHUNK)),
        };
        let from = lines.read_from();
        let mut reader = work.setting.inputs.open(&part.file, from, len, &read)?;
        mapping.file(&part.file, part.input)?;
        while !lines.done() {
            work.check_stop()?;
            // Code is given the same batches everywhere where what it makes is compared.
            let fill = assignment.verified;
            let n = read_some(&mut reader, lines.room(), fill).map_err(|source| {
                Trouble::Input(InputError::Io {
                    name: part.file.clone(),
                    source,
                })
            })?;
            if let Some((bytes, offset)) = lines.filled(n) {
                if choice.all() {
                    at.0 = choice.next;
                    if count {
                        choice.next += count_lines(bytes);
                        at.1 = choice.next;
                    }
                    mapping.lines(bytes, offset)?;
                } else {
                    for (record, place, bytes) in choice.pick(bytes) {
                        *at = (record, record + count_lines(bytes));
                        mapping.lines(bytes, offset + place as u64)?;
                    }
                }
            }
            teller.tell(read.load(Ordering::Relaxed));
        }
    }
    finish_map(work, mapping)
}

/// Reads once, or with `fill` until there is no room or no more.
fn read_some(from: &mut impl Read, room: &mut [u8], fill: bool) -> io::Result<usize> {
    let mut got = 0;
    loop {
        match from.read(room.get_mut(got..).unwrap_or_default()) {
            Ok(0) => return Ok(got),
            Ok(n) => {
                got += n;
                if !fill || got >= room.len() {
                    return Ok(got);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn begin_map(work: &Work<'_>) -> Result<Mapping, Trouble> {
    let spec = work.spec();
    let code = mapper(&work.attempt)?;
    if spec.reduces == 0 {
        let path = work.output_path()?;
        let file = File::create(&path).map_err(Trouble::Disk)?;
        return Ok(Mapping::Straight {
            code,
            out: LineWriter::new(file, spec.map_fields.separator),
            path,
            task: TaskCounters::default(),
        });
    }
    let combiner = match (&spec.combiner, &spec.reducer) {
        (Some(combiner), _) => Some(combiner),
        (None, Some(reducer)) if spec.associative => Some(reducer),
        _ => None,
    };
    let combine = match combiner {
        None => Combine::None,
        Some(code @ (Code::Identity | Code::Builtin { .. })) => builtin::combine(code)?,
        Some(code) => {
            let (code, attempt) = (code.clone(), work.attempt.clone());
            Combine::Code(Box::new(move || reduction(&code, Role::Combine, &attempt)))
        }
    };
    let order = shoal_mapreduce::data::order::KeyOrder::new(&spec.order, spec.key_separator());
    let cuts = Cuts::new(work.job.cuts.to_vec(), &order);
    let mut plan = MapPlan::new(spec, &cuts);
    // Outputs that are compared with those of other workers are compressed as theirs are.
    plan.codec = match work.assignment.verified {
        true => Codec::Zstd,
        false => work.setting.codec,
    };
    let held = work.setting.outputs.memory_bytes();
    let may_hold = (spec.limits.memory_bytes / 2).saturating_sub(held);
    plan.served_from_memory_bytes = IN_MEMORY.min(may_hold) as usize;
    let task = MapTask::new(plan, code, combine, Box::new(work.storage()));
    Ok(Mapping::Shuffled(Box::new(task)))
}

fn finish_map(work: &Work<'_>, mapping: Mapping) -> Result<Finished, Trouble> {
    let probe = work.assignment.probe.is_some();
    match mapping {
        Mapping::Shuffled(task) => {
            let MapOutput {
                runs,
                counters,
                task,
            } = task.finish()?;
            let parts = if work.assignment.verified {
                let count = (0..).take(runs.index.entries.len());
                let parts = count.map(|p| digest::part_of(runs.section(p)));
                parts.collect::<io::Result<Vec<Part>>>()
            } else {
                Ok(Vec::new())
            };
            let parts = parts.map_err(Trouble::Disk)?;
            let output = TaskOutput {
                bytes: runs.index.entries.iter().map(|e| e.stored_len).sum(),
                records: runs.index.entries.iter().map(|e| e.records).sum(),
                digest: match work.assignment.verified {
                    true => digest::of(&parts),
                    false => digest::NONE,
                },
                place: String::new(),
            };
            Ok(Finished::Done {
                output,
                counters: all_counters(&counters, TaskKind::Map, &task),
                kept: (!probe).then_some(Kept::Runs(runs, parts)),
            })
        }
        Mapping::Straight {
            mut code,
            mut out,
            path,
            mut task,
        } => {
            code.finish(&mut out)?;
            out.check()?;
            finish_output(work, out, &path, &mut task, TaskKind::Map)
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

/// A run on its way into the merge: tells how far it is, and ends when the attempt is to.
struct Watched {
    inner: Box<dyn Read + Send>,
    stop: Arc<Stop>,
    read: Arc<AtomicU64>,
    teller: Arc<std::sync::Mutex<Teller>>,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopped() {
            return Err(io::Error::other("the attempt was stopped"));
        }
        let n = self.inner.read(buf)?;
        let done = self.read.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        if let Ok(mut teller) = self.teller.lock() {
            teller.tell(done);
        }
        Ok(n)
    }
}

/// Runs a reduce attempt that has all its input.
pub(super) fn reduce(
    setting: &Setting,
    assignment: &Assignment,
    job: &JobInfo,
    gathered: &Gathered,
    stop: &Arc<Stop>,
) -> Finished {
    let done =
        Work::begin(setting, assignment, job, stop).and_then(|work| reduce_all(&work, gathered));
    done.unwrap_or_else(|trouble| Finished::Failed(trouble.failure(0, 0)))
}

fn reduce_all(work: &Work<'_>, gathered: &Gathered) -> Result<Finished, Trouble> {
    let spec = work.spec();
    let teller = Arc::new(std::sync::Mutex::new(Teller {
        worker: work.setting.worker.clone(),
        attempt: work.assignment.attempt,
        phase: Phase::Reduce,
        total: gathered.bytes(),
        last: Instant::now(),
    }));
    let read = Arc::new(AtomicU64::new(0));
    let mut whose = Vec::new();
    let mut runs: Vec<Box<dyn Read + Send>> = Vec::new();
    for (output, inner) in gathered.sources() {
        whose.push(output);
        runs.push(Box::new(Watched {
            inner,
            stop: Arc::clone(work.stop),
            read: Arc::clone(&read),
            teller: Arc::clone(&teller),
        }));
    }
    let reducer = spec.reducer.as_ref().unwrap_or(&Code::Identity);
    let reduction = work.reduction(reducer, Role::Reduce)?;
    let path = work.output_path()?;
    let file = File::create(&path).map_err(Trouble::Disk)?;
    let mut out = LineWriter::new(file, spec.reduce_fields.separator);
    let mut task = TaskCounters::default();
    let mut plan = ReducePlan::new(spec);
    // The other half holds what was fetched.
    plan.memory_bytes /= 2;
    let mut storage = work.storage();
    let reduced =
        shoal_mapreduce::data::reduce(&plan, runs, reduction, &mut storage, &mut out, &mut task);
    if let Err(e) = reduced {
        let _ = std::fs::remove_file(&path);
        work.check_stop()?;
        return Err(match e {
            DataError::Run { run, problem } => {
                let output = whose
                    .get(run)
                    .map_or_else(|| "?".to_owned(), ToString::to_string);
                let what = format!("map output of {output}: {problem}");
                Trouble::Disk(io::Error::other(what))
            }
            other => other.into(),
        });
    }
    finish_output(work, out, &path, &mut task, TaskKind::Reduce)
}
