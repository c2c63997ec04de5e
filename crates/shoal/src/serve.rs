//! `shoal serve`: one role alone.

use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_node::tracker_server::{Config, ServerError, ServerStats, TrackerServer};

use crate::cli::{ServeCommand, TrackerArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::transfer;
use crate::ui::Ui;
use crate::units::count;

/// How often the statistics of a tracker are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn serve(command: &ServeCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        ServeCommand::Tracker(args) => tracker(args, ui),
        ServeCommand::Master(args) => crate::cluster::master(args, ui),
        ServeCommand::Napster(args) => crate::napster::hub(args, ui),
        ServeCommand::Gwebcache(args) => crate::gnutella::gwebcache(args, ui),
        ServeCommand::Turn(args) => crate::relay::serve(args, ui),
        ServeCommand::Login(args) => crate::supernode::serve::login(args, ui),
        ServeCommand::Supernodes(args) => crate::supernode::serve::supernodes(args, ui),
    }
}

fn config(args: &TrackerArgs) -> Config {
    let secs = Duration::from_secs;
    let interval = secs(args.interval.max(1));
    let defaults = Config::default();
    Config {
        http: args.http,
        udp: args.udp,
        workers: args.workers.map_or(0, usize::from),
        interval,
        min_interval: args.min_interval.map_or(interval / 6, secs),
        // A peer that missed one announce is not forgotten, one that missed two is.
        peer_life: interval.saturating_mul(3) / 2 + secs(60),
        max_peers: usize::from(args.max_peers),
        default_peers: defaults.default_peers.min(usize::from(args.max_peers)),
        max_torrents: args.max_torrents,
        max_peers_per_address: args.max_peers_per_address,
        max_requests_per_address: args.max_requests_per_address,
        limit_local: args.limit_local,
        allow: args.allow.clone(),
        deny: args.deny.clone(),
        trusted_proxies: args.trusted_proxies.clone(),
        public_stats: args.public_stats,
        ..defaults
    }
}

fn tracker(args: &TrackerArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let server = TrackerServer::start(config(args)).map_err(|e| not_started(&e))?;
    let served = [("udp", server.udp_addr()), ("http", server.http_addr())];
    for (proto, addr) in served {
        let Some(addr) = addr else { continue };
        ui.report(&Report::Listening { addr, proto });
        ui.result(&format!("{proto}://{addr}/announce"));
    }
    ui.status("Serving", "a tracker until ctrl-C");
    let mut meter = Meter::new(Duration::from_secs(args.stats_interval.max(1)));
    while !interrupt.asked() && !ui.stdout_closed() {
        match interrupt.woken().recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => meter.look(&server.stats(), ui),
            _ => break,
        }
    }
    ui.finish_step();
    let stats = server.stats();
    ui.status(
        "Stopped",
        &format!("after {}", count(answered(&stats), "answer")),
    );
    server.stop();
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn not_started(error: &ServerError) -> Failure {
    let failure = Failure::failed("cannot start the tracker").because(error);
    match error {
        ServerError::Bind { source, .. } => transfer::bind_hint(failure, source),
        ServerError::List(_) => failure.hint("one info-hash of 40 hexadecimal digits a line"),
        _ => failure,
    }
}

/// Requests answered.
fn answered(stats: &ServerStats) -> u64 {
    let t = &stats.total;
    t.udp_announces + t.udp_scrapes + t.http_announces + t.http_scrapes
}

/// Turns counters into a line now and then.
struct Meter {
    every: Duration,
    told: Option<Instant>,
    last: (Instant, u64),
}

impl Meter {
    fn new(every: Duration) -> Self {
        Self {
            every,
            told: None,
            last: (Instant::now(), 0),
        }
    }

    fn look(&mut self, stats: &ServerStats, ui: &Ui) {
        let answers = answered(stats);
        let (then, before) = std::mem::replace(&mut self.last, (Instant::now(), answers));
        let seconds = then.elapsed().as_secs_f64().max(0.001);
        let rate = (answers.saturating_sub(before) as f64 / seconds).round() as u64;
        let census = &stats.census;
        let swarms = (census.torrents_v4 + census.torrents_v6) as u64;
        let peers = census.peers_v4 + census.peers_v6;
        ui.line(
            "Serving",
            &format!(
                "{}, {}, {rate} answers/s, {} refused",
                count(swarms, "swarm"),
                count(peers, "peer"),
                stats.total.refused + stats.total.limited
            ),
        );
        if self.told.is_none_or(|at| at.elapsed() >= self.every) {
            self.told = Some(Instant::now());
            let t = &stats.total;
            ui.report(&Report::TrackerStats {
                swarms,
                peers,
                seeders: census.seeders,
                announces: t.udp_announces + t.http_announces,
                scrapes: t.udp_scrapes + t.http_scrapes,
                refused: t.refused,
                limited: t.limited,
                malformed: t.malformed,
                bytes_in: t.bytes_in,
                bytes_out: t.bytes_out,
                rate,
            });
        }
    }
}
