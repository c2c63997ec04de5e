//! A job with a master of its own, all state in the output folder, so that the same command goes on
//! where it was interrupted. Tasks run in this process, or in workers that connect.

use crate::cluster::{ClusterError, StandingMaster, master_config};
use crate::engine::attempt::CLAIM;
use crate::engine::local;
use crate::engine::master::{MasterError, MasterThread, News};
use crate::engine::publish::Publisher;
use crate::engine::worker::WorkerThread;
use crate::input::Inputs;
use crate::net::auth::Secret;
use crate::prepare::{Plan, PrepareError, prepare};
use crate::side;
use crate::view::JobView;
use crossbeam_channel::Receiver;
use sha2::{Digest, Sha256};
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::job::JobSpec;
use shoal_mapreduce::master::MasterConfig;
use shoal_store::job::{OutputError, OutputFolder};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
    /// Its master cannot be reached by workers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Its worker cannot run.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
    /// The master ended before it took the job.
    #[error("the master ended")]
    Ended,
    /// There is no unfinished job in a folder.
    #[error("{0} holds no unfinished job")]
    NoJob(String),
}

/// Where tasks run.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this process.
    Here,
    /// In this process; what code says for people is kept in a folder, a file for each attempt.
    Logged(PathBuf),
    /// In workers that connect to this address.
    Workers {
        /// Where the master listens.
        listen: SocketAddr,
        /// What it shares with them.
        secret: Secret,
        /// Silence after which a worker is taken for dead.
        lease: Duration,
    },
}

/// The master, with or without a listener.
#[derive(Debug)]
enum Own {
    Here(MasterThread),
    Listening(Box<StandingMaster>),
}

/// A running job.
#[derive(Debug)]
pub struct Run {
    worker: Option<WorkerThread>,
    master: Own,
    news: Receiver<News>,
    job: JobId,
    resumed: bool,
}

/// What a job's output folder is claimed with: the job, and where paths begin. The name that it is
/// known by is another each time it is begun.
fn claim_of(spec: &JobSpec) -> String {
    let mut nameless = spec.clone();
    nameless.properties.remove("mapreduce.job.id");
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&nameless).unwrap_or_default());
    if let Ok(here) = std::env::current_dir() {
        hash.update(here.as_os_str().as_encoded_bytes());
    }
    side::hex(&hash.finalize())
}

/// Times that suit a master and a worker in one process: progress is told often, and nobody else's
/// data is waited for.
fn config_here() -> MasterConfig {
    MasterConfig {
        heartbeat: Duration::from_millis(200),
        locality_wait: Duration::ZERO,
        rejoin: Duration::from_millis(200),
        ..MasterConfig::default()
    }
}

impl Run {
    /// Starts a job, or goes on with it.
    ///
    /// # Errors
    /// When its output folder is another's, its input cannot be read, or threads cannot be started.
    pub fn start(
        mut spec: JobSpec,
        plan: Plan,
        inputs: Inputs,
        place: &Place,
    ) -> Result<Self, RunError> {
        let claim = claim_of(&spec);
        let (folder, again) = OutputFolder::claim(Path::new(&spec.output), claim.as_bytes())?;
        if let Ok(whole) = std::fs::canonicalize(folder.path()) {
            spec.output = whole.to_string_lossy().into_owned();
        }
        spec.properties.insert(CLAIM.to_owned(), claim);
        let private = Path::new(&spec.output).join("_shoal");
        let started = Self::begin(Some(spec), plan, inputs, &private, place);
        if started.is_err() && !again {
            // Nothing was done; the folder is not left in the way.
            folder.abandon();
        }
        started
    }

    /// Goes on with the job in an output folder.
    ///
    /// # Errors
    /// When there is none, or as for [`Self::start`].
    pub fn resume(output: &Path, plan: Plan, place: &Place) -> Result<Self, RunError> {
        let no_job = || RunError::NoJob(output.display().to_string());
        let whole = std::fs::canonicalize(output).map_err(|_| no_job())?;
        let private = whole.join("_shoal");
        if !private.join("log").is_file() {
            return Err(no_job());
        }
        Self::begin(None, plan, Inputs::default(), &private, place)
    }

    fn begin(
        spec: Option<JobSpec>,
        plan: Plan,
        inputs: Inputs,
        private: &Path,
        place: &Place,
    ) -> Result<Self, RunError> {
        let own = match place {
            Place::Here | Place::Logged(_) => {
                let log = private.join("log");
                Own::Here(MasterThread::start(
                    config_here(),
                    &log,
                    Publisher::default(),
                )?)
            }
            Place::Workers {
                listen,
                secret,
                lease,
            } => Own::Listening(Box::new(StandingMaster::start(
                private,
                *listen,
                secret,
                None,
                None,
                master_config(*lease),
            )?)),
        };
        let master = match &own {
            Own::Here(master) => master,
            Own::Listening(standing) => standing.master(),
        };
        let news = master.handle().watch();
        let known = master
            .handle()
            .look(|m, _| m.jobs().next())
            .ok_or(RunError::Ended)?;
        let job = match (known, spec) {
            (Some(job), _) => job,
            (None, Some(spec)) => {
                let submission = prepare(spec, plan, &inputs, private)?;
                let accepted = master.handle().submit(submission);
                accepted.ok_or(RunError::Ended)?
            }
            (None, None) => return Err(RunError::NoJob(private.display().to_string())),
        };
        let worker = match &own {
            Own::Here(master) => {
                let scratch = private.join("scratch");
                let slots = plan.parallel.max(1);
                let logs = match place {
                    Place::Logged(dir) => Some(dir.as_path()),
                    _ => None,
                };
                Some(
                    local::worker(master, slots, &scratch, logs, inputs)
                        .map_err(RunError::Worker)?,
                )
            }
            Own::Listening(_) => None,
        };
        Ok(Self {
            worker,
            master: own,
            news,
            job,
            resumed: known.is_some(),
        })
    }

    fn master(&self) -> &MasterThread {
        match &self.master {
            Own::Here(master) => master,
            Own::Listening(standing) => standing.master(),
        }
    }

    /// Where workers connect, if they do.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.master {
            Own::Here(_) => None,
            Own::Listening(standing) => Some(standing.addr()),
        }
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
    pub fn view(&self) -> Option<JobView> {
        let job = self.job;
        self.master()
            .handle()
            .look(move |m, now| JobView::of(m, now, job))?
    }

    /// Ends the threads; what is done stays done.
    pub fn stop(mut self) {
        // The worker first: it says nothing to a master that is gone.
        drop(self.worker.take());
    }
}
