//! Machines that die, cannot be reached, and come back.

use crate::desk::{Desk, job, register};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::master::{Link, Outcome, Owner};
use shoal_mapreduce::message::{FetchProblem, ToMaster, ToWorker};
use std::collections::BTreeSet;

/// Two workers that finished the maps (one each) and run one reduce each; a third is idle.
fn shuffling(desk: &mut Desk) -> (Link, Link) {
    let (a, b) = (desk.join("a"), desk.join("b"));
    desk.submit(job(2, 2));
    for link in [a, b] {
        desk.finish(link, desk.only_map(link));
    }
    for link in [a, b] {
        assert_eq!(desk.only(link).task.kind, TaskKind::Reduce);
        assert_eq!(desk.seats[&link].outputs.len(), 2, "all outputs are known");
    }
    (a, b)
}

#[test]
fn a_worker_that_is_silent_for_a_lease_is_lost_with_what_it_ran() {
    let mut desk = Desk::new();
    let silent = desk.join("a");
    let mut submission = job(1, 1);
    submission.spec.speculative = false;
    desk.submit(submission);
    let attempt = desk.only(silent);
    let other = desk.join("b");
    desk.wait(14, &[silent]);
    assert_eq!(desk.running(other), []);
    desk.wait(2, &[silent]);
    let again = desk.only(other);
    assert_eq!(again.task, attempt.task);
    assert_ne!(again.number, attempt.number, "numbers are never used again");
}

#[test]
fn finished_maps_of_a_dead_worker_run_again_and_finished_reduces_do_not() {
    let mut desk = Desk::new();
    let (a, b) = shuffling(&mut desk);
    let reduced = desk.only(a).task;
    desk.finish(a, desk.only(a));
    desk.drop_link(a);
    desk.wait(5, &[]);
    let tasks: BTreeSet<_> = desk.running(b).iter().map(|x| x.task.kind).collect();
    assert!(tasks.contains(&TaskKind::Map), "the map of the dead worker");
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
    assert_eq!(desk.attempts_of(TaskKind::Reduce, reduced.index), 1);
    let maps: Vec<_> = (0..2).map(|i| desk.attempts_of(TaskKind::Map, i)).collect();
    assert_eq!(maps.iter().sum::<usize>(), 3, "one map of two: {maps:?}");
}

#[test]
fn a_connection_that_breaks_and_comes_back_loses_nothing() {
    let mut desk = Desk::new();
    let (a, _) = shuffling(&mut desk);
    let reduce = desk.only(a);
    let instance = desk.seats[&a].instance;
    let mine = desk.seats[&a].outputs.values();
    let map = mine
        .map(|o| o.attempt)
        .find(|m| desk.assigned.contains(&(a, *m)))
        .expect("it made one");
    desk.drop_link(a);
    let back = desk.connect(Owner::Own);
    let mut hello = register(instance, "a", 1, vec![]);
    hello.running.push(reduce);
    hello.outputs.push(map);
    desk.hello(back, hello);
    let welcome = &desk.seats[&back].heard[0];
    let ToWorker::Welcome { go_on, keep, .. } = welcome else {
        panic!("{welcome:?}")
    };
    assert_eq!((go_on, keep), (&vec![reduce], &vec![map]));
    assert_eq!(
        desk.seats[&back].outputs.len(),
        2,
        "it is told everything anew"
    );
    desk.wait(5, &[]);
    desk.finish(back, reduce);
    desk.finish_all();
    for index in 0..2 {
        assert_eq!(desk.attempts_of(TaskKind::Map, index), 1);
        assert_eq!(desk.attempts_of(TaskKind::Reduce, index), 1);
    }
}

#[test]
fn an_assignment_that_was_lost_with_its_connection_is_made_again() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 1));
    let lost = desk.only(a);
    let instance = desk.seats[&a].instance;
    desk.drop_link(a);
    let back = desk.connect(Owner::Own);
    desk.hello(back, register(instance, "a", 1, vec![]));
    let again = desk.only(back);
    assert_eq!(again.task, lost.task);
    assert_ne!(again, lost);
}

