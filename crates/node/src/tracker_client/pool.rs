//! A bounded number of threads for what blocks: HTTP announces and name lookups.

use crate::http;
use crate::outbound::Outbound;
use crossbeam_channel::{Receiver, Sender, unbounded};
use shoal_bittorrent::tracker::AnnounceReply;
use shoal_bittorrent::tracker::http_reply::{ReplyError, decode_announce};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Threads at most; they start when there is work for them.
const MAX_THREADS: usize = 16;
/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(10);
/// From the first look-up to the last byte of a reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// To a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of a reply.
const MAX_REPLY: u64 = 1 << 20;

/// Why an HTTP announce failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpFailure {
    /// No reply at all.
    #[error("{0}")]
    Transport(Box<ureq::Error>),
    /// A reply that is none of a tracker.
    #[error("http status {0}")]
    Status(u16),
    /// A reply that says no, or nothing that can be read.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

pub(super) enum Job {
    /// GET this URL.
    Get { token: u64, url: String },
    /// Look up `host:port`.
    Resolve { token: u64, host: String },
}

pub(super) enum Done {
    Got {
        token: u64,
        result: Result<AnnounceReply, HttpFailure>,
    },
    Resolved {
        token: u64,
        result: std::io::Result<Vec<SocketAddr>>,
    },
}

pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    done: Sender<Done>,
    waker: Arc<mio::Waker>,
    agent: ureq::Agent,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Jobs submitted and not over.
    unfinished: AtomicUsize,
    /// Threads that take jobs.
    alive: AtomicUsize,
}

impl Pool {
    pub(super) fn new(done: Sender<Done>, waker: Arc<mio::Waker>, outbound: Outbound) -> Self {
        let (jobs, queue) = unbounded();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_redirects(5)
            .http_status_as_error(false)
            .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .max_idle_connections(4)
            .build();
        Self {
            jobs,
            queue,
            done,
            waker,
            agent: http::agent(config, outbound),
            counts: Arc::default(),
        }
    }

    /// Queues a job; its end comes through the channel given to [`Pool::new`].
    pub(super) fn submit(&self, job: Job) {
        let unfinished = self.counts.unfinished.fetch_add(1, Ordering::SeqCst) + 1;
        // This side holds the queue open.
        let _ = self.jobs.send(job);
        let alive = self.counts.alive.load(Ordering::SeqCst);
        if alive < unfinished.min(MAX_THREADS) {
            self.start();
        }
    }

    fn start(&self) {
        self.counts.alive.fetch_add(1, Ordering::SeqCst);
        let worker = Worker {
            queue: self.queue.clone(),
            done: self.done.clone(),
            waker: Arc::clone(&self.waker),
            agent: self.agent.clone(),
            counts: Arc::clone(&self.counts),
        };
        let builder = thread::Builder::new().name("tracker-http".into());
        let builder = builder.stack_size(512 * 1024);
        if let Err(error) = builder.spawn(move || worker.run()) {
            // The job waits for the next one, and a thread with it.
            self.counts.alive.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "cannot start a thread for tracker requests");
        }
    }
}

struct Worker {
    queue: Receiver<Job>,
    done: Sender<Done>,
    waker: Arc<mio::Waker>,
    agent: ureq::Agent,
    counts: Arc<Counts>,
}

impl Worker {
    fn run(self) {
        let alive = &self.counts.alive;
        loop {
            let job = self.queue.recv_timeout(IDLE).ok().or_else(|| {
                // Counted out first and only then the last look: a job that was submitted
                // while this thread still counted is found here.
                alive.fetch_sub(1, Ordering::SeqCst);
                let job = self.queue.try_recv().ok()?;
                alive.fetch_add(1, Ordering::SeqCst);
                Some(job)
            });
            let Some(job) = job else { return };
            let done = match job {
                Job::Get { token, url } => Done::Got {
                    token,
                    result: get(&self.agent, &url),
                },
                Job::Resolve { token, host } => Done::Resolved {
                    token,
                    result: host.to_socket_addrs().map(Iterator::collect),
                },
            };
            self.counts.unfinished.fetch_sub(1, Ordering::SeqCst);
            if self.done.send(done).is_err() {
                // The driver is gone, and the pool with it.
                return;
            }
            let _ = self.waker.wake();
        }
    }
}

fn get(agent: &ureq::Agent, url: &str) -> Result<AnnounceReply, HttpFailure> {
    let transport = |e| HttpFailure::Transport(Box::new(e));
    let mut response = agent.get(url).call().map_err(transport)?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(MAX_REPLY);
    let body = body.read_to_vec().map_err(transport)?;
    match decode_announce(&body) {
        // Some trackers refuse in bencode under a 4xx status: their words say more.
        Err(ReplyError::Failure { reason, retry_in }) => {
            Err(ReplyError::Failure { reason, retry_in }.into())
        }
        _ if !status.is_success() => Err(HttpFailure::Status(status.as_u16())),
        reply => Ok(reply?),
    }
}
