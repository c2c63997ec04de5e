//! A master on a desk: tests speak for every worker and for the driver, and read all that it says.

use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind, WorkerId};
use shoal_mapreduce::job::{Code, JobSpec};
use shoal_mapreduce::master::{
    Link, Master, MasterConfig, MasterInput, MasterOutput, Outcome, Owner,
};
use shoal_mapreduce::message::{
    Assignment, Blame, Counters, Failure, FetchProblem, MapOutput, Phase, Progress, RecordRange,
    Register, TaskOutput, ToMaster, ToWorker,
};
use shoal_mapreduce::split::{Holding, InputRange, Split, Submission};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A job of so many maps of 100 bytes and so many reduces.
pub(crate) fn job(maps: u64, reduces: u32) -> Submission {
    let spec = JobSpec {
        name: "test".into(),
        inputs: vec!["in".into()],
        output: "out".into(),
        reducer: (reduces > 0).then_some(Code::Identity),
        reduces,
        ..JobSpec::default()
    };
    let split = |i: u64| Split {
        parts: vec![InputRange {
            file: "in".into(),
            offset: i * 100,
            len: 100,
            input: 0,
        }],
        hosts: vec![],
    };
    Submission {
        spec,
        splits: (0..maps).map(split).collect(),
        cuts: vec![],
    }
}

/// What a worker holds: the splits of `job` with these numbers.
pub(crate) fn holding(splits: &[u64]) -> Vec<Holding> {
    let ranges = splits.iter().map(|i| (i * 100, i * 100 + 100)).collect();
    vec![Holding {
        file: "in".into(),
        ranges,
    }]
}

/// The other end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    pub(crate) host: String,
    pub(crate) instance: u64,
    pub(crate) worker: Option<WorkerId>,
    /// Assigned and neither finished, failed nor killed.
    pub(crate) running: Vec<Assignment>,
    pub(crate) outputs: BTreeMap<TaskId, MapOutput>,
    pub(crate) heard: Vec<ToWorker>,
}

