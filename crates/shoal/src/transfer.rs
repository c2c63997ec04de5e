//! What `share` and `fetch` have in common: a node, and telling how its torrents stand.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use shoal_napster::client::Login;
use shoal_node::dht::DhtError;
use shoal_node::{
    AddTorrent, DhtSettings, Event, NodeError, RingSettings, Session, SessionConfig, SourceSpec,
    TorrentKey, TorrentStats,
};

use crate::cli::NetArgs;
use crate::dht;
use crate::failure::{Exit, Failure, Outcome};
use crate::fetch::sources;
use crate::overlay::OnOverlay;
use crate::report::Report;
use crate::ui::Ui;
use crate::units::{Rate, Size, Span, count, eta_s};

/// How often a waiting command looks at its torrents.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Starts a node with its state in `state_dir`, and says where it listens. `hub_login`: who we are at
/// Napster's hubs; `station`: our place on the overlay.
pub(crate) fn start(
    net: &NetArgs,
    hub_login: Option<Login>,
    state_dir: &Path,
    station: Option<&OnOverlay>,
    ui: &Ui,
) -> Outcome<Session> {
    let limit = |rate: Option<u64>| rate.filter(|r| *r > 0);
    let config = SessionConfig {
        listen: Some(net.listen),
        up_limit: limit(net.up_limit),
        down_limit: limit(net.down_limit),
        max_peers: net.max_peers as usize,
        lsd: !net.no_lsd,
        dht: (!net.no_dht).then(|| DhtSettings {
            bootstrap: dht::bootstrap(&net.dht_bootstrap, net.listen),
            // Beside the folders of all transfers: what one learns serves the next.
            contacts: Some(state_dir.with_file_name("dht-contacts")),
        }),
        ring: ring(net, station, state_dir)?,
        state_dir: state_dir.to_owned(),
        hub_login,
        port_mapping: !net.join.no_port_mapping,
        overlay: station.map(|s| s.overlay.clone()),
        ..SessionConfig::default()
    };
    let session = Session::start(config).map_err(|e| node_failure(&e, state_dir))?;
    if let Some(addr) = session.local_addr() {
        ui.report(&Report::Listening { addr, proto: "tcp" });
    }
    if let Some(addr) = session.overlay_addr() {
        let proto = "overlay";
        ui.report(&Report::Listening { addr, proto });
    }
    if let Some(addr) = session.ring_addr() {
        let proto = "ring";
        ui.report(&Report::Listening { addr, proto });
        if net.ring.members.is_empty() {
            ui.hint(&format!(
                "others join this ring with --ring {}",
                shown(addr)
            ));
        }
    }
    Ok(session)
}

/// Tells, once, where the router lets peers through to us.
pub(crate) fn tell_router(session: &Session, told: &mut Option<SocketAddr>, ui: &Ui) {
    let Some(mapping) = session.forwarded() else {
        return;
    };
    let addr = SocketAddr::from(mapping.external);
    if told.replace(addr) != Some(addr) {
        let proto = "router";
        ui.report(&Report::Listening { addr, proto });
        let by = mapping.by;
        ui.status("Router", &format!("lets peers through at {addr}, by {by}"));
    }
}

/// An address as others may use it.
fn shown(addr: SocketAddr) -> String {
    match addr.ip().is_unspecified() {
        true => format!("THIS-MACHINE:{}", addr.port()),
        false => addr.to_string(),
    }
}

/// The ring to take part in, if there is one.
fn ring(
    net: &NetArgs,
    station: Option<&OnOverlay>,
    state_dir: &Path,
) -> Outcome<Option<RingSettings>> {
    let flags = &net.ring;
    if flags.members.is_empty() && flags.ring_listen.is_none() && !flags.ring_overlay {
        return Ok(None);
    }
    let by_overlay = flags.ring_overlay || dht::on_overlay(&flags.members);
    if by_overlay && station.is_none() {
        return Err(Failure::usage("a ring on the overlay needs a place there")
            .hint("name the login server with --login HOST:PORT"));
    }
    Ok(Some(RingSettings {
        bootstrap: flags.members.clone(),
        // Where nothing else is said, beside the listener at a port of its own.
        listen: flags.ring_listen.unwrap_or((net.listen.ip(), 0).into()),
        any_port: false,
        overlay: by_overlay,
        contacts: Some(state_dir.with_file_name("ring-contacts")),
        ring: dht::ring(&flags.which)?,
    }))
}

