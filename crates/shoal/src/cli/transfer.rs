//! Flags of `share` and `fetch`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use shoal_content::FileSource;

use super::JoinFlags;
use super::dht::WhichRing;
use super::napster::WhoFlags;
use super::{file_source, http_url, listen_addr, rate, salt, seconds, size, tracker_url};

/// Share files and folders; prints their magnet links and serves them until ctrl-C
///
/// The data stays where it is and is only read. Each PATH becomes a torrent of its own. The
/// magnet link names this machine's address if --listen gives one that others can use.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal share ~/Music/album                             Share a folder
  shoal share big.iso --torrent-out big.torrent         Write a .torrent file too
  shoal share data --no-dht --ring-listen :7700         Begin a private ring; others: --ring HOST:7700
  shoal share data --tracker udp://tracker.example:6969/announce --up-limit 5MiB
  shoal share data --login login.example.org:1213       Also behind any NAT, for who names the login
                                                        server too
  shoal share site --update-key me.key                  Also prints a link that finds newer versions:
                                                        share them later with the same key")]
pub(crate) struct ShareArgs {
    /// Files and folders to share
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Also write the .torrent file here (a folder, if there are several PATHs)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) torrent_out: Option<PathBuf>,
    /// Name this in the DHT as the newest version under the key in this file, which is made if it is
    /// missing; also prints the link that always finds the newest version (BEP 46)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["no_dht", "private"])]
    pub(crate) update_key: Option<PathBuf>,
    /// Tells apart several torrents that are updated under one key
    #[arg(long, value_name = "TEXT", requires = "update_key", default_value = "", value_parser = salt)]
    #[arg(hide_default_value = true)]
    pub(crate) update_salt: String,
    #[command(flatten)]
    pub(crate) make: MakeArgs,
    #[command(flatten)]
    pub(crate) net: NetArgs,
}

/// How a torrent is made.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Torrent options")]
pub(crate) struct MakeArgs {
    /// A tracker to announce to (may be repeated; each is a tier of its own)
    #[arg(long = "tracker", value_name = "URL", value_parser = tracker_url, value_hint = ValueHint::Url)]
    pub(crate) trackers: Vec<String>,
    /// A web server that holds the same data (may be repeated)
    #[arg(long = "web-seed", value_name = "URL", value_parser = http_url, value_hint = ValueHint::Url)]
    pub(crate) web_seeds: Vec<String>,
    /// Bytes in a piece, a power of two from 16KiB to 256MiB [default: fits the total size]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) piece_size: Option<u64>,
    /// Let only the torrent's own trackers name peers (BEP 27)
    #[arg(long)]
    pub(crate) private: bool,
    /// What to call it [default: the name of the file or folder]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A remark stored in the .torrent file
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Make a v1 torrent (the default)
    #[arg(long, group = "version")]
    pub(crate) v1: bool,
    /// Make a v2 torrent (not supported yet)
    #[arg(long, group = "version")]
    pub(crate) v2: bool,
    /// Make a torrent that is both v1 and v2 (not supported yet)
    #[arg(long, group = "version")]
    pub(crate) hybrid: bool,
}

/// How peers are found and spoken to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network options")]
pub(crate) struct NetArgs {
    /// Where peers may connect: ADDRESS:PORT, port 0 for any free one. Connections and announces leave
    /// from this address too, unless it names every one
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// A peer to connect to, ADDRESS:PORT or HOST:PORT (may be repeated)
    #[arg(long = "peer", value_name = "ADDR")]
    pub(crate) peers: Vec<String>,
    /// Do not look for peers on the local network
    #[arg(long)]
    pub(crate) no_lsd: bool,
    /// Do not look for peers in the DHT
    #[arg(long)]
    pub(crate) no_dht: bool,
    /// A node of the DHT to start from, ADDRESS:PORT or HOST:PORT (may be repeated) [default:
    /// well-known routers of the public network; none if --listen names a loopback address]
    #[arg(long, value_name = "ADDR", conflicts_with = "no_dht")]
    pub(crate) dht_bootstrap: Vec<String>,
    #[command(flatten)]
    pub(crate) ring: RingArgs,
    /// With it peers reach us, and are reached, through NATs by the overlay
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Send at most this much a second, such as 512K or 3MiB; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate, env = "SHOAL_UP_LIMIT")]
    pub(crate) up_limit: Option<u64>,
    /// Receive at most this much a second; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate, env = "SHOAL_DOWN_LIMIT")]
    pub(crate) down_limit: Option<u64>,
    /// Connect to at most this many peers
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_peers: u32,
    /// Where to keep what is needed to go on later [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// A Chord ring of one's own, besides or instead of the public DHT.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Ring options")]
