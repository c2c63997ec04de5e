//! Whose output counts.

use crate::desk::{Desk, job};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::master::{MasterInput, Outcome};
use shoal_mapreduce::message::{FetchProblem, ToWorker};

#[test]
fn who_comes_back_from_a_partition_is_denied() {
    let mut desk = Desk::new();
    let cut_off = desk.join("a");
    let id = desk.submit(job(1, 1));
    let attempt = desk.only(cut_off);
    desk.wait(20, &[cut_off]);
    assert!(desk.closed.contains(&cut_off), "its lease is over");
    let other = desk.join("b");
    desk.finish(other, desk.only(other));
    // The packet that was on the way all the time.
    desk.finish(cut_off, attempt);
    let back = desk.join("a");
    desk.finish(back, attempt);
    let said = &desk.seats[&back].heard;
    assert!(said.contains(&ToWorker::Denied(attempt)));
    desk.finish_all();
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    let progress = desk.master.progress(desk.now, id).expect("kept");
    let finished = ("test".to_owned(), "finished".to_owned());
    assert_eq!(
        progress.counters.get(&finished),
        Some(&2),
        "one map and one reduce count"
    );
}

#[test]
fn nobody_else_can_finish_an_attempt() {
    let mut desk = Desk::new();
    let (a, b) = (desk.join("a"), desk.join("b"));
    desk.submit(job(1, 1));
    let (runner, thief) = if desk.running(a).is_empty() {
        (b, a)
    } else {
        (a, b)
    };
    let attempt = desk.only(runner);
    desk.finish(thief, attempt);
    assert!(
        desk.seats[&thief]
            .heard
            .contains(&ToWorker::Denied(attempt))
    );
    desk.finish(runner, attempt);
    assert!(
        desk.seats[&runner]
            .heard
            .contains(&ToWorker::Granted(attempt))
    );
}

#[test]
fn an_attempt_that_asks_twice_commits_once() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    let id = desk.submit(job(1, 1));
    let attempt = desk.only(a);
    desk.finish(a, attempt);
    desk.finish(a, attempt);
    let granted = desk.seats[&a]
        .heard
        .iter()
        .filter(|m| **m == ToWorker::Granted(attempt));
    assert_eq!(granted.count(), 2, "it is told again");
    let progress = desk.master.progress(desk.now, id).expect("known");
    let finished = ("test".to_owned(), "finished".to_owned());
    assert_eq!(progress.counters.get(&finished), Some(&1));
}

#[test]
fn reduce_output_that_cannot_be_had_is_made_again_and_published_once() {
    let mut desk = Desk::new();
    desk.publishes = false;
    desk.join("a");
    let id = desk.submit(job(1, 1));
    desk.finish_all();
    let [first] = desk.publish[..] else {
        panic!("one output")
    };
    desk.give(MasterInput::PublishFailed {
        attempt: first,
        why: "its holder died".into(),
    });
    desk.finish_all();
    let second = *desk.publish.last().expect("again");
    assert_ne!(first, second);
    desk.give(MasterInput::Published { attempt: first });
    assert!(desk.ended.is_empty(), "the old one does not count any more");
    desk.give(MasterInput::Published { attempt: second });
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
}

#[test]
fn a_job_fails_when_a_task_fails_too_often_and_tells_the_first_cause() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    let id = desk.submit(job(1, 1));
    let mut attempts = Vec::new();
    while desk.ended.is_empty() {
        let attempt = desk.only(a);
        attempts.push(attempt);
        desk.fail(a, attempt, None);
    }
    assert_eq!(attempts.len(), 4);
    let [
        (
            ended,
            Outcome::Failed {
                attempt,
                host,
                cause,
            },
        ),
    ] = &desk.ended[..]
    else {
        panic!("{:?}", desk.ended)
    };
    assert_eq!((*ended, *attempt, host.as_str()), (id, attempts[0], "a"));
    assert_eq!(cause.what, format!("{} crashed", attempts[0]));
    let progress = desk.master.progress(desk.now, id).expect("kept");
    assert_eq!(progress.failures.len(), 4);
}

#[test]
fn a_task_is_tried_on_another_host_after_it_failed_on_one() {
    let mut desk = Desk::new();
    let (a, b) = (desk.join("a"), desk.join("b"));
    desk.submit(job(1, 1));
    let (first, second) = if desk.running(a).is_empty() {
        (b, a)
    } else {
        (a, b)
    };
    desk.fail(first, desk.only(first), None);
    assert_eq!(desk.running(first), []);
    desk.only(second);
}

#[test]
fn a_host_that_fails_a_job_again_and_again_gets_no_more_of_it() {
    let mut desk = Desk::new();
    let bad = desk.join("bad");
    desk.join_with("good", 2, vec![]);
    desk.submit(job(20, 1));
    for _ in 0..4 {
        if let Some(attempt) = desk.running(bad).first() {
            desk.fail(bad, *attempt, None);
        }
    }
    assert_eq!(desk.running(bad), []);
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
}

#[test]
fn log_records_come_before_what_depends_on_them() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 1));
    let attempt = desk.only(a);
    let before = desk.log.len();
    desk.publishes = false;
    desk.finish(a, attempt);
    assert!(desk.log.len() > before, "a commit is in the log");
    let reduce = desk.only(a);
    assert_eq!(reduce.task.kind, TaskKind::Reduce);
    let output = desk.seats[&a].outputs[&attempt.task].clone();
    desk.fetch_failed(a, reduce, &output, FetchProblem::Corrupt);
    assert_eq!(
        desk.only_map(a).task,
        attempt.task,
        "a corrupt output is made again"
    );
}

#[test]
fn a_reduce_cannot_be_through_before_the_maps_are() {
    let mut desk = Desk::new();
    let a = desk.join_with("a", 2, vec![]);
    desk.submit(job(3, 1));
    desk.finish(a, desk.only_map(a));
    let reduce = desk.only_reduce(a);
    desk.finish(a, reduce);
    assert!(desk.seats[&a].heard.contains(&ToWorker::Denied(reduce)));
    assert!(desk.publish.is_empty());
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
}
