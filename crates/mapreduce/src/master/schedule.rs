//! Who gets which task: jobs by priority, then fair shares; the emptiest worker first; input that a
//! worker holds before input that nobody holds before input that others hold.

use crate::id::{JobId, TaskId, TaskKind, WorkerId};
use crate::master::cluster::WorkerState;
use crate::master::job::{Job, Told};
use crate::master::task::{ATTEMPTS_PER_INCARNATION, Attempt, Task, attempt};
use crate::master::{Link, Master, MasterOutput};
use crate::message::{Assignment, Progress, ToWorker};
use shoal_base::Time;
use std::collections::BTreeSet;

impl Master {
    /// Hands out all that can be handed out.
    pub(super) fn schedule(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        self.dirty = false;
        self.retry_at = None;
        if self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        for kind in [TaskKind::Map, TaskKind::Reduce] {
            if !self.jobs_waiting(kind).any(|_| true) {
                continue;
            }
            let mut free: BTreeSet<(u64, WorkerId)> = self
                .cluster
                .workers
                .values()
                .filter(|w| w.free(kind) > 0)
                .map(|w| (w.load(kind), w.id))
                .collect();
            while let Some((_, id)) = free.pop_first() {
                let Some(task) = self.pick(kind, id, now) else {
                    continue;
                };
                self.launch(task, id, false, now, out);
                if let Some(worker) = self.cluster.get(id)
                    && worker.free(kind) > 0
                {
                    free.insert((worker.load(kind), id));
                }
                if !self.jobs_waiting(kind).any(|_| true) {
                    break;
                }
            }
        }
    }

    /// Live jobs that want attempts of a kind.
    fn jobs_waiting(&self, kind: TaskKind) -> impl Iterator<Item = &Job> {
        let start = self.config.reduce_start;
        self.live
            .iter()
            .filter_map(|id| self.jobs.get(id))
            .filter(move |job| {
                !job.tasks(kind).pending.is_empty()
                    && (kind == TaskKind::Map || {
                        let (done, all) = (job.maps.done, job.maps.list.len());
                        done == all || (done > 0 && done as f64 >= start * all as f64)
                    })
            })
    }

    /// The task that a worker with a free slot should run.
    fn pick(&mut self, kind: TaskKind, id: WorkerId, now: Time) -> Option<TaskId> {
        let worker = self.cluster.get(id)?;
        let mut jobs: Vec<(i32, usize, JobId)> = self
            .jobs_waiting(kind)
            .map(|job| (-job.spec.priority, job.tasks(kind).running, job.id))
            .collect();
        jobs.sort_unstable();
        let mut wait = false;
        let mut found = None;
        for (_, _, job_id) in jobs {
            let Some(job) = self.jobs.get(&job_id) else {
                continue;
            };
            let index = match kind {
                TaskKind::Map => self.pick_map(job, worker, now, &mut wait),
                TaskKind::Reduce => {
                    let mut pending = job.reduces.pending.iter().copied();
                    pending.find(|index| self.may_run(job, kind, *index, worker))
                }
            };
            if let Some(index) = index {
                found = Some(TaskId {
                    job: job_id,
                    kind,
                    index,
                });
                break;
            }
        }
        if wait && found.is_none() {
            let until = worker.idle_since + self.config.locality_wait;
            self.retry_at = shoal_base::time::earliest(self.retry_at, Some(until));
        }
        found
    }

    fn pick_map(&self, job: &Job, worker: &WorkerState, now: Time, wait: &mut bool) -> Option<u32> {
        let may = |index: &u32| self.may_run(job, TaskKind::Map, *index, worker);
        let first = job.locality.local(worker.id).find(may);
        if let Some(index) = first.or_else(|| job.locality.unheld().find(may)) {
            return Some(index);
        }
        // Delay scheduling (Zaharia and others, EuroSys 2010): whoever holds the input is likely to
        // be free soon, and then nothing has to be moved.
        if now.since(worker.idle_since) < self.config.locality_wait {
            *wait |= job.locality.of_others().next().is_some();
            return None;
        }
        let mut of_others = job.locality.of_others();
        of_others.find(may)
    }

