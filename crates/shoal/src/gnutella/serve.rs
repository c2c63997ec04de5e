//! `shoal gnutella serve`: files for Gnutella's users.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::select;
use shoal_base::Rng;
use shoal_gnutella::Guid;
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::http::server::ServerConfig;
use shoal_gnutella::huge::Urn;
use shoal_node::gnutella::transfer::{FileServer, LibraryFiles, Listener, Upload};
use shoal_store::library::{Audience, Library, LibraryError, ScanOptions};

use crate::cli::GnutellaServeArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::{Step, Ui};
use crate::units::{Size, count};
use crate::{napster, state};

/// How often the figures are looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) fn rng() -> Rng {
    let mut seed = [0; 8];
    // Without randomness of the system the names of places could be guessed: no more than that.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    Rng::from_seed(u64::from_le_bytes(seed))
}

fn library_failure(error: &LibraryError) -> Failure {
    let failure = Failure::failed("the library cannot be used").because(error);
    match error {
        LibraryError::Busy { .. } => {
            failure.hint("another shoal shares from it; give another --state-dir")
        }
        _ => failure,
    }
}

/// Opens the library of these folders, with every file hashed.
fn library(
    dirs: &[std::path::PathBuf],
    base: &Path,
    interrupt: &Interrupt,
    ui: &Ui,
) -> Outcome<LibraryFiles> {
    let fail = |e: LibraryError| library_failure(&e);
    // One of its own for these folders: what else is shared is not served here.
    let mut paths = Vec::new();
    for dir in dirs {
        let path = std::fs::canonicalize(dir).map_err(|e| Failure::io("share", dir, &e))?;
        paths.push(path);
    }
    let none = shoal_base::InfoHash([0; 20]);
    let place = state::folder(
        &base.join("served"),
        paths.iter().map(|p| (none, p.as_path())),
    );
    let mut library = Library::open(&place).map_err(fail)?;
    for path in &paths {
        library.add(path, Audience::Everyone, false).map_err(fail)?;
    }
    let report = library
        .scan(&[], &ScanOptions::default(), |progress| {
            if ui.tick_due() {
                ui.step(&Step {
                    verb: "Hashing",
                    done: progress.bytes_hashed,
                    total: progress.bytes_to_hash,
                    bytes: true,
                    detail: "",
                });
                ui.ticked();
            }
            !interrupt.asked()
        })
        .map_err(fail)?;
    ui.finish_step();
    for odd in &report.oddities {
        ui.warn(&format!("{} is left out: {}", odd.path.display(), odd.why));
    }
    LibraryFiles::new(library).map_err(fail)
}

/// Runs `gnutella serve`.
pub(crate) fn serve(args: &GnutellaServeArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let base = state::base(args.state_dir.as_deref(), Path::new("."));
    let files = library(&args.dirs, &base, &interrupt, ui)?;
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    files.each(|urn, bytes, name| {
        let urn = urn.to_string();
        ui.report(&Report::Serving {
            urn: &urn,
            name,
            bytes,
        });
    });
    let (number, bytes) = files.size();
    let mut config = ServerConfig::default();
    config.queue.slots = args.slots;
    config.queue.per_host = args.per_host;
    config.queue.poll = Duration::from_secs(args.poll);
    config.queue.poll_step = config.queue.poll * 2 / 3;
    config.max_range = args.max_range;
    // Who waits in the queue holds a connection too.
    config.max_per_host = config.max_per_host.max(args.per_host as usize * 4);
    let mut rng = rng();
    let guid = Guid::random(&mut rng);
    let tls = super::tls(args.no_tls)?;
    let failed = |e: std::io::Error| Failure::failed("cannot serve").because(&e);
    let (server, uploads) = FileServer::new(config, Arc::new(files), tls, rng).map_err(failed)?;
    server.set_limit(args.up_limit.filter(|rate| *rate > 0));
    let listener = Listener::open(args.listen, Some(server.clone())).map_err(|e| {
        Failure::failed(format!("cannot listen on {}", args.listen))
            .because(&e)
            .hint("give another address with --listen")
    })?;
    let addr = listener.addr();
    ui.report(&Report::Listening {
        addr,
        proto: "gnutella",
    });
    ui.result(&addr.to_string());
    let dir = args.state_dir.as_deref();
    let station = OnOverlay::hoped(&args.join, args.listen.ip(), dir, &interrupt, ui);
    let by_overlay = |station: &OnOverlay| {
        let server = server.clone();
        let take = move |stream: TcpStream, from| server.serve(stream, from, Vec::new());
        station.overlay.listen(addr.port(), take)
    };
    let served = station.as_ref().map(by_overlay).transpose();
    let _served = served.map_err(failed)?;
    super::tell_place(station.as_ref(), addr.port(), ui);
    for host in &args.give {
        let (index, name) = (0, String::new());
        server.give(napster::resolve(host)?, Opening::Giv { index, guid, name });
    }
    let what = count(number as u64, "file");
    ui.status("Serving", &format!("{what}, {}, until ctrl-C", Size(bytes)));
    let (mut sent, mut total) = (0, 0);
    while !interrupt.asked() && !ui.stdout_closed() {
        select! {
            recv(uploads) -> upload => if let Ok(upload) = upload {
                sent += 1;
                total += upload.bytes;
                tell(&upload, ui);
            },
            recv(interrupt.woken()) -> _ => {}
            default(LOOK) => {}
        }
        let (running, waiting) = server.figures();
        let waiting = count(waiting as u64, "downloader");
        ui.line(
            "Serving",
            &format!("{}, {waiting} waiting", count(running as u64, "upload")),
        );
    }
    ui.finish_step();
    server.stop();
    let sent = count(sent, "answer");
    ui.status("Stopped", &format!("after {sent} with {}", Size(total)));
    Ok(Exit::Interrupted)
}

pub(crate) fn tell(upload: &Upload, ui: &Ui) {
    let urn = Urn::Sha1(upload.sha1).to_string();
    ui.report(&Report::Sent {
        urn: &urn,
        to: upload.to,
        bytes: upload.bytes,
        whole: upload.whole,
    });
    let how = if upload.whole { "" } else { ", broken off" };
    ui.news(
        "Sent",
        &format!("{} of {urn} to {}{how}", Size(upload.bytes), upload.to),
    );
}