/// A master, everybody it talks to, and its log.
pub(crate) struct Desk {
    pub(crate) master: Master,
    pub(crate) now: Time,
    pub(crate) log: Vec<u8>,
    pub(crate) seats: BTreeMap<Link, Seat>,
    pub(crate) closed: BTreeSet<Link>,
    pub(crate) publish: Vec<AttemptId>,
    pub(crate) ended: Vec<(JobId, Outcome)>,
    pub(crate) notices: Vec<String>,
    /// Every assignment ever made.
    pub(crate) assigned: Vec<(Link, AttemptId)>,
    /// Publishes at once what is asked for.
    pub(crate) publishes: bool,
    next: u64,
    config: MasterConfig,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(MasterConfig::default())
    }

    pub(crate) fn with(config: MasterConfig) -> Self {
        Self {
            master: Master::new(config.clone(), Rng::from_seed(1)),
            now: Time::from_secs(1000),
            log: Vec::new(),
            seats: BTreeMap::new(),
            closed: BTreeSet::new(),
            publish: Vec::new(),
            ended: Vec::new(),
            notices: Vec::new(),
            assigned: Vec::new(),
            publishes: true,
            next: 0,
            config,
        }
    }

    pub(crate) fn give(&mut self, input: MasterInput) {
        let mut out = Vec::new();
        self.master.handle(self.now, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<MasterOutput>) {
        let mut published = Vec::new();
        for output in out {
            match output {
                MasterOutput::Append(bytes) => self.log.extend(bytes),
                MasterOutput::Accepted { .. } => {}
                MasterOutput::Send { link, message } => {
                    assert!(!self.closed.contains(&link), "said on a closed connection");
                    self.hear(link, message);
                }
                MasterOutput::Close(link) => {
                    self.closed.insert(link);
                }
                MasterOutput::Publish { attempt, .. } => {
                    self.publish.push(attempt);
                    published.push(attempt);
                }
                MasterOutput::Ended { job, outcome } => self.ended.push((job, outcome)),
                MasterOutput::Notice { text, .. } => self.notices.push(text),
            }
        }
        if self.publishes {
            for attempt in published {
                self.give(MasterInput::Published { attempt });
            }
        }
    }

    fn hear(&mut self, link: Link, message: ToWorker) {
        let seat = self.seats.get_mut(&link).expect("a connection that exists");
        match &message {
            ToWorker::Welcome { worker, .. } => seat.worker = Some(*worker),
            ToWorker::Assign(assignment) => {
                self.assigned.push((link, assignment.attempt));
                seat.running.push(assignment.clone());
            }
            ToWorker::Kill(id) => seat.running.retain(|a| a.attempt != *id),
            ToWorker::JobEnd(job) => seat.running.retain(|a| a.attempt.task.job != *job),
            ToWorker::Outputs(news) => {
                for entry in news.entries.iter() {
                    seat.outputs.insert(entry.attempt.task, entry.clone());
                }
            }
            _ => {}
        }
        seat.heard.push(message);
    }

    pub(crate) fn submit(&mut self, submission: Submission) -> JobId {
        self.give(MasterInput::Submit {
            token: 7,
            submission: Box::new(submission),
        });
        self.master.jobs().last().expect("it was taken on")
    }

    pub(crate) fn connect(&mut self, owner: Owner) -> Link {
        self.next += 1;
        let link = Link(self.next);
        self.seats.insert(link, Seat::default());
        self.give(MasterInput::Connected { link, owner });
        link
    }

    pub(crate) fn hello(&mut self, link: Link, hello: Register) {
        let seat = self.seats.get_mut(&link).expect("connected");
        seat.host.clone_from(&hello.host);
        seat.instance = hello.instance;
        self.say(link, ToMaster::Register(hello));
    }

    /// One of ours joins with so many slots and parts of the input.
    pub(crate) fn join_with(&mut self, host: &str, slots: u32, holds: Vec<Holding>) -> Link {
        let link = self.connect(Owner::Own);
        self.hello(link, register(link.0, host, slots, holds));
        link
    }

    pub(crate) fn join(&mut self, host: &str) -> Link {
        self.join_with(host, 1, vec![])
    }

    pub(crate) fn stranger(&mut self, key: u8) -> Link {
        let link = self.connect(Owner::Stranger([key; 32]));
        self.hello(link, register(link.0, &format!("stranger{key}"), 1, vec![]));
        link
    }

    pub(crate) fn say(&mut self, link: Link, message: ToMaster) {
        self.give(MasterInput::Message { link, message });
    }

    /// Lets time pass; everybody but those named stays silent says that it lives.
    pub(crate) fn wait(&mut self, seconds: u64, silent: &[Link]) {
        for _ in 0..seconds * 4 {
            self.now += Duration::from_millis(250);
            let all: Vec<_> = self.seats.keys().copied().collect();
            for link in all {
                if !silent.contains(&link) && !self.closed.contains(&link) {
                    self.say(
                        link,
                        ToMaster::Heartbeat {
                            sequence: 1,
                            progress: vec![],
                        },
                    );
                }
            }
            while self.master.deadline().is_some_and(|at| at <= self.now) {
                let before = self.master.deadline();
                self.give(MasterInput::Tick);
                assert_ne!(before, self.master.deadline(), "a tick moves the deadline");
            }
        }
    }

    pub(crate) fn running(&self, link: Link) -> Vec<AttemptId> {
        let seat = self.seats.get(&link).expect("a connection that exists");
        seat.running.iter().map(|a| a.attempt).collect()
    }

    pub(crate) fn only(&self, link: Link) -> AttemptId {
        match self.running(link).as_slice() {
            [only] => *only,
            other => panic!("one attempt expected, {other:?} run"),
        }
    }

    pub(crate) fn only_map(&self, link: Link) -> AttemptId {
        let maps = self.running(link);
        let mut maps = maps.iter().filter(|a| a.task.kind == TaskKind::Map);
        *maps.next().expect("a map runs")
    }

    pub(crate) fn only_reduce(&self, link: Link) -> AttemptId {
        let all = self.running(link);
        let mut reduces = all.iter().filter(|a| a.task.kind == TaskKind::Reduce);
        *reduces.next().expect("a reduce runs")
    }

    pub(crate) fn finish(&mut self, link: Link, attempt: AttemptId) {
        self.finish_as(link, attempt, 1);
    }

    /// An attempt is through with output of this digest.
    pub(crate) fn finish_as(&mut self, link: Link, attempt: AttemptId, digest: u8) {
        self.finish_counting(link, attempt, digest, 1);
    }

    /// The same, having counted so much.
    pub(crate) fn finish_counting(
        &mut self,
        link: Link,
        attempt: AttemptId,
        digest: u8,
        count: u64,
    ) {
        let seat = self.seats.get_mut(&link).expect("connected");
        seat.running.retain(|a| a.attempt != attempt);
        let mut counters = Counters::new();
        counters.insert(("test".into(), "finished".into()), count);
        let output = TaskOutput {
            bytes: 10,
            records: 1,
            digest: [digest; 32],
            place: String::new(),
        };
        self.say(
            link,
            ToMaster::Finished {
                attempt,
                output,
                counters,
            },
        );
    }

    pub(crate) fn fail(&mut self, link: Link, attempt: AttemptId, records: Option<(u64, u64)>) {
        let failure = Failure {
            what: format!("{attempt} crashed"),
            blame: Blame::Code,
            records: records.map(|(from, to)| RecordRange { from, to }),
        };
        let seat = self.seats.get_mut(&link).expect("connected");
        seat.running.retain(|a| a.attempt != attempt);
        self.say(link, ToMaster::Failed { attempt, failure });
    }

    pub(crate) fn fetch_failed(
        &mut self,
        link: Link,
        attempt: AttemptId,
        output: &MapOutput,
        problem: FetchProblem,
    ) {
        self.say(
            link,
            ToMaster::FetchFailed {
                attempt,
                holder: output.holder,
                outputs: vec![output.attempt],
                problem,
            },
        );
    }

    pub(crate) fn progress(&mut self, link: Link, attempt: AttemptId, phase: Phase, percent: u64) {
        let progress = Progress {
            phase,
            done: percent,
            total: 100,
        };
        self.say(
            link,
            ToMaster::Heartbeat {
                sequence: 1,
                progress: vec![(attempt, progress)],
            },
        );
    }

    /// Something that could be through: a reduce needs to know where all its input is.
    pub(crate) fn next_ready(&self) -> Option<(Link, AttemptId)> {
        let open = self
            .seats
            .iter()
            .filter(|(link, _)| !self.closed.contains(link));
        for (link, seat) in open {
            for assignment in &seat.running {
                let id = assignment.attempt;
                let known = seat.outputs.keys().filter(|t| t.job == id.task.job).count();
                let all = self.master.submission(id.task.job).map(|s| s.splits.len());
                if id.task.kind == TaskKind::Map || Some(known) == all {
                    return Some((*link, id));
                }
            }
        }
        None
    }

    /// Finishes whatever anybody runs until nothing runs any more.
    pub(crate) fn finish_all(&mut self) {
        for _ in 0..10_000 {
            let next = self.next_ready();
            let Some((link, attempt)) = next else {
                return;
            };
            self.finish(link, attempt);
        }
        panic!("it never ends");
    }

    pub(crate) fn drop_link(&mut self, link: Link) {
        self.closed.insert(link);
        self.give(MasterInput::Closed(link));
    }

    /// The master dies and another goes on from the first `keep` bytes of its log.
    pub(crate) fn restart(&mut self, keep: usize) {
        self.log.truncate(keep);
        let all: Vec<_> = self.seats.keys().copied().collect();
        self.closed.extend(all);
        let mut out = Vec::new();
        let rng = Rng::from_seed(2);
        let (master, resumed) =
            Master::resume(self.config.clone(), rng, &self.log, self.now, &mut out)
                .expect("a log of ours");
        self.log.truncate(resumed.valid);
        self.master = master;
        self.take(out);
    }

    pub(crate) fn attempts_of(&self, kind: TaskKind, index: u32) -> usize {
        let of = |id: &AttemptId| id.task.kind == kind && id.task.index == index;
        self.assigned.iter().filter(|(_, id)| of(id)).count()
    }
}

pub(crate) fn register(instance: u64, host: &str, slots: u32, holds: Vec<Holding>) -> Register {
    Register {
        instance,
        host: host.into(),
        addr: format!("{host}:1"),
        slots,
        holds,
        outputs: vec![],
        running: vec![],
    }
}
