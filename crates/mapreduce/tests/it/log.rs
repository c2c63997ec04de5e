//! The execution log and what a master makes of it.

use crate::desk::{Desk, job, register};
use proptest::prelude::*;
use shoal_base::{Machine, Rng, Time};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::log::{self, LogError, Reader, Record};
use shoal_mapreduce::master::{Master, MasterConfig, MasterInput, MasterOutput, Outcome, Owner};

/// A log of a job that went through much.
fn eventful() -> (Vec<u8>, Vec<usize>) {
    let mut desk = Desk::new();
    let (a, b) = (desk.join("a"), desk.join("b"));
    let mut submission = job(4, 2);
    submission.spec.limits.skip_records_max = 3;
    desk.submit(submission);
    for _ in 0..2 {
        let map = desk.only(a);
        desk.fail(a, map, Some((5, 6)));
        desk.wait(1, &[]);
        if desk.running(a).is_empty() {
            break;
        }
    }
    if let Some(map) = desk.running(b).first() {
        desk.finish(b, *map);
    }
    desk.drop_link(b);
    desk.wait(5, &[]);
    desk.join("c");
    desk.wait(1, &[]);
    desk.finish_all();
    desk.submit(job(2, 1));
    desk.finish_all();
    assert_eq!(desk.ended.len(), 2);
    let mut reader = Reader::new(&desk.log).expect("ours");
    let mut borders = vec![reader.valid()];
    while reader.next().is_some() {
        borders.push(reader.valid());
    }
    assert_eq!(borders.last(), Some(&desk.log.len()), "all of it is read");
    (desk.log, borders)
}

fn resume(log: &[u8]) -> Result<(Master, usize, Vec<MasterOutput>), LogError> {
    let mut out = Vec::new();
    let rng = Rng::from_seed(3);
    let now = Time::from_secs(5000);
    let (master, resumed) = Master::resume(MasterConfig::default(), rng, log, now, &mut out)?;
    Ok((master, resumed.valid, out))
}

#[test]
fn any_prefix_of_a_log_resumes_and_its_jobs_can_be_finished() {
    let (log, borders) = eventful();
    for cut in 0..=log.len() {
        let (master, valid, _) = resume(&log[..cut]).expect("a prefix of ours");
        let whole = *borders.iter().filter(|b| **b <= cut).max().unwrap_or(&0);
        // A header without a record is begun anew.
        let expected = if whole <= borders[0] { 0 } else { whole };
        assert_eq!(valid, expected, "cut at {cut}");
        let _ = master;
    }
    for border in borders {
        let mut desk = Desk::new();
        desk.log.clone_from(&log);
        desk.restart(border);
        desk.join("new");
        desk.wait(15, &[]);
        desk.finish_all();
        let all: Vec<_> = desk.master.jobs().collect();
        for job in all {
            let outcome = desk.master.progress(desk.now, job).and_then(|p| p.outcome);
            assert_eq!(outcome, Some(Outcome::Succeeded), "cut at {border}");
        }
        // What was written after the restart is a log, too.
        let records = Reader::new(&desk.log).expect("ours").count();
        let (again, valid, _) = resume(&desk.log).expect("ours");
        assert_eq!(valid, desk.log.len(), "{records} records");
        assert_eq!(again.jobs().count(), desk.master.jobs().count());
    }
}

#[test]
fn a_restarted_master_runs_no_finished_task_again_while_its_output_exists() {
    let mut desk = Desk::new();
    let a = desk.join_with("a", 2, vec![]);
    desk.submit(job(4, 2));
    let done: Vec<_> = desk.running(a);
    for map in &done {
        desk.finish(a, *map);
    }
    let running = desk.running(a);
    let instance = desk.seats[&a].instance;
    desk.restart(usize::MAX);
    desk.wait(1, &[]);
    let back = desk.connect(Owner::Own);
    let mut hello = register(instance, "a", 2, vec![]);
    hello.outputs.clone_from(&done);
    hello.running.clone_from(&running);
    desk.hello(back, hello);
    desk.wait(30, &[]);
    for attempt in running {
        desk.finish(back, attempt);
    }
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
    for index in 0..4 {
        assert_eq!(
            desk.attempts_of(TaskKind::Map, index),
            1,
            "what ran went on, too"
        );
    }
}

