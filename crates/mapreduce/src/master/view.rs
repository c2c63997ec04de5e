//! What people see of a job.

use crate::id::{JobId, TaskKind};
use crate::master::job::Job;
use crate::master::task::{Task, Tasks};
use crate::master::{JobProgress, Master, TaskCounts};
use crate::message::{Counters, Phase};
use shoal_base::Time;

impl Master {
    /// How a job is doing. Looks at every task, so not to be asked more often than people read.
    pub fn progress(&self, now: Time, id: JobId) -> Option<JobProgress> {
        let job = self.jobs.get(&id)?;
        let (outcome, end) = match &job.ended {
            Some((outcome, at)) => (Some(outcome.clone()), *at),
            None => (None, now),
        };
        let elapsed_s = end.since(job.submitted).as_secs_f64();
        let map = share(&job.maps, |task| best(task, |a| a.progress.share()));
        let reduce = share(&job.reduces, |task| best(task, |a| a.progress.share()));
        let shuffle = share(&job.reduces, |task| {
            best(task, |a| match a.progress.phase {
                Phase::Shuffle => a.progress.share() * 3.0,
                Phase::Map | Phase::Reduce => 1.0,
            })
        });
        let whole = match job.reduces.list.is_empty() {
            true => map,
            false => (map + reduce) / 2.0,
        };
        let live = outcome.is_none();
        let eta_s = (live && whole > 0.01).then(|| elapsed_s * (1.0 - whole) / whole);
        Some(JobProgress {
            job: id,
            name: job.spec.name.clone(),
            maps: counts(&job.maps, job.publishes(TaskKind::Map)),
            reduces: counts(&job.reduces, true),
            map,
            shuffle,
            reduce,
            eta_s,
            elapsed_s,
            counters: counters(job),
            failures: job.failures.clone(),
            skipped: job.skipped.clone(),
            hosts_failed: {
                let all = job.host_failures.iter();
                all.map(|(host, n)| (host.to_string(), *n)).collect()
            },
            waiting_for: if live { self.waiting_for(job) } else { None },
            outcome,
        })
    }

    fn waiting_for(&self, job: &Job) -> Option<String> {
        if job.maps.running + job.reduces.running > 0 {
            return None;
        }
        let waiting = job.maps.pending.len() + job.reduces.pending.len();
        if waiting == 0 {
            return Some("the output to get its final name".into());
        }
        if self.cluster.workers.is_empty() {
            return Some(match self.rejoin_until {
                Some(_) => "workers to come back after the restart".into(),
                None => "workers: none has joined".into(),
            });
        }
        if self.cluster.slots() == 0 {
            return Some("slots: no worker has any".into());
        }
        let mut workers = self.cluster.workers.values();
        let strangers = workers.all(|w| w.stranger().is_some());
        if strangers && !job.sandboxed {
            return Some(
                "workers of one's own: strangers run only WebAssembly and built-in jobs".into(),
            );
        }
        if strangers && self.cluster.workers.len() < crate::trust::QUORUM {
            return Some("a second worker to check the first one's results".into());
        }
        let kinds = [TaskKind::Map, TaskKind::Reduce];
        let busy = kinds
            .iter()
            .all(|kind| self.cluster.workers.values().all(|w| w.free(*kind) == 0));
        busy.then(|| "slots: other jobs have them".into())
    }
}

/// The best of the running attempts; 1 for a task that is done.
fn best(task: &Task, of: impl Fn(&crate::master::task::Attempt) -> f64) -> f64 {
    match task.done {
        Some(_) => 1.0,
        None => {
            let whole = task.running.iter().filter(|a| a.probe.is_none());
            whole.map(of).fold(0.0, f64::max).min(1.0)
        }
    }
}

/// The mean over tasks; 1 where there are none, as nothing is left to do.
fn share(tasks: &Tasks, of: impl Fn(&Task) -> f64) -> f64 {
    match tasks.list.len() {
        0 => 1.0,
        count => tasks.list.iter().map(of).sum::<f64>() / count as f64,
    }
}

fn counts(tasks: &Tasks, publishes: bool) -> TaskCounts {
    let mut counts = TaskCounts {
        total: u32::try_from(tasks.list.len()).unwrap_or(u32::MAX),
        ..TaskCounts::default()
    };
    for task in &tasks.list {
        match &task.done {
            Some(done) if done.published || !publishes => counts.done += 1,
            Some(_) => counts.running += 1,
            None if task.running.is_empty() => counts.waiting += 1,
            None => counts.running += 1,
        }
    }
    counts
}

/// The job's counters, and the engine's.
fn counters(job: &Job) -> Counters {
    let mut all = job.counters.clone();
    // What attempts count themselves is `map_output_bytes` and the like, before compression.
    let done = job.maps.list.iter().filter_map(|t| t.done.as_ref());
    let stored = done.map(|d| d.commit.output.bytes);
    let own = [
        ("backup_tasks", job.backups),
        ("bad_records_left_out", job.skipped_count),
        ("failed_attempts", job.failures_count),
        (
            "map_output_stored_bytes",
            stored.fold(0, u64::saturating_add),
        ),
        ("map_tasks_at_their_input", job.local_maps),
        ("outputs_lost", job.lost),
    ];
    for (name, value) in own {
        if value > 0 {
            all.insert(("shoal".into(), name.into()), value);
        }
    }
    all
}
