//! Flags of `torrent show`, `create` and `verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::MakeArgs;

/// What to do with a .torrent file.
#[derive(Debug, Subcommand)]
pub(crate) enum TorrentCommand {
    Show(ShowArgs),
    Create(CreateArgs),
    Verify(VerifyArgs),
}

/// Show what a .torrent file or magnet link says
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal torrent show debian.torrent           A table for people
  shoal torrent show debian.torrent --json    One JSON object
  shoal torrent show 'magnet:?xt=…'           What a magnet link names")]
pub(crate) struct ShowArgs {
    /// The .torrent file (- for stdin), or a magnet link
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: String,
}

/// Make a .torrent file of a file or folder
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal torrent create photos                        Write photos.torrent
  shoal torrent create photos --output /tmp/p.torrent --tracker udp://tracker.example:6969
  shoal torrent create disk.img --piece-size 1MiB --web-seed https://example.org/disk.img")]
pub(crate) struct CreateArgs {
    /// The file or folder
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// Where to write it (- for stdout) [default: NAME.torrent in the current folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Write over a file that exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) make: MakeArgs,
}

/// Check files on disk against a .torrent file
///
/// Exit code 1 if anything is missing or differs; every such file is listed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal torrent verify debian.torrent ~/Downloads    Check what a fetch left there
  shoal torrent verify photos.torrent                Check the copy in the current folder
  shoal torrent verify photos.torrent /mnt/backup --json")]
pub(crate) struct VerifyArgs {
    /// The .torrent file (- for stdin)
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: String,
    /// The folder that holds the data, as given to `fetch --dir`
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}
