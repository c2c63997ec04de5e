//! A job handed to a standing master.

use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use shoal_jobs::input::Inputs;
use shoal_jobs::net::client::{Reply, Request};
use shoal_jobs::prepare::{Plan, prepare};
use shoal_mapreduce::job::JobSpec;

use super::{LOOK, QUICK_LOOK, ended, not_prepared, show};
use crate::cli::RunArgs;
use crate::cluster;
use crate::failure::{Exit, Failure, Outcome};
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unreachable, "the master does not answer")
        .because(error)
        .hint("the job goes on when the master is back: shoal job list")
}

/// Submits a job and shows it until it is over. Ctrl-C leaves it running.
pub(super) fn submit(
    mut spec: JobSpec,
    mut plan: Plan,
    inputs: &Inputs,
    master: &str,
    args: &RunArgs,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Exit> {
    let started = Instant::now();
    let base = args.content.state_dir.as_deref();
    let station = OnOverlay::toward(master, &args.join, base, interrupt, ui)?;
    let mut client = cluster::connect(master, args.secret_file.as_deref(), station.as_ref())?;
    if let Reply::Workers(workers) = client.ask(&Request::Workers).map_err(|e| lost(&e))? {
        plan.parallel = workers.iter().map(|w| w.slots).sum::<u32>().max(1);
    }
    spec.output = std::path::absolute(&spec.output)
        .map_err(|e| Failure::io("find the folder of", spec.output.as_ref(), &e))?
        .to_string_lossy()
        .into_owned();
    let scratch = std::env::temp_dir().join(format!("shoal-submit-{}", std::process::id()));
    let submission = prepare(spec, plan, inputs, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    let submission = submission.map_err(|e| not_prepared(&e))?;
    let request = Request::Submit(Box::new(submission));
    let job = match client.ask(&request).map_err(|e| lost(&e))? {
        Reply::Accepted(job) => job,
        Reply::Refused(why) => {
            return Err(Failure::new(Exit::Refused, "the master refuses the job").reason(why));
        }
        _ => return Err(Failure::failed("the master speaks another language")),
    };
    let name = job.to_string();
    let first = client.job(job).map_err(|e| lost(&e))?;
    show::started(&name, first.as_ref(), false, ui);
    loop {
        let view = client
            .job(job)
            .map_err(|e| lost(&e))?
            .ok_or_else(|| Failure::not_found(format!("the master does not know {name}")))?;
        if let Some(outcome) = view.outcome.clone() {
            return ended(outcome, Some(&view), started.elapsed(), ui);
        }
        if ui.tick_due() {
            show::progress(&view, ui);
            ui.ticked();
        }
        // A quick job is looked at often, so that it does not end long before that is seen.
        let wait = (started.elapsed() / 8).clamp(QUICK_LOOK, LOOK);
        match interrupt.woken().recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => {
                ui.finish_step();
                ui.report(&Report::JobInterrupted { job: &name });
                ui.hint(&format!(
                    "the job goes on: shoal job show {name} --master {master}"
                ));
                return Ok(Exit::Interrupted);
            }
        }
    }
}
