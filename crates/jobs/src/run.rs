//! A job on this machine alone: master and worker in this process, all state in the output folder,
//! so that the same command goes on where it was interrupted.

use crate::engine::attempt::CLAIM;
use crate::engine::local;
use crate::engine::master::{MasterError, MasterThread, News};
use crate::engine::publish::Publisher;
use crate::engine::worker::WorkerThread;
use crate::input::Inputs;
use crate::prepare::{Plan, PrepareError, prepare};
use crate::side;
use crossbeam_channel::Receiver;
use sha2::{Digest, Sha256};
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::job::JobSpec;
use shoal_mapreduce::master::{JobProgress, MasterConfig};
use shoal_store::job::{OutputError, OutputFolder};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Why a job cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its output folder is taken, or cannot be made.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// It cannot be submitted.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Its master cannot run.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Its worker cannot run.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
    /// The master ended before it took the job.
    #[error("the master ended")]
    Ended,
}

/// A running job.
#[derive(Debug)]
pub struct LocalRun {
    // Dropped in this order: the worker says nothing to a master that is gone.
    worker: Option<WorkerThread>,
    master: MasterThread,
    news: Receiver<News>,
    job: JobId,
    resumed: bool,
}

/// What a job's output folder is claimed with: the job, and where paths begin.
fn claim_of(spec: &JobSpec) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(spec).unwrap_or_default());
    if let Ok(here) = std::env::current_dir() {
        hash.update(here.as_os_str().as_encoded_bytes());
    }
    side::hex(&hash.finalize())
}

/// Times that suit a master and a worker in one process: progress is told often, and nobody else's
/// data is waited for.
fn config() -> MasterConfig {
    MasterConfig {
        heartbeat: Duration::from_millis(200),
        locality_wait: Duration::ZERO,
        rejoin: Duration::from_millis(200),
        ..MasterConfig::default()
    }
}

impl LocalRun {
    /// Starts a job with `plan.parallel` slots.
    ///
    /// # Errors
    /// When its output folder is another's, its input cannot be read, or threads cannot be started.
    pub fn start(mut spec: JobSpec, plan: Plan, inputs: Inputs) -> Result<Self, RunError> {
        let claim = claim_of(&spec);
        let (folder, again) = OutputFolder::claim(Path::new(&spec.output), claim.as_bytes())?;
        if let Ok(whole) = std::fs::canonicalize(folder.path()) {
            spec.output = whole.to_string_lossy().into_owned();
        }
        spec.properties.insert(CLAIM.to_owned(), claim);
        let private = Path::new(&spec.output).join("_shoal");
        let started = Self::begin(spec, plan, inputs, &private);
        if started.is_err() && !again {
            // Nothing was done; the folder is not left in the way.
            folder.abandon();
        }
        started
    }

    fn begin(spec: JobSpec, plan: Plan, inputs: Inputs, private: &Path) -> Result<Self, RunError> {
        let scratch = private.join("scratch");
        let master = MasterThread::start(config(), &private.join("log"), Publisher::default())?;
        let news = master.handle().watch();
        let known = master
            .handle()
            .look(|m, _| m.jobs().next())
            .ok_or(RunError::Ended)?;
        let job = match known {
            Some(job) => job,
            None => {
                let submission = prepare(spec, plan, &inputs, private)?;
                let accepted = master.handle().submit(submission);
                accepted.ok_or(RunError::Ended)?
            }
        };
        let worker = local::worker(&master, plan.parallel.max(1), &scratch, inputs)
            .map_err(RunError::Worker)?;
        Ok(Self {
            worker: Some(worker),
            master,
            news,
            job,
            resumed: known.is_some(),
        })
    }

    /// Which job it is.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Whether it goes on from an earlier run.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// What happens.
    pub fn news(&self) -> &Receiver<News> {
        &self.news
    }

    /// How it is doing; nothing if the master has ended.
    pub fn progress(&self) -> Option<JobProgress> {
        let job = self.job;
        self.master
            .handle()
            .look(move |m, now| m.progress(now, job))?
    }

    /// Ends the threads; what is done stays done.
    pub fn stop(mut self) {
        drop(self.worker.take());
    }
}
