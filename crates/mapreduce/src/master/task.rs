//! One task: its attempts, the results that wait for a verdict, the output that counts.

use crate::id::{AttemptId, TaskId, TaskKind, WorkerId};
use crate::log::Commit;
use crate::master::skip::BadRecords;
use crate::message::{Digest, Failure, Phase, Progress, RecordRange};
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Attempts that one incarnation of a master may start of one task; numbers of the next begin there.
pub(super) const ATTEMPTS_PER_INCARNATION: u32 = 1000;

/// A running attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) worker: WorkerId,
    pub(super) host: Arc<str>,
    pub(super) started: Time,
    pub(super) progress: Progress,
    /// When its progress last changed.
    pub(super) changed: Time,
    /// From when on, and from which share on, its pace is measured: a reduce task cannot get on
    /// while it waits for maps.
    pub(super) base: (Time, f64),
    pub(super) backup: bool,
    pub(super) probe: Option<RecordRange>,
}

impl Attempt {
    /// Share of its work a second since `base`; nothing while no time has passed.
    pub(super) fn pace(&self, now: Time) -> Option<f64> {
        let (since, share) = self.base;
        let seconds = now.since(since).as_secs_f64();
        (seconds > 0.0).then(|| (self.progress.share() - share).max(0.0) / seconds)
    }
}

/// The output that counts.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) commit: Commit,
    /// It has its final name.
    pub(super) published: bool,
    /// A live worker has it. Not so after a restart, until one says that it has.
    pub(super) held: bool,
}

/// A task.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) running: Vec<Attempt>,
    /// Results of strangers that wait for others to compare with.
    pub(super) results: Vec<Commit>,
    pub(super) done: Option<Box<Done>>,
    /// What counted until its holder was lost; it may come back.
    pub(super) lost: Option<Box<Commit>>,
    /// It was done at some time.
    pub(super) seen: bool,
    /// What a proven liar had committed here.
    pub(super) refuted: Option<Digest>,
    /// Results wanted in all.
    pub(super) wanted: usize,
    /// Attempts started by this incarnation of the master.
    pub(super) launched: u32,
    pub(super) failures: u32,
    pub(super) host_failures: u32,
    pub(super) first_failure: Option<(AttemptId, String, Failure)>,
    pub(super) failed_hosts: Vec<Arc<str>>,
    pub(super) bad: BadRecords,
}

impl Task {
    fn new() -> Self {
        Self {
            running: Vec::new(),
            results: Vec::new(),
            done: None,
            lost: None,
            seen: false,
            refuted: None,
            wanted: 1,
            launched: 0,
            failures: 0,
            host_failures: 0,
            first_failure: None,
            failed_hosts: Vec::new(),
            bad: BadRecords::default(),
        }
    }

    /// Whether another attempt is wanted.
    pub(super) fn is_pending(&self) -> bool {
        self.done.is_none() && self.running.len() + self.results.len() < self.wanted
    }

    /// The running attempt of this number on this worker.
    pub(super) fn find(&self, number: u32, worker: WorkerId) -> Option<usize> {
        let is = |a: &Attempt| a.number == number && a.worker == worker;
        self.running.iter().position(is)
    }

    /// Whether this machine (or this stranger) has a part in the task already, so that a backup or a
    /// second opinion must come from elsewhere.
    pub(super) fn involves(&self, host: &str, stranger: Option<&[u8; 32]>) -> bool {
        self.running.iter().any(|a| &*a.host == host)
            || self
                .results
                .iter()
                .any(|r| r.host == host || (stranger.is_some() && r.stranger.as_ref() == stranger))
    }
}

/// The map tasks or the reduce tasks of a job.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    pub(super) kind: TaskKind,
    pub(super) list: Vec<Task>,
    /// Those that want an attempt.
    pub(super) pending: BTreeSet<u32>,
    /// Attempts that run.
    pub(super) running: usize,
    /// Tasks whose output counts.
    pub(super) done: usize,
    /// Tasks whose output has its final name.
    pub(super) published: usize,
    /// Seconds of all attempts that committed, and how many.
    pub(super) took: (f64, u32),
    /// The same for each host.
    pub(super) by_host: BTreeMap<Arc<str>, (f64, f64)>,
}

impl Tasks {
    pub(super) fn new(kind: TaskKind, count: usize) -> Self {
        Self {
            kind,
            list: vec![Task::new(); count],
            pending: (0..).take(count).collect(),
            running: 0,
            done: 0,
            published: 0,
            took: (0.0, 0),
            by_host: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Task> {
        self.list.get(index as usize)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Task> {
        self.list.get_mut(index as usize)
    }

    pub(super) fn all_done(&self) -> bool {
        self.done == self.list.len()
    }

    pub(super) fn all_published(&self) -> bool {
        self.published == self.list.len()
    }

    /// Mean seconds of an attempt that committed.
    pub(super) fn mean_s(&self) -> Option<f64> {
        let (seconds, count) = self.took;
        (count > 0).then(|| seconds / f64::from(count))
    }

    /// Learns how long an attempt took that committed.
    pub(super) fn learn(&mut self, attempt: &Attempt, now: Time) {
        let seconds = now.since(attempt.base.0.max(attempt.started)).as_secs_f64();
        self.took.0 += seconds;
        self.took.1 += 1;
        let host = self.by_host.entry(attempt.host.clone()).or_default();
        host.0 += seconds;
        host.1 += 1.0;
    }

    /// All tasks with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Task)> {
        (0..).zip(&self.list)
    }

    /// A new attempt's first progress.
    pub(super) const fn first_phase(&self) -> Phase {
        match self.kind {
            TaskKind::Map => Phase::Map,
            TaskKind::Reduce => Phase::Shuffle,
        }
    }

    /// Takes a running attempt out.
    pub(super) fn remove(&mut self, index: u32, number: u32, worker: WorkerId) -> Option<Attempt> {
        let task = self.get_mut(index)?;
        let at = task.find(number, worker)?;
        let attempt = task.running.remove(at);
        self.running -= 1;
        Some(attempt)
    }
}

/// The attempt of a task.
pub(super) const fn attempt(task: TaskId, number: u32) -> AttemptId {
    AttemptId { task, number }
}
