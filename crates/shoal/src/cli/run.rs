//! Flags of `run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::transfer::{MakeArgs, NetArgs, RingArgs, ShareArgs};
use super::{JoinFlags, listen_addr, seconds, size, tracker_url};

/// Run a MapReduce job, on this machine or on a cluster
///
/// JOB is one of the built-in jobs (wordcount, grep, sort, index, join), a job file in TOML, or a
/// WebAssembly module. Without JOB, --mapper says what to run, as in Hadoop Streaming. With nothing
/// else started the job runs in this process; the same command goes on where it was interrupted.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal run wordcount --input books/ --output counts       Count words; then: sort -k2 -n counts/part-*
  shoal run grep --pattern 'error|panic' --input 'logs/*.gz' --output found
  shoal run --mapper 'cut -f2' --reducer 'uniq -c' --input a.tsv --output out   Any programs
  shoal run sort --input big.txt --output sorted --memory 256MiB --reduces 4
  shoal run job.toml --master node1:7700                     On a cluster
  shoal run wordcount --input 'magnet:?…' --output counts --share-output   Prints a link of the result
  shoal run job.toml --engine spark --master spark://node1:7077   On a cluster of Spark's
")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) code: CodeArgs,
    /// Read this file, folder, glob, URL, magnet link or .torrent file (may be repeated); .gz .zst
    /// .bz2 .lz4 are unpacked
    #[arg(short, long = "input", value_name = "WHAT", value_hint = ValueHint::AnyPath)]
    pub(crate) inputs: Vec<String>,
    /// Write to this folder, which must not exist
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) output: Option<String>,
    /// Reduce tasks, each of which writes one file [default: 1 below 64 MiB of input, else one for
    /// each slot]
    #[arg(short, long, value_name = "N")]
    pub(crate) reduces: Option<u32>,
    /// Tasks that run at once on this machine [default: one for each processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// Submit to the master there instead of running here, by --login at an overlay address too;
    /// Spark's own with --engine spark
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["workers", "master_listen"])]
    pub(crate) master: Option<String>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Be the master for workers that connect here, and run no tasks in this process
    #[arg(long, value_name = "ADDR", value_parser = listen_addr)]
    pub(crate) master_listen: Option<SocketAddr>,
    /// Secret shared with the cluster; needed unless all is on loopback
    #[arg(long, value_name = "FILE", env = "SHOAL_SECRET_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Take a worker for dead after this long a silence
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, requires = "master_listen")]
    pub(crate) lease: u64,
    /// Memory for sorting and merging in one task
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Input of one map task [default: up to 128 MiB, less if that keeps all busy]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) split_size: Option<u64>,
    /// Attempts at one task before the job fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) max_attempts: Option<u32>,
    /// Leave out up to this many records on which the code fails
    #[arg(long, value_name = "N")]
    pub(crate) skip_bad: Option<u64>,
    /// Start no backup tasks for slow ones
    #[arg(long)]
    pub(crate) no_speculation: bool,
    /// Jobs of a higher priority go first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Then share the output as `shoal share` does: print its magnet link and serve it until ctrl-C
    #[arg(long, help_heading = "Content options")]
    pub(crate) share_output: bool,
    /// A tracker to announce the shared output to (may be repeated)
    #[arg(long = "tracker", value_name = "URL", requires = "share_output", help_heading = "Content options", value_parser = tracker_url, value_hint = ValueHint::Url)]
    pub(crate) trackers: Vec<String>,
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    #[command(flatten)]
    pub(crate) hand_over: HandOverArgs,
}

/// What runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// This program
    Shoal,
    /// A Spark cluster, by spark-submit
    Spark,
    /// A Hadoop cluster, by Hadoop Streaming
    Hadoop,
}

/// How a job is handed to another engine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for clusters of other engines")]
pub(crate) struct HandOverArgs {
    /// What runs the job
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = Engine::Shoal)]
    pub(crate) engine: Engine,
    /// Argument for spark-submit or hadoop jar (may be repeated)
    #[arg(long = "engine-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) engine_args: Vec<String>,
    /// Put what the other engine gets into this new folder [default: a temporary one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) engine_dir: Option<PathBuf>,
    /// Print the other engine's command instead of running it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl RunArgs {
    /// How its output is shared.
    pub(crate) fn share(&self, output: PathBuf) -> ShareArgs {
        let content = &self.content;
        ShareArgs {
            paths: vec![output],
            torrent_out: None,
            update_key: None,
            update_salt: String::new(),
            make: MakeArgs {
                trackers: self.trackers.clone(),
                ..MakeArgs::default()
            },
            net: NetArgs {
                listen: content.content_listen,
                peers: Vec::new(),
                no_lsd: content.no_lsd,
                no_dht: content.no_dht,
                dht_bootstrap: content.dht_bootstrap.clone(),
                ring: RingArgs::default(),
                join: JoinFlags::default(),
                up_limit: None,
                down_limit: None,
                max_peers: 200,
                state_dir: content.state_dir.clone(),
            },
        }
    }
}

/// What a job does, without its input and output.
#[derive(Debug, Args)]
pub(crate) struct CodeArgs {
    /// A built-in job, a job file (.toml) or a module (.wasm)
    #[arg(value_name = "JOB", required_unless_present = "mapper", value_hint = ValueHint::FilePath)]
    pub(crate) job: Option<String>,
    /// Command that maps lines on stdin to key<TAB>value lines
    #[arg(long, value_name = "CMD", conflicts_with = "job")]
    pub(crate) mapper: Option<String>,
    /// Command that reduces the output of one map task before it is shuffled
    #[arg(long, value_name = "CMD", requires = "mapper")]
    pub(crate) combiner: Option<String>,
    /// Command that reads key<TAB>value lines in order of their keys
    #[arg(long, value_name = "CMD", requires = "mapper")]
    pub(crate) reducer: Option<String>,
    /// What `grep` looks for, a regular expression
    #[arg(long, value_name = "REGEX")]
    pub(crate) pattern: Option<String>,
    /// Argument of a built-in job or module (may be repeated)
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// Memory that a command or module may use
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) code_memory: Option<u64>,
    /// File that every task finds in its folder (may be repeated): PATH or PATH#NAME
    #[arg(long = "file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<String>,
    /// Environment of commands (may be repeated)
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// Property of the job (may be repeated)
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) properties: Vec<(String, String)>,
}

/// How content that is named by magnet links and .torrent files is fetched and served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Content options")]
pub(crate) struct ContentArgs {
    /// Where content of magnet links and .torrent files lies and is fetched to [default: content in
    /// the folder of --state-dir]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) content_dir: Option<PathBuf>,
    /// Where peers of such content may connect
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0", value_parser = listen_addr)]
    pub(crate) content_listen: SocketAddr,
    /// Do not look for peers on the local network
    #[arg(long)]
    pub(crate) no_lsd: bool,
    /// Do not look for peers in the DHT
    #[arg(long)]
    pub(crate) no_dht: bool,
    /// A node of the DHT to start from, ADDRESS:PORT or HOST:PORT (may be repeated)
    #[arg(long, value_name = "ADDR", conflicts_with = "no_dht")]
    pub(crate) dht_bootstrap: Vec<String>,
    /// Where to keep what is known of such content [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// Reads `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
