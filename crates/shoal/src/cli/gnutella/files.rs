//! Flags of `gnutella fetch` and `gnutella serve`.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use shoal_content::{TigerRoot, Urn};

use crate::cli::{JoinFlags, listen_addr, rate, seconds, size};

/// Reads the root of a hash tree.
fn tree_root(text: &str) -> Result<TigerRoot, String> {
    let urn = text.parse::<Urn>().ok().and_then(|urn| urn.tiger());
    match urn {
        Some(root) => Ok(root),
        None => text.parse().map_err(|e| format!("{e}")),
    }
}

/// Fetch a file by its hash from several hosts at once; every part is checked
#[derive(Debug, Args)]
#[command(after_long_help = "\
Hosts tell of others that have the file; those are asked too. With a hash tree, which most hosts
have, a wrong part is found as soon as it is there; without one the whole file is checked at the end.
Run again, the command goes on where it was stopped or killed.

Examples:
  shoal gnutella fetch urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB --from 192.0.2.7:6346
  shoal gnutella fetch urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB --from 192.0.2.7:6346 --from 192.0.2.8:6346 --dir Music
  shoal gnutella fetch urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB --connect 198.51.100.7:6346    From whom a search finds
  shoal gnutella fetch urn:sha1:PLSTHIPQGSSZTS5FJUPAKUZWUGYQYPFB --listen :6346    From a host that connects to us")]
pub(crate) struct GnutellaFetchArgs {
    /// The file: urn:sha1:…, urn:bitprint:… or urn:tree:tiger:…
    pub(crate) urn: Urn,
    /// A host that has it, by --login at an overlay address too (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Join the network at this host and ask there who has it (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// Ask for these words too: few ultrapeers pass searches by hash on to their leaves
    #[arg(long, value_name = "TEXT", requires = "connect")]
    pub(crate) words: Option<String>,
    /// Others reach this node at this address [default: the one listened at, or as others see it]
    #[arg(long, value_name = "IP:PORT", requires = "connect")]
    pub(crate) external: Option<SocketAddrV4>,
    /// The root of its hash tree: urn:tree:tiger:… [default: what the hosts say, and the SHA-1 at the end]
    #[arg(long, value_name = "URN", value_parser = tree_root)]
    pub(crate) tree: Option<TigerRoot>,
    /// Put the file here
    #[arg(long, value_name = "FOLDER", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Call it this [default: as the first host does]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Listen here: for hosts behind firewalls, and for those that call when our turn has come
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Option<SocketAddr>,
    /// Do not change to TLS with those who can
    #[arg(long)]
    pub(crate) no_tls: bool,
    /// Hosts asked at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=60))]
    pub(crate) max_sources: u8,
    /// Give up when nothing came for this long; 0: never
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = seconds)]
    pub(crate) timeout: u64,
    /// Keep what is needed to go on later here
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Serve the files of folders to Gnutella's users, without taking part in the overlay
#[derive(Debug, Args)]
#[command(after_long_help = "\
Files are hashed when they are new or have changed. Downloaders beyond the slots wait in a queue.

Examples:
  shoal gnutella serve ~/Music
  shoal gnutella serve ~/Music --listen 192.0.2.7:6346 --slots 8
  shoal gnutella serve ~/Music --login login.example.org:1213    Also at an overlay address, through any NAT
  shoal gnutella serve ~/Music --give 192.0.2.9:6346    Connect to a downloader that cannot reach us")]
pub(crate) struct GnutellaServeArgs {
    /// Folders
    #[arg(required = true, value_hint = ValueHint::DirPath)]
    pub(crate) dirs: Vec<PathBuf>,
    /// Listen here
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6346", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slots: u32,
    /// Uploads at once to one host
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) per_host: u32,
    /// Bytes that one answer brings at most [default: what is asked for]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_range: Option<u64>,
    /// How soon the first of the queue may ask again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) poll: u64,
    /// Send at most this much a second, such as 512K or 3MiB; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) up_limit: Option<u64>,
    /// Do not change to TLS with those who can
    #[arg(long)]
    pub(crate) no_tls: bool,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Connect to this downloader and let it ask (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) give: Vec<String>,
    /// Keep the hashes of files here
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// List all that a host shares
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal gnutella browse 192.0.2.7:6346
  shoal gnutella browse 192.0.2.7:6346 --limit 20
  shoal gnutella browse 192.0.2.7:6346 --json --limit 100000    One object a line
  shoal gnutella browse [fc3a::1]:6346 --login login.example.org:1213    Through any NAT")]
pub(crate) struct GnutellaBrowseArgs {
    /// The host, by --login at an overlay address too
    #[arg(value_name = "HOST:PORT")]
    pub(crate) host: String,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Files at most
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) limit: usize,
    /// Keep the key that --login needs in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}