#[test]
fn a_restarted_master_makes_outputs_again_that_nobody_claims() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(2, 1));
    desk.finish(a, desk.only_map(a));
    desk.restart(usize::MAX);
    desk.join("b");
    desk.wait(15, &[]);
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
    assert_eq!(desk.attempts_of(TaskKind::Map, 0), 2);
}

#[test]
fn finished_reduces_never_run_again() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 3));
    desk.finish(a, desk.only_map(a));
    let first = desk.only(a);
    desk.finish(a, first);
    assert_eq!(desk.publish, [first]);
    desk.restart(usize::MAX);
    desk.join("b");
    desk.wait(15, &[]);
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
    assert_eq!(desk.attempts_of(TaskKind::Reduce, first.task.index), 1);
    assert_eq!(desk.publish.iter().filter(|a| **a == first).count(), 1);
}

#[test]
fn what_was_committed_and_not_published_is_published_after_a_restart() {
    let mut desk = Desk::new();
    desk.publishes = false;
    desk.join("a");
    let id = desk.submit(job(1, 1));
    desk.finish_all();
    let [asked] = desk.publish[..] else {
        panic!("one output")
    };
    desk.publish.clear();
    desk.restart(usize::MAX);
    assert_eq!(desk.publish, [asked], "asked again");
    desk.give(MasterInput::Published { attempt: asked });
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
}

#[test]
fn workers_and_attempts_of_two_incarnations_never_share_a_name() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 1));
    let (before, worker) = (desk.only(a), desk.seats[&a].worker);
    for _ in 0..3 {
        desk.restart(usize::MAX);
        let b = desk.join("b");
        desk.wait(3, &[]);
        assert_ne!(desk.only(b), before);
        assert_ne!(desk.seats[&b].worker, worker);
    }
}

#[test]
fn other_files_and_other_versions_are_refused() {
    assert_eq!(resume(b"word\tcount\n").err(), Some(LogError::Foreign));
    assert_eq!(resume(b"shoal-mr\x09").err(), Some(LogError::Version(9)));
    assert!(resume(b"").is_ok() && resume(b"shoal").is_ok());
}

#[test]
fn a_flipped_bit_ends_the_log_before_its_record_and_is_told_apart_from_a_torn_end() {
    let (log, borders) = eventful();
    let told = |out: &[MasterOutput]| {
        let damaged = |o: &MasterOutput| matches!(o, MasterOutput::Notice { text, .. } if text.contains("damaged"));
        out.iter().any(damaged)
    };
    for border in borders.windows(2) {
        let mut bad = log.clone();
        let middle = (border[0] + border[1]) / 2;
        bad[middle] ^= 4;
        let (_, valid, out) = resume(&bad).expect("the header is whole");
        assert!(valid <= border[0]);
        assert_eq!(told(&out), border[1] < log.len(), "byte {middle}");
        let (_, _, out) = resume(&log[..middle]).expect("the header is whole");
        assert!(!told(&out), "torn at {middle}");
    }
}

#[test]
fn a_job_of_more_reduce_tasks_than_can_be_is_not_taken_on_again() {
    let mut all = Vec::new();
    log::begin(&mut all);
    for reduces in [u32::MAX, 1] {
        let record = Record::Submitted {
            job: shoal_mapreduce::id::JobId(u64::from(reduces)),
            submission: Box::new(job(1, reduces)),
            at_us: 1,
        };
        log::append(&record, &mut all);
    }
    let (master, valid, _) = resume(&all).expect("ours");
    assert_eq!((master.jobs().count(), valid), (1, all.len()));
}

proptest! {
    #[test]
    fn any_bytes_after_the_header_are_records_or_nothing(bytes in any::<Vec<u8>>()) {
        let mut log = Vec::new();
        log::begin(&mut log);
        log.extend(bytes);
        prop_assert!(resume(&log).is_ok());
    }

    /// Records that make no sense together must not make a master stumble.
    #[test]
    fn records_in_any_order_resume(order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let (log, _) = eventful();
        let records: Vec<Record> = Reader::new(&log).expect("ours").collect();
        let mut shuffled = Vec::new();
        log::begin(&mut shuffled);
        for index in order {
            log::append(index.get(&records), &mut shuffled);
        }
        let (mut master, valid, mut out) = resume(&shuffled).expect("records of ours");
        prop_assert!(valid == shuffled.len() || valid == 0);
        for second in 0..40 {
            master.handle(Time::from_secs(5000 + second), MasterInput::Tick, &mut out);
        }
    }
}
