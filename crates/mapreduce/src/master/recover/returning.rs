//! A worker that comes, or comes back: what it still runs and holds is taken for the jobs.

use super::millis;
use crate::id::{AttemptId, JobId, WorkerId};
use crate::log::Record;
use crate::master::cluster::{SLOTS_MAX, WorkerState};
use crate::master::task::Attempt;
use crate::master::{Link, Master, MasterOutput, Owner};
use crate::message::{Progress, Register, ToWorker};
use crate::split::Holdings;
use shoal_base::Time;
use std::collections::BTreeSet;

impl Master {
    /// A worker presents itself.
    pub(in crate::master) fn on_register(
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
    pub(super) fn claim(
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
    pub(super) fn found(
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
    pub(in crate::master) fn on_holds(&mut self, id: WorkerId, more: Holdings) {
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
}

pub(super) enum Claim {
    Running,
    Output,
    Nothing,
}
