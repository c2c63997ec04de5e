//! The relay beside a node.

use std::net::{IpAddr, SocketAddr};

use shoal_node::relay::{
    Config as TurnConfig, Credentials, Policy, RelayAddress, RelayServer, RelaySettings,
};
use shoal_supernode::node::RelayOffer;

use crate::cli::SupernodeNodeArgs;
use crate::failure::Outcome;
use crate::report::Report;
use crate::supernode::Member;
use crate::ui::Ui;

/// The relay of a supernode, and what is told of it.
pub(super) fn start(
    member: &Member,
    args: &SupernodeNodeArgs,
    ui: &Ui,
) -> Outcome<(RelayServer, RelayOffer)> {
    let mut secret = vec![0; 32];
    crate::key::random(&mut secret)?;
    let external = args.external.map(|a| a.ip());
    let bound = args
        .relay
        .iter()
        .map(SocketAddr::ip)
        .find(|ip| !ip.is_unspecified());
    let bind = bound.unwrap_or(member.own);
    let public = external.unwrap_or(bind);
    let at = RelayAddress { bind, public };
    let (relay_v4, relay_v6) = match bind.is_ipv4() {
        true => (Some(at), None),
        false => (None, Some(at)),
    };
    let started = RelayServer::start(RelaySettings {
        listen: args.relay.clone(),
        turn: TurnConfig {
            credentials: Credentials {
                secrets: vec![secret.clone()],
                ..Credentials::default()
            },
            relay_v4,
            relay_v6,
            // A neighbour's children share its credential.
            max_allocations_per_user: 1024,
            max_rate: args.relay_limit,
            // A relay of a private network serves that network; one on loopback this machine.
            policy: Policy {
                allow_private: matches!(public, IpAddr::V4(ip) if ip.is_private()),
                allow: match public.is_loopback() {
                    true => "127.0.0.0/8".parse().into_iter().collect(),
                    false => Vec::new(),
                },
                deny: Vec::new(),
            },
            ..TurnConfig::default()
        },
        certificate: args.relay_tls.files(),
        max_connections: 4096,
        seed: None,
    });
    let server = started.map_err(|e| crate::relay::not_started(&e))?;
    let told = server
        .addresses()
        .iter()
        .map(|a| match a.ip().is_unspecified() {
            true => SocketAddr::new(public, a.port()),
            false => SocketAddr::new(external.unwrap_or(a.ip()), a.port()),
        });
    let at: Vec<SocketAddr> = told.collect();
    for addr in &at {
        ui.report(&Report::Listening {
            addr: *addr,
            proto: "turn",
        });
    }
    Ok((server, RelayOffer { secret, at }))
}
