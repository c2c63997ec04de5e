//! What a master is told, what it does, and what it shows.

use crate::id::{AttemptId, JobId, TaskId, WorkerId};
use crate::message::{Counters, Failure, TaskOutput, ToMaster, ToWorker};
use crate::split::Submission;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A connection to a worker, named by the driver. Never used again after [`MasterInput::Closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// Whose machine is at the other end of a connection, as the driver has authenticated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// One of ours: it knows the secret or has an allowed key. Its results are believed.
    Own,
    /// A stranger, by its key: it gets no native code, and its results are checked.
    Stranger([u8; 32]),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum MasterInput {
    /// Somebody wants a job run. Answered by [`MasterOutput::Accepted`] with the same token.
    Submit {
        /// Names the request.
        token: u64,
        /// The job.
        submission: Box<Submission>,
    },
    /// A job is to end now.
    Cancel(JobId),
    /// A worker connected.
    Connected {
        /// How.
        link: Link,
        /// Whose it is.
        owner: Owner,
    },
    /// A worker said something.
    Message {
        /// Which worker.
        link: Link,
        /// What.
        message: ToMaster,
    },
    /// A connection ended, or cannot be trusted to carry what was sent.
    Closed(Link),
    /// What [`MasterOutput::Publish`] asked for is done and durable.
    Published {
        /// Whose output it is.
        attempt: AttemptId,
    },
    /// It cannot be done: the output is gone. The task runs again.
    PublishFailed {
        /// Whose output it was.
        attempt: AttemptId,
        /// Why.
        why: String,
    },
    /// The clock reached the deadline.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterOutput {
    /// Append these bytes to the execution log and make them durable before anything that comes
    /// later is done. Several may be made durable together: nothing else is done before the last.
    Append(Vec<u8>),
    /// The job has this name now.
    Accepted {
        /// Of the request.
        token: u64,
        /// Its name.
        job: JobId,
    },
    /// Tell a worker.
    Send {
        /// Which.
        link: Link,
        /// What.
        message: ToWorker,
    },
    /// End a connection.
    Close(Link),
    /// Give this output its final name (`part-r-00000`), once and for all. Fetch it from its holder
    /// first if it is not there. Asked again after a restart: if the name is taken by that attempt's
    /// output already, it is done.
    Publish {
        /// Whose output it is; its task says which part.
        attempt: AttemptId,
        /// Who has it.
        holder: WorkerId,
        /// Where the holder serves it.
        addr: String,
        /// What it is.
        output: TaskOutput,
    },
    /// The job is over; all that counts of it was published.
    Ended {
        /// Which.
        job: JobId,
        /// How.
        outcome: Outcome,
    },
    /// Something that people want to know happened.
    Notice {
        /// In which job.
        job: Option<JobId>,
        /// What.
        text: String,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All output is there.
    Succeeded,
    /// A task failed too often.
    Failed {
        /// The attempt that failed first in that task: most likely what is really wrong.
        attempt: AttemptId,
        /// On which host.
        host: String,
        /// Why.
        cause: Failure,
    },
    /// Somebody did not want it any more.
    Cancelled,
}

/// Times and limits of a master.
#[derive(Debug, Clone, PartialEq)]
pub struct MasterConfig {
    /// How often workers say that they live.
    pub heartbeat: Duration,
    /// A worker that is silent for this long is taken for dead.
    pub lease: Duration,
    /// A worker whose connection ended is taken for dead unless it is back after this long.
    pub reconnect: Duration,
    /// After a restart, a master waits this long for workers to say which outputs they still hold.
    pub rejoin: Duration,
    /// Reduce tasks start to fetch when this share of the map tasks is done.
    pub reduce_start: f64,
    /// A task gets no backup before it ran for this long.
    pub backup_after: Duration,
    /// Share of all slots that may run backup tasks; at least one slot.
    pub backup_share: f64,
    /// A worker without a free split of its own leaves those that others hold to them for this long.
    pub locality_wait: Duration,
    /// Failed attempts of a job on one host after which it gets no more tasks of that job.
    pub host_failures_max: u32,
    /// Agreeing results in a row after which a stranger's results are only spot-checked.
    pub trust_after: u32,
}

impl Default for MasterConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(3),
            lease: Duration::from_secs(15),
            reconnect: Duration::from_secs(2),
            rejoin: Duration::from_secs(10),
            reduce_start: 0.05,
            backup_after: Duration::from_secs(10),
            backup_share: 0.1,
            locality_wait: Duration::from_secs(3),
            host_failures_max: 4,
            trust_after: 10,
        }
    }
}

/// Where tasks of one kind are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TaskCounts {
    /// There are.
    pub total: u32,
    /// Wait for a slot.
    pub waiting: u32,
    /// Run.
    pub running: u32,
    /// Are done.
    pub done: u32,
}

/// How a job is doing, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobProgress {
    /// Which.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Map tasks.
    pub maps: TaskCounts,
    /// Reduce tasks.
    pub reduces: TaskCounts,
    /// Share of the map input that was consumed, 0 to 1.
    pub map: f64,
    /// Share of the map output that was fetched, 0 to 1.
    pub shuffle: f64,
    /// Share of the reduce work that is done, 0 to 1, the shuffle included as a third.
    pub reduce: f64,
    /// Seconds until the end, as it looks.
    pub eta_s: Option<f64>,
    /// Seconds since it was submitted, or it took.
    pub elapsed_s: f64,
    /// Counters of committed attempts, the engine's own (`shoal`) included.
    pub counters: Counters,
    /// Failed attempts so far, first causes first; the list is capped.
    pub failures: Vec<(AttemptId, String, Failure)>,
    /// Records that were left out: task and number. The list is capped.
    pub skipped: Vec<(TaskId, u64)>,
    /// Machines that attempts failed on or whose outputs could not be had, and how often. From
    /// [`MasterConfig::host_failures_max`] on a machine gets no more tasks of the job while there are
    /// others.
    pub hosts_failed: BTreeMap<String, u32>,
    /// Why nothing goes on, if nothing does.
    pub waiting_for: Option<String>,
}

/// A worker, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// Its machine.
    pub host: String,
    /// Where it serves.
    pub addr: String,
    /// Map tasks it runs at once, and reduce tasks beside them.
    pub slots: u32,
    /// What it runs.
    pub running: Vec<AttemptId>,
    /// Whether it is one of ours.
    pub own: bool,
}

/// What came out of reading a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Length of the log up to its last whole record, in bytes. Cut it there before appending.
    pub valid: usize,
    /// Bytes after that.
    pub dropped: usize,
    /// Not just the end that was being written is missing: the log's bytes went bad.
    pub damaged: bool,
    /// Jobs that were not over.
    pub jobs: Vec<JobId>,
}
