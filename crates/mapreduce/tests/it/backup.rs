//! Backup tasks.

use crate::desk::{Desk, job};
use shoal_mapreduce::master::{Link, Outcome};
use shoal_mapreduce::message::{Phase, ToWorker};

/// Five workers of which the last is a straggler: the others finish their maps after 20 s.
fn straggling(desk: &mut Desk) -> (Vec<Link>, Link) {
    let links: Vec<_> = (0..5).map(|i| desk.join(&format!("h{i}"))).collect();
    desk.submit(job(5, 1));
    let slow = links[4];
    for step in 1..=4 {
        desk.wait(5, &[]);
        for link in &links[..4] {
            if let Some(map) = desk.running(*link).first() {
                desk.progress(*link, *map, Phase::Map, step * 25);
            }
        }
        desk.progress(slow, desk.only(slow), Phase::Map, step);
    }
    for link in &links[..4] {
        desk.finish(*link, desk.only(*link));
    }
    (links, slow)
}

#[test]
fn a_straggler_gets_one_backup_on_another_host_and_the_first_to_finish_wins() {
    let mut desk = Desk::new();
    let (_, slow) = straggling(&mut desk);
    let original = desk.only(slow);
    desk.wait(2, &[]);
    let backups: Vec<_> = desk
        .assigned
        .iter()
        .filter(|(_, a)| a.task == original.task && *a != original)
        .copied()
        .collect();
    let [(link, backup)] = backups[..] else {
        panic!("one backup expected: {backups:?}")
    };
    assert_ne!(link, slow);
    desk.wait(30, &[]);
    assert_eq!(desk.attempts_of(original.task.kind, original.task.index), 2);
    desk.finish(link, backup);
    assert!(desk.seats[&slow].heard.contains(&ToWorker::Kill(original)));
    desk.finish(slow, original);
    assert!(
        desk.seats[&slow]
            .heard
            .contains(&ToWorker::Denied(original))
    );
    desk.finish_all();
    assert!(matches!(desk.ended[..], [(_, Outcome::Succeeded)]));
}

#[test]
fn an_attempt_that_has_taken_in_all_its_input_and_does_not_end_gets_a_backup() {
    let mut desk = Desk::new();
    let links: Vec<_> = (0..3).map(|i| desk.join(&format!("h{i}"))).collect();
    desk.submit(job(3, 1));
    let stuck = desk.only(links[2]);
    desk.progress(links[2], stuck, Phase::Map, 100);
    for link in &links[..2] {
        desk.wait(1, &[]);
        desk.finish(*link, desk.only_map(*link));
    }
    desk.wait(7, &[]);
    assert_eq!(desk.attempts_of(stuck.task.kind, stuck.task.index), 1);
    desk.wait(3, &[]);
    assert_eq!(desk.attempts_of(stuck.task.kind, stuck.task.index), 2);
}

#[test]
fn without_speculation_nobody_gets_a_backup() {
    let mut desk = Desk::new();
    let a = desk.join("a");
    desk.join("b");
    let mut submission = job(1, 1);
    submission.spec.speculative = false;
    desk.submit(submission);
    desk.wait(300, &[]);
    let _ = a;
    assert_eq!(desk.assigned.len(), 1);
}

#[test]
fn quick_tasks_get_no_backup() {
    let mut desk = Desk::new();
    let links: Vec<_> = (0..4).map(|i| desk.join(&format!("h{i}"))).collect();
    desk.submit(job(8, 1));
    for _ in 0..2 {
        desk.wait(1, &[]);
        for link in &links[..3] {
            if let Some(map) = desk.running(*link).first() {
                desk.finish(*link, *map);
            }
        }
    }
    desk.wait(5, &[]);
    for index in 0..8 {
        let kind = shoal_mapreduce::id::TaskKind::Map;
        assert!(desk.attempts_of(kind, index) <= 1);
    }
}

#[test]
fn backups_never_take_more_than_their_share_of_the_slots() {
    let mut desk = Desk::new();
    for i in 0..20 {
        desk.join_with(&format!("h{i}"), 2, vec![]);
    }
    // 40 slots: at most 4 backups, whatever is slow.
    desk.submit(job(20, 1));
    let running: Vec<_> = desk.assigned.clone();
    for _ in 0..10 {
        desk.wait(5, &[]);
        for (i, (link, map)) in running.iter().enumerate() {
            desk.progress(*link, *map, Phase::Map, if i < 10 { 90 } else { 1 });
        }
    }
    let backups = desk.assigned.len() - running.len();
    assert_eq!(backups, 4);
}
