//! A pool of threads that writes, hashes, reads and checks, so that the event loop never waits for
//! a disk.
//!
//! ```text
//! event loop ── submit(Job) ─► a lane per worker (writes) ─► pwritev ─► SHA-1 ─► journal ─┐
//!            ◄─ drain(Done) ─────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is in flight is bounded by the caller's buffers: a job carries its buffer and the answer
//! brings it back. Blocks of a piece go to one worker in the order they were submitted, so that
//! hashing seldom has to read back. Reads and writes go before checks.

mod check;
mod hashing;
mod job;
mod sync;
mod torrent;
mod worker;
mod write;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use rustc_hash::FxHashMap;

use crate::error::{Operation, StoreError};
use crate::resume::{Resume, ResumeError};
use check::CheckRun;
use torrent::Torrent;

pub use job::{BlockWrite, Done, Job, ReadPart, TorrentKey, WriteBatch};
pub use torrent::Registration;

/// Called when [`DiskPool::drain`] has something after it had nothing.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// Stack of a worker: its buffers are on the heap.
const STACK_BYTES: usize = 256 * 1024;

/// The pool. Dropping it is like [`DiskPool::stop`] without the checkpoint.
pub struct DiskPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    syncer: Option<JoinHandle<()>>,
    to_syncer: Option<mpsc::Sender<Job>>,
}

/// What the threads share.
struct Shared {
    queues: Mutex<Queues>,
    /// One per worker.
    wakers: Vec<Condvar>,
    /// Reads and writes waiting; checks look at it between two reads.
    urgent: AtomicUsize,
    torrents: RwLock<FxHashMap<TorrentKey, Arc<Torrent>>>,
    done: Mutex<Vec<Done>>,
    notify: Notify,
    resume: Arc<Resume>,
}

struct Queues {
    /// Writes, one lane per worker.
    lanes: Vec<VecDeque<Job>>,
    /// For whichever worker is free first.
    shared: VecDeque<Job>,
    /// The first is being worked on.
    checks: VecDeque<Arc<CheckRun>>,
    idle: Vec<bool>,
    stopping: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn torrent(&self, key: TorrentKey) -> Option<Arc<Torrent>> {
        let torrents = self.torrents.read().unwrap_or_else(PoisonError::into_inner);
        torrents.get(&key).cloned()
    }

    /// Hands answers over and empties `done`.
    fn finish(&self, done: &mut Vec<Done>) {
        if done.is_empty() {
            return;
        }
        let was_empty = {
            let mut all = lock(&self.done);
            let was_empty = all.is_empty();
            all.append(done);
            was_empty
        };
        if was_empty {
            (self.notify)();
        }
    }

    /// Wakes worker `n` if it sleeps; `queues` is the lock held.
    fn wake(&self, queues: &mut Queues, n: usize) {
        if let (Some(idle), Some(waker)) = (queues.idle.get_mut(n), self.wakers.get(n))
            && std::mem::take(idle)
        {
            waker.notify_one();
        }
    }

    fn wake_any(&self, queues: &mut Queues) {
        if let Some(n) = queues.idle.iter().position(|idle| *idle) {
            self.wake(queues, n);
        }
    }

    fn wake_all(&self, queues: &mut Queues) {
        for n in 0..self.wakers.len() {
            self.wake(queues, n);
        }
    }
}

