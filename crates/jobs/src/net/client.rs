//! Clients of a standing master: submit, ask, cancel.

use super::auth::{self, Pass, Role};
use super::frame;
use crate::engine::attempt::CLAIM;
use crate::engine::master::MasterHandle;
use crate::side;
use crate::view::JobView;
use serde::{Deserialize, Serialize};
use shoal_mapreduce::id::JobId;
use shoal_mapreduce::job::{Code, JobSpec, REDUCES_MAX};
use shoal_mapreduce::split::Submission;
use shoal_store::job::OutputFolder;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::path::Path;

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Run this job; its output folder is on the master's machine.
    Submit(Box<Submission>),
    /// All jobs, oldest first.
    List,
    /// One job.
    Show(JobId),
    /// End a job.
    Cancel(JobId),
    /// The workers.
    Workers,
}

/// A worker, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its name.
    pub worker: String,
    /// Its machine.
    pub host: String,
    /// Where it serves.
    pub addr: String,
    /// Tasks of each kind at once.
    pub slots: u32,
    /// What it runs.
    pub running: Vec<String>,
    /// Whether it is one of ours.
    pub own: bool,
}

/// What a client is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The job has this number.
    Accepted(JobId),
    /// Jobs; as JSON, so that a newer field breaks nobody.
    Jobs(Vec<String>),
    /// Workers.
    Workers(Vec<WorkerRow>),
    /// It cannot be done.
    Refused(String),
    /// There is no such thing.
    Missing,
    /// Done.
    Done,
}

pub(super) fn serve(stream: TcpStream, master: &MasterHandle, strangers: bool) {
    let Ok(mut to) = stream.try_clone() else {
        return;
    };
    let mut from = BufReader::new(stream);
    while let Ok(request) = frame::read::<Request>(&mut from) {
        let reply = answer(request, master, strangers);
        if frame::write(&mut to, &reply).is_err() {
            return;
        }
    }
}

fn ended() -> Reply {
    Reply::Refused("the master is ending".to_owned())
}

fn answer(request: Request, master: &MasterHandle, strangers: bool) -> Reply {
    match request {
        Request::Submit(submission) => submit(*submission, master, strangers),
        Request::List => {
            let views = master.look(|m, now| {
                let jobs: Vec<JobId> = m.jobs().collect();
                let views = jobs.into_iter().filter_map(|j| JobView::of(m, now, j));
                views.collect::<Vec<_>>()
            });
            views.map_or_else(ended, |views| jobs(&views))
        }
        Request::Show(job) => match master.look(move |m, now| JobView::of(m, now, job)) {
            None => ended(),
            Some(None) => Reply::Missing,
            Some(Some(view)) => jobs(&[view]),
        },
        Request::Cancel(job) => {
            master.cancel(job);
            Reply::Done
        }
        Request::Workers => master
            .look(|m, _| {
                m.workers()
                    .map(|w| WorkerRow {
                        worker: w.worker.to_string(),
                        host: w.host,
                        addr: w.addr,
                        slots: w.slots,
                        own: w.own,
                        running: w.running.iter().map(ToString::to_string).collect(),
                    })
                    .collect()
            })
            .map_or_else(ended, Reply::Workers),
    }
}

fn jobs(views: &[JobView]) -> Reply {
    let json = views.iter().map(serde_json::to_string);
    Reply::Jobs(json.filter_map(Result::ok).collect())
}

/// Why a job cannot run where there are only strangers.
fn unfit_for_strangers(spec: &JobSpec, master: &MasterHandle) -> Option<String> {
    let command = spec.code().find_map(|code| match code {
        Code::Streaming { command } => Some(command),
        _ => None,
    })?;
    let ours = master.look(|m, _| m.workers().any(|w| w.own));
    (ours == Some(false)).then(|| {
        format!(
            "it runs the command {command:?}, and no worker of one's own is connected to this \
             master: strangers' machines run WebAssembly modules and built-in jobs only"
        )
    })
}

fn submit(mut submission: Submission, master: &MasterHandle, strangers: bool) -> Reply {
    let spec = &mut submission.spec;
    if strangers && let Some(why) = unfit_for_strangers(spec, master) {
        return Reply::Refused(why);
    }
    if !Path::new(&spec.output).is_absolute() {
        return Reply::Refused("the output folder must be an absolute path".to_owned());
    }
    if spec.reduces > REDUCES_MAX {
        return Reply::Refused(format!("at most {REDUCES_MAX} reduce tasks are taken"));
    }
    let claim = side::hex(&crate::engine::random::<16>());
    let folder = match OutputFolder::claim(Path::new(&spec.output), claim.as_bytes()) {
        Ok((folder, _)) => folder,
        Err(e) => return Reply::Refused(e.to_string()),
    };
    spec.properties.insert(CLAIM.to_owned(), claim);
    match master.submit(submission) {
        Some(job) => Reply::Accepted(job),
        None => {
            folder.abandon();
            ended()
        }
    }
}

/// A connection to a standing master.
#[derive(Debug)]
pub struct Client {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers or the secret is another.
    pub fn connect(addr: &str, pass: &Pass) -> io::Result<Self> {
        let to = auth::connect(addr, Role::Client, pass)?;
        let from = BufReader::new(to.try_clone()?);
        Ok(Self { to, from })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        frame::write(&mut self.to, request)?;
        frame::read(&mut self.from)
    }

    /// How a job is doing; nothing if there is none of that number.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn job(&mut self, job: JobId) -> io::Result<Option<JobView>> {
        match self.ask(&Request::Show(job))? {
            Reply::Jobs(jobs) => jobs.first().map(|json| view(json)).transpose(),
            Reply::Refused(why) => Err(io::Error::other(why)),
            _ => Ok(None),
        }
    }

    /// All jobs, oldest first.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn jobs(&mut self) -> io::Result<Vec<JobView>> {
        match self.ask(&Request::List)? {
            Reply::Jobs(jobs) => jobs.iter().map(|json| view(json)).collect(),
            Reply::Refused(why) => Err(io::Error::other(why)),
            _ => Ok(Vec::new()),
        }
    }
}

fn view(json: &str) -> io::Result<JobView> {
    serde_json::from_str(json).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
