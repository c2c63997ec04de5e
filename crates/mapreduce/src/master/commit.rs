//! Attempts that end: whose output counts, what a failure means, when a job is over.
//!
//! The decision is the master's alone and is in the log before anybody hears of it. An attempt that
//! the master does not know to be running on that very worker is denied, whatever it says: so
//! nothing commits twice, and who comes back from a partition can do no harm.

use crate::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use crate::log::{Commit, Record};
use crate::master::schedule::send;
use crate::master::task::ATTEMPTS_PER_INCARNATION;
use crate::master::{Master, MasterOutput, Outcome};
use crate::message::{Blame, Counters, Failure, RecordRange, TaskOutput, ToWorker};
use crate::trust::Verdict;
use shoal_base::Time;

impl Master {
    /// A worker says that an attempt is through.
    pub(super) fn on_finished(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        made: (TaskOutput, Counters),
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        if self.has_committed(worker, id) {
            // It asks again because it did not hear the answer.
            return self.tell(worker, ToWorker::Granted(id), out);
        }
        let Some(attempt) = self.take_attempt(worker, id, now) else {
            return self.tell(worker, ToWorker::Denied(id), out);
        };
        if let Some(probe) = attempt.probe {
            self.tell(worker, ToWorker::Denied(id), out);
            let task = self
                .jobs
                .get_mut(&id.task.job)
                .and_then(|j| j.task_mut(id.task));
            let bad = task.and_then(|t| t.bad.probe_passed(probe));
            return self.leave_out(id, bad, now, out);
        }
        let input = self.jobs.get(&id.task.job).is_some_and(|job| {
            id.task.kind == TaskKind::Map || job.maps_seen == job.maps.list.len()
        });
        if !input {
            self.tell(worker, ToWorker::Denied(id), out);
            let failure = Failure {
                what: "it says that it is through before all of its input was there".into(),
                blame: Blame::Host,
                records: None,
            };
            return self.record_failure(id, attempt.host.to_string(), failure, now, out);
        }
        let Some(state) = self.cluster.get(worker) else {
            return;
        };
        let (output, counters) = made;
        let commit = Commit {
            attempt: id,
            holder: worker,
            instance: state.instance,
            host: state.host.to_string(),
            addr: state.addr.to_string(),
            output,
            counters,
            stranger: state.stranger().copied(),
            verified: state.stranger().is_none(),
        };
        let Some(job) = self.jobs.get_mut(&id.task.job) else {
            return;
        };
        job.tasks_mut(id.task.kind).learn(&attempt, now);
        self.judge(commit, now, out);
    }

