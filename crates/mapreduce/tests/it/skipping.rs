//! Bad records.

use crate::desk::{Desk, job};
use shoal_mapreduce::master::{Link, Outcome};
use shoal_mapreduce::message::RecordRange;

/// Plays a worker whose code crashes on certain records and can only say which batch of 64 it was
/// in. Gives the number of attempts.
fn play(desk: &mut Desk, link: Link, records: u64, bad: &[u64]) -> usize {
    let mut attempts = 0;
    while desk.ended.is_empty() {
        let seat = &desk.seats[&link];
        let Some(assignment) = seat.running.first().cloned() else {
            panic!("nothing runs");
        };
        attempts += 1;
        let whole = RecordRange {
            from: 0,
            to: records,
        };
        let range = assignment.probe.unwrap_or(whole);
        let reads = |r: &u64| {
            (range.from..range.to).contains(r)
                && assignment.skip.iter().all(|s| !(s.from..s.to).contains(r))
        };
        let kind = assignment.attempt.task.kind;
        let crash = bad.iter().copied().find(reads);
        match crash.filter(|_| kind == shoal_mapreduce::id::TaskKind::Map) {
            Some(record) => {
                let batch = record / 64 * 64;
                let hint = (batch, (batch + 64).min(records));
                desk.fail(link, assignment.attempt, Some(hint));
            }
            None => desk.finish(link, assignment.attempt),
        }
    }
    attempts
}

#[test]
fn bad_records_are_found_left_out_counted_and_listed() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    let mut submission = job(1, 1);
    submission.spec.limits.skip_records_max = 10;
    let id = desk.submit(submission);
    let attempts = play(&mut desk, a, 1000, &[3, 500, 999]);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    let progress = desk.master.progress(desk.now, id).expect("kept");
    let skipped: Vec<_> = progress.skipped.iter().map(|(_, record)| *record).collect();
    assert_eq!(skipped, [3, 500, 999]);
    let count = progress
        .counters
        .get(&("shoal".into(), "bad_records_left_out".into()));
    assert_eq!(count, Some(&3));
    assert!(attempts <= 2 + 3 * 8 + 2, "{attempts} attempts");
}

#[test]
fn more_bad_records_than_allowed_fail_the_job_with_the_cause() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    let mut submission = job(1, 1);
    submission.spec.limits.skip_records_max = 2;
    desk.submit(submission);
    play(&mut desk, a, 1000, &[3, 500, 999]);
    let [(_, Outcome::Failed { cause, .. })] = &desk.ended[..] else {
        panic!("{:?}", desk.ended)
    };
    assert!(
        cause.what.starts_with("more than 2 bad records"),
        "{}",
        cause.what
    );
    assert!(cause.what.contains("crashed"), "{}", cause.what);
}

#[test]
fn nothing_is_skipped_unless_asked_for() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 1));
    let attempts = play(&mut desk, a, 1000, &[3]);
    assert_eq!(attempts, 4);
    assert!(matches!(desk.ended[..], [(_, Outcome::Failed { .. })]));
}

#[test]
fn what_was_left_out_stays_left_out_after_a_restart() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    let mut submission = job(2, 1);
    submission.spec.limits.skip_records_max = 2;
    desk.submit(submission);
    let first = desk.only(a);
    for _ in 0..2 {
        desk.fail(a, desk.only(a), Some((7, 8)));
    }
    desk.restart(usize::MAX);
    let b = desk.join("b");
    desk.wait(3, &[]);
    let seat = &desk.seats[&b];
    let again = seat.running.iter().find(|x| x.attempt.task == first.task);
    let skip = &again.expect("it runs again").skip;
    assert_eq!(skip, &[RecordRange { from: 7, to: 8 }]);
}

/// A search would wait for a worker of one's own for ever.
#[test]
fn with_strangers_alone_a_bad_record_fails_the_job_with_the_cause() {
    let mut desk = Desk::new();
    for key in 1..=5 {
        desk.stranger(key);
    }
    let mut submission = job(1, 1);
    submission.spec.limits.skip_records_max = 10;
    desk.submit(submission);
    for _ in 0..20 {
        let Some((link, attempt)) = desk.next_ready().filter(|_| desk.ended.is_empty()) else {
            break;
        };
        desk.fail(link, attempt, Some((0, 64)));
    }
    let [(_, Outcome::Failed { cause, .. })] = &desk.ended[..] else {
        panic!("{:?}", desk.ended)
    };
    assert!(cause.what.contains("crashed"), "{}", cause.what);
}
