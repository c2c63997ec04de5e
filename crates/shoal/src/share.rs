//! `shoal share`: makes torrents of files where they lie, and serves them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use crossbeam_channel::{never, select};
use shoal_content::Magnet;
use shoal_node::{AddTorrent, Event, Session, TorrentKey, TorrentStats, What};

use crate::cli::ShareArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::make::{self, Made};
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::signals::Interrupt;
use crate::transfer::{self, TICK};
use crate::ui::Ui;
use crate::units::{Size, count};
use crate::updates::Publishing;
use crate::{library, selection, state};

/// Runs the command.
pub(crate) fn share(args: &ShareArgs, ui: &Ui) -> Outcome<Exit> {
    share_until(args, &Interrupt::install()?, ui)
}

/// Shares until the user asks to stop.
pub(crate) fn share_until(args: &ShareArgs, interrupt: &Interrupt, ui: &Ui) -> Outcome<Exit> {
    if args.paths.len() > 1 && args.make.name.is_some() {
        return Err(Failure::usage("--name fits one PATH only")
            .reason("each PATH becomes a torrent of its own"));
    }
    if args.paths.len() > 1 && args.update_key.is_some() {
        return Err(Failure::usage("--update-key fits one PATH only")
            .reason("the key names one torrent as the newest version")
            .hint("to keep several up to date, share each with an --update-salt of its own"));
    }
    let signer = args.update_key.as_deref();
    let signer = signer.map(key::load_or_make).transpose()?;
    let peers = transfer::peers(&args.net.peers)?;
    // All are scanned before the first is hashed, so that a wrong path shows at once.
    let plans = args
        .paths
        .iter()
        .map(|path| make::plan(path, &args.make, ui))
        .collect::<Outcome<Vec<_>>>()?;
    let library = library::dir(args.net.state_dir.as_deref());
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for plan in plans {
        let made = plan.make(Some(&library), interrupt, ui)?;
        if seen.insert(made.metainfo.info.info_hash()) {
            all.push(made);
        } else {
            ui.warn(&format!(
                "{} is the same content as another PATH",
                made.path.display()
            ));
        }
    }
    write_torrents(args, &all, ui)?;

    let first = all.first().map_or(Path::new("/"), |made| &made.dir);
    let base = state::base(args.net.state_dir.as_deref(), first);
    let ids = all
        .iter()
        .map(|m| (m.metainfo.info.info_hash(), m.dir.as_path()));
    let state_dir = state::folder(&base, ids);
    let net = &args.net;
    let base = net.state_dir.as_deref();
    let station = OnOverlay::hoped(&net.join, net.listen.ip(), base, interrupt, ui);
    let session = transfer::start(net, None, &state_dir, station.as_ref(), ui)?;
    let first_hash = all.first().map(|made| made.metainfo.info.info_hash());
    let mut shared = Vec::new();
    for made in all {
        shared.push(Shared::start(&session, &made, &peers, ui)?);
    }
    how_to_find(args, &session, ui);
    let mut publishing = None;
    if let (Some(signer), Some(hash)) = (signer, first_hash) {
        let salt = &args.update_salt;
        publishing = Some(Publishing::start(
            signer, salt, hash, &args.net, interrupt, ui,
        )?);
    }
    let exit = serve(&session, &mut shared, &mut publishing, interrupt, ui);
    ui.finish_step();
    if let Some(publishing) = publishing {
        publishing.stop();
    }
    session.stop();
    state::forget(&state_dir);
    exit
}

fn write_torrents(args: &ShareArgs, all: &[Made], ui: &Ui) -> Outcome {
    let Some(out) = &args.torrent_out else {
        return Ok(());
    };
    let into_folder = all.len() > 1 || out.is_dir();
    if into_folder && !out.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", out.display()))
            .reason("several PATHs make several .torrent files")
            .hint("make the folder, or share the PATHs one by one"));
    }
    for made in all {
        let path = if into_folder {
            out.join(format!("{}.torrent", made.metainfo.info.name))
        } else {
            out.clone()
        };
        make::write(&path, &made.metainfo.to_bytes())?;
        let path = path.to_string_lossy();
        ui.report(&Report::Written { path: &path });
        ui.status("Wrote", &path);
    }
    Ok(())
}

/// Warns if the links name nobody who could be asked.
fn how_to_find(args: &ShareArgs, session: &Session, ui: &Ui) {
    let addressed = session.local_addr().is_some_and(usable) || session.overlay_addr().is_some();
    if !args.make.trackers.is_empty() || addressed {
        return;
    }
    let port = session.local_addr().map_or(0, |addr| addr.port());
    if args.net.no_lsd || args.make.private {
        ui.warn("the link names no tracker and no address: nobody can find this by itself");
    } else {
        ui.warn("the link names no tracker and no address: only the local network finds this");
    }
    ui.hint(&format!(
        "share with --tracker URL, or fetch with --peer THIS-MACHINE:{port}"
    ));
}

