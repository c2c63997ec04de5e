//! Torrents in the DHTs, Mainline and a ring of one's own: each that is not private is announced
//! there and looked for, from when it begins until it ends.

use super::Reactor;
use super::entry::Entry;
use crate::dht::{DhtNode, Ticket};
use crate::session::Event;
use crossbeam_channel::Receiver;
use shoal_base::{Rng, Time};
use shoal_bittorrent::peers::Sources;
use shoal_dht::{Answer, Id, Request};
use shoal_store::TorrentKey;
use std::net::SocketAddr;
use std::time::Duration;

/// The first wait between two lookups of a download that wants peers; each is twice as long …
const FIRST_LOOKUP: Duration = Duration::from_secs(10);
/// … up to this.
const LONGEST_LOOKUP: Duration = Duration::from_secs(15 * 60);
/// The same after an announce that failed.
const FIRST_RETRY: Duration = Duration::from_secs(3);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Answers that wait for the loop; peers beyond are told again by the next lookup.
pub(crate) const MAX_ANSWERS: usize = 1024;

/// The node of a DHT and what it answered.
pub(crate) struct DhtLink {
    /// Of a ring, not of Mainline.
    pub(crate) ring: bool,
    pub(crate) node: DhtNode,
    pub(crate) answers: Receiver<(Ticket, Answer)>,
}

/// Where a torrent stands in the DHT.
#[derive(Debug)]
pub(super) struct Standing {
    /// Announced, and whether as one that has everything.
    announced: Option<bool>,
    announce_at: Time,
    retry: Duration,
    look_at: Time,
    wait: Duration,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            announced: None,
            announce_at: Time::ZERO,
            retry: FIRST_RETRY,
            look_at: Time::ZERO,
            wait: FIRST_LOOKUP,
        }
    }
}

/// What an operation of a torrent is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Announce,
    LookUp,
}

fn ticket(key: TorrentKey, purpose: Purpose) -> Ticket {
    u64::from(key) << 1 | u64::from(purpose == Purpose::LookUp)
}

/// Up to a fifth more or less, so that what began together does not stay together.
fn jitter(rng: &mut Rng, wait: Duration) -> Duration {
    wait.mul_f64(0.8 + rng.unit() * 0.4)
}

impl Standing {
    fn tend(
        &mut self,
        entry: (&Entry, TorrentKey),
        node: &DhtNode,
        port: Option<u16>,
        now: Time,
        rng: &mut Rng,
    ) {
        let (entry, key) = entry;
        if entry.core.is_private() || !entry.core.accepts_connections() {
            if self.announced.take().is_some() {
                node.cancel(ticket(key, Purpose::Announce));
            }
            return;
        }
        let id = Id(*entry.core.info_hash().as_bytes());
        let seed = entry.core.is_finished();
        if let Some(port) = port
            && self.announced != Some(seed)
            && now >= self.announce_at
        {
            if self.announced.replace(seed).is_some() {
                node.cancel(ticket(key, Purpose::Announce));
            } else if self.look_at == Time::ZERO {
                // Announcing finds the peers that are there already.
                self.look_at = now + jitter(rng, self.wait);
            }
            let request = Request::Announce {
                key: id,
                port: Some(port),
                seed,
                keep: true,
            };
            node.request(ticket(key, Purpose::Announce), request);
        }
        if now >= self.look_at && entry.core.wants_peers() {
            self.look_at = now + jitter(rng, self.wait);
            self.wait = (self.wait * 2).min(LONGEST_LOOKUP);
            node.request(ticket(key, Purpose::LookUp), Request::Peers { key: id });
        }
    }

    /// The announce came to nothing: another try, later.
    fn failed(&mut self, key: TorrentKey, node: &DhtNode, now: Time, rng: &mut Rng) {
        if self.announced.take().is_some() {
            node.cancel(ticket(key, Purpose::Announce));
        }
        self.announce_at = now + jitter(rng, self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
    }
}

impl Reactor {
    /// Announces and looks up what is due.
    pub(super) fn tend_dht(&mut self, now: Time) {
        for (key, entry) in &mut self.torrents {
            let mut standings = std::mem::take(&mut entry.dht);
            standings.resize_with(self.dhts.len(), Standing::default);
            for (link, standing) in self.dhts.iter().zip(&mut standings) {
                standing.tend((entry, *key), &link.node, self.port, now, &mut self.rng);
            }
            entry.dht = standings;
        }
    }

    /// Takes what the DHTs answered.
    pub(super) fn take_dht_answers(&mut self, now: Time) {
        for at in 0..self.dhts.len() {
            self.take_answers_of(at, now);
        }
    }

    fn take_answers_of(&mut self, at: usize, now: Time) {
        let Some(link) = self.dhts.get(at) else {
            return;
        };
        while let Ok((ticket, answer)) = link.answers.try_recv() {
            let key = (ticket >> 1) as TorrentKey;
            let announcing = ticket & 1 == 0;
            let Some(entry) = self.torrents.get_mut(&key) else {
                continue;
            };
            let Some(standing) = entry.dht.get_mut(at) else {
                continue;
            };
            match answer {
                Answer::Peers(peers) => {
                    entry.core.on_peers(now, Sources::DHT, &peers);
                    let peers = peers.len();
                    // The session may have been dropped without stopping; then nobody listens.
                    let ring = link.ring;
                    let _ = self.events.send(Event::DhtPeers { key, peers, ring });
                }
                Answer::Done(Err(why)) if announcing => {
                    tracing::debug!(%why, "announcing to the DHT failed");
                    standing.failed(key, &link.node, now, &mut self.rng);
                }
                Answer::Done(Ok(outcome)) if announcing => {
                    tracing::debug!(?outcome, "announced to the DHT");
                    standing.retry = FIRST_RETRY;
                }
                _ => {}
            }
        }
    }

    /// A peer says that it is a node of the DHT (BEP 5, PORT).
    pub(super) fn on_dht_node(&self, addr: SocketAddr) {
        if let Some(link) = self.dhts.iter().find(|link| !link.ring) {
            link.node.add_contacts(vec![addr]);
        }
    }
}
