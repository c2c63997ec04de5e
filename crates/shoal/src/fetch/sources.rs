//! Who has what is fetched besides BitTorrent's peers, as the node is told.

use std::net::SocketAddr;

use shoal_content::{FileSource, Magnet};
use shoal_gnutella::Guid;
use shoal_gnutella::http::locations::PushLocation;
use shoal_node::gnutella::transfer::DownloadStats;
use shoal_node::reach::overlay_of;
use shoal_node::{SourceCount, SourceNews, SourceSort, SourceSpec, TorrentStats};

use crate::failure::Outcome;
use crate::napster;
use crate::report::{FileReport, SourceReport};
use crate::ui::Ui;
use crate::units::{Rate, count};

/// The sources of a link, and those named besides it.
pub(super) fn specs(magnet: &Magnet, more: &[FileSource], ui: &Ui) -> Vec<SourceSpec> {
    let mut specs = known(&magnet.sources, magnet.len, ui);
    specs.extend(known(more, magnet.len, ui));
    specs
}

/// Those who have a file of so many bytes, if that is known. Names that are not known here are
/// passed over, with a warning.
pub(super) fn known(sources: &[FileSource], len: Option<u64>, ui: &Ui) -> Vec<SourceSpec> {
    let all = sources.iter();
    all.filter_map(|source| match spec(source, len) {
        Ok(spec) => Some(spec),
        Err(failure) => {
            ui.warn(&format!(
                "{source} cannot be used: {}",
                failure.because.join(": ")
            ));
            None
        }
    })
    .collect()
}

/// The address of a Gnutella host: of IPv4, or of the overlay.
pub(crate) fn gnutella_host(text: &str) -> Outcome<SocketAddr> {
    match text.parse() {
        Ok(addr) if overlay_of(addr).is_some() => Ok(addr),
        _ => napster::resolve(text),
    }
}

fn spec(source: &FileSource, len: Option<u64>) -> Outcome<SourceSpec> {
    Ok(match source {
        FileSource::Gnutella { host, urn } => SourceSpec::Gnutella {
            addr: gnutella_host(host)?,
            urn: *urn,
            len,
        },
        FileSource::Pushed {
            servent,
            proxies,
            urn,
        } => SourceSpec::Pushed {
            sharer: PushLocation {
                guid: Guid(*servent),
                proxies: proxies
                    .iter()
                    .filter_map(|p| napster::resolve(p).ok())
                    .collect(),
            },
            urn: *urn,
            len,
        },
        FileSource::Napster { hub, nick, path } => SourceSpec::Napster {
            hub: napster::resolve(hub)?,
            nick: nick.clone(),
            path: path.clone(),
            len,
        },
    })
}

/// Tells what happened to a source.
pub(crate) fn tell(ui: &Ui, source: &str, sort: SourceSort, news: &SourceNews) {
    let kind = sort.name();
    let mut rate_down = None;
    let (state, reason, retry_s) = match news {
        SourceNews::Known => ("known", None, None),
        SourceNews::Queued { retry_s, .. } => ("queued", None, Some(*retry_s)),
        SourceNews::Failed { why, for_good } => {
            let state = if *for_good { "lost" } else { "failed" };
            (state, Some(why.as_str()), None)
        }
        SourceNews::Banned => ("banned", Some("it sent wrong bytes"), None),
        SourceNews::Gave { rate } => {
            rate_down = Some(*rate);
            ("gave", None, None)
        }
    };
    let position = match news {
        SourceNews::Queued { position, .. } => *position,
        _ => None,
    };
    ui.report(&FileReport::Source {
        source,
        kind,
        state,
        reason,
        position,
        retry_s,
        rate_down,
    });
    match news {
        SourceNews::Known => ui.news("Found", &format!("{source} ({kind})")),
        SourceNews::Queued { retry_s, .. } => {
            let place = position.map_or_else(String::new, |p| format!(" at place {p}"));
            ui.news(
                "Queued",
                &format!("by {source} ({kind}){place}, again in {retry_s} s"),
            );
        }
        SourceNews::Gave { rate } => {
            ui.news("Gave", &format!("{source} ({kind}): {}", Rate(*rate)));
        }
        SourceNews::Failed { why, .. } => ui.news("Lost", &format!("{source} ({kind}): {why}")),
        SourceNews::Banned => ui.warn(&format!(
            "{source} ({kind}) sent wrong bytes and is asked no more"
        )),
    }
}

fn of(kind: &'static str, count: &SourceCount) -> SourceReport {
    SourceReport {
        kind,
        known: count.known,
        at_work: count.at_work,
        queued: count.queued,
        banned: count.lied,
        bytes: count.bytes,
        rate: count.rate,
    }
}

/// What each kind of source does; kinds of which there are none are left out.
pub(crate) fn by_kind(stats: &TorrentStats) -> Vec<SourceReport> {
    let peers = SourceReport {
        kind: "bittorrent",
        known: stats.peers + stats.candidates,
        at_work: stats.peers,
        queued: 0,
        banned: stats.banned,
        bytes: stats.peer_bytes,
        rate: stats.peer_rate,
    };
    let ranged = [
        (SourceSort::Web, &stats.web),
        (SourceSort::Gnutella, &stats.gnutella),
        (SourceSort::Napster, &stats.napster),
    ];
    let ranged = ranged.map(|(sort, count)| of(sort.name(), count));
    let all = std::iter::once(peers).chain(ranged);
    all.filter(|kind| kind.known > 0 || kind.bytes > 0)
        .collect()
}

/// The same of a file that is fetched by its own hash.
pub(crate) fn by_kind_of_file(stats: &DownloadStats) -> Vec<SourceReport> {
    let kinds = [
        (SourceSort::Web, &stats.web),
        (SourceSort::Gnutella, &stats.gnutella),
        (SourceSort::Napster, &stats.napster),
    ];
    let kinds = kinds.map(|(sort, count)| of(sort.name(), count));
    kinds.into_iter().filter(|kind| kind.known > 0).collect()
}

/// The kinds of sources beside a bar, if there are others than peers.
pub(crate) fn line(stats: &TorrentStats) -> Option<String> {
    shown(&by_kind(stats))
}

/// As [`line()`], of kinds that were counted.
pub(crate) fn shown(kinds: &[SourceReport]) -> Option<String> {
    if kinds.iter().all(|kind| kind.kind == "bittorrent") {
        return None;
    }
    let each = kinds.iter().map(|kind| {
        let n = count(kind.at_work as u64, noun(kind.kind));
        match kind.rate {
            0 => n,
            rate => format!("{n} {}", Rate(rate)),
        }
    });
    Some(each.collect::<Vec<_>>().join(", "))
}

fn noun(kind: &str) -> &'static str {
    match kind {
        "web" => "web seed",
        "gnutella" => "Gnutella host",
        "napster" => "Napster user",
        _ => "peer",
    }
}
