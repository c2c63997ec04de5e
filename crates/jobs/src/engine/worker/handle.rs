//! How a worker is set up, what it is told from elsewhere, and its news.

use crate::engine::Line;
use crate::engine::attempt::{Finished, Told};
use crate::engine::fetch::{Fetched, Fetcher};
use crate::engine::outputs::Outputs;
use crate::input::Inputs;
use crate::side::SideFiles;
use crossbeam_channel::Sender;
use shoal_mapreduce::id::AttemptId;
use shoal_mapreduce::message::{ToMaster, ToWorker};
use shoal_mapreduce::split::Holding;
use shoal_mapreduce::worker::WorkerConfig;
use std::path::PathBuf;
use std::sync::Arc;

/// Makes connections to the master.
pub trait Connector: Send {
    /// Connects without waiting; what comes of it is told by `events` under the number `line`.
    fn connect(&self, line: u64, events: WorkerHandle);
}

/// What comes to the worker's thread.
pub(super) enum Event {
    Joined(u64, Box<dyn Line<ToMaster>>),
    Said(u64, ToWorker),
    Lost(u64, String),
    Told(AttemptId, Told),
    Finished(AttemptId, Box<Finished>),
    Fetched(Fetched),
    Holds(Vec<Holding>),
    Stop { leave: bool },
}

/// Says things to a running worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle(pub(super) Sender<Event>);

impl std::fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkerHandle")
    }
}

impl WorkerHandle {
    /// The connection `line` is there.
    pub fn joined(&self, line: u64, to: Box<dyn Line<ToMaster>>) {
        let _ = self.0.send(Event::Joined(line, to));
    }

    /// The master said something on `line`; false when the worker has ended.
    pub fn said(&self, line: u64, message: ToWorker) -> bool {
        self.0.send(Event::Said(line, message)).is_ok()
    }

    /// The connection `line` could not be made or ended.
    pub fn lost(&self, line: u64, why: impl Into<String>) {
        let _ = self.0.send(Event::Lost(line, why.into()));
    }

    pub(in crate::engine) fn told(&self, attempt: AttemptId, told: Told) {
        let _ = self.0.send(Event::Told(attempt, told));
    }

    pub(in crate::engine) fn finished(&self, attempt: AttemptId, finished: Finished) {
        let _ = self.0.send(Event::Finished(attempt, Box::new(finished)));
    }

    pub(in crate::engine) fn fetched(&self, fetched: Fetched) {
        let _ = self.0.send(Event::Fetched(fetched));
    }

    /// More of the input is here.
    pub fn holds(&self, holds: Vec<Holding>) {
        let _ = self.0.send(Event::Holds(holds));
    }

    /// Asks it to end; with `leave` it tells the master first.
    pub fn stop(&self, leave: bool) {
        let _ = self.0.send(Event::Stop { leave });
    }
}

/// What happens at a worker, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerNews {
    /// The master knows it by this name.
    Welcome(String),
    /// The connection is gone; it tries again.
    Lost(String),
    /// An attempt began.
    Started(AttemptId),
    /// An attempt ended; why it failed, if it did.
    Ended(AttemptId, Option<String>),
    /// The machine says something.
    Notice(String),
}

/// What a worker is made of.
pub struct WorkerSetup {
    /// Its slots, name and address.
    pub config: WorkerConfig,
    /// A folder of its own, which exists.
    pub dir: PathBuf,
    /// Where what code says for people is kept, a file for each attempt.
    pub logs: PathBuf,
    /// Ways to its input.
    pub inputs: Inputs,
    /// Ways to the master.
    pub connector: Box<dyn Connector>,
    /// Ways to other workers' outputs.
    pub fetcher: Arc<dyn Fetcher>,
    /// Ways to side files.
    pub side: Arc<SideFiles>,
    /// What its finished attempts made, shared with who serves it.
    pub outputs: Outputs,
    /// Told what happens.
    pub news: Option<Sender<WorkerNews>>,
}

impl std::fmt::Debug for WorkerSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerSetup")
            .field("config", &self.config)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
