//! Raw peers and floors: what shoal and other clients are measured against.
//!
//! Deliberately independent of shoal's own wire code, so that a peer that lies or a sink that
//! discards shares no bug with what it measures; only `dht-nodes` is shoal itself, many nodes in
//! one process, and `bulk reach-*`, one end of a connection of ours. Every other command prints one JSON object on stdout.

mod bulk;
mod dht;
mod floor;
mod leech;
mod library;
mod raw;
mod seed;
mod speech;
mod tracker;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shoal_base::InfoHash;
use shoal_content::Geometry;

#[derive(Parser)]
#[command(name = "shoal-bench", version, about = "Raw peers and floors")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a file to BitTorrent peers with sendfile; or serve it wrongly
    Seed {
        #[command(flatten)]
        content: Content,
        /// The one file with all bytes of the torrent
        #[arg(long)]
        file: PathBuf,
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[command(flatten)]
        vice: seed::Vice,
    },
    /// Fetch everything from a peer, keep nothing
    Leech {
        #[command(flatten)]
        content: Content,
        #[arg(long)]
        peer: SocketAddr,
        /// Requests kept open
        #[arg(long, default_value_t = 128)]
        pipeline: usize,
    },
    /// Receive, hash and write with the plainest loop there is
    FloorDown {
        /// The file a child process sends
        #[arg(long)]
        file: PathBuf,
        /// Where the received bytes go
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 1 << 20)]
        piece_len: u32,
    },
    /// Send a file with sendfile to a child process that discards it
    FloorUp {
        #[arg(long)]
        file: PathBuf,
    },
    /// Announce many peers to a tracker by UDP, each once
    TrackerFill(tracker::Crowd),
    /// Announce to a tracker by HTTP for a while
    TrackerHttp(tracker::HttpLoad),
    /// Index, scan and hash files of its own making; one JSON object for each of the three
    Library(library::LibraryBench),
    /// Print the Opus packets that a call makes of the beginning of a file
    CallPackets(speech::Packets),
    /// Run many nodes of the DHT in one process, driven by JSON lines
    DhtNodes(dht::Nodes),
    /// One end of a transfer by QUIC: by a connection of ours or by plain quinn
    #[command(subcommand)]
    Bulk(bulk::End),
    #[command(hide = true)]
    FloorSender {
        #[arg(long)]
        file: PathBuf,
        #[arg(long)]
        to: SocketAddr,
    },
    #[command(hide = true)]
    FloorSink {
        #[arg(long)]
        from: SocketAddr,
    },
}

/// What is transferred, told by numbers so that no torrent parser is involved.
#[derive(Args, Clone, Copy)]
struct Content {
    #[arg(long)]
    info_hash: InfoHash,
    /// Bytes in all
    #[arg(long)]
    total_len: u64,
    #[arg(long)]
    piece_len: u32,
}

impl Content {
    fn geometry(&self) -> anyhow::Result<Geometry> {
        Geometry::new(self.total_len, self.piece_len)
            .ok_or_else(|| anyhow::anyhow!("the piece length does not fit the total length"))
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Seed {
            content,
            file,
            listen,
            vice,
        } => seed::run(content, &file, listen, vice),
        Command::Leech {
            content,
            peer,
            pipeline,
        } => leech::run(content, peer, pipeline),
        Command::FloorDown {
            file,
            out,
            piece_len,
        } => floor::down(&file, &out, piece_len),
        Command::FloorUp { file } => floor::up(&file),
        Command::TrackerFill(crowd) => tracker::fill(crowd),
        Command::TrackerHttp(load) => tracker::http(load),
        Command::Library(args) => library::run(&args),
        Command::CallPackets(args) => speech::packets(&args),
        Command::DhtNodes(nodes) => dht::nodes(&nodes),
        Command::Bulk(end) => bulk::run(&end),
        Command::FloorSender { file, to } => floor::sender(&file, to),
        Command::FloorSink { from } => floor::sink(from),
    }
}

/// Prints one result for the script that started us.
#[expect(clippy::print_stdout, reason = "stdout is this program's interface")]
fn print_json(value: &serde_json::Value) {
    println!("{value}");
}
