//! Flags of `gnutella`.

mod files;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{JoinFlags, listen_addr, rate, seconds};

pub(crate) use files::{GnutellaBrowseArgs, GnutellaFetchArgs, GnutellaServeArgs};

/// What to do on Gnutella.
#[derive(Debug, Subcommand)]
pub(crate) enum GnutellaCommand {
    Node(GnutellaNodeArgs),
    Find(GnutellaFindArgs),
    Fetch(GnutellaFetchArgs),
    Serve(GnutellaServeArgs),
    Browse(GnutellaBrowseArgs),
}

/// How to get in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct OverlayFlags {
    /// Keep a connection with this host, by --login at an overlay address too (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// Ask this host for others, by a datagram (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) cache: Vec<String>,
    /// Ask this GWebCache for hosts when there is nobody to connect to (may be repeated)
    #[arg(long, value_name = "URL")]
    pub(crate) gwebcache: Vec<String>,
    /// Listen here, for connections and datagrams
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6346", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Others reach this node at this address [default: the one listened at, or as others see it]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) external: Option<std::net::SocketAddrV4>,
    /// Others cannot connect to this node: they are told to ask it to connect to them
    #[arg(long)]
    pub(crate) firewalled: bool,
    /// Do not change to TLS with those who can
    #[arg(long)]
    pub(crate) no_tls: bool,
}

/// Be a node: share files and answer for them, as an ultrapeer for leaves too
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal gnutella node --connect 198.51.100.7:6346 --share ~/Music
  shoal gnutella node --ultrapeer --listen 0.0.0.0:6346 --state-dir /var/lib/shoal
  shoal gnutella node --login login.example.org:1213 --share ~/Music    Reached through any NAT
  shoal gnutella node --flood --connect 192.0.2.1:6346    As 0.4 did, for study")]
pub(crate) struct GnutellaNodeArgs {
    #[command(flatten)]
    pub(crate) overlay: OverlayFlags,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Share the files of this folder (may be repeated)
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) share: Vec<PathBuf>,
    /// Share what `shoal library` keeps, and follow its changes
    #[arg(long, conflicts_with = "share")]
    pub(crate) library: bool,
    /// Let nobody list all that is shared
    #[arg(long)]
    pub(crate) no_browse: bool,
    /// Send at most this much of files a second, such as 512K or 3MiB; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) up_limit: Option<u64>,
    /// Route for leaves and among ultrapeers
    #[arg(long, conflicts_with_all = ["leaf", "flood"])]
    pub(crate) ultrapeer: bool,
    /// Ask and answer by way of ultrapeers (this is the default)
    #[arg(long, conflicts_with = "flood")]
    pub(crate) leaf: bool,
    /// Begin as a leaf, and become an ultrapeer after --auto-after if others reach this node
    #[arg(long, conflicts_with_all = ["ultrapeer", "leaf", "flood"])]
    pub(crate) auto: bool,
    /// How long a leaf must be up to become an ultrapeer
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds, requires = "auto")]
    pub(crate) auto_after: u64,
    /// Flood pings and queries among equals, as Gnutella 0.4 did
    #[arg(long)]
    pub(crate) flood: bool,
    /// Connections with ultrapeers at most [default: 50 for an ultrapeer, 4 for a leaf]
    #[arg(long, value_name = "N")]
    pub(crate) max_ultrapeers: Option<usize>,
    /// Leaves at most
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) max_leaves: usize,
    /// Do not pack what is sent
    #[arg(long)]
    pub(crate) no_deflate: bool,
    /// Neither offer nor take answers by datagrams, past the ultrapeers in between
    #[arg(long)]
    pub(crate) no_oob: bool,
    /// Seconds between reports of what the node does
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) stats_interval: u64,
    /// Keep hashes of files and known hosts in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Find files that others share, by words or by the name of their content
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal gnutella find sea shanty --connect 198.51.100.7:6346
  shoal gnutella find urn:sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ --connect 198.51.100.7:6346
  shoal gnutella find sea shanty --connect 198.51.100.7:6346 --wait 60 --limit 10 --json")]
pub(crate) struct GnutellaFindArgs {
    /// Words that the name must hold, or a urn:sha1:, urn:bitprint: or urn:tree:tiger:
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) overlay: OverlayFlags,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Wait this long for answers
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(crate) wait: u64,
    /// Files at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Keep the key that --login needs in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}
