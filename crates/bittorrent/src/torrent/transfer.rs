//! Blocks in and out.

use super::{ConnId, Output, Phase, RangeSourceId, Torrent};
use crate::extension::{Extension, OUR_REQUEST_QUEUE};
use crate::wire::{MAX_REQUEST_LEN, Message};
use shoal_base::Time;
use shoal_content::Block;
use shoal_content::download::{Arrival, PieceOutcome, SourceId};

/// The longest block served (the classic client's own limit); we never ask for more than 16 KiB.
const MAX_SERVED_BLOCK: u32 = MAX_REQUEST_LEN;

impl Torrent {
    /// A peer sent a block. True: hand it to the disk; false: it is of no use.
    pub fn on_block(
        &mut self,
        now: Time,
        conn: ConnId,
        block: Block,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return false;
        };
        peer.received_at = now;
        peer.down.add(now, u64::from(block.len));
        match peer.source {
            Some(source) => self.block_from(now, source, block, out),
            None => false,
        }
    }

    /// A range source sent a block. True: hand it to the disk; false: it is of no use.
    pub fn on_range_block(
        &mut self,
        now: Time,
        number: RangeSourceId,
        block: Block,
        out: &mut Vec<Output>,
    ) -> bool {
        match self.range_sources.get(&number) {
            Some(source) => self.block_from(now, *source, block, out),
            None => false,
        }
    }

    fn block_from(
        &mut self,
        now: Time,
        source: SourceId,
        block: Block,
        out: &mut Vec<Output>,
    ) -> bool {
        self.down.add(now, u64::from(block.len));
        let mut arrival = Arrival::Unrequested;
        self.with_download(now, out, |download, effects| {
            arrival = download.on_block(now, source, block, effects);
        });
        arrival == Arrival::Accept
    }

    /// Accepted blocks could not be written: they are missing again.
    pub fn on_write_failed(&mut self, now: Time, blocks: &[Block], out: &mut Vec<Output>) {
        self.with_download(now, out, |download, _| {
            for block in blocks {
                download.on_write_failed(now, *block);
            }
        });
    }

    /// The disk has hashed a piece.
    pub fn on_piece(
        &mut self,
        now: Time,
        piece: u32,
        outcome: &PieceOutcome,
        out: &mut Vec<Output>,
    ) {
        self.with_download(now, out, |download, effects| {
            download.on_piece(now, piece, outcome, effects);
        });
    }

    /// Moves up to `max` blocks that `conn` waits for into `blocks`, in the order to be sent.
    pub fn next_uploads(&mut self, conn: ConnId, max: usize, blocks: &mut Vec<Block>) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            let n = peer.uploads.len().min(max);
            blocks.extend(peer.uploads.drain(..n));
        }
    }

    /// Payload bytes went out to `conn`.
    pub fn on_uploaded(&mut self, now: Time, conn: ConnId, bytes: u64) {
        self.up.add(now, bytes);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.up.add(now, bytes);
            peer.sent_in_turn += bytes;
            peer.sent_at = now;
        }
    }

    /// Blocks promised to `conn` cannot be read.
    pub fn on_read_failed(&mut self, conn: ConnId, blocks: &[Block], out: &mut Vec<Output>) {
        for block in blocks {
            self.refuse(conn, *block, out);
        }
    }

    /// A piece we had is gone from the disk: fetch it again, and tell those who know the message.
    pub fn on_piece_lost(&mut self, now: Time, piece: u32, out: &mut Vec<Output>) {
        self.finished_told = false;
        self.book.set_seeding(now, false);
        self.with_download(now, out, |download, effects| {
            download.on_piece_lost(now, piece, effects);
        });
        let conns: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(conn, p)| p.ids.get(Extension::DontHave).map(|id| (*conn, id)))
            .collect();
        for (conn, id) in conns {
            let payload = &piece.to_be_bytes();
            super::send(
                &mut self.peers,
                conn,
                &Message::Extended { id, payload },
                out,
            );
        }
        let queued: Vec<_> = self
            .peers
            .iter()
            .flat_map(|(c, p)| {
                p.uploads
                    .iter()
                    .filter(|b| b.piece == piece)
                    .map(|b| (*c, *b))
            })
            .collect();
        for (conn, block) in queued {
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.uploads.retain(|b| *b != block);
            }
            self.refuse(conn, block, out);
        }
    }

    pub(super) fn on_request(&mut self, conn: ConnId, block: Block, out: &mut Vec<Output>) {
        let Phase::Active { download, info } = &self.phase else {
            self.refuse(conn, block, out);
            return;
        };
        let geometry = info.geometry();
        let have = download.have().get(block.piece);
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if !geometry.contains(block) || block.len > MAX_SERVED_BLOCK {
            let why = format!(
                "requested {} bytes at {} of piece {}",
                block.len, block.begin, block.piece
            );
            self.protocol_error(conn, why, out);
            return;
        }
        let may = !peer.choking || (peer.fast && peer.allowed.contains(&block.piece));
        if !have || !may || peer.uploads.len() >= OUR_REQUEST_QUEUE as usize {
            // Without the fast extension a refusal is silence (BEP 3); with it, REJECT (BEP 6).
            self.refuse(conn, block, out);
            return;
        }
        peer.uploads.push_back(block);
        super::wake(conn, peer, out);
    }

    pub(super) fn on_cancel(&mut self, conn: ConnId, block: Block, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if let Some(at) = peer.uploads.iter().position(|b| *b == block) {
            peer.uploads.remove(at);
            self.refuse(conn, block, out);
        }
    }

    pub(super) fn refuse(&mut self, conn: ConnId, block: Block, out: &mut Vec<Output>) {
        if self.peers.get(&conn).is_some_and(|p| p.fast) {
            super::send(&mut self.peers, conn, &Message::Reject(block), out);
        }
    }
}
