//! Flags of `chat`.

use std::net::SocketAddr;

use clap::Args;

use super::{NameFlags, listen_addr, seconds};

/// Write with somebody, sealed, also while they are away
///
/// Each line of stdin is a text; texts that come are printed. While the other is there they go straight,
/// over a connection; else through boxes at three supernodes, which cannot read them: who is away
/// gets them on return. Lines that begin with / are
/// commands: /to NAME (to whom from now on), /buddy NAME, /unbuddy NAME, /who, /away, /back, /quit. When stdin ends, so does
/// the command, as soon as all texts lie in boxes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal chat bob --as alice --login login.example.org:1213
  shoal chat bob --as alice --login login.example.org:1213 < letter.txt
  shoal chat --as alice --stay --json < /dev/null           Only listen")]
pub(crate) struct ChatArgs {
    /// To whom to write
    pub(crate) name: Option<String>,
    /// Under which name (shoal name claim)
    #[arg(long = "as", value_name = "NAME", env = "SHOAL_NAME")]
    pub(crate) own: String,
    #[command(flatten)]
    pub(crate) flags: NameFlags,
    /// Go on when stdin ends
    #[arg(long)]
    pub(crate) stay: bool,
    /// Wait this long for boxes to take the last texts when stdin ends
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) timeout: u64,
    /// Ask the ring of supernodes, and connect to others, from this address (UDP)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
}
