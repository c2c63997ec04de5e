//! What to do when machines come, go, come back, cannot be fetched from, or lie.

use crate::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use crate::log::Record;
use crate::master::cluster::{SLOTS_MAX, WorkerState};
use crate::master::job::Job;
use crate::master::task::Attempt;
use crate::master::{Link, Master, MasterOutput, Owner};
use crate::message::{Blame, Failure, FetchProblem, Progress, Register, ToWorker};
use crate::split::Holdings;
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
    /// A worker presents itself.
    pub(super) fn on_register(
        &mut self,
        link: Link,
        hello: Register,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let Some(&(owner, _)) = self.cluster.links.get(&link) else {
            return;
        };
        if let Owner::Stranger(key) = owner
            && self.reputations.is_liar(&key)
        {
            return out.push(MasterOutput::Close(link));
        }
        let holds = Holdings::new(hello.holds);
        let id = match self.cluster.by_instance(owner, hello.instance) {
            Some(id) => id,
            None => {
                self.next_worker += 1;
                let id = WorkerId(u64::from(self.incarnation) << 32 | self.next_worker);
                self.cluster.insert(WorkerState {
                    id,
                    instance: hello.instance,
                    owner,
                    host: hello.host.as_str().into(),
                    addr: hello.addr.as_str().into(),
                    slots: hello.slots.min(SLOTS_MAX),
                    holds: Holdings::default(),
                    link: None,
                    heard: now,
                    maps: BTreeSet::new(),
                    reduces: BTreeSet::new(),
                    idle_since: now,
                });
                id
            }
        };
        if let Some(old) = self.cluster.bind(id, link, now) {
            self.cluster.links.remove(&old);
            out.push(MasterOutput::Close(old));
        }
        let (mut go_on, mut keep) = (Vec::new(), Vec::new());
        for attempt in hello.outputs.iter().chain(&hello.running) {
            let finished = hello.outputs.contains(attempt);
            match self.claim(id, *attempt, finished, now, out) {
                Claim::Running if finished => keep.push(*attempt),
                Claim::Running => go_on.push(*attempt),
                Claim::Output => keep.push(*attempt),
                Claim::Nothing => {}
            }
        }
        // What was assigned on a connection that broke may never have arrived.
        let known: BTreeSet<_> = go_on.iter().chain(&keep).copied().collect();
        if let Some(state) = self.cluster.get(id) {
            let all = state.maps.iter().chain(&state.reduces);
            let gone: Vec<_> = all.filter(|a| !known.contains(a)).copied().collect();
            for attempt in gone {
                self.take_attempt(id, attempt, now);
            }
        }
        let welcome = ToWorker::Welcome {
            worker: id,
            heartbeat_ms: millis(self.config.heartbeat),
            lease_ms: millis(self.config.lease),
            go_on: go_on.clone(),
            keep,
        };
        self.tell(id, welcome, out);
        // It is told anew of the jobs it works for, as it may have missed something.
        let mut jobs: BTreeSet<JobId> = go_on.iter().map(|a| a.task.job).collect();
        for job in self.jobs.values_mut().filter(|job| job.is_live()) {
            if job.told.remove(&id).is_some() {
                jobs.insert(job.id);
            }
        }
        for job in jobs {
            if let Some(job) = self.jobs.get_mut(&job).filter(|j| j.is_live()) {
                job.told.insert(id, Default::default());
                let info = ToWorker::Job(job.info());
                self.tell(id, info, out);
            }
        }
        self.flush_soon(now, true);
        self.on_holds(id, holds);
        self.dirty = true;
    }

    /// What a worker that (re)registers says it runs or has.
    fn claim(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        finished: bool,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) -> Claim {
        let Some(state) = self.cluster.get(worker) else {
            return Claim::Nothing;
        };
        let (instance, own) = (state.instance, state.stranger().is_none());
        let (host, addr) = (state.host.clone(), state.addr.to_string());
        let Some(job) = self.jobs.get_mut(&id.task.job).filter(|j| j.is_live()) else {
            return Claim::Nothing;
        };
        let tasks = job.tasks_mut(id.task.kind);
        let first_phase = tasks.first_phase();
        let Some(task) = tasks.get_mut(id.task.index) else {
            return Claim::Nothing;
        };
        if task.find(id.number, worker).is_some() {
            return Claim::Running;
        }
        let is_result = |c: &crate::log::Commit| c.attempt == id && c.instance == instance;
        if let Some(result) = task.results.iter_mut().find(|c| is_result(c)) {
            result.holder = worker;
            result.addr = addr;
            return Claim::Output;
        }
        let done = task.done.as_ref();
        let current = done.filter(|d| is_result(&d.commit));
        if let Some(done) = current.filter(|_| finished) {
            if done.commit.holder != worker || !done.held {
                self.found(id, worker, addr, now, out);
            }
            return Claim::Output;
        }
        if done.is_some() {
            return Claim::Nothing;
        }
        if finished && task.lost.as_ref().is_some_and(|c| is_result(c)) {
            self.found(id, worker, addr, now, out);
            return Claim::Output;
        }
        // Started by an earlier incarnation of this master, whose log does not tell of what only
        // ran. Ours are believed.
        let first = self
            .incarnation
            .saturating_mul(crate::master::task::ATTEMPTS_PER_INCARNATION);
        let elsewhere = task.running.iter().any(|a| a.number == id.number);
        if !own || elsewhere || id.number >= first || task.involves(&host, None) {
            return Claim::Nothing;
        }
        task.running.push(Attempt {
            number: id.number,
            worker,
            host,
            started: now,
            progress: Progress::new(first_phase),
            changed: now,
            base: (now, 0.0),
            backup: false,
            probe: None,
        });
        tasks.running += 1;
        job.refresh(id.task.kind, id.task.index);
        if let Some(state) = self.cluster.get_mut(worker) {
            state.running_mut(id.task.kind).insert(id);
        }
        Claim::Running
    }

    /// Output that counts is where it was not known to be.
    fn found(
        &mut self,
        attempt: AttemptId,
        holder: WorkerId,
        addr: String,
        now: Time,
        out: &mut Vec<MasterOutput>,
    ) {
        let record = Record::Found {
            attempt,
            holder,
            addr,
        };
        self.record(record, out);
        self.kill_others(attempt.task, now, out);
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            let done = job.task(attempt.task).and_then(|t| t.done.as_ref());
            if let Some(commit) = done.map(|d| d.commit.clone()) {
                if job.publishes(attempt.task.kind) {
                    out.push(MasterOutput::Publish {
                        attempt,
                        holder,
                        addr: commit.addr.clone(),
                        output: commit.output,
                    });
                } else {
                    job.list_output(&commit);
                }
            }
            let all = job.maps.all_done();
            self.flush_soon(now, all);
        }
    }

    /// A worker holds (more of) the input.
    pub(super) fn on_holds(&mut self, id: WorkerId, more: Holdings) {
        let Some(worker) = self.cluster.get_mut(id) else {
            return;
        };
        worker.holds.merge(more);
        for job in self.jobs.values_mut().filter(|job| job.is_live()) {
            let splits = &job.submission.splits;
            job.locality
                .add(id, &worker.host, &worker.holds, splits, &job.maps.pending);
        }
        self.dirty = true;
    }

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

    /// A reduce attempt cannot get map output.
    pub(super) fn on_fetch_failed(
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

    fn blame_host(&mut self, job: JobId, worker: WorkerId) {
        if let Some(host) = self.cluster.get(worker).map(|w| w.host.clone())
            && let Some(job) = self.jobs.get_mut(&job)
        {
            *job.host_failures.entry(host).or_default() += 1;
        }
    }

    /// A reduce attempt that alone cannot reach most of the cluster is on a machine that is cut off:
    /// it runs elsewhere.
    pub(super) fn check_reporters(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
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
    pub(super) fn check_stalled(&mut self, now: Time, out: &mut Vec<MasterOutput>) {
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

    fn fail_attempt(
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

enum Claim {
    Running,
    Output,
    Nothing,
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
