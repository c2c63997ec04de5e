//! Flags of `serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::cluster::MasterArgs;
use super::relay::RelayArgs;
use super::supernode::{LoginArgs, SupernodesArgs};
use super::{listen_addr, seconds};

/// Which role to run.
#[derive(Debug, Subcommand)]
pub(crate) enum ServeCommand {
    Tracker(TrackerArgs),
    Master(MasterArgs),
    Napster(HubArgs),
    Gwebcache(WebCacheArgs),
    Turn(RelayArgs),
    Login(LoginArgs),
    Supernodes(SupernodesArgs),
}

/// Be a GWebCache: tell Gnutella nodes of one another, over HTTP
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve gwebcache                     For this machine alone
  shoal serve gwebcache --listen :8080
  shoal gnutella node --ultrapeer --gwebcache http://cache.example.org:8080/")]
pub(crate) struct WebCacheArgs {
    /// Listen here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
}

/// Run a Napster hub: a directory of who shares what, and rooms to talk in
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve napster                                  For this machine alone
  shoal serve napster --listen :8888 --dir hub --motd welcome.txt
                                                       For everybody; keeps registered nicks
  shoal serve napster --listen :8888 --link hub.example.org:8888 --link-secret-file secret
                                                       One directory with another hub")]
pub(crate) struct HubArgs {
    /// Listen here; OpenNap's usual port is 8888
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8888", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Keep registered nicks, bans and rooms in this folder [default: forget them at the end]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// What the hub calls itself; linked hubs need different names [default: the address]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Tell every user the lines of this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) motd: Option<PathBuf>,
    /// The nick that may do everything
    #[arg(long, value_name = "NICK", requires = "admin_password_file")]
    pub(crate) admin: Option<String>,
    /// The file whose first line is the admin's password
    #[arg(long, value_name = "FILE", requires = "admin", value_hint = ValueHint::FilePath)]
    pub(crate) admin_password_file: Option<PathBuf>,
    /// Link with the hub at this address (may be repeated)
    #[arg(long = "link", value_name = "HOST:PORT", requires = "link_secret_file")]
    pub(crate) links: Vec<String>,
    /// The file whose first line the linked hubs prove to each other that they know
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) link_secret_file: Option<PathBuf>,
    /// Let in only registered nicks
    #[arg(long)]
    pub(crate) registered_only: bool,
    /// Let nobody register a nick
    #[arg(long)]
    pub(crate) no_registration: bool,
    /// Connections at most
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) max_connections: usize,
    /// Connections of one address at most (not of this machine's, unless --limit-local)
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) max_clones: usize,
    /// Let the limits by address hold for this machine too
    #[arg(long)]
    pub(crate) limit_local: bool,
    /// Files of one user at most
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) max_shared: usize,
    /// Hits of one search at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_results: usize,
    /// Searches a user may make in a minute; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) searches_per_minute: u32,
    /// Lines a user may say in a minute; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) lines_per_minute: u32,
    /// Print a JSON statistics line this often
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) stats_interval: u64,
}

/// Run a tracker: it tells peers of a torrent about each other
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("listen").required(true).multiple(true).args(["http", "udp"]),
    after_long_help = "\
Examples:
  shoal serve tracker --http 0.0.0.0:6969 --udp 0.0.0.0:6969    Both protocols
  shoal serve tracker --udp '[::]:6969' --allow hashes.txt       Only these torrents
  shoal serve tracker --http 127.0.0.1:0 --json                  A free port; prints it")]
pub(crate) struct TrackerArgs {
    /// Answer HTTP announces and scrapes here
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) http: Option<SocketAddr>,
    /// Answer UDP announces and scrapes here
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) udp: Option<SocketAddr>,
    /// Threads that answer [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Serve only the info-hashes in this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "deny", value_hint = ValueHint::FilePath)]
    pub(crate) allow: Option<PathBuf>,
    /// Refuse the info-hashes in this file, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) deny: Option<PathBuf>,
    /// How often peers shall announce (seconds, or 30m, 2h)
    #[arg(long, value_name = "SECONDS", default_value = "30m", value_parser = seconds)]
    pub(crate) interval: u64,
    /// The least time between two announces of one peer [default: a sixth of the interval]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) min_interval: Option<u64>,
    /// Name at most this many peers in an answer
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) max_peers: u16,
    /// Know at most this many torrents
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub(crate) max_torrents: usize,
    /// Let one address have at most this many peers in all; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) max_peers_per_address: u16,
    /// Answer one address at most this often a second; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_requests_per_address: u32,
    /// Let the limits hold for this machine and private networks too
    #[arg(long)]
    pub(crate) limit_local: bool,
    /// Believe the X-Forwarded-For of this proxy (may be repeated)
    #[arg(long = "trusted-proxy", value_name = "IP")]
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// Show /stats and /metrics to everybody, not only to this machine
    #[arg(long)]
    pub(crate) public_stats: bool,
    /// Print a JSON statistics line this often
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) stats_interval: u64,
}
