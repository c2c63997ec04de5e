//! `shoal gnutella fetch`: a file by its hash.

use std::fs;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_base::InfoHash;
use shoal_content::Urn;
use shoal_node::gnutella::transfer::{
    Download, DownloadEvent, DownloadSettings, DownloadStats, Ended, Listener,
};
use shoal_node::outbound::Outbound;

use super::seek::Seeker;
use crate::cli::GnutellaFetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::transfer::TICK;
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count, eta_s};
use crate::{napster, state};

/// Runs the command.
pub(crate) fn fetch(args: &GnutellaFetchArgs, ui: &Ui) -> Outcome<Exit> {
    let start = Instant::now();
    if args.from.is_empty() && args.listen.is_none() && args.connect.is_empty() {
        return Err(Failure::usage("nobody to fetch from")
            .hint("name a host with --from HOST:PORT, or a node of the network with --connect"));
    }
    let sha1 = args.urn.sha1().unwrap_or_default();
    let tiger = args.tree.or(args.urn.tiger());
    let mut from = Vec::new();
    for host in &args.from {
        from.push(napster::resolve(host)?);
    }
    fs::create_dir_all(&args.dir).map_err(|e| Failure::io("create the folder", &args.dir, &e))?;
    let dir = fs::canonicalize(&args.dir);
    let dir = dir.map_err(|e| Failure::io("use the folder", &args.dir, &e))?;
    let base = state::base(args.state_dir.as_deref(), &dir);
    let state_dir = state::folder(&base, [(InfoHash(sha1), dir.as_path())]);
    let interrupt = Interrupt::install()?;
    let mut seeker = Seeker::start(args, ui, &interrupt)?;
    if let Some(seeker) = &seeker {
        from.extend(seeker.hosts());
    }
    let listener = match (args.listen, &mut seeker) {
        (_, Some(seeker)) => seeker.listener(),
        (None, None) => None,
        (Some(addr), None) => Some(
            Listener::open(addr, None)
                .map_err(|e| Failure::failed(format!("cannot listen on {addr}")).because(&e))?,
        ),
    };
    if let Some(listener) = &listener {
        ui.report(&Report::Listening {
            addr: listener.addr(),
            proto: "gnutella",
        });
    }
    let download = Download::start(DownloadSettings {
        sha1,
        tiger: tiger.map(|root| root.0),
        name: args.name.clone(),
        from,
        dir,
        state_dir: state_dir.clone(),
        outbound: Outbound::of(args.listen),
        max_sources: usize::from(args.max_sources),
        listener,
        rng: super::serve::rng(),
    })
    .map_err(|e| Failure::failed("the download cannot begin").because(&e))?;
    let mut fetch = Fetch {
        ui,
        urn: Urn::Sha1(sha1).to_string(),
        start,
        timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout)),
        moved: (Instant::now(), 0),
        absent: true,
        last: None,
        seeker,
    };
    let outcome = fetch.run(&download, &interrupt);
    ui.finish_step();
    download.stop();
    if let Ok(Exit::Ok) = outcome {
        // Nothing is left to go on with.
        state::forget(&state_dir);
    }
    outcome
}

struct Fetch<'a> {
    ui: &'a Ui,
    urn: String,
    start: Instant,
    timeout: Option<Duration>,
    /// When bytes last came, and how many there were.
    moved: (Instant, u64),
    /// Whether every host that failed said that it does not have the file.
    absent: bool,
    /// Why the last host failed.
    last: Option<String>,
    /// Who asks those behind firewalls to connect to us.
    seeker: Option<Seeker>,
}