/// A node that does not start.
fn node_failure(error: &NodeError, state_dir: &Path) -> Failure {
    let failure = Failure::failed("cannot start").because(error);
    match error {
        NodeError::Listen { source, .. } => bind_hint(failure, source),
        NodeError::Dht(DhtError::Bind { source, .. }) => bind_hint(failure, source),
        NodeError::Resume(_) => failure.hint(format!(
            "if the same transfer runs already, wait for it or stop it; its state is in {}",
            state_dir.display()
        )),
        _ => failure,
    }
}

/// What to do about an address that cannot be listened on.
pub(crate) fn bind_hint(failure: Failure, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            failure.hint("another program listens there; take another port, or 0 for any")
        }
        io::ErrorKind::AddrNotAvailable => {
            failure.hint("this machine has no such address; 0.0.0.0 means all it has")
        }
        io::ErrorKind::PermissionDenied => {
            failure.hint("ports below 1024 need privileges; take a higher one")
        }
        _ => failure,
    }
}

/// The addresses of peers given as `ADDRESS:PORT` or `HOST:PORT`.
pub(crate) fn peers(given: &[String]) -> Outcome<Vec<SocketAddr>> {
    let mut addrs = Vec::new();
    for peer in given {
        match peer.parse() {
            Ok(addr) => addrs.push(addr),
            Err(_) => {
                let found = peer.to_socket_addrs().map_err(|e| {
                    let exit = match e.kind() {
                        io::ErrorKind::InvalidInput => Exit::Usage,
                        _ => Exit::Unreachable,
                    };
                    Failure::new(exit, format!("cannot find the peer {peer}"))
                        .because(&e)
                        .hint("write it as ADDRESS:PORT or HOST:PORT")
                })?;
                addrs.extend(found);
            }
        }
    }
    Ok(addrs)
}

/// Hands a torrent to the node.
pub(crate) fn add(session: &Session, add: AddTorrent) -> Outcome<TorrentKey> {
    session
        .add(add)
        .map_err(|e| Failure::failed("cannot start the transfer").because(&e))
}

/// Tells the node of more who have a torrent's file.
pub(crate) fn add_sources(session: &Session, key: TorrentKey, specs: Vec<SourceSpec>) -> Outcome {
    session
        .add_sources(key, specs)
        .map_err(|e| Failure::failed("cannot add sources").because(&e))
}

/// Says which files are wanted of a torrent whose metadata just came; none: all.
pub(crate) fn select(session: &Session, key: TorrentKey, wanted: Option<Vec<usize>>) -> Outcome {
    session
        .select(key, wanted)
        .map_err(|e| Failure::failed("cannot select files").because(&e))
}

/// What a seed says at its end.
pub(crate) fn seeded(stats: &TorrentStats) -> String {
    format!("{} sent in this run", Size(stats.uploaded))
}

/// What a seed's line says: peers, rate, bytes sent.
pub(crate) fn seeding(stats: &TorrentStats) -> String {
    let peers = match stats.peers {
        0 => "no peers".to_owned(),
        n => count(n as u64, "peer"),
    };
    format!(
        "{peers}, {} up, {} sent",
        Rate(stats.rate_up),
        Size(stats.uploaded)
    )
}

