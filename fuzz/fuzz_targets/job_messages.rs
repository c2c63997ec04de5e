//! Messages between master and workers: arbitrary frames are read or refused, what is read is written
//! as it was; and what can be read is said to a live master by several workers, and to a live
//! worker by its master, as time passes. Nothing panics, no task commits twice, and the master's log
//! stays a log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::job::{Code, JobSpec};
use shoal_mapreduce::log::{Reader, Record};
use shoal_mapreduce::master::{Link, Master, MasterConfig, MasterInput, MasterOutput, Owner};
use shoal_mapreduce::message::{Register, ToMaster, ToWorker};
use shoal_mapreduce::split::{InputRange, Split, Submission};
use shoal_mapreduce::wire;
use shoal_mapreduce::worker::{Worker, WorkerConfig, WorkerInput, WorkerOutput};
use std::collections::BTreeSet;
use std::time::Duration;

/// Reads a message from a body without a frame.
fn message<M: DeserializeOwned + Serialize>(body: &[u8]) -> Option<M> {
    let length = u32::try_from(body.len() + 1).ok()?;
    let frame = [&length.to_le_bytes()[..], &[wire::VERSION], body].concat();
    let (message, used) = wire::decode::<M>(&frame).ok()??;
    assert_eq!(used, frame.len());
    let mut again = Vec::new();
    wire::encode(&message, &mut again).expect("no longer than it came");
    let back = wire::decode::<M>(&again).expect("ours");
    assert!(back.is_some());
    Some(message)
}

fn submission(reduces: u32, code: Code) -> Submission {
    let split = |n: u64| Split {
        parts: vec![InputRange { file: "f".into(), offset: n, len: 1, input: 0 }],
        hosts: Vec::new(),
    };
    let spec = JobSpec {
        mapper: code,
        reducer: (reduces > 0).then_some(Code::Identity),
        reduces,
        ..JobSpec::default()
    };
    Submission { spec, splits: (0..3).map(split).collect(), cuts: Vec::new() }
}

struct Desk {
    master: Master,
    log: Vec<u8>,
    out: Vec<MasterOutput>,
}

impl Desk {
    fn give(&mut self, now: Time, input: MasterInput) {
        self.master.handle(now, input, &mut self.out);
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                match output {
                    MasterOutput::Append(bytes) => self.log.extend(bytes),
                    MasterOutput::Publish { attempt, .. } => {
                        let input = MasterInput::Published { attempt };
                        self.master.handle(now, input, &mut self.out);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// No task counts twice at a time.
fn check(log: &[u8]) {
    let mut counts = BTreeSet::new();
    let mut reader = Reader::new(log).expect("a log");
    for record in reader.by_ref() {
        match record {
            Record::Committed(commit) => assert!(counts.insert(commit.attempt.task)),
            Record::Lost { attempt } => {
                counts.remove(&attempt.task);
            }
            Record::Found { attempt, .. } => {
                counts.insert(attempt.task);
            }
            _ => {}
        }
    }
    assert_eq!(reader.valid(), log.len());
}

fuzz_target!(|data: &[u8]| {
    let _ = wire::decode::<ToMaster>(data);
    let _ = wire::decode::<ToWorker>(data);
    let Some((&flags, mut rest)) = data.split_first() else {
        return;
    };
    let mut now = Time::from_secs(1);
    let mut desk = Desk {
        master: Master::new(MasterConfig::default(), Rng::from_seed(1)),
        log: Vec::new(),
        out: Vec::new(),
    };
    for (n, reduces) in [2, 0].into_iter().enumerate() {
        let code = match flags & 1 {
            0 => Code::Identity,
            _ => Code::Streaming { command: "cat".into() },
        };
        let submission = Box::new(submission(reduces, code));
        desk.give(now, MasterInput::Submit { token: n as u64, submission });
    }
    for n in 0..4 {
        let owner = match n < u64::from(flags >> 1 & 3) {
            true => Owner::Stranger([n as u8; 32]),
            false => Owner::Own,
        };
        desk.give(now, MasterInput::Connected { link: Link(n), owner });
        let hello = ToMaster::Register(Register {
            instance: n,
            host: format!("h{n}"),
            addr: "a".into(),
            slots: 2,
            holds: Vec::new(),
            outputs: Vec::new(),
            running: Vec::new(),
        });
        // The last one says itself who it is.
        if n < 3 {
            desk.give(now, MasterInput::Message { link: Link(n), message: hello });
        }
    }
    let mut worker = Worker::new(WorkerConfig::new(9, "w", "a"), Rng::from_seed(2));
    let mut out = Vec::new();
    worker.handle(now, WorkerInput::Tick, &mut out);
    worker.handle(now, WorkerInput::Connected, &mut out);
    // Each step: who, how long after, how long the message; then the message.
    while let Some((&[who, wait, len], after)) = rest.split_first_chunk::<3>() {
        let (body, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        now += Duration::from_millis(u64::from(wait) * 20);
        if who & 1 == 0 {
            let link = Link(u64::from(who >> 1) % 4);
            if let Some(message) = message::<ToMaster>(body) {
                desk.give(now, MasterInput::Message { link, message });
            } else if body.is_empty() {
                desk.give(now, MasterInput::Closed(link));
            }
            desk.give(now, MasterInput::Tick);
        } else {
            if let Some(message) = message::<ToWorker>(body) {
                worker.handle(now, WorkerInput::Message(message), &mut out);
            }
            worker.handle(now, WorkerInput::Tick, &mut out);
            for output in std::mem::take(&mut out) {
                match output {
                    WorkerOutput::Connect => worker.handle(now, WorkerInput::Connected, &mut out),
                    WorkerOutput::Start { assignment, .. } if assignment.split.is_empty() => {
                        let input = WorkerInput::Finished {
                            attempt: assignment.attempt,
                            output: Default::default(),
                            counters: Default::default(),
                        };
                        worker.handle(now, input, &mut out);
                    }
                    _ => {}
                }
            }
            out.clear();
        }
    }
    check(&desk.log);
});