impl Fetch<'_> {
    fn run(&mut self, download: &Download, interrupt: &Interrupt) -> Outcome<Exit> {
        loop {
            select! {
                recv(download.events) -> event => match event {
                    Ok(event) => {
                        if let Some(exit) = self.on_event(event, download)? {
                            return Ok(exit);
                        }
                    }
                    Err(_) => return Err(Failure::failed("the download stopped by itself")),
                },
                recv(interrupt.woken()) -> _ => {}
                default(TICK) => {}
            }
            if let Some(seeker) = &mut self.seeker {
                seeker.look();
            }
            let stats = download.stats();
            if interrupt.asked() || self.ui.stdout_closed() {
                return Ok(self.interrupted(&stats));
            }
            if stats.downloaded != self.moved.1 {
                self.moved = (Instant::now(), stats.downloaded);
            }
            if self.ui.tick_due() {
                self.show(&stats);
                self.ui.ticked();
            }
            if let Some(timeout) = self.timeout.filter(|t| self.moved.0.elapsed() > *t) {
                let why = format!("nothing came for {}", Span(timeout));
                return Err(self.failure(Exit::Unreachable).reason(why));
            }
        }
    }

    fn failure(&self, exit: Exit) -> Failure {
        let failure = Failure::new(exit, format!("cannot fetch {}", self.urn));
        match &self.last {
            Some(why) => failure.reason(why.clone()),
            None => failure,
        }
    }

    fn on_event(&mut self, event: DownloadEvent, download: &Download) -> Outcome<Option<Exit>> {
        let ui = self.ui;
        match event {
            DownloadEvent::Known {
                name,
                len,
                pieces,
                piece_len,
                tiger,
            } => {
                let tree = tiger.map(|root| shoal_content::TigerRoot(root).to_string());
                ui.report(&Report::FileKnown {
                    urn: &self.urn,
                    name: &name,
                    bytes: len,
                    pieces,
                    piece_length: piece_len,
                    tree: tree.as_deref(),
                });
                ui.status("Fetching", &format!("{name} ({})", Size(len)));
                if tree.is_none() {
                    ui.news(
                        "Note",
                        "no host has its hash tree: it is checked at the end",
                    );
                }
            }
            DownloadEvent::Queued {
                addr,
                position,
                retry_s,
            } => {
                ui.report(&Report::SourceQueued {
                    addr,
                    position,
                    retry_s,
                });
                let place = position.map_or_else(String::new, |p| format!(" at place {p}"));
                ui.news("Queued", &format!("by {addr}{place}, again in {retry_s} s"));
            }
            DownloadEvent::Failed { addr, why } => {
                ui.report(&Report::SourceFailed { addr, reason: &why });
                ui.news("Lost", &format!("{addr}: {why}"));
                self.absent &= why.contains("answers 404") || why.contains("answers 410");
                self.last = Some(format!("{addr}: {why}"));
            }
            DownloadEvent::Banned { addr } => {
                ui.report(&Report::SourceBanned { addr });
                ui.warn(&format!("{addr} sent wrong bytes and is asked no more"));
            }
            DownloadEvent::Paused { reason } => {
                ui.warn(&format!("paused: {reason}"));
                ui.hint("it goes on when the reason is gone");
            }
            DownloadEvent::Resumed => ui.status("Fetching", "again"),
            DownloadEvent::Complete { path } => {
                let stats = download.stats();
                self.complete(&path, &stats);
                return Ok(Some(Exit::Ok));
            }
            DownloadEvent::Ended(Ended::NoSource) => {
                let exit = match self.absent && self.last.is_some() {
                    true => Exit::NotFound,
                    false => Exit::Unreachable,
                };
                let hint = "name other hosts with --from; what is there is kept";
                return Err(self.failure(exit).hint(hint));
            }
            DownloadEvent::Ended(why) => {
                return Err(Failure::failed(format!("cannot fetch {}", self.urn)).because(&why));
            }
        }
        Ok(None)
    }

    fn complete(&self, path: &std::path::Path, stats: &DownloadStats) {
        self.ui.finish_step();
        let elapsed = self.start.elapsed();
        self.report(stats);
        let path = path.to_string_lossy();
        self.ui.report(&Report::FileComplete {
            urn: &self.urn,
            path: &path,
            bytes: stats.bytes_total,
            seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            downloaded: stats.downloaded,
        });
        let rate = Rate((stats.downloaded as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
        let size = Size(stats.bytes_total);
        self.ui
            .status("Complete", &format!("{size} in {}, {rate}", Span(elapsed)));
        self.ui.result(&path);
    }

    fn report(&self, stats: &DownloadStats) {
        self.ui.report(&Report::FileProgress {
            urn: &self.urn,
            bytes_done: stats.bytes_done,
            bytes_total: stats.bytes_total,
            downloaded: stats.downloaded,
            wasted: stats.wasted,
            rate_down: stats.rate,
            sources: stats.sources,
            queued: stats.queued,
            known: stats.known,
            banned: stats.banned,
            eta_s: eta_s(
                stats.bytes_total - stats.bytes_done.min(stats.bytes_total),
                stats.rate,
            ),
        });
    }

    fn show(&self, stats: &DownloadStats) {
        self.report(stats);
        let mut detail = format!(
            "{} from {}",
            Rate(stats.rate),
            count(stats.sources as u64, "host")
        );
        if stats.queued > 0 {
            detail.push_str(&format!(", {} queued", stats.queued));
        }
        if stats.bytes_total == 0 {
            return self.ui.line("Asking", &detail);
        }
        self.ui.step(&Step {
            verb: "Fetching",
            done: stats.bytes_done,
            total: stats.bytes_total,
            bytes: true,
            detail: &detail,
        });
    }

    fn interrupted(&self, stats: &DownloadStats) -> Exit {
        self.ui.finish_step();
        self.ui.report(&Report::Interrupted {
            bytes_done: stats.bytes_done,
            bytes_total: stats.bytes_total,
        });
        let (done, total) = (Size(stats.bytes_done), Size(stats.bytes_total));
        self.ui.status(
            "Stopped",
            &format!("at {done} of {total}; the same command goes on from there"),
        );
        Exit::Interrupted
    }
}
