//! Flags of `find` and `napster`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{JoinFlags, listen_addr};

/// Whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Overlay {
    /// A Napster hub
    Napster,
    /// A Gnutella network
    Gnutella,
    /// A Chord ring, by the words that titles were published under
    Dht,
    /// The overlay of supernodes
    Supernode,
    /// One's own library
    Library,
}

/// Which hub, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubFlags {
    /// The hub
    #[arg(long, value_name = "HOST:PORT", env = "SHOAL_HUB")]
    pub(crate) hub: String,
    #[command(flatten)]
    pub(crate) who: WhoFlags,
}

/// As whom to log in to a hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct WhoFlags {
    /// Log in under this nick [default: one by chance]
    #[arg(long, value_name = "NICK")]
    pub(crate) nick: Option<String>,
    /// The file whose first line is the nick's password [default: one by chance]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// The kind of link told to others: 0 (unknown), 4 (56k), 7 (cable), 8 (DSL), 10 (T3 or better)
    #[arg(long, value_name = "0-10", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=10))]
    pub(crate) link: u8,
}

impl WhoFlags {
    /// Under a nick and a password by chance.
    pub(crate) fn by_chance() -> Self {
        Self {
            nick: None,
            password_file: None,
            link: 0,
        }
    }
}

/// What to search for.
#[derive(Debug, Clone, Args)]
pub(crate) struct WordFlags {
    /// Words that the path must hold
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    /// A word that it must not hold (may be repeated)
    #[arg(long, value_name = "WORD")]
    pub(crate) without: Vec<String>,
    /// Only this kind: audio, video, image, application, text, or an ending such as mp3
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only files of at least this many kilobits a second
    #[arg(long, value_name = "N")]
    pub(crate) min_bitrate: Option<u32>,
    /// Hits at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
    /// Do not ask users whether they answer
    #[arg(long)]
    pub(crate) no_ping: bool,
}

impl WordFlags {
    /// All files that have all these words, whether their sharers answer or not.
    pub(crate) fn all_of(words: &[String]) -> Self {
        Self {
            words: words.to_vec(),
            without: Vec::new(),
            kind: None,
            min_bitrate: None,
            limit: 100,
            no_ping: true,
        }
    }
}

/// Find files, on every network at once
///
/// Asks the hub, the Gnutella network, the supernodes, the ring and the library that are named or known, all at
/// the same time.
/// Answers about one content are one result; what can best be had comes first. Results whose
/// sharers disagree about name, size or hash say so.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal find sea shanty --hub hub.example.org:8888 --connect 198.51.100.7:6346
  shoal find sea shanty --hub hub.example.org:8888 --type mp3 --min-bitrate 192
  shoal find sea --without live --min-size 1MiB --via library --json
  shoal find sea shanty --via dht --ring ring.example.org:7700    Torrents, by the words of their titles
  shoal find sea shanty --hub hub.example.org:8888 --new shanties    Only what is new since last time")]
pub(crate) struct FindArgs {
    #[command(flatten)]
    pub(crate) words: WordFlags,
    /// Ask only this (may be repeated) [default: all that are named or known]
    #[arg(long, value_enum)]
    pub(crate) via: Vec<Overlay>,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    pub(crate) min_size: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    pub(crate) max_size: Option<u64>,
    /// Wait this long for answers of a Gnutella network, of supernodes or of a ring
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = super::seconds)]
    pub(crate) wait: u64,
    /// Tell only what no search told before that was saved under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) new: Option<String>,
    /// Ask this Napster hub
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SHOAL_HUB",
        help_heading = "Hub"
    )]
    pub(crate) hub: Option<String>,
    #[command(flatten)]
    pub(crate) who: WhoFlags,
    #[command(flatten)]
    pub(crate) gnutella: super::OverlayFlags,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Ask the Chord ring of this node for titles (may be repeated)
    #[arg(long, value_name = "HOST:PORT", help_heading = "Ring options")]
    pub(crate) ring: Vec<String>,
    #[command(flatten)]
    pub(crate) which_ring: super::WhichRing,
    #[command(flatten)]
    pub(crate) place: super::LibraryPlace,
}

/// What to do on a Napster hub.
#[derive(Debug, Subcommand)]
pub(crate) enum NapsterCommand {
    Fetch(NapsterFetchArgs),
    Share(NapsterShareArgs),
    Browse(NapsterBrowseArgs),
    Whois(NapsterWhoisArgs),
    Rooms(NapsterRoomsArgs),
    Chat(NapsterChatArgs),
}

