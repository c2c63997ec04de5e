//! `shoal run`: a MapReduce job.

mod show;
mod spec;

use std::num::NonZero;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_jobs::engine::master::{MasterError, News};
use shoal_jobs::input::{InputError, Inputs};
use shoal_jobs::prepare::{Plan, PrepareError};
use shoal_jobs::run::{LocalRun, RunError};
use shoal_mapreduce::master::{JobProgress, Outcome};
use shoal_store::job::OutputError;

use crate::cli::RunArgs;
use crate::failure::{Exit, Failure, Outcome as Result_};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &RunArgs, ui: &Ui) -> Result_<Exit> {
    let started = Instant::now();
    let job = spec::from_args(args)?;
    let slots = args.workers.unwrap_or_else(processors);
    let interrupt = Interrupt::install()?;
    let plan = Plan {
        parallel: slots,
        reduces_given: job.reduces_given,
        split_given: args.split_size.is_some(),
    };
    let output = job.spec.output.clone();
    let name = job.spec.name.clone();
    let run = LocalRun::start(job.spec, plan, Inputs::default()).map_err(|e| not_started(&e))?;
    let job_id = run.job().to_string();
    let first = run.progress();
    ui.report(&Report::JobStarted {
        job: &job_id,
        name: &name,
        maps: first.as_ref().map_or(0, |p| p.maps.total),
        reduces: first.as_ref().map_or(0, |p| p.reduces.total),
        resumed: run.resumed(),
    });
    if run.resumed() {
        ui.status("Resuming", &format!("{name} into {output}"));
    } else {
        ui.news("Running", &format!("{name} into {output}, {slots} at once"));
    }
    let outcome = loop {
        select! {
            recv(run.news()) -> news => match news {
                Ok(News::Ended(job, outcome)) if job == run.job() => break outcome,
                Ok(News::Notice(_, text)) => show::notice(&job_id, &text, ui),
                Ok(News::Ended(..)) => {}
                Ok(News::Broken(why)) => return Err(Failure::failed("the job cannot go on").reason(why)),
                Err(_) => return Err(Failure::failed("the master ended")),
            },
            recv(interrupt.woken()) -> _ => {
                ui.finish_step();
                run.stop();
                ui.report(&Report::JobInterrupted { job: &job_id });
                ui.hint("the same command goes on where this one stopped");
                return Ok(Exit::Interrupted);
            }
            default(LOOK) => {}
        }
        if ui.tick_due()
            && let Some(progress) = run.progress()
        {
            if let Some(outcome) = progress.outcome.clone() {
                break outcome;
            }
            show::progress(&progress, ui);
            ui.ticked();
        }
    };
    let last = run.progress();
    run.stop();
    ui.finish_step();
    ended(outcome, last.as_ref(), &output, started, ui)
}

/// Says how a job ended.
fn ended(
    outcome: Outcome,
    last: Option<&JobProgress>,
    output: &str,
    started: Instant,
    ui: &Ui,
) -> Result_<Exit> {
    match outcome {
        Outcome::Succeeded => {
            if let Some(last) = last {
                show::counters(last, ui);
                show::done(last, output, started.elapsed(), ui);
            }
            ui.result(output);
            Ok(Exit::Ok)
        }
        Outcome::Cancelled => Err(Failure::new(Exit::Refused, "the job was cancelled")),
        Outcome::Failed {
            attempt,
            host,
            cause,
        } => {
            let mut failure = Failure::failed(format!("the job failed in {attempt} on {host}"));
            for line in cause.what.lines() {
                failure = failure.reason(line);
            }
            if let Some(records) = cause.records {
                let last = records.to.saturating_sub(1);
                failure = failure.reason(if records.len() == 1 {
                    format!("at record {} of its input, counted from 0", records.from)
                } else {
                    format!("within records {} to {last} of its input", records.from)
                });
                failure = failure.hint("--skip-bad N leaves out up to N records that fail");
            }
            Err(failure)
        }
    }
}

/// Processors that this process may use.
fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| {
        u32::try_from(NonZero::get(n)).unwrap_or(1024).min(1024)
    })
}

fn not_started(error: &RunError) -> Failure {
    let failure = |exit| Failure::new(exit, "cannot run the job").because(error);
    match error {
        RunError::Output(OutputError::Exists(_)) => failure(Exit::Refused)
            .hint("name another --output, or remove the folder if nobody needs it"),
        RunError::Prepare(PrepareError::Input(InputError::Missing(_) | InputError::Empty(_))) => {
            failure(Exit::NotFound)
        }
        RunError::Prepare(PrepareError::Input(InputError::Web { .. })) => {
            failure(Exit::Unreachable)
        }
        RunError::Master(MasterError::Locked(_)) => {
            failure(Exit::Refused).hint("the same job runs already; wait for it or end it")
        }
        _ => failure(Exit::Failed),
    }
}
