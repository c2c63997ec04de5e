//! `shoal gnutella`: a node, and searches; files by their hash are in [`fetch`] and [`serve`].

mod fetch;
mod guest;
mod seek;
mod serve;
mod shelf;

pub(crate) use fetch::{Entrance, Target, fetch_file, serve_part};
pub(crate) use serve::{rng, tell as tell_upload};

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_gnutella::http::server::ServerConfig;
use shoal_gnutella::huge::Urn;
use shoal_gnutella::message::query::Wanted;
use shoal_gnutella::node::{Answer, Config, Load, Mode, Promotion, Stats};
use shoal_gnutella::shared::Shared;
use shoal_node::gnutella::transfer::{
    self as transfers, BrowseError, FileServer, HandOver, LibraryFiles, NoFiles, Openable,
};
use shoal_node::gnutella::{
    Control, GnutellaError, GnutellaServer, GnutellaSettings, Snapshot, Tls, WebCacheServer,
    WebCaches,
};
use shoal_node::outbound::Outbound;
use shoal_node::reach::{Overlay, overlay_of};

use crate::cli::{
    GnutellaBrowseArgs, GnutellaCommand, GnutellaFindArgs, GnutellaNodeArgs, LibraryPlace,
    OverlayFlags, WebCacheArgs,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::fetch::sources::gnutella_host;
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::{Size, count};
use crate::{library, napster, state, transfer};
pub(super) use guest::{Guest, ask};
pub(super) use shelf::{Shares, share_again, shared_library, shelf};

/// How often a node is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long further neighbours are waited for before the question is asked.
const GATHER: Duration = Duration::from_millis(300);

/// Runs `gnutella`.
pub(crate) fn gnutella(command: &GnutellaCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        GnutellaCommand::Node(args) => node(args, ui),
        GnutellaCommand::Find(args) => find(args, ui),
        GnutellaCommand::Fetch(args) => fetch::fetch(args, ui),
        GnutellaCommand::Serve(args) => serve::serve(args, ui),
        GnutellaCommand::Browse(args) => browse(args, ui),
    }
}

fn v4(addr: SocketAddr) -> Outcome<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Ok(addr),
        SocketAddr::V6(_) => Err(Failure::usage(format!(
            "{addr} is no IPv4 address: Gnutella's messages hold no other"
        ))),
    }
}

fn resolve(list: &[String]) -> Outcome<Vec<SocketAddrV4>> {
    list.iter()
        .map(|text| v4(napster::resolve(text)?))
        .collect()
}

/// Hosts to connect to, which may be on the overlay.
fn neighbours(list: &[String], on_overlay: bool) -> Outcome<Vec<SocketAddr>> {
    list.iter()
        .map(|text| reachable(gnutella_host(text)?, on_overlay))
        .collect()
}

/// An address that can be connected to.
fn reachable(addr: SocketAddr, on_overlay: bool) -> Outcome<SocketAddr> {
    match overlay_of(addr) {
        Some(_) if on_overlay => Ok(addr),
        Some(_) => Err(Failure::usage(format!(
            "{addr} is an overlay address, and this is not on the overlay"
        ))
        .hint("--login names the login server by which it is reached")),
        None => Ok(v4(addr)?.into()),
    }
}

fn tls(without: bool) -> Outcome<Option<Tls>> {
    if without {
        return Ok(None);
    }
    let made = Tls::new().map_err(|e| Failure::failed("cannot speak TLS").because(&e))?;
    Ok(Some(made))
}

/// Runs `serve gwebcache`.
pub(crate) fn gwebcache(args: &WebCacheArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let server = WebCacheServer::start(args.listen).map_err(|e| {
        transfer::bind_hint(Failure::failed("cannot start the cache").because(&e), &e)
    })?;
    let addr = server.addr();
    ui.report(&Report::Listening {
        addr,
        proto: "gwebcache",
    });
    ui.result(&format!("http://{addr}/"));
    ui.status("Serving", "a cache of hosts until ctrl-C");
    while !interrupt.asked() && !ui.stdout_closed() {
        // Nothing else happens here: the server's thread answers.
        let _ = interrupt.woken().recv_timeout(LOOK);
    }
    Ok(Exit::Interrupted)
}

