//! Flags of `library`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{OverlayFlags, rate, seconds, size};

/// What to do with the library.
#[derive(Debug, Subcommand)]
pub(crate) enum LibraryCommand {
    Add(LibraryAddArgs),
    Remove(LibraryRemoveArgs),
    List(LibraryListArgs),
    Rescan(LibraryRescanArgs),
    Search(LibrarySearchArgs),
    Show(LibraryShowArgs),
    Check(LibraryCheckArgs),
}

/// Where the library is.
#[derive(Debug, Args)]
pub(crate) struct LibraryPlace {
    /// Where it is kept, in a folder `library` [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How files are hashed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hashing")]
pub(crate) struct ScanFlags {
    /// Threads that hash [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Read at most this many bytes a second, such as 20MiB
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) read_limit: Option<u64>,
}

/// Add folders, and hash what is in them
///
/// Every file is read once, for all hashes that any network names it by. Files and folders whose
/// names begin with a dot, links, and files that are not whole yet are left out.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library add ~/Music ~/Videos
  shoal library add ~/Work --with 3f1c…     Only for whoever proves this Ed25519 key
  shoal library add ~/Archive --with nobody --read-limit 20MiB")]
pub(crate) struct LibraryAddArgs {
    /// The folders
    #[arg(required = true, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folders: Vec<PathBuf>,
    /// With whom: everyone, nobody, or a public key of 64 hexadecimal digits (may be repeated)
    #[arg(long = "with", value_name = "WHOM", default_value = "everyone")]
    pub(crate) whom: Vec<String>,
    /// Share files whose names begin with a dot, too
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Hash nothing now; the next rescan will
    #[arg(long)]
    pub(crate) no_scan: bool,
    #[command(flatten)]
    pub(crate) scan: ScanFlags,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// Take folders out of the library; their files stay where they are
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library remove ~/Videos
  shoal library remove ~/Music ~/Work
  shoal library remove /mnt/gone --json      Also a folder that is not there any more")]
pub(crate) struct LibraryRemoveArgs {
    /// The folders
    #[arg(required = true, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folders: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// List the folders
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library list
  shoal library list --json                  One JSON object for each folder
  shoal library list --state-dir /srv/shoal")]
pub(crate) struct LibraryListArgs {
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// Look for new and changed files, and hash those
///
/// What was hashed and did not change is not read again; a file that was moved is known.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library rescan                       All folders
  shoal library rescan ~/Music               This one alone
  shoal library rescan --watch               And again whenever something changes")]
pub(crate) struct LibraryRescanArgs {
    /// Folders of the library, or folders in them [default: all]
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) folders: Vec<PathBuf>,
    /// Stay, and scan what changes
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch, scan everything this often where changes cannot be heard of
    #[arg(long, value_name = "SECONDS", default_value = "10m", value_parser = seconds)]
    pub(crate) every: u64,
    #[command(flatten)]
    pub(crate) scan: ScanFlags,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// Search one's own files by the words of their paths
///
/// Case and accents make no difference. `-word` leaves out, `begin*` takes every word that begins so.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library search sea shanty
  shoal library search 'shant*' --type audio --min-size 1MiB
  shoal library search --json -- sea -live")]
pub(crate) struct LibrarySearchArgs {
    /// The words
    #[arg(required = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// Only this kind: audio, video, image, application, text, or an ending such as mp3
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only files of at least this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) min_size: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_size: Option<u64>,
    /// Files at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// Show every hash of a file of the library
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library show ~/Music/shanty.ogg
  shoal library show *.ogg
  shoal library show ~/Music/shanty.ogg --json")]
pub(crate) struct LibraryShowArgs {
    /// The files
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}

/// Ask networks, as a stranger would, for files that the library shares
///
/// For files picked evenly from all that is shared with everyone. Exit code 3 if one is not found.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal library check --hub hub.example.org:8888 --nick alice
  shoal library check --connect 198.51.100.7:6346 --files 20 --json
  shoal library check --hub hub.example.org:8888 --cache 198.51.100.7:6346    Two networks")]
pub(crate) struct LibraryCheckArgs {
    /// Ask this Napster hub
    #[arg(long, value_name = "HOST:PORT", env = "SHOAL_HUB")]
    pub(crate) hub: Option<String>,
    /// Who shares them on the hub [default: whoever has a file of that length]
    #[arg(long, value_name = "NICK")]
    pub(crate) nick: Option<String>,
    /// Files to ask for
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) files: u16,
    /// Wait this long for answers of a Gnutella network, for each file
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) gnutella: OverlayFlags,
    #[command(flatten)]
    pub(crate) place: LibraryPlace,
}
