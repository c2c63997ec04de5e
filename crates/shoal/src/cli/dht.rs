//! Flags of `dht`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{JoinFlags, listen_addr, seconds, size};

/// What to do in a DHT.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    Node(DhtNodeArgs),
    Put(DhtPutArgs),
    Get(DhtGetArgs),
    Announce(DhtAnnounceArgs),
    Peers(DhtPeersArgs),
    Subscribe(DhtSubscribeArgs),
    Publish(DhtPublishArgs),
    Find(DhtFindArgs),
}

/// Which overlay carries the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// Kademlia as the public BitTorrent DHT speaks it
    Mainline,
    /// A Chord ring of one's own
    Chord,
}

/// Which Chord ring.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Ring options")]
pub(crate) struct WhichRing {
    /// The ring's name: nodes of rings with other names are not answered
    #[arg(long, value_name = "NAME", default_value = "shoal")]
    pub(crate) ring_name: String,
    /// The ring's secret is in this file: who does not know it gets no answer
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ring_secret: Option<PathBuf>,
}

/// How to take part.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network options")]
pub(crate) struct DhtArgs {
    /// Where to listen (UDP): ADDRESS:PORT, port 0 for any free one
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// A node to start from, ADDRESS:PORT or HOST:PORT (may be repeated) [default: well-known
    /// routers of the public network; none if --listen names a loopback address, and none for Chord]
    #[arg(long, value_name = "ADDR")]
    pub(crate) bootstrap: Vec<String>,
    /// The overlay
    #[arg(long, value_enum, default_value_t = Via::Mainline)]
    pub(crate) via: Via,
    #[command(flatten)]
    pub(crate) ring: WhichRing,
    /// With it members of a ring at overlay addresses are reached through NATs
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Keep the key of the overlay here [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How long to try.
#[derive(Debug, Args)]
pub(crate) struct TryArgs {
    /// Give up after this long (seconds, or 5m, 2h)
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: u64,
}

/// Run a node until ctrl-C: it answers others, and stores for them
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht node                                                 Join the public network
  shoal dht node --listen 0.0.0.0:6881 --contacts contacts.dat   Remember whom it met
  shoal dht node --listen 127.0.0.1:0 --json                     The first of a private network
  shoal dht node --via chord --listen :7700                      Begin a Chord ring
  shoal dht node --via chord --bootstrap HOST:7700               Join it
  shoal dht node --via chord --ring-overlay --login login.example.org:1213
                                                                 Begin one behind a NAT")]
pub(crate) struct DhtNodeArgs {
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
    /// Keep the nodes met in this file, and start from them the next time
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) contacts: Option<PathBuf>,
    /// Keep the node's key in this file, which is made if it is missing, and with it its place on the
    /// ring (Chord)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// Places on the ring: more of them even out the load (Chord)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) positions: u8,
    /// Begin a ring on the overlay, whose members may be behind NATs (Chord)
    #[arg(long, requires = "login")]
    pub(crate) ring_overlay: bool,
    /// Print a JSON status line this often
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) stats_interval: u64,
}

/// Store a value; prints under which name it is found (BEP 44)
///
/// Without --key the value is immutable and its name is its hash. With --key it is signed, its
/// name is the public key (and the salt), and a newer value may replace it. Stored values are
/// forgotten after two hours: store them again, or leave --keep running.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht put 'hello world'                        Immutable; prints its name
  shoal dht put --key me.key --salt blog 'post 2'    Signed; the file is made if it is missing
  shoal dht put --bencode 'd3:foo3:bare'             Any bencoded value
  shoal dht put --keep --key me.key - < news.txt     Store it again each hour until ctrl-C")]
