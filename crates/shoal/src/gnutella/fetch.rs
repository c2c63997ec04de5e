//! `shoal gnutella fetch`: a file by its hash.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_base::InfoHash;
use shoal_content::Urn;
use shoal_gnutella::http::server::ServerConfig;
use shoal_napster::client::Login;
use shoal_node::gnutella::transfer::{
    Download, DownloadEvent, DownloadSettings, DownloadStats, Ended, FileServer, Listener,
    PartialFile,
};
use shoal_node::outbound::Outbound;
use shoal_node::reach::Overlay;
use shoal_node::{SourceNews, SourceSort, SourceSpec};

use super::seek::Seeker;
use crate::cli::GnutellaFetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::fetch::history::History;
use crate::fetch::sources;
use crate::overlay::OnOverlay;
use crate::report::{FileReport, Report};
use crate::signals::Interrupt;
use crate::state;
use crate::transfer::TICK;
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count, eta_s};

/// Where others connect to a download.
pub(crate) enum Entrance {
    /// A port of its own, at which what is there is served too.
    At(SocketAddr),
    /// Somebody else's, such as a node's.
    Of(Listener),
}

/// A file to be fetched by its own hash, and who has it.
pub(crate) struct Target {
    /// By its SHA-1 or its Tiger tree it is checked, by both if both are known.
    pub(crate) urn: Urn,
    pub(crate) name: Option<String>,
    pub(crate) len: Option<u64>,
    /// Gnutella hosts.
    pub(crate) from: Vec<SocketAddr>,
    /// Those of them that say that they speak TLS.
    pub(crate) tls_hosts: Vec<SocketAddr>,
    /// Whether TLS is used at all.
    pub(crate) tls: bool,
    /// Everybody else.
    pub(crate) sources: Vec<SourceSpec>,
    pub(crate) hub_login: Login,
    pub(crate) dir: PathBuf,
    pub(crate) state_dir: Option<PathBuf>,
    /// Where sharers may connect to us.
    pub(crate) entrance: Option<Entrance>,
    /// By which hosts at overlay addresses are reached.
    pub(crate) overlay: Option<Overlay>,
    /// Where our connections leave from, and users of Napster hubs may bring files.
    pub(crate) local: Option<SocketAddr>,
    /// Whether it goes on when nobody is left, for somebody may be found or connect.
    pub(crate) awaits_more: bool,
    pub(crate) max_sources: usize,
    /// Gives up when nothing comes for so long.
    pub(crate) timeout: Option<Duration>,
    /// What to do when nobody is left.
    pub(crate) hint: &'static str,
}

/// The file by every hash that the user names.
pub(super) fn named(args: &GnutellaFetchArgs) -> Urn {
    let tree = args.tree.or(args.urn.tiger());
    Urn::of(args.urn.sha1(), tree).unwrap_or(args.urn)
}

/// Runs the command.
pub(crate) fn fetch(args: &GnutellaFetchArgs, ui: &Ui) -> Outcome<Exit> {
    if args.from.is_empty() && args.listen.is_none() && args.connect.is_empty() {
        return Err(Failure::usage("nobody to fetch from")
            .hint("name a host with --from HOST:PORT, or a node of the network with --connect"));
    }
    let interrupt = Interrupt::install()?;
    let listen = args.listen.map_or(Ipv4Addr::UNSPECIFIED.into(), |l| l.ip());
    let base = args.state_dir.as_deref();
    let station = OnOverlay::hoped(&args.join, listen, base, &interrupt, ui);
    let overlay = station.as_ref().map(|s| s.overlay.clone());
    let from = super::neighbours(&args.from, overlay.is_some())?;
    let mut seeker = Seeker::start(args, overlay.as_ref(), ui, &interrupt)?;
    let door = match (args.listen, &mut seeker) {
        (_, Some(seeker)) => seeker.listener().map(Entrance::Of),
        (listen, None) => listen.map(Entrance::At),
    };
    let target = Target {
        urn: named(args),
        name: args.name.clone(),
        len: None,
        from,
        tls_hosts: seeker.as_ref().map_or_else(Vec::new, Seeker::tls_hosts),
        tls: !args.no_tls,
        sources: seeker.as_mut().map_or_else(Vec::new, Seeker::found),
        hub_login: Login::default(),
        dir: args.dir.clone(),
        state_dir: args.state_dir.clone(),
        awaits_more: door.is_some(),
        entrance: door,
        overlay,
        local: args.listen,
        max_sources: usize::from(args.max_sources),
        timeout: (args.timeout > 0).then(|| Duration::from_secs(args.timeout)),
        hint: "name other hosts with --from; what is there is kept",
    };
    let mut look = |download: &Download| {
        if let Some(seeker) = &mut seeker {
            seeker.look(download);
        }
        false
    };
    let end = fetch_file(target, &interrupt, &mut look, ui)?;
    Ok(end.unwrap_or(Exit::Ok))
}