    /// Decides whether a result counts, now that there is one more.
    fn judge(&mut self, commit: Commit, now: Time, out: &mut Vec<MasterOutput>) {
        let id = commit.attempt.task;
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return;
        };
        let Some(task) = job.task_mut(id) else {
            return;
        };
        if commit.stranger.is_none() && commit.output.digest == [0; 32] {
            // One of ours that began before there were strangers: there is nothing to compare.
            for other in std::mem::take(&mut task.results) {
                self.tell(other.holder, ToWorker::Denied(other.attempt), out);
            }
            return self.commit(&commit, now, out);
        }
        task.results.push(commit);
        // All that a result says of itself is compared, but for where it lies and how it was made
        // (the engine's own counters).
        let said = |r: &Commit| {
            let counted = r.counters.iter().filter(|((group, _), _)| group != "shoal");
            let counted: Counters = counted.map(|(name, n)| (name.clone(), *n)).collect();
            (r.output.bytes, r.output.records, r.output.digest, counted)
        };
        let results: Vec<_> = task.results.iter().map(|r| (r.stranger, said(r))).collect();
        let trust_after = self.config.trust_after;
        let verdict = self.reputations.judge(&results, trust_after, &mut self.rng);
        match verdict {
            Verdict::Undecided => {
                task.wanted = task.results.len() + 1;
                job.refresh(id.kind, id.index);
                self.dirty = true;
            }
            Verdict::Accept {
                index,
                verified,
                liars,
                confirmed,
            } => {
                let mut results = std::mem::take(&mut task.results);
                if index < results.len() {
                    let mut right = results.swap_remove(index);
                    right.verified = verified;
                    for other in results {
                        self.tell(other.holder, ToWorker::Denied(other.attempt), out);
                    }
                    self.commit(&right, now, out);
                }
                if !confirmed.is_empty() {
                    for key in &confirmed {
                        self.reputations.confirm(*key);
                    }
                    self.record(Record::Confirmed { keys: confirmed }, out);
                }
                for key in liars {
                    self.condemn(key, now, out);
                }
            }
        }
    }

    /// This output counts.
    fn commit(&mut self, commit: &Commit, now: Time, out: &mut Vec<MasterOutput>) {
        let id = commit.attempt.task;
        let (attempt, holder) = (commit.attempt, commit.holder);
        self.record(Record::Committed(commit.clone()), out);
        self.kill_others(id, now, out);
        self.tell(holder, ToWorker::Granted(attempt), out);
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return;
        };
        let refuted = job.task_mut(id).and_then(|t| t.refuted.take());
        if job.publishes(id.kind) {
            out.push(MasterOutput::Publish {
                attempt,
                holder,
                addr: commit.addr.clone(),
                output: commit.output.clone(),
            });
        } else {
            job.list_output(commit);
            if job.maps.all_done() {
                for task in &mut job.reduces.list {
                    for attempt in &mut task.running {
                        attempt.base = (now, attempt.progress.share());
                    }
                }
            }
            let all = job.maps.all_done();
            self.flush_soon(now, all);
            if refuted.is_some_and(|old| old != commit.output.digest) {
                self.redo_reduces(id.job, now, out);
            }
            if refuted.is_some() {
                self.end_if_complete(id.job, now, out);
            }
        }
        self.dirty = true;
    }

    /// A worker says that an attempt failed.
    pub(super) fn on_failed(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        failure: Failure,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let Some(attempt) = self.take_attempt(worker, id, now) else {
            return;
        };
        self.dirty = true;
        let own = self
            .cluster
            .get(worker)
            .is_some_and(|w| w.stranger().is_none());
        let Some(job) = self.jobs.get_mut(&id.task.job) else {
            return;
        };
        // Records are left out on the word of one's own workers alone; what strangers say of them is
        // a failure as any other.
        let skips = own && job.spec.limits.skip_records_max > 0 && failure.blame == Blame::Code;
        let Some(task) = job.task_mut(id.task) else {
            return;
        };
        let mut bad = None;
        if let Some(probe) = attempt.probe.filter(|_| failure.blame == Blame::Code) {
            bad = task.bad.probe_failed(probe, failure.records);
            return self.leave_out(id, bad, now, out);
        }
        if let Some(records) = failure.records.filter(|_| skips) {
            let (searched, found) = task.bad.failed(records);
            bad = found;
            if searched {
                return self.leave_out(id, bad, now, out);
            }
        }
        self.record_failure(id, attempt.host.to_string(), failure, now, out);
        self.leave_out(id, bad, now, out);
    }

    /// A failure that counts.
    pub(super) fn record_failure(
        &mut self,
        id: AttemptId,
        host: String,
        failure: Failure,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let record = Record::Failed {
            attempt: id,
            host,
            failure,
        };
        self.record(record, out);
        let Some(job) = self.jobs.get(&id.task.job) else {
            return;
        };
        let Some(task) = job.task(id.task) else {
            return;
        };
        let limit = job.spec.limits.attempts_max.max(1);
        // A full disk everywhere must end some time, too.
        let over = task.failures >= limit || task.host_failures >= limit.saturating_mul(3);
        if over && task.done.is_none() {
            self.fail_job(id.task, now, out);
        }
    }

    /// The job fails for the first reason for which this task ever failed.
    fn fail_job(&mut self, task: TaskId, now: Time, out: &mut Vec<MasterOutput>) {
        let first = self.jobs.get(&task.job).and_then(|job| job.task(task));
        if let Some((attempt, host, cause)) = first.and_then(|t| t.first_failure.clone()) {
            let outcome = Outcome::Failed {
                attempt,
                host,
                cause,
            };
            self.end_job(task.job, outcome, now, out);
        }
    }

    /// What a search for bad records came to.
    fn leave_out(
        &mut self,
        id: AttemptId,
        bad: Option<RecordRange>,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        self.dirty = true;
        let Some(records) = bad else {
            return;
        };
        let Some(job) = self.jobs.get(&id.task.job).filter(|j| j.is_live()) else {
            return;
        };
        let max = job.spec.limits.skip_records_max;
        if job.skipped_count.saturating_add(records.len()) > max {
            let first = job.task(id.task).and_then(|t| t.first_failure.clone());
            let (attempt, host, mut cause) = first.unwrap_or_else(|| {
                let cause = Failure {
                    what: "bad records".into(),
                    blame: Blame::Code,
                    records: Some(records),
                };
                (id, String::new(), cause)
            });
            cause.what = format!(
                "more than {max} bad records; the last is record {} of {}. {}",
                records.from, id.task, cause.what
            );
            let outcome = Outcome::Failed {
                attempt,
                host,
                cause,
            };
            return self.end_job(id.task.job, outcome, now, out);
        }
        let record = Record::Skipped {
            task: id.task,
            records,
        };
        self.record(record, out);
        self.notice(
            Some(id.task.job),
            format!("record {} of {} is bad and left out", records.from, id.task),
            out,
        );
    }

    /// The driver gave an output its final name.
    pub(super) fn on_published(&mut self, id: AttemptId, now: Time, out: &mut Vec<MasterOutput>) {
        let Some(job) = self.jobs.get(&id.task.job).filter(|j| j.is_live()) else {
            return;
        };
        let done = job.task(id.task).and_then(|t| t.done.as_ref());
        if done.is_none_or(|d| d.commit.attempt != id || d.published) {
            return;
        }
        self.record(Record::Published { attempt: id }, out);
        self.end_if_complete(id.task.job, now, out);
    }

    /// A job is over when all its output has its name and nothing in it rests on a lie.
    pub(super) fn end_if_complete(&mut self, id: JobId, now: Time, out: &mut Vec<MasterOutput>) {
        let job = self.jobs.get(&id).filter(|j| j.is_live());
        if job.is_some_and(|j| j.is_complete() && !j.is_doubtful()) {
            self.end_job(id, Outcome::Succeeded, now, out);
        }
    }

    /// The driver could not.
    pub(super) fn on_publish_failed(
        &mut self,
        id: AttemptId,
        why: &str,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let Some(job) = self.jobs.get(&id.task.job).filter(|j| j.is_live()) else {
            return;
        };
        let done = job.task(id.task).and_then(|t| t.done.as_ref());
        let Some(done) = done.filter(|d| d.commit.attempt == id && !d.published) else {
            return;
        };
        let holder = done.commit.holder;
        let host = done.commit.host.clone();
        let stranger = done.commit.stranger.is_some();
        self.record(Record::Lost { attempt: id }, out);
        self.tell(holder, ToWorker::Denied(id), out);
        if stranger {
            // Somebody else shall make it: who does not hand over what it made may do so again.
            let failure = Failure {
                what: format!("its output could not be had: {why}"),
                blame: Blame::Host,
                records: None,
            };
            self.record_failure(id, host, failure, now, out);
        }
        let text = format!("the output of {id} is lost and made again: {why}");
        self.notice(Some(id.task.job), text, out);
        self.dirty = true;
    }

    /// A job is over.
    pub(super) fn end_job(
        &mut self,
        id: JobId,
        outcome: Outcome,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let record = Record::Ended {
            job: id,
            outcome: outcome.clone(),
            at_us: now.as_micros(),
        };
        self.record(record, out);
        self.live.remove(&id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        for kind in [TaskKind::Map, TaskKind::Reduce] {
            for task in &job.tasks(kind).list {
                for attempt in &task.running {
                    if let Some(worker) = self.cluster.get_mut(attempt.worker) {
                        worker.running_mut(kind).retain(|a| a.task.job != id);
                        worker.idle_since = now;
                    }
                }
            }
        }
        let told: Vec<WorkerId> = job.told.keys().copied().collect();
        job.retire();
        for worker in told {
            self.tell(worker, ToWorker::JobEnd(id), out);
        }
        out.push(MasterOutput::Ended { job: id, outcome });
        self.dirty = true;
    }

    /// Kills what still runs of a task.
    pub(super) fn kill_others(&mut self, id: TaskId, now: Time, out: &mut Vec<MasterOutput>) {
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return;
        };
        let tasks = job.tasks_mut(id.kind);
        let Some(task) = tasks.get_mut(id.index) else {
            return;
        };
        let killed = std::mem::take(&mut task.running);
        tasks.running -= killed.len();
        job.refresh(id.kind, id.index);
        for attempt in killed {
            let attempt_id = AttemptId {
                task: id,
                number: attempt.number,
            };
            if let Some(worker) = self.cluster.get_mut(attempt.worker) {
                worker.running_mut(id.kind).remove(&attempt_id);
                worker.idle_since = now;
            }
            self.tell(attempt.worker, ToWorker::Kill(attempt_id), out);
            self.dirty = true;
        }
    }

    /// Takes a running attempt off a worker and out of its task.
    pub(super) fn take_attempt(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        now: Time,
    ) -> Option<crate::master::task::Attempt> {
        let job = self.jobs.get_mut(&id.task.job).filter(|j| j.is_live())?;
        let tasks = job.tasks_mut(id.task.kind);
        let attempt = tasks.remove(id.task.index, id.number, worker)?;
        if tasks.get(id.task.index)?.launched >= ATTEMPTS_PER_INCARNATION - 1 {
            // Numbers are never used again; a task that used up so many is given up by the next
            // failure.
            if let Some(task) = tasks.get_mut(id.task.index) {
                task.host_failures = u32::MAX;
            }
        }
        job.refresh(id.task.kind, id.task.index);
        if let Some(state) = self.cluster.get_mut(worker) {
            state.running_mut(id.task.kind).remove(&id);
            state.idle_since = now;
        }
        self.dirty = true;
        Some(attempt)
    }

    fn has_committed(&self, worker: WorkerId, id: AttemptId) -> bool {
        let task = self.jobs.get(&id.task.job).and_then(|j| j.task(id.task));
        let done = task.and_then(|t| t.done.as_ref());
        done.is_some_and(|d| d.commit.attempt == id && d.commit.holder == worker)
    }

    /// Says something to a worker if it is connected.
    pub(super) fn tell(&self, worker: WorkerId, message: ToWorker, out: &mut Vec<MasterOutput>) {
        if let Some(link) = self.cluster.get(worker).and_then(|w| w.link) {
            send(link, message, out);
        }
    }
}
