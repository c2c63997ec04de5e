//! Flags of `pipe`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use shoal_node::reach::NodeId;

use super::{JoinFlags, listen_addr};

/// Reads the name of a node.
fn node(text: &str) -> Result<NodeId, String> {
    text.parse()
        .map_err(|_| "expected a node's key of 64 hexadecimal digits".to_owned())
}

/// Join two programs on any two machines: what goes in here comes out there
///
/// The other machine runs `shoal pipe --listen`, which prints the key that it is reached by. The two
/// find the shortest way by themselves, through NATs, and through the relays of supernodes where there
/// is no other; what passes is encrypted from end to end, and goes on when a relay or a way fails.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal pipe --listen --login login.example.org:1213 > backup.tar
                                                     Prints its key on stderr, waits, writes what comes
  tar c ~/Documents | shoal pipe KEY --login login.example.org:1213
                                                     Sends it there
  shoal pipe --listen --to localhost:22 --login login.example.org:1213
                                                     Hands each connection to a server on that machine
  shoal pipe KEY --forward localhost:2222 --login login.example.org:1213
                                                     Carries connections to port 2222 there")]
pub(crate) struct PipeArgs {
    /// The node to reach, as its `shoal pipe --listen` prints it
    #[arg(value_name = "KEY", value_parser = node, required_unless_present = "listen")]
    pub(crate) node: Option<NodeId>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Wait for others: for one, joined to stdin and stdout, or with --to for any number
    #[arg(long, conflicts_with = "node")]
    pub(crate) listen: bool,
    /// Hand each stream to the TCP service there
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    pub(crate) to: Option<String>,
    /// Let only this node in (may be repeated) [default: whoever knows the key]
    #[arg(long, value_name = "KEY", value_parser = node, requires = "listen")]
    pub(crate) from: Vec<NodeId>,
    /// Take TCP connections here and carry each to the other node
    #[arg(long, value_name = "ADDR", value_parser = listen_addr, conflicts_with = "listen")]
    pub(crate) forward: Option<SocketAddr>,
    /// Tell the other side no address of ours: all goes by relays, which see it
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Send and receive datagrams here
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) udp: SocketAddr,
    /// Keep the key and what is trusted in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}
