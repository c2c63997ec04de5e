//! Strangers.

use crate::desk::{Desk, job};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::master::{Link, Outcome};
use shoal_mapreduce::message::ToWorker;

/// Everybody finishes what it runs, until nothing runs: liars with output of their own.
fn play(desk: &mut Desk, liars: &[Link]) {
    for _ in 0..10_000 {
        let next = desk.next_ready();
        let Some((link, attempt)) = next else {
            return;
        };
        desk.finish_as(link, attempt, if liars.contains(&link) { 66 } else { 1 });
    }
}

fn runs(desk: &Desk) -> usize {
    desk.assigned.len()
}

#[test]
fn results_of_new_strangers_are_compared_with_a_second_one() {
    let mut desk = Desk::new();
    desk.stranger(1);
    let id = desk.submit(job(1, 1));
    desk.wait(1, &[]);
    play(&mut desk, &[]);
    desk.wait(20, &[]);
    let waits = desk
        .master
        .progress(desk.now, id)
        .and_then(|p| p.waiting_for);
    assert!(waits.expect("a reason").contains("second worker"));
    desk.stranger(2);
    desk.wait(1, &[]);
    play(&mut desk, &[]);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    assert_eq!(runs(&desk), 4, "both tasks twice");
}

#[test]
fn one_of_ours_needs_nobody_to_confirm_it() {
    let mut desk = Desk::new();
    desk.join("own");
    desk.submit(job(3, 1));
    play(&mut desk, &[]);
    assert_eq!(runs(&desk), 4);
}

#[test]
fn a_liar_is_found_shut_out_and_outvoted() {
    let mut desk = Desk::new();
    let liar = desk.stranger(1);
    desk.stranger(2);
    desk.stranger(3);
    let id = desk.submit(job(6, 2));
    play(&mut desk, &[liar]);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    assert!(desk.closed.contains(&liar));
    let back = desk.stranger(1);
    assert!(desk.closed.contains(&back), "it may not come back");
}

#[test]
fn checking_trusted_strangers_costs_at_most_a_tenth() {
    let mut desk = Desk::new();
    for key in 1..=4 {
        desk.stranger(key);
    }
    desk.submit(job(100, 1));
    play(&mut desk, &[]);
    let before = runs(&desk);
    desk.submit(job(1000, 1));
    play(&mut desk, &[]);
    let (tasks, more) = (1001, runs(&desk) - before);
    assert!(
        more >= tasks && more * 10 <= tasks * 11,
        "{more} attempts for {tasks} tasks"
    );
}

#[test]
fn all_that_a_proven_liar_committed_unseen_is_made_again_and_reduces_that_used_it_too() {
    let mut desk = Desk::new();
    desk.publishes = false;
    let sleeper = desk.stranger(1);
    for key in 2..=4 {
        desk.stranger(key);
    }
    // It earns trust first.
    desk.submit(job(100, 1));
    play(&mut desk, &[]);
    let first = *desk.publish.last().expect("a reduce");
    desk.give(shoal_mapreduce::master::MasterInput::Published { attempt: first });
    assert_eq!(desk.ended.len(), 1);
    // Then it lies, mostly unseen, until a spot check finds it out.
    let mut jobs = 0;
    while !desk.closed.contains(&sleeper) {
        jobs += 1;
        assert!(jobs < 50, "it must be found some time");
        desk.publishes = true;
        desk.submit(job(40, 1));
        play(&mut desk, &[sleeper]);
    }
    let (last, outcome) = desk.ended.last().cloned().expect("it ended");
    assert_eq!(outcome, Outcome::Succeeded);
    // Of the job in which it was caught, no output of its is known any more.
    let liar = desk.seats[&sleeper].worker.expect("welcome");
    let reducer = desk.seats.values().filter(|seat| {
        seat.outputs.keys().any(|task| task.job == last) && seat.worker != Some(liar)
    });
    let mut seen = 0;
    for seat in reducer {
        for output in seat.outputs.values().filter(|o| o.attempt.task.job == last) {
            seen += 1;
            assert_eq!(output.digest, [1; 32], "{output:?}");
        }
    }
    assert!(seen >= 40, "{seen}");
}

#[test]
fn a_wrong_map_that_reduces_used_makes_them_run_again() {
    let mut desk = Desk::new();
    let (sleeper, honest) = (desk.stranger(1), desk.stranger(2));
    desk.submit(job(60, 1));
    play(&mut desk, &[]);
    assert_eq!(desk.ended.len(), 1);
    desk.publishes = false;
    for _ in 0..200 {
        let id = desk.submit(job(2, 1));
        // The sleeper lies in the maps; both do the reduce honestly.
        while let Some((link, attempt)) = desk.next_ready() {
            let lies = link == sleeper && attempt.task.kind == TaskKind::Map;
            desk.finish_as(link, attempt, if lies { 66 } else { 1 });
        }
        if desk.closed.contains(&sleeper) || !desk.publish.iter().any(|a| a.task.job == id) {
            break;
        }
        let attempt = *desk.publish.last().expect("asked for");
        desk.give(shoal_mapreduce::master::MasterInput::Published { attempt });
    }
    // A dispute between two strangers wants a third, or one of ours.
    let own = desk.join("own");
    desk.wait(4, &[]);
    desk.publishes = true;
    play(&mut desk, &[]);
    assert!(desk.closed.contains(&sleeper) && !desk.closed.contains(&honest));
    assert!(!desk.running(own).is_empty() || desk.ended.len() > 1);
    let heard = &desk.seats[&honest].heard;
    assert!(heard.iter().any(|m| matches!(m, ToWorker::Granted(_))));
}

