//! A worker's machine: a connection to the master, a line that bulk data shares, tasks that take
//! their time.

use super::timers::{Timer, Timers};
use super::{MASTER, Message, Model, Node, RECORDS, value};
use crate::digest::mix;
use crate::world::Context;
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::id::{AttemptId, TaskKind};
use shoal_mapreduce::message::{
    Assignment, Blame, Counters, Failure, FetchProblem, Phase, Progress, RecordRange, TaskOutput,
};
use shoal_mapreduce::worker::{FetchRequest, Worker, WorkerConfig, WorkerInput, WorkerOutput};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A connection that is not there after this long will not come.
const CONNECT: Duration = Duration::from_secs(3);
/// A holder that said nothing for this long is asked whether it is still at it.
const QUIET: Duration = Duration::from_secs(5);
/// A holder that said nothing for this long is given up.
const SILENT: Duration = Duration::from_secs(15);

/// What an attempt does.
#[derive(Debug)]
struct Doing {
    assignment: Assignment,
    /// When its present work began and how long it takes; nothing while it fetches.
    work: Option<(Time, Duration)>,
    /// Of a reduce: what came.
    sum: u64,
    got: Vec<u64>,
    count: u32,
}

/// A request to another machine.
#[derive(Debug)]
struct Asked {
    request: FetchRequest,
    holder: u32,
    heard: Time,
    /// All of the answer is on its way in.
    answered: bool,
}

/// The worker and its machine.
#[derive(Debug)]
pub(super) struct Hand {
    core: Worker,
    model: Arc<Model>,
    me: u32,
    rng: Rng,
    /// Tells this process's requests from those of an earlier one on the machine.
    first_request: u64,
    conn: u64,
    up: bool,
    timers: Timers,
    attempts: BTreeMap<AttemptId, Doing>,
    /// Outputs that it serves, and whether their bytes went bad.
    stored: BTreeMap<AttemptId, bool>,
    asked: BTreeMap<u64, Asked>,
    /// Requests that it is answering.
    serving: BTreeSet<(u32, u64)>,
    out_free: Time,
    in_free: Time,
    stopped_until: Option<Time>,
    inbox: Vec<(u32, Message)>,
    /// Tasks take this many times longer.
    pub(super) slow: f64,
    pub(super) disk_full: bool,
    /// Share of attempts that crash.
    pub(super) flaky: f64,
    /// Puts out other than it should.
    pub(super) lies: bool,
}

impl Hand {
    pub(super) fn new(model: Arc<Model>, me: u32, instance: u64, mut rng: Rng) -> Self {
        let mut config = WorkerConfig::new(instance, format!("host{me}"), me.to_string());
        config.holds = model.holding(me);
        let slow = model.stragglers.iter().find(|(node, _)| *node == me);
        Self {
            core: Worker::new(config, rng.fork()),
            slow: slow.map_or(1.0, |(_, factor)| *factor),
            model,
            me,
            rng,
            first_request: instance << 32,
            conn: instance << 20,
            up: false,
            timers: Timers::default(),
            attempts: BTreeMap::new(),
            stored: BTreeMap::new(),
            asked: BTreeMap::new(),
            serving: BTreeSet::new(),
            out_free: Time::ZERO,
            in_free: Time::ZERO,
            stopped_until: None,
            inbox: Vec::new(),
            disk_full: false,
            flaky: 0.0,
            lies: false,
        }
    }

    /// The machine stays what it is when another process starts on it.
    pub(super) fn inherit(&mut self, old: &Self) {
        self.slow = old.slow;
        self.disk_full = old.disk_full;
        self.flaky = old.flaky;
        self.lies = old.lies;
    }

    /// Everything on the machine stands still (SIGSTOP) and goes on later.
    pub(super) fn stop(&mut self, until: Time) {
        self.stopped_until = Some(until);
    }

    /// The bytes of everything stored go bad.
    pub(super) fn corrupt(&mut self) {
        for bad in self.stored.values_mut() {
            *bad = true;
        }
    }

    pub(super) fn on_start(&mut self, ctx: &mut Context<'_, Node>) {
        self.give(ctx, WorkerInput::Tick);
    }

