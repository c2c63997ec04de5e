//! How a job is shown.

use std::time::Duration;

use shoal_jobs::view::JobView;

use crate::report::Report;
use crate::ui::{Step, Ui};

/// A job began, or goes on.
pub(super) fn started(job: &str, view: Option<&JobView>, resumed: bool, ui: &Ui) {
    let Some(view) = view else { return };
    ui.report(&Report::JobStarted {
        job,
        name: &view.name,
        maps: view.maps.total,
        reduces: view.reduces.total,
        resumed,
    });
    let verb = if resumed { "Resuming" } else { "Running" };
    let text = format!("{} into {}", view.name, view.output);
    if resumed {
        ui.status(verb, &text);
    } else {
        ui.news(verb, &text);
    }
}

/// Something that people want to know happened.
pub(super) fn notice(job: &str, text: &str, ui: &Ui) {
    ui.report(&Report::JobNotice { job, text });
    ui.news("Note", text);
}

/// Where a job stands.
pub(super) fn progress(view: &JobView, ui: &Ui) {
    let job = view.id.to_string();
    let (maps, reduces) = (view.maps, view.reduces);
    ui.report(&Report::JobProgress {
        job: &job,
        map: view.map,
        shuffle: view.shuffle,
        reduce: view.reduce,
        maps_done: maps.done,
        maps_running: maps.running,
        maps: maps.total,
        reduces_done: reduces.done,
        reduces_running: reduces.running,
        reduces: reduces.total,
        eta_s: view.eta_s,
        waiting_for: view.waiting_for.as_deref(),
    });
    let percent = |share: f64| (share * 100.0).floor() as u64;
    let mut detail = format!("map {}%", percent(view.map));
    if reduces.total > 0 {
        let (shuffle, reduce) = (percent(view.shuffle), percent(view.reduce));
        detail = format!("{detail} shuffle {shuffle}% reduce {reduce}%");
    }
    match (&view.waiting_for, view.eta_s) {
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

/// The last word of a job that succeeded: its counters above all.
pub(super) fn done(view: &JobView, took: Duration, ui: &Ui) {
    for (group, names) in &view.counters {
        for (name, value) in names {
            // The engine's own are for those who ask; a job's are what it counted for.
            if group == "shoal" {
                ui.news("Counter", &format!("{group} {name} {value}"));
            } else {
                ui.status("Counter", &format!("{group} {name} {value}"));
            }
        }
    }
    for record in &view.skipped {
        ui.warn(&format!(
            "left out a record on which the code failed: {record}"
        ));
    }
    let job = view.id.to_string();
    let seconds = took.as_secs_f64();
    ui.report(&Report::JobDone {
        job: &job,
        output: &view.output,
        seconds,
        counters: &view.counters,
        skipped: view.skipped.len(),
        failed_attempts: view.failures.len(),
    });
    let count = |name: &str| {
        let own = view.counters.get("shoal");
        own.and_then(|c| c.get(name)).copied().unwrap_or(0)
    };
    let wrote = if view.reduces.total > 0 {
        count("reduce_output_records")
    } else {
        count("map_output_records")
    };
    let read = count("map_input_records");
    ui.status(
        "Finished",
        &format!("{read} records in, {wrote} out, {seconds:.2}s"),
    );
}