/// Search, and fetch the best hit; the next who has it if one does not deliver
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster fetch sea shanty --hub hub.example.org:8888
  shoal napster fetch sea shanty --hub hub.example.org:8888 --pick 3    The third of the list
  shoal napster fetch sea shanty --hub hub.example.org:8888 --from alice --dir Music
  shoal napster fetch sea shanty --hub hub.example.org:8888 --login login.example.org:1213
                                                            From users behind NATs too, by the overlay")]
pub(crate) struct NapsterFetchArgs {
    #[command(flatten)]
    pub(crate) words: WordFlags,
    #[command(flatten)]
    pub(crate) hub: HubFlags,
    /// Put the file here
    #[arg(long, value_name = "FOLDER", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Take the hit with this number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pick: u16,
    /// Take it from this user only
    #[arg(long, value_name = "NICK")]
    pub(crate) from: Option<String>,
    /// Listen here, so that users behind firewalls can bring files [default: do not]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Keep the key that --login needs in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Share files and folders on a hub; comes back when the hub was away
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster share ~/Music --hub hub.example.org:8888
  shoal napster share --library --hub hub.example.org:8888
  shoal napster share ~/Music --hub hub.example.org:8888 --firewalled    Nobody can connect here
  shoal napster share ~/Music --hub hub.example.org:8888 --firewalled --login login.example.org:1213
                                                            shoal's users reach it all the same
  shoal napster share a.mp3 b.mp3 --hub hub.example.org:8888 --nick alice --slots 5")]
pub(crate) struct NapsterShareArgs {
    /// Files and folders
    #[arg(required_unless_present = "library", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Share what the library shares with everyone (shoal library add), and follow its changes
    #[arg(long)]
    pub(crate) library: bool,
    #[command(flatten)]
    pub(crate) place: super::LibraryPlace,
    #[command(flatten)]
    pub(crate) hub: HubFlags,
    /// Listen here for who fetches
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:6699", value_parser = listen_addr)]
    pub(crate) listen: Option<SocketAddr>,
    /// Do not listen: connect to who fetches
    #[arg(long)]
    pub(crate) firewalled: bool,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Uploads at once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    pub(crate) slots: u8,
}

/// List what a user shares
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster browse alice --hub hub.example.org:8888
  shoal napster browse alice --hub hub.example.org:8888 --direct    All of it, from alice herself
  shoal napster browse alice --hub hub.example.org:8888 --direct --listen 0.0.0.0:6699")]
pub(crate) struct NapsterBrowseArgs {
    /// The user
    #[arg(value_name = "NICK")]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) hub: HubFlags,
    /// Ask the user instead of the hub, which tells only so many files
    #[arg(long)]
    pub(crate) direct: bool,
    /// With --direct: listen here, so that users behind firewalls can bring their list [default: do not]
    #[arg(long, value_name = "ADDR", value_parser = listen_addr, requires = "direct")]
    pub(crate) listen: Option<SocketAddr>,
}

/// Tell who a user is; exit code 3 if the user is not there
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster whois alice --hub hub.example.org:8888
  shoal napster whois alice --hub hub.example.org:8888 --json
  shoal napster whois alice --hub hub.example.org:8888 --nick root --password-file pw    As moderator")]
pub(crate) struct NapsterWhoisArgs {
    /// The user
    #[arg(value_name = "NICK")]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) hub: HubFlags,
}

/// List the rooms of a hub: members, name, topic
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster rooms --hub hub.example.org:8888
  shoal napster rooms --hub hub.example.org:8888 --json
  shoal napster rooms --hub hub.example.org:8888 --nick alice --password-file pw")]
pub(crate) struct NapsterRoomsArgs {
    #[command(flatten)]
    pub(crate) hub: HubFlags,
}

/// Talk in a room, and with single users; a line of standard input each
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal napster chat '#jazz' --hub hub.example.org:8888 --nick alice
  shoal napster chat --hub hub.example.org:8888 --json              No room: private messages only
  shoal napster chat '#jazz' --hub hub.example.org:8888 --nick alice < lines.txt")]
pub(crate) struct NapsterChatArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubFlags,
}
