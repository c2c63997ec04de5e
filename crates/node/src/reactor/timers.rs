//! What the reactor does by the clock.

use super::conn::Stage;
use super::{CHECKPOINT, Reactor};
use shoal_base::Time;
use shoal_bittorrent::peers::Sources;
use std::time::Duration;

/// How often statistics are published and slow things looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// A connection must finish its handshake within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a paused torrent looks whether it can go on.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Reactor {
    pub(super) fn run_timers(&mut self, now: Time) {
        if now >= self.throttled_until {
            self.throttled_until = Time::FAR;
            for slot in std::mem::take(&mut self.throttled) {
                self.queue_read(slot);
                self.queue_write(slot);
            }
        }
        let keys: Vec<_> = self
            .torrents
            .iter()
            .filter(|(_, e)| e.core.deadline() <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(entry) = self.torrents.get_mut(&key) {
                entry.core.on_tick(now, &mut self.outputs);
                self.queue_outputs(key);
            }
        }
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.housekeep(now);
        }
        if now >= self.next_checkpoint {
            self.next_checkpoint = now + CHECKPOINT;
            self.checkpoint();
        }
    }

    fn housekeep(&mut self, now: Time) {
        let late: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, c)| !matches!(c.stage, Stage::Live(_)))
            .filter(|(_, c)| now.since(c.opened_at) > HANDSHAKE_TIMEOUT)
            .map(|(slot, _)| slot)
            .collect();
        for slot in late {
            self.close(slot, now);
        }
        for (key, entry) in &mut self.torrents {
            self.trackers.update(*key, entry.counters(now));
        }
        self.probe_paused(now);
        self.retry_sources(now);
        self.publish_stats(now);
        self.greet_neighbours(now);
        self.tend_dht(now);
    }

    pub(super) fn publish_stats(&mut self, now: Time) {
        let fresh = self
            .torrents
            .iter_mut()
            .map(|(key, entry)| (*key, entry.stats(now)))
            .collect();
        if let Ok(mut stats) = self.stats.lock() {
            *stats = fresh;
        }
    }

    /// Announces our torrents on the local network, each in its turn (BEP 14).
    fn greet_neighbours(&mut self, now: Time) {
        let Some((sockets, lsd)) = &mut self.lsd else {
            return;
        };
        for entry in self.torrents.values() {
            if entry.core.is_private() {
                lsd.remove(&entry.core.info_hash());
            } else if entry.core.accepts_connections() {
                lsd.add(now, entry.core.info_hash());
            }
        }
        while let Some(announce) = lsd.poll(now) {
            sockets.announce(&announce);
        }
    }

    /// Hears what the local network announces.
    pub(super) fn hear_neighbours(&mut self, now: Time) {
        let Some((sockets, lsd)) = &mut self.lsd else {
            return;
        };
        let mut packet = [0; 2048];
        while let Some((len, from)) = sockets.recv(&mut packet) {
            let Ok(heard) = lsd.on_packet(now, from, &packet[..len]) else {
                continue;
            };
            for (hash, addr) in heard {
                let entry = self
                    .by_hash
                    .get(&hash)
                    .and_then(|key| self.torrents.get_mut(key));
                if let Some(entry) = entry {
                    entry.core.on_peers(now, Sources::LSD, &[addr]);
                }
            }
        }
    }
}