    /// Whether a worker may run a task at all.
    pub(super) fn may_run(
        &self,
        job: &Job,
        kind: TaskKind,
        index: u32,
        worker: &WorkerState,
    ) -> bool {
        let Some(task) = job.tasks(kind).get(index) else {
            return false;
        };
        self.may_take_part(job, task, worker)
            && (!self.shuns(job, task, &worker.host) || !self.has_better(job, task))
    }

    /// Whether the rules let a worker run a task, however often its machine failed.
    fn may_take_part(&self, job: &Job, task: &Task, worker: &WorkerState) -> bool {
        // What a stranger says of bad records is not believed, so it does not look for them either.
        let stranger = worker.stranger();
        let barred = stranger.is_some_and(|key| {
            !job.sandboxed || self.reputations.is_liar(key) || task.bad.probe().is_some()
        });
        !barred && !task.involves(&worker.host, stranger)
    }

    /// A host that failed this task, or this job too often.
    fn shuns(&self, job: &Job, task: &Task, host: &str) -> bool {
        let failed = job.host_failures.get(host).copied().unwrap_or(0);
        failed >= self.config.host_failures_max || task.failed_hosts.iter().any(|h| **h == *host)
    }

    /// Whether somebody on a host that is not shunned could run it: only then can one be choosy. A
    /// mere backup is not worth a host that fails.
    fn has_better(&self, job: &Job, task: &Task) -> bool {
        let backup = !task.is_pending();
        self.cluster.workers.values().any(|w| {
            !self.shuns(job, task, &w.host) && (backup || self.may_take_part(job, task, w))
        })
    }

    /// Starts an attempt.
    pub(super) fn launch(
        &mut self,
        id: TaskId,
        worker: WorkerId,
        backup: bool,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let strangers = self.cluster.has_strangers();
        let Some(state) = self.cluster.workers.get_mut(&worker) else {
            return;
        };
        let Some(link) = state.link else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return;
        };
        let first = self.incarnation.saturating_mul(ATTEMPTS_PER_INCARNATION);
        let maps_done = job.maps.all_done();
        let tasks = job.tasks_mut(id.kind);
        let progress = Progress::new(tasks.first_phase());
        let Some(task) = tasks.get_mut(id.index) else {
            return;
        };
        let number = first.saturating_add(task.launched);
        task.launched += 1;
        let probe = task.bad.probe().filter(|_| !backup);
        let skip = task.bad.skip().to_vec();
        task.running.push(Attempt {
            number,
            worker,
            host: state.host.clone(),
            started: now,
            progress,
            changed: now,
            base: (now, 0.0),
            backup,
            probe,
        });
        tasks.running += 1;
        let attempt = attempt(id, number);
        state.running_mut(id.kind).insert(attempt);
        state.idle_since = now;
        let split = match id.kind {
            TaskKind::Map => job.submission.splits.get(id.index as usize).cloned(),
            TaskKind::Reduce => None,
        };
        if id.kind == TaskKind::Map && job.locality.holds(worker, id.index) {
            job.local_maps += 1;
        }
        job.backups += u64::from(backup);
        job.refresh(id.kind, id.index);
        let info = job.info();
        job.told.entry(worker).or_insert_with(|| {
            send(link, ToWorker::Job(info), out);
            Told::default()
        });
        let assignment = Assignment {
            attempt,
            split: split.unwrap_or_default(),
            skip,
            probe,
            verified: strangers && job.sandboxed,
        };
        send(link, ToWorker::Assign(assignment), out);
        if id.kind == TaskKind::Reduce {
            self.flush_soon(now, maps_done);
        }
    }
}

/// Says something to a worker.
pub(super) fn send(link: Link, message: ToWorker, out: &mut Vec<MasterOutput>) {
    out.push(MasterOutput::Send { link, message });
}
