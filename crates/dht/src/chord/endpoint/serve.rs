//! Answers to what others ask about what is kept here.

use super::super::store::{ITEM_LIFE, first_bytes};
use super::super::wire::{Ask, MAX_DATAGRAM, Refusal, Reply};
use super::{Endpoint, HERE};
use crate::Output;
use shoal_base::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// Room for records in one answer.
const RECORDS_ROOM: usize = MAX_DATAGRAM - 64;

impl Endpoint {
    /// Answers a question of the holder of `key` at `from`.
    pub(super) fn answer(
        &mut self,
        now: Time,
        from: SocketAddr,
        key: &[u8; 32],
        ask: Ask,
        out: &mut Vec<Output>,
    ) -> Reply {
        let stores = matches!(
            ask,
            Ask::Put { .. } | Ask::Replicate { .. } | Ask::Announce { .. } | Ask::Publish { .. }
        );
        if stores && !self.is_member() {
            // It would be found by nobody.
            return Reply::Refused(Refusal::Full);
        }
        match ask {
            Ask::Get { target } => {
                let held = self.store.items.get(&target);
                Reply::Value(held.filter(|h| h.expires > now).map(|h| h.item.clone()))
            }
            Ask::Put { item, cas } => {
                let publisher = first_bytes(key);
                let (reply, new) =
                    self.store
                        .put(now, item.clone(), cas, publisher, now + ITEM_LIFE);
                if new {
                    self.news(now, &item, HERE, out);
                    self.ring_changed(now);
                }
                reply
            }
            Ask::Replicate {
                item,
                left,
                publisher,
                owned,
            } => {
                let left = Duration::from_secs(left.into()).min(ITEM_LIFE);
                let (reply, new) = self
                    .store
                    .put(now, item.clone(), None, publisher, now + left);
                if new {
                    self.news(now, &item, HERE, out);
                }
                self.received(now, item.target(), owned, new);
                reply
            }
            Ask::Announce { key, port, seed } => {
                // One's own announcement is kept without an address: the asker sees it.
                let mut peer = from;
                if port != 0 {
                    peer.set_port(port);
                }
                self.store.announce(now, key, peer, seed)
            }
            Ask::Peers { key } => self.store.peers(now, key, &mut self.rng),
            Ask::Subscribe { target, seq } => self.subscribed(now, from, target, seq, out),
            Ask::Push { item } => {
                if self.store.until(now, &item, Time::FAR).is_none() {
                    return Reply::Refused(Refusal::Invalid);
                }
                if self.topics.contains_key(&item.target()) {
                    self.news(now, &item, from, out);
                    Reply::Stored
                } else {
                    Reply::Refused(Refusal::Full)
                }
            }
            Ask::Publish { word, record } => self.store.publish(now, &word, record),
            Ask::Find { words, most } => self.store.find(now, &words, most, RECORDS_ROOM),
        }
    }
}
