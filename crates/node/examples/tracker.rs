//! A tracker for measurements: `tracker [--udp A:P] [--http A:P] [--workers N]`.

use shoal_node::tracker_server::{Config, TrackerServer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or("a flag without a value")?;
        match flag.as_str() {
            "--udp" => config.udp = Some(value.parse()?),
            "--http" => config.http = Some(value.parse()?),
            "--workers" => config.workers = value.parse()?,
            "--limit-local" => config.limit_local = value == "1",
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let server = TrackerServer::start(config)?;
    tracing::info!(udp = ?server.udp_addr(), http = ?server.http_addr());
    loop {
        std::thread::park();
    }
}
