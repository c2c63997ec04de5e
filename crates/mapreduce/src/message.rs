//! What master and workers say to each other. How it looks in bytes: [`crate::wire`].
//!
//! All of it is control; records never pass here. Workers fetch map output from each other, by
//! whatever way the driver has, and tell the master only how that went.

use crate::id::{AttemptId, JobId, WorkerId};
use crate::job::JobSpec;
use crate::split::{Holding, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counters by group and name.
pub type Counters = BTreeMap<(String, String), u64>;

/// The digest of a task's output: a hash over the hashes of its partitions, in order. Equal digests
/// mean equal output, so that results of strangers can be compared; who fetches from a stranger
/// checks what comes against it.
pub type Digest = [u8; 32];

/// Records by their number within a task's input, counted from 0 in the order in which they are
/// read: from the first, to before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordRange {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

impl RecordRange {
    /// How many.
    pub const fn len(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A worker presents itself, or comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Drawn at random when the process starts, so that one that lost its connection is known again.
    pub instance: u64,
    /// Name of its machine: backup tasks go to another, failures are remembered for it.
    pub host: String,
    /// Where it serves map output, as the driver writes addresses.
    pub addr: String,
    /// Map tasks it runs at once, and reduce tasks beside them.
    pub slots: u32,
    /// What it holds of the input.
    pub holds: Vec<Holding>,
    /// Finished attempts whose output it still has.
    pub outputs: Vec<AttemptId>,
    /// Attempts that still run.
    pub running: Vec<AttemptId>,
}

/// Which part of its work an attempt is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reads the split and maps it.
    Map,
    /// Fetches map output.
    Shuffle,
    /// Merges and reduces.
    Reduce,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// Bytes of input this phase has consumed.
    pub done: u64,
    /// Bytes of input this phase has, as far as is known.
    pub total: u64,
}

impl Progress {
    /// Nothing done yet.
    pub const fn new(phase: Phase) -> Self {
        Self {
            phase,
            done: 0,
            total: 0,
        }
    }

    /// From 0 to 1: of a map task the share of its input, of a reduce task a third for the shuffle
    /// and the rest for what follows.
    pub fn share(&self) -> f64 {
        let here = match self.total {
            0 => 0.0,
            total => (self.done as f64 / total as f64).min(1.0),
        };
        match self.phase {
            Phase::Map => here,
            Phase::Shuffle => here / 3.0,
            Phase::Reduce => (1.0 + 2.0 * here) / 3.0,
        }
    }
}

/// What a finished attempt made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// Bytes in all, as they lie there.
    pub bytes: u64,
    /// Records in all.
    pub records: u64,
    /// See [`Digest`]; zeros where nobody compares.
    pub digest: Digest,
    /// Where the driver finds it again, if that does not follow from the attempt.
    pub place: String,
}

/// Whose fault a failed attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The job's code or input: it counts against the task.
    Code,
    /// The machine, for example a full disk: it counts against the host only.
    Host,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For people: what happened, the last lines on standard error, how to reproduce.
    pub what: String,
    /// Whose fault it is.
    pub blame: Blame,
    /// The bad record is one of these, as far as can be told; nothing if no record is to blame.
    pub records: Option<RecordRange>,
}

/// Why map output could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FetchProblem {
    /// Its holder does not answer.
    Unreachable,
    /// Its holder answers that it has not got it.
    Missing,
    /// What came does not match its checksum or digest.
    Corrupt,
}

/// From a worker to the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaster {
    /// First on every connection.
    Register(Register),
    /// I am alive, and this is how far my attempts are. Answered by [`ToWorker::Lease`].
    Heartbeat {
        /// Counts up; the answer repeats it.
        sequence: u64,
        /// Attempts whose progress changed.
        progress: Vec<(AttemptId, Progress)>,
    },
    /// I hold more of the input.
    Holds(Vec<Holding>),
    /// An attempt is through; may it commit?
    Finished {
        /// Which.
        attempt: AttemptId,
        /// What it made.
        output: TaskOutput,
        /// What it counted.
        counters: Counters,
    },
    /// An attempt failed.
    Failed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// Map outputs that a reduce attempt cannot get. It goes on trying.
    FetchFailed {
        /// Who wants them.
        attempt: AttemptId,
        /// Who should have them.
        holder: WorkerId,
        /// Attempts whose output it is.
        outputs: Vec<AttemptId>,
        /// What is wrong.
        problem: FetchProblem,
    },
    /// I go; my outputs go with me.
    Leave,
}

/// What an attempt is to do, the job's specification apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// What to call it.
    pub attempt: AttemptId,
    /// Of a map task, its input; empty for a reduce task.
    pub split: Split,
    /// Records to leave out, in ascending order.
    pub skip: Vec<RecordRange>,
    /// Process only these records and throw the output away: the master wants to know whether they
    /// are bad.
    pub probe: Option<RecordRange>,
    /// Output is compared with that of others, so it must not depend on anything but the input.
    pub verified: bool,
}

/// Where the output of one map task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapOutput {
    /// Who made it. A later entry for the same task replaces the earlier one.
    pub attempt: AttemptId,
    /// Who has it.
    pub holder: WorkerId,
    /// Bytes of all its partitions.
    pub bytes: u64,
    /// What it must hash to; zeros where nobody compares.
    pub digest: Digest,
}

/// Map output that became known or was replaced, in the order in which that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapOutputs {
    /// Whose.
    pub job: JobId,
    /// Place of the first entry in the job's growing list. A worker that gets a place it does not
    /// expect has lost nothing it needs if the place is lower, and starts anew at 0.
    pub from: u64,
    /// The entries.
    pub entries: Arc<[MapOutput]>,
    /// Addresses of holders that the worker was not told of before.
    pub addrs: Vec<(WorkerId, Arc<str>)>,
}

/// What tasks of a job need to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Which.
    pub job: JobId,
    /// What to do.
    pub spec: Arc<JobSpec>,
    /// Map tasks there are.
    pub maps: u32,
    /// See [`crate::split::Submission::cuts`].
    pub cuts: Arc<[Vec<u8>]>,
}

/// From the master to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// You are known.
    Welcome {
        /// By this name.
        worker: WorkerId,
        /// Say so every so often, in milliseconds.
        heartbeat_ms: u64,
        /// A worker that hears nothing for this long stops all work, counted from when it sent what
        /// was last answered; in milliseconds.
        lease_ms: u64,
        /// Of the attempts it said it runs, those that are to go on; the rest are to be killed.
        go_on: Vec<AttemptId>,
        /// Of the outputs it said it holds, those that are wanted; the rest are to be dropped.
        keep: Vec<AttemptId>,
    },
    /// The lease runs anew from when heartbeat `sequence` was sent.
    Lease {
        /// Which heartbeat is answered.
        sequence: u64,
    },
    /// What tasks of a job need to know; before the first of them.
    Job(JobInfo),
    /// Run this.
    Assign(Assignment),
    /// Stop this and drop what it made.
    Kill(AttemptId),
    /// This one's output counts. Keep it until the job ends.
    Granted(AttemptId),
    /// This one's output does not count. Drop it.
    Denied(AttemptId),
    /// Where map output is.
    Outputs(MapOutputs),
    /// The job is over: kill its attempts, drop its outputs.
    JobEnd(JobId),
}
