//! Flags of `supernode`, `serve login` and `serve supernodes`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use shoal_base::id::from_hex;

use super::{RelayTlsFlags, listen_addr, rate, seconds, size};

/// Reads an Ed25519 public key.
pub(super) fn public_key(text: &str) -> Result<[u8; 32], String> {
    from_hex(text).map_err(|_| "expected a key of 64 hexadecimal digits".to_owned())
}

/// What to do in the overlay of supernodes.
#[derive(Debug, Subcommand)]
pub(crate) enum SupernodeCommand {
    Node(Box<SupernodeNodeArgs>),
    Find(SupernodeFindArgs),
    Fetch(SupernodeFetchArgs),
    List(SupernodeListArgs),
}

/// Which overlay.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Overlay")]
pub(crate) struct JoinFlags {
    /// The login server, which gives tokens
    #[arg(long, value_name = "HOST:PORT", env = "SHOAL_LOGIN")]
    pub(crate) login: Option<String>,
    /// The list of supernodes [default: at the login server]
    #[arg(long, value_name = "HOST:PORT", env = "SHOAL_SUPERNODES")]
    pub(crate) list: Option<String>,
    /// The login server's key [default: the one that it had the first time]
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub(crate) trust: Option<[u8; 32]>,
    /// Do not ask the router of this network, by PCP, NAT-PMP or UPnP, to let others through to us (also --no-upnp)
    #[arg(long, alias = "no-upnp")]
    pub(crate) no_port_mapping: bool,
}

/// Be a node: share files and be found, and be a supernode when one is needed
///
/// An ordinary peer keeps a link to one supernode, tells its list of files there, and goes to another
/// when that one dies. One that can be reached, is fast and stays may be asked to become a supernode.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal supernode node --login login.example.org:1213 --share ~/Music
  shoal supernode node --login login.example.org:1213 --supernode --relay :3478 --relay :80
  shoal supernode node --login login.example.org:1213 --library --firewalled
  shoal supernode node --login login.example.org:1213 --supernode --napster 192.0.2.7:8888")]
pub(crate) struct SupernodeNodeArgs {
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Be known by this name [default: one made of the key]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Share the files of this folder (may be repeated)
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, conflicts_with = "library")]
    pub(crate) share: Vec<PathBuf>,
    /// Share what the library shares with everyone (shoal library add), and follow its changes
    #[arg(long)]
    pub(crate) library: bool,
    /// Listen here, for links and for who fetches
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:1214", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Others reach this node at this address [default: the one listened at]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) external: Option<SocketAddr>,
    /// Do not listen: nobody can connect here; who fetches is connected to, or comes by the overlay
    /// (so behind a router without being told, unless --external says where others reach this node)
    #[arg(long, conflicts_with_all = ["supernode", "external"])]
    pub(crate) firewalled: bool,
    /// Begin as a supernode
    #[arg(long)]
    pub(crate) supernode: bool,
    /// Stay what it is: be neither promoted nor demoted
    #[arg(long)]
    pub(crate) keep_role: bool,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slots: u32,
    /// Send at most this many bytes a second, of files and when measured, such as 1MiB
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) up_limit: Option<u64>,
    #[command(flatten)]
    pub(crate) role: RoleFlags,
    /// Be an ultrapeer of a Gnutella network too, at this address: what the overlay looks for is asked
    /// there, and what this node and its children share is found from there
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) gnutella: Option<SocketAddr>,
    /// Keep a connection with this host of the Gnutella network (may be repeated)
    #[arg(long, value_name = "HOST:PORT", requires = "gnutella")]
    pub(crate) gnutella_connect: Vec<String>,
    /// Be a STUN and TURN relay here too, for the children of this supernode and of its neighbours
    /// (may be repeated: more ports, for those behind strict firewalls)
    #[arg(long, value_name = "ADDR", requires = "supernode", value_parser = listen_addr)]
    pub(crate) relay: Vec<SocketAddr>,
    /// Relay at most this many bytes a second, such as 10MiB
    #[arg(long, value_name = "RATE", requires = "relay", value_parser = rate)]
    pub(crate) relay_limit: Option<u64>,
    #[command(flatten)]
    pub(crate) relay_tls: RelayTlsFlags,
    /// Take OpenNap clients as children too, with a hub at this address: they search and fetch what the
    /// overlay has, and what they share is found from there
    #[arg(long, value_name = "ADDR", value_parser = listen_addr, conflicts_with = "firewalled")]
    pub(crate) napster: Option<SocketAddr>,
    /// Keep at most so much of what OpenNap clients share: the overlay fetches it from here
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, requires = "napster")]
    pub(crate) napster_keep: u64,
    /// Search for the words of each line of stdin
    #[arg(long)]
    pub(crate) ask: bool,
    /// Seconds between reports of what the node does
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) stats_interval: u64,
    /// Keep the key, the hashes of files and what is trusted in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How a supernode is run, and whom it promotes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Supernodes")]
