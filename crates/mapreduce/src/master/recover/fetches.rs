//! Outputs that cannot be fetched, and attempts that stand still: who is to blame.

use crate::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use crate::master::{Master, MasterOutput};
use crate::message::{Blame, Failure, FetchProblem, ToWorker};
use shoal_base::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Workers whose reduce tasks cannot reach a holder, before its outputs count as lost.
const REPORTERS: usize = 2;
/// Reports of the only worker that could report, before it is believed.
const REPORTS_OF_ONE: u32 = 3;
/// Reports are forgotten after this long without another.
const REPORTS_KEPT: Duration = Duration::from_secs(60);

impl Master {
    /// A reduce attempt cannot get map output.
    pub(in crate::master) fn on_fetch_failed(
        &mut self,
        reporter: WorkerId,
        attempt: AttemptId,
        holder: WorkerId,
        (outputs, problem): (Vec<AttemptId>, FetchProblem),
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let job_id = attempt.task.job;
        let Some(job) = self.jobs.get_mut(&job_id).filter(|j| j.is_live()) else {
            return;
        };
        if job
            .task(attempt.task)
            .is_none_or(|t| t.find(attempt.number, reporter).is_none())
        {
            return;
        }
        // Old news: these were replaced, or are known to be lost.
        let current: BTreeSet<_> = outputs
            .into_iter()
            .filter(|output| {
                let done = job.task(output.task).and_then(|t| t.done.as_ref());
                done.is_some_and(|d| d.commit.attempt == *output && d.commit.holder == holder)
            })
            .collect();
        if current.is_empty() {
            return;
        }
        if self.cluster.get(holder).is_none() {
            self.lose_outputs(job_id, |h, _| h == holder, out);
            return;
        }
        let own = self
            .cluster
            .get(reporter)
            .is_some_and(|w| w.stranger().is_none());
        if own && problem != FetchProblem::Unreachable {
            // The holder itself says so, or the bytes do: no second opinion is needed.
            self.lose_outputs(job_id, |_, output| current.contains(&output), out);
            self.blame_host(job_id, holder);
            let text = format!("{} outputs of {holder} are {problem:?}", current.len());
            return self.notice(Some(job_id), text, out);
        }
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return;
        };
        let workers: BTreeSet<WorkerId> = job
            .reduces
            .list
            .iter()
            .flat_map(|t| &t.running)
            .map(|a| a.worker)
            .collect();
        let reports = job.reports.entry(holder).or_default();
        if now.since(reports.last) > REPORTS_KEPT {
            reports.by.clear();
        }
        reports.last = now;
        let count = reports.by.entry(reporter).or_default();
        *count += 1;
        let alone = workers.len() < REPORTERS && *count >= REPORTS_OF_ONE;
        if alone && !own {
            // Its word alone costs nobody but itself; the next one may say the same.
            let what = format!("it alone says that it cannot fetch from {holder}");
            return self.fail_attempt(reporter, attempt, what, Blame::Host, now, out);
        }
        if reports.by.len() >= REPORTERS || alone {
            job.reports.remove(&holder);
            self.lose_outputs(job_id, |h, _| h == holder, out);
            self.blame_host(job_id, holder);
            let text = format!("nobody can fetch from {holder}: its map tasks run again");
            self.notice(Some(job_id), text, out);
        }
    }

    pub(super) fn blame_host(&mut self, job: JobId, worker: WorkerId) {
        if let Some(host) = self.cluster.get(worker).map(|w| w.host.clone())
            && let Some(job) = self.jobs.get_mut(&job)
        {
            *job.host_failures.entry(host).or_default() += 1;
        }
    }

    /// A reduce attempt that alone cannot reach most of the cluster is on a machine that is cut off:
    /// it runs elsewhere.
    pub(in crate::master) fn check_reporters(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        let mut cut_off: Vec<(WorkerId, AttemptId)> = Vec::new();
        for job in self.live_jobs() {
            let holders = job
                .addrs
                .iter()
                .filter(|(id, _)| self.cluster.get(*id).is_some());
            let holders = holders.count();
            let mut alone: std::collections::BTreeMap<WorkerId, usize> = Default::default();
            for reports in job.reports.values() {
                if let [(reporter, count)] = reports.by.iter().collect::<Vec<_>>().as_slice()
                    && **count >= 2
                {
                    *alone.entry(**reporter).or_default() += 1;
                }
            }
            for (reporter, count) in alone {
                if count >= 3 && count * 2 > holders {
                    let attempts = self.cluster.get(reporter).map(|w| &w.reduces);
                    let here = attempts
                        .into_iter()
                        .flatten()
                        .filter(|a| a.task.job == job.id);
                    cut_off.extend(here.map(|a| (reporter, *a)));
                }
            }
        }
        for (worker, attempt) in cut_off {
            if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
                for reports in job.reports.values_mut() {
                    reports.by.remove(&worker);
                }
            }
            let what = "it cannot reach most of the other workers".to_owned();
            self.fail_attempt(worker, attempt, what, Blame::Host, now, out);
        }
    }

    /// Attempts that do not get on are killed.
    pub(in crate::master) fn check_stalled(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
        let mut stalled = Vec::new();
        for job in self.live_jobs() {
            let limit = Duration::from_millis(job.spec.limits.stalled_ms);
            if limit.is_zero() {
                continue;
            }
            let maps_done = job.maps.all_done();
            for kind in [TaskKind::Map, TaskKind::Reduce] {
                if kind == TaskKind::Reduce && !maps_done {
                    continue;
                }
                for (index, task) in job.tasks(kind).iter() {
                    for a in &task.running {
                        if now.since(a.changed.max(a.base.0)) >= limit {
                            let id = TaskId {
                                job: job.id,
                                kind,
                                index,
                            };
                            stalled.push((a.worker, crate::master::task::attempt(id, a.number)));
                        }
                    }
                }
            }
        }
        for (worker, attempt) in stalled {
            let limit = self
                .jobs
                .get(&attempt.task.job)
                .map(|j| j.spec.limits.stalled_ms);
            let seconds = limit.unwrap_or_default() / 1000;
            let what = format!("no progress for {seconds} s");
            // A stranger that sits on a task says nothing about the job's code.
            let stranger = self
                .cluster
                .get(worker)
                .is_some_and(|w| w.stranger().is_some());
            let blame = if stranger { Blame::Host } else { Blame::Code };
            self.fail_attempt(worker, attempt, what, blame, now, out);
        }
    }

    pub(super) fn fail_attempt(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        what: String,
        blame: Blame,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let Some(attempt) = self.take_attempt(worker, id, now) else {
            return;
        };
        self.tell(worker, ToWorker::Kill(id), out);
        let failure = Failure {
            what,
            blame,
            records: None,
        };
        self.record_failure(id, attempt.host.to_string(), failure, now, out);
    }
}
