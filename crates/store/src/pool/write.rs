//! Writing a batch: runs of neighbouring blocks in one system call each, then the hashes, then the
//! journal, then the answers, in this order.

use std::io::IoSlice;
use std::sync::{Arc, Mutex};

use shoal_base::Bitfield;
use shoal_content::{BLOCK_LEN, PieceDigest, PieceIndex};
use smallvec::{SmallVec, smallvec};

use super::hashing::{PieceHasher, PieceProgress, block_digests};
use super::job::{BlockWrite, Done, WriteBatch};
use super::torrent::Torrent;
use super::{Shared, lock};
use crate::resume::{Change, Entry};
use shoal_content::PieceOutcome;

/// What a worker keeps between batches, to allocate nothing per batch.
#[derive(Default)]
pub(super) struct Writer {
    scratch: Vec<u8>,
    entries: Vec<Entry>,
    /// Answers that come before [`Done::Written`], so that a torrent is paused before its blocks
    /// are asked for again.
    faults: Vec<Done>,
    /// Answers that follow it.
    after: Vec<Done>,
    /// Blocks that had been written, in this batch or before, and could not be read back.
    lost: Vec<BlockWrite>,
}

/// What became of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not on disk.
    Failed,
    /// To be written.
    Fresh,
    /// On disk now.
    Written,
    /// Was on disk before.
    Known,
}

type Fates = SmallVec<[Fate; 32]>;

/// Blocks of one batch that belong to one piece, and what became of each.
struct PieceBlocks<'b> {
    buf: &'b [u8],
    blocks: &'b [BlockWrite],
    fates: &'b [Fate],
}

/// The bytes of a block; none if they are not in the buffer.
fn bytes_of<'b>(buf: &'b [u8], block: &BlockWrite) -> Option<&'b [u8]> {
    let end = block.start.checked_add(block.block.len as usize)?;
    buf.get(block.start..end)
}

fn number(block: &BlockWrite) -> u32 {
    block.block.begin / BLOCK_LEN
}

impl<'b> PieceBlocks<'b> {
    /// The bytes of block `n` if this batch wrote it.
    fn bytes(&self, n: u32) -> Option<&'b [u8]> {
        let at = self.blocks.partition_point(|block| number(block) < n);
        // Nonsense may stand beside it under the same number.
        let both = self.blocks.iter().zip(self.fates).skip(at);
        let (block, _) = both
            .take_while(|(block, _)| number(block) == n)
            .find(|(_, fate)| **fate == Fate::Written)?;
        bytes_of(self.buf, block)
    }

    /// The numbers of the blocks written.
    fn written(&self) -> impl Iterator<Item = u32> {
        let both = self.blocks.iter().zip(self.fates);
        both.filter(|(_, fate)| **fate == Fate::Written)
            .map(|(block, _)| number(block))
    }
}

impl Writer {
    /// Writes `batch` and appends the answers to `done`.
    pub(super) fn write(&mut self, shared: &Shared, batch: WriteBatch, done: &mut Vec<Done>) {
        let WriteBatch {
            mut buf,
            mut blocks,
        } = batch;
        blocks.sort_unstable_by_key(|b| (b.torrent, b.block.piece, b.block.begin));
        let mut fates: Fates = smallvec![Fate::Failed; blocks.len()];
        let mut rest = (blocks.as_slice(), fates.as_mut_slice());
        while let Some(first) = rest.0.first() {
            let key = first.torrent;
            let len = rest.0.partition_point(|b| b.torrent == key);
            let (group, blocks) = rest.0.split_at(len);
            let (group_fates, fates) = rest.1.split_at_mut(len);
            rest = (blocks, fates);
            if let Some(torrent) = shared.torrent(key)
                && !torrent.is_faulted()
            {
                clear_padding(&torrent, &mut buf, group);
                self.write_group(&torrent, &buf, group, group_fates);
            }
        }
        shared.resume.record(&self.entries);
        self.entries.clear();
        let mut failed = std::mem::take(&mut self.lost);
        if !failed.is_empty() {
            for (block, fate) in blocks.iter().zip(&mut fates) {
                let same = |f: &BlockWrite| f.torrent == block.torrent && f.block == block.block;
                if let Some(known) = failed.iter().position(same) {
                    failed.swap_remove(known);
                    *fate = Fate::Failed;
                }
            }
        }
        if fates.contains(&Fate::Failed) {
            let mut fate = fates.iter();
            blocks.retain(|block| {
                let ok = fate.next().is_some_and(|fate| *fate != Fate::Failed);
                if !ok {
                    failed.push(*block);
                }
                ok
            });
        }
        done.append(&mut self.faults);
        done.push(Done::Written {
            buf,
            blocks,
            failed,
        });
        done.append(&mut self.after);
    }

