//! MapReduce: the real master and worker cores on a virtual cluster whose machines die, stall, lie and
//! are cut off, with a checker outside that knows what the output must be.
//!
//! What is real: [`shoal_mapreduce::master::Master`], [`shoal_mapreduce::worker::Worker`], the
//! execution log on a disk that forgets and tears what was not synced. What is modelled: how long a
//! task takes, and bulk data, which shares each machine's line in both directions. Of a partition of
//! map output only a sum of its records travels; the sum over all maps is the reduce task's output.

pub mod faults;
mod hand;
mod head;
pub mod paper;
mod timers;

use crate::digest::mix;
use crate::experiment::BadOptions;
use crate::link::{Delay, Links};
use crate::space::Direct;
use crate::world::{Context, Process, World};
use crate::{Digest, rng_for};
use hand::Hand;
use head::Head;
use shoal_base::{Rng, Time};
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec};
use shoal_mapreduce::log::{Reader, Record};
use shoal_mapreduce::master::{MasterConfig, Outcome};
use shoal_mapreduce::message::{ToMaster, ToWorker};
use shoal_mapreduce::split::{Holding, InputRange, Split, Submission};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The master's number.
const MASTER: u32 = 0;

/// A job and the machines for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Worker machines; each has a map slot and a reduce slot.
    pub workers: u32,
    /// Map tasks.
    pub maps: u32,
    /// Reduce tasks.
    pub reduces: u32,
    /// Seconds of a map task on a usual machine.
    pub map_s: f64,
    /// Seconds of a reduce task after its shuffle.
    pub reduce_s: f64,
    /// Bytes that one map task puts out.
    pub map_bytes: u64,
    /// Bytes a second of a machine's line, each way.
    pub rate: f64,
    /// Copies of each split among the machines.
    pub replicas: u32,
    /// Seconds that a map task takes longer away from its input.
    pub remote_s: f64,
    /// Machines that are this many times slower than usual.
    pub stragglers: Vec<(u32, f64)>,
    /// Whether the job asks for backup tasks.
    pub speculative: bool,
    /// A record at which map code crashes: map task and number.
    pub poison: Option<(u32, u64)>,
    /// Machines of strangers: all, or none.
    pub strangers: bool,
}

/// Records of one partition of one map output.
fn value(map: u32, partition: u32) -> u64 {
    mix(u64::from(map) + 1, u64::from(partition) + 1) >> 16
}

/// Records in a map task's input that code reads one by one.
const RECORDS: u64 = 1000;

impl Model {
    /// What a reduce task must put out.
    fn truth(&self, partition: u32) -> u64 {
        (0..self.maps).fold(0, |sum: u64, map| sum.wrapping_add(value(map, partition)))
    }

    fn holders(&self, map: u32) -> impl Iterator<Item = u32> + '_ {
        // Neighbouring copies, so that machines hold equally many.
        let spread = (self.workers / self.replicas.max(1)).max(1);
        (0..self.replicas).map(move |copy| 1 + (map + copy * spread) % self.workers)
    }

    fn holding(&self, node: u32) -> Vec<Holding> {
        let mine = (0..self.maps).filter(|map| self.holders(*map).any(|n| n == node));
        let ranges: Vec<_> = mine.map(|m| (u64::from(m), u64::from(m) + 1)).collect();
        match ranges.is_empty() {
            true => Vec::new(),
            false => vec![Holding {
                file: "input".into(),
                ranges,
            }],
        }
    }

    fn submission(&self) -> Submission {
        let mut spec = JobSpec {
            name: "simulated".into(),
            reducer: Some(Code::Identity),
            reduces: self.reduces,
            speculative: self.speculative,
            ..JobSpec::default()
        };
        spec.limits.skip_records_max = u64::from(self.poison.is_some());
        let split = |map: u32| Split {
            parts: vec![InputRange {
                file: "input".into(),
                offset: map.into(),
                len: 1,
                input: 0,
            }],
            hosts: Vec::new(),
        };
        Submission {
            spec,
            splits: (0..self.maps).map(split).collect(),
            cuts: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), BadOptions> {
        let bad = |why: &str| Err(BadOptions(why.to_owned()));
        if self.workers == 0 || self.reduces == 0 || self.maps == 0 {
            return bad("a job needs workers, map tasks and reduce tasks");
        }
        if self.workers > 100_000 || self.maps > 1_000_000 || self.reduces > 100_000 {
            return bad("too many: at most 100,000 workers, a million maps, 100,000 reduces");
        }
        Ok(())
    }
}

