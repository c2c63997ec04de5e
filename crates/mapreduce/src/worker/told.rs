//! What a worker is told, and what it has done.

use crate::id::{AttemptId, JobId, WorkerId};
use crate::message::{
    Assignment, Counters, Digest, Failure, FetchProblem, JobInfo, Progress, TaskOutput, ToMaster,
    ToWorker,
};
use crate::split::Holding;
use std::time::Duration;

/// What a worker is.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// Drawn at random when the process starts.
    pub instance: u64,
    /// Name of its machine.
    pub host: String,
    /// Where it serves map output.
    pub addr: String,
    /// Map tasks it runs at once, and reduce tasks beside them.
    pub slots: u32,
    /// What it holds of the input.
    pub holds: Vec<Holding>,
    /// Runs sandboxed code and built-ins only: the master is a stranger's.
    pub sandbox_only: bool,
    /// Requests for map output that one reduce attempt has under way, each to another holder.
    pub streams: u32,
    /// Map outputs that one request asks for at most.
    pub outputs_per_request: u32,
    /// Bytes of map output that one reduce attempt has asked for and not got, as far as sizes are
    /// known; at least one request is always under way.
    pub credit_bytes: u64,
    /// How long it waits before it connects again.
    pub reconnect: Duration,
}

impl WorkerConfig {
    /// A worker of one slot with the usual limits.
    pub fn new(instance: u64, host: impl Into<String>, addr: impl Into<String>) -> Self {
        Self {
            instance,
            host: host.into(),
            addr: addr.into(),
            slots: 1,
            holds: Vec::new(),
            sandbox_only: false,
            streams: 4,
            outputs_per_request: 64,
            credit_bytes: 64 << 20,
            reconnect: Duration::from_millis(500),
        }
    }
}

/// A part of one reduce task's input to be had from one holder: the task's partition of each of
/// these outputs, in this order, on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Names the request. Answered by one [`WorkerInput::Fetched`] for each output, or by
    /// [`WorkerInput::FetchFailed`] for those that cannot be had.
    pub request: u64,
    /// Who wants it; its task says which partition.
    pub attempt: AttemptId,
    /// Who has it; possibly this very worker.
    pub holder: WorkerId,
    /// Where the holder serves it.
    pub addr: String,
    /// Which outputs, and what each must hash to (zeros where nobody compares).
    pub outputs: Vec<(AttemptId, Digest)>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum WorkerInput {
    /// The connection that [`WorkerOutput::Connect`] asked for is there.
    Connected,
    /// It could not be made, or ended.
    Disconnected,
    /// The master said something.
    Message(ToWorker),
    /// An attempt got on.
    Progress {
        /// Which.
        attempt: AttemptId,
        /// How far.
        progress: Progress,
    },
    /// An attempt is through; what it made is complete and can be served.
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
    /// One output of a request came, checked.
    Fetched {
        /// Which request.
        request: u64,
        /// Whose output.
        output: AttemptId,
        /// How long this partition of it was.
        bytes: u64,
    },
    /// Outputs of a request will not come. Without outputs: none of those that have not come.
    FetchFailed {
        /// Which request.
        request: u64,
        /// Whose outputs.
        outputs: Vec<AttemptId>,
        /// Why.
        problem: FetchProblem,
    },
    /// More of the input is here.
    Holds(Vec<Holding>),
    /// The process is to end; the master shall know.
    Leave,
    /// The clock reached the deadline.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerOutput {
    /// Connect to the master.
    Connect,
    /// Close the connection to the master.
    Disconnect,
    /// Tell the master.
    Send(ToMaster),
    /// Run an attempt.
    Start {
        /// What it is to do.
        assignment: Assignment,
        /// The job it belongs to.
        job: JobInfo,
    },
    /// Stop an attempt and drop what it made so far.
    Kill(AttemptId),
    /// Fetch input for a reduce attempt.
    Fetch(FetchRequest),
    /// A request that is under way is not wanted any more; it gets no answer.
    CancelFetch(u64),
    /// A reduce attempt has all its input.
    Complete(AttemptId),
    /// Drop the output of a finished attempt.
    Drop(AttemptId),
    /// Drop everything of this job.
    JobEnd(JobId),
    /// The master refused or ended the whole thing; for people.
    Notice(String),
}