    /// Writes the blocks of one torrent.
    fn write_group(
        &mut self,
        torrent: &Torrent,
        buf: &[u8],
        blocks: &[BlockWrite],
        fates: &mut [Fate],
    ) {
        sort_out(torrent, buf, blocks, fates);
        let mut at = 0;
        while at < blocks.len() {
            let len = fresh_run(torrent, &blocks[at..], &fates[at..]);
            if len == 0 {
                at += 1;
                continue;
            }
            let run = &blocks[at..at + len];
            let fates = &mut fates[at..at + len];
            at += len;
            let parts: SmallVec<[IoSlice<'_>; 32]> = run
                .iter()
                .filter_map(|block| bytes_of(buf, block))
                .map(IoSlice::new)
                .collect();
            match torrent.files.write_at(offset_of(torrent, &run[0]), &parts) {
                Ok(()) => fates.fill(Fate::Written),
                Err(error) => {
                    self.fault(torrent, error);
                    break;
                }
            }
        }
        // After an error some may still be thought fresh.
        for fate in fates.iter_mut().filter(|fate| **fate == Fate::Fresh) {
            *fate = Fate::Failed;
        }
        let mut rest = (blocks, &*fates);
        while let Some(first) = rest.0.first() {
            let piece = first.block.piece;
            let len = rest.0.partition_point(|b| b.block.piece == piece);
            let (blocks, fates);
            ((blocks, rest.0), (fates, rest.1)) = (rest.0.split_at(len), rest.1.split_at(len));
            if fates.contains(&Fate::Written) {
                self.hash(torrent, piece, &PieceBlocks { buf, blocks, fates });
            }
        }
    }

    fn fault(&mut self, torrent: &Torrent, error: crate::StoreError) {
        if torrent.set_faulted() {
            self.faults.push(Done::Fault {
                torrent: torrent.key,
                error,
            });
        }
    }

    /// Takes blocks that were just written into their piece's hash.
    fn hash(&mut self, torrent: &Torrent, piece: PieceIndex, blocks: &PieceBlocks<'_>) {
        let total = torrent.geometry.blocks(piece);
        let all_here = blocks.written().count() == total as usize;
        let progress = {
            let mut pieces = lock(&torrent.pieces);
            match pieces.open.get(&piece) {
                Some(progress) => Some(Arc::clone(progress)),
                None if all_here => None,
                None => {
                    let progress = PieceProgress::new(Bitfield::new(total), &torrent.hashes);
                    let progress = Arc::new(Mutex::new(progress));
                    pieces.open.insert(piece, Arc::clone(&progress));
                    Some(progress)
                }
            }
        };
        let Some(progress) = progress else {
            // The whole piece at once: nothing to remember.
            let mut hasher = PieceHasher::new(&torrent.hashes);
            for bytes in (0..total).filter_map(|n| blocks.bytes(n)) {
                hasher.update(bytes);
            }
            self.complete(torrent, piece, hasher.finish(), None);
            return;
        };
        let mut progress = lock(&progress);
        for n in blocks.written() {
            progress.mark_written(n);
        }
        let scratch = &mut self.scratch;
        match progress.advance(torrent, piece, |n| blocks.bytes(n), scratch) {
            Ok(None) => self.note_blocks(torrent, piece, blocks),
            Ok(Some(digest)) => self.complete(torrent, piece, digest, Some(&mut progress)),
            Err(error) => {
                let written = (0..total).filter(|n| progress.has(*n));
                self.lost
                    .extend(written.map(|n| torrent.lost_block(piece, n)));
                progress.forget();
                self.lose(torrent, piece);
                self.fault(torrent, error);
            }
        }
    }

    /// Compares a complete piece with its hash.
    fn complete(
        &mut self,
        torrent: &Torrent,
        piece: PieceIndex,
        digest: PieceDigest,
        progress: Option<&mut PieceProgress>,
    ) {
        let scratch = &mut self.scratch;
        let outcome = if torrent.hashes.accepts(piece, &digest) {
            let digests = progress
                .is_some_and(|progress| progress.was_corrupt())
                .then(|| block_digests(torrent, piece, scratch).ok())
                .flatten();
            let mut pieces = lock(&torrent.pieces);
            pieces.have.set(piece);
            pieces.open.remove(&piece);
            drop(pieces);
            self.note_verified(torrent, piece);
            PieceOutcome::Verified { digests }
        } else {
            let digests = block_digests(torrent, piece, scratch).unwrap_or_default();
            match progress {
                Some(progress) => progress.restart(),
                None => {
                    let blocks = Bitfield::new(torrent.geometry.blocks(piece));
                    let mut progress = PieceProgress::new(blocks, &torrent.hashes);
                    progress.restart();
                    let progress = Arc::new(Mutex::new(progress));
                    lock(&torrent.pieces).open.insert(piece, progress);
                }
            }
            self.lose(torrent, piece);
            PieceOutcome::Corrupt { digests }
        };
        self.after.push(Done::Piece {
            torrent: torrent.key,
            piece,
            outcome,
        });
    }

    // ---- journal entries ----

    fn note_verified(&mut self, torrent: &Torrent, piece: PieceIndex) {
        let change = Change::Verified {
            first: piece,
            count: 1,
        };
        let Some(entry) = torrent.entry(change) else {
            return;
        };
        // Small pieces come many in a batch: one record for a run.
        if let Some(last) = self.entries.last_mut()
            && last.torrent == entry.torrent
            && let Change::Verified { first, count } = &mut last.change
            && first.checked_add(*count) == Some(piece)
        {
            *count += 1;
            return;
        }
        self.entries.push(entry);
    }

    fn note_blocks(&mut self, torrent: &Torrent, piece: PieceIndex, blocks: &PieceBlocks<'_>) {
        let mut numbers = blocks.written().peekable();
        while let Some(first) = numbers.next() {
            let mut count = 1;
            while numbers.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            self.entries.extend(torrent.entry(Change::Blocks {
                piece,
                first,
                count,
            }));
        }
    }

    fn lose(&mut self, torrent: &Torrent, piece: PieceIndex) {
        self.entries.extend(torrent.entry(Change::Lost {
            first: piece,
            count: 1,
        }));
    }
}

/// Padding is zeros whatever a peer sent for it: it is hashed as it will be read back.
fn clear_padding(torrent: &Torrent, buf: &mut [u8], blocks: &[BlockWrite]) {
    if !torrent.has_padding {
        return;
    }
    let layout = torrent.files.layout();
    for block in blocks {
        let mut at = block.start;
        for span in layout.spans(offset_of(torrent, block), u64::from(block.block.len)) {
            let end = at.saturating_add(span.len as usize);
            let is_padding = layout.files().get(span.file).is_some_and(|f| f.attr.pad);
            if let Some(bytes) = buf.get_mut(at..end).filter(|_| is_padding) {
                bytes.fill(0);
            }
            at = end;
        }
    }
}

fn offset_of(torrent: &Torrent, block: &BlockWrite) -> u64 {
    torrent.geometry.piece_start(block.block.piece) + u64::from(block.block.begin)
}

/// How many of the first `blocks` are to be written and follow one another without a gap.
fn fresh_run(torrent: &Torrent, blocks: &[BlockWrite], fates: &[Fate]) -> usize {
    let mut next = None;
    let both = blocks.iter().zip(fates);
    both.take_while(|(block, fate)| {
        let offset = offset_of(torrent, block);
        let follows = next.is_none_or(|next| next == offset);
        next = Some(offset + u64::from(block.block.len));
        follows && **fate == Fate::Fresh
    })
    .count()
}

/// Tells fresh blocks from those that make no sense and those that are there already, which must
/// not be written again: their bytes may have been hashed.
fn sort_out(torrent: &Torrent, buf: &[u8], blocks: &[BlockWrite], fates: &mut [Fate]) {
    type Open = Option<Arc<Mutex<PieceProgress>>>;
    let mut touched: SmallVec<[(PieceIndex, bool, Open); 16]> = SmallVec::new();
    {
        let pieces = lock(&torrent.pieces);
        for block in blocks {
            let piece = block.block.piece;
            if touched.last().is_none_or(|(last, ..)| *last != piece) {
                let open = pieces.open.get(&piece).cloned();
                touched.push((piece, pieces.have.get(piece), open));
            }
        }
    }
    let mut fates = fates.iter_mut();
    let mut before = None;
    for (piece, have, open) in &touched {
        let open = open.as_ref().map(|open| lock(open));
        let same_piece = blocks.iter().skip(blocks.len() - fates.len());
        for block in same_piece.take_while(|b| b.block.piece == *piece) {
            let Some(fate) = fates.next() else {
                return;
            };
            let known = *have
                || before == Some(block.block)
                || open.as_ref().is_some_and(|open| open.has(number(block)));
            *fate = if !torrent.geometry.is_block(block.block) || bytes_of(buf, block).is_none() {
                Fate::Failed
            } else if known {
                Fate::Known
            } else {
                Fate::Fresh
            };
            if *fate != Fate::Failed {
                before = Some(block.block);
            }
        }
    }
}
