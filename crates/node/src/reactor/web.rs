//! Web seeds: what they are asked, and what they bring.

use super::Reactor;
use crate::webseed::{WebSeedEvent, WebSeedHandle};
use shoal_base::Time;
use shoal_store::{BlockWrite, Job, TorrentKey, WriteBatch};
use smallvec::SmallVec;
use std::time::Duration;

/// Blocks a web seed may be asked for ahead: 8 MiB, so that its range requests are long.
const WEB_PIPELINE: u32 = 512;
/// How long a web seed rests after a failure that says nothing about when to come back.
const WEB_REST: Duration = Duration::from_secs(30);
/// Web seed buffers on their way to the disk; more wait at the seed's own thread.
const MAX_WEB_IN_FLIGHT: usize = 16;

impl Reactor {
    /// Takes what web seeds brought, a torrent after the other, as far as the disk and the rate
    /// limits have room. The rest waits in bounded queues, and so, by TCP, at the servers.
    pub(super) fn take_web_events(&mut self, now: Time) {
        self.web_ready_at = Time::FAR;
        let keys = self.torrents.iter().filter(|(_, e)| e.web_inbox.is_some());
        let mut waiting: SmallVec<[TorrentKey; 8]> = keys.map(|(key, _)| *key).collect();
        while !waiting.is_empty() {
            waiting.retain(|key| {
                self.web_in_flight < MAX_WEB_IN_FLIGHT && self.take_web_event(*key, now)
            });
        }
    }

    /// Takes one event of a torrent's web seeds; false if there is none for now.
    fn take_web_event(&mut self, key: TorrentKey, now: Time) -> bool {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return false;
        };
        let Some(inbox) = &mut entry.web_inbox else {
            return false;
        };
        let next = inbox.held.take().or_else(|| inbox.events.try_recv().ok());
        let Some((seed, event)) = next else {
            return false;
        };
        if let WebSeedEvent::Blocks { blocks, .. } = &event {
            let bytes = blocks.iter().map(|(block, _)| block.len as usize).sum();
            let ready = self.limits.down_ready(&mut entry.limits, now, bytes);
            if ready > now {
                self.web_ready_at = self.web_ready_at.min(ready);
                inbox.held = Some((seed, event));
                return false;
            }
            self.limits.down.spend(bytes);
            entry.limits.down.spend(bytes);
        }
        self.on_web_event(key, seed, event, now);
        true
    }

    fn on_web_event(&mut self, key: TorrentKey, seed: u32, event: WebSeedEvent, now: Time) {
        match event {
            WebSeedEvent::Blocks { buf, blocks } => self.on_web_blocks(key, seed, buf, blocks, now),
            WebSeedEvent::Failed { why, retry_after } => {
                tracing::info!(seed, why, "web seed failed");
                let rest = now + retry_after.unwrap_or(WEB_REST);
                self.rest_web_seed(key, seed, rest, now);
            }
        }
    }

    /// Stops using a web seed until `until`.
    pub(super) fn rest_web_seed(&mut self, key: TorrentKey, seed: u32, until: Time, now: Time) {
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(web) = entry.web_seeds.get_mut(seed as usize) else {
            return;
        };
        web.handle = None;
        web.asked.clear();
        web.retry_at = until;
        entry.core.remove_web_seed(now, seed, &mut self.outputs);
        self.queue_outputs(key);
    }

    /// Starts the web seeds that are not resting.
    pub(super) fn retry_web_seeds(&mut self, now: Time) {
        for (key, entry) in &mut self.torrents {
            let Some(layout) = entry.core.info().map(|i| i.layout.clone()) else {
                continue;
            };
            for (number, web) in entry.web_seeds.iter_mut().enumerate() {
                if web.handle.is_some() || now < web.retry_at || entry.core.is_finished() {
                    continue;
                }
                let inbox = entry.web_inbox.get_or_insert_default();
                let (sender, waker) = (inbox.sender.clone(), self.waker.clone());
                let number = number as u32;
                let sink = Box::new(move |event| {
                    // Blocks while the loop has enough in hand; fails when the loop is gone.
                    if sender.send((number, event)).is_ok() {
                        let _ = waker.wake();
                    }
                });
                match WebSeedHandle::spawn(&web.url, layout.clone(), self.outbound, sink) {
                    Ok(handle) => {
                        web.handle = Some(handle);
                        entry
                            .core
                            .add_web_seed(now, number, WEB_PIPELINE, &mut self.outputs);
                    }
                    Err(error) => {
                        tracing::warn!(url = web.url, %error, "web seed cannot be used");
                        web.retry_at = Time::FAR;
                    }
                }
            }
            self.effects
                .extend(self.outputs.drain(..).map(|output| (*key, output)));
        }
    }

    /// Hands the blocks asked for in this turn to their web seeds.
    pub(super) fn ask_web_seeds(&mut self) {
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
