//! The master's machine: connections, a log on a disk that must be synced, and the files that got
//! their final name.

use super::{Event, Message, Model, Node};
use crate::Disk;
use crate::disk::PowerLoss;
use crate::world::Context;
use shoal_base::time::earliest;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::id::{AttemptId, TaskId};
use shoal_mapreduce::master::{Link, Master, MasterConfig, MasterInput, MasterOutput, Owner};
use shoal_mapreduce::split::Submission;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long the disk takes to make what was appended durable.
const SYNC: Duration = Duration::from_millis(5);
/// How long a rename takes.
const RENAME: Duration = Duration::from_millis(50);

/// The master and its machine.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) core: Master,
    model: Arc<Model>,
    config: MasterConfig,
    disk: Disk,
    links: BTreeMap<(u32, u64), Link>,
    ends: BTreeMap<Link, (u32, u64)>,
    next_link: u64,
    /// What waits for the disk, in order.
    batches: VecDeque<(Time, Vec<MasterOutput>)>,
    renames: VecDeque<(Time, AttemptId, u64)>,
    /// Files with their final name: whose output, and what is in it. They outlive the process.
    pub(super) files: BTreeMap<TaskId, (AttemptId, u64)>,
}

impl Head {
    pub(super) fn new(model: Arc<Model>, config: MasterConfig, rng: Rng) -> Self {
        Self {
            core: Master::new(config.clone(), rng),
            model,
            config,
            disk: Disk::new(),
            links: BTreeMap::new(),
            ends: BTreeMap::new(),
            next_link: 0,
            batches: VecDeque::new(),
            renames: VecDeque::new(),
            files: BTreeMap::new(),
        }
    }