/// Has the caches that the flags name asked whenever a node is alone.
fn caches(flags: &OverlayFlags, node: &Control, publish: bool) -> Outcome<Option<WebCaches>> {
    if flags.gwebcache.is_empty() {
        return Ok(None);
    }
    let started = WebCaches::start(flags.gwebcache.clone(), node.clone(), publish);
    let failed = |e: std::io::Error| Failure::failed("cannot ask caches").because(&e);
    started.map(Some).map_err(failed)
}

/// Settings of a node that listens here and keeps connections with these hosts.
pub(crate) fn settings_of(
    listen: SocketAddr,
    connect: &[String],
    node: Config,
    overlay: Option<Overlay>,
) -> Outcome<GnutellaSettings> {
    Ok(GnutellaSettings {
        listen: v4(listen)?,
        node,
        connect: neighbours(connect, overlay.is_some())?,
        overlay,
        caches: Vec::new(),
        hosts: None,
        incoming: None,
        tls: None,
        seed: None,
    })
}

fn settings(
    flags: &OverlayFlags,
    mut node: Config,
    overlay: Option<Overlay>,
) -> Outcome<GnutellaSettings> {
    node.listen = flags.external;
    node.firewalled = flags.firewalled;
    let caches = resolve(&flags.cache)?;
    Ok(GnutellaSettings {
        caches,
        tls: tls(flags.no_tls)?,
        ..settings_of(flags.listen, &flags.connect, node, overlay)?
    })
}

pub(crate) fn start(
    settings: GnutellaSettings,
    shared: Box<dyn Shared + Send>,
) -> Outcome<GnutellaServer> {
    GnutellaServer::start(settings, shared).map_err(|error| {
        let failure = Failure::failed("cannot start the node").because(&error);
        match &error {
            GnutellaError::Bind { source, .. } => transfer::bind_hint(failure, source),
            GnutellaError::Worker(_) => failure,
        }
    })
}

