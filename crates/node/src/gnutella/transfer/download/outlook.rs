//! Hosts are asked by datagrams what they have for us, so that those with a free slot come first.

use std::net::SocketAddr;

use shoal_base::Time;
use shoal_gnutella::http::head_pings::HeadPings;

use super::run::Fetch;
use crate::gnutella::transfer::head_desk::HeadDesk;

/// Hosts that are asked in one turn.
const AT_ONCE: usize = 16;

/// The hosts' answers, and where they come in.
pub(super) struct Heads {
    pub(super) desk: HeadDesk,
    pings: HeadPings,
}

impl Fetch {
    /// How hosts are asked; none if they cannot be: a file is asked for by its SHA-1.
    pub(super) fn open_heads(&self) -> Option<Heads> {
        let sha1 = self.settings.urn.sha1()?;
        let local = self.settings.outbound.ip();
        match HeadDesk::open(local.filter(|ip| ip.is_ipv4())) {
            Ok(desk) => Some(Heads {
                desk,
                pings: HeadPings::new(sha1),
            }),
            Err(error) => {
                // They are connected to in the order in which they came.
                tracing::debug!(%error, "no socket for asking hosts");
                None
            }
        }
    }

    /// Asks those that may be connected to.
    pub(super) fn ask_heads(&mut self, now: Time) {
        let Some(heads) = &mut self.heads else { return };
        let hosts: Vec<_> = self.sources.ready(now).take(AT_ONCE).collect();
        for host in hosts {
            if let Some(datagram) = heads.pings.ask(now, host, &mut self.rng) {
                heads.desk.send(host, &datagram);
            }
        }
    }

    /// Whether answers are awaited that may change who comes first.
    pub(super) fn awaits_heads(&self, now: Time) -> bool {
        let heads = self.heads.as_ref();
        heads.is_some_and(|heads| heads.pings.patience(now).is_some())
    }

    /// When that is over.
    pub(super) fn heads_deadline(&self, now: Time) -> Option<Time> {
        self.heads.as_ref()?.pings.patience(now)
    }

    /// A datagram came. Who says that it does not have the file is asked last, and over HTTP all the same: not
    /// every program counts parts.
    pub(super) fn on_head(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(heads) = &mut self.heads else { return };
        let Some(told) = heads.pings.on_datagram(from, bytes) else {
            return;
        };
        tracing::debug!(%from, outlook = ?told.outlook, "a host tells what it has for us");
        self.sources.set_outlook(&from, told.outlook);
        for alternate in told.alternates {
            self.sources.learn(alternate.into(), from.ip());
        }
    }
}
