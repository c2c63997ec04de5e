//! How a node is set up, and what it is asked to add.

use crate::dht::Ring;
use crate::gnutella::transfer::SharedPart;
use crate::range_source::SourceSpec;
use crate::reach::Overlay;
use shoal_content::{Magnet, Metainfo};
use shoal_napster::client::Login;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where peers may reach us; none: no incoming connections. Port 0 picks a free one. What we
    /// begin ourselves leaves from this address too, unless it is the unspecified one.
    pub listen: Option<SocketAddr>,
    /// Folder of the resume database. Two nodes cannot share one.
    pub state_dir: PathBuf,
    /// Bytes a second sent to peers, all torrents together; none: no limit.
    pub up_limit: Option<u64>,
    /// Bytes a second received from peers, all torrents together; none: no limit.
    pub down_limit: Option<u64>,
    /// Whether peers on loopback and private addresses are exempt from the limits.
    pub lan_unlimited: bool,
    /// Most connections at once, all torrents together.
    pub max_peers: usize,
    /// Find peers on the local network (BEP 14).
    pub lsd: bool,
    /// Find peers in the DHT; none: do not.
    pub dht: Option<DhtSettings>,
    /// Find peers on a Chord ring of one's own; none: do not.
    pub ring: Option<RingSettings>,
    /// Seed of all random choices; none: from the system.
    pub seed: Option<u64>,
    /// Threads that write, hash and read.
    pub disk_threads: usize,
    /// Our place on the overlay, by which peers reach us and are reached through NATs; none: we have
    /// none. Peers find us there at the listener's port.
    pub overlay: Option<Overlay>,
    /// Whether the router is asked to let peers through to the listener.
    pub port_mapping: bool,
    /// Who we are at Napster's hubs, if a torrent has sources there; none: somebody by chance.
    pub hub_login: Option<Login>,
}

/// How a session takes part in the DHT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtSettings {
    /// Nodes to start from, as `ADDRESS:PORT` or `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// The file in which contacts are kept between two runs; sessions may share one.
    pub contacts: Option<PathBuf>,
}

/// How a session takes part in a Chord ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Members to join at, as `ADDRESS:PORT` or `HOST:PORT`; without any it begins a ring.
    pub bootstrap: Vec<String>,
    /// Where the ring's datagrams arrive (UDP).
    pub listen: SocketAddr,
    /// Takes any free port if the one given is not free.
    pub any_port: bool,
    /// Its members reach each other by the overlay.
    pub overlay: bool,
    /// The file in which members met are kept between two runs.
    pub contacts: Option<PathBuf>,
    /// Which ring.
    pub ring: Ring,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            listen: None,
            state_dir: PathBuf::new(),
            up_limit: None,
            down_limit: None,
            lan_unlimited: false,
            max_peers: 500,
            lsd: true,
            dht: None,
            ring: None,
            seed: None,
            disk_threads: std::thread::available_parallelism().map_or(2, |n| n.get().min(4)),
            overlay: None,
            port_mapping: false,
            hub_login: None,
        }
    }
}

/// What to download or share.
#[derive(Clone, Debug)]
pub enum What {
    /// A parsed .torrent file.
    Metainfo(Box<Metainfo>),
    /// A magnet link; the metadata comes from peers (BEP 9).
    Magnet(Box<Magnet>),
}

/// One torrent to run.
#[derive(Clone, Debug)]
pub struct AddTorrent {
    /// What it is.
    pub what: What,
    /// The download folder; the torrent's own names are placed below it.
    pub dir: PathBuf,
    /// Peers to connect to at once.
    pub peers: Vec<SocketAddr>,
    /// Trackers in tiers (BEP 12), added to those of the torrent itself.
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19), added to those of the torrent itself.
    pub web_seeds: Vec<String>,
    /// Others that have it, or one file of it.
    pub sources: Vec<SourceSpec>,
    /// Where it is served to Gnutella's users too while it is fetched, if it has one file alone.
    pub shared_part: Option<SharedPart>,
    /// The data was just hashed: seed it without checking again.
    pub assume_complete: bool,
    /// Download only these files (indices in the torrent); none: all.
    pub wanted_files: Option<Vec<usize>>,
    /// Once the metadata of a magnet link is known, wait for [`Session::select`] before anything
    /// is created or fetched.
    pub hold: bool,
    /// Fetch pieces in order rather than rarest first.
    pub sequential: bool,
    /// Fetch nothing but what [`Session::want`] asks for, in order.
    pub on_demand: bool,
    /// Allocate the files' space before downloading.
    pub preallocate: bool,
    /// Bytes a second sent for this torrent; none: no limit of its own.
    pub up_limit: Option<u64>,
    /// Bytes a second received for this torrent; none: no limit of its own.
    pub down_limit: Option<u64>,
}

impl AddTorrent {
    /// A torrent into `dir`, everything else at its default.
    pub fn new(what: What, dir: PathBuf) -> Self {
        Self {
            what,
            dir,
            peers: Vec::new(),
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            sources: Vec::new(),
            shared_part: None,
            assume_complete: false,
            wanted_files: None,
            hold: false,
            sequential: false,
            on_demand: false,
            preallocate: false,
            up_limit: None,
            down_limit: None,
        }
    }

    /// The trackers of the torrent and those given with it, in tiers.
    pub(crate) fn all_trackers(&self) -> Vec<Vec<String>> {
        let own = match &self.what {
            What::Metainfo(metainfo) => metainfo.trackers.clone(),
            What::Magnet(magnet) => magnet.trackers.iter().map(|t| vec![t.clone()]).collect(),
        };
        own.into_iter()
            .chain(self.trackers.iter().cloned())
            .collect()
    }

    /// The web seeds of the torrent and those given with it, each once.
    pub(crate) fn all_web_seeds(&self) -> Vec<String> {
        let own = match &self.what {
            What::Metainfo(metainfo) => &metainfo.web_seeds,
            What::Magnet(magnet) => &magnet.web_seeds,
        };
        let mut urls: Vec<String> = Vec::new();
        for url in own.iter().chain(&self.web_seeds) {
            if !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }

    /// Everybody who is asked for ranges, each once.
    pub(crate) fn all_sources(&self) -> Vec<SourceSpec> {
        let web = self.all_web_seeds().into_iter().map(SourceSpec::Web);
        let mut all: Vec<SourceSpec> = Vec::new();
        for spec in web.chain(self.sources.iter().cloned()) {
            if !all.contains(&spec) {
                all.push(spec);
            }
        }
        all
    }
}
