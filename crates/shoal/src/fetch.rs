//! `shoal fetch`: brings a content onto this machine, verified.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use shoal_base::InfoHash;
use shoal_content::{Info, Magnet, Selection};
use shoal_node::{AddTorrent, Event, Session, TorrentKey, TorrentStats, What};

use crate::cli::FetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::patience::Patience;
use crate::report::Report;
use crate::selection;
use crate::signals::Interrupt;
use crate::source::{self, Source};
use crate::transfer::{self, TICK};
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count};
use crate::{make, state, updates};

/// Runs the command.
pub(crate) fn fetch(args: &FetchArgs, ui: &Ui) -> Outcome<Exit> {
    let start = Instant::now();
    let mut source = source::resolve(&args.what)?;
    let dir = folder(&args.dir)?;
    let interrupt = Interrupt::install()?;
    if let Source::Magnet(magnet) = &mut source {
        updates::resolve(magnet, &args.net, args.timeout, &interrupt, ui)?;
    }
    let mut peers = transfer::peers(&args.net.peers)?;
    let (info_hash, info, only, what) = match source {
        Source::Metainfo(m) => (
            m.info.info_hash(),
            Some(m.info.clone()),
            None,
            What::Metainfo(m),
        ),
        Source::Magnet(m) => {
            // A name in the link that is not known here is no reason to fail.
            peers.extend(
                m.peers
                    .iter()
                    .filter_map(|p| p.to_socket_addrs().ok())
                    .flatten(),
            );
            let only = m.select_only.clone();
            (magnet_hash(&m)?, None, only, What::Magnet(m))
        }
    };
    let mut add = AddTorrent::new(what, dir.clone());
    add.peers = peers;
    add.trackers = make::tiers(&args.trackers);
    add.web_seeds = args.web_seeds.clone();
    add.sequential = args.sequential;
    add.preallocate = args.preallocate;
    match &info {
        Some(info) => add.wanted_files = wanted(args, only.as_ref(), info)?,
        None => add.hold = !args.select.is_empty() || only.is_some(),
    }

    let base = state::base(args.net.state_dir.as_deref(), &dir);
    let state_dir = state::folder(&base, [(info_hash, dir.as_path())]);
    let session = transfer::start(&args.net, &state_dir, ui)?;
    let held = add.hold;
    let key = transfer::add(&session, add)?;
    let mut fetch = Fetch {
        args,
        ui,
        session: &session,
        key,
        dir,
        info_hash: info_hash.to_string(),
        only,
        held,
        info: None,
        wanted: None,
        start,
        checking: None,
        paused: None,
        complete: false,
        patience: Patience::new(),
    };
    if let Some(info) = info {
        fetch.learn(info)?;
    }
    let outcome = fetch.run(&interrupt);
    ui.finish_step();
    if outcome.is_ok() && fetch.complete && !args.seed {
        // Nothing is left to go on with.
        session.stop();
        state::forget(&state_dir);
    } else {
        session.stop();
    }
    outcome
}

/// Makes the download folder if need be; its absolute path.
fn folder(dir: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(dir).map_err(|e| Failure::io("create the folder", dir, &e))?;
    fs::canonicalize(dir).map_err(|e| Failure::io("use the folder", dir, &e))
}

fn magnet_hash(magnet: &Magnet) -> Outcome<InfoHash> {
    magnet.info_hash.ok_or_else(|| {
        Failure::failed("cannot fetch this magnet link")
            .reason("it names a v2 torrent only, which is not supported yet")
    })
}

/// The files wanted of `info`; none: all.
fn wanted(args: &FetchArgs, only: Option<&Selection>, info: &Info) -> Outcome<Option<Vec<usize>>> {
    let layout = &info.layout;
    if args.select.is_empty() {
        let named = only.map(|only| only.files(layout.files().len()));
        return Ok(named.filter(|files| !files.is_empty()));
    }
    selection::select(layout, &args.select)
        .map(Some)
        .map_err(|e| {
            Failure::not_found(format!("nothing to fetch of {}", info.name))
                .because(&e)
                .hint("`shoal torrent show` lists the files and their numbers")
        })
}

