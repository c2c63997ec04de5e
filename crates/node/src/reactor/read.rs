//! From the sockets to the cores and the disk's batches.

use super::Reactor;
use super::buffers::{BUFFER_LEN, Filling, MIN_ROOM};
use super::conn::{Received, Stage};
use crate::session::Event;
use shoal_base::Time;
use shoal_bittorrent::handshake::{self, HANDSHAKE_LEN, Handshake};
use shoal_bittorrent::torrent::Output;
use shoal_bittorrent::wire::{self, Message, PIECE_HEADER_LEN};
use shoal_content::Block;
use shoal_store::{BlockWrite, Job, TorrentKey};

/// Reads done between two looks at the poll, so that sending is never starved.
const READS_PER_TURN: usize = 64;

/// Bytes read in one turn of the loop, before what they cause is sent.
const BYTES_PER_TURN: usize = 2 * 1024 * 1024;
/// Below this a rate limit is waited for rather than used up in crumbs.
const MIN_GRANT: usize = 4 * 1024;

impl Reactor {
    /// Reads the waiting connections in turn, a buffer's worth each.
    pub(super) fn read_some(&mut self, now: Time) {
        let mut budget = BYTES_PER_TURN;
        for _ in 0..READS_PER_TURN {
            let Some(slot) = self.read_queue.pop_front() else {
                break;
            };
            let Some(conn) = self.conns.get_mut(slot) else {
                continue;
            };
            conn.queued_read = false;
            let Some(grant) = self.read_grant(slot, now) else {
                continue;
            };
            let Some(filling) = self.room_for(slot) else {
                // Every buffer is on its way to the disk: the sender has to wait.
                self.queue_read(slot);
                break;
            };
            budget = budget.saturating_sub(self.read_one(slot, filling, grant, now));
            self.queue_read(slot);
            if budget == 0 {
                break;
            }
        }
        self.flush_batch();
    }

    /// How much `slot` may read now; none if it has to wait for the rate limits.
    fn read_grant(&mut self, slot: usize, now: Time) -> Option<usize> {
        let conn = self.conns.get(slot)?;
        let Stage::Live(key) = conn.stage else {
            return Some(BUFFER_LEN);
        };
        if !conn.limited {
            return Some(BUFFER_LEN);
        }
        let entry = self.torrents.get_mut(&key)?;
        let grant = self
            .limits
            .down
            .available(now)
            .min(entry.limits.down.available(now));
        if grant >= MIN_GRANT {
            return Some(grant);
        }
        let ready = self
            .limits
            .down_ready(&mut entry.limits, now, MIN_GRANT * 4);
        self.throttle(slot, ready);
        None
    }

    /// Lets `slot` wait until the rate limits have room.
    pub(super) fn throttle(&mut self, slot: usize, until: Time) {
        self.throttled.push(slot);
        self.throttled_until = self.throttled_until.min(until);
    }

    /// A buffer with room for what `slot` has in hand and a good read more.
    fn room_for(&mut self, slot: usize) -> Option<Filling> {
        let carry = self.conns.get(slot)?.carry.len();
        if let Some(mut filling) = self.filling.take() {
            if filling.batch.blocks.is_empty() {
                filling.used = 0;
            }
            if filling.used + carry + MIN_ROOM <= BUFFER_LEN {
                return Some(filling);
            }
            self.submit(filling);
        }
        self.buffers.take()
    }

    /// Hands a buffer to the disk.
    fn submit(&mut self, filling: Filling) {
        if filling.batch.blocks.is_empty() {
            self.buffers.give_back(filling.batch.buf);
        } else {
            self.disk.submit(Job::Write(filling.batch));
        }
    }

    fn flush_batch(&mut self) {
        if let Some(filling) = self.filling.take() {
            self.submit(filling);
        }
    }

