//! The master: which task runs where and when, whose output counts, and what to do about machines
//! that die, lie, stall or are slow.

mod backup;
mod cluster;
mod commit;
mod job;
mod locality;
mod recover;
mod resume;
mod schedule;
mod skip;
mod task;
mod told;
mod view;

use crate::id::{AttemptId, JobId, TaskKind, WorkerId};
use crate::log::{self, Record};
use crate::message::{MapOutput, MapOutputs, Progress, ToMaster, ToWorker};
use crate::split::{Holdings, Submission};
use crate::trust::Reputations;
use cluster::Cluster;
use job::Job;
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
pub use told::{
    JobProgress, Link, MasterConfig, MasterInput, MasterOutput, Outcome, Owner, Resumed,
    TaskCounts, WorkerView,
};

/// The master of a cluster. Sans-IO: see [`Machine`].
#[derive(Debug)]
pub struct Master {
    config: MasterConfig,
    rng: Rng,
    /// How many masters wrote this log before.
    incarnation: u32,
    next_job: u64,
    next_worker: u64,
    /// The log has its header and this master's first record.
    log_begun: bool,
    jobs: BTreeMap<JobId, Job>,
    /// Those that are not over.
    live: BTreeSet<JobId>,
    cluster: Cluster,
    reputations: Reputations,
    /// Something changed that may let a task start.
    dirty: bool,
    /// When somebody will have waited long enough for its own input.
    retry_at: Option<Time>,
    /// When map outputs are told next, if there are new ones.
    flush_at: Option<Time>,
    /// When leases, stalled and slow tasks are looked at next.
    check_at: Option<Time>,
    /// After a restart: until then workers may come back before work is handed out, and until then
    /// outputs are waited for.
    quiet_until: Option<Time>,
    rejoin_until: Option<Time>,
}

/// How often leases and tasks are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);

impl Master {
    /// A master with an empty log.
    pub fn new(config: MasterConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            incarnation: 0,
            next_job: 1,
            next_worker: 0,
            log_begun: false,
            jobs: BTreeMap::new(),
            live: BTreeSet::new(),
            cluster: Cluster::default(),
            reputations: Reputations::default(),
            dirty: false,
            retry_at: None,
            flush_at: None,
            check_at: None,
            quiet_until: None,
            rejoin_until: None,
        }
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    /// Whether a job is not over.
    pub fn is_live(&self, job: JobId) -> bool {
        self.live.contains(&job)
    }

    /// What a job was submitted as.
    pub fn submission(&self, job: JobId) -> Option<&Submission> {
        self.jobs.get(&job).map(|j| &j.submission)
    }