/// What travels.
#[derive(Debug, Clone)]
enum Message {
    Open(u64),
    Opened(u64),
    Reset(u64),
    Up(u64, Box<ToMaster>),
    Down(u64, Box<ToWorker>),
    /// Please send this partition of these outputs.
    Fetch {
        request: u64,
        partition: u32,
        outputs: Vec<AttemptId>,
    },
    /// Those that are there (with the sum of their records, nothing if the checksum is wrong), and
    /// those that are not.
    Data {
        request: u64,
        there: Vec<(AttemptId, Option<u64>)>,
        missing: Vec<AttemptId>,
        bytes: u64,
    },
    /// Are you still at it?
    Probe(u64),
    Alive(u64),
    /// No, and nothing will come: the process that was asked is not there any more.
    Gone(u64),
}

/// A machine.
#[derive(Debug)]
enum Node {
    Head(Box<Head>),
    Hand(Box<Hand>),
}

/// What the checker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Ended(Outcome),
    /// A rule was broken.
    Violation(String),
}

impl Process for Node {
    type Space = Direct;
    type Message = Message;
    type Event = Event;

    fn on_start(&mut self, ctx: &mut Context<'_, Self>) {
        match self {
            Self::Head(head) => head.on_start(ctx),
            Self::Hand(hand) => hand.on_start(ctx),
        }
    }

    fn on_message(&mut self, ctx: &mut Context<'_, Self>, from: u32, message: Message) {
        match self {
            Self::Head(head) => head.on_message(ctx, from, message),
            Self::Hand(hand) => hand.on_message(ctx, from, message),
        }
    }

    fn on_tick(&mut self, ctx: &mut Context<'_, Self>) {
        match self {
            Self::Head(head) => head.on_tick(ctx),
            Self::Hand(hand) => hand.on_tick(ctx),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Head(head) => head.deadline(),
            Self::Hand(hand) => hand.deadline(),
        }
    }
}

/// How a job looks at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at_s: f64,
    map: f64,
    shuffle: f64,
    reduce: f64,
    workers: usize,
}

/// A cluster that runs one job.
struct Cluster {
    world: World<Node>,
    model: Arc<Model>,
    config: MasterConfig,
    seed: u64,
    /// Processes started, so that each has a number of its own.
    started: u64,
    ended: Option<(Time, Outcome)>,
    violations: Vec<String>,
}

impl Cluster {
    fn new(model: Model, seed: u64) -> Self {
        let links = Links {
            delay: Delay::Uniform {
                low_us: 100,
                high_us: 1000,
            },
            ..Links::default()
        };
        let model = Arc::new(model);
        let mut all = Self {
            world: World::new(seed, Direct, links),
            config: MasterConfig::default(),
            seed,
            started: 0,
            ended: None,
            violations: Vec::new(),
            model,
        };
        let rng = all.fresh_rng();
        let head = Head::new(all.model.clone(), all.config.clone(), rng);
        all.world.add(Node::Head(Box::new(head)));
        for node in 1..=all.model.workers {
            let hand = all.hand(node);
            all.world.add(hand);
        }
        for node in 0..=all.model.workers {
            all.world.start(node);
        }
        let submission = all.model.submission();
        all.world.call(MASTER, |node, ctx| {
            if let Node::Head(head) = node {
                head.submit(ctx, submission);
            }
        });
        all
    }

    fn fresh_rng(&mut self) -> Rng {
        self.started += 1;
        rng_for(self.seed, 1_000_000 + self.started)
    }

    fn hand(&mut self, node: u32) -> Node {
        let rng = self.fresh_rng();
        let instance = self.started;
        Node::Hand(Box::new(Hand::new(self.model.clone(), node, instance, rng)))
    }

    /// Runs until a time; hears what is told.
    fn run_until(&mut self, until: Time) {
        let (ended, violations) = (&mut self.ended, &mut self.violations);
        self.world.run_until(until, |at, _, event| match event {
            Event::Ended(outcome) => *ended = Some((at, outcome)),
            Event::Violation(what) => violations.push(what),
        });
    }

    fn head(&self) -> &Head {
        match self.world.node(MASTER) {
            Node::Head(head) => head,
            Node::Hand(_) => unreachable!("the first node is the master"),
        }
    }

    /// A worker process dies. `told`: the machine's kernel resets its connections.
    fn kill(&mut self, node: u32, told: bool) {
        self.world.crash(node);
        if told {
            self.world.call(MASTER, |master, ctx| {
                if let Node::Head(head) = master {
                    head.reset_all(ctx, node);
                }
            });
        }
    }