    pub(super) fn on_message(&mut self, ctx: &mut Context<'_, Node>, from: u32, message: Message) {
        if self.stopped_until.is_some() {
            self.inbox.push((from, message));
            return;
        }
        match message {
            Message::Opened(conn) => {
                if conn == self.conn && !std::mem::replace(&mut self.up, true) {
                    self.give(ctx, WorkerInput::Connected);
                }
            }
            Message::Reset(conn) => {
                if conn == self.conn {
                    self.up = false;
                    self.give(ctx, WorkerInput::Disconnected);
                }
            }
            Message::Down(conn, message) => {
                if conn == self.conn && self.up {
                    self.give(ctx, WorkerInput::Message(*message));
                }
            }
            Message::Fetch {
                request,
                partition,
                outputs,
            } => self.serve(ctx, from, request, partition, outputs),
            Message::Data {
                request,
                there,
                missing,
                bytes,
            } => {
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.answered = true;
                }
                let took = self.transfer(bytes);
                self.in_free = self.in_free.max(ctx.now()) + took;
                let (at, bytes) = (self.in_free, 0);
                let message = Message::Data {
                    request,
                    there,
                    missing,
                    bytes,
                };
                self.timers.set(at, Timer::Arrived(message));
            }
            Message::Probe(request) => {
                let answer = match self.serving.contains(&(from, request)) {
                    true => Message::Alive(request),
                    false => Message::Gone(request),
                };
                ctx.send_stream(from, answer, 64);
            }
            Message::Alive(request) => {
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.heard = ctx.now();
                }
            }
            Message::Gone(request) => {
                if self.asked.get(&request).is_some_and(|a| !a.answered) {
                    self.give_up(ctx, request);
                }
            }
            Message::Open(_) | Message::Up(..) => {}
        }
    }

    fn transfer(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.model.rate)
    }

    pub(super) fn on_tick(&mut self, ctx: &mut Context<'_, Node>) {
        let now = ctx.now();
        if let Some(until) = self.stopped_until {
            if now < until {
                return;
            }
            self.stopped_until = None;
            for (from, message) in std::mem::take(&mut self.inbox) {
                self.on_message(ctx, from, message);
            }
        }
        while let Some(timer) = self.timers.pop(now) {
            self.on_timer(ctx, timer);
        }
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.report(ctx);
            self.give(ctx, WorkerInput::Tick);
        }
    }

    fn on_timer(&mut self, ctx: &mut Context<'_, Node>, timer: Timer) {
        match timer {
            Timer::Done(attempt) => self.done(ctx, attempt),
            Timer::ConnectTimeout(conn) => {
                if conn == self.conn && !self.up {
                    self.give(ctx, WorkerInput::Disconnected);
                }
            }
            Timer::Sent(to, request, message) => {
                self.serving.remove(&(to, request));
                ctx.send_stream(to, message, 64);
            }
            Timer::Arrived(message) => self.arrived(ctx, message),
            Timer::Watch(request) => self.watch(ctx, request),
        }
    }

    /// Tells the core how far attempts are.
    fn report(&mut self, ctx: &mut Context<'_, Node>) {
        let now = ctx.now();
        let mut all = Vec::new();
        for (attempt, doing) in &self.attempts {
            if let Some((began, length)) = doing.work {
                let phase = match attempt.task.kind {
                    TaskKind::Map => Phase::Map,
                    TaskKind::Reduce => Phase::Reduce,
                };
                let share = now.since(began).as_secs_f64() / length.as_secs_f64().max(1e-6);
                let progress = Progress {
                    phase,
                    done: (share * 1000.0) as u64,
                    total: 1000,
                };
                all.push((*attempt, progress));
            }
        }
        for (attempt, progress) in all {
            self.give(ctx, WorkerInput::Progress { attempt, progress });
        }
    }

    fn give(&mut self, ctx: &mut Context<'_, Node>, input: WorkerInput) {
        let mut out = Vec::new();
        self.core.handle(ctx.now(), input, &mut out);
        for output in out {
            self.act(ctx, output);
        }
    }

    fn act(&mut self, ctx: &mut Context<'_, Node>, output: WorkerOutput) {
        let now = ctx.now();
        match output {
            WorkerOutput::Connect => {
                self.conn += 1;
                self.up = false;
                ctx.send_stream(MASTER, Message::Open(self.conn), 64);
                self.timers
                    .set(now + CONNECT, Timer::ConnectTimeout(self.conn));
            }
            WorkerOutput::Disconnect => {
                self.up = false;
                ctx.send_stream(MASTER, Message::Reset(self.conn), 64);
            }
            WorkerOutput::Send(message) => {
                ctx.send_stream(MASTER, Message::Up(self.conn, Box::new(message)), 256);
            }
            WorkerOutput::Start { assignment, .. } => self.start(now, assignment),
            WorkerOutput::Kill(attempt) => {
                self.attempts.remove(&attempt);
            }
            WorkerOutput::Fetch(request) => self.fetch(ctx, request),
            WorkerOutput::CancelFetch(request) => {
                self.asked.remove(&(self.first_request + request));
            }
            WorkerOutput::Complete(attempt) => {
                let length = self.length(self.model.reduce_s, attempt);
                if let Some(doing) = self.attempts.get_mut(&attempt) {
                    doing.work = Some((now, length));
                    self.timers.set(now + length, Timer::Done(attempt));
                }
            }
            WorkerOutput::Drop(attempt) => {
                self.stored.remove(&attempt);
            }
            WorkerOutput::JobEnd(job) => {
                self.attempts.retain(|a, _| a.task.job != job);
                self.stored.retain(|a, _| a.task.job != job);
            }
            WorkerOutput::Notice(_) => {}
        }
    }

    /// How long work takes here: as usual, times the machine's slowness, give or take a tenth.
    fn length(&mut self, usual_s: f64, attempt: AttemptId) -> Duration {
        let remote = attempt.task.kind == TaskKind::Map
            && self.model.replicas > 0
            && self.model.holders(attempt.task.index).all(|n| n != self.me);
        let usual_s = usual_s + if remote { self.model.remote_s } else { 0.0 };
        Duration::from_secs_f64(usual_s * self.slow * (0.9 + 0.2 * self.rng.unit()))
    }

    fn start(&mut self, now: Time, assignment: Assignment) {
        let attempt = assignment.attempt;
        let map = attempt.task.kind == TaskKind::Map;
        let work = map.then(|| (now, self.length(self.model.map_s, attempt)));
        if let Some((_, length)) = work {
            self.timers.set(now + length, Timer::Done(attempt));
        }
        let words = if map { 0 } else { self.model.maps.div_ceil(64) };
        let doing = Doing {
            assignment,
            work,
            sum: 0,
            got: vec![0; words as usize],
            count: 0,
        };
        self.attempts.insert(attempt, doing);
    }

    fn done(&mut self, ctx: &mut Context<'_, Node>, attempt: AttemptId) {
        let Some(doing) = self.attempts.remove(&attempt) else {
            return;
        };
        let index = attempt.task.index;
        let map = attempt.task.kind == TaskKind::Map;
        let failure = |what: &str, blame, records| WorkerInput::Failed {
            attempt,
            failure: Failure {
                what: what.to_owned(),
                blame,
                records,
            },
        };
        if self.disk_full {
            return self.give(ctx, failure("no space left on device", Blame::Host, None));
        }
        if self.rng.chance(self.flaky) {
            return self.give(ctx, failure("crashed", Blame::Host, None));
        }
        if let Some((_, bad)) = self.model.poison.filter(|(task, _)| map && *task == index) {
            let tried = doing.assignment.probe.unwrap_or(RecordRange {
                from: 0,
                to: RECORDS,
            });
            let skip = &doing.assignment.skip;
            let skipped = skip.iter().any(|r| (r.from..r.to).contains(&bad));
            if (tried.from..tried.to).contains(&bad) && !skipped {
                let from = (bad / 100 * 100).max(tried.from);
                let to = (from + 100).min(tried.to);
                let records = Some(RecordRange { from, to });
                return self.give(ctx, failure("bad record", Blame::Code, records));
            }
        }
        let mut records = if map { RECORDS } else { doing.sum };
        let whole: u32 = doing.got.iter().map(|w| w.count_ones()).sum();
        if !map && (whole != self.model.maps || doing.count != self.model.maps) {
            let what = format!("{attempt} did not get every map output once");
            ctx.tell(super::Event::Violation(what));
        }
        let mut word = mix(u64::from(index), if map { 7 } else { records });
        if self.lies {
            // Each liar lies in its own way.
            records ^= u64::from(self.me);
            word ^= u64::from(self.me);
        }
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&word.to_be_bytes());
        self.stored.insert(attempt, false);
        let output = TaskOutput {
            bytes: if map { self.model.map_bytes } else { 0 },
            records,
            digest,
            place: String::new(),
        };
        let mut counters = Counters::new();
        counters.insert(("sim".into(), "tasks".into()), 1);
        self.give(
            ctx,
            WorkerInput::Finished {
                attempt,
                output,
                counters,
            },
        );
    }

    fn fetch(&mut self, ctx: &mut Context<'_, Node>, request: FetchRequest) {
        let holder = request.addr.parse().unwrap_or(MASTER);
        let number = self.first_request + request.request;
        let message = Message::Fetch {
            request: number,
            partition: request.attempt.task.index,
            outputs: request.outputs.iter().map(|(id, _)| *id).collect(),
        };
        let asked = Asked {
            request,
            holder,
            heard: ctx.now(),
            answered: false,
        };
        self.asked.insert(number, asked);
        ctx.send_stream(holder, message, 128);
        self.timers.set(ctx.now() + QUIET, Timer::Watch(number));
    }

    fn watch(&mut self, ctx: &mut Context<'_, Node>, request: u64) {
        let Some(asked) = self.asked.get(&request) else {
            return;
        };
        if asked.answered {
            return;
        }
        if ctx.now().since(asked.heard) >= SILENT {
            return self.give_up(ctx, request);
        }
        ctx.send_stream(asked.holder, Message::Probe(request), 64);
        self.timers.set(ctx.now() + QUIET, Timer::Watch(request));
    }

    fn give_up(&mut self, ctx: &mut Context<'_, Node>, request: u64) {
        if let Some(asked) = self.asked.remove(&request) {
            let input = WorkerInput::FetchFailed {
                request: asked.request.request,
                outputs: Vec::new(),
                problem: FetchProblem::Unreachable,
            };
            self.give(ctx, input);
        }
    }

    fn serve(
        &mut self,
        ctx: &mut Context<'_, Node>,
        to: u32,
        request: u64,
        partition: u32,
        outputs: Vec<AttemptId>,
    ) {
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for output in outputs {
            let bad = self.stored.get(&output).copied();
            match bad.filter(|_| self.core.serves(output)) {
                Some(true) => there.push((output, None)),
                Some(false) => {
                    let lie = u64::from(self.lies) * 0x77;
                    let value = value(output.task.index, partition) ^ lie;
                    there.push((output, Some(value)));
                }
                None => missing.push(output),
            }
        }
        let each = self.model.map_bytes / u64::from(self.model.reduces);
        let bytes = each * there.len() as u64;
        let message = Message::Data {
            request,
            there,
            missing,
            bytes,
        };
        self.out_free = self.out_free.max(ctx.now()) + self.transfer(bytes);
        self.serving.insert((to, request));
        self.timers
            .set(self.out_free, Timer::Sent(to, request, message));
    }

    fn arrived(&mut self, ctx: &mut Context<'_, Node>, message: Message) {
        let Message::Data {
            request,
            there,
            missing,
            ..
        } = message
        else {
            return;
        };
        let Some(asked) = self.asked.remove(&request) else {
            return;
        };
        let attempt = asked.request.attempt;
        let request = asked.request.request;
        let mut corrupt = Vec::new();
        for (output, value) in there {
            let Some(value) = value else {
                corrupt.push(output);
                continue;
            };
            if let Some(doing) = self.attempts.get_mut(&attempt) {
                let map = output.task.index;
                doing.sum = doing.sum.wrapping_add(value);
                doing.count += 1;
                if let Some(word) = doing.got.get_mut(map as usize / 64) {
                    *word |= 1 << (map % 64);
                }
            }
            let bytes = 1;
            self.give(
                ctx,
                WorkerInput::Fetched {
                    request,
                    output,
                    bytes,
                },
            );
        }
        let problems = [
            (missing, FetchProblem::Missing),
            (corrupt, FetchProblem::Corrupt),
        ];
        for (outputs, problem) in problems {
            if !outputs.is_empty() {
                let input = WorkerInput::FetchFailed {
                    request,
                    outputs,
                    problem,
                };
                self.give(ctx, input);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        if self.stopped_until.is_some() {
            return self.stopped_until;
        }
        earliest(self.core.deadline(), self.timers.first())
    }
}