fn node(args: &GnutellaNodeArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let mode = match (args.ultrapeer, args.flood) {
        (true, _) => Mode::Ultrapeer,
        (_, true) => Mode::Flood,
        _ => Mode::Leaf,
    };
    let mut config = Config::of(mode);
    config.ultrapeers = args.max_ultrapeers.unwrap_or(config.ultrapeers);
    if mode == Mode::Ultrapeer {
        config.leaves = args.max_leaves;
    }
    config.promotion = args.auto.then(|| Promotion {
        uptime: Duration::from_secs(args.auto_after),
        ..Promotion::default()
    });
    config.deflate = !args.no_deflate;
    config.oob = !args.no_oob && mode != Mode::Flood;
    let dir = state::base(args.state_dir.as_deref(), Path::new(".")).join("gnutella");
    let (shelf, files) = match args.library {
        true => shared_library(args.state_dir.as_deref(), ui)?,
        false => shelf(&args.share, &dir, ui)?,
    };
    let speed = config.speed;
    let base = args.state_dir.as_deref();
    let listen = args.overlay.listen.ip();
    let station = OnOverlay::hoped(&args.join, listen, base, &interrupt, ui);
    let place = station.as_ref().map(|s| s.overlay.clone());
    let mut settings = settings(&args.overlay, config, place)?;
    // Without files too: downloaders come to have Pushes passed on to leaves.
    let failed = |e: std::io::Error| Failure::failed("cannot serve files").because(&e);
    let config = ServerConfig::default();
    let tls = settings.tls.clone();
    let served: Arc<dyn Openable> = match &files {
        Some(files) => Arc::<LibraryFiles>::clone(files),
        None => Arc::new(NoFiles),
    };
    let server = FileServer::new(config, served, tls, rng()).map_err(failed)?;
    let (uploader, uploads) = server;
    uploader.set_limit(args.up_limit.filter(|rate| *rate > 0));
    settings.incoming = Some(Box::new(HandOver::new(uploader.clone(), listen)));
    settings.hosts = Some(dir.join("hosts"));
    let server = start(settings, Box::new(shelf.clone()))?;
    let control = server.control().clone();
    uploader.set_proxy(control.clone());
    if let Some(files) = files.as_ref().filter(|_| !args.no_browse) {
        files.let_browse(control.clone(), speed);
    }
    let place = LibraryPlace {
        state_dir: args.state_dir.clone(),
    };
    let GnutellaNodeArgs { library: all, .. } = args;
    let follower = all.then(|| library::Follower::start(&place));
    let _caches = caches(&args.overlay, &control, mode == Mode::Ultrapeer)?;
    let addr = control.listen();
    ui.report(&Report::Listening {
        addr: addr.into(),
        proto: "gnutella",
    });
    ui.result(&addr.to_string());
    tell_place(station.as_ref(), addr.port(), ui);
    let what = match mode {
        Mode::Ultrapeer => "an ultrapeer",
        Mode::Leaf => "a leaf",
        Mode::Flood => "a node of 0.4",
    };
    ui.status("Running", &format!("{what} until ctrl-C"));
    let every = Duration::from_secs(args.stats_interval.max(1));
    let mut told = Instant::now();
    let mut load = Load::default();
    while !interrupt.asked() && !ui.stdout_closed() {
        match interrupt.woken().recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        for upload in uploads.try_iter() {
            serve::tell(&upload, ui);
        }
        if let (Some(follower), Some(files)) = (&follower, &files)
            && follower.has_changed(ui)
        {
            share_again(&place, &shelf, files, ui);
        }
        let now = uploader.load();
        if now != load {
            load = now;
            control.set_load(load);
        }
        let snapshot = control.snapshot();
        ui.line("Running", &line(&snapshot));
        if told.elapsed() >= every {
            told = Instant::now();
            report(&snapshot.stats, ui);
        }
    }
    ui.finish_step();
    report(&control.snapshot().stats, ui);
    server.stop();
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

/// Tells where the overlay reaches what listens at a port.
fn tell_place(station: Option<&OnOverlay>, port: u16, ui: &Ui) {
    if let Some(station) = station {
        let (addr, proto) = (station.overlay.at(port), "overlay");
        ui.report(&Report::Listening { addr, proto });
        ui.status("Overlay", &addr.to_string());
    }
}

fn line(snapshot: &Snapshot) -> String {
    let stats = &snapshot.stats;
    format!(
        "{}, {}, {} queries, {} hits, {} waiting to be sent",
        count(stats.ultrapeers as u64, "ultrapeer"),
        count(stats.leaves as u64, "leaf").replace("leafs", "leaves"),
        stats.queries,
        stats.hits,
        Size(snapshot.links.iter().map(|l| l.waiting as u64).sum()),
    )
}

fn report(s: &Stats, ui: &Ui) {
    ui.report(&Report::GnutellaStats {
        ultrapeers: s.ultrapeers,
        leaves: s.leaves,
        hosts: s.hosts,
        received: s.received,
        sent: s.sent,
        dropped: s.dropped,
        queries: s.queries,
        duplicates: s.duplicates,
        shielded: s.shielded,
        hits: s.hits,
        answered: s.answered,
        refused: s.malformed + s.unasked + s.liars + s.too_fast,
    });
}

/// Lists what a host shares.
fn browse(args: &GnutellaBrowseArgs, ui: &Ui) -> Outcome<Exit> {
    let host = gnutella_host(&args.host)?;
    let interrupt = Interrupt::install()?;
    let (base, own) = (args.state_dir.as_deref(), Ipv4Addr::UNSPECIFIED.into());
    let station = match overlay_of(host) {
        Some(_) => OnOverlay::wished(&args.join, own, base, &interrupt, ui)?,
        None => None,
    };
    if overlay_of(host).is_some() {
        reachable(host, station.is_some())?;
    }
    ui.status("Browsing", &host.to_string());
    let by = station.as_ref().map(|s| s.overlay.clone());
    let outbound = Outbound::default().and_overlay(by);
    let answers = transfers::browse(host, outbound).map_err(|error| {
        let exit = match error {
            BrowseError::Refused(_) => Exit::Refused,
            BrowseError::Http(_) => Exit::Unreachable,
            BrowseError::Nonsense => Exit::Failed,
        };
        Failure::new(exit, format!("cannot browse {host}")).because(&error)
    })?;
    let found = Cell::new(0);
    for answer in &answers {
        tell(answer, args.limit, &found, ui);
    }
    ui.status("Found", &count(found.get() as u64, "file"));
    Ok(Exit::Ok)
}

/// What the words ask for: contents, if they are names of such.
fn question(words: &[String]) -> Outcome<(String, Wanted)> {
    let is_urn = |word: &&String| word.to_ascii_lowercase().starts_with("urn:");
    let urns = words.iter().filter(is_urn).map(|word| {
        Urn::read(word.as_bytes())
            .ok_or_else(|| Failure::usage(format!("{word} is not the name of a content")))
    });
    let urns: Vec<Urn> = urns.collect::<Outcome<_>>()?;
    let text: Vec<&str> = words
        .iter()
        .filter(|w| !is_urn(w))
        .map(String::as_str)
        .collect();
    Ok((text.join(" "), Wanted { urns, media: 0 }))
}

fn find(args: &GnutellaFindArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let found = Cell::new(0);
    let go_on = || found.get() < args.limit && !interrupt.asked() && !ui.stdout_closed();
    ui.status("Asking", &args.words.join(" "));
    let wait = Duration::from_secs(args.wait);
    let (base, listen) = (args.state_dir.as_deref(), args.overlay.listen.ip());
    let station = OnOverlay::hoped(&args.join, listen, base, &interrupt, ui);
    let place = station.as_ref().map(|s| s.overlay.clone());
    ask(
        &args.overlay,
        place,
        &args.words,
        wait,
        &go_on,
        &mut |answer| {
            tell(answer, args.limit, &found, ui);
        },
    )?;
    if interrupt.asked() {
        return Ok(Exit::Interrupted);
    }
    if found.get() == 0 {
        let what = args.words.join(" ");
        return Err(Failure::not_found(format!("nobody shares \"{what}\"")));
    }
    Ok(Exit::Ok)
}

fn tell(answer: &Answer, limit: usize, found: &Cell<usize>, ui: &Ui) {
    let clean = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_control() { '_' } else { c })
            .collect()
    };
    let vendor = clean(&String::from_utf8_lossy(&answer.vendor).replace('\0', ""));
    let servent = answer.servent.to_string();
    for file in answer.files.iter().take(limit.saturating_sub(found.get())) {
        found.set(found.get() + 1);
        let n = found.get();
        let name = clean(&file.name);
        let urn = Urn::of(file.sha1, file.tiger).map(|urn| urn.to_string());
        ui.report(&Report::GnutellaHit {
            n,
            file: &name,
            bytes: file.size,
            urn: urn.as_deref(),
            addr: answer.addr,
            overlay: answer.overlay,
            servent: &servent,
            index: file.index,
            vendor: &vendor,
            speed: answer.speed,
            firewalled: answer.status.firewalled,
            busy: answer.status.busy,
            hops: answer.hops,
        });
        let size = Size(file.size).to_string();
        let sha1 = file.sha1.map(|s| Urn::Sha1(s).to_string());
        let place = answer
            .overlay
            .filter(|_| answer.status.firewalled == Some(true));
        ui.result(&format!(
            "{n:>3}  {size:>9}  {:>21}  {vendor:<4}  {name}  {}",
            place.map_or_else(|| answer.addr.to_string(), |place| place.to_string()),
            sha1.unwrap_or_default()
        ));
    }
}
