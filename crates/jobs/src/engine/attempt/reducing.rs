//! A reduce attempt: its runs merged, through the reducer, into the job's output.

use super::super::fetch::Gathered;
use super::trouble::Trouble;
use super::{Finished, Setting, Teller, Work, finish_output};
use crate::code::{Role, Stop};
use shoal_mapreduce::data::{DataError, LineWriter, ReducePlan, TaskCounters};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::job::Code;
use shoal_mapreduce::message::{Assignment, JobInfo, Phase};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A run on its way into the merge: tells how far it is, and ends when the attempt is to.
pub(super) struct Watched {
    pub(super) inner: Box<dyn Read + Send>,
    pub(super) stop: Arc<Stop>,
    pub(super) read: Arc<AtomicU64>,
    pub(super) teller: Arc<std::sync::Mutex<Teller>>,
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
pub(in crate::engine) fn reduce(
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

pub(super) fn reduce_all(work: &Work<'_>, gathered: &Gathered) -> Result<Finished, Trouble> {
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
