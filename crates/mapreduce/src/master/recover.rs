//! What to do when machines come, go, come back, cannot be fetched from, or lie.

mod fetches;
mod returning;

use crate::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use crate::log::Record;
use crate::master::cluster::WorkerState;
use crate::master::job::Job;
use crate::master::{Link, Master, MasterOutput};
use crate::message::ToWorker;
use shoal_base::Time;
use std::time::Duration;

impl Master {
    /// A connection ended. Its worker has a moment to come back.
    pub(super) fn on_closed(&mut self, link: Link, now: Time) {
        let worker = self.cluster.by_link(link);
        self.cluster.links.remove(&link);
        if let Some(state) = worker.and_then(|id| self.cluster.get_mut(id))
            && state.link == Some(link)
        {
            state.link = None;
            state.heard = now;
        }
    }

    /// Takes those for dead whose lease is over.
    pub(super) fn check_leases(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        let over = |w: &&WorkerState| {
            let patience = match w.link {
                Some(_) => self.config.lease,
                None => self.config.reconnect,
            };
            now.since(w.heard) >= patience
        };
        let dead: Vec<_> = self
            .cluster
            .workers
            .values()
            .filter(over)
            .map(|w| w.id)
            .collect();
        for id in dead {
            self.lose_worker(id, "it was not heard any more", now, out);
        }
    }

    /// A worker is gone, with all that it ran and held.
    pub(super) fn lose_worker(
        &mut self,
        id: WorkerId,
        why: &str,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let Some(worker) = self.cluster.get(id) else {
            return;
        };
        let running: Vec<_> = worker.maps.iter().chain(&worker.reduces).copied().collect();
        for attempt in running {
            self.take_attempt(id, attempt, now);
        }
        let Some(worker) = self.cluster.remove(id) else {
            return;
        };
        if let Some(link) = worker.link {
            self.cluster.links.remove(&link);
            out.push(MasterOutput::Close(link));
        }
        let live: Vec<JobId> = self.live.iter().copied().collect();
        for job_id in live {
            if let Some(job) = self.jobs.get_mut(&job_id) {
                job.told.remove(&id);
                job.reports.remove(&id);
                job.locality.remove(id, &job.maps.pending);
                forget_results(job, id);
            }
            self.lose_outputs(job_id, |holder, _| holder == id, out);
        }
        let text = format!("{id} on {} is gone: {why}", worker.host);
        self.notice(None, text, out);
        self.dirty = true;
    }

    /// Map tasks whose output is gone run again: those of one holder, or single ones, never all.
    pub(super) fn lose_outputs(
        &mut self,
        job_id: JobId,
        gone: impl Fn(WorkerId, AttemptId) -> bool,
        out: &mut Vec<MasterOutput>,
    ) -> usize {
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return 0;
        };
        let needed = job.needs_map_output();
        let mut lost = Vec::new();
        for task in &mut job.maps.list {
            if let Some(done) = &mut task.done
                && gone(done.commit.holder, done.commit.attempt)
            {
                done.held = false;
                if needed {
                    lost.push(done.commit.attempt);
                }
            }
        }
        for attempt in &lost {
            self.record(Record::Lost { attempt: *attempt }, out);
        }
        self.dirty |= !lost.is_empty();
        lost.len()
    }

    /// A stranger is caught lying: it is shut out, and all it ever committed unseen runs again.
    pub(super) fn condemn(&mut self, key: [u8; 32], now: Time, out: &mut Vec<MasterOutput>) {
        if self.reputations.is_liar(&key) {
            return;
        }
        self.record(Record::Liar { key }, out);
        self.reputations.condemn(key);
        let name = shoal_base::id::to_hex(&key);
        let text =
            format!("stranger {name} lied: it is shut out, what it made unseen is made again");
        self.notice(None, text, out);
        let of_key = |w: &&WorkerState| w.stranger() == Some(&key);
        let machines: Vec<_> = self
            .cluster
            .workers
            .values()
            .filter(of_key)
            .map(|w| w.id)
            .collect();
        for id in machines {
            self.lose_worker(id, "its results are wrong", now, out);
        }
        let live: Vec<JobId> = self.live.iter().copied().collect();
        for id in live {
            self.refute(id, &key, out);
        }
    }

    fn refute(&mut self, job: JobId, key: &[u8; 32], out: &mut Vec<MasterOutput>) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let mut lost = Vec::new();
        for tasks in [&mut job.maps, &mut job.reduces] {
            for task in &mut tasks.list {
                let is_his =
                    |c: &crate::log::Commit| c.stranger.as_ref() == Some(key) && !c.verified;
                if let Some(done) = task.done.as_ref().filter(|d| is_his(&d.commit)) {
                    task.refuted = Some(done.commit.output.digest);
                    lost.push(done.commit.attempt);
                } else if let Some(old) = task.lost.take_if(|c| is_his(c)) {
                    // Lost before he was caught, perhaps a moment ago: reduce tasks have used it.
                    task.refuted = Some(old.output.digest);
                }
            }
        }
        for attempt in lost {
            self.record(Record::Lost { attempt }, out);
            if let Some(job) = self.jobs.get_mut(&attempt.task.job)
                && let Some(task) = job.task_mut(attempt.task)
            {
                // Never to be found again.
                task.lost = None;
            }
        }
        self.dirty = true;
    }

    /// Map output was not what reduce tasks were given: they run again.
    pub(super) fn redo_reduces(&mut self, id: JobId, now: Time, out: &mut Vec<MasterOutput>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let mut lost = Vec::new();
        let mut running = Vec::new();
        for (index, task) in job.reduces.iter() {
            if let Some(done) = &task.done {
                lost.push((done.commit.holder, done.commit.attempt));
            }
            for r in &task.results {
                lost.push((r.holder, r.attempt));
            }
            if !task.running.is_empty() {
                running.push(TaskId {
                    job: id,
                    kind: TaskKind::Reduce,
                    index,
                });
            }
        }
        for (holder, attempt) in lost {
            self.record(Record::Lost { attempt }, out);
            self.tell(holder, ToWorker::Denied(attempt), out);
        }
        for task in running {
            self.kill_others(task, now, out);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            for index in 0..job.spec.reduces {
                if let Some(task) = job.reduces.get_mut(index) {
                    task.results.clear();
                    task.lost = None;
                    task.wanted = 1;
                }
                job.refresh(TaskKind::Reduce, index);
            }
        }
        let text = "a map result was wrong: the reduce tasks that used it run again";
        self.notice(Some(id), text.to_owned(), out);
        self.dirty = true;
    }
}

/// Results that wait for a verdict are of no use without their output.
fn forget_results(job: &mut Job, holder: WorkerId) {
    for kind in [TaskKind::Map, TaskKind::Reduce] {
        for index in (0..).take(job.tasks(kind).list.len()) {
            if let Some(task) = job.tasks_mut(kind).get_mut(index) {
                let before = task.results.len();
                task.results.retain(|r| r.holder != holder);
                if task.results.len() != before {
                    job.refresh(kind, index);
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
