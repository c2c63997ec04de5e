//! What a reduce attempt fetches from whom: few requests at a time, each to another holder and for
//! many outputs at once, as many as its credit allows.

use crate::id::{AttemptId, TaskId, TaskKind, WorkerId};
use crate::message::{FetchProblem, JobInfo, MapOutput, MapOutputs, Phase, Progress, ToMaster};
use crate::worker::holders::Holders;
use crate::worker::{FetchRequest, Stage, Worker, WorkerConfig, WorkerOutput};
use shoal_base::time::earliest;
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// More map tasks than any job has; a master that claims more is not believed.
const MAPS_MAX: u32 = 1 << 24;

/// What a worker knows of a job.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) info: JobInfo,
    /// The master's growing list, as it came.
    batches: Vec<Arc<[MapOutput]>>,
    entries: u64,
    /// For each map task, where its latest entry is: one more than the number of the part (0 for no
    /// entry yet), and the place there. Asked for every output that is fetched.
    latest: Vec<(u32, u32)>,
    addrs: BTreeMap<WorkerId, Arc<str>>,
}

impl Known {
    pub(super) fn new(info: JobInfo) -> Self {
        Self {
            info,
            batches: Vec::new(),
            entries: 0,
            latest: Vec::new(),
            addrs: BTreeMap::new(),
        }
    }

    /// The master tells all anew.
    pub(super) fn renew(&mut self, info: JobInfo) {
        self.info = info;
        self.batches.clear();
        self.entries = 0;
        self.latest.clear();
    }

    /// Whether no code in the job could harm the machine.
    pub(super) fn is_sandboxed(&self) -> bool {
        self.info.spec.is_sandboxed()
    }

    /// Where a map task's output is, by the latest news.
    fn latest(&self, map: u32) -> Option<&MapOutput> {
        let (part, place) = self.latest.get(map as usize)?;
        let batch = self.batches.get(part.checked_sub(1)? as usize)?;
        batch.get(*place as usize)
    }

    /// Takes in news; gives the map tasks they are about, or false if something is missing between.
    fn learn(&mut self, news: &MapOutputs) -> Option<Vec<u32>> {
        self.addrs.extend(news.addrs.iter().cloned());
        if news.from > self.entries {
            return None;
        }
        let known = usize::try_from(self.entries - news.from).unwrap_or(usize::MAX);
        let Some(new) = news.entries.get(known..).filter(|new| !new.is_empty()) else {
            return Some(Vec::new());
        };
        let batch: Arc<[MapOutput]> = match known {
            0 => news.entries.clone(),
            _ => new.into(),
        };
        self.latest
            .resize(self.info.maps.min(MAPS_MAX) as usize, (0, 0));
        let part = u32::try_from(self.batches.len() + 1).ok()?;
        let mut maps = Vec::with_capacity(batch.len());
        for (place, entry) in (0_u32..).zip(batch.iter()) {
            let map = entry.attempt.task.index;
            if let Some(latest) = self.latest.get_mut(map as usize) {
                *latest = (part, place);
                maps.push(map);
            }
        }
        self.entries += batch.len() as u64;
        self.batches.push(batch);
        Some(maps)
    }
}

/// Where one map output is on its way to a reduce attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Wanted,
    Asked,
    Here,
}

/// A request under way.
#[derive(Debug)]
struct Request {
    holder: WorkerId,
    waiting: Vec<AttemptId>,
    /// Bytes that each of them probably has.
    each: u64,
}

/// The shuffle of one reduce attempt.
#[derive(Debug)]
pub(super) struct Fetching {
    ways: Vec<Way>,
    missing: u32,
    holders: Holders,
    requests: BTreeMap<u64, Request>,
    complete: bool,
}

impl Fetching {
    /// Nothing if there are more map tasks than can be.
    pub(super) fn new(job: &Known) -> Option<Self> {
        let maps = job.info.maps;
        if maps > MAPS_MAX {
            return None;
        }
        let mut all = Self {
            ways: vec![Way::Wanted; maps as usize],
            missing: maps,
            holders: Holders::default(),
            requests: BTreeMap::new(),
            complete: false,
        };
        for map in 0..maps {
            all.enqueue(map, job);
        }
        Some(all)
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = u64> + '_ {
        self.requests.keys().copied()
    }

