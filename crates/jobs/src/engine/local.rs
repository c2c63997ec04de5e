//! Master and worker in one process, joined by channels.

use super::Line;
use super::fetch::NoFetcher;
use super::master::{MasterHandle, MasterThread};
use super::outputs::Outputs;
use super::worker::{Connector, WorkerHandle, WorkerSetup, WorkerThread};
use crate::input::Inputs;
use crate::side::SideFiles;
use shoal_mapreduce::master::{Link, Owner};
use shoal_mapreduce::message::{ToMaster, ToWorker};
use shoal_mapreduce::worker::WorkerConfig;
use std::io;
use std::path::Path;
use std::sync::Arc;

struct ToLocalWorker {
    worker: WorkerHandle,
    line: u64,
}

impl Line<ToWorker> for ToLocalWorker {
    fn send(&self, message: ToWorker) {
        self.worker.said(self.line, message);
    }

    fn close(&self) {
        self.worker.lost(self.line, "the master ended");
    }
}

struct ToLocalMaster {
    master: MasterHandle,
    link: Link,
}

impl Line<ToMaster> for ToLocalMaster {
    fn send(&self, message: ToMaster) {
        self.master.message(self.link, message);
    }

    fn close(&self) {
        self.master.closed(self.link);
    }
}

/// Connects a worker to a master in the same process.
#[derive(Debug)]
pub struct LocalConnector(pub MasterHandle);

impl Connector for LocalConnector {
    fn connect(&self, line: u64, worker: WorkerHandle) {
        let to = ToLocalWorker {
            worker: worker.clone(),
            line,
        };
        let link = self.0.connected(Owner::Own, Box::new(to));
        let to = ToLocalMaster {
            master: self.0.clone(),
            link,
        };
        worker.joined(line, Box::new(to));
    }
}

/// Starts a worker beside its master. `logs` is where what code says for people is kept; below
/// `dir` if nothing is said.
///
/// # Errors
/// When its folder cannot be made or no thread be started.
pub fn worker(
    master: &MasterThread,
    slots: u32,
    dir: &Path,
    logs: Option<&Path>,
    inputs: Inputs,
) -> io::Result<WorkerThread> {
    std::fs::create_dir_all(dir)?;
    let instance = u64::from_le_bytes(super::random());
    let mut config = WorkerConfig::new(instance, host_name(), "");
    config.slots = slots;
    WorkerThread::start(WorkerSetup {
        config,
        dir: dir.to_owned(),
        logs: logs.map_or_else(|| dir.join("logs"), Path::to_owned),
        inputs,
        connector: Box::new(LocalConnector(master.handle().clone())),
        fetcher: Arc::new(NoFetcher),
        side: Arc::new(SideFiles::new(dir.join("side"), None)),
        outputs: Outputs::default(),
        news: None,
    })
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
