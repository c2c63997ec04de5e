//! Flags of `reach`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{JoinFlags, listen_addr};

/// Look how others reach this machine by UDP: at once, by punched holes, or by relays alone
///
/// Supernodes' relays are asked for this machine's address; one of them, to which nothing was sent by
/// UDP, then sends to it as a stranger would. open: that arrives. punched: it does not; others get here
/// after something was sent to them, which nodes see to by themselves. relayed: no UDP gets out.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal reach --login login.example.org:1213
  shoal reach --login login.example.org:1213 --udp 0.0.0.0:6881
                                                     At the port of a service, while that does not run
  shoal reach --login login.example.org:1213 --json | jq -r .state")]
pub(crate) struct ReachArgs {
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Look from a socket here
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) udp: SocketAddr,
    /// Keep what is trusted in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}
