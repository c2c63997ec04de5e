//! What happens by the clock: choking, dialling, peer exchange, keep-alives and silence.

use super::{CloseReason, Output, Phase, Torrent, send, wake};
use crate::choker::{ChokeChange, ChokePeer, Upload};
use crate::extension::Extension;
use crate::peers::is_overlay;
use crate::pex::{PexFlags, PexPeer};
use crate::wire::Message;
use shoal_base::Time;
use shoal_content::Block;
use std::time::Duration;

/// How often the torrent looks after itself.
const TICK: Duration = Duration::from_secs(1);
/// A keep-alive is sent after this long without anything else (BEP 3: two minutes).
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// A peer silent for longer is gone.
const SILENCE: Duration = Duration::from_secs(180);
/// A peer that neither wants nor has anything may stay this long when slots are scarce.
const USELESS: Duration = Duration::from_secs(600);
/// Seeds that we, complete ourselves, let go are still told to others for this long.
const TELL_LEFT_SEEDS: Duration = Duration::from_secs(600);
/// Who is connected otherwise is not dialled by the overlay so long after the last look.
const OTHERWISE_CONNECTED: Duration = Duration::from_secs(30);
/// Dials started in one tick.
const DIALS_PER_TICK: usize = 30;

impl Torrent {
    /// The clock reached [`Torrent::deadline`] (or later).
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.with_download(now, out, |download, effects| {
            if download.deadline().is_some_and(|t| t <= now) {
                download.on_tick(now, effects);
            }
        });
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        if let Phase::Metadata(fetch) = &mut self.phase {
            let mut effects = Vec::new();
            fetch.on_tick(now, &mut effects);
            self.metadata_effects(now, effects, out);
        }
        if self.is_active() {
            self.rechoke(now, out);
        }
        self.tend_peers(now, out);
        if !self.private {
            self.exchange_peers(now, out);
        }
        self.dial(now, out);
    }

    /// Lets the choker decide: a round if one is due, otherwise only free slots are filled.
    fn rechoke(&mut self, now: Time, out: &mut Vec<Output>) {
        let round = now >= self.choker.deadline();
        if !round && !std::mem::take(&mut self.refill_slots) {
            return;
        }
        let seeding = self.is_finished();
        let upload = Upload {
            limit: self.config.up_limit,
            rate: self.up.rate(now),
        };
        let mut candidates = Vec::with_capacity(self.peers.len());
        for (conn, peer) in &mut self.peers {
            let (snubbed, seed) = match (&self.phase, peer.source) {
                (Phase::Active { download, .. }, Some(source)) => {
                    (download.is_snubbed(source), download.is_seed(source))
                }
                _ => (false, false),
            };
            candidates.push(ChokePeer {
                key: *conn,
                interested: peer.wants,
                choked: peer.choking,
                upload_only: peer.upload_only || seed,
                rate_down: peer.down.rate(now),
                rate_up: peer.up.rate(now),
                snubbed,
                connected_at: peer.connected_at,
                unchoked_at: peer.unchoked_at,
                sent_in_turn: peer.sent_in_turn,
                sent: peer.up.total(),
            });
        }
        let mut changes = Vec::new();
        if round {
            self.choker
                .on_tick(now, &candidates, seeding, upload, &mut changes);
        } else {
            self.choker.fill(&candidates, seeding, upload, &mut changes);
        }
        for change in changes {
            let (conn, choke) = match change {
                ChokeChange::Choke(conn) => (conn, true),
                ChokeChange::Unchoke(conn) => (conn, false),
            };
            self.set_choking(now, conn, choke, out);
        }
    }

    fn set_choking(&mut self, now: Time, conn: u32, choke: bool, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if peer.choking == choke {
            return;
        }
        peer.choking = choke;
        let mut refused: Vec<Block> = Vec::new();
        if choke {
            peer.send(&Message::Choke);
            let (fast, allowed) = (peer.fast, &peer.allowed);
            peer.uploads.retain(|block| {
                let stays = fast && allowed.contains(&block.piece);
                if !stays {
                    refused.push(*block);
                }
                stays
            });
        } else {
            peer.unchoked_at = Some(now);
            peer.sent_in_turn = 0;
            peer.send(&Message::Unchoke);
        }
        wake(conn, peer, out);
        for block in refused {
            self.refuse(conn, block, out);
        }
    }

    fn tend_peers(&mut self, now: Time, out: &mut Vec<Output>) {
        let scarce = self.peers.len() * 10 > self.config.max_peers * 9;
        for (conn, peer) in &mut self.peers {
            let useless = !peer.wants && !peer.interested;
            if now.since(peer.received_at) > SILENCE {
                out.push(Output::Close {
                    conn: *conn,
                    why: CloseReason::Silent,
                });
            } else if scarce && useless && now.since(peer.connected_at) > USELESS {
                out.push(Output::Close {
                    conn: *conn,
                    why: CloseReason::Useless,
                });
            } else if now.since(peer.sent_at) > KEEP_ALIVE {
                peer.sent_at = now;
                peer.send(&Message::KeepAlive);
                wake(*conn, peer, out);
            }
        }
    }

    fn exchange_peers(&mut self, now: Time, out: &mut Vec<Output>) {
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.ids.get(Extension::Pex).is_some() && p.pex.next_at() <= now)
            .map(|(conn, _)| *conn)
            .collect();
        if due.is_empty() {
            return;
        }
        let mut swarm: Vec<_> = self
            .peers
            .values()
            .flat_map(|p| {
                let flags = PexFlags::default()
                    .with(PexFlags::SEED, p.upload_only || self.peer_is_seed(p))
                    .with(PexFlags::REACHABLE, p.outgoing);
                let listens = p.listen.map(|addr| PexPeer { addr, flags });
                let flags = flags.with(PexFlags::REACHABLE, true);
                let overlay = p.overlay.map(|addr| PexPeer { addr, flags });
                listens.into_iter().chain(overlay)
            })
            .collect();
        self.left_seeds
            .retain(|(_, at)| now.since(*at) < TELL_LEFT_SEEDS);
        let left = self.left_seeds.iter().map(|(addr, _)| *addr);
        let left: Vec<_> = left
            .filter(|addr| swarm.iter().all(|p| p.addr != *addr))
            .collect();
        swarm.extend(left.into_iter().map(|addr| PexPeer {
            addr,
            flags: PexFlags::SEED.with(PexFlags::REACHABLE, true),
        }));
        for conn in due {
            let Some(peer) = self.peers.get_mut(&conn) else {
                continue;
            };
            let Some(id) = peer.ids.get(Extension::Pex) else {
                continue;
            };
            if let Some(message) = peer.pex.poll(now, peer.pex_reader(), &swarm) {
                let mut payload = Vec::new();
                message.encode(&mut payload);
                send(
                    &mut self.peers,
                    conn,
                    &Message::Extended {
                        id,
                        payload: &payload,
                    },
                    out,
                );
            }
        }
    }

    fn dial(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.paused || !self.accepts_connections() {
            return;
        }
        // Whoever is connected otherwise needs no second connection by the overlay.
        for peer in self.peers.values().filter(|p| !is_overlay(p.addr.ip())) {
            if let Some(overlay) = peer.overlay {
                self.book.put_off(overlay, now + OTHERWISE_CONNECTED);
            }
        }
        let busy = self.peers.len() + self.book.half_open();
        // Half of the room is for those who dial us: were all full of peers that they chose, a
        // newcomer would find no place anywhere.
        let room = self.config.max_peers.div_ceil(2).saturating_sub(busy);
        for addr in self.book.next_candidates(now, room.min(DIALS_PER_TICK)) {
            out.push(Output::Connect(addr));
        }
    }
}
