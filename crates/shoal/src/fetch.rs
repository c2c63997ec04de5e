//! `shoal fetch`: brings a content onto this machine, verified.

mod file;
pub(crate) mod history;
mod seek;
pub(crate) mod sources;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use sha1::{Digest, Sha1};
use shoal_base::InfoHash;
use shoal_content::tiger::TreeBuilder;
use shoal_content::{Info, Magnet, Selection, Urn};
use shoal_node::gnutella::transfer::{Download, Listener, SharedPart};
use shoal_node::reach::Overlay;
use shoal_node::{AddTorrent, Event, Session, TorrentKey, TorrentStats, What};

use crate::cli::FetchArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::gnutella::{Entrance, fetch_file};
use crate::overlay::OnOverlay;
use crate::patience::Patience;
use crate::report::Report;
use crate::selection;
use crate::signals::Interrupt;
use crate::source::{self, Source};
use crate::transfer::{self, TICK};
use crate::ui::{Step, Ui};
use crate::units::{Rate, Size, Span, count};
use crate::{find, gnutella, make, napster, state, updates};
use history::History;
use seek::Seeker;

/// How long peers have to send the metadata before the file is fetched by its own hash.
const METADATA_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn fetch(args: &FetchArgs, ui: &Ui) -> Outcome<Exit> {
    let start = Instant::now();
    let base = state::base(args.net.state_dir.as_deref(), Path::new("."));
    let mut source = match find::lookup(&args.what, &base)? {
        Some(link) => Source::Magnet(Box::new(link)),
        None => source::resolve(&args.what)?,
    };
    let dir = folder(&args.dir)?;
    let interrupt = Interrupt::install()?;
    if let Source::Magnet(magnet) = &mut source {
        updates::resolve(magnet, &args.net, args.timeout, &interrupt, ui)?;
    }
    let (net, own) = (&args.net, args.net.state_dir.as_deref());
    let station = OnOverlay::hoped(&net.join, net.listen.ip(), own, &interrupt, ui);
    let overlay = station.as_ref().map(|s| s.overlay.clone());
    if let Source::Magnet(magnet) = &source
        && magnet.swarm_hash().is_none()
    {
        return file::fetch(magnet, args, overlay, &interrupt, ui);
    }
    let mut peers = transfer::peers(&args.net.peers)?;
    let specs;
    let (mut seeker, mut fallback, mut urn) = (None, None, None);
    let (info_hash, info, only, what) = match source {
        Source::Metainfo(m) => {
            specs = sources::known(&args.sources, None, ui);
            let info = Some(m.info.clone());
            (m.info.info_hash(), info, None, What::Metainfo(m))
        }
        Source::Magnet(m) => {
            // A name in the link that is not known here is no reason to fail.
            peers.extend(
                m.peers
                    .iter()
                    .filter_map(|p| p.to_socket_addrs().ok())
                    .flatten(),
            );
            specs = sources::specs(&m, &args.sources, ui);
            seeker = Seeker::start(&m, args, overlay.clone());
            urn = m.urn();
            if m.urn().is_some() && !(specs.is_empty() && m.web_seeds.is_empty()) {
                // Not before it is seen that nobody has the metadata.
                fallback = Some(m.clone());
            }
            let only = m.select_only.clone();
            (magnet_hash(&m)?, None, only, What::Magnet(m))
        }
    };
    let mut add = AddTorrent::new(what, dir.clone());
    add.peers = peers;
    add.trackers = make::tiers(&args.trackers);
    add.web_seeds = args.web_seeds.clone();
    add.sources = specs;
    let door = urn
        .and_then(|urn| urn.sha1())
        .map(|sha1| share_part(sha1, args, ui));
    let door = door.transpose()?;
    add.shared_part = door.as_ref().map(|(part, _)| part.clone());
    add.sequential = args.sequential;
    add.preallocate = args.preallocate;
    match &info {
        Some(info) => add.wanted_files = wanted(args, only.as_ref(), info)?,
        None => add.hold = !args.select.is_empty() || only.is_some() || fallback.is_some(),
    }

    let base = state::base(args.net.state_dir.as_deref(), &dir);
    let state_dir = state::folder(&base, [(info_hash, dir.as_path())]);
    let login = Some(napster::client::login_as(
        &args.who,
        0,
        &mut napster::client::rng(),
    )?);
    let session = transfer::start(&args.net, login, &state_dir, station.as_ref(), ui)?;
    let held = add.hold;
    let key = transfer::add(&session, add)?;
    let mut fetch = Fetch {
        args,
        ui,
        session: &session,
        overlay,
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
        seeker,
        fallback,
        urn,
        waiting: VecDeque::new(),
        history: History::new(&base),
        forwarded: None,
    };
    if let Some(info) = info {
        fetch.learn(info)?;
    }
    let outcome = fetch.run(&interrupt);
    fetch.history.keep(ui);
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

/// Serves what is there of a torrent's one file to Gnutella's users, for as long as the listener is kept.
fn share_part(sha1: [u8; 20], args: &FetchArgs, ui: &Ui) -> Outcome<(SharedPart, Listener)> {
    // The peers' port is in use.
    let addr = (args.net.listen.ip(), 0).into();
    let (listener, file) = gnutella::serve_part(addr, ui)?;
    let at = Some(listener.addr()).filter(|at| !at.ip().is_unspecified());
    Ok((SharedPart { file, sha1, at }, listener))
}

/// The name of a file by its SHA-1, or by the root of its Tiger tree if `by` says that alone.
fn name_of(path: &Path, by: &Urn) -> io::Result<Urn> {
    let (mut file, mut buf) = (fs::File::open(path)?, vec![0; 64 << 10]);
    let mut read = |each: &mut dyn FnMut(&[u8])| {
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                return io::Result::Ok(());
            }
            each(buf.get(..n).unwrap_or_default());
        }
    };
    match by {
        Urn::Tiger(_) => {
            let mut builder = TreeBuilder::new();
            read(&mut |bytes| builder.update(bytes))?;
            Ok(Urn::Tiger(builder.finish().root()))
        }
        Urn::Sha1(_) | Urn::Bitprint(..) => {
            let mut hasher = Sha1::new();
            read(&mut |bytes| hasher.update(bytes))?;
            Ok(Urn::Sha1(hasher.finalize().into()))
        }
    }
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
    overlay: Option<Overlay>,
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
    /// Looks for more sources.
    seeker: Option<Seeker>,
    /// The link, if it names the file by its own hash and others than peers: what to do when nobody
    /// sends the metadata.
    fallback: Option<Box<Magnet>>,
    /// The file's own hash, if the link names it beside the torrent's.
    urn: Option<Urn>,
    /// Events that came while something else was waited for.
    waiting: VecDeque<Event>,
    /// What the sources did, for later searches.
    history: History,
    /// Where the router lets peers through to us, as it was told.
    forwarded: Option<SocketAddr>,
}