/// The facts beside a bar: rates, peers, time left.
pub(crate) fn detail(stats: &TorrentStats) -> String {
    let left = stats.bytes_wanted.saturating_sub(stats.bytes_wanted_done);
    let mut parts = Vec::new();
    if stats.rate_down > 0 {
        parts.push(Rate(stats.rate_down).to_string());
    }
    if let Some(eta) = eta_s(left, stats.rate_down) {
        parts.push(format!("{} left", Span::secs(eta)));
    }
    parts.push(match (sources::line(stats), stats.peers) {
        (Some(line), _) => line,
        (None, 0) => "no peers yet".to_owned(),
        (None, peers) => count(peers as u64, "peer"),
    });
    if stats.rate_up > 0 {
        parts.push(format!("up {}", Rate(stats.rate_up)));
    }
    parts.join(", ")
}

/// The JSON line of where a transfer stands.
pub(crate) fn report_progress(ui: &Ui, info_hash: &str, stats: &TorrentStats) {
    let left = stats.bytes_wanted.saturating_sub(stats.bytes_wanted_done);
    ui.report(&Report::Progress {
        info_hash_v1: info_hash,
        bytes_done: stats.bytes_wanted_done,
        bytes_total: stats.bytes_wanted,
        downloaded: stats.downloaded,
        uploaded: stats.uploaded,
        rate_down: stats.rate_down,
        rate_up: stats.rate_up,
        peers: stats.peers,
        seeds: stats.seeds,
        eta_s: eta_s(left, stats.rate_down),
        by_kind: sources::by_kind(stats),
    });
}

/// The torrent an event is about, if it is about one alone.
pub(crate) fn key_of(event: &Event) -> Option<TorrentKey> {
    Some(match event {
        Event::Pushing { .. } => return None,
        Event::Metadata { key, .. }
        | Event::Checking { key, .. }
        | Event::Started { key }
        | Event::Paused { key, .. }
        | Event::Resumed { key }
        | Event::Damaged { key, .. }
        | Event::Complete { key }
        | Event::PeerBanned { key, .. }
        | Event::Tracker { key, .. }
        | Event::DhtPeers { key, .. }
        | Event::PeerConnected { key, .. }
        | Event::Source { key, .. }
        | Event::Failed { key, .. } => *key,
    })
}

/// Tells the events that mean the same in `share` and `fetch`.
pub(crate) fn tell(ui: &Ui, info_hash: &str, event: &Event) {
    match event {
        Event::Paused { reason, .. } => {
            ui.report(&Report::Paused {
                info_hash_v1: info_hash,
                reason,
            });
            ui.status("Paused", &format!("{reason}; goes on by itself"));
        }
        Event::Resumed { .. } => {
            ui.report(&Report::Resumed {
                info_hash_v1: info_hash,
            });
            ui.status("Resumed", "the reason is over");
        }
        Event::Damaged { reason, .. } => {
            ui.warn(&format!("{reason}; looking at what is left"));
        }
        Event::PeerBanned { addr, why, .. } => {
            ui.report(&Report::Banned {
                info_hash_v1: info_hash,
                addr: *addr,
                reason: why,
            });
            ui.status("Banned", &format!("{addr}: {why}"));
        }
        Event::Tracker { url, result, .. } => {
            ui.report(&Report::Tracker {
                info_hash_v1: info_hash,
                url,
                peers: result.as_ref().ok().copied(),
                error: result.as_ref().err().map(String::as_str),
            });
            match result {
                Ok(n) => ui.news("Tracker", &format!("{url}: {}", count(*n as u64, "peer"))),
                Err(e) => ui.news("Tracker", &format!("{url}: {e}")),
            }
        }
        Event::DhtPeers { peers, ring, .. } => {
            ui.report(&Report::DhtPeers {
                info_hash_v1: info_hash,
                peers: *peers,
                via: if *ring { "ring" } else { "mainline" },
            });
            let from = if *ring { "Ring" } else { "DHT" };
            ui.news(from, &count(*peers as u64, "peer"));
        }
        Event::PeerConnected { addr, .. } => {
            ui.report(&Report::PeerConnected {
                info_hash_v1: info_hash,
                addr: *addr,
            });
            ui.news("Connected", &addr.to_string());
        }
        Event::Source {
            source, sort, news, ..
        } => sources::tell(ui, source, *sort, news),
        _ => {}
    }
}