    pub(super) fn log(&self) -> &[u8] {
        self.disk.read()
    }

    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        self.disk.power_loss(PowerLoss::default(), rng);
    }

    /// Goes on from another's disk.
    pub(super) fn resume(&mut self, ctx: &mut Context<'_, Node>, old: Self, rng: Rng) {
        self.files = old.files;
        let mut out = Vec::new();
        let resumed = Master::resume(
            self.config.clone(),
            rng,
            old.disk.read(),
            ctx.now(),
            &mut out,
        );
        match resumed {
            Ok((core, resumed)) => {
                self.core = core;
                let whole = old.disk.read().get(..resumed.valid).unwrap_or_default();
                self.disk.append(whole);
                self.disk.sync();
                if resumed.valid == 0 {
                    // Not even the submission was durable: it was never accepted.
                    let submission = self.model.submission();
                    self.submit(ctx, submission);
                }
                self.take(ctx, out);
            }
            Err(e) => ctx.tell(Event::Violation(format!("the log does not resume: {e}"))),
        }
    }

    pub(super) fn submit(&mut self, ctx: &mut Context<'_, Node>, submission: Submission) {
        self.give(
            ctx,
            MasterInput::Submit {
                token: 0,
                submission: Box::new(submission),
            },
        );
    }

    pub(super) fn on_start(&mut self, ctx: &mut Context<'_, Node>) {
        self.give(ctx, MasterInput::Tick);
    }

    pub(super) fn on_message(&mut self, ctx: &mut Context<'_, Node>, from: u32, message: Message) {
        match message {
            Message::Open(conn) => {
                self.next_link += 1;
                let link = Link(self.next_link);
                self.links.insert((from, conn), link);
                self.ends.insert(link, (from, conn));
                ctx.send_stream(from, Message::Opened(conn), 64);
                let owner = match self.model.strangers {
                    true => Owner::Stranger(key(from)),
                    false => Owner::Own,
                };
                self.give(ctx, MasterInput::Connected { link, owner });
            }
            Message::Up(conn, message) => match self.links.get(&(from, conn)) {
                Some(&link) => {
                    let message = *message;
                    self.give(ctx, MasterInput::Message { link, message });
                }
                // As a kernel does that knows of no such connection.
                None => ctx.send_stream(from, Message::Reset(conn), 64),
            },
            Message::Reset(conn) => self.closed(ctx, from, conn),
            _ => {}
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_, Node>, from: u32, conn: u64) {
        if let Some(link) = self.links.remove(&(from, conn)) {
            self.ends.remove(&link);
            self.give(ctx, MasterInput::Closed(link));
        }
    }

    /// A machine's kernel ends the connections of a process that died.
    pub(super) fn reset_all(&mut self, ctx: &mut Context<'_, Node>, node: u32) {
        let mine = self.links.range((node, 0)..=(node, u64::MAX));
        for (_, conn) in mine.map(|(end, _)| *end).collect::<Vec<_>>() {
            self.closed(ctx, node, conn);
        }
    }

    pub(super) fn on_tick(&mut self, ctx: &mut Context<'_, Node>) {
        let now = ctx.now();
        if self.batches.front().is_some_and(|(at, _)| *at <= now) {
            self.disk.sync();
        }
        while let Some((_, batch)) = self.batches.pop_front_if(|(at, _)| *at <= now) {
            for output in batch {
                self.act(ctx, output);
            }
        }
        while let Some((_, attempt, records)) = self.renames.pop_front_if(|(at, ..)| *at <= now) {
            let before = self.files.insert(attempt.task, (attempt, records));
            if before.is_some_and(|(other, _)| other != attempt) && !self.model.strangers {
                let task = attempt.task;
                ctx.tell(Event::Violation(format!("{task} was published twice")));
            }
            self.give(ctx, MasterInput::Published { attempt });
        }
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.give(ctx, MasterInput::Tick);
        }
    }

    fn give(&mut self, ctx: &mut Context<'_, Node>, input: MasterInput) {
        let mut out = Vec::new();
        self.core.handle(ctx.now(), input, &mut out);
        self.take(ctx, out);
    }

    /// What is appended is made durable before anything else of it is done, and before anything
    /// that came later.
    fn take(&mut self, ctx: &mut Context<'_, Node>, out: Vec<MasterOutput>) {
        let mut rest = Vec::new();
        let mut appended = false;
        for output in out {
            match output {
                MasterOutput::Append(bytes) => {
                    self.disk.append(&bytes);
                    appended = true;
                }
                other => rest.push(other),
            }
        }
        if appended || !self.batches.is_empty() {
            // One sync serves all that came while the disk was at it.
            let at = ctx.now() + SYNC;
            match self.batches.back_mut() {
                Some((due, batch)) if *due == at || (!appended && *due > ctx.now()) => {
                    batch.extend(rest);
                }
                _ => self.batches.push_back((at, rest)),
            }
        } else {
            for output in rest {
                self.act(ctx, output);
            }
        }
    }

    fn act(&mut self, ctx: &mut Context<'_, Node>, output: MasterOutput) {
        match output {
            MasterOutput::Send { link, message } => {
                if let Some(&(node, conn)) = self.ends.get(&link) {
                    ctx.send_stream(node, Message::Down(conn, Box::new(message)), 256);
                }
            }
            MasterOutput::Close(link) => {
                if let Some((node, conn)) = self.ends.remove(&link) {
                    self.links.remove(&(node, conn));
                    ctx.send_stream(node, Message::Reset(conn), 64);
                }
            }
            MasterOutput::Publish {
                attempt, output, ..
            } => {
                let due = ctx.now() + RENAME;
                self.renames.push_back((due, attempt, output.records));
            }
            MasterOutput::Ended { outcome, .. } => ctx.tell(Event::Ended(outcome)),
            MasterOutput::Append(_)
            | MasterOutput::Accepted { .. }
            | MasterOutput::Notice { .. } => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [
            self.core.deadline(),
            self.batches.front().map(|(at, _)| *at),
            self.renames.front().map(|(at, ..)| *at),
        ]
        .into_iter()
        .fold(None, earliest)
    }
}

/// A stranger's key.
pub(super) fn key(node: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&node.to_be_bytes());
    key
}