#[test]
fn trust_and_guilt_outlive_the_master() {
    let mut desk = Desk::new();
    let liar = desk.stranger(9);
    for key in 1..=3 {
        desk.stranger(key);
    }
    desk.submit(job(60, 1));
    play(&mut desk, &[liar]);
    assert!(desk.closed.contains(&liar));
    desk.restart(desk.log.len());
    let back = desk.stranger(9);
    assert!(desk.closed.contains(&back), "it may not come back");
    for key in 1..=3 {
        desk.stranger(key);
    }
    let before = runs(&desk);
    desk.submit(job(100, 1));
    desk.wait(3, &[]);
    play(&mut desk, &[]);
    let more = runs(&desk) - before;
    assert!((101..=112).contains(&more), "{more} attempts for 101 tasks");
}

#[test]
fn results_that_differ_in_their_counters_alone_are_different() {
    let mut desk = Desk::new();
    let (one, two) = (desk.stranger(1), desk.stranger(2));
    desk.stranger(3);
    let id = desk.submit(job(1, 0));
    let first = desk.only_map(one);
    desk.finish_counting(one, first, 1, 5);
    let second = desk.only_map(two);
    desk.finish_counting(two, second, 1, 1);
    assert!(desk.ended.is_empty(), "a third opinion is wanted");
    play(&mut desk, &[]);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    assert!(desk.closed.contains(&one) && !desk.closed.contains(&two));
}

#[test]
fn ours_that_began_before_strangers_came_make_nobody_a_liar() {
    let mut desk = Desk::new();
    let own = desk.join("own");
    let id = desk.submit(job(1, 0));
    let attempt = desk.only_map(own);
    let stranger = desk.stranger(1);
    desk.finish_as(own, attempt, 0);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    desk.submit(job(2, 0));
    let (mine, its) = (desk.only_map(own), desk.only_map(stranger));
    let verified = |desk: &Desk, link| desk.seats[&link].running.iter().all(|a| a.verified);
    assert!(verified(&desk, own) && verified(&desk, stranger));
    desk.finish(stranger, its);
    desk.finish(own, mine);
    play(&mut desk, &[]);
    assert_eq!(desk.ended.len(), 2);
    assert!(!desk.closed.contains(&stranger));
}

#[test]
fn output_that_a_stranger_does_not_hand_over_is_made_by_somebody_else() {
    let mut desk = Desk::new();
    desk.publishes = false;
    let links = [desk.stranger(1), desk.stranger(2), desk.stranger(3)];
    let id = desk.submit(job(1, 0));
    play(&mut desk, &[]);
    let made = *desk.publish.last().expect("asked for");
    let maker = desk
        .assigned
        .iter()
        .find(|(_, a)| *a == made)
        .expect("it ran")
        .0;
    let before = runs(&desk);
    desk.give(shoal_mapreduce::master::MasterInput::PublishFailed {
        attempt: made,
        why: "other bytes".into(),
    });
    desk.publishes = true;
    play(&mut desk, &[]);
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    let again: Vec<_> = desk.assigned[before..]
        .iter()
        .map(|(link, _)| *link)
        .collect();
    assert!(
        !again.contains(&maker) && links.contains(&again[0]),
        "{again:?}"
    );
}

#[test]
fn who_alone_says_that_it_cannot_fetch_makes_nothing_run_again() {
    let mut desk = Desk::new();
    let (own, stranger) = (desk.join("own"), desk.stranger(1));
    desk.submit(job(1, 2));
    let map = desk.only_map(own);
    desk.finish(own, map);
    desk.wait(1, &[]);
    let (mine, its) = (desk.only_reduce(own), desk.only_reduce(stranger));
    desk.finish(own, mine);
    let output = desk.seats[&stranger].outputs.values().next();
    let output = output.expect("it was told").clone();
    for _ in 0..3 {
        let problem = shoal_mapreduce::message::FetchProblem::Corrupt;
        desk.fetch_failed(stranger, its, &output, problem);
    }
    assert_eq!(desk.attempts_of(TaskKind::Map, 0), 1);
    assert!(
        !desk.running(stranger).contains(&its),
        "its attempt is over"
    );
    let again = desk.only_reduce(own);
    assert_eq!(again.task, its.task);
}
