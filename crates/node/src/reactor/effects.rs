//! Carrying out what the cores ask for.

use super::Reactor;
use super::conn::Stage;
use crate::session::Event;
use shoal_base::Time;
use shoal_bittorrent::torrent::Output;
use shoal_store::TorrentKey;
use std::net::SocketAddr;

impl Reactor {
    /// Carries out the effects waiting, and those that come of it.
    pub(super) fn run_effects(&mut self, now: Time) {
        while let Some((key, output)) = self.effects.pop_front() {
            self.run_effect(key, output, now);
        }
        self.ask_sources();
    }

    fn run_effect(&mut self, key: TorrentKey, output: Output, now: Time) {
        match output {
            Output::Wake(conn) => {
                if let Some(slot) = self.slot_of(conn) {
                    self.queue_write(slot);
                }
            }
            Output::Close { conn, why } => {
                if let Some(slot) = self.slot_of(conn) {
                    if let Some(conn) = self.conns.get(slot) {
                        tracing::debug!(addr = %conn.addr, %why, "closing a connection");
                    }
                    self.close(slot, now);
                }
            }
            Output::Connect(addr) => self.dial(key, addr, now),
            Output::DhtNode(addr) => self.on_dht_node(addr),
            Output::GiveUpDial(addr) => self.give_up_dial(key, addr),
            Output::RangeRequest { source, block } => {
                if let Some(entry) = self.torrents.get_mut(&key)
                    && let Some(source) = entry.ranged.get_mut(source as usize)
                {
                    source.asked.push(block);
                }
            }
            Output::RangeDrop { source, lied } => self.drop_source(key, source, lied, now),
            Output::Metadata(info) => {
                self.tell(Event::Metadata {
                    key,
                    info: info.clone(),
                });
                if self.torrents.get(&key).is_some_and(|e| !e.request.hold) {
                    self.load(key, now);
                }
            }
            Output::BadMetadata(error) => {
                self.tell(Event::Failed {
                    key,
                    error: format!("bad metadata: {error}"),
                });
            }
            Output::Have(piece) => {
                let entry = self.torrents.get(&key);
                if let Some(shared) = entry.and_then(|e| e.request.shared_part.as_ref()) {
                    shared.file.has(piece);
                }
                self.tell_wanted(key, piece);
            }
            Output::Finished => {
                self.trackers.completed(key);
                self.on_finished(key);
            }
            Output::Banned(addr) => self.ban(key, addr, now),
        }
    }

    /// Drops a dial without telling its torrent, which knows.
    fn give_up_dial(&mut self, key: TorrentKey, addr: SocketAddr) {
        let dials = [Stage::Dialing(key), Stage::Greeted(key)];
        let same = |other: SocketAddr| {
            other.port() == addr.port() && other.ip().to_canonical() == addr.ip().to_canonical()
        };
        let found = self
            .conns
            .iter()
            .find(|(_, c)| dials.contains(&c.stage) && same(c.addr))
            .map(|(slot, _)| slot);
        if let Some(mut conn) = found.and_then(|slot| self.conns.try_remove(slot)) {
            let _ = self.poll.registry().deregister(&mut conn.stream);
        }
    }

    /// Closes all connections of an address and takes no more. On loopback only the peer itself is
    /// meant: all others have the same address.
    fn ban(&mut self, key: TorrentKey, addr: SocketAddr, now: Time) {
        if let Some(entry) = self.torrents.get_mut(&key) {
            entry.banned += 1;
        }
        for entry in self.torrents.values_mut() {
            entry.core.on_banned(addr);
        }
        let ip = addr.ip().to_canonical();
        if !ip.is_loopback() && self.banned.insert(ip) {
            let slots: Vec<_> = self
                .conns
                .iter()
                .filter(|(_, c)| c.addr.ip().to_canonical() == ip)
                .map(|(slot, _)| slot)
                .collect();
            for slot in slots {
                self.close(slot, now);
            }
        }
        let why = "sent data that failed its hash".into();
        self.tell(Event::PeerBanned { key, addr, why });
    }
}
