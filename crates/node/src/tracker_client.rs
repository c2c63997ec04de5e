//! Announcing to trackers: one thread that runs the announcers of all torrents, a UDP socket per
//! address family, and a small pool of threads for what blocks (HTTP and name lookups).
//!
//! The rules (who is asked when) are those of `shoal_bittorrent::tracker`; here are sockets,
//! clock and threads only. Nothing that a tracker does can hold up another for long: UDP does not
//! block, and each HTTP request has its own thread out of a bounded number and a time limit.

mod driver;
mod pool;

use crate::outbound::Outbound;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use shoal_base::{InfoHash, PeerId};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Events kept for a reader that does not drain; later ones are dropped.
const MAX_EVENTS: usize = 4096;

/// What is called, from any thread, when there are events to drain.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// A torrent to announce.
#[derive(Debug, Clone)]
pub struct AnnounceParams {
    /// Its v1 info-hash, or the truncated v2 one.
    pub info_hash: InfoHash,
    /// Our name in this torrent.
    pub peer_id: PeerId,
    /// The port we listen on; zero if we do not.
    pub port: u16,
    /// Where others on the overlay reach us; none: nowhere.
    pub overlay: Option<SocketAddr>,
    /// Tiers of tracker URLs (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Whether it is private (BEP 27): one tracker at a time.
    pub private: bool,
    /// Where the download stands now.
    pub counters: Counters,
}

/// What trackers are told about a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent to peers in this session.
    pub uploaded: u64,
    /// Bytes received from peers in this session.
    pub downloaded: u64,
    /// Bytes missing; `u64::MAX` while the metadata is.
    pub left: u64,
    /// Whether more peers would be of use now.
    pub wants_peers: bool,
}

/// What a tracker brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerEvent {
    /// An answer.
    Peers {
        /// The torrent, as added.
        key: u32,
        /// The tracker.
        url: String,
        /// Whom to connect to; may be empty.
        peers: Vec<SocketAddr>,
        /// Time between announces, as the tracker wants it.
        interval: Duration,
        /// Peers with everything, if it says.
        seeders: Option<u32>,
        /// Peers without, if it says.
        leechers: Option<u32>,
        /// Its words to the user, if any.
        warning: Option<String>,
    },
    /// An announce failed.
    Error {
        /// The torrent, as added.
        key: u32,
        /// The tracker.
        url: String,
        /// Why, for the user.
        error: String,
        /// Until its tier is tried again; zero if the next tracker of the tier is asked now.
        retry_in: Duration,
    },
}

/// Why the client could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the tracker client")]
pub struct StartError(#[from] std::io::Error);

#[derive(Debug)]
enum Command {
    Add(u32, Box<AnnounceParams>),
    Update(u32, Counters),
    Completed(u32),
    Remove(u32),
    Port(u16),
    Shutdown(Sender<()>),
}

#[derive(Debug, Default)]
struct Events(Mutex<Vec<TrackerEvent>>);

impl Events {
    fn push(&self, event: TrackerEvent) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < MAX_EVENTS {
            queue.push(event);
        }
    }
}

/// A handle to the announcing thread. Dropping it ends the thread without `stopped` announces;
/// see [`TrackerClient::shutdown`].
pub struct TrackerClient {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    events: Arc<Events>,
}

impl TrackerClient {
    /// Starts the thread. `notify` is called after events were queued; `seed` decides transaction
    /// ids and the order of trackers; announces leave as `outbound` says.
    pub fn spawn(notify: Notify, seed: u64, outbound: Outbound) -> Result<Self, StartError> {
        let (commands, inbox): (_, Receiver<Command>) = unbounded();
        let events = Arc::new(Events::default());
        let waker = driver::spawn(inbox, Arc::clone(&events), notify, seed, outbound)?;
        Ok(Self {
            commands,
            waker,
            events,
        })
    }

    /// Begins to announce a torrent under `key`, replacing what was there.
    pub fn add(&self, key: u32, params: AnnounceParams) {
        self.send(Command::Add(key, Box::new(params)));
    }

    /// Tells how the transfer stands; announces for more peers follow from `wants_peers`.
    pub fn update(&self, key: u32, counters: Counters) {
        self.send(Command::Update(key, counters));
    }

    /// Announces that the download has just become complete.
    pub fn completed(&self, key: u32) {
        self.send(Command::Completed(key));
    }

    /// Announces that the torrent stops here, and forgets it.
    pub fn remove(&self, key: u32) {
        self.send(Command::Remove(key));
    }

    /// Others reach us at this port from now on: all torrents' next announces say so.
    pub fn set_port(&self, port: u16) {
        self.send(Command::Port(port));
    }

    /// Moves what happened into `out`.
    pub fn drain(&self, out: &mut Vec<TrackerEvent>) {
        out.append(&mut self.events.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says `stopped` to all trackers, waits up to `timeout` for them to hear it, and ends.
    pub fn shutdown(self, timeout: Duration) {
        let (done, ended) = bounded(0);
        self.send(Command::Shutdown(done));
        // Either the thread drops its end, or time runs out; both are the end of it.
        let _ = ended.recv_timeout(timeout);
    }

    fn send(&self, command: Command) {
        // A thread that is gone has nothing left to tell.
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for TrackerClient {
    fn drop(&mut self) {
        // The thread ends when it finds the channel closed; it must wake up to look.
        self.commands = unbounded().0;
        let _ = self.waker.wake();
    }
}

#[cfg(test)]
mod tests;
