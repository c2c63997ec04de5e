//! A job as people, programs and other machines see it.

use serde::{Deserialize, Serialize};
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::master::{JobProgress, Master, Outcome, TaskCounts};
use std::collections::BTreeMap;

/// Counters by group and name.
pub type Groups = BTreeMap<String, BTreeMap<String, u64>>;

/// Where tasks of one kind are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// There are.
    pub total: u32,
    /// Run.
    pub running: u32,
    /// Are done.
    pub done: u32,
}

impl From<TaskCounts> for Tasks {
    fn from(counts: TaskCounts) -> Self {
        Self {
            total: counts.total,
            running: counts.running,
            done: counts.done,
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Which.
    pub attempt: String,
    /// On which machine.
    pub host: String,
    /// Why: what happened, last lines on standard error, how to reproduce.
    pub what: String,
}

/// How a job is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its number with its master.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its output folder.
    pub output: String,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Map tasks.
    pub maps: Tasks,
    /// Reduce tasks.
    pub reduces: Tasks,
    /// Share of the map input that was consumed, 0 to 1.
    pub map: f64,
    /// Share of the map output that was fetched.
    pub shuffle: f64,
    /// Share of the reduce work that is done.
    pub reduce: f64,
    /// Seconds until the end, as it looks.
    pub eta_s: Option<f64>,
    /// Seconds since it was submitted, or it took.
    pub elapsed_s: f64,
    /// Counters of committed attempts.
    pub counters: Groups,
    /// Failed attempts, first causes first.
    pub failures: Vec<FailedAttempt>,
    /// Records that were left out, as `task: number`.
    pub skipped: Vec<String>,
    /// Machines that failed, and how often.
    #[serde(default)]
    pub hosts_failed: BTreeMap<String, u32>,
    /// Why nothing goes on, if nothing does.
    pub waiting_for: Option<String>,
}

impl JobView {
    /// A look at one job of a master.
    pub fn of(master: &Master, now: shoal_base::Time, job: JobId) -> Option<Self> {
        let progress = master.progress(now, job)?;
        let output = master
            .submission(job)
            .map(|s| s.spec.output.clone())
            .unwrap_or_default();
        Some(Self::new(progress, output))
    }

    fn new(p: JobProgress, output: String) -> Self {
        let mut counters = Groups::new();
        for ((group, name), value) in p.counters {
            counters.entry(group).or_default().insert(name, value);
        }
        let failed = |(attempt, host, failure): (shoal_mapreduce::id::AttemptId, String, _)| {
            let failure: shoal_mapreduce::message::Failure = failure;
            FailedAttempt {
                attempt: attempt.to_string(),
                host,
                what: failure.what,
            }
        };
        Self {
            id: p.job,
            name: p.name,
            output,
            outcome: p.outcome,
            maps: p.maps.into(),
            reduces: p.reduces.into(),
            map: p.map,
            shuffle: p.shuffle,
            reduce: p.reduce,
            eta_s: p.eta_s,
            elapsed_s: p.elapsed_s,
            counters,
            failures: p.failures.into_iter().map(failed).collect(),
            skipped: p
                .skipped
                .into_iter()
                .map(|(task, record)| format!("{task}: {record}"))
                .collect(),
            hosts_failed: p.hosts_failed,
            waiting_for: p.waiting_for,
        }
    }
}
