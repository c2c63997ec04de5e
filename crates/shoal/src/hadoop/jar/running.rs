//! A job that runs: here, or with a standing master.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, select};
use shoal_jobs::engine::master::News;
use shoal_jobs::hadoop::store::{JobStore, StoreInputs};
use shoal_jobs::input::{InputError, Inputs};
use shoal_jobs::net::client::{Client, Reply, Request};
use shoal_jobs::prepare::{Plan, PrepareError, prepare};
use shoal_jobs::run::{Place, Run, RunError};
use shoal_jobs::view::JobView;
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::job::JobSpec;
use shoal_store::job::OutputError;

use crate::cluster;
use crate::failure::Failure;
use crate::run::processors;
use crate::signals::Interrupt;
use shoal_jobs::engine::attempt::chain;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A job that was begun.
pub(super) enum Running {
    /// In this process.
    Here(Box<Run>),
    /// On the workers of a master.
    There {
        client: Box<Client>,
        job: JobId,
        master: String,
    },
}

/// What is new when a wait is over.
pub(super) enum Woken {
    /// Time to look.
    Look,
    /// Something that people want to know.
    Notice(String),
    /// The user wants no more of it; what becomes of the job.
    Interrupted(String),
    /// It cannot go on, and why.
    Broken(String),
}

/// Begins a job here. What its processes say is kept in `logs`.
pub(super) fn here(
    spec: JobSpec,
    split_given: bool,
    store: &JobStore,
    logs: &Path,
) -> Result<Running, String> {
    let inputs = Inputs::default().with(Arc::new(StoreInputs(store.clone())));
    let plan = Plan {
        parallel: processors(),
        reduces_given: true,
        split_given,
    };
    let place = Place::Logged(logs.to_owned());
    let output = output_uri(&spec, store);
    let run = Run::start(spec, plan, inputs, &place).map_err(|e| not_started(&e, &output))?;
    Ok(Running::Here(Box::new(run)))
}

/// Hands a job to a standing master. Workers know no store: they are told of the files.
pub(super) fn there(
    mut spec: JobSpec,
    split_given: bool,
    store: &JobStore,
    master: &str,
    scratch: &Path,
) -> Result<Running, String> {
    let output = output_uri(&spec, store);
    for input in &mut spec.inputs {
        if input.starts_with("hdfs:") {
            let found = store.locate(input).map_err(|e| e.to_string())?;
            *input = found.real.to_string_lossy().into_owned();
        }
    }
    let words = |failure: &Failure| {
        let mut all = vec![failure.what.clone()];
        all.extend(failure.because.iter().cloned());
        all.join(": ")
    };
    let secret = std::env::var_os("SHOAL_SECRET_FILE").map(PathBuf::from);
    let client = cluster::connect(master, secret.as_deref(), None);
    let mut client = client.map_err(|failure| words(&failure))?;
    let lost = |e: std::io::Error| format!("the master at {master} does not answer: {e}");
    let parallel = match client.ask(&Request::Workers).map_err(lost)? {
        Reply::Workers(workers) => workers.iter().map(|w| w.slots).sum(),
        _ => 1,
    };
    let plan = Plan {
        parallel,
        reduces_given: true,
        split_given,
    };
    let submission = prepare(spec, plan, &Inputs::default(), scratch)
        .map_err(|e| not_started(&RunError::Prepare(e), &output))?;
    let request = Request::Submit(Box::new(submission));
    match client.ask(&request).map_err(lost)? {
        Reply::Accepted(job) => Ok(Running::There {
            client: Box::new(client),
            job,
            master: master.to_owned(),
        }),
        Reply::Refused(why) => Err(format!("the master refuses the job: {why}")),
        _ => Err("the master speaks another language".to_owned()),
    }
}

fn output_uri(spec: &JobSpec, store: &JobStore) -> String {
    let below = Path::new(&spec.output).strip_prefix(store.root());
    below.map_or_else(
        |_| format!("file://{}", spec.output),
        |below| format!("hdfs:///{}", below.display()),
    )
}

/// Why a job did not start, in Hadoop's words where it has some.
fn not_started(error: &RunError, output: &str) -> String {
    match error {
        RunError::Output(OutputError::Exists(_)) => {
            format!("Output directory {output} already exists")
        }
        RunError::Prepare(PrepareError::Input(InputError::Missing(input))) => {
            format!("Input path does not exist: {input}")
        }
        other => chain(other),
    }
}

impl Running {
    /// Whether it goes on from an earlier run.
    pub(super) fn resumed(&self) -> bool {
        matches!(self, Self::Here(run) if run.resumed())
    }

    /// How it is doing.
    pub(super) fn view(&mut self) -> Result<JobView, String> {
        match self {
            Self::Here(run) => run.view().ok_or_else(|| "the master ended".to_owned()),
            Self::There {
                client,
                job,
                master,
            } => match client.job(*job) {
                Ok(Some(view)) => Ok(view),
                Ok(None) => Err(format!("the master at {master} does not know {job}")),
                Err(e) => Err(format!("the master at {master} does not answer: {e}")),
            },
        }
    }

    /// Waits for something new, not for long.
    pub(super) fn wait(&self, interrupt: &Interrupt) -> Woken {
        match self {
            Self::Here(run) => select! {
                recv(run.news()) -> news => match news {
                    Ok(News::Ended(..)) => Woken::Look,
                    Ok(News::Notice(_, text)) => Woken::Notice(text),
                    Ok(News::Broken(why)) => Woken::Broken(format!("the job cannot go on: {why}")),
                    Err(_) => Woken::Broken("the master ended".to_owned()),
                },
                recv(interrupt.woken()) -> _ => {
                    Woken::Interrupted("the same command goes on where this one stopped".to_owned())
                }
                default(LOOK) => Woken::Look,
            },
            Self::There { job, master, .. } => match interrupt.woken().recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => Woken::Look,
                _ => Woken::Interrupted(format!(
                    "the job goes on: shoal job show {job} --master {master}"
                )),
            },
        }
    }

    /// Ends its threads, if they are here; what is done stays done.
    pub(super) fn stop(self) {
        if let Self::Here(run) = self {
            run.stop();
        }
    }
}
