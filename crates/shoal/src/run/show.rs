//! How a job is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_mapreduce::master::JobProgress;

use crate::report::Report;
use crate::ui::{Step, Ui};

/// Counters as JSON has them: group, name, value.
type Groups<'a> = BTreeMap<&'a str, BTreeMap<&'a str, u64>>;

fn groups(progress: &JobProgress) -> Groups<'_> {
    let mut groups = Groups::new();
    for ((group, name), value) in &progress.counters {
        groups.entry(group).or_default().insert(name, *value);
    }
    groups
}

/// Something that people want to know happened.
pub(super) fn notice(job: &str, text: &str, ui: &Ui) {
    ui.report(&Report::JobNotice { job, text });
    ui.news("Note", text);
}

/// Where a job stands.
pub(super) fn progress(progress: &JobProgress, ui: &Ui) {
    let job = progress.job.to_string();
    let (maps, reduces) = (progress.maps, progress.reduces);
    ui.report(&Report::JobProgress {
        job: &job,
        map: progress.map,
        shuffle: progress.shuffle,
        reduce: progress.reduce,
        maps_done: maps.done,
        maps_running: maps.running,
        maps: maps.total,
        reduces_done: reduces.done,
        reduces_running: reduces.running,
        reduces: reduces.total,
        eta_s: progress.eta_s,
        waiting_for: progress.waiting_for.as_deref(),
    });
    let percent = |share: f64| (share * 100.0).floor() as u64;
    let mut detail = format!("map {}%", percent(progress.map));
    if reduces.total > 0 {
        let (shuffle, reduce) = (percent(progress.shuffle), percent(progress.reduce));
        detail = format!("{detail} shuffle {shuffle}% reduce {reduce}%");
    }
    match (&progress.waiting_for, progress.eta_s) {
        (Some(why), _) => detail = format!("{detail}, {why}"),
        (None, Some(eta)) => detail = format!("{detail}, {}s left", eta.ceil() as u64),
        (None, None) => {}
    }
    ui.step(&Step {
        verb: "Running",
        done: u64::from(maps.done) + u64::from(reduces.done),
        total: u64::from(maps.total) + u64::from(reduces.total),
        bytes: false,
        detail: &detail,
    });
}

/// Counters of a job that is over.
pub(super) fn counters(progress: &JobProgress, ui: &Ui) {
    for (group, names) in groups(progress) {
        for (name, value) in names {
            ui.news("Counter", &format!("{group} {name} {value}"));
        }
    }
    for (task, record) in &progress.skipped {
        ui.warn(&format!("{task}: record {record} was left out"));
    }
}

/// The last word of a job that succeeded.
pub(super) fn done(progress: &JobProgress, output: &str, took: Duration, ui: &Ui) {
    let job = progress.job.to_string();
    let seconds = took.as_secs_f64();
    ui.report(&Report::JobDone {
        job: &job,
        output,
        seconds,
        counters: groups(progress),
        skipped: progress.skipped.len(),
        failed_attempts: progress.failures.len(),
    });
    let count = |name: &str| {
        let key = ("shoal".to_owned(), name.to_owned());
        progress.counters.get(&key).copied().unwrap_or(0)
    };
    let (read, wrote) = if progress.reduces.total > 0 {
        (count("map_input_records"), count("reduce_output_records"))
    } else {
        (count("map_input_records"), count("map_output_records"))
    };
    ui.status(
        "Finished",
        &format!("{read} records in, {wrote} out, {seconds:.2}s"),
    );
}
