//! The worker: runs what the master assigns, plans what its reduce tasks fetch, and stops when it
//! hears nothing.

mod fetch;
mod holders;
mod told;

use crate::id::{AttemptId, JobId, TaskKind, WorkerId};
use crate::message::{
    Assignment, Blame, Counters, Failure, Phase, Progress, Register, TaskOutput, ToMaster, ToWorker,
};
use crate::split::Holding;
use fetch::{Fetching, Known};
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
pub use told::{FetchRequest, WorkerConfig, WorkerInput, WorkerOutput};

/// Where an attempt is.
#[derive(Debug)]
enum Stage {
    Running {
        progress: Progress,
        /// The master has heard of it.
        told: bool,
        fetching: Option<Box<Fetching>>,
    },
    /// Through; the master has not said yet whether it counts.
    Finished {
        output: TaskOutput,
        counters: Counters,
    },
    /// Its output counts.
    Granted,
}

/// The connection to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Connect at this time.
    Down(Time),
    Connecting,
    /// Waits for its welcome.
    Up,
    Registered,
    /// It left.
    Gone,
}

/// The lease on a master's work.
#[derive(Debug)]
struct Lease {
    heartbeat: Duration,
    length: Duration,
    /// When what was last answered was sent: the lease runs from there.
    from: Time,
    /// Heartbeats that were not answered yet.
    sent: VecDeque<(u64, Time)>,
    sequence: u64,
    next: Time,
}

/// One worker. Sans-IO: see [`Machine`].
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    rng: Rng,
    line: Line,
    id: Option<WorkerId>,
    holds: Vec<Holding>,
    lease: Option<Lease>,
    /// When it last presented itself: the welcome's lease runs from there.
    registered_at: Time,
    attempts: BTreeMap<AttemptId, Stage>,
    jobs: BTreeMap<JobId, Known>,
    /// Attempts whose output must never count.
    probes: BTreeSet<AttemptId>,
    /// Whose request each number is.
    requests: BTreeMap<u64, AttemptId>,
    next_request: u64,
    /// When a holder that could not be reached may be tried again.
    retry_at: Option<Time>,
}

/// Unanswered heartbeats that are remembered.
const SENT_MAX: usize = 64;

impl Worker {
    /// A worker that wants to connect as soon as it gets its first [`WorkerInput::Tick`].
    pub fn new(config: WorkerConfig, rng: Rng) -> Self {
        Self {
            holds: config.holds.clone(),
            config,
            rng,
            line: Line::Down(Time::ZERO),
            id: None,
            lease: None,
            registered_at: Time::ZERO,
            attempts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            probes: BTreeSet::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            retry_at: None,
        }
    }

    /// What the master calls it.
    pub fn id(&self) -> Option<WorkerId> {
        self.id
    }

    /// Whether an output is kept, so that it may be served.
    pub fn serves(&self, output: AttemptId) -> bool {
        matches!(
            self.attempts.get(&output),
            Some(Stage::Finished { .. } | Stage::Granted)
        )
    }