    /// The workers that are known.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        self.cluster.workers.values().map(|w| WorkerView {
            worker: w.id,
            host: w.host.to_string(),
            addr: w.addr.to_string(),
            slots: w.slots,
            running: w.maps.iter().chain(&w.reduces).copied().collect(),
            own: w.stranger().is_none(),
        })
    }

    fn submit(
        &mut self,
        now: Time,
        token: u64,
        submission: Submission,
        out: &mut Vec<MasterOutput>,
    ) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let record = Record::Submitted {
            job,
            submission: Box::new(submission.clone()),
            at_us: now.as_micros(),
        };
        self.record(record, out);
        self.take_on(job, submission, now);
        out.push(MasterOutput::Accepted { token, job });
        self.end_if_complete(job, now, out);
    }

    fn take_on(&mut self, id: JobId, submission: Submission, at: Time) {
        let mut job = Job::new(id, submission, at);
        for worker in self.cluster.workers.values() {
            let splits = &job.submission.splits;
            job.locality.add(
                worker.id,
                &worker.host,
                &worker.holds,
                splits,
                &job.maps.pending,
            );
        }
        self.jobs.insert(id, job);
        self.live.insert(id);
        self.dirty = true;
    }

    /// Writes a record to the log and does what it says.
    fn record(&mut self, record: Record, out: &mut Vec<MasterOutput>) {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.log_begun, true) {
            if self.incarnation == 0 {
                log::begin(&mut bytes);
            }
            let started = Record::Started {
                incarnation: self.incarnation,
            };
            log::append(&started, &mut bytes);
        }
        log::append(&record, &mut bytes);
        out.push(MasterOutput::Append(bytes));
        self.apply(record);
    }

    fn apply(&mut self, record: Record) {
        let job = match &record {
            Record::Failed { attempt, .. }
            | Record::Lost { attempt }
            | Record::Found { attempt, .. }
            | Record::Published { attempt } => attempt.task.job,
            Record::Committed(commit) => commit.attempt.task.job,
            Record::Skipped { task, .. } => task.job,
            Record::Ended { job, .. } => *job,
            Record::Started { .. } | Record::Submitted { .. } => return,
            Record::Liar { .. } | Record::Confirmed { .. } => return,
        };
        if let Some(job) = self.jobs.get_mut(&job) {
            job.apply(record);
        }
    }

    fn notice(&self, job: Option<JobId>, text: String, out: &mut Vec<MasterOutput>) {
        out.push(MasterOutput::Notice { job, text });
    }

    fn on_message(
        &mut self,
        now: Time,
        link: Link,
        message: ToMaster,
        out: &mut Vec<MasterOutput>,
    ) {
        if let ToMaster::Register(hello) = message {
            return self.on_register(link, hello, now, out);
        }
        let Some(worker) = self.cluster.by_link(link) else {
            // It was taken for dead, or never said who it is: it has to start anew.
            if self.cluster.links.remove(&link).is_some() {
                out.push(MasterOutput::Close(link));
            }
            return;
        };
        if let Some(state) = self.cluster.get_mut(worker) {
            state.heard = now;
        }
        match message {
            ToMaster::Register(_) => {}
            ToMaster::Heartbeat { sequence, progress } => {
                for (attempt, progress) in progress {
                    self.on_progress(worker, attempt, progress, now);
                }
                self.tell(worker, ToWorker::Lease { sequence }, out);
            }
            ToMaster::Holds(more) => self.on_holds(worker, Holdings::new(more)),
            ToMaster::Finished {
                attempt,
                output,
                counters,
            } => self.on_finished(worker, attempt, (output, counters), now, out),
            ToMaster::Failed { attempt, failure } => {
                self.on_failed(worker, attempt, failure, now, out);
            }
            ToMaster::FetchFailed {
                attempt,
                holder,
                outputs,
                problem,
            } => self.on_fetch_failed(worker, attempt, holder, (outputs, problem), now, out),
            ToMaster::Leave => self.lose_worker(worker, "it left", now, out),
        }
    }

    fn on_progress(&mut self, worker: WorkerId, id: AttemptId, progress: Progress, now: Time) {
        let Some(job) = self.jobs.get_mut(&id.task.job) else {
            return;
        };
        let maps_done = job.maps.all_done();
        let Some(task) = job.task_mut(id.task) else {
            return;
        };
        let Some(attempt) = task
            .find(id.number, worker)
            .and_then(|at| task.running.get_mut(at))
        else {
            return;
        };
        if attempt.progress != progress {
            attempt.progress = progress;
            attempt.changed = now;
        }
        if id.task.kind == TaskKind::Reduce && !maps_done {
            attempt.base = (now, progress.share());
        }
    }

    /// Tells workers of new map outputs: at once, or together with those of the next moment.
    fn flush_soon(&mut self, now: Time, at_once: bool) {
        let at = if at_once { now } else { now + FLUSH_EVERY };
        self.flush_at = earliest(self.flush_at, Some(at));
    }

    fn flush_outputs(&mut self, out: &mut Vec<MasterOutput>) {
        for job in self.jobs.values_mut().filter(|job| job.is_live()) {
            let mut batches: BTreeMap<(usize, usize), Arc<[MapOutput]>> = BTreeMap::new();
            for (id, told) in &mut job.told {
                let Some(worker) = self.cluster.get(*id) else {
                    continue;
                };
                let reduces = worker.reduces.iter().any(|a| a.task.job == job.id);
                let Some(link) = worker.link.filter(|_| reduces) else {
                    continue;
                };
                while told.entries < job.outputs.len() {
                    let to = job.outputs.len().min(told.entries + ENTRIES_MAX);
                    let range = (told.entries, to);
                    let entries = batches.entry(range).or_insert_with(|| {
                        job.outputs.get(range.0..range.1).unwrap_or_default().into()
                    });
                    let addrs = job.addrs.get(told.addrs..).unwrap_or_default();
                    let message = ToWorker::Outputs(MapOutputs {
                        job: job.id,
                        from: told.entries as u64,
                        entries: entries.clone(),
                        addrs: addrs.to_vec(),
                    });
                    out.push(MasterOutput::Send { link, message });
                    told.entries = to;
                    told.addrs = job.addrs.len();
                }
            }
        }
    }

    fn check(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        self.check_leases(now, out);
        if self.rejoin_until.is_some_and(|until| now >= until) {
            self.rejoin_until = None;
            self.give_up_waiting(out);
        }
        self.check_stalled(now, out);
        self.check_reporters(now, out);
        self.back_up(now, out);
    }
}

/// New map outputs are told together this often, unless they are the last.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Map outputs told in one message at most.
const ENTRIES_MAX: usize = 16_384;

impl Machine for Master {
    type Input<'a> = MasterInput;
    type Output = MasterOutput;

    fn handle(&mut self, now: Time, input: MasterInput, out: &mut Vec<MasterOutput>) {
        match input {
            MasterInput::Submit { token, submission } => {
                self.submit(now, token, *submission, out);
            }
            MasterInput::Cancel(job) => {
                if self.live.contains(&job) {
                    self.end_job(job, Outcome::Cancelled, now, out);
                }
            }
            MasterInput::Connected { link, owner } => {
                self.cluster.links.insert(link, (owner, None));
            }
            MasterInput::Message { link, message } => self.on_message(now, link, message, out),
            MasterInput::Closed(link) => self.on_closed(link, now),
            MasterInput::Published { attempt } => self.on_published(attempt, now, out),
            MasterInput::PublishFailed { attempt, why } => {
                self.on_publish_failed(attempt, &why, now, out);
            }
            MasterInput::Tick => {}
        }
        let busy = !self.live.is_empty() || !self.cluster.workers.is_empty();
        match self.check_at {
            Some(at) if now >= at => {
                self.check(now, out);
                self.check_at = busy.then(|| now + CHECK_EVERY);
            }
            None if busy => self.check_at = Some(now + CHECK_EVERY),
            _ => {}
        }
        if self.quiet_until.is_some_and(|until| now >= until) {
            self.quiet_until = None;
            self.dirty = true;
        }
        if self.dirty || self.retry_at.is_some_and(|at| now >= at) {
            self.schedule(now, out);
        }
        if self.flush_at.is_some_and(|at| now >= at) {
            self.flush_at = None;
            self.flush_outputs(out);
        }
    }

    fn deadline(&self) -> Option<Time> {
        [
            self.check_at,
            self.quiet_until,
            self.retry_at,
            self.flush_at,
        ]
        .into_iter()
        .fold(None, earliest)
    }
}
