//! The DHTs of a session: Mainline's and a ring's.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{DhtSettings, RingSettings};
use crate::dht::{self, DhtConfig, DhtError, DhtNode};
use crate::reach::Overlay;
use crate::reactor::{self, DhtLink};

/// A node of Mainline at the port of the listener, or at any if that is taken.
pub(super) fn mainline(
    settings: DhtSettings,
    listener: Option<SocketAddr>,
    seed: u64,
) -> DhtConfig {
    DhtConfig {
        listen: listener.map_or_else(dht::any_addrs, dht::listen_addrs),
        any_port: true,
        bootstrap: settings.bootstrap,
        contacts: settings.contacts,
        seed,
        ..DhtConfig::default()
    }
}

/// A node of a Chord ring, of its own sockets or the overlay's.
pub(super) fn ring(settings: RingSettings, overlay: Option<Overlay>, seed: u64) -> DhtConfig {
    DhtConfig {
        listen: vec![settings.listen],
        any_port: settings.any_port,
        bootstrap: settings.bootstrap,
        contacts: settings.contacts,
        seed,
        ring: Some(settings.ring),
        overlay,
        ..DhtConfig::default()
    }
}

/// Starts a node whose answers wake the loop.
pub(super) fn start(
    config: DhtConfig,
    notify: Arc<dyn Fn() + Send + Sync>,
) -> Result<DhtLink, DhtError> {
    let ring = config.ring.is_some();
    let (sender, answers) = crossbeam_channel::bounded(reactor::MAX_ANSWERS);
    let sink = Box::new(move |ticket, answer| {
        if sender.try_send((ticket, answer)).is_ok() {
            notify();
        }
    });
    let node = DhtNode::start(config, sink)?;
    Ok(DhtLink {
        ring,
        node,
        answers,
    })
}
