//! The command line: names, flags, help. What commands do is in the modules named after them.

mod call;
mod chat;
mod cluster;
mod dht;
mod gnutella;
mod hadoop;
mod library;
mod name;
mod napster;
mod pipe;
mod reach;
mod relay;
mod run;
mod serve;
mod sim;
mod supernode;
mod task;
mod torrent;
mod transfer;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use shoal_content::FileSource;
use shoal_dht::MAX_SALT;

pub(crate) use call::{
    AnswerArgs, CallArgs, CallNetFlags, PhoneArgs, RelayFlags, SoundArgs, TalkFlags, TextFlags,
};
pub(crate) use chat::ChatArgs;
pub(crate) use cluster::{JobArgs, JobCommand, MasterArgs, ResumeArgs, WorkerArgs};
pub(crate) use dht::{
    DhtAnnounceArgs, DhtArgs, DhtCommand, DhtFindArgs, DhtGetArgs, DhtNodeArgs, DhtPeersArgs,
    DhtPublishArgs, DhtPutArgs, DhtSubscribeArgs, Via, WhichRing,
};
pub(crate) use gnutella::{
    GnutellaBrowseArgs, GnutellaCommand, GnutellaFetchArgs, GnutellaFindArgs, GnutellaNodeArgs,
    GnutellaServeArgs, OverlayFlags,
};
pub(crate) use hadoop::HadoopArgs;
pub(crate) use library::{
    LibraryAddArgs, LibraryCheckArgs, LibraryCommand, LibraryPlace, LibraryRescanArgs,
    LibrarySearchArgs, LibraryShowArgs, ScanFlags,
};
pub(crate) use name::{
    NameChangeArgs, NameClaimArgs, NameCommand, NameFlags, NameLogArgs, NameShowArgs,
};
pub(crate) use napster::{
    FindArgs, HubFlags, NapsterBrowseArgs, NapsterChatArgs, NapsterCommand, NapsterFetchArgs,
    NapsterRoomsArgs, NapsterShareArgs, NapsterWhoisArgs, Overlay, WhoFlags, WordFlags,
};
pub(crate) use pipe::PipeArgs;
pub(crate) use reach::ReachArgs;
pub(crate) use relay::{RelayArgs, RelayTlsFlags};
pub(crate) use run::{CodeArgs, ContentArgs, Engine, RunArgs};
pub(crate) use serve::{HubArgs, ServeCommand, TrackerArgs, WebCacheArgs};
pub(crate) use sim::{
    ChordArgs, DrawChoice, FaultsArgs, FindChoice, GraphChoice, ModeChoice, SimArgs, SimCommand,
    SubjectChoice,
};
pub(crate) use supernode::{
    JoinFlags, ListFlags, LoginArgs, RoleFlags, SupernodeCommand, SupernodeFetchArgs,
    SupernodeFindArgs, SupernodeListArgs, SupernodeNodeArgs, SupernodesArgs,
};
pub(crate) use task::{MapTaskArgs, TaskCommand};
pub(crate) use torrent::{CreateArgs, ShowArgs, TorrentCommand, VerifyArgs};
pub(crate) use transfer::{FetchArgs, MakeArgs, NetArgs, SeekFlags, ShareArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Share, find and fetch across machines that nobody administers.
#[derive(Debug, Parser)]
#[command(
    name = "shoal",
    version,
    styles = STYLES,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unreachable or timed out, \
                  5 refused, 130 interrupted.",
    after_long_help = "\
Examples:
  shoal share ~/Pictures/holiday         Share a folder; prints its magnet link
  shoal fetch 'magnet:?xt=urn:btih:…'    Fetch it on another machine
  shoal torrent show debian.torrent      Look into a .torrent file

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unreachable or timed out, 5 refused,
130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Print one JSON object a line on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more on stderr (-v: progress lines and news, -vv: debug, -vvv: trace)
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Draw no progress bars
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Colour what is said: auto (on a terminal, unless NO_COLOR is set), always, never
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    #[arg(hide_possible_values = true)]
    pub(crate) color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Share(ShareArgs),
    Fetch(FetchArgs),
    /// Look into, make or check .torrent files
    #[command(subcommand, arg_required_else_help = true)]
    Torrent(TorrentCommand),
    /// Store, find, announce and hear of things in a distributed hash table
    #[command(subcommand, arg_required_else_help = true)]
    Dht(DhtCommand),
    /// The folders that are shared, and every hash of what is in them
    #[command(subcommand, arg_required_else_help = true)]
    Library(LibraryCommand),
    Find(FindArgs),
    /// Share with, fetch from, browse, and talk with the users of a Napster hub
    #[command(subcommand, arg_required_else_help = true)]
    Napster(NapsterCommand),
    /// Take part in Gnutella: route, share and search without any server
    #[command(subcommand, arg_required_else_help = true)]
    Gnutella(GnutellaCommand),
    /// Share, find and fetch in an overlay of peers and supernodes, as KaZaA did
    #[command(subcommand, arg_required_else_help = true)]
    Supernode(SupernodeCommand),
    /// Names that people keep: claim one, see whose one is, check that nobody else got it
    #[command(subcommand, arg_required_else_help = true)]
    Name(NameCommand),
    Chat(ChatArgs),
    Call(CallArgs),
    Answer(AnswerArgs),
    Phone(PhoneArgs),
    Sound(SoundArgs),
    Pipe(PipeArgs),
    Reach(ReachArgs),
    Run(RunArgs),
    /// Run one phase of a job as a filter, as clusters of other engines do
    #[command(subcommand, arg_required_else_help = true)]
    Task(TaskCommand),
    Worker(WorkerArgs),
    /// Look after the jobs of a master
    #[command(subcommand, arg_required_else_help = true)]
    Job(JobCommand),
    Hadoop(HadoopArgs),
    /// Run one role alone
    #[command(subcommand, arg_required_else_help = true)]
    Serve(ServeCommand),
    /// Simulate a network of many nodes, and compare it with theory
    #[command(subcommand, arg_required_else_help = true)]
    Sim(SimCommand),
    /// Print a completion script for a shell
    #[command(after_long_help = "\
Examples:
  shoal completions bash > ~/.local/share/bash-completion/completions/shoal
  shoal completions zsh > \"${fpath[1]}/_shoal\"
  shoal completions fish > ~/.config/fish/completions/shoal.fish")]
    Completions {
        /// Which shell
        #[arg(value_enum, value_hint = ValueHint::Other)]
        shell: Shell,
    },
}

