//! Flags of `sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Which experiment to run.
#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    Gossip(GossipArgs),
}

/// Flags of every experiment.
#[derive(Debug, Clone, Args)]
pub(crate) struct SimArgs {
    /// Where all chance comes from: the same seed replays the same run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a page of HTML with plots here
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
}

/// A rumour spreads by gossip
///
/// Each second everybody who knows it tells one other at random.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal sim gossip                                   A thousand nodes
  shoal sim gossip --nodes 100000 --loss 0.5         Half of the messages are lost
  shoal sim gossip --report gossip.html --seed 7     With a plot")]
pub(crate) struct GossipArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) nodes: u32,
    /// Share of the messages that is lost
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) loss: f64,
    #[command(flatten)]
    pub(crate) sim: SimArgs,
}