pub(crate) struct DhtPutArgs {
    /// The value, at most about 1000 bytes; - reads it from stdin
    #[arg(value_name = "VALUE")]
    pub(crate) value: String,
    /// VALUE is bencode already; without this it is text
    #[arg(long)]
    pub(crate) bencode: bool,
    /// Sign with the key in this file, which is made if it is missing
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Tells apart several values of one key
    #[arg(long, value_name = "TEXT", requires = "key")]
    pub(crate) salt: Option<String>,
    /// Sequence number [default: one more than what is stored]
    #[arg(long, value_name = "N", requires = "key", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) seq: Option<i64>,
    /// Store only over the value with this sequence number
    #[arg(long, value_name = "N", requires = "key", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) cas: Option<i64>,
    /// Store it again and again until ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Look up a value
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht get e5f96f6f38320f0f33959cb4d3d656452117aadb    An immutable value, by its hash
  shoal dht get PUBLIC-KEY --salt blog                      The newest value of a key
  shoal dht get NAME --json                                 With sequence number and bencode")]
pub(crate) struct DhtGetArgs {
    /// 40 hexadecimal digits: hash of an immutable value; 64: a public key
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Tells apart several values of one key
    #[arg(long, value_name = "TEXT")]
    pub(crate) salt: Option<String>,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Say that this machine has something: others find it with `peers`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht announce INFO-HASH --port 6881           We take connections at this port
  shoal dht announce INFO-HASH --port 6881 --seed    And have all of it
  shoal dht announce INFO-HASH --port 6881 --keep    Say so again and again until ctrl-C")]
pub(crate) struct DhtAnnounceArgs {
    /// An info-hash, 40 hexadecimal digits, or a magnet link
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Where this machine can be asked about it
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Has all of the content
    #[arg(long)]
    pub(crate) seed: bool,
    /// Announce again and again until ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Look up who has something
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht peers INFO-HASH                 One address a line
  shoal dht peers 'magnet:?xt=urn:btih:…'   The same for a magnet link
  shoal dht peers INFO-HASH --json          With an estimate of seeds and leechers")]
pub(crate) struct DhtPeersArgs {
    /// An info-hash, 40 hexadecimal digits, or a magnet link
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Hear of each new value of a key until ctrl-C
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht subscribe PUBLIC-KEY                  Each new value on a line
  shoal dht subscribe PUBLIC-KEY --salt blog      Of several values of one key, this one
  shoal dht subscribe PUBLIC-KEY --count 1        End after the first")]
pub(crate) struct DhtSubscribeArgs {
    /// A public key, 64 hexadecimal digits
    #[arg(value_name = "PUBLIC-KEY")]
    pub(crate) name: String,
    /// Tells apart several values of one key
    #[arg(long, value_name = "TEXT")]
    pub(crate) salt: Option<String>,
    /// End after so many values
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Publish what something is called: others find it by the words of its title (Chord)
///
/// The record is signed with --key, kept under each word of the title, and forgotten after two
/// hours: publish it again, or leave --keep running. Each publisher has room for so many records
/// under a word, and no more.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht publish INFO-HASH 'Debian 12 netinst' --key me.key --via chord --bootstrap HOST:7700
  shoal dht publish 'magnet:?xt=urn:btih:…' 'Holiday 2026' --key me.key --size 4GiB --keep --via chord \
--bootstrap HOST:7700
  shoal dht publish INFO-HASH 'Word lists' --key me.key --via chord --bootstrap HOST:7700 --json")]
pub(crate) struct DhtPublishArgs {
    /// An info-hash, 40 hexadecimal digits, or a magnet link
    #[arg(value_name = "KEY")]
    pub(crate) content: String,
    /// What it is called, at most 160 bytes
    #[arg(value_name = "TITLE")]
    pub(crate) title: String,
    /// Sign with the key in this file, which is made if it is missing
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: PathBuf,
    /// Length of the content, such as 700MiB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub(crate) size: u64,
    /// Publish again and again until ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}

/// Find what has all these words in its title (Chord)
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal dht find debian netinst --via chord --bootstrap HOST:7700    Info-hash, size and title, a line each
  shoal dht find holiday 2026 --via chord --bootstrap HOST:7700 --ring-name team --ring-secret secret
  shoal dht find holiday --limit 5 --json --via chord --bootstrap HOST:7700")]
pub(crate) struct DhtFindArgs {
    /// Words, each of which the title must have
    #[arg(value_name = "WORD", required = true)]
    pub(crate) words: Vec<String>,
    /// At most so many results
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) limit: u8,
    #[command(flatten)]
    pub(crate) tries: TryArgs,
    #[command(flatten)]
    pub(crate) dht: DhtArgs,
}
