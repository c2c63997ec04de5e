//! A job as the master keeps it. Whatever the execution log tells changes it here, so that a replay
//! ends where the first run was.

use crate::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use crate::job::JobSpec;
use crate::log::{Commit, Record};
use crate::master::Outcome;
use crate::master::locality::Locality;
use crate::master::task::{Done, Task, Tasks};
use crate::message::{Blame, Counters, Failure, JobInfo, MapOutput, RecordRange};
use crate::split::Submission;
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Failures and skipped records that a job lists; more are only counted.
const LISTED: usize = 1000;

/// How much of a job's growing list of outputs a worker was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) entries: usize,
    pub(super) addrs: usize,
}

/// What reduce attempts reported about one holder.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports {
    pub(super) by: BTreeMap<WorkerId, u32>,
    pub(super) last: Time,
}

/// A job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) submission: Submission,
    pub(super) spec: Arc<JobSpec>,
    pub(super) cuts: Arc<[Vec<u8>]>,
    pub(super) submitted: Time,
    pub(super) ended: Option<(Outcome, Time)>,
    pub(super) maps: Tasks,
    pub(super) reduces: Tasks,
    pub(super) counters: Counters,
    pub(super) failures: Vec<(AttemptId, String, Failure)>,
    pub(super) failures_count: u64,
    pub(super) host_failures: BTreeMap<Arc<str>, u32>,
    pub(super) skipped: Vec<(TaskId, u64)>,
    pub(super) skipped_count: u64,
    pub(super) backups: u64,
    pub(super) lost: u64,
    /// Map tasks that were done at some time: reduce tasks had their input once all were.
    pub(super) maps_seen: usize,
    pub(super) locality: Locality,
    pub(super) local_maps: u64,
    /// Map outputs in the order in which they became known.
    pub(super) outputs: Vec<MapOutput>,
    pub(super) addrs: Vec<(WorkerId, Arc<str>)>,
    addrs_known: BTreeSet<WorkerId>,
    /// Workers that were told of the job.
    pub(super) told: BTreeMap<WorkerId, Told>,
    pub(super) reports: BTreeMap<WorkerId, Reports>,
    /// No code in it could harm a machine or depend on it.
    pub(super) sandboxed: bool,
}

impl Job {
    pub(super) fn new(id: JobId, submission: Submission, at: Time) -> Self {
        let spec = &submission.spec;
        let sandboxed = spec.is_sandboxed();
        let mut locality = Locality::new(&submission.splits);
        for map in (0..).take(submission.splits.len()) {
            locality.refresh(map, true);
        }
        Self {
            id,
            spec: Arc::new(spec.clone()),
            cuts: submission.cuts.clone().into(),
            submitted: at,
            ended: None,
            maps: Tasks::new(TaskKind::Map, submission.splits.len()),
            reduces: Tasks::new(TaskKind::Reduce, spec.reduces as usize),
            counters: Counters::new(),
            failures: Vec::new(),
            failures_count: 0,
            host_failures: BTreeMap::new(),
            skipped: Vec::new(),
            skipped_count: 0,
            backups: 0,
            lost: 0,
            maps_seen: 0,
            locality,
            local_maps: 0,
            outputs: Vec::new(),
            addrs: Vec::new(),
            addrs_known: BTreeSet::new(),
            told: BTreeMap::new(),
            reports: BTreeMap::new(),
            sandboxed,
            submission,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) fn info(&self) -> JobInfo {
        JobInfo {
            job: self.id,
            spec: self.spec.clone(),
            maps: u32::try_from(self.maps.list.len()).unwrap_or(u32::MAX),
            cuts: self.cuts.clone(),
        }
    }

    pub(super) const fn tasks(&self, kind: TaskKind) -> &Tasks {
        match kind {
            TaskKind::Map => &self.maps,
            TaskKind::Reduce => &self.reduces,
        }
    }

    pub(super) const fn tasks_mut(&mut self, kind: TaskKind) -> &mut Tasks {
        match kind {
            TaskKind::Map => &mut self.maps,
            TaskKind::Reduce => &mut self.reduces,
        }
    }

    pub(super) fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks(id.kind).get(id.index)
    }

