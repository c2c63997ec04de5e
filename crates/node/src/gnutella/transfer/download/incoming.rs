//! Sharers that connect to us, and those that are asked to.

use shoal_base::Time;
use shoal_gnutella::http::queue::Opening;
use shoal_gnutella::http::sources::State;

use super::run::Fetch;
use crate::gnutella::transfer::listen::{Incoming, Listener};
use crate::gnutella::transfer::push_desk::push;

impl Fetch {
    /// Whether somebody may still connect.
    pub(super) fn any_pushed(&self) -> bool {
        self.settings.listener.is_some() && self.pushes.left() > 0
    }

    /// Asks those behind firewalls whose time has come.
    pub(super) fn push(&mut self, now: Time) {
        let listener = self.settings.listener.as_ref().map(Listener::addr);
        let Some(back) = listener else {
            return;
        };
        let most = self.settings.max_sources;
        let busy = self.live.values().filter(|l| l.waits.is_none()).count();
        if busy >= most || self.is_finished() {
            return;
        }
        for location in self.pushes.due(now) {
            tracing::debug!(guid = %location.guid, proxies = ?location.proxies, "a sharer is asked to connect");
            push(&location, back);
            // Whoever knows another way may be behind.
            let _ = self.due.try_send(location.guid);
        }
    }

    /// A sharer connected to us.
    pub(super) fn on_incoming(&mut self, incoming: Incoming) {
        let now = self.now();
        match incoming.opening {
            Opening::Giv { guid, .. } => {
                let addr = incoming.peer;
                tracing::debug!(%addr, %guid, "a sharer connects to us");
                let liar = self.sources.state(&addr) == Some(State::Liar);
                if !liar && self.live.len() < self.settings.max_sources * 4 {
                    self.sources.working(addr);
                    let urn = self.name_of(&guid);
                    let key = self.start_source(addr, urn, Some(incoming.stream));
                    self.pushes.connected(guid);
                    if let Some(live) = self.live.get_mut(&key) {
                        live.pushed = Some(guid);
                    }
                }
            }
            Opening::Queue { id, .. } => {
                let mut known = self.clients.iter();
                let found = known.find(|(_, client)| client.place() == Some(id));
                let Some(addr) = found.map(|(addr, _)| *addr) else {
                    tracing::debug!(peer = %incoming.peer, "a call for a place that is not ours");
                    return;
                };
                if self.sources.state(&addr) != Some(State::Liar) {
                    self.sources.rest(&addr, now);
                    self.sources.working(addr);
                    let urn = self.name_at(&addr);
                    self.start_source(addr, urn, Some(incoming.stream));
                }
            }
        }
    }
}