impl Fetch<'_> {
    fn run(&mut self, interrupt: &Interrupt) -> Outcome<Exit> {
        loop {
            while let Some(event) = self.waiting.pop_front() {
                self.on_event(event)?;
            }
            if let Some(found) = self.seeker.as_ref().map(|seeker| seeker.take(self.ui))
                && !found.is_empty()
            {
                transfer::add_sources(self.session, self.key, found)?;
            }
            if self.info.is_none()
                && self.start.elapsed() >= METADATA_PATIENCE
                && let Some(magnet) = self.fallback.take()
                && let Some(exit) = self.without_metadata(&magnet, interrupt)?
            {
                return Ok(exit);
            }
            select! {
                recv(self.session.events()) -> event => match event {
                    Ok(event) => self.on_event(event)?,
                    Err(_) => return Err(Failure::failed("the node stopped by itself")),
                },
                recv(interrupt.woken()) -> _ => {}
                default(TICK) => {}
            }
            transfer::tell_router(self.session, &mut self.forwarded, self.ui);
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

    /// Fetches the file by its own hash until the metadata comes; none: it came, or nobody has the
    /// file. What was fetched so far is taken up by the torrent.
    fn without_metadata(
        &mut self,
        magnet: &Magnet,
        interrupt: &Interrupt,
    ) -> Outcome<Option<Exit>> {
        self.ui.status(
            "Fetching",
            "by the file's own hash until a peer sends the metadata",
        );
        let (session, ui, waiting) = (self.session, self.ui, &mut self.waiting);
        let seeker = self.seeker.as_ref();
        let mut target = file::target(magnet, self.args, seeker.is_some(), self.ui)?;
        // The peers' port is in use.
        target.overlay = self.overlay.clone();
        target.entrance = Some(Entrance::At((self.args.net.listen.ip(), 0).into()));
        let (urn, dir) = (target.urn, self.dir.clone());
        let mut look = |download: &Download| {
            file::take(seeker, download, ui);
            waiting.extend(session.events().try_iter());
            waiting
                .iter()
                .any(|event| matches!(event, Event::Metadata { .. }))
        };
        match fetch_file(target, interrupt, &mut look, self.ui) {
            Ok(Some(exit)) => return Ok(Some(exit)),
            Ok(None) => {}
            Err(failure) if failure.exit == Exit::Unreachable || failure.exit == Exit::NotFound => {
                self.ui
                    .warn(&format!("{}; still looking for peers", failure.what));
            }
            Err(failure) => return Err(failure),
        }
        let came = self.waiting.iter().find_map(|event| match event {
            Event::Metadata { info, .. } => Some(info.name.clone()),
            _ => None,
        });
        if let Some(name) = came {
            self.take_over(&name, magnet, &urn, &dir);
        }
        Ok(None)
    }

    /// What was fetched by the file's own hash gets the torrent's name, and is checked by its pieces.
    fn take_over(&self, name: &str, magnet: &Magnet, urn: &Urn, dir: &Path) {
        let base = state::base(self.args.net.state_dir.as_deref(), dir);
        state::forget(&state::folder(&base, [(InfoHash(urn.key()), dir)]));
        if let Some(old) = magnet.name.as_deref().filter(|old| *old != name) {
            let (old, new) = (dir.join(old), dir.join(name));
            if old.is_file()
                && !new.exists()
                && let Err(error) = fs::rename(&old, &new)
            {
                self.ui
                    .warn(&format!("{} is fetched anew: {error}", old.display()));
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
            Event::Pushing { sharer, back } => {
                if let Some(seeker) = &self.seeker {
                    seeker.push(sharer, back);
                }
            }
            Event::Source {
                source, sort, news, ..
            } => self.history.note(sort, &source, &news),
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
            Event::Complete { .. } => self.on_complete()?,
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

    fn on_complete(&mut self) -> Outcome {
        if std::mem::replace(&mut self.complete, true) {
            return Ok(());
        }
        self.ui.finish_step();
        self.prove()?;
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
        Ok(())
    }

    /// Whether the file that the torrent brought is the one that the link names by its own hash: who
    /// made the link may have put two contents into it.
    fn prove(&self) -> Outcome {
        let files = self.info.as_ref().map(|info| info.layout.files());
        let (Some(urn), Some([_])) = (self.urn, files) else {
            return Ok(());
        };
        let path = self.path();
        let found = name_of(&path, &urn).map_err(|e| Failure::io("read", &path, &e))?;
        if found.agrees(&urn) {
            return Ok(());
        }
        let named = urn.shortest();
        Err(
            Failure::failed("what the torrent brought is not the file that the link names")
                .reason(format!("it is {found}, and not {named}"))
                .hint(format!("{} is kept", path.display())),
        )
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