    /// One receive on `slot`; how many bytes came. Leaves the buffer in `self.filling`.
    fn read_one(&mut self, slot: usize, mut filling: Filling, grant: usize, now: Time) -> usize {
        let Some(conn) = self.conns.get_mut(slot) else {
            self.filling = Some(filling);
            return 0;
        };
        let start = filling.used;
        let from = start + conn.carry.len();
        if from + MIN_ROOM > BUFFER_LEN {
            tracing::debug!(addr = %conn.addr, "message too long for any real use");
            self.filling = Some(filling);
            self.close(slot, now);
            return 0;
        }
        let buf = &mut filling.batch.buf;
        buf[start..from].copy_from_slice(&conn.carry);
        let to = BUFFER_LEN.min(from.saturating_add(grant));
        let received = match conn.receive(&mut buf[from..to]) {
            Received::Bytes(n) => n,
            Received::Nothing => {
                self.filling = Some(filling);
                return 0;
            }
            Received::Closed => {
                self.filling = Some(filling);
                self.close(slot, now);
                return 0;
            }
        };
        let (limited, stage) = (conn.limited, conn.stage);
        if let (true, Stage::Live(key)) = (limited, stage) {
            self.limits.down.spend(received);
            self.peers_turn = self.peers_turn.saturating_sub(received);
            if let Some(entry) = self.torrents.get_mut(&key) {
                entry.limits.down.spend(received);
            }
        }
        let blocks_before = filling.batch.blocks.len();
        let end = from + received;
        match self.parse(slot, &mut filling, start, end, now) {
            Ok(parsed) => {
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.carry.clear();
                    conn.carry
                        .extend_from_slice(&filling.batch.buf[parsed..end]);
                }
                if filling.batch.blocks.len() > blocks_before {
                    filling.used = parsed;
                }
            }
            Err(why) => {
                if let Some(conn) = self.conns.get(slot) {
                    tracing::debug!(addr = %conn.addr, why, "closing a connection");
                }
                if filling.batch.blocks.len() > blocks_before {
                    filling.used = end;
                }
                self.close(slot, now);
            }
        }
        self.filling = Some(filling);
        received
    }

    /// Takes whole messages from `start..end` of the buffer; where the unfinished one begins.
    fn parse(
        &mut self,
        slot: usize,
        filling: &mut Filling,
        start: usize,
        end: usize,
        now: Time,
    ) -> Result<usize, String> {
        let mut at = start;
        let stage = self.conns.get(slot).map(|c| c.stage);
        if let Some(Stage::Incoming | Stage::Greeted(_)) = stage {
            let bytes = &filling.batch.buf[at..end];
            handshake::check_prefix(bytes).map_err(|e| e.to_string())?;
            let Some(bytes) = bytes.first_chunk::<HANDSHAKE_LEN>() else {
                return Ok(at);
            };
            let theirs = Handshake::decode(bytes).map_err(|e| e.to_string())?;
            self.on_handshake(slot, &theirs, now)?;
            at += HANDSHAKE_LEN;
        }
        let Some(Stage::Live(key)) = self.conns.get(slot).map(|c| c.stage) else {
            return Ok(at);
        };
        let Some(conn) = self.conns.get(slot).map(|c| c.id) else {
            return Ok(at);
        };
        let Some(entry) = self.torrents.get_mut(&key) else {
            return Err("its torrent is gone".into());
        };
        let limits = entry.core.wire_limits();
        let outcome = loop {
            let (message, used) = match wire::decode(&filling.batch.buf[at..end], &limits) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break Ok(at),
                Err(error) => break Err(error.to_string()),
            };
            match message {
                Message::Piece { piece, begin, data } => {
                    let block = Block {
                        piece,
                        begin,
                        len: data.len() as u32,
                    };
                    if entry.core.on_block(now, conn, block, &mut self.outputs) {
                        let write = BlockWrite {
                            torrent: key,
                            block,
                            start: at + PIECE_HEADER_LEN,
                        };
                        filling.batch.blocks.push(write);
                    }
                }
                other => entry.core.on_message(now, conn, &other, &mut self.outputs),
            }
            at += used;
            if matches!(self.outputs.last(), Some(Output::Close { conn: c, .. }) if *c == conn) {
                // What follows comes from somebody we no longer speak to.
                break Ok(end);
            }
        };
        self.queue_outputs(key);
        outcome
    }

    fn on_handshake(&mut self, slot: usize, theirs: &Handshake, now: Time) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(slot) else {
            return Ok(());
        };
        let outgoing = matches!(conn.stage, Stage::Greeted(_));
        let key: TorrentKey = match conn.stage {
            Stage::Greeted(key) => key,
            _ => match self.by_hash.get(&theirs.info_hash) {
                Some(key) => *key,
                None => return Err("asked for a torrent that is not here".into()),
            },
        };
        let Some(entry) = self.torrents.get_mut(&key) else {
            return Err("its torrent is gone".into());
        };
        if entry.core.info_hash() != theirs.info_hash {
            return Err("answered for another torrent".into());
        }
        if !outgoing {
            if !entry.core.accepts_connections() {
                return Err("files are being checked".into());
            }
            self.strangers = self.strangers.saturating_sub(1);
            conn.out.append(&entry.core.handshake().encode());
        }
        conn.stage = Stage::Live(key);
        let (id, addr) = (conn.id, conn.addr);
        entry
            .core
            .on_connected(now, id, addr, outgoing, theirs, &mut self.outputs);
        let refused = self.outputs.iter().find_map(|o| match o {
            Output::Close { conn, why } if *conn == id => Some(why.to_string()),
            _ => None,
        });
        self.queue_outputs(key);
        if let Some(why) = refused {
            return Err(why);
        }
        self.tell(Event::PeerConnected {
            key,
            addr,
            fast: theirs.reserved.fast,
            extension: theirs.reserved.extension,
        });
        self.queue_write(slot);
        Ok(())
    }
}