/// Whether others can connect to `addr` as it is written.
fn usable(addr: SocketAddr) -> bool {
    !addr.ip().is_unspecified()
}

/// One torrent that is served.
struct Shared {
    key: TorrentKey,
    info_hash: String,
    name: String,
    told: Option<TorrentStats>,
}

impl Shared {
    fn start(session: &Session, made: &Made, peers: &[SocketAddr], ui: &Ui) -> Outcome<Self> {
        let magnet = link(made, [session.local_addr(), session.overlay_addr()]);
        let mut metainfo = made.metainfo.clone();
        // The names of this disk, whatever the torrent is called.
        metainfo.info.layout = made.layout.clone();
        let mut add = AddTorrent::new(What::Metainfo(Box::new(metainfo)), made.dir.clone());
        add.peers = peers.to_vec();
        add.assume_complete = true;
        let key = transfer::add(session, add)?;

        let info = &made.metainfo.info;
        let files = selection::shown_files(&info.layout).count();
        ui.status(
            "Sharing",
            &format!(
                "{} ({}, {}) until ctrl-C",
                made.path.display(),
                Size(info.layout.stored_len()),
                count(files as u64, "file")
            ),
        );
        make::magnet_event(made, &magnet, ui);
        ui.result(&magnet.to_string());
        Ok(Self {
            key,
            info_hash: info.info_hash().to_string(),
            name: info.name.clone(),
            told: None,
        })
    }

    /// Tells how it stands, if that changed.
    fn report(&mut self, stats: &TorrentStats, ui: &Ui) {
        let same = self.told.as_ref().is_some_and(|old| {
            (old.uploaded, old.peers, old.rate_up) == (stats.uploaded, stats.peers, stats.rate_up)
        });
        if !same {
            transfer::report_progress(ui, &self.info_hash, stats);
            self.told = Some(stats.clone());
        }
    }
}

/// The link to hand on: with our addresses, as far as they are some.
fn link(made: &Made, addrs: [Option<SocketAddr>; 2]) -> Magnet {
    let mut magnet = made.metainfo.magnet();
    let usable = addrs.into_iter().flatten().filter(|a| usable(*a));
    magnet.peers.extend(usable.map(|a| a.to_string()));
    magnet
}

fn serve(
    session: &Session,
    shared: &mut [Shared],
    publishing: &mut Option<Publishing>,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<Exit> {
    let answers = publishing.as_ref().map_or_else(never, Publishing::answers);
    let mut forwarded = None;
    loop {
        select! {
            recv(session.events()) -> event => match event {
                Ok(event) => on_event(&event, shared, ui)?,
                Err(_) => return Err(Failure::failed("the node stopped by itself")),
            },
            recv(answers) -> answer => if let (Ok((ticket, answer)), Some(it)) = (answer, &mut *publishing) {
                it.heard(ticket, answer, ui);
            },
            recv(interrupt.woken()) -> _ => {}
            default(TICK) => {}
        }
        transfer::tell_router(session, &mut forwarded, ui);
        if let Some(publishing) = publishing {
            publishing.tick();
        }
        if interrupt.asked() || ui.stdout_closed() {
            let all = totals(session, shared);
            ui.finish_step();
            ui.status("Stopped", &transfer::seeded(&all));
            return Ok(if interrupt.asked() {
                Exit::Interrupted
            } else {
                Exit::Ok
            });
        }
        if ui.tick_due() {
            for one in shared.iter_mut() {
                if let Some(stats) = session.stats(one.key) {
                    one.report(&stats, ui);
                }
            }
            ui.line("Sharing", &transfer::seeding(&totals(session, shared)));
            ui.ticked();
        }
    }
}

fn on_event(event: &Event, shared: &[Shared], ui: &Ui) -> Outcome {
    let Some(one) = shared
        .iter()
        .find(|s| Some(s.key) == transfer::key_of(event))
    else {
        return Ok(());
    };
    transfer::tell(ui, &one.info_hash, event);
    match event {
        Event::Failed { error, .. } => {
            Err(Failure::failed(format!("cannot go on sharing {}", one.name)).reason(error))
        }
        _ => Ok(()),
    }
}

/// The sums over all that is shared.
fn totals(session: &Session, shared: &[Shared]) -> TorrentStats {
    let mut sum = TorrentStats::default();
    for stats in shared.iter().filter_map(|s| session.stats(s.key)) {
        sum.peers += stats.peers;
        sum.uploaded += stats.uploaded;
        sum.rate_up += stats.rate_up;
    }
    sum
}