impl DiskPool {
    /// Starts `threads` workers, at least one. `notify` is called from them when there is
    /// something to drain.
    pub fn new(threads: usize, notify: Notify, resume: Arc<Resume>) -> Self {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues {
                lanes: (0..threads).map(|_| VecDeque::new()).collect(),
                shared: VecDeque::new(),
                checks: VecDeque::new(),
                idle: vec![false; threads],
                stopping: false,
            }),
            wakers: (0..threads).map(|_| Condvar::new()).collect(),
            urgent: AtomicUsize::new(0),
            torrents: RwLock::default(),
            done: Mutex::default(),
            notify,
            resume,
        });
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
            let builder = std::thread::Builder::new()
                .name(name)
                .stack_size(STACK_BYTES);
            builder.spawn(body).expect("the system starts threads")
        };
        let workers = (0..threads).map(|n| {
            let shared = Arc::clone(&shared);
            spawn(
                format!("disk-{n}"),
                Box::new(move || worker::run(&shared, n)),
            )
        });
        let workers = workers.collect();
        let (to_syncer, jobs) = mpsc::channel();
        let syncer = {
            let shared = Arc::clone(&shared);
            spawn(
                "disk-sync".into(),
                Box::new(move || sync::run(&shared, &jobs)),
            )
        };
        Self {
            shared,
            workers,
            syncer: Some(syncer),
            to_syncer: Some(to_syncer),
        }
    }

    /// Makes a torrent known under `key`, in place of one that had it.
    pub fn register(&self, key: TorrentKey, registration: Registration) -> Result<(), StoreError> {
        let torrent =
            Torrent::new(key, registration).ok_or_else(|| StoreError::unknown(Operation::Open))?;
        let mut torrents = self
            .shared
            .torrents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        torrents.insert(key, Arc::new(torrent));
        Ok(())
    }

    /// Forgets a torrent at once; jobs still waiting for it come back failed. [`Job::Close`]
    /// waits for them instead.
    pub fn unregister(&self, key: TorrentKey) {
        self.cancel_check(key);
        let mut torrents = self
            .shared
            .torrents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        torrents.remove(&key);
    }

    /// Queues `job`; its answer comes with [`DiskPool::drain`].
    pub fn submit(&self, job: Job) {
        let shared = &*self.shared;
        match job {
            Job::Write(batch) => {
                let lanes = self.workers.len();
                let first = batch.blocks.first();
                let lane = first.map_or(0, |b| {
                    (b.block.piece.wrapping_add(b.torrent)) as usize % lanes
                });
                let mut queues = lock(&shared.queues);
                shared.urgent.fetch_add(1, Ordering::Relaxed);
                if let Some(lane) = queues.lanes.get_mut(lane) {
                    lane.push_back(Job::Write(batch));
                }
                shared.wake(&mut queues, lane);
            }
            Job::Check { torrent, pieces } => match shared.torrent(torrent) {
                Some(torrent) => {
                    let run = Arc::new(CheckRun::new(torrent, pieces));
                    let mut queues = lock(&shared.queues);
                    queues.checks.push_back(run);
                    shared.wake_all(&mut queues);
                }
                None => {
                    let mut done = vec![Done::Checked {
                        torrent,
                        have: shoal_base::Bitfield::default(),
                        cancelled: true,
                        error: Some(StoreError::unknown(Operation::Read)),
                    }];
                    shared.finish(&mut done);
                }
            },
            Job::Sync { .. } | Job::Checkpoint { .. } => {
                if let Some(to_syncer) = &self.to_syncer {
                    // It ends only after us.
                    let _ = to_syncer.send(job);
                }
            }
            Job::Close { torrent } => {
                self.cancel_check(torrent);
                // Every lane must have passed it: the last worker to see it closes.
                let lanes = Arc::new(AtomicUsize::new(self.workers.len()));
                let mut queues = lock(&shared.queues);
                shared
                    .urgent
                    .fetch_add(self.workers.len(), Ordering::Relaxed);
                for lane in &mut queues.lanes {
                    lane.push_back(Job::CloseLane {
                        torrent,
                        lanes: Arc::clone(&lanes),
                    });
                }
                shared.wake_all(&mut queues);
            }
            Job::Read { .. }
            | Job::Probe { .. }
            | Job::Prepare { .. }
            | Job::Finish { .. }
            | Job::CloseLane { .. } => {
                let mut queues = lock(&shared.queues);
                shared.urgent.fetch_add(1, Ordering::Relaxed);
                queues.shared.push_back(job);
                shared.wake_any(&mut queues);
            }
        }
    }

    /// Ends the checks of a torrent early; each still answers with [`Done::Checked`].
    pub fn cancel_check(&self, key: TorrentKey) {
        let mut queues = lock(&self.shared.queues);
        for run in &queues.checks {
            if run.torrent.key == key {
                run.cancel();
            }
        }
        self.shared.wake_all(&mut queues);
    }

    /// Moves all answers there are to the end of `out`.
    pub fn drain(&self, out: &mut Vec<Done>) {
        out.append(&mut lock(&self.shared.done));
    }

    fn join(&mut self) {
        {
            let mut queues = lock(&self.shared.queues);
            queues.stopping = true;
            queues.checks.iter().for_each(|run| run.cancel());
            self.shared.wake_all(&mut queues);
        }
        for worker in self.workers.drain(..) {
            // A worker that panicked has told so on its own.
            let _ = worker.join();
        }
        drop(self.to_syncer.take());
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.join();
        }
    }

    /// Stops: writes that are waiting are still done, then what the files look like is noted and
    /// everything folded into the resume database. Data is not synced: it is safe in the page
    /// cache, and checked again should the machine stop before it reaches the disk.
    pub fn stop(mut self) -> Result<(), ResumeError> {
        self.join();
        let torrents = self
            .shared
            .torrents
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for torrent in torrents.values() {
            torrent.note_stamps(&self.shared.resume);
        }
        self.shared.resume.checkpoint()
    }
}

impl Drop for DiskPool {
    fn drop(&mut self) {
        self.join();
    }
}

impl std::fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskPool({} workers)", self.workers.len())
    }
}
