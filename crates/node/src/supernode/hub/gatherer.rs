//! Fetches what the hub's users share, once the overlay asks for it: only then is its hash known.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use shoal_base::Rng;
use shoal_napster::client::{Hit, Login};
use shoal_supernode::wire::{File, QueryId};

use super::mirrors::Mirrors;
use crate::napster::{DataPort, Session, download};

/// Files that wait to be fetched, at most; more are left out until they are asked for again.
const MAX_WAITING: usize = 64;
/// How soon a file that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Files that could not be had and are remembered.
const MAX_FAILED: usize = 1024;

/// A file that the overlay asked for.
pub(super) struct Job {
    pub(super) hit: Hit,
    /// What the overlay is told it is called.
    pub(super) told: String,
    pub(super) query: QueryId,
}

/// What became of one.
pub(super) struct Gathered {
    pub(super) job: Job,
    /// What is known of it now, and what had to go for it; or why it cannot be had.
    pub(super) result: Result<(File, Vec<String>), String>,
}

/// The thread that fetches, one file at a time; ends when dropped, after the file that it is at.
pub(super) struct Gatherer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What was fetched.
    pub(super) done: Receiver<Gathered>,
    /// What is under way or failed lately, by whose and which path.
    known: BTreeMap<(String, Vec<u8>), Option<Instant>>,
}

impl std::fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatherer").finish_non_exhaustive()
    }
}

/// Where it fetches from, and to.
pub(super) struct Place {
    pub(super) hub: SocketAddr,
    /// Where sharers whom nobody can connect to bring their files.
    pub(super) ip: IpAddr,
    pub(super) dir: PathBuf,
    pub(super) most: u64,
}

impl Gatherer {
    pub(super) fn spawn(place: Place, mirrors: Arc<Mirrors>, mut rng: Rng) -> io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(MAX_WAITING);
        let (tell, done) = unbounded();
        let nick = format!("overlay{}", rng.below(1_000_000));
        let login = Login {
            password: format!("{:016x}", rng.next_u64()),
            nick,
            data_port: 0,
            link: 0,
            overlay: None,
        };
        let thread = thread::Builder::new()
            .name("supernode-gather".into())
            .spawn(move || {
                for (n, job) in waiting.iter().enumerate() {
                    let result = fetch(&place, &login, &mirrors, n, &job);
                    if tell.send(Gathered { job, result }).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            done,
            known: BTreeMap::new(),
        })
    }

    /// Wants a file; whether it will be fetched.
    pub(super) fn want(&mut self, job: Job) -> bool {
        let failed = |at: &Option<Instant>| at.is_none_or(|at| at.elapsed() < AGAIN);
        self.known.retain(|_, at| failed(at));
        let name = (job.hit.nick.clone(), job.hit.path.clone());
        if self.known.contains_key(&name) || self.known.len() >= MAX_FAILED {
            return false;
        }
        let Some(jobs) = &self.jobs else {
            return false;
        };
        let taken = match jobs.try_send(job) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(nick = name.0, %error, "a file is not fetched");
                false
            }
        };
        if taken {
            self.known.insert(name, None);
        }
        taken
    }

    /// One was fetched or could not be: the latter waits before it is tried again.
    pub(super) fn over(&mut self, of: &Gathered) {
        let name = (of.job.hit.nick.clone(), of.job.hit.path.clone());
        match of.result {
            Ok(_) => {
                // It is in the index now; when it is not any more it may be fetched again.
                self.known.remove(&name);
            }
            Err(_) => {
                self.known.insert(name, Some(Instant::now()));
            }
        }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fetches from the hub's users panicked");
        }
    }
}

fn fetch(
    place: &Place,
    login: &Login,
    mirrors: &Mirrors,
    n: usize,
    job: &Job,
) -> Result<(File, Vec<String>), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    // A folder for each: files of the same name are no matter.
    let dir = place.dir.join(n.to_string());
    std::fs::create_dir_all(&dir).map_err(|e| said(&e))?;
    let addr = SocketAddr::new(place.ip, 0);
    let port = DataPort::open(Some(addr), &login.nick, BTreeMap::new(), 0);
    let port = port.map_err(|e| said(&e))?;
    let login = Login {
        data_port: port.port(),
        ..login.clone()
    };
    let mut session = Session::connect(place.hub, &login).map_err(|e| said(&e))?;
    let path = download(
        &mut session,
        (&port, None),
        &login.nick,
        &job.hit,
        &dir,
        &mut |_| {},
    );
    let path = path.map_err(|e| said(&e))?;
    mirrors
        .add(path, &job.hit, job.told.clone(), place.most)
        .map_err(|e| said(&e))
}