    pub(super) fn task_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks_mut(id.kind).get_mut(id.index)
    }

    /// Tasks of this kind make the job's output.
    pub(super) fn publishes(&self, kind: TaskKind) -> bool {
        kind == TaskKind::Reduce || self.reduces.list.is_empty()
    }

    /// All output has its final name.
    pub(super) fn is_complete(&self) -> bool {
        match self.reduces.list.is_empty() {
            true => self.maps.all_published(),
            false => self.reduces.all_published(),
        }
    }

    /// A proven liar committed something that was not made again yet.
    pub(super) fn is_doubtful(&self) -> bool {
        let mut tasks = self.maps.list.iter().chain(&self.reduces.list);
        tasks.any(|t| t.refuted.is_some())
    }

    /// Map output is still wanted by somebody.
    pub(super) fn needs_map_output(&self) -> bool {
        self.is_live() && !self.reduces.list.is_empty() && !self.reduces.all_published()
    }

    /// To be called after anything about a task changed.
    pub(super) fn refresh(&mut self, kind: TaskKind, index: u32) {
        let tasks = self.tasks_mut(kind);
        let Some(pending) = tasks.get(index).map(Task::is_pending) else {
            return;
        };
        match pending {
            true => tasks.pending.insert(index),
            false => tasks.pending.remove(&index),
        };
        if kind == TaskKind::Map {
            self.locality.refresh(index, pending);
        }
    }

    /// Makes a map output known to reduce tasks.
    pub(super) fn list_output(&mut self, commit: &Commit) {
        self.outputs.push(MapOutput {
            attempt: commit.attempt,
            holder: commit.holder,
            bytes: commit.output.bytes,
            digest: commit.output.digest,
        });
        if self.addrs_known.insert(commit.holder) {
            self.addrs
                .push((commit.holder, commit.addr.as_str().into()));
        }
    }

    /// Does what a record of the log says.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Failed {
                attempt,
                host,
                failure,
            } => self.apply_failed(attempt, host, failure),
            Record::Skipped { task, records } => self.apply_skipped(task, records),
            Record::Committed(commit) => self.apply_committed(&commit),
            Record::Lost { attempt } => self.apply_lost(attempt),
            Record::Found {
                attempt,
                holder,
                addr,
            } => self.apply_found(attempt, holder, addr),
            Record::Published { attempt } => {
                let tasks = self.tasks_mut(attempt.task.kind);
                let done = tasks.get_mut(attempt.task.index);
                if let Some(done) = done.and_then(|t| t.done.as_mut())
                    && done.commit.attempt == attempt
                    && !std::mem::replace(&mut done.published, true)
                {
                    tasks.published += 1;
                }
            }
            Record::Ended { outcome, at_us, .. } => {
                self.ended = Some((outcome, Time::from_micros(at_us)));
            }
            Record::Started { .. }
            | Record::Submitted { .. }
            | Record::Liar { .. }
            | Record::Confirmed { .. } => {}
        }
    }

    fn apply_failed(&mut self, attempt: AttemptId, host: String, failure: Failure) {
        let name: Arc<str> = host.as_str().into();
        *self.host_failures.entry(name.clone()).or_default() += 1;
        if let Some(task) = self.task_mut(attempt.task) {
            if !task.failed_hosts.contains(&name) {
                task.failed_hosts.push(name);
            }
            if failure.records.is_some() && failure.blame == Blame::Code {
                task.bad.strike();
            }
            match failure.blame {
                Blame::Code => task.failures = task.failures.saturating_add(1),
                Blame::Host => task.host_failures = task.host_failures.saturating_add(1),
            }
            task.first_failure
                .get_or_insert_with(|| (attempt, host.clone(), failure.clone()));
        }
        self.failures_count += 1;
        if self.failures.len() < LISTED {
            self.failures.push((attempt, host, failure));
        }
    }

    fn apply_skipped(&mut self, task: TaskId, records: RecordRange) {
        if let Some(task) = self.task_mut(task) {
            task.bad.leave_out(records);
        }
        self.skipped_count = self.skipped_count.saturating_add(records.len());
        let room = LISTED.saturating_sub(self.skipped.len());
        let listed = (records.from..records.to).take(room);
        self.skipped.extend(listed.map(|record| (task, record)));
    }

    fn apply_committed(&mut self, commit: &Commit) {
        let TaskId { kind, index, .. } = commit.attempt.task;
        let tasks = self.tasks_mut(kind);
        let Some(task) = tasks.get_mut(index) else {
            return;
        };
        if task.done.is_some() {
            return;
        }
        task.results.clear();
        task.lost = None;
        task.done = Some(Box::new(Done {
            commit: commit.clone(),
            published: false,
            held: true,
        }));
        let first = !std::mem::replace(&mut task.seen, true);
        tasks.done += 1;
        self.maps_seen += usize::from(first && kind == TaskKind::Map);
        count(&mut self.counters, &commit.counters, true);
        self.refresh(kind, index);
    }

    fn apply_lost(&mut self, attempt: AttemptId) {
        let TaskId { kind, index, .. } = attempt.task;
        let tasks = self.tasks_mut(kind);
        let Some(task) = tasks.get_mut(index) else {
            return;
        };
        if task
            .done
            .as_ref()
            .is_none_or(|d| d.commit.attempt != attempt)
        {
            return;
        }
        let Some(done) = task.done.take() else {
            return;
        };
        task.wanted = 1;
        tasks.done -= 1;
        tasks.published -= usize::from(done.published);
        count(&mut self.counters, &done.commit.counters, false);
        if let Some(task) = self.task_mut(attempt.task) {
            task.lost = Some(Box::new(done.commit));
        }
        self.lost += 1;
        self.refresh(kind, index);
    }

    fn apply_found(&mut self, attempt: AttemptId, holder: WorkerId, addr: String) {
        let TaskId { kind, index, .. } = attempt.task;
        let Some(task) = self.task_mut(attempt.task) else {
            return;
        };
        if let Some(done) = task.done.as_mut() {
            if done.commit.attempt == attempt {
                done.commit.holder = holder;
                done.commit.addr = addr;
                done.held = true;
            }
        } else if let Some(mut commit) = task.lost.take_if(|c| c.attempt == attempt) {
            commit.holder = holder;
            commit.addr = addr;
            self.apply_committed(&commit);
        }
        self.refresh(kind, index);
    }

    /// The job is over: what only a running job needs goes.
    pub(super) fn retire(&mut self) {
        self.outputs = Vec::new();
        self.addrs = Vec::new();
        self.addrs_known.clear();
        self.told.clear();
        self.reports.clear();
        self.locality = Locality::default();
        for tasks in [&mut self.maps, &mut self.reduces] {
            tasks.pending.clear();
            tasks.running = 0;
            for task in &mut tasks.list {
                task.running = Vec::new();
                task.results = Vec::new();
                task.lost = None;
            }
        }
    }
}

/// Adds counters to others, or takes them away again.
fn count(all: &mut Counters, some: &Counters, add: bool) {
    for (name, by) in some {
        match all.get_mut(name) {
            Some(sum) if add => *sum = sum.saturating_add(*by),
            Some(sum) => *sum = sum.saturating_sub(*by),
            None if add => {
                all.insert(name.clone(), *by);
            }
            None => {}
        }
    }
}