fn tell_listening(listener: &Listener, ui: &Ui) {
    ui.report(&Report::Listening {
        addr: listener.addr(),
        proto: "gnutella",
    });
}

/// Listens, and serves what is there of a file that is fetched.
pub(crate) fn serve_part(addr: SocketAddr, ui: &Ui) -> Outcome<(Listener, PartialFile)> {
    let failed = |e| Failure::failed(format!("cannot listen on {addr}")).because(&e);
    let partial = PartialFile::default();
    let server = FileServer::new(
        ServerConfig::default(),
        Arc::new(partial.clone()),
        None,
        super::serve::rng(),
    );
    let (server, _) = server.map_err(failed)?;
    let listener = Listener::open(addr, Some(server)).map_err(failed)?;
    tell_listening(&listener, ui);
    Ok((listener, partial))
}

/// Fetches a file from everybody who has it. `look` is called again and again; none: it said that
/// enough was fetched.
pub(crate) fn fetch_file(
    target: Target,
    interrupt: &Interrupt,
    look: &mut dyn FnMut(&Download) -> bool,
    ui: &Ui,
) -> Outcome<Option<Exit>> {
    let start = Instant::now();
    let urn = target.urn;
    fs::create_dir_all(&target.dir)
        .map_err(|e| Failure::io("create the folder", &target.dir, &e))?;
    let dir = fs::canonicalize(&target.dir);
    let dir = dir.map_err(|e| Failure::io("use the folder", &target.dir, &e))?;
    let base = state::base(target.state_dir.as_deref(), &dir);
    let state_dir = state::folder(&base, [(InfoHash(urn.key()), dir.as_path())]);
    let (listener, partial) = match target.entrance {
        None => (None, None),
        Some(Entrance::Of(listener)) => {
            tell_listening(&listener, ui);
            (Some(listener), None)
        }
        Some(Entrance::At(addr)) => {
            let (listener, partial) = serve_part(addr, ui)?;
            (Some(listener), Some(partial))
        }
    };
    let download = Download::start(DownloadSettings {
        urn,
        name: target.name,
        len: target.len,
        from: target.from,
        tls_hosts: target.tls_hosts,
        tls: target.tls,
        sources: target.sources,
        hub_login: target.hub_login,
        dir,
        state_dir: state_dir.clone(),
        outbound: Outbound::of(target.local).and_overlay(target.overlay),
        data_ip: target.local.map(|addr| addr.ip()),
        max_sources: target.max_sources,
        awaits_more: target.awaits_more,
        partial,
        listener,
        rng: super::serve::rng(),
    })
    .map_err(|e| Failure::failed("the download cannot begin").because(&e))?;
    let mut fetch = Fetch {
        ui,
        urn: urn.shortest().to_string(),
        start,
        timeout: target.timeout,
        hint: target.hint,
        moved: (Instant::now(), 0),
        absent: true,
        last: None,
        history: History::new(&base),
    };
    let outcome = fetch.run(&download, interrupt, look);
    ui.finish_step();
    download.stop();
    fetch.history.keep(ui);
    if let Ok(Some(Exit::Ok)) = outcome {
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
    hint: &'static str,
    /// When bytes last came, and how many there were.
    moved: (Instant, u64),
    /// Whether every host that failed said that it does not have the file.
    absent: bool,
    /// Why the last host failed.
    last: Option<String>,
    /// What the sources did, for later searches.
    history: History,
}

impl Fetch<'_> {
    fn run(
        &mut self,
        download: &Download,
        interrupt: &Interrupt,
        look: &mut dyn FnMut(&Download) -> bool,
    ) -> Outcome<Option<Exit>> {
        loop {
            select! {
                recv(download.events) -> event => match event {
                    Ok(event) => {
                        if let Some(exit) = self.on_event(event, download)? {
                            return Ok(Some(exit));
                        }
                    }
                    Err(_) => return Err(Failure::failed("the download stopped by itself")),
                },
                recv(interrupt.woken()) -> _ => {}
                default(TICK) => {}
            }
            let stats = download.stats();
            if interrupt.asked() || self.ui.stdout_closed() {
                return Ok(Some(self.interrupted(&stats)));
            }
            if look(download) {
                return Ok(None);
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

    /// Keeps what happened to a source.
    fn note(&mut self, event: &DownloadEvent) {
        let (addr, news) = match event {
            DownloadEvent::Source { source, sort, news } => {
                return self.history.note(*sort, source, news);
            }
            DownloadEvent::Queued {
                addr,
                position,
                retry_s,
            } => {
                let (position, retry_s) = (*position, *retry_s);
                (addr, SourceNews::Queued { position, retry_s })
            }
            DownloadEvent::Failed { addr, why } => {
                let (why, for_good) = (why.clone(), false);
                (addr, SourceNews::Failed { why, for_good })
            }
            DownloadEvent::Banned { addr } => (addr, SourceNews::Banned),
            _ => return,
        };
        let sort = SourceSort::Gnutella;
        self.history.note(sort, &addr.to_string(), &news);
    }

    fn on_event(&mut self, event: DownloadEvent, download: &Download) -> Outcome<Option<Exit>> {
        let ui = self.ui;
        self.note(&event);
        match event {
            DownloadEvent::Known {
                name,
                len,
                pieces,
                piece_len,
                tiger,
            } => {
                let tree = tiger.map(|root| root.to_string());
                ui.report(&FileReport::FileKnown {
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
                ui.report(&FileReport::SourceQueued {
                    addr,
                    position,
                    retry_s,
                });
                let place = position.map_or_else(String::new, |p| format!(" at place {p}"));
                ui.news("Queued", &format!("by {addr}{place}, again in {retry_s} s"));
            }
            DownloadEvent::Failed { addr, why } => {
                ui.report(&FileReport::SourceFailed { addr, reason: &why });
                ui.news("Lost", &format!("{addr}: {why}"));
                self.absent &= why.contains("answers 404") || why.contains("answers 410");
                self.last = Some(format!("{addr}: {why}"));
            }
            DownloadEvent::Banned { addr } => {
                ui.report(&FileReport::SourceBanned { addr });
                ui.warn(&format!("{addr} sent wrong bytes and is asked no more"));
            }
            DownloadEvent::Source { source, sort, news } => {
                sources::tell(ui, &source, sort, &news);
                if let SourceNews::Failed { why, .. } = news {
                    self.absent = false;
                    self.last = Some(format!("{source}: {why}"));
                }
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
                return Err(self.failure(exit).hint(self.hint));
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
        self.ui.report(&FileReport::FileComplete {
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
        self.ui.report(&FileReport::FileProgress {
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
            by_kind: sources::by_kind_of_file(stats),
        });
    }

    fn show(&self, stats: &DownloadStats) {
        self.report(stats);
        let kinds = sources::by_kind_of_file(stats);
        let from = sources::shown(&kinds);
        let from = from.unwrap_or_else(|| count(stats.sources as u64, "host"));
        let mut detail = format!("{} from {from}", Rate(stats.rate));
        let left = stats.bytes_total.saturating_sub(stats.bytes_done);
        if let Some(eta) = eta_s(left, stats.rate) {
            detail.push_str(&format!(", {} left", Span::secs(eta)));
        }
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
