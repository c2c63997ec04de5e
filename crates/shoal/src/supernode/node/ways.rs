//! How others come to a node: by its address, by the overlay, through a Gnutella network.

use std::net::SocketAddr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use shoal_gnutella::http::locations::may_name;
use shoal_gnutella::node::{Config, Mode};
use shoal_node::gnutella::transfer::{Feeder, FileServer, HandOver};
use shoal_node::gnutella::{GnutellaServer, Incoming};
use shoal_node::reach::{Identity, Overlay, OverlaySettings, Service, address_of};
use shoal_node::supernode::{ChildrenShelf, NodeDriver};
use shoal_supernode::wire::{OVERLAY_FILES, OVERLAY_LINKS};

use crate::cli::SupernodeNodeArgs;
use crate::failure::{Failure, Outcome};
use crate::gnutella;
use crate::overlay::beside;
use crate::report::Report;
use crate::supernode::Member;
use crate::ui::Ui;

/// Whether a router stands between this machine and the others: its address reaches less far than that
/// of the list of supernodes.
pub(super) fn is_behind(member: &Member, args: &SupernodeNodeArgs) -> bool {
    let given = args.supernode || args.external.is_some();
    // Any port will do: it is the address that counts.
    !given && !may_name(member.list.ip(), SocketAddr::new(member.own, 1))
}

/// Where links go to a node that others reach by the overlay alone.
pub(super) fn links_of(key: &SigningKey) -> SocketAddr {
    let node = Identity::new(key.clone()).id();
    (address_of(&node), OVERLAY_LINKS).into()
}

/// A place on the overlay, at which links are taken, and files served to those who cannot connect otherwise.
pub(super) fn on_overlay(
    member: &Member,
    driver: &Arc<NodeDriver>,
    server: Option<&FileServer>,
) -> Outcome<(Overlay, Vec<Service>)> {
    let post = Arc::clone(driver);
    let failed = |e| Failure::failed("cannot be reached by the overlay").because(&e);
    let overlay = Overlay::start(OverlaySettings {
        identity: Identity::new(member.key.clone()),
        listen: beside(member.own),
        port_mapping: member.port_mapping,
        write: Box::new(move |to, letter| post.write(to, letter)),
    });
    let overlay = overlay.map_err(failed)?;
    let mut services = vec![driver.reach_by(&overlay).map_err(failed)?];
    if let Some(server) = server {
        let (feeder, _) = Feeder::new(Some(server.clone()));
        let take = move |stream, from| feeder.take(stream, from, Vec::new());
        services.push(overlay.listen(OVERLAY_FILES, take).map_err(failed)?);
    }
    Ok((overlay, services))
}

/// A node of a Gnutella network beside this one.
pub(super) fn ultrapeer(
    at: SocketAddr,
    args: &SupernodeNodeArgs,
    shelf: ChildrenShelf,
    server: Option<FileServer>,
    ui: &Ui,
) -> Outcome<GnutellaServer> {
    let config = Config::of(Mode::Ultrapeer);
    let mut settings = gnutella::settings_of(at, &args.gnutella_connect, config, None)?;
    settings.incoming =
        server.map(|server| -> Box<dyn Incoming> { Box::new(HandOver::new(server, at.ip())) });
    let started = gnutella::start(settings, Box::new(shelf))?;
    ui.report(&Report::Listening {
        addr: started.control().listen().into(),
        proto: "gnutella",
    });
    Ok(started)
}

/// Nobody on another machine makes this one connect to itself.
pub(super) fn may_push(own: SocketAddr, to: SocketAddr) -> bool {
    let local = own.ip().is_loopback();
    let fit = !to.ip().is_unspecified() && !to.ip().is_multicast() && to.port() != 0;
    fit && (local || !to.ip().is_loopback())
}
