//! Who gets which task.

use crate::desk::{Desk, holding, job};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::job::Code;
use shoal_mapreduce::master::{MasterInput, Outcome};

#[test]
fn a_job_without_workers_waits_and_says_so_and_late_workers_get_its_tasks() {
    let mut desk = Desk::new();
    let id = desk.submit(job(2, 1));
    desk.wait(60, &[]);
    let progress = desk.master.progress(desk.now, id).expect("known");
    assert_eq!(
        progress.waiting_for.as_deref(),
        Some("workers: none has joined")
    );
    desk.join("a");
    desk.wait(1, &[]);
    let late = desk.join("late");
    assert_eq!(desk.running(late).len(), 1);
    desk.finish_all();
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    let progress = desk.master.progress(desk.now, id).expect("kept");
    let finished = ("test".to_owned(), "finished".to_owned());
    assert_eq!(progress.counters.get(&finished), Some(&3));
    assert_eq!((progress.map, progress.reduce), (1.0, 1.0));
}

#[test]
fn maps_go_to_who_holds_their_input_and_a_replica_is_processed_once() {
    let mut desk = Desk::new();
    let a = desk.join_with("a", 2, holding(&[0, 1, 2]));
    let b = desk.join_with("b", 2, holding(&[2, 3]));
    desk.submit(job(4, 1));
    desk.wait(1, &[]);
    desk.finish_all();
    for (link, attempt) in &desk.assigned {
        if attempt.task.kind == TaskKind::Map {
            let index = attempt.task.index;
            assert!(
                (*link == a && index <= 2) || (*link == b && index >= 2),
                "{attempt}"
            );
        }
    }
    assert_eq!(desk.attempts_of(TaskKind::Map, 2), 1);
}

#[test]
fn input_that_others_hold_is_left_to_them_for_a_while_and_then_taken() {
    let mut desk = Desk::new();
    let holder = desk.join_with("holder", 1, holding(&[0, 1, 2]));
    let idle = desk.join("idle");
    desk.submit(job(3, 1));
    desk.wait(1, &[]);
    assert_eq!(
        (desk.running(holder).len(), desk.running(idle).len()),
        (1, 0)
    );
    desk.wait(3, &[]);
    assert_eq!(desk.running(idle).len(), 1, "it waited long enough");
}

#[test]
fn tasks_spread_over_workers_before_they_fill_one() {
    let mut desk = Desk::new();
    let workers: Vec<_> = (0..4)
        .map(|i| desk.join_with(&format!("h{i}"), 4, vec![]))
        .collect();
    desk.submit(job(4, 4));
    for worker in &workers {
        desk.only(*worker);
    }
}

#[test]
fn each_map_runs_once_while_nothing_fails_however_many_workers_are_idle() {
    let mut desk = Desk::new();
    let first = desk.join_with("a", 8, vec![]);
    desk.submit(job(8, 1));
    for i in 0..6 {
        desk.join(&format!("late{i}"));
    }
    desk.wait(5, &[]);
    for attempt in desk.running(first) {
        desk.finish(first, attempt);
    }
    desk.finish_all();
    for index in 0..8 {
        assert_eq!(desk.attempts_of(TaskKind::Map, index), 1);
    }
}

#[test]
fn reduces_begin_to_fetch_before_the_maps_are_done_and_never_take_their_slots() {
    let mut desk = Desk::new();
    let only = desk.join_with("a", 2, vec![]);
    desk.submit(job(10, 4));
    let first = desk.running(only)[0];
    desk.finish(only, first);
    let kinds: Vec<_> = desk.running(only).iter().map(|a| a.task.kind).collect();
    let maps = kinds.iter().filter(|k| **k == TaskKind::Map).count();
    assert_eq!((maps, kinds.len()), (2, 4), "two slots of each kind");
}

#[test]
fn higher_priority_goes_first_and_equals_share() {
    let mut desk = Desk::new();
    let low = desk.submit(job(40, 1));
    let other = desk.submit(job(40, 1));
    let mut urgent = job(2, 1);
    urgent.spec.priority = 5;
    let urgent = desk.submit(urgent);
    let worker = desk.join_with("a", 10, vec![]);
    let of = |desk: &Desk, job| {
        let all = desk.running(worker);
        all.iter().filter(|a| a.task.job == job).count()
    };
    assert_eq!(of(&desk, urgent), 2);
    assert_eq!((of(&desk, low), of(&desk, other)), (4, 4));
}

#[test]
fn a_job_of_maps_alone_publishes_them() {
    let mut desk = Desk::new();
    desk.join("a");
    let id = desk.submit(job(3, 0));
    desk.finish_all();
    assert_eq!(desk.ended, [(id, Outcome::Succeeded)]);
    assert_eq!(desk.publish.len(), 3);
}

#[test]
fn a_job_without_input_ends_at_once_or_with_empty_reduces() {
    let mut desk = Desk::new();
    let nothing = desk.submit(job(0, 0));
    assert_eq!(desk.ended, [(nothing, Outcome::Succeeded)]);
    desk.join("a");
    let empty = desk.submit(job(0, 1));
    desk.finish_all();
    assert_eq!(desk.ended.last(), Some(&(empty, Outcome::Succeeded)));
}

#[test]
fn a_cancelled_job_is_killed_everywhere() {
    let mut desk = Desk::new();
    let worker = desk.join_with("a", 4, vec![]);
    let id = desk.submit(job(4, 1));
    desk.give(MasterInput::Cancel(id));
    assert_eq!(desk.ended, [(id, Outcome::Cancelled)]);
    assert_eq!(desk.running(worker), []);
    let next = desk.submit(job(4, 1));
    assert_eq!(
        desk.running(worker).len(),
        4,
        "its slots are free for {next}"
    );
}

#[test]
fn strangers_get_no_native_code() {
    let mut desk = Desk::new();
    let stranger = desk.stranger(7);
    let mut native = job(1, 1);
    native.spec.mapper = Code::Streaming {
        command: "cat".into(),
    };
    let id = desk.submit(native);
    desk.wait(20, &[]);
    assert_eq!(desk.running(stranger), []);
    let why = desk
        .master
        .progress(desk.now, id)
        .and_then(|p| p.waiting_for);
    assert!(why.expect("a reason").contains("of one's own"));
    let own = desk.join("own");
    desk.only(own);
}