#[test]
fn two_reporters_make_the_maps_of_one_holder_run_again_and_no_others() {
    let mut desk = Desk::new();
    let links: Vec<_> = (0..4).map(|i| desk.join(&format!("h{i}"))).collect();
    desk.submit(job(4, 4));
    for link in &links {
        desk.finish(*link, desk.only_map(*link));
    }
    let holder = desk.seats[&links[3]].worker.expect("welcome");
    let output = desk.seats[&links[0]]
        .outputs
        .values()
        .find(|o| o.holder == holder);
    let output = output.expect("it made one").clone();
    desk.fetch_failed(
        links[0],
        desk.only(links[0]),
        &output,
        FetchProblem::Unreachable,
    );
    desk.wait(1, &[]);
    assert_eq!(
        desk.attempts_of(TaskKind::Map, output.attempt.task.index),
        1
    );
    desk.fetch_failed(
        links[1],
        desk.only(links[1]),
        &output,
        FetchProblem::Unreachable,
    );
    desk.wait(1, &[]);
    for index in 0..4 {
        let expected = 1 + usize::from(index == output.attempt.task.index);
        assert_eq!(desk.attempts_of(TaskKind::Map, index), expected);
    }
    let again = desk.assigned.last().expect("assigned").0;
    assert_ne!(again, links[3], "and on another machine");
}

#[test]
fn the_only_possible_reporter_is_believed_when_it_insists() {
    let mut desk = Desk::new();
    let holder = desk.join("holder");
    desk.submit(job(1, 1));
    let (map, reduce) = (desk.only(holder), desk.join("reducer"));
    desk.finish(holder, map);
    let (reducer, other) = match desk.running(reduce).is_empty() {
        true => (holder, reduce),
        false => (reduce, holder),
    };
    let output = desk.seats[&reducer].outputs[&map.task].clone();
    for _ in 0..3 {
        assert_eq!(desk.attempts_of(TaskKind::Map, 0), 1);
        let attempt = desk.only(reducer);
        desk.fetch_failed(reducer, attempt, &output, FetchProblem::Unreachable);
    }
    desk.wait(1, &[]);
    assert_eq!(desk.attempts_of(TaskKind::Map, 0), 2);
    let _ = other;
}

#[test]
fn a_stale_report_does_no_harm() {
    let mut desk = Desk::new();
    let (a, b) = shuffling(&mut desk);
    let output = desk.seats[&b]
        .outputs
        .values()
        .next()
        .expect("known")
        .clone();
    let (ra, rb) = (desk.only(a), desk.only(b));
    desk.fetch_failed(a, ra, &output, FetchProblem::Corrupt);
    desk.wait(1, &[]);
    let runs = desk.attempts_of(TaskKind::Map, output.attempt.task.index);
    assert_eq!(runs, 2);
    desk.fetch_failed(b, rb, &output, FetchProblem::Corrupt);
    desk.wait(1, &[]);
    let runs = desk.attempts_of(TaskKind::Map, output.attempt.task.index);
    assert_eq!(runs, 2, "that output is known to be gone");
}

#[test]
fn a_reducer_that_alone_cannot_reach_anybody_is_the_one_that_moves() {
    let mut desk = Desk::new();
    let links: Vec<_> = (0..6).map(|i| desk.join(&format!("h{i}"))).collect();
    desk.submit(job(6, 5));
    for link in &links {
        desk.finish(*link, desk.only_map(*link));
    }
    let cut = links[0];
    let reduce = desk.only(cut);
    let outputs: Vec<_> = desk.seats[&cut].outputs.values().cloned().collect();
    for _ in 0..2 {
        for output in &outputs {
            desk.fetch_failed(cut, reduce, output, FetchProblem::Unreachable);
        }
    }
    desk.wait(2, &[]);
    assert!(desk.seats[&cut].heard.contains(&ToWorker::Kill(reduce)));
    for index in 0..6 {
        assert_eq!(
            desk.attempts_of(TaskKind::Map, index),
            1,
            "nobody believed it"
        );
    }
    let moved = desk.assigned.last().expect("again");
    assert!(moved.0 != cut && moved.1.task == reduce.task);
}

#[test]
fn an_attempt_that_does_not_get_on_is_killed_and_counts_as_failed() {
    let mut desk = Desk::new();
    let (a, b) = (desk.join("a"), desk.join("b"));
    let mut submission = job(1, 1);
    submission.spec.limits.stalled_ms = 30_000;
    submission.spec.speculative = false;
    let id = desk.submit(submission);
    let (first, second) = if desk.running(a).is_empty() {
        (b, a)
    } else {
        (a, b)
    };
    let stalled = desk.only(first);
    desk.wait(32, &[]);
    assert!(desk.seats[&first].heard.contains(&ToWorker::Kill(stalled)));
    desk.only(second);
    let failures = desk.master.progress(desk.now, id).expect("known").failures;
    assert_eq!(failures[0].2.what, "no progress for 30 s");
}

#[test]
fn a_worker_that_leaves_is_missed_at_once() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.submit(job(1, 1));
    let task = desk.only(a).task;
    let b = desk.join("b");
    desk.say(a, ToMaster::Leave);
    assert_eq!(desk.only(b).task, task);
}