    /// What it runs.
    pub fn running(&self) -> impl Iterator<Item = AttemptId> + '_ {
        let running = |stage: &Stage| matches!(stage, Stage::Running { .. });
        let all = self.attempts.iter();
        all.filter(move |(_, stage)| running(stage))
            .map(|(id, _)| *id)
    }

    fn say(&self, message: ToMaster, out: &mut Vec<WorkerOutput>) {
        // What is said without a connection is lost; registering anew tells all that matters.
        if self.line == Line::Registered {
            out.push(WorkerOutput::Send(message));
        }
    }

    fn register(&mut self, now: Time, out: &mut Vec<WorkerOutput>) {
        self.line = Line::Up;
        // A master that restarted would not know that they are probes.
        for id in std::mem::take(&mut self.probes) {
            self.remove(id, out);
        }
        let keeps = |stage: &Stage| !matches!(stage, Stage::Running { .. });
        let outputs = self.attempts.iter().filter(|(_, s)| keeps(s));
        out.push(WorkerOutput::Send(ToMaster::Register(Register {
            instance: self.config.instance,
            host: self.config.host.clone(),
            addr: self.config.addr.clone(),
            slots: self.config.slots,
            holds: self.holds.clone(),
            outputs: outputs.map(|(id, _)| *id).collect(),
            running: self.running().collect(),
        })));
        if let Some(lease) = &mut self.lease {
            lease.sent.clear();
        }
        self.registered_at = now;
    }

    fn on_message(&mut self, now: Time, message: ToWorker, out: &mut Vec<WorkerOutput>) {
        if self.line != Line::Registered && !matches!(message, ToWorker::Welcome { .. }) {
            return;
        }
        match message {
            ToWorker::Welcome {
                worker,
                heartbeat_ms,
                lease_ms,
                go_on,
                keep,
            } => {
                if self.line != Line::Up {
                    return;
                }
                self.line = Line::Registered;
                self.id = Some(worker);
                let heartbeat = Duration::from_millis(heartbeat_ms.max(1));
                self.lease = Some(Lease {
                    heartbeat,
                    length: Duration::from_millis(lease_ms.max(1)),
                    from: self.registered_at,
                    sent: VecDeque::new(),
                    sequence: 0,
                    next: now + heartbeat,
                });
                self.settle(&go_on, &keep, out);
            }
            ToWorker::Lease { sequence } => {
                if let Some(lease) = &mut self.lease {
                    while let Some(&(sent, at)) = lease.sent.front() {
                        if sent > sequence {
                            break;
                        }
                        lease.from = lease.from.max(at);
                        lease.sent.pop_front();
                    }
                }
            }
            ToWorker::Job(info) => {
                let job = info.job;
                match self.jobs.get_mut(&job) {
                    Some(known) => known.renew(info),
                    None => {
                        self.jobs.insert(job, Known::new(info));
                    }
                }
                for (id, stage) in &mut self.attempts {
                    if let Stage::Running {
                        fetching: Some(fetching),
                        ..
                    } = stage
                        && id.task.job == job
                    {
                        fetching.forget_queues();
                    }
                }
            }
            ToWorker::Assign(assignment) => self.assign(assignment, now, out),
            ToWorker::Kill(id) | ToWorker::Denied(id) => self.remove(id, out),
            ToWorker::Granted(id) => {
                if let Some(stage @ Stage::Finished { .. }) = self.attempts.get_mut(&id) {
                    *stage = Stage::Granted;
                }
            }
            ToWorker::Outputs(outputs) => self.on_outputs(now, &outputs, out),
            ToWorker::JobEnd(job) => self.end_job(job, out),
        }
    }

    /// After a welcome: what the master does not want any more goes, what it may not have heard is
    /// said again.
    fn settle(&mut self, go_on: &[AttemptId], keep: &[AttemptId], out: &mut Vec<WorkerOutput>) {
        let wanted: BTreeSet<_> = go_on.iter().chain(keep).collect();
        let unwanted = self.attempts.keys().filter(|id| !wanted.contains(id));
        for id in unwanted.copied().collect::<Vec<_>>() {
            self.remove(id, out);
        }
        let mut again = Vec::new();
        for (id, stage) in &mut self.attempts {
            match stage {
                Stage::Running { told, .. } => *told = false,
                Stage::Finished { output, counters } => again.push(ToMaster::Finished {
                    attempt: *id,
                    output: output.clone(),
                    counters: counters.clone(),
                }),
                Stage::Granted => {}
            }
        }
        for message in again {
            self.say(message, out);
        }
        let used: BTreeSet<JobId> = self.attempts.keys().map(|id| id.task.job).collect();
        self.jobs.retain(|job, _| used.contains(job));
    }

    fn assign(&mut self, assignment: Assignment, now: Time, out: &mut Vec<WorkerOutput>) {
        let id = assignment.attempt;
        if self.attempts.contains_key(&id) {
            return;
        }
        let refuse = |what: &str| ToMaster::Failed {
            attempt: id,
            failure: Failure {
                what: what.to_owned(),
                blame: Blame::Host,
                records: None,
            },
        };
        let Some(job) = self.jobs.get(&id.task.job) else {
            return self.say(refuse("the worker was not told of the job"), out);
        };
        if self.config.sandbox_only && !job.is_sandboxed() {
            let why = "this worker runs WebAssembly and built-in jobs only, as the master is a \
                       stranger";
            return self.say(refuse(why), out);
        }
        let (phase, fetching) = match id.task.kind {
            TaskKind::Map => (Phase::Map, None),
            TaskKind::Reduce => match Fetching::new(job) {
                Some(fetching) => (Phase::Shuffle, Some(Box::new(fetching))),
                None => return self.say(refuse("the job has more map tasks than fit"), out),
            },
        };
        let stage = Stage::Running {
            progress: Progress::new(phase),
            told: true,
            fetching,
        };
        self.attempts.insert(id, stage);
        if assignment.probe.is_some() {
            self.probes.insert(id);
        }
        out.push(WorkerOutput::Start {
            assignment,
            job: job.info.clone(),
        });
        if id.task.kind == TaskKind::Reduce {
            self.plan(id, now, out);
        }
    }

    /// An attempt is not wanted any more, running or finished.
    fn remove(&mut self, id: AttemptId, out: &mut Vec<WorkerOutput>) {
        self.probes.remove(&id);
        match self.attempts.remove(&id) {
            None => {}
            Some(Stage::Running { fetching, .. }) => {
                self.cancel_fetches(fetching.as_deref(), out);
                out.push(WorkerOutput::Kill(id));
            }
            Some(Stage::Finished { .. } | Stage::Granted) => out.push(WorkerOutput::Drop(id)),
        }
    }

    fn end_job(&mut self, job: JobId, out: &mut Vec<WorkerOutput>) {
        let running = self.running().filter(|id| id.task.job == job);
        for id in running.collect::<Vec<_>>() {
            if let Some(Stage::Running { fetching, .. }) = self.attempts.remove(&id) {
                self.cancel_fetches(fetching.as_deref(), out);
                out.push(WorkerOutput::Kill(id));
            }
        }
        self.attempts.retain(|id, _| id.task.job != job);
        self.probes.retain(|id| id.task.job != job);
        self.jobs.remove(&job);
        out.push(WorkerOutput::JobEnd(job));
    }

    fn cancel_fetches(&mut self, fetching: Option<&Fetching>, out: &mut Vec<WorkerOutput>) {
        for request in fetching.into_iter().flat_map(Fetching::requests) {
            if self.requests.remove(&request).is_some() {
                out.push(WorkerOutput::CancelFetch(request));
            }
        }
    }

    /// Everything that runs stops; finished output stays, as it harms nobody.
    fn stop_all(&mut self, out: &mut Vec<WorkerOutput>) {
        for id in self.running().collect::<Vec<_>>() {
            self.remove(id, out);
        }
    }

    fn check_lease(&mut self, now: Time, out: &mut Vec<WorkerOutput>) {
        let Some(lease) = &self.lease else {
            return;
        };
        if now.since(lease.from) < lease.length {
            return;
        }
        self.lease = None;
        self.id = None;
        if self.running().next().is_some() {
            let text = "the master is silent: all work stops until it is back";
            out.push(WorkerOutput::Notice(text.to_owned()));
        }
        self.stop_all(out);
        if matches!(self.line, Line::Up | Line::Registered) {
            out.push(WorkerOutput::Disconnect);
            self.line = Line::Down(now);
        }
    }

    fn beat(&mut self, now: Time, out: &mut Vec<WorkerOutput>) {
        if self.line != Line::Registered {
            return;
        }
        let Some(lease) = self.lease.as_mut().filter(|lease| now >= lease.next) else {
            return;
        };
        lease.sequence += 1;
        lease.next = now + lease.heartbeat;
        if lease.sent.len() < SENT_MAX {
            lease.sent.push_back((lease.sequence, now));
        }
        let sequence = lease.sequence;
        let mut progress = Vec::new();
        for (id, stage) in &mut self.attempts {
            if let Stage::Running {
                progress: at, told, ..
            } = stage
                && !std::mem::replace(told, true)
            {
                progress.push((*id, *at));
            }
        }
        out.push(WorkerOutput::Send(ToMaster::Heartbeat {
            sequence,
            progress,
        }));
    }

    fn on_finished(
        &mut self,
        id: AttemptId,
        output: TaskOutput,
        counters: Counters,
        out: &mut Vec<WorkerOutput>,
    ) {
        let Some(stage @ Stage::Running { .. }) = self.attempts.get_mut(&id) else {
            return;
        };
        *stage = Stage::Finished {
            output: output.clone(),
            counters: counters.clone(),
        };
        let message = ToMaster::Finished {
            attempt: id,
            output,
            counters,
        };
        self.say(message, out);
    }

    fn on_failed(&mut self, id: AttemptId, failure: Failure, out: &mut Vec<WorkerOutput>) {
        if let Some(Stage::Running { .. }) = self.attempts.get(&id)
            && let Some(Stage::Running { fetching, .. }) = self.attempts.remove(&id)
        {
            self.probes.remove(&id);
            self.cancel_fetches(fetching.as_deref(), out);
            let attempt = id;
            self.say(ToMaster::Failed { attempt, failure }, out);
        }
    }
}

