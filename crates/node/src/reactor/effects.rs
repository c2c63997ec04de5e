//! Carrying out what the cores ask for.

use super::Reactor;
use crate::session::Event;
use shoal_base::Time;
use shoal_bittorrent::torrent::Output;
use shoal_store::{BlockWrite, Job, TorrentKey, WriteBatch};
use std::net::SocketAddr;

impl Reactor {
    /// Carries out the effects waiting, and those that come of it.
    pub(super) fn run_effects(&mut self, now: Time) {
        while let Some((key, output)) = self.effects.pop_front() {
            self.run_effect(key, output, now);
        }
        self.ask_web_seeds();
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
            Output::WebRequest { seed, block } => {
                if let Some(entry) = self.torrents.get_mut(&key)
                    && let Some(seed) = entry.web_seeds.get_mut(seed as usize)
                {
                    seed.asked.push(block);
                }
            }
            Output::WebDrop(seed) => self.rest_web_seed(key, seed, Time::FAR, now),
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
            Output::Have(_) => {}
            Output::Finished => {
                self.trackers.completed(key);
                self.on_finished(key);
            }
            Output::Banned(addr) => self.ban(key, addr, now),
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

    /// Hands the blocks asked for in this turn to their web seeds.
    fn ask_web_seeds(&mut self) {
        for entry in self.torrents.values_mut() {
            for seed in &mut entry.web_seeds {
                if seed.asked.is_empty() {
                    continue;
                }
                let blocks = std::mem::take(&mut seed.asked);
                if let Some(handle) = &seed.handle {
                    handle.request(blocks);
                }
            }
        }
    }

    /// A web seed sent data.
    pub(super) fn on_web_blocks(
        &mut self,
        key: TorrentKey,
        seed: u32,
        buf: Vec<u8>,
        blocks: Vec<(shoal_content::Block, usize)>,
        now: Time,
    ) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let mut writes = Vec::with_capacity(blocks.len());
        for (block, start) in blocks {
            if entry.core.on_web_block(now, seed, block, &mut self.outputs) {
                writes.push(BlockWrite {
                    torrent: key,
                    block,
                    start,
                });
            }
        }
        self.queue_outputs(key);
        if !writes.is_empty() {
            self.web_in_flight += 1;
            self.disk.submit(Job::Write(WriteBatch {
                buf,
                blocks: writes,
            }));
        }
    }
}
