//! Flags of `worker`, `serve master` and `job`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::run::ContentArgs;
use super::{JoinFlags, listen_addr, seconds};

/// Run tasks for a master until ctrl-C
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal worker --master 127.0.0.1:7700                     On the master's own machine
  shoal worker --master node1:7700 --listen 10.0.0.2:7701 --secret-file secret
  shoal worker --master node1:7700 --slots 8 --dir /mnt/fast/shoal
  shoal worker --master node1:7700 --seed logs.torrent --content-dir /data   Near its data
  shoal worker --stranger --master KEY@node1:7700 --listen 0.0.0.0:7701      For somebody else
  shoal worker --master '[fc12:…]:7700' --secret-file secret --login login.example.org:1213
                                                           Behind a NAT, as the master may be")]
pub(crate) struct WorkerArgs {
    /// The master, HOST:PORT; KEY@HOST:PORT to make sure whose it is
    #[arg(long, value_name = "ADDR")]
    pub(crate) master: String,
    /// Work for a master whose secret is not known here (serve master --strangers): run only
    /// WebAssembly modules and built-in jobs, and let them at no file of this machine
    #[arg(long)]
    pub(crate) stranger: bool,
    /// Key by which a stranger is known and trusted; made if the file is missing [default:
    /// worker.key in the folder of --state-dir]
    #[arg(long, value_name = "FILE", requires = "stranger", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
    /// Map tasks at once, and reduce tasks beside them [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Serve map output to other workers here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// How others reach this worker, if not as it listens
    #[arg(long, value_name = "ADDR")]
    pub(crate) public: Option<String>,
    /// Keep map output and spills here [default: a temporary folder]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
    /// Secret shared with the cluster; needed unless all is on loopback
    #[arg(long, value_name = "FILE", env = "SHOAL_SECRET_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Name of this machine: backup tasks go to another [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Serve this content from --content-dir, and get the tasks that read what is there (magnet
    /// link, .torrent file or its URL; may be repeated)
    #[arg(long, value_name = "WHAT")]
    pub(crate) seed: Vec<String>,
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    /// With it the master and other workers reach this one through NATs, by the overlay
    #[command(flatten)]
    pub(crate) join: JoinFlags,
}

/// Run a master: jobs are submitted to it, workers run their tasks
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shoal serve master --dir jobs                             On loopback, without a secret
  shoal serve master --dir jobs --listen 10.0.0.1:7700 --secret-file secret
  shoal serve master --dir jobs --listen 127.0.0.1:0 --json  A free port; prints it
  shoal serve master --dir jobs --listen 0.0.0.0:7700 --secret-file secret --strangers
  shoal serve master --dir jobs --secret-file secret --login login.example.org:1213
                                                            Behind a NAT; prints where workers reach it")]
pub(crate) struct MasterArgs {
    /// Workers and clients connect here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700", value_parser = listen_addr)]
    pub(crate) listen: SocketAddr,
    /// Remember jobs here; the same folder goes on after a crash
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Secret shared with the cluster; needed unless all is on loopback
    #[arg(long, value_name = "FILE", env = "SHOAL_SECRET_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Take a worker for dead after this long a silence
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) lease: u64,
    /// Let strangers be workers: they get WebAssembly modules and built-in jobs only, and their
    /// results are compared with each other's
    #[arg(long)]
    pub(crate) strangers: bool,
    /// Compare all results of a stranger until this many in a row were right, then one in so many
    #[arg(long, value_name = "N", default_value_t = 10, requires = "strangers", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trust_after: u32,
    /// With it workers reach the master through NATs, by the overlay
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Keep the key of the overlay here [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How to reach a master.
#[derive(Debug, Args)]
pub(crate) struct MasterAddr {
    /// The master, by --login at an overlay address too
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700")]
    pub(crate) master: String,
    /// Secret shared with the cluster; needed unless all is on loopback
    #[arg(long, value_name = "FILE", env = "SHOAL_SECRET_FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) join: JoinFlags,
    /// Keep the key that --login needs in this folder
    #[arg(long, value_name = "FOLDER", env = "SHOAL_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List the jobs of a master
    #[command(after_long_help = "\
Examples:
  shoal job list                        Of the master on this machine
  shoal job list --master node1:7700
  shoal job list --master '[fc12:…]:7700' --secret-file secret --login login.example.org:1213
  shoal job list --json | jq .name")]
    List(MasterAddr),
    /// Show how a job is doing
    #[command(after_long_help = "\
Examples:
  shoal job show 3
  shoal job show job_0003 --master node1:7700
  shoal job show 3 --json | jq .counters")]
    Show(JobArgs),
    /// Show why attempts of a job failed
    #[command(after_long_help = "\
Examples:
  shoal job logs 3
  shoal job logs job_0003 --master node1:7700
  shoal job logs 3 --json")]
    Logs(JobArgs),
    /// End a job; its output folder is removed
    #[command(after_long_help = "\
Examples:
  shoal job cancel 3
  shoal job cancel job_0003 --master node1:7700
  shoal job cancel 3 --quiet")]
    Cancel(JobArgs),
    /// Go on with an interrupted job of `shoal run`, named by its output folder
    #[command(after_long_help = "\
Examples:
  shoal job resume counts
  shoal job resume counts --workers 8
  shoal job resume counts --json")]
    Resume(ResumeArgs),
}

/// A job of a master.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Its number, or its name: 3 or job_0003
    #[arg(value_name = "JOB", value_parser = job)]
    pub(crate) job: u64,
    #[command(flatten)]
    pub(crate) at: MasterAddr,
}

/// An interrupted job.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Its output folder
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
    /// Tasks that run at once [default: one for each processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
}

fn job(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("job_").unwrap_or(text);
    number
        .parse()
        .map_err(|_| "expected a job such as 3 or job_0003".to_owned())
}