struct Fetch<'a> {
    args: &'a FetchArgs,
    ui: &'a Ui,
    session: &'a Session,
    key: TorrentKey,
    dir: PathBuf,
    info_hash: String,
    /// The files a magnet link names (BEP 53).
    only: Option<Selection>,
    /// The node waits for the selection before it fetches anything.
    held: bool,
    info: Option<Info>,
    wanted: Option<Vec<usize>>,
    start: Instant,
    /// Pieces checked and to check, while checking.
    checking: Option<(u32, u32)>,
    paused: Option<String>,
    complete: bool,
    patience: Patience,
}

impl Fetch<'_> {
    fn run(&mut self, interrupt: &Interrupt) -> Outcome<Exit> {
        loop {
            select! {
                recv(self.session.events()) -> event => match event {
                    Ok(event) => self.on_event(event)?,
                    Err(_) => return Err(Failure::failed("the node stopped by itself")),
                },
                recv(interrupt.woken()) -> _ => {}
                default(TICK) => {}
            }
            if interrupt.asked() {
                return Ok(self.interrupted());
            }
            if self.complete && !self.args.seed || self.ui.stdout_closed() {
                return Ok(Exit::Ok);
            }
            if self.ui.tick_due() {
                self.on_tick()?;
            }
        }
    }

    fn stats(&self) -> TorrentStats {
        self.session.stats(self.key).unwrap_or_default()
    }

    /// Takes in what the content is, and tells it.
    fn learn(&mut self, info: Info) -> Outcome {
        self.wanted = wanted(self.args, self.only.as_ref(), &info)?;
        let geometry = info.layout.geometry();
        let files = selection::shown_files(&info.layout).count();
        self.ui.report(&Report::Metadata {
            info_hash_v1: &self.info_hash,
            name: &info.name,
            bytes: info.layout.stored_len(),
            files,
            pieces: geometry.pieces(),
            piece_length: geometry.piece_len(),
            private: info.private,
        });
        let mut what = format!(
            "{} ({}, {})",
            info.name,
            Size(info.layout.stored_len()),
            count(files as u64, "file")
        );
        if let Some(wanted) = &self.wanted {
            what.push_str(&format!(", {} of them", wanted.len()));
        }
        self.ui.status("Fetching", &what);
        self.info = Some(info);
        self.patience.renew();
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Outcome {
        transfer::tell(self.ui, &self.info_hash, &event);
        match event {
            Event::Metadata { info, .. } => {
                self.learn(*info)?;
                if self.held {
                    let wanted = self.wanted.clone();
                    transfer::select(self.session, self.key, wanted)?;
                }
            }
            Event::Checking { done, total, .. } => {
                self.checking = Some((done, total));
                self.patience.renew();
            }
            Event::Started { .. } => {
                self.checking = None;
                self.ui.finish_step();
                self.check_space();
            }
            Event::Paused { reason, .. } => self.paused = Some(reason),
            Event::Resumed { .. } => {
                self.paused = None;
                self.patience.renew();
            }
            Event::Tracker { url, result, .. } => self.patience.on_tracker(&url, &result),
            Event::Complete { .. } => self.on_complete(),
            Event::Failed { error, .. } => {
                return Err(Failure::failed("the download cannot go on").reason(error));
            }
            _ => {}
        }
        Ok(())
    }

    /// Warns if the disk is too small for what is to come.
    fn check_space(&self) {
        let stats = self.stats();
        let need = stats.bytes_wanted.saturating_sub(stats.bytes_wanted_done);
        if let Ok(disk) = rustix::fs::statvfs(&self.dir) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < need {
                self.ui.warn(&format!(
                    "{} has {} free, but {} are still to come; the download will pause when it is full",
                    self.dir.display(),
                    Size(free),
                    Size(need)
                ));
            }
        }
    }

    fn on_complete(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        self.ui.finish_step();
        let stats = self.stats();
        let elapsed = self.start.elapsed();
        let path = self.path();
        transfer::report_progress(self.ui, &self.info_hash, &stats);
        self.ui.report(&Report::Complete {
            info_hash_v1: &self.info_hash,
            bytes: stats.bytes_wanted,
            seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            path: &path.to_string_lossy(),
            downloaded: stats.downloaded,
        });
        let size = Size(stats.bytes_wanted);
        if stats.downloaded == 0 {
            self.ui
                .status("Complete", &format!("all {size} were here already"));
        } else {
            let rate = stats.downloaded as f64 / elapsed.as_secs_f64().max(0.001);
            self.ui.status(
                "Complete",
                &format!("{size} in {}, {}", Span(elapsed), Rate(rate as u64)),
            );
        }
        self.ui.result(&path.to_string_lossy());
        if self.args.seed {
            self.ui.status("Seeding", "until ctrl-C");
        }
    }

    /// The one file, or the folder of all.
    fn path(&self) -> PathBuf {
        let Some(info) = &self.info else {
            return self.dir.clone();
        };
        let files = info.layout.files();
        match self.wanted.as_deref() {
            Some([one]) if files.get(*one).is_some() => self.dir.join(&files[*one].path),
            _ => self.dir.join(&info.name),
        }
    }

    fn on_tick(&mut self) -> Outcome {
        let stats = self.stats();
        self.patience.look(&stats);
        self.show(&stats);
        self.ui.ticked();
        if self.complete {
            return Ok(());
        }
        if self.patience.is_lonely(&stats) {
            self.ui.warn("no peers found yet; still looking");
            self.ui
                .hint("name a peer with --peer ADDRESS:PORT or a tracker with --tracker URL");
        }
        match self.args.timeout.map(Duration::from_secs) {
            Some(limit) if self.paused.is_none() && self.patience.is_over(limit) => {
                Err(self.patience.failure(&stats, limit))
            }
            _ => Ok(()),
        }
    }

    fn show(&self, stats: &TorrentStats) {
        if let Some((done, total)) = self.checking {
            self.ui.report(&Report::Checking {
                info_hash_v1: &self.info_hash,
                pieces_done: done,
                pieces_total: total,
            });
            self.ui.step(&Step {
                verb: "Checking",
                done: u64::from(done),
                total: u64::from(total),
                bytes: false,
                detail: "",
            });
            return;
        }
        transfer::report_progress(self.ui, &self.info_hash, stats);
        if self.complete {
            return self.ui.line("Seeding", &transfer::seeding(stats));
        }
        if self.info.is_none() {
            let peers = match stats.peers {
                0 => "no peers yet".to_owned(),
                n => count(n as u64, "peer"),
            };
            return self
                .ui
                .line("Asking", &format!("for the metadata, {peers}"));
        }
        let detail = match &self.paused {
            Some(reason) => format!("paused: {reason}"),
            None => transfer::detail(stats),
        };
        self.ui.step(&Step {
            verb: "Fetching",
            done: stats.bytes_wanted_done,
            total: stats.bytes_wanted,
            bytes: true,
            detail: &detail,
        });
    }

    fn interrupted(&self) -> Exit {
        self.ui.finish_step();
        let stats = self.stats();
        self.ui.report(&Report::Interrupted {
            bytes_done: stats.bytes_wanted_done,
            bytes_total: stats.bytes_wanted,
        });
        if self.complete {
            self.ui.status("Stopped", &transfer::seeded(&stats));
        } else {
            self.ui.status(
                "Stopped",
                &format!(
                    "at {} of {}; the same command goes on from there",
                    Size(stats.bytes_wanted_done),
                    Size(stats.bytes_wanted)
                ),
            );
        }
        Exit::Interrupted
    }
}
