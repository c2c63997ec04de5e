//! One file, from many hosts at once: who is asked for what, what is checked, who is dropped.
//!
//! ```text
//! source threads ── News ─► the download's thread ── blocks ─► disk pool (hashes pieces)
//!                ◄─ Order ─┘      │      ◄────────── Done ──┘
//!                        shoal_content::Download: which block from whom
//! ```
//!
//! With a hash tree every piece is checked when it is there. Without one the whole is, at the end;
//! if it is wrong, what one host after the other sent is fetched again from the rest.

mod blocks;
mod doubt;
mod hosts;
mod incoming;
mod others;
mod outlook;
mod run;
mod start;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use shoal_base::Rng;
use shoal_gnutella::Guid;
use shoal_gnutella::huge::{TigerRoot, Urn};
use shoal_napster::client::Login;
use shoal_store::{Resume, ResumeError};

use super::listen::Listener;
use super::partial::PartialFile;
use crate::outbound::Outbound;
use crate::range_source::{SourceCount, SourceNews, SourceSort, SourceSpec};
use run::Fetch;

/// Sharers that were asked and that nobody has heard of yet.
const PUSHES: usize = 64;

/// What is fetched, and how.
#[derive(Debug)]
pub struct DownloadSettings {
    /// The file, by every hash that is known for sure: by its SHA-1 or its hash tree's root it is checked.
    pub urn: Urn,
    /// What to call it; none: as the first host does.
    pub name: Option<String>,
    /// Bytes of the file, if they are known.
    pub len: Option<u64>,
    /// Gnutella hosts that have it.
    pub from: Vec<SocketAddr>,
    /// Those of them that say that they speak TLS: connections with them begin with it. With others it is
    /// proposed.
    pub tls_hosts: Vec<SocketAddr>,
    /// Whether TLS is used at all.
    pub tls: bool,
    /// Others who have it: web servers, users of Napster hubs, Gnutella hosts behind firewalls.
    pub sources: Vec<SourceSpec>,
    /// Who we are at Napster's hubs; somebody by chance if the nick is empty.
    pub hub_login: Login,
    /// Where it goes.
    pub dir: PathBuf,
    /// Where what is there is remembered.
    pub state_dir: PathBuf,
    /// The address at which users of Napster hubs may bring files; none: they cannot.
    pub data_ip: Option<IpAddr>,
    /// How connections leave.
    pub outbound: Outbound,
    /// Hosts asked at once.
    pub max_sources: usize,
    /// Who may connect to us; told to the hosts as our address.
    pub listener: Option<Listener>,
    /// Whether it goes on when nobody is left: others may be found, or connect.
    pub awaits_more: bool,
    /// What is there is served from here, if anybody serves it.
    pub partial: Option<PartialFile>,
    /// Randomness.
    pub rng: Rng,
}

/// What happens to a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownloadEvent {
    /// What it is is known now.
    Known {
        /// Its name in the folder.
        name: String,
        /// Its length in bytes.
        len: u64,
        /// How many pieces.
        pieces: u32,
        /// Bytes in a piece.
        piece_len: u32,
        /// The root of the hash tree that pieces are checked by.
        tiger: Option<TigerRoot>,
    },
    /// A host has no slot for us yet.
    Queued {
        /// Who.
        addr: SocketAddr,
        /// Our place, if it says so.
        position: Option<u32>,
        /// Seconds until it is asked again.
        retry_s: u64,
    },
    /// A host cannot be used, for now or for good.
    Failed {
        /// Who.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
    /// A host sent wrong bytes and is asked no more.
    Banned {
        /// Who.
        addr: SocketAddr,
    },
    /// Something happened to somebody who is no Gnutella host.
    Source {
        /// Who: a URL, a nick and its hub.
        source: String,
        /// What kind it is.
        sort: SourceSort,
        /// What happened.
        news: SourceNews,
    },
    /// The disk does not take what comes.
    Paused {
        /// Why.
        reason: String,
    },
    /// It does again.
    Resumed,
    /// All is there, and is the file that was asked for.
    Complete {
        /// Where.
        path: PathBuf,
    },
    /// Nothing more comes of it.
    Ended(Ended),
}

/// Why nothing more comes of a download.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Nobody is left who may have it.
    #[error("nobody is left who has the file")]
    NoSource,
    /// What came is not what was asked for, and nobody else has it.
    #[error("what the hosts sent is not the file that was asked for")]
    Wrong,
    /// The disk, or the system.
    #[error("{0}")]
    System(String),
}

/// How a download stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DownloadStats {
    /// Bytes that are there and checked, as far as they can be.
    pub bytes_done: u64,
    /// Bytes of the file; zero while unknown.
    pub bytes_total: u64,
    /// Bytes received in this run.
    pub downloaded: u64,
    /// Bytes received in vain.
    pub wasted: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Hosts that are connected.
    pub sources: usize,
    /// Hosts that made us wait.
    pub queued: usize,
    /// Hosts that are known.
    pub known: usize,
    /// Hosts that sent wrong bytes.
    pub banned: usize,
    /// What Gnutella's hosts do.
    pub gnutella: SourceCount,
    /// What web servers do.
    pub web: SourceCount,
    /// What Napster's users do.
    pub napster: SourceCount,
}

/// A running download; stops when dropped, with what is there remembered.
#[derive(Debug)]
pub struct Download {
    /// What happens.
    pub events: Receiver<DownloadEvent>,
    /// Sharers that are just being asked by their proxies to connect to us, for who knows a further way to
    /// ask them.
    pub pushes: Receiver<Guid>,
    /// Where they are to connect to, if anybody can.
    pub listen: Option<SocketAddr>,
    stats: Arc<Mutex<DownloadStats>>,
    stop: Sender<()>,
    more: Sender<Vec<SourceSpec>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a download cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is remembered cannot be read.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The system starts no thread.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

impl Download {
    /// Begins, or goes on where an earlier run ended.
    ///
    /// # Errors
    /// `StartError`.
    pub fn start(settings: DownloadSettings) -> Result<Self, StartError> {
        let resume = Arc::new(Resume::open(&settings.state_dir)?);
        let (tell, events) = unbounded();
        let (stop, stopped) = bounded(1);
        let (more, found) = unbounded();
        let (due, pushes) = bounded(PUSHES);
        let stats = Arc::new(Mutex::new(DownloadStats::default()));
        let listen = settings.listener.as_ref().map(Listener::addr);
        let fetch = Fetch::new(
            settings,
            resume,
            (tell, due),
            (stopped, found),
            Arc::clone(&stats),
        );
        let thread = thread::Builder::new()
            .name("gnutella-download".into())
            .spawn(move || fetch.run())?;
        Ok(Self {
            events,
            pushes,
            listen,
            stats,
            stop,
            more,
            thread: Some(thread),
        })
    }

    /// How it stands.
    pub fn stats(&self) -> DownloadStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These have the file too.
    pub fn add_sources(&self, specs: Vec<SourceSpec>) {
        // It may have ended by itself.
        let _ = self.more.send(specs);
    }

    /// Stops it, and waits until what is there is remembered.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        // It may have ended by itself.
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.join();
    }
}
