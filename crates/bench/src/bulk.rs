//! Bulk over QUIC between two processes: by our connections, directly or by a relay, and by plain quinn
//! on tokio. Each end says how long the bytes took and what processor time it used meanwhile.

mod plain;
mod reach;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::print_json;

/// Bytes written and read at once.
const PIECE: usize = 64 << 10;

/// One end of a transfer.
#[derive(Subcommand)]
pub(crate) enum End {
    /// Receive by a connection of ours; prints where letters go and the node's key
    ReachSink(Place),
    /// Send by a connection of ours
    ReachSource {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        goal: Goal,
        /// By a relay alone, one of these
        #[arg(long, requires = "relay")]
        relayed: bool,
    },
    /// Receive by quinn; prints where it listens and its certificate
    QuinnSink(Place),
    /// Send by quinn
    QuinnSource {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        goal: Goal,
    },
}

/// Where an end is.
#[derive(Args)]
pub(crate) struct Place {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A relay that may be used
    #[arg(long, requires = "secret")]
    relay: Option<SocketAddr>,
    /// What makes its credentials
    #[arg(long)]
    secret: Option<String>,
}

/// Where bytes go, and how many.
#[derive(Args)]
pub(crate) struct Goal {
    /// What the sink printed as `listening`
    #[arg(long)]
    to: SocketAddr,
    /// What it printed as `key`
    #[arg(long)]
    key: String,
    /// Bytes
    #[arg(long)]
    len: u64,
}

/// Runs one end.
pub(crate) fn run(end: &End) -> anyhow::Result<()> {
    match end {
        End::ReachSink(place) => reach::sink(place),
        End::ReachSource {
            place,
            goal,
            relayed,
        } => reach::source(place, goal, *relayed),
        End::QuinnSink(place) => plain::sink(place),
        End::QuinnSource { place, goal } => plain::source(place, goal),
    }
}

/// Tells a source where its sink is.
fn tell(listening: SocketAddr, key: &[u8]) {
    print_json(&json!({"listening": listening, "key": hex(key)}));
}

/// Wall and processor time since it was made.
struct Meter {
    began: Instant,
    used: Duration,
}

fn used() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

impl Meter {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            used: used(),
        }
    }

    fn tell(&self, bytes: u64, more: &serde_json::Value) {
        print_json(&json!({
            "bytes": bytes,
            "seconds": self.began.elapsed().as_secs_f64(),
            "cpu": (used().saturating_sub(self.used)).as_secs_f64(),
            "more": more,
        }));
    }
}

/// What is sent: the same bytes again and again.
fn payload() -> Vec<u8> {
    let mut rng = shoal_base::Rng::from_seed(1);
    let mut piece = vec![0; PIECE];
    rng.fill(&mut piece);
    piece
}

/// So many bytes, of one piece over and over.
fn pieces(piece: &[u8], len: u64) -> impl Iterator<Item = &[u8]> {
    let whole = std::iter::repeat_n(piece, (len / PIECE as u64) as usize);
    let rest = piece.get(..(len % PIECE as u64) as usize);
    whole.chain(rest.filter(|rest| !rest.is_empty()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits = |at| u8::from_str_radix(text.get(at..at + 2).unwrap_or("?"), 16);
    let bytes: Result<_, _> = (0..text.len()).step_by(2).map(digits).collect();
    bytes.context("this is no hexadecimal number")
}