    /// Another process starts on a machine, with nothing.
    fn restart(&mut self, node: u32) {
        if !self.world.is_up(node) {
            let mut hand = self.hand(node);
            let old = self.world.node(node);
            if let (Node::Hand(new), Node::Hand(old)) = (&mut hand, old) {
                new.inherit(old);
            }
            self.world.replace(node, hand);
            self.world.start(node);
        }
    }

    fn with_hand(&mut self, node: u32, act: impl FnOnce(&mut Hand, &mut Context<'_, Node>)) {
        self.world.call(node, |node, ctx| {
            if let Node::Hand(hand) = node {
                act(hand, ctx);
            }
        });
    }

    /// The master's machine loses power and comes back: its log keeps what was synced, and perhaps a
    /// torn part of what was not.
    fn crash_master(&mut self) {
        self.world.crash(MASTER);
        let mut rng = self.fresh_rng();
        let (model, config) = (self.model.clone(), self.config.clone());
        let fresh = Node::Head(Box::new(Head::new(model, config, rng.fork())));
        let old = self.world.replace(MASTER, fresh);
        if let (Node::Head(mut old), core) = (old, rng.fork()) {
            self.world.call(MASTER, |node, ctx| {
                if let Node::Head(head) = node {
                    old.power_loss(&mut rng);
                    head.resume(ctx, *old, core);
                }
            });
        }
        self.world.start(MASTER);
    }

    fn sample(&self) -> Option<Sample> {
        let head = self.head();
        let now = self.world.now();
        let progress = head.core.progress(now, JobId(1))?;
        Some(Sample {
            at_s: now.as_secs_f64(),
            map: progress.map,
            shuffle: progress.shuffle,
            reduce: progress.reduce,
            workers: head.core.workers().count(),
        })
    }

    /// Whether the job succeeded and its output is exact: every record once, every task committed
    /// once at a time, and what counts is what was published.
    fn verify(&self) -> Result<Tally, String> {
        if let Some(violation) = self.violations.first() {
            return Err(violation.clone());
        }
        match &self.ended {
            Some((_, Outcome::Succeeded)) => {}
            Some((_, other)) => return Err(format!("the job ended otherwise: {other:?}")),
            None => {
                let why = self.head().core.progress(self.world.now(), JobId(1));
                return Err(format!(
                    "the job did not end: {:?}",
                    why.map(|p| (p.maps, p.reduces, p.waiting_for))
                ));
            }
        }
        let tally = Tally::read(self.head().log())?;
        for partition in 0..self.model.reduces {
            let task = TaskId {
                job: JobId(1),
                kind: TaskKind::Reduce,
                index: partition,
            };
            let Some((attempt, records)) = self.head().files.get(&task) else {
                return Err(format!("{task} has no output"));
            };
            if *records != self.model.truth(partition) {
                return Err(format!("the output of {task} is not exact"));
            }
            if tally.committed.get(&task) != Some(attempt) {
                return Err(format!("{attempt} has the name, another one counts"));
            }
        }
        Ok(tally)
    }

    fn digest(&self) -> Digest {
        self.world.digest()
    }
}

/// What the log says, read by somebody who is not the master.
#[derive(Debug, Default)]
struct Tally {
    committed: BTreeMap<TaskId, AttemptId>,
    commits: u64,
    lost: u64,
    masters: u64,
    skipped: u64,
}

impl Tally {
    fn read(log: &[u8]) -> Result<Self, String> {
        let mut all = Self::default();
        let reader = Reader::new(log).map_err(|e| e.to_string())?;
        for record in reader {
            match record {
                Record::Committed(commit) => {
                    all.commits += 1;
                    let attempt = commit.attempt;
                    if let Some(other) = all.committed.insert(attempt.task, attempt) {
                        return Err(format!("{attempt} was committed while {other} counted"));
                    }
                }
                Record::Lost { attempt } => {
                    all.lost += 1;
                    if all.committed.remove(&attempt.task) != Some(attempt) {
                        return Err(format!("{attempt} was lost and did not count"));
                    }
                }
                Record::Found { attempt, .. } => {
                    let before = all.committed.insert(attempt.task, attempt);
                    if before.is_some_and(|other| other != attempt) {
                        return Err(format!("{attempt} was found while another counted"));
                    }
                }
                Record::Started { .. } => all.masters += 1,
                Record::Skipped { records, .. } => all.skipped += records.len(),
                _ => {}
            }
        }
        Ok(all)
    }
}

/// How long a run may take in virtual time before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(40_000);
