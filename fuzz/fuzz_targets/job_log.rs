//! The execution log: arbitrary bytes, and arbitrary records with their sums put right, as one whose
//! machine went mad might have written them. What is read is a prefix of what there is; a master
//! resumes from any of it, goes on when a worker comes, and what it writes resumes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::log::{self, Reader};
use shoal_mapreduce::master::{Link, Master, MasterConfig, MasterInput, MasterOutput, Owner};
use shoal_mapreduce::message::{Register, ToMaster};
use std::time::Duration;

/// Cuts the bytes into bodies by a length before each, and frames them.
fn framed(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    log::begin(&mut all);
    while let Some((&length, rest)) = bytes.split_first() {
        let (body, after) = rest.split_at(usize::from(length).min(rest.len()));
        all.extend_from_slice(&u32::try_from(body.len()).expect("short").to_le_bytes());
        all.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
        all.extend_from_slice(body);
        bytes = after;
    }
    all
}

fn resume(bytes: &[u8]) -> Option<(Master, usize, Vec<MasterOutput>)> {
    let mut out = Vec::new();
    let now = Time::from_secs(1);
    let rng = Rng::from_seed(5);
    let resumed = Master::resume(MasterConfig::default(), rng, bytes, now, &mut out);
    let (master, resumed) = resumed.ok()?;
    assert_eq!(resumed.valid + resumed.dropped, bytes.len());
    Some((master, resumed.valid, out))
}

/// What a driver does with what a master wants, but for messages: nobody answers.
fn settle(master: &mut Master, now: Time, out: &mut Vec<MasterOutput>, log: &mut Vec<u8>) {
    let mut rounds = 0;
    while !out.is_empty() {
        for output in std::mem::take(out) {
            match output {
                MasterOutput::Append(bytes) => log.extend(bytes),
                MasterOutput::Publish { attempt, .. } => {
                    master.handle(now, MasterInput::Published { attempt }, out);
                }
                _ => {}
            }
        }
        rounds += 1;
        assert!(rounds < 1000, "a master that never comes to rest");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let log = match choice % 2 {
        0 => bytes.to_vec(),
        _ => framed(bytes),
    };
    let Some((mut master, valid, mut out)) = resume(&log) else {
        return;
    };
    let whole = log.get(..valid).expect("within");
    let records = Reader::new(whole).expect("as before").count();
    assert_eq!(records, Reader::new(&log).expect("as before").count());
    // Any prefix resumes, and has no more jobs.
    let cut = valid * usize::from(choice) / 256;
    let (less, _, _) = resume(whole.get(..cut).expect("within")).expect("a prefix of a log");
    assert!(less.jobs().count() <= master.jobs().count());

    let mut now = Time::from_secs(1);
    let mut written = whole.to_vec();
    settle(&mut master, now, &mut out, &mut written);
    let link = Link(1);
    master.handle(now, MasterInput::Connected { link, owner: Owner::Own }, &mut out);
    let hello = ToMaster::Register(Register {
        instance: 7,
        host: "h".into(),
        addr: "a".into(),
        slots: 4,
        holds: Vec::new(),
        outputs: Vec::new(),
        running: Vec::new(),
    });
    master.handle(now, MasterInput::Message { link, message: hello }, &mut out);
    for _ in 0..40 {
        now += Duration::from_secs(1);
        let beat = ToMaster::Heartbeat { sequence: 1, progress: Vec::new() };
        master.handle(now, MasterInput::Message { link, message: beat }, &mut out);
        master.handle(now, MasterInput::Tick, &mut out);
        settle(&mut master, now, &mut out, &mut written);
    }
    for job in master.jobs() {
        assert!(master.progress(now, job).is_some());
    }
    let (again, valid, _) = resume(&written).expect("what a master wrote");
    assert!(valid == written.len() || written.len() == whole.len());
    assert_eq!(again.jobs().count(), master.jobs().count());
});