/// Reads a size argument.
fn size(text: &str) -> Result<u64, String> {
    crate::units::parse_size(text).map_err(|e| e.to_string())
}

/// Reads the salt of a mutable value (BEP 44).
fn salt(text: &str) -> Result<String, String> {
    match text.len() {
        len if len > MAX_SALT => Err(format!("{len} bytes, the most is {MAX_SALT}")),
        _ => Ok(text.to_owned()),
    }
}

/// Reads a rate argument.
fn rate(text: &str) -> Result<u64, String> {
    crate::units::parse_rate(text).map_err(|e| e.to_string())
}

/// Reads a whole number of seconds, with an optional `s`, `m` or `h`.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || "expected seconds such as 90, or 90s, 5m, 2h".to_owned();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(factor).ok_or_else(bad)
}

/// Reads an HTTP, HTTPS or UDP tracker URL.
fn tracker_url(text: &str) -> Result<String, String> {
    url(text, &["http://", "https://", "udp://"])
}

/// Reads who has a file, as a link names them.
fn file_source(text: &str) -> Result<FileSource, String> {
    FileSource::read(text).ok_or_else(|| {
        "expected napster://HUB:PORT/NICK/PATH or http://HOST:PORT/uri-res/N2R?urn:sha1:…"
            .to_owned()
    })
}

/// Reads an HTTP or HTTPS URL.
fn http_url(text: &str) -> Result<String, String> {
    url(text, &["http://", "https://"])
}

fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let rest = schemes.iter().find_map(|s| {
        let head = text.get(..s.len())?;
        head.eq_ignore_ascii_case(s).then(|| &text[s.len()..])
    });
    match rest {
        None => Err(format!(
            "expected a URL that starts with {}",
            schemes.join(" or ")
        )),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) => {
            Err("the URL names no host".to_owned())
        }
        Some(_) if text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err("a URL holds no spaces".to_owned())
        }
        Some(_) => Ok(text.to_owned()),
    }
}

/// Reads an address; a bare port means every interface, a bare host is refused.
fn listen_addr(text: &str) -> Result<std::net::SocketAddr, String> {
    let full = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => return Ok((std::net::Ipv4Addr::UNSPECIFIED, port).into()),
        Err(_) => text,
    };
    full.parse()
        .map_err(|_| "expected ADDRESS:PORT such as 0.0.0.0:6881, [::]:6881 or :6881".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_three_examples() {
        fn check(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none();
            if leaf && command.get_name() != "help" {
                let help = command
                    .get_after_long_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let examples = help.lines().filter(|l| l.starts_with("  shoal ")).count();
                assert!(
                    examples >= 3,
                    "{} has {examples} examples",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn durations_addresses_and_urls_are_checked() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("2h"), Ok(7200));
        assert!(seconds("h").is_err());
        assert!(seconds("5d").is_err());
        assert_eq!(listen_addr(":80"), Ok(([0, 0, 0, 0], 80).into()));
        assert_eq!(listen_addr("127.0.0.1:0"), Ok(([127, 0, 0, 1], 0).into()));
        assert!(listen_addr("localhost").is_err());
        assert!(tracker_url("udp://tracker.example:80").is_ok());
        assert!(tracker_url("HTTP://t/announce").is_ok());
        assert!(tracker_url("ftp://x").is_err());
        assert!(tracker_url("http://").is_err());
        assert!(http_url("udp://x").is_err());
        assert!(http_url("http://a b").is_err());
    }
}
