//! From the cores and the disk to the sockets.

use super::Reactor;
use super::conn::Stage;
use super::outbuf::OutBuf;
use shoal_base::Time;
use shoal_bittorrent::torrent::ConnId;
use shoal_bittorrent::wire::{PIECE_HEADER_LEN, piece_header};
use shoal_content::Block;
use shoal_store::{Job, ReadPart, TorrentKey};

/// Blocks put into one send: enough to amortise the system calls, small enough for the cache.
const BLOCKS_PER_SEND: usize = 8;
/// Sends on one connection before the next has its turn.
const SENDS_PER_TURN: usize = 4;
/// What one block costs the rate limit at most before it is waited for.
const BLOCK_BYTES: usize = 16 * 1024;

/// What filling the send buffer came to.
enum Refill {
    /// There is something to send.
    Ready,
    /// Nothing to send, or it is being read from the disk, or the rate limit is used up.
    Nothing,
}

impl Reactor {
    /// Sends on the waiting connections in turn.
    pub(super) fn write_some(&mut self, now: Time) {
        for _ in 0..self.write_queue.len() {
            let Some(slot) = self.write_queue.pop_front() else {
                break;
            };
            let Some(conn) = self.conns.get_mut(slot) else {
                continue;
            };
            conn.queued_write = false;
            self.write_one(slot, now);
        }
    }

    fn write_one(&mut self, slot: usize, now: Time) {
        for _ in 0..SENDS_PER_TURN {
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            if !conn.writable {
                return;
            }
            if conn.out.is_empty() && matches!(self.refill(slot, now), Refill::Nothing) {
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.out.release();
                }
                return;
            }
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            if conn.send().is_err() {
                return self.close(slot, now);
            }
            if conn.out.is_empty() && conn.payload > 0 {
                let (id, payload) = (conn.id, std::mem::take(&mut conn.payload));
                if let Some(entry) = conn.torrent().and_then(|k| self.torrents.get_mut(&k)) {
                    entry.core.on_uploaded(now, id, payload);
                }
            }
        }
        self.queue_write(slot);
    }

    /// Fills the empty send buffer of `slot`: control messages first, then blocks.
    fn refill(&mut self, slot: usize, now: Time) -> Refill {
        let Some(conn) = self.conns.get_mut(slot) else {
            return Refill::Nothing;
        };
        let Stage::Live(key) = conn.stage else {
            return Refill::Nothing;
        };
        let Some(entry) = self.torrents.get_mut(&key) else {
            return Refill::Nothing;
        };
        let control = entry.core.take_control(now, conn.id);
        conn.out.append(&control);
        if conn.reading.is_empty() && entry.core.has_output(conn.id) {
            self.add_blocks(slot, key, now);
        }
        match self.conns.get(slot) {
            Some(conn) if !conn.out.is_empty() => Refill::Ready,
            _ => Refill::Nothing,
        }
    }

    /// Adds the next blocks the peer waits for: from the page cache at once, else by the disk.
    fn add_blocks(&mut self, slot: usize, key: TorrentKey, now: Time) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(entry) = self.torrents.get_mut(&key) else {
            return;
        };
        let Some(files) = entry.files.clone() else {
            return;
        };
        let mut max = BLOCKS_PER_SEND;
        if conn.limited {
            let grant = self
                .limits
                .up
                .available(now)
                .min(entry.limits.up.available(now));
            max = max.min(grant / BLOCK_BYTES);
            if max == 0 {
                let ready = self.limits.up_ready(&mut entry.limits, now, BLOCK_BYTES);
                return self.throttle(slot, ready);
            }
        }
        let mut blocks = Vec::with_capacity(max);
        entry.core.next_uploads(conn.id, max, &mut blocks);
        let payload: usize = blocks.iter().map(|b| b.len as usize).sum();
        if conn.limited {
            self.limits.up.spend(payload);
            entry.limits.up.spend(payload);
        }
        let geometry = files.layout().geometry();
        let mut missing = Vec::new();
        for run in blocks.chunk_by(|a, b| a.piece == b.piece && a.begin + a.len == b.begin) {
            let Some(first) = run.first() else { continue };
            // Once one run has to wait for the disk, those after it do too, to keep the order.
            if !missing.is_empty() {
                missing.extend_from_slice(run);
                continue;
            }
            let offset = geometry.piece_start(first.piece) + u64::from(first.begin);
            let len: usize = run.iter().map(|b| PIECE_HEADER_LEN + b.len as usize).sum();
            let space = conn.out.reserve(len);
            write_headers(space, run);
            let lens = run.iter().map(|b| b.len as usize);
            let mut gaps = OutBuf::gaps(space, PIECE_HEADER_LEN, lens);
            if matches!(files.try_read_cached(offset, &mut gaps), Ok(true)) {
                conn.payload += run.iter().map(|b| u64::from(b.len)).sum::<u64>();
            } else {
                conn.out.unreserve(len);
                missing.extend_from_slice(run);
            }
        }
        if !missing.is_empty() {
            let id = conn.id;
            conn.reading.clone_from(&missing);
            self.read_from_disk(key, id, &missing);
        }
    }

    /// Asks the disk for blocks that are not in the page cache.
    fn read_from_disk(&mut self, key: TorrentKey, token: ConnId, blocks: &[Block]) {
        let len = blocks
            .iter()
            .map(|b| PIECE_HEADER_LEN + b.len as usize)
            .sum();
        let mut buf = vec![0; len];
        write_headers(&mut buf, blocks);
        let mut start = 0;
        let parts = blocks
            .iter()
            .map(|block| {
                let part = ReadPart {
                    block: *block,
                    start: start + PIECE_HEADER_LEN,
                };
                start = part.start + block.len as usize;
                part
            })
            .collect();
        self.disk.submit(Job::Read {
            torrent: key,
            token: u64::from(token),
            buf,
            parts,
        });
    }

    /// The disk has read what [`Reactor::read_from_disk`] asked for.
    pub(super) fn on_disk_read(&mut self, key: TorrentKey, token: ConnId, buf: &[u8], ok: bool) {
        let Some(slot) = self.slot_of(token) else {
            return;
        };
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let blocks = std::mem::take(&mut conn.reading);
        if ok {
            conn.out.append(buf);
            conn.payload += blocks.iter().map(|b| u64::from(b.len)).sum::<u64>();
        } else if let Some(entry) = self.torrents.get_mut(&key) {
            entry.core.on_read_failed(token, &blocks, &mut self.outputs);
            self.queue_outputs(key);
        }
        self.queue_write(slot);
    }
}

/// Writes the header of each block before the place of its data.
fn write_headers(space: &mut [u8], blocks: &[Block]) {
    let mut rest = space;
    for block in blocks {
        let (header, tail) = std::mem::take(&mut rest).split_at_mut(PIECE_HEADER_LEN);
        header.copy_from_slice(&piece_header(*block));
        rest = &mut tail[block.len as usize..];
    }
}