pub(crate) struct RoleFlags {
    /// Children at most
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub(crate) max_children: u16,
    /// Links to other supernodes that it looks for
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=40))]
    pub(crate) neighbours: u8,
    /// Promote a child when this many percent of the places are taken
    #[arg(long, value_name = "PERCENT", default_value_t = 75, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) promote_at: u8,
    /// Promote only who sends this many bytes a second
    #[arg(long, value_name = "RATE", default_value = "64KiB", value_parser = rate)]
    pub(crate) min_bandwidth: u64,
    /// Promote only who has been here this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    pub(crate) min_uptime: u64,
    /// Bytes of one measurement
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub(crate) probe: u64,
    /// Become an ordinary peer after this long without children
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    pub(crate) idle: u64,
    /// Measure a neighbour about this often
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = seconds)]
    pub(crate) check_every: u64,
    /// Links of one host at most (not of this machine's, unless --limit-local)
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) per_host: usize,
    /// Let the limits by host hold for this machine too
    #[arg(long)]
    pub(crate) limit_local: bool,
}

/// Find files that peers share, by words or by the name of their content
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal supernode find sea shanty --login login.example.org:1213
  shoal supernode find urn:sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ --login login.example.org:1213
  shoal supernode find sea shanty --login login.example.org:1213 --wait 10 --limit 5 --json")]
pub(crate) struct SupernodeFindArgs {
    /// Words that the path must hold, or a urn:sha1: or urn:bitprint:
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Wait this long for answers
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: u64,
    /// Files at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Keep the key and what is trusted in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Fetch a file from everybody who shares it; every part is checked
///
/// Goes on looking for others who have it, also when its supernode dies. Sharers that nobody can
/// connect to are asked to connect here. Run again, it goes on where it was.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal supernode fetch sea shanty --login login.example.org:1213
  shoal supernode fetch sea shanty --login login.example.org:1213 --pick 2 --dir Music
  shoal supernode fetch urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB --login login.example.org:1213")]
pub(crate) struct SupernodeFetchArgs {
    /// Words that the path must hold, or a urn:sha1: or urn:bitprint:
    #[arg(required = true)]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Take the result with this number [default: the one that most share]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pick: u16,
    /// Wait this long for answers before the result is picked
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) wait: u64,
    /// Put the file here
    #[arg(long, value_name = "FOLDER", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Call it this [default: as the first host does]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) called: Option<String>,
    /// Listen here for sharers that connect
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Others reach that at this address [default: the one listened at]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) external: Option<SocketAddr>,
    /// Hosts asked at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=60))]
    pub(crate) max_sources: u8,
    /// Give up when nothing came for this long; 0: never
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    pub(crate) timeout: u64,
    /// Keep the key, what is trusted and what is needed to go on later here
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Show the list of supernodes
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal supernode list --list login.example.org:1213
  shoal supernode list --login login.example.org:1213
  shoal supernode list --list login.example.org:1213 --json")]
pub(crate) struct SupernodeListArgs {
    #[command(flatten)]
    pub(crate) join: JoinFlags,
}

/// Run a login server of the overlay of supernodes: it binds names to keys
///
/// Whoever claims a name signs a challenge with a key; the first has it for good. A token says so, with
/// this server's signature, until it expires. There are no passwords.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve login --with-list                        For this machine alone
  shoal serve login --with-list --listen :1213 --dir login
                                                       For everybody, with the list of supernodes
  shoal serve login --listen :1213 --lifetime 1h       Without a list; tokens hold an hour")]
pub(crate) struct LoginArgs {
    /// Listen here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1213", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Keep the server's key and the names in this folder [default: login in $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the list of supernodes, too
    #[arg(long)]
    pub(crate) with_list: bool,
    /// How long a token holds
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
    pub(crate) lifetime: u64,
    /// How long a certificate of a name holds
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = seconds)]
    pub(crate) certificate_lifetime: u64,
    /// New names that one host gets in a day
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) names_per_host: u32,
    /// Requests of one host in a minute
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) requests_per_minute: u32,
    #[command(flatten)]
    pub(crate) list: ListFlags,
}

/// Limits of a list, and what is told of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListFlags {
    /// Supernodes of one host on the list
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) supernodes_per_host: u16,
    /// Let the limits by host hold for this machine too
    #[arg(long)]
    pub(crate) limit_local: bool,
    /// Print a JSON statistics line this often
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) stats_interval: u64,
}

/// Run a list of supernodes: up to 200, for newcomers
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve supernodes --trust 3f1c…                 For this machine alone
  shoal serve supernodes --trust 3f1c… --listen :1212  For everybody who has a token of that server
  shoal serve supernodes --trust 3f1c… --json          With a line of figures now and then")]
pub(crate) struct SupernodesArgs {
    /// Listen here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1212", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// The key of the login server whose tokens count (shoal serve login prints it)
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub(crate) trust: [u8; 32],
    #[command(flatten)]
    pub(crate) list: ListFlags,
}
