//! OpenNap clients as children of a node: its hub.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use shoal_gnutella::huge::Urn;
use shoal_napster::hub::Config;
use shoal_node::gnutella::transfer::{NoFiles, Openable};
use shoal_node::supernode::{HubFront, HubFrontSettings, HubNews};
use shoal_supernode::wire::File;

use super::{Member, shown};
use crate::cli::SupernodeNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::gnutella;
use crate::report::OverlayReport;
use crate::ui::Ui;
use crate::units::Size;

/// Starts the hub. `own`: what the node itself shares.
pub(super) fn start(
    listen: SocketAddr,
    at: SocketAddr,
    args: &SupernodeNodeArgs,
    member: &Member,
    own: (Option<Arc<dyn Openable>>, Vec<File>),
    dir: &Path,
) -> Outcome<HubFront> {
    let IpAddr::V4(ip) = at.ip().to_canonical() else {
        return Err(Failure::usage(format!("--napster with the address {at}"))
            .reason("OpenNap clients know IPv4 only"));
    };
    let name = &member.token.name;
    let (files, told) = own;
    let started = HubFront::start(HubFrontSettings {
        listen,
        ip,
        bind: args.listen.ip(),
        hub: Config {
            name: name.clone().into_bytes(),
            motd: vec![format!("{name}: files of \"overlay\" are those of a whole network").into()],
            ..Config::default()
        },
        at,
        own: files.unwrap_or_else(|| Arc::new(NoFiles)),
        files: told,
        dir: dir.join("napster"),
        most: args.napster_keep,
        rng: gnutella::rng(),
    });
    started.map_err(|e| Failure::failed("cannot start the hub").because(&e))
}

/// Tells what happened there.
pub(super) fn tell(news: &HubNews, ui: &Ui) {
    match news {
        HubNews::Mirrored { nick, file } => {
            let (path, urn) = (shown(&file.path), Urn::Sha1(file.sha1).to_string());
            ui.report(&OverlayReport::Mirrored {
                nick,
                file: &path,
                bytes: file.size,
                urn: &urn,
            });
            ui.news(
                "Mirrored",
                &format!("{} of {nick}: {path}", Size(file.size)),
            );
        }
        HubNews::LeftOut { nick, path, why } => {
            let file = &shown(path);
            ui.report(&OverlayReport::LeftOut { nick, file, why });
            ui.news("Left out", &format!("{file} of {nick}: {why}"));
        }
        HubNews::Lent { nick, path } => {
            let file = &shown(path);
            ui.report(&OverlayReport::Lent { nick, file });
            ui.news("Lent", &format!("{file} to {nick}"));
        }
        HubNews::Lost(why) => ui.warn(&format!("the hub is apart from the overlay: {why}")),
    }
}