    /// The list comes anew.
    pub(super) fn forget_queues(&mut self) {
        self.holders.forget_queues();
    }

    fn enqueue(&mut self, map: u32, job: &Known) {
        let wanted = self.ways.get(map as usize) == Some(&Way::Wanted);
        if let Some(output) = job.latest(map).filter(|_| wanted) {
            self.holders.push(output.holder, map);
        }
    }

    fn set(&mut self, map: u32, way: Way) {
        if let Some(entry) = self.ways.get_mut(map as usize) {
            *entry = way;
        }
    }

    /// The next request, if one is to be made.
    fn next_request(
        &mut self,
        now: Time,
        job: &Known,
        config: &WorkerConfig,
        rng: &mut Rng,
    ) -> Option<Request> {
        let reduces = u64::from(job.info.spec.reduces.max(1));
        loop {
            if self.requests.len() >= config.streams.max(1) as usize {
                return None;
            }
            let under_way: u64 = self
                .requests
                .values()
                .map(|r| r.each.saturating_mul(r.waiting.len() as u64))
                .fold(0, u64::saturating_add);
            let mut credit = config.credit_bytes.saturating_sub(under_way);
            if credit == 0 && !self.requests.is_empty() {
                return None;
            }
            let requests = &self.requests;
            let is_asked = |holder| requests.values().any(|r| r.holder == holder);
            let holder = self.holders.next(now, rng, is_asked)?;
            let ways = &mut self.ways;
            let mut waiting = Vec::new();
            let mut bytes = 0_u64;
            self.holders.drain(holder, |map| {
                let Some(way) = ways.get_mut(map as usize).filter(|w| **w == Way::Wanted) else {
                    return true;
                };
                let Some(output) = job.latest(map).filter(|o| o.holder == holder) else {
                    return true;
                };
                let size = output.bytes / reduces;
                let full = waiting.len() >= config.outputs_per_request.max(1) as usize
                    || (size > credit && !waiting.is_empty());
                if full {
                    return false;
                }
                credit = credit.saturating_sub(size);
                bytes = bytes.saturating_add(size);
                waiting.push(output.attempt);
                *way = Way::Asked;
                true
            });
            if !waiting.is_empty() {
                let each = bytes / waiting.len() as u64;
                return Some(Request {
                    holder,
                    waiting,
                    each,
                });
            }
        }
    }
}

impl Worker {
    /// The master tells where map outputs are.
    pub(super) fn on_outputs(&mut self, now: Time, news: &MapOutputs, out: &mut Vec<WorkerOutput>) {
        let Some(job) = self.jobs.get_mut(&news.job) else {
            return;
        };
        let Some(maps) = job.learn(news) else {
            // Something was missed, which an orderly connection cannot do: start over.
            out.push(WorkerOutput::Disconnect);
            self.line = super::Line::Down(now + self.config.reconnect);
            return;
        };
        let mut attempts = Vec::new();
        for (id, stage) in &mut self.attempts {
            if let Stage::Running {
                fetching: Some(fetching),
                ..
            } = stage
                && id.task.job == news.job
            {
                for map in &maps {
                    fetching.enqueue(*map, job);
                }
                attempts.push(*id);
            }
        }
        for id in attempts {
            self.plan(id, now, out);
        }
    }

