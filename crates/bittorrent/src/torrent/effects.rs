//! What a download decides, carried out: requests sent, liars banned, pairs of seeds parted.

use super::told::{CloseReason, Output};
use super::{ConnId, Phase, RangeSourceId, SourceOwner, Torrent, send, wake};
use crate::wire::Message;
use shoal_base::Time;
use shoal_content::download::DownloadOutput;
use std::net::SocketAddr;

/// Seeds remembered for peer exchange after we let them go.
const MAX_LEFT_SEEDS: usize = 50;

impl Torrent {
    pub(super) fn carry_out(
        &mut self,
        now: Time,
        effects: &mut Vec<DownloadOutput>,
        out: &mut Vec<Output>,
    ) {
        for effect in effects.drain(..) {
            match effect {
                DownloadOutput::Request { source, block } => match self.sources.get(&source) {
                    Some(SourceOwner::Peer(conn)) => {
                        send(&mut self.peers, *conn, &Message::Request(block), out);
                    }
                    Some(SourceOwner::Range(number)) => out.push(Output::RangeRequest {
                        source: *number,
                        block,
                    }),
                    None => {}
                },
                DownloadOutput::Cancel { source, block } => {
                    if let Some(SourceOwner::Peer(conn)) = self.sources.get(&source) {
                        send(&mut self.peers, *conn, &Message::Cancel(block), out);
                    }
                }
                DownloadOutput::Interested { source, interested } => {
                    if let Some(SourceOwner::Peer(conn)) = self.sources.get(&source) {
                        let message = if interested {
                            Message::Interested
                        } else {
                            Message::NotInterested
                        };
                        if let Some(peer) = self.peers.get_mut(conn) {
                            peer.interested = interested;
                        }
                        send(&mut self.peers, *conn, &message, out);
                    }
                }
                DownloadOutput::Have(piece) => {
                    self.broadcast_have(piece, out);
                    out.push(Output::Have(piece));
                }
                DownloadOutput::Ban { address } => self.ban_address(address, out),
                DownloadOutput::Drop { source, why } => match self.sources.get(&source) {
                    Some(SourceOwner::Peer(conn)) => out.push(Output::Close {
                        conn: *conn,
                        why: CloseReason::Protocol(format!("{why:?}").to_lowercase()),
                    }),
                    Some(SourceOwner::Range(number)) => out.push(Output::RangeDrop {
                        source: *number,
                        lied: false,
                    }),
                    None => {}
                },
                DownloadOutput::Finished => {
                    if !self.finished_told && self.is_finished() {
                        self.finished_told = true;
                        self.choker.hurry();
                        out.push(Output::Finished);
                        self.book.set_seeding(now, true);
                        self.close_complete_pairs(now, out);
                    }
                }
            }
        }
    }

    pub(super) fn broadcast_have(&mut self, piece: u32, out: &mut Vec<Output>) {
        let Phase::Active { download, .. } = &self.phase else {
            return;
        };
        for (conn, peer) in &mut self.peers {
            // A peer that has the piece learns nothing from our HAVE.
            if peer.source.is_some_and(|s| download.source_has(s, piece)) {
                continue;
            }
            peer.send(&Message::Have(piece));
            wake(*conn, peer, out);
        }
    }

    pub(super) fn close_complete_pairs(&mut self, now: Time, out: &mut Vec<Output>) {
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            self.close_if_both_complete(now, conn, out);
        }
    }

    /// Two that have everything are of no use to each other.
    pub(super) fn close_if_both_complete(
        &mut self,
        now: Time,
        conn: ConnId,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        if !self.is_finished() || !(self.peer_is_seed(peer) || peer.upload_only) {
            return;
        }
        if let Some(listen) = peer.listen {
            self.book.set_seed(listen, true);
            self.left_seeds.retain(|(addr, _)| *addr != listen);
            if self.left_seeds.len() < MAX_LEFT_SEEDS {
                self.left_seeds.push((listen, now));
            }
        }
        let why = CloseReason::BothComplete;
        out.push(Output::Close { conn, why });
    }

    /// Identity for bans: all ports of an address are one, but on loopback, where every peer of a
    /// test or a demonstration has the same address.
    pub(super) fn ban_key(addr: SocketAddr) -> u64 {
        use std::hash::{Hash, Hasher};
        let ip = addr.ip().to_canonical();
        let mut hasher = rustc_hash::FxHasher::default();
        (ip, if ip.is_loopback() { addr.port() } else { 0 }).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn ban_address(&mut self, address: u64, out: &mut Vec<Output>) {
        let mut banned = Vec::new();
        for (conn, peer) in &self.peers {
            if Self::ban_key(peer.identity()) == address {
                banned.push(peer.identity());
                out.push(Output::Close {
                    conn: *conn,
                    why: CloseReason::Corrupt,
                });
            }
        }
        // Told also of one that has gone: it may come again.
        if let Ok(source) = RangeSourceId::try_from(address) {
            out.push(Output::RangeDrop { source, lied: true });
            return;
        }
        if banned.is_empty() {
            // It may have gone before its lie was found out.
            let known = self.book.iter().map(|k| k.addr);
            banned.extend(known.filter(|addr| Self::ban_key(*addr) == address).take(1));
        }
        for addr in banned {
            self.book.ban(addr);
            out.push(Output::Banned(addr));
        }
    }
}
