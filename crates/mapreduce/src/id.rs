//! Names of jobs, tasks, attempts and workers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One job of a master. Counts up over the master's life, restarts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// The two kinds of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Reads a split, writes one run for each reduce task.
    Map,
    /// Merges one partition of every map output, writes one output file.
    Reduce,
}

/// One task of a job. The same job always has the same tasks, so that running one again is
/// idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job it belongs to.
    pub job: JobId,
    /// Map or reduce.
    pub kind: TaskKind,
    /// Which split, or which partition.
    pub index: u32,
}

/// One execution of a task. Several may run at once (backup tasks); the master lets one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// What is executed.
    pub task: TaskId,
    /// Counts up for each task, and is never used again.
    pub number: u32,
}

/// A worker as the master knows it: one registration of one process. A worker that comes back
/// after its lease ended gets a new one, so that what the old one says is recognised as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{:04}", self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            TaskKind::Map => 'm',
            TaskKind::Reduce => 'r',
        };
        write!(f, "task_{:04}_{kind}_{:06}", self.job.0, self.index)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskId { job, kind, index } = self.task;
        let kind = match kind {
            TaskKind::Map => 'm',
            TaskKind::Reduce => 'r',
        };
        write!(f, "attempt_{:04}_{kind}_{index:06}_{}", job.0, self.number)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker_{}", self.0)
    }
}
