//! Arguments of `hadoop`, which are read by Hadoop's rules, not by ours.

use std::ffi::OsString;

use clap::{Args, ValueHint};

/// Run Hadoop's command line: Streaming jobs, and `fs` on a job store
///
/// Programs that drive Hadoop, such as mrjob, find what they look for: `version`, `fs`, `jar` with a
/// Streaming jar, and the lines that they read. The same when shoal is called by the name hadoop,
/// hdfs, mapred or yarn. The job store is a folder: $SHOAL_HADOOP_DIR, else shoal/hadoop in
/// $XDG_DATA_HOME or ~/.local/share.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal hadoop setup ~/hadoop                  Make a HADOOP_HOME in which the programs are links to shoal
  shoal hadoop fs -put books.txt books.txt     Put a file into the job store
  shoal hadoop jar hadoop-streaming.jar -input books.txt -output counts -mapper cat -reducer 'uniq -c'
  shoal hadoop jar hadoop-streaming.jar -help  List the options of Streaming jobs
  shoal hadoop fs -help                        List the commands on files
")]
pub(crate) struct HadoopArgs {
    /// As for Hadoop
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = ValueHint::AnyPath
    )]
    pub(crate) words: Vec<OsString>,
}