    /// Asks for what can be asked for; says when all is here.
    pub(super) fn plan(&mut self, id: AttemptId, now: Time, out: &mut Vec<WorkerOutput>) {
        let Some(Stage::Running {
            fetching: Some(fetching),
            progress,
            told,
        }) = self.attempts.get_mut(&id)
        else {
            return;
        };
        let Some(job) = self.jobs.get(&id.task.job) else {
            return;
        };
        if fetching.missing == 0 {
            if !std::mem::replace(&mut fetching.complete, true) {
                out.push(WorkerOutput::Complete(id));
            }
            return;
        }
        let total = fetching.ways.len() as u64;
        let at = Progress {
            phase: Phase::Shuffle,
            done: total.saturating_sub(u64::from(fetching.missing)),
            total,
        };
        if *progress != at {
            *progress = at;
            *told = false;
        }
        while let Some(request) = fetching.next_request(now, job, &self.config, &mut self.rng) {
            self.next_request += 1;
            let number = self.next_request;
            let outputs = request.waiting.iter().map(|output| {
                let latest = job.latest(output.task.index);
                (*output, latest.map_or([0; 32], |o| o.digest))
            });
            out.push(WorkerOutput::Fetch(FetchRequest {
                request: number,
                attempt: id,
                holder: request.holder,
                addr: job
                    .addrs
                    .get(&request.holder)
                    .map_or_else(String::new, |a| a.to_string()),
                outputs: outputs.collect(),
            }));
            self.requests.insert(number, id);
            fetching.requests.insert(number, request);
        }
        let next = fetching.holders.next_retry(now);
        self.retry_at = earliest(self.retry_at, next);
    }

    /// A pause is over somewhere.
    pub(super) fn retry(&mut self, now: Time, out: &mut Vec<WorkerOutput>) {
        self.retry_at = None;
        let reduces = self.running().filter(|id| id.task.kind == TaskKind::Reduce);
        for id in reduces.collect::<Vec<_>>() {
            self.plan(id, now, out);
        }
    }

    fn fetching(&mut self, request: u64) -> Option<(AttemptId, &mut Fetching)> {
        let id = *self.requests.get(&request)?;
        match self.attempts.get_mut(&id) {
            Some(Stage::Running {
                fetching: Some(fetching),
                ..
            }) => Some((id, fetching)),
            _ => None,
        }
    }

    /// One output came.
    pub(super) fn on_fetched(
        &mut self,
        now: Time,
        request: u64,
        output: AttemptId,
        _bytes: u64,
        out: &mut Vec<WorkerOutput>,
    ) {
        let Some((id, fetching)) = self.fetching(request) else {
            return;
        };
        let Some(asked) = fetching.requests.get_mut(&request) else {
            return;
        };
        let Some(at) = asked.waiting.iter().position(|o| *o == output) else {
            return;
        };
        asked.waiting.remove(at);
        let (holder, over) = (asked.holder, asked.waiting.is_empty());
        fetching.set(output.task.index, Way::Here);
        fetching.missing = fetching.missing.saturating_sub(1);
        fetching.holders.worked(holder);
        if over {
            fetching.requests.remove(&request);
            self.requests.remove(&request);
        }
        self.plan(id, now, out);
    }

    /// Outputs will not come.
    pub(super) fn on_fetch_failed(
        &mut self,
        now: Time,
        request: u64,
        outputs: &[AttemptId],
        problem: FetchProblem,
        out: &mut Vec<WorkerOutput>,
    ) {
        let Some((id, fetching)) = self.fetching(request) else {
            return;
        };
        let Some(asked) = fetching.requests.get_mut(&request) else {
            return;
        };
        let holder = asked.holder;
        let failed: Vec<AttemptId> = match outputs {
            [] => std::mem::take(&mut asked.waiting),
            some => {
                let (failed, left) = asked.waiting.iter().partition(|o| some.contains(o));
                asked.waiting = left;
                failed
            }
        };
        let over = asked.waiting.is_empty();
        if over {
            fetching.requests.remove(&request);
        }
        fetching.holders.failed(holder, now);
        for output in &failed {
            fetching.set(output.task.index, Way::Wanted);
        }
        if over {
            self.requests.remove(&request);
        }
        self.enqueue_again(id, &failed);
        let message = ToMaster::FetchFailed {
            attempt: id,
            holder,
            outputs: failed,
            problem,
        };
        self.say(message, out);
        self.plan(id, now, out);
    }

    fn enqueue_again(&mut self, id: AttemptId, outputs: &[AttemptId]) {
        if let Some(Stage::Running {
            fetching: Some(fetching),
            ..
        }) = self.attempts.get_mut(&id)
            && let Some(job) = self.jobs.get(&id.task.job)
        {
            for TaskId { index, .. } in outputs.iter().map(|o| o.task) {
                fetching.enqueue(index, job);
            }
        }
    }
}