impl Machine for Worker {
    type Input<'a> = WorkerInput;
    type Output = WorkerOutput;

    fn handle(&mut self, now: Time, input: WorkerInput, out: &mut Vec<WorkerOutput>) {
        // First, whatever it is: a process that was stopped wakes up with its lease over.
        self.check_lease(now, out);
        match input {
            WorkerInput::Connected => {
                if self.line == Line::Connecting {
                    self.register(now, out);
                }
            }
            WorkerInput::Disconnected => {
                if self.line != Line::Gone && !matches!(self.line, Line::Down(_)) {
                    self.line = Line::Down(now + self.config.reconnect);
                }
            }
            WorkerInput::Message(message) => self.on_message(now, message, out),
            WorkerInput::Progress { attempt, progress } => {
                if let Some(Stage::Running {
                    progress: at, told, ..
                }) = self.attempts.get_mut(&attempt)
                    && *at != progress
                {
                    *at = progress;
                    *told = false;
                }
            }
            WorkerInput::Finished {
                attempt,
                output,
                counters,
            } => self.on_finished(attempt, output, counters, out),
            WorkerInput::Failed { attempt, failure } => self.on_failed(attempt, failure, out),
            WorkerInput::Fetched {
                request,
                output,
                bytes,
            } => self.on_fetched(now, request, output, bytes, out),
            WorkerInput::FetchFailed {
                request,
                outputs,
                problem,
            } => self.on_fetch_failed(now, request, &outputs, problem, out),
            WorkerInput::Holds(more) => {
                self.holds.extend(more.iter().cloned());
                self.say(ToMaster::Holds(more), out);
            }
            WorkerInput::Leave => {
                self.stop_all(out);
                self.say(ToMaster::Leave, out);
                out.push(WorkerOutput::Disconnect);
                self.line = Line::Gone;
                self.lease = None;
            }
            WorkerInput::Tick => {}
        }
        if let Line::Down(at) = self.line
            && now >= at
        {
            self.line = Line::Connecting;
            out.push(WorkerOutput::Connect);
        }
        self.beat(now, out);
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry(now, out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        let line = match self.line {
            Line::Down(at) => Some(at),
            Line::Connecting | Line::Up | Line::Registered | Line::Gone => None,
        };
        let beat = (self.line == Line::Registered)
            .then(|| self.lease.as_ref().map(|l| l.next))
            .flatten();
        let over = self.lease.as_ref().map(|l| l.from + l.length);
        [line, beat, over, self.retry_at]
            .into_iter()
            .fold(None, earliest)
    }
}
