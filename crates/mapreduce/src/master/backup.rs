//! Backup tasks, as LATE has them (Zaharia and others, OSDI 2008): of the tasks that are slower than
//! most, the one with the longest time left first, on another machine that is not slow itself, and
//! never more than a share of all slots at once. Quick tasks get none.

use crate::id::{JobId, TaskId, TaskKind, WorkerId};
use crate::master::job::Job;
use crate::master::task::{ATTEMPTS_PER_INCARNATION, Attempt, Tasks};
use crate::master::{Master, MasterOutput};
use shoal_base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Share of the attempts, by pace, that count as slow; the same share of hosts gets no backups.
const SLOW_SHARE: f64 = 0.25;
/// Among fewer hosts nobody is called slow.
const HOSTS_MIN: usize = 4;

impl Master {
    /// Starts the backup tasks that are worth it.
    pub(super) fn back_up(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        let slots = self.cluster.slots();
        let cap = ((slots as f64 * self.config.backup_share) as usize).max(1);
        for kind in [TaskKind::Map, TaskKind::Reduce] {
            let mut running: usize = self.live_jobs().map(|job| backups(job, kind)).sum();
            let mut found: Vec<(f64, TaskId)> = Vec::new();
            for job in self.live_jobs() {
                let idle = job.tasks(kind).pending.is_empty()
                    && (kind == TaskKind::Map || job.maps.all_done());
                if job.spec.speculative && idle {
                    self.slow_tasks(job, kind, now, &mut found);
                }
            }
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut free = self.free_slots(kind);
            let mut slow: BTreeMap<JobId, BTreeSet<Arc<str>>> = BTreeMap::new();
            for (_, id) in found {
                if running >= cap || free == 0 {
                    break;
                }
                let slow = slow.entry(id.job).or_insert_with(|| {
                    let job = self.jobs.get(&id.job);
                    job.map(|job| slow_hosts(job.tasks(kind)))
                        .unwrap_or_default()
                });
                if let Some(worker) = self.backup_worker(id, slow) {
                    self.launch(id, worker, true, now, out);
                    running += 1;
                    free -= 1;
                }
            }
        }
    }

    /// Tasks that deserve a backup, with the seconds they seem to need yet.
    fn slow_tasks(&self, job: &Job, kind: TaskKind, now: Time, found: &mut Vec<(f64, TaskId)>) {
        let tasks = job.tasks(kind);
        let mut paces: Vec<f64> = Vec::new();
        let mut single: Vec<(u32, &Attempt)> = Vec::new();
        for (index, task) in tasks.iter() {
            if task.done.is_some() {
                continue;
            }
            paces.extend(task.running.iter().filter_map(|a| a.pace(now)));
            if let [only] = task.running.as_slice()
                && only.probe.is_none()
                && task.wanted == 1
                && task.launched < ATTEMPTS_PER_INCARNATION - 1
                && now.since(only.base.0) >= self.config.backup_after
            {
                single.push((index, only));
            }
        }
        if single.is_empty() {
            return;
        }
        // Attempts that are through have shown what a usual pace is.
        let mean_s = tasks.mean_s();
        if let Some(mean_s) = mean_s.filter(|s| *s > 0.0) {
            paces.extend(std::iter::repeat_n(1.0 / mean_s, tasks.done.min(10_000)));
        }
        paces.sort_by(f64::total_cmp);
        let slow = paces
            .get((paces.len() as f64 * SLOW_SHARE) as usize)
            .copied()
            .unwrap_or(0.0);
        for (index, attempt) in single {
            let pace = attempt.pace(now).unwrap_or(0.0);
            let left = 1.0 - attempt.progress.share();
            let by_pace = if pace > 0.0 {
                left / pace
            } else {
                f64::INFINITY
            };
            // An attempt that stands still, also one that has taken in all its input and is not
            // through, will likely do so for as long again.
            let stands_s = now.since(attempt.changed.max(attempt.base.0)).as_secs_f64();
            let left_s = by_pace.max(stands_s);
            // Not worth it if the original will be through before a backup could be.
            let worth = match mean_s {
                Some(mean_s) => left_s > mean_s,
                None => left_s > now.since(attempt.base.0).as_secs_f64(),
            };
            if pace <= slow && worth && left_s >= 1.0 {
                let id = TaskId {
                    job: job.id,
                    kind,
                    index,
                };
                found.push((left_s, id));
            }
        }
    }

    /// The emptiest worker that may run a backup, if its host is not among the slow.
    fn backup_worker(&self, id: TaskId, slow: &BTreeSet<Arc<str>>) -> Option<WorkerId> {
        let job = self.jobs.get(&id.job)?;
        self.cluster
            .workers
            .values()
            .filter(|w| w.free(id.kind) > 0 && !slow.contains(&w.host))
            .filter(|w| self.may_run(job, id.kind, id.index, w))
            .min_by_key(|w| {
                let holds = id.kind == TaskKind::Map && job.locality.holds(w.id, id.index);
                (!holds, w.load(id.kind), w.id)
            })
            .map(|w| w.id)
    }

    fn free_slots(&self, kind: TaskKind) -> u64 {
        let workers = self.cluster.workers.values();
        workers.map(|w| u64::from(w.free(kind))).sum()
    }

    /// Jobs that are not over.
    pub(super) fn live_jobs(&self) -> impl Iterator<Item = &Job> {
        self.live.iter().filter_map(|id| self.jobs.get(id))
    }
}

fn backups(job: &Job, kind: TaskKind) -> usize {
    let running = job.tasks(kind).list.iter().flat_map(|t| &t.running);
    running.filter(|a| a.backup).count()
}

/// Hosts whose attempts take longest, if there are enough to tell.
fn slow_hosts(tasks: &Tasks) -> BTreeSet<Arc<str>> {
    let mut means: Vec<_> = tasks.by_host.iter().map(|(h, (s, n))| (s / n, h)).collect();
    if means.len() < HOSTS_MIN {
        return BTreeSet::new();
    }
    means.sort_by(|a, b| b.0.total_cmp(&a.0));
    let median = means.get(means.len() / 2).map_or(0.0, |(s, _)| *s);
    let count = (means.len() as f64 * SLOW_SHARE) as usize;
    // Only those that are slower by much: among equals somebody is always last.
    let slow = means
        .into_iter()
        .take(count)
        .filter(|(s, _)| *s > median * 1.5);
    slow.map(|(_, host)| host.clone()).collect()
}
