//! The processes of a cluster: a worker, and a master that stands.

use crate::engine::local::host_name;
use crate::engine::master::{MasterError, MasterThread};
use crate::engine::outputs::Outputs;
use crate::engine::publish::Publisher;
use crate::engine::worker::{WorkerHandle, WorkerNews, WorkerSetup, WorkerThread};
use crate::input::Inputs;
use crate::net::auth::{Door, Pass, Role, Secret, Ways};
use crate::net::control::{Listener, TcpConnector, listen};
use crate::net::data::{DataClient, FromMaster, serve_worker};
use crate::net::identity::Identity;
use crate::side::SideFiles;
use crossbeam_channel::Sender;
use shoal_mapreduce::master::MasterConfig;
use shoal_mapreduce::split::Holding;
use shoal_mapreduce::worker::WorkerConfig;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a worker process is started with.
#[derive(Debug)]
pub struct WorkerOptions {
    /// The master's address, with its key before an `@` if that matters.
    pub master: String,
    /// How it proves who it is. With a key alone it is a stranger to its master, and the master to
    /// it: it runs sandboxed code only. With ways besides TCP others reach it by these.
    pub pass: Pass,
    /// Where it serves map output.
    pub listen: SocketAddr,
    /// How others reach it there; the listener's address unless said otherwise.
    pub public: Option<String>,
    /// Map tasks at once, and reduce tasks beside them.
    pub slots: u32,
    /// A folder of its own; what an earlier worker left there is removed.
    pub dir: PathBuf,
    /// Name of its machine; backup tasks go to another.
    pub host: Option<String>,
    /// Ways to input; what these do not take, files and URLs, the worker reads by itself.
    pub inputs: Inputs,
    /// What it holds of content that jobs may read.
    pub holds: Vec<Holding>,
}

/// A worker process.
#[derive(Debug)]
pub struct WorkerProcess {
    thread: WorkerThread,
    listener: Listener,
    there: SocketAddr,
}

impl WorkerProcess {
    /// Starts a worker; it connects, and connects again, until it is told to leave.
    ///
    /// # Errors
    /// When it cannot listen, its folder cannot be made, or no thread be started.
    pub fn start(options: WorkerOptions, news: Sender<WorkerNews>) -> io::Result<Self> {
        let dir = options.dir.join("worker");
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::create_dir_all(&dir)?;
        let outputs = Outputs::default();
        let served = outputs.clone();
        let stranger = options.pass.is_stranger();
        let compared = outputs.clone();
        let door = options.pass.door(move || compared.any_compared());
        let listener = Listener::start(options.listen, door, move |stream, _, role, owner| {
            if role == Role::Data {
                serve_worker(stream, owner, &served);
            }
        })?;
        let there = match options.pass.ways() {
            Some(ways) => listener.open_to(ways.as_ref())?,
            None => listener.addr(),
        };
        let addr = options.public.unwrap_or_else(|| there.to_string());
        let host = options.host.unwrap_or_else(host_name);
        let instance = u64::from_le_bytes(crate::engine::random());
        let mut config = WorkerConfig::new(instance, host, addr);
        config.slots = options.slots.max(1);
        config.holds = options.holds;
        config.sandbox_only = stranger;
        let client = DataClient::new(options.pass.clone());
        let from_master = FromMaster {
            client: client.clone(),
            master: options.master.clone(),
            all: stranger,
        };
        let thread = WorkerThread::start(WorkerSetup {
            config,
            inputs: options.inputs.with(Arc::new(from_master.clone())),
            connector: Box::new(TcpConnector {
                master: options.master,
                pass: options.pass,
            }),
            fetcher: Arc::new(client),
            side: Arc::new(SideFiles::new(
                options.dir.join("side"),
                Some(Box::new(from_master)),
            )),
            logs: dir.join("logs"),
            dir,
            outputs,
            news: Some(news),
        })?;
        Ok(Self {
            thread,
            listener,
            there,
        })
    }

    /// Where others reach it, unless that was told otherwise.
    pub fn there(&self) -> SocketAddr {
        self.there
    }

    /// Where it serves.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Speaks to it.
    pub fn handle(&self) -> &WorkerHandle {
        self.thread.handle()
    }

    /// Tells the master and ends.
    pub fn leave(self) {
        self.thread.handle().stop(true);
        self.thread.join();
    }
}

/// Times of a master whose workers are other processes.
pub fn master_config(lease: Duration) -> MasterConfig {
    MasterConfig {
        heartbeat: (lease / 5).min(Duration::from_secs(1)),
        lease,
        ..MasterConfig::default()
    }
}

/// Why a standing master cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its log.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Its address.
    #[error("cannot listen at {addr}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its folder.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A master that stands: jobs come and go, its folder remembers them.
#[derive(Debug)]
pub struct StandingMaster {
    master: MasterThread,
    listener: Listener,
    elsewhere: Option<SocketAddr>,
}

impl StandingMaster {
    /// Starts a master, or goes on with what is in `dir`. With an identity, strangers may be its
    /// workers, too; with `ways`, those get in who come by them.
    ///
    /// # Errors
    /// When its folder cannot be used or the address not be had.
    pub fn start(
        dir: &Path,
        addr: SocketAddr,
        secret: &Secret,
        strangers: Option<Identity>,
        ways: Option<Arc<dyn Ways>>,
        config: MasterConfig,
    ) -> Result<Self, ClusterError> {
        std::fs::create_dir_all(dir).map_err(|source| ClusterError::Folder {
            path: dir.to_owned(),
            source,
        })?;
        let identity = strangers.clone().unwrap_or_else(Identity::fresh);
        let pass = Pass::member(secret.clone(), identity).by(ways.clone());
        let fetch = DataClient::new(pass);
        let mut door = Door::own(secret.clone());
        if let Some(identity) = strangers {
            door = door.and_strangers(identity, || true);
        }
        let publisher = Publisher::fetching(Arc::new(fetch));
        let master = MasterThread::start(config, &dir.join("log"), publisher)?;
        let listener = listen(addr, door, master.handle().clone())
            .map_err(|source| ClusterError::Listen { addr, source })?;
        let elsewhere = ways.map(|ways| listener.open_to(ways.as_ref()));
        let elsewhere = elsewhere
            .transpose()
            .map_err(|source| ClusterError::Listen { addr, source })?;
        Ok(Self {
            master,
            listener,
            elsewhere,
        })
    }

    /// Where those come to who do not come by TCP.
    pub fn elsewhere(&self) -> Option<SocketAddr> {
        self.elsewhere
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The master.
    pub fn master(&self) -> &MasterThread {
        &self.master
    }
}
