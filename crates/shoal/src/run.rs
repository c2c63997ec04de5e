//! `shoal run`: a MapReduce job.

pub(crate) mod content;
mod engine;
mod remote;
mod show;
pub(crate) mod spec;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_jobs::cluster::ClusterError;
use shoal_jobs::engine::master::{MasterError, News};
use shoal_jobs::input::{InputError, Inputs};
use shoal_jobs::prepare::{Plan, PrepareError};
use shoal_jobs::run::{Place, Run, RunError};
use shoal_jobs::view::JobView;
use shoal_mapreduce::master::Outcome as JobOutcome;
use shoal_store::job::OutputError;

use self::content::Content;
use crate::cli::{Engine, RunArgs};
use crate::cluster;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::share::share_until;
use crate::signals::Interrupt;
use crate::ui::Ui;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The same at the start of a job elsewhere.
const QUICK_LOOK: Duration = Duration::from_millis(2);

/// Runs the command.
pub(crate) fn run(args: &RunArgs, ui: &Ui) -> Outcome<Exit> {
    let job = spec::from_args(args)?;
    if args.hand_over.engine != Engine::Shoal {
        return engine::run(job, args, ui);
    }
    if args.hand_over.dry_run || args.hand_over.engine_dir.is_some() {
        let what = "--dry-run and --engine-dir are for other engines";
        return Err(Failure::usage(what).hint("--engine spark or --engine hadoop"));
    }
    let output = PathBuf::from(&job.spec.output);
    let interrupt = Interrupt::install()?;
    match run_job(args, job, &interrupt, ui)? {
        Exit::Ok if args.share_output => share_until(&args.share(output), &interrupt, ui),
        exit => Ok(exit),
    }
}

fn run_job(args: &RunArgs, mut job: spec::Job, interrupt: &Interrupt, ui: &Ui) -> Outcome<Exit> {
    let plan = Plan {
        parallel: args.workers.unwrap_or_else(processors),
        reduces_given: job.reduces_given,
        split_given: args.split_size.is_some(),
    };
    let content = Arc::new(Content::new(&args.content));
    content.portable(&mut job.spec.inputs)?;
    let inputs = Inputs::default().with(content);
    if let Some(master) = &args.master {
        return remote::submit(job.spec, plan, &inputs, master, args, interrupt, ui);
    }
    let place = match args.master_listen {
        None => Place::Here,
        Some(listen) => Place::Workers {
            listen,
            secret: cluster::secret(args.secret_file.as_deref())?,
            lease: Duration::from_secs(args.lease.max(1)),
        },
    };
    let run = Run::start(job.spec, plan, inputs, &place).map_err(|e| not_started(&e))?;
    follow(run, interrupt, ui)
}

/// Shows a job until it is over or the user asks to stop.
pub(crate) fn follow(run: Run, interrupt: &Interrupt, ui: &Ui) -> Outcome<Exit> {
    let started = Instant::now();
    let job = run.job().to_string();
    if let Some(addr) = run.addr() {
        ui.report(&Report::Listening { addr, proto: "tcp" });
        ui.status(
            "Listening",
            &format!("for workers: shoal worker --master {addr}"),
        );
    }
    show::started(&job, run.view().as_ref(), run.resumed(), ui);
    let outcome = loop {
        select! {
            recv(run.news()) -> news => match news {
                Ok(News::Ended(ended, outcome)) if ended == run.job() => break outcome,
                Ok(News::Notice(_, text)) => show::notice(&job, &text, ui),
                Ok(News::Ended(..)) => {}
                Ok(News::Broken(why)) => {
                    return Err(Failure::failed("the job cannot go on").reason(why));
                }
                Err(_) => return Err(Failure::failed("the master ended")),
            },
            recv(interrupt.woken()) -> _ => {
                ui.finish_step();
                run.stop();
                ui.report(&Report::JobInterrupted { job: &job });
                ui.hint("the same command goes on where this one stopped");
                return Ok(Exit::Interrupted);
            }
            default(LOOK) => {}
        }
        if ui.tick_due()
            && let Some(view) = run.view()
        {
            if let Some(outcome) = view.outcome {
                break outcome;
            }
            show::progress(&view, ui);
            ui.ticked();
        }
    };
    let last = run.view();
    run.stop();
    ended(outcome, last.as_ref(), started.elapsed(), ui)
}

/// Says how a job ended.
fn ended(outcome: JobOutcome, last: Option<&JobView>, took: Duration, ui: &Ui) -> Outcome<Exit> {
    ui.finish_step();
    match outcome {
        JobOutcome::Succeeded => {
            if let Some(last) = last {
                show::done(last, took, ui);
                ui.result(&last.output);
            }
            Ok(Exit::Ok)
        }
        JobOutcome::Cancelled => Err(Failure::new(Exit::Refused, "the job was cancelled")),
        JobOutcome::Failed {
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
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| {
        u32::try_from(NonZero::get(n)).unwrap_or(1024).min(1024)
    })
}

/// Why a job did not start.
pub(crate) fn not_started(error: &RunError) -> Failure {
    let failure = |exit| Failure::new(exit, "cannot run the job").because(error);
    match error {
        RunError::Output(OutputError::Exists(_)) => failure(Exit::Refused)
            .hint("name another --output, or remove the folder if nobody needs it"),
        RunError::NoJob(_) => failure(Exit::NotFound),
        RunError::Prepare(error) => not_prepared(error),
        RunError::Master(MasterError::Locked(_))
        | RunError::Cluster(ClusterError::Master(MasterError::Locked(_))) => {
            failure(Exit::Refused).hint("the same job runs already; wait for it or end it")
        }
        _ => failure(Exit::Failed),
    }
}

fn not_prepared(error: &PrepareError) -> Failure {
    let exit = match error {
        PrepareError::Input(InputError::Missing(_) | InputError::Empty(_)) => Exit::NotFound,
        PrepareError::Input(InputError::Web { .. }) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::new(exit, "cannot run the job").because(error)
}
