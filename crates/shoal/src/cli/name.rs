//! Flags of `name`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{JoinFlags, listen_addr, seconds};

/// What to do with names.
#[derive(Debug, Subcommand)]
pub(crate) enum NameCommand {
    Claim(NameClaimArgs),
    Show(NameShowArgs),
    Change(NameChangeArgs),
    Log(NameLogArgs),
}

/// Which folder keeps the keys of names.
#[derive(Debug, Clone, Args)]
pub(crate) struct NameFlags {
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Keep keys, certificates and what is trusted in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Claim a name, or renew its certificate: the first who claims it has it
///
/// Makes a key for the name and signs the login server's challenge with it. A recovery key is made too:
/// keep it somewhere else; who has it takes the name back when the key is lost or stolen.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal name claim alice --login login.example.org:1213
  shoal name claim alice --recovery /media/stick/alice.recovery --login login.example.org:1213
  shoal name claim alice --no-recovery --login login.example.org:1213 --json")]
pub(crate) struct NameClaimArgs {
    /// The name: 1 to 32 letters, digits, -, _ and .
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) flags: NameFlags,
    /// Keep the recovery key in this file [default: beside the key]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery: Option<PathBuf>,
    /// Have no recovery key
    #[arg(long, conflicts_with = "recovery")]
    pub(crate) no_recovery: bool,
}

/// Show whose a name is and where letters to it are kept, as the ring of supernodes says
///
/// The record is checked here: certificate, signature, times. If the login server answers, the public
/// log is asked for a proof of the certificate too. If there is no record, or no UDP to ask the ring by, the
/// login server tells the name's key and proves that its log has it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal name show alice --login login.example.org:1213
  shoal name show alice --login login.example.org:1213 --trust 3f1c…
  shoal name show alice --login login.example.org:1213 --json")]
pub(crate) struct NameShowArgs {
    /// The name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) flags: NameFlags,
    /// Ask the ring from here (UDP)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Wait this long for an answer
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = seconds)]
    pub(crate) timeout: u64,
}

/// Give a name a new key, by the old key or the recovery key
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal name change alice --login login.example.org:1213
  shoal name change alice --by /media/stick/alice.recovery --login login.example.org:1213
  shoal name change alice --by alice.recovery --recovery new.recovery --login login.example.org:1213")]
pub(crate) struct NameChangeArgs {
    /// The name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) flags: NameFlags,
    /// Sign with the recovery key in this file [default: with the key that has the name]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) by: Option<PathBuf>,
    /// Name the recovery key in this file, made if need be [default: it stays]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) recovery: Option<PathBuf>,
}

/// Read the public log of names, check that nothing of it was rewritten, and that our names are ours
///
/// Every entry is fetched, the log's root computed from them and compared with what the login server
/// signed, now and the last time. Logs of that server that others were shown, as shoal chat found out and kept, are
/// told. Exits with 5 when something does not hold.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal name log --login login.example.org:1213
  shoal name log alice --login login.example.org:1213
  shoal name log --login login.example.org:1213 --json")]
pub(crate) struct NameLogArgs {
    /// Show entries of this name alone; all are checked
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) flags: NameFlags,
}