pub(crate) struct RingArgs {
    /// A member of a Chord ring to join, ADDRESS:PORT or HOST:PORT (may be repeated): what is shared
    /// or fetched is announced and looked for there too
    #[arg(long = "ring", value_name = "ADDR")]
    pub(crate) members: Vec<String>,
    /// Where the ring's datagrams arrive (UDP); without --ring this begins a ring [default: any port
    /// at the address of --listen]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) ring_listen: Option<SocketAddr>,
    /// Begin a ring on the overlay, whose members may be behind NATs; who joins it at a member's
    /// overlay address needs no flag but --login
    #[arg(long, conflicts_with_all = ["members", "ring_listen"])]
    pub(crate) ring_overlay: bool,
    #[command(flatten)]
    pub(crate) which: WhichRing,
}

/// Whom to ask again and again who else has what is fetched.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Searching on the way")]
pub(crate) struct SeekFlags {
    /// Ask the Gnutella network that this host belongs to who else has it (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Vec<String>,
    /// Ask this host for others of a Gnutella network, by a datagram (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) cache: Vec<String>,
    /// Ask this Napster hub who else has a file of that name and length
    #[arg(long, value_name = "HOST:PORT", env = "SHOAL_HUB")]
    pub(crate) hub: Option<String>,
}

/// Fetch a magnet link, a .torrent file, a URL of one, an info-hash, or what `shoal find` found
///
/// Draws on everybody who has it at once: BitTorrent's peers, web servers, Gnutella hosts, users of
/// Napster hubs. Ends with exit code 0 when everything is on disk and verified. Ctrl-C keeps what is there; the
/// same command goes on from it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal fetch 'magnet:?xt=urn:btih:…' --dir ~/Downloads    Fetch a magnet link
  shoal fetch 'magnet:?xs=urn:btpk:…'                      Fetch the newest version of what is updated
  shoal fetch debian.torrent --select '*.iso'              Fetch some of the files
  shoal fetch INFO-HASH --no-dht --ring HOST:7700          By a private ring alone
  shoal fetch https://example.org/x.torrent --seed         Fetch, then go on serving
  shoal fetch 3                                            The third that `shoal find` told last
  shoal fetch urn:sha1:…                                   By its own hash, from who was found to have it")]
pub(crate) struct FetchArgs {
    /// A magnet link, a .torrent file (- for stdin), its URL, 40 hexadecimal digits, the number of a
    /// result of the last `shoal find`, or its urn:
    #[arg(value_name = "WHAT", value_hint = ValueHint::AnyPath)]
    pub(crate) what: String,
    /// The folder to put it in
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Fetch only some files: a glob such as '*.iso' or 'docs/**', or numbers such as 1,3-5 as
    /// `shoal torrent show` counts them (may be repeated)
    #[arg(long, value_name = "FILES")]
    pub(crate) select: Vec<String>,
    /// Go on serving it when it is complete
    #[arg(long)]
    pub(crate) seed: bool,
    /// Fetch pieces in order
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Allocate the space before fetching
    #[arg(long)]
    pub(crate) preallocate: bool,
    /// Give up with exit code 4 if nothing new arrives for this long (90, 5m, 2h)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<u64>,
    /// A tracker to ask besides those it names (may be repeated)
    #[arg(long = "tracker", value_name = "URL", value_parser = tracker_url, value_hint = ValueHint::Url)]
    pub(crate) trackers: Vec<String>,
    /// A web server that holds the same data (may be repeated)
    #[arg(long = "web-seed", value_name = "URL", value_parser = http_url, value_hint = ValueHint::Url)]
    pub(crate) web_seeds: Vec<String>,
    /// Somebody else who has the one file (may be repeated): napster://HUB:PORT/NICK/PATH, a
    /// Gnutella host's http://HOST:PORT/uri-res/N2R?urn:sha1:…, or gnutella://… of one behind a firewall
    #[arg(long = "source", value_name = "URL", value_parser = file_source)]
    pub(crate) sources: Vec<FileSource>,
    #[command(flatten)]
    pub(crate) seek: SeekFlags,
    #[command(flatten)]
    pub(crate) who: WhoFlags,
    #[command(flatten)]
    pub(crate) net: NetArgs,
}
