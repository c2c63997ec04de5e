//! Flags of `task`.

use clap::{Args, Subcommand, ValueHint};

use super::CodeArgs;

/// Which part of a job.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Map lines on stdin to key<TAB>value lines on stdout
    ///
    /// What a cluster that exists already runs as its mapper: the lines of one task come in, in
    /// any number; where they come from is told by --from, or by mapreduce_map_input_file in the
    /// environment.
    #[command(after_long_help = "\
Examples:
  shoal task map wordcount < book.txt | LC_ALL=C sort | shoal task reduce wordcount
  shoal task map grep --pattern error < log > found
  shoal task map job.toml --from logs/a.gz < part")]
    Map(MapTaskArgs),
    /// Reduce key<TAB>value lines on stdin, in order of their keys, with the job's combiner
    #[command(after_long_help = "\
Examples:
  shoal task map wordcount < a | LC_ALL=C sort | shoal task combine wordcount > a.counts
  shoal task combine job.toml < sorted > combined
  shoal task combine count.wasm < sorted > combined")]
    Combine(TaskArgs),
    /// Reduce key<TAB>value lines on stdin, in order of their keys
    ///
    /// A line whose key should have come earlier is an error: equal keys have to come together.
    #[command(after_long_help = "\
Examples:
  shoal task reduce wordcount < merged > counts
  shoal task reduce job.toml < sorted > part-00000
  shoal task reduce count.wasm < sorted > part-00000")]
    Reduce(TaskArgs),
}

/// Flags of `task combine` and `task reduce`.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    #[command(flatten)]
    pub(crate) code: CodeArgs,
}

/// Flags of `task map`.
#[derive(Debug, Args)]
pub(crate) struct MapTaskArgs {
    #[command(flatten)]
    pub(crate) code: CodeArgs,
    /// Name of the file that the lines come from [default: $mapreduce_map_input_file]
    #[arg(
        long,
        value_name = "FILE",
        env = "mapreduce_map_input_file",
        hide_env = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) from: Option<String>,
    /// Which of the job's inputs that file belongs to, from 0: the sides of a join [default: the
    /// first whose name the file's begins with]
    #[arg(long, value_name = "N")]
    pub(crate) from_input: Option<u32>,
}
