//! The transfer itself: blocks are asked for, written and checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_base::time::earliest;
use shoal_base::{Bitfield, Rng, Time};
use shoal_content::download::{Arrival, SourceOptions};
use shoal_content::{
    Block, Download, DownloadConfig, DownloadOutput, Geometry, PieceIndex, PieceOutcome, SourceId,
};
use shoal_gnutella::huge::Urn;
use shoal_store::{
    BlockWrite, Done, Job, ResumeId, StoreError, TorrentFiles, TorrentKey, WriteBatch,
};
use smallvec::SmallVec;

use super::doubt::Doubt;
use super::others::kind_of;
use super::run::{Fetch, Live, Who};
use super::{DownloadEvent, Ended};
use crate::gnutella::transfer::content::Content;
use crate::gnutella::transfer::source::Order;
use crate::gnutella::transfer::whole::Whole;
use crate::range_source::{Slice, SourceNews};

/// The one content of the disk pool.
pub(super) const KEY: TorrentKey = 1;
/// Blocks a host may be asked for ahead: 8 MiB, so that its ranges are long.
const PIPELINE: u32 = 512;
/// How often a disk that takes nothing is looked at again.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What is being transferred.
pub(super) struct Transfer {
    pub(super) content: Content,
    pub(super) files: Arc<TorrentFiles>,
    pub(super) resume_id: ResumeId,
    pub(super) download: Download,
    /// The hash of the whole; none before the file is there, and once it is known.
    pub(super) whole: Option<Whole>,
    prepared: bool,
    /// Pieces from the first on that are there without a gap.
    pub(super) prefix: PieceIndex,
    /// Who sent what of each piece, by their numbers.
    pub(super) senders: Vec<SmallVec<[u32; 2]>>,
    /// Hosts by their numbers.
    pub(super) hosts: Vec<Who>,
    pub(super) doubt: Doubt,
    outputs: Vec<DownloadOutput>,
    /// Whether what is there is being checked before anything else.
    checking: bool,
    /// When to look whether the disk takes something again.
    probe_at: Option<Time>,
}

fn download(geometry: Geometry, have: Bitfield, rng: Rng) -> Download {
    let config = DownloadConfig::default();
    Download::new(geometry, have, config, rng)
}

impl Transfer {
    pub(super) fn new(
        content: Content,
        files: Arc<TorrentFiles>,
        resume_id: ResumeId,
        have: Bitfield,
        partial: &[(PieceIndex, Bitfield)],
        checking: bool,
        rng: Rng,
    ) -> Self {
        let geometry = files.layout().geometry();
        let mut download = download(geometry, have, rng);
        for (piece, blocks) in partial {
            // A whole one is hashed when its first block comes again.
            download.restore_partial(*piece, blocks);
        }
        Self {
            content,
            files,
            resume_id,
            download,
            whole: None,
            prepared: false,
            prefix: 0,
            senders: vec![SmallVec::new(); geometry.pieces() as usize],
            hosts: Vec::new(),
            doubt: Doubt::default(),
            outputs: Vec::new(),
            checking,
            probe_at: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        earliest(self.download.deadline(), self.probe_at)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.files.root().join(self.content.name.as_path())
    }

    /// A host's number.
    fn number(&mut self, who: Who) -> u32 {
        let known = self.hosts.iter().position(|host| *host == who);
        let number = known.unwrap_or_else(|| {
            self.hosts.push(who);
            self.hosts.len() - 1
        });
        number as u32
    }
}

/// The file is to be made, also if it is empty.
pub(super) fn prepare() -> Job {
    Job::Prepare {
        torrent: KEY,
        wanted: None,
    }
}

impl Fetch {
    /// Lets a connected host take part.
    pub(super) fn join(&mut self, key: u32, now: Time) {
        let (Some(transfer), Some(live)) = (&mut self.transfer, self.live.get_mut(&key)) else {
            return;
        };
        if transfer.checking || !live.connected || live.id.is_some() {
            return;
        }
        let address = u64::from(transfer.number(live.who));
        let options = SourceOptions {
            address,
            kind: kind_of(live.who, &self.others),
            fast: false,
            max_pipeline: PIPELINE,
        };
        let id = transfer.download.add_source(now, &options);
        live.id = Some(id);
        if live.waits.is_some() {
            transfer.download.on_choke(now, id, &mut transfer.outputs);
        }
        self.update_pieces(key, now);
        // It is asked with the next tick: now is soon enough.
        self.tick(now);
    }

    /// What a host has has changed.
    pub(super) fn update_pieces(&mut self, key: u32, now: Time) {
        let (Some(transfer), Some(live)) = (&mut self.transfer, self.live.get(&key)) else {
            return;
        };
        let Some(id) = live.id else { return };
        let out = &mut transfer.outputs;
        let slice = Slice::whole(transfer.download.geometry());
        match slice.pieces(live.available.as_ref()) {
            Some(bits) => transfer.download.on_bitfield(now, id, &bits, out),
            None => transfer.download.on_have_all(now, id, out),
        }
        self.carry_out(now);
    }

    /// A host has no slot for us: what it owes is asked of others.
    pub(super) fn choke(&mut self, key: u32, now: Time) {
        if let (Some(transfer), Some(live)) = (&mut self.transfer, self.live.get_mut(&key))
            && let Some(id) = live.id
        {
            live.asked.clear();
            transfer.download.on_choke(now, id, &mut transfer.outputs);
            self.carry_out(now);
        }
    }

    /// The time that a host made us wait is over.
    pub(super) fn ask_again(&mut self, key: u32, now: Time) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        live.waits = None;
        match (&mut self.transfer, live.id) {
            (Some(transfer), Some(id)) => {
                transfer.download.on_unchoke(now, id, &mut transfer.outputs);
                self.carry_out(now);
            }
            (None, _) => live.source.order(Order::Probe),
            (Some(_), None) => {}
        }
    }

    /// A host's thread ended.
    pub(super) fn leave(&mut self, live: &Live, now: Time) {
        if let (Some(transfer), Some(id)) = (&mut self.transfer, live.id) {
            transfer
                .download
                .remove_source(now, id, &mut transfer.outputs);
            self.carry_out(now);
        }
    }

    pub(super) fn on_data(&mut self, key: u32, buf: Vec<u8>, blocks: &[(Block, usize)], now: Time) {
        let bytes: u64 = blocks.iter().map(|(block, _)| u64::from(block.len)).sum();
        self.downloaded += bytes;
        self.rate.add(now, bytes);
        let (Some(transfer), Some(disk)) = (&mut self.transfer, &self.disk) else {
            return;
        };
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        let Some(id) = live.id else { return };
        if let Who::Host(addr) = &live.who {
            self.waiting.remove(addr);
        }
        let who = live.who;
        let number = transfer.number(who);
        let mut taken = 0;
        let mut writes = Vec::with_capacity(blocks.len());
        for (block, start) in blocks {
            let out = &mut transfer.outputs;
            if transfer.download.on_block(now, id, *block, out) == Arrival::Accept {
                if let Some(senders) = transfer.senders.get_mut(block.piece as usize)
                    && !senders.contains(&number)
                {
                    senders.push(number);
                }
                taken += u64::from(block.len);
                writes.push(BlockWrite {
                    torrent: KEY,
                    block: *block,
                    start: *start,
                });
            }
        }
        match who {
            Who::Host(_) => self.host_bytes += taken,
            Who::Other(number) => self.others.on_bytes(number, taken),
        }
        if !writes.is_empty() {
            self.in_flight += 1;
            disk.submit(Job::Write(WriteBatch {
                buf,
                blocks: writes,
            }));
        }
        self.carry_out(now);
    }

    pub(super) fn on_missed(&mut self, key: u32, blocks: &[Block], now: Time) {
        if let (Some(transfer), Some(live)) = (&mut self.transfer, self.live.get(&key))
            && let Some(id) = live.id
        {
            for block in blocks {
                let out = &mut transfer.outputs;
                transfer.download.on_reject(now, id, *block, out);
            }
            self.carry_out(now);
        }
    }

    /// Timeouts, and hosts that wait for something to do.
    pub(super) fn tick(&mut self, now: Time) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if transfer.probe_at.is_some_and(|at| at <= now) {
            transfer.probe_at = Some(now + PROBE_EVERY);
            if let Some(disk) = &self.disk {
                disk.submit(Job::Probe { torrent: KEY });
            }
        }
        transfer.download.on_tick(now, &mut transfer.outputs);
        self.carry_out(now);
    }

    fn key_of(&self, id: SourceId) -> Option<u32> {
        let mut live = self.live.iter();
        live.find(|(_, live)| live.id == Some(id))
            .map(|(key, _)| *key)
    }

    /// Carries out what the download asks for.
    fn carry_out(&mut self, now: Time) {
        while let Some(transfer) = &mut self.transfer
            && !transfer.outputs.is_empty()
        {
            for output in std::mem::take(&mut transfer.outputs) {
                self.carry_out_one(&output, now);
            }
        }
    }

    /// Carries out what came of something done to the download elsewhere.
    pub(super) fn take_outputs(&mut self, outputs: Vec<DownloadOutput>, now: Time) {
        if let Some(transfer) = &mut self.transfer {
            transfer.outputs.extend(outputs);
        }
        self.carry_out(now);
    }

    fn carry_out_one(&mut self, output: &DownloadOutput, now: Time) {
        match *output {
            DownloadOutput::Request { source, block } => {
                let live = self.live.values_mut();
                if let Some(live) = live.into_iter().find(|live| live.id == Some(source)) {
                    live.asked.push(block);
                }
            }
            DownloadOutput::Have(piece) => self.on_have(piece),
            DownloadOutput::Ban { address } => {
                let hosts = self.transfer.as_ref().map(|t| t.hosts.as_slice());
                let who = hosts.and_then(|hosts| hosts.get(usize::try_from(address).ok()?));
                if let Some(who) = who.copied() {
                    self.ban(who, now);
                }
            }
            DownloadOutput::Drop { source, why } => {
                if let Some(live) = self.key_of(source).and_then(|key| self.live.remove(&key)) {
                    self.leave(&live, now);
                    let why = format!("it does not send what was asked for ({why:?})");
                    match live.who {
                        Who::Host(addr) => {
                            self.sources.failed(now, &addr);
                            self.say(DownloadEvent::Failed { addr, why });
                        }
                        Who::Other(number) => {
                            self.others.ended(number);
                            self.others.rest(number, Time::FAR);
                            let for_good = true;
                            self.tell_other(number, SourceNews::Failed { why, for_good });
                        }
                    }
                }
            }
            // What comes all the same is not taken; its whole range would have to be given up.
            DownloadOutput::Cancel { .. } | DownloadOutput::Interested { .. } => {}
            DownloadOutput::Finished => self.complete_if_sure(),
        }
    }

    fn on_have(&mut self, piece: PieceIndex) {
        if let Some(transfer) = &self.transfer
            && let Some(senders) = transfer.senders.get(piece as usize)
        {
            for number in senders {
                if let Some(Who::Host(addr)) = transfer.hosts.get(*number as usize) {
                    self.sources.good(addr);
                }
            }
        }
        if let Some(partial) = &self.settings.partial {
            partial.has(piece);
            self.tell_of_us();
        }
        self.advance_whole();
    }

    /// Tells the hash of the whole how far the file is there.
    pub(super) fn advance_whole(&mut self) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let before = transfer.prefix;
        let Some(whole) = &transfer.whole else {
            return;
        };
        while transfer.download.have().get(transfer.prefix) {
            transfer.prefix += 1;
        }
        if transfer.prefix > before {
            let end = transfer.download.geometry().piece_start(transfer.prefix);
            whole.upto(end.min(transfer.content.len));
        }
    }

    /// Takes what the disk pool has done.
    pub(super) fn on_disk(&mut self, now: Time) {
        let Some(disk) = &self.disk else { return };
        let mut done = Vec::new();
        disk.drain(&mut done);
        for done in done {
            self.on_done(done, now);
        }
    }

    fn on_done(&mut self, done: Done, now: Time) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        match done {
            Done::Written { failed, .. } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                for write in failed {
                    transfer.download.on_write_failed(now, write.block);
                }
            }
            Done::Piece { piece, outcome, .. } => {
                if let PieceOutcome::Corrupt { .. } = &outcome {
                    tracing::info!(piece, "a piece is not what its hash says");
                }
                let out = &mut transfer.outputs;
                transfer.download.on_piece(now, piece, &outcome, out);
                if let (PieceOutcome::Corrupt { .. }, Some(senders)) =
                    (outcome, transfer.senders.get_mut(piece as usize))
                {
                    senders.clear();
                }
            }
            Done::Checked { have, .. } => {
                transfer.checking = false;
                let rng = self.rng.fork();
                if let Some(partial) = &self.settings.partial {
                    have.iter().for_each(|piece| partial.has(piece));
                }
                transfer.download = download(transfer.files.layout().geometry(), have, rng);
                self.advance_whole();
                self.complete_if_sure();
                let keys: Vec<u32> = self.live.keys().copied().collect();
                for key in keys {
                    self.join(key, now);
                }
            }
            Done::Fault { error, .. } => self.on_fault(&error, now),
            Done::Probed {
                result,
                lost,
                failed,
                ..
            } => self.on_probed(result.is_ok(), &lost, &failed, now),
            Done::Prepared { result, .. } => match result {
                Ok(()) => self.on_prepared(),
                Err(error) => self.on_fault(&error, now),
            },
            _ => {}
        }
        self.carry_out(now);
    }

    /// The file is there, if only in name: what is in it can be hashed as it comes.
    fn on_prepared(&mut self) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.prepared = true;
        self.hash_whole();
    }

    /// Begins to hash the whole, from the start on. Where the tree's root is the user's word too, every
    /// byte is checked by it already: a second hash would say nothing more.
    pub(super) fn hash_whole(&mut self) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if transfer.content.is_sure() {
            return self.complete_if_sure();
        }
        let by = &self.settings.urn;
        match Whole::spawn(Arc::clone(&transfer.files), transfer.content.len, by) {
            Ok(whole) => transfer.whole = Some(whole),
            Err(error) => return self.end(Ended::System(error.to_string())),
        }
        transfer.prefix = 0;
        self.advance_whole();
    }

    /// Ends the download if it is all there and nothing but its tree has to say so.
    fn complete_if_sure(&mut self) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        let all = transfer.prepared && !transfer.checking && transfer.download.is_finished();
        if all && transfer.content.is_sure() && !self.over {
            let path = transfer.path();
            self.complete(path);
        }
    }

    fn on_fault(&mut self, error: &StoreError, now: Time) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let out = &mut transfer.outputs;
        transfer.download.set_paused(now, true, out);
        if transfer.probe_at.replace(now + PROBE_EVERY).is_none() {
            let reason = error.to_string();
            self.say(DownloadEvent::Paused { reason });
        }
    }

    fn on_probed(&mut self, healed: bool, lost: &[PieceIndex], failed: &[BlockWrite], now: Time) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        if !healed {
            return;
        }
        transfer.probe_at = None;
        if !transfer.prepared
            && let Some(disk) = &self.disk
        {
            disk.submit(prepare());
        }
        for piece in lost {
            let out = &mut transfer.outputs;
            transfer.download.on_piece_lost(now, *piece, out);
        }
        for write in failed {
            transfer.download.on_write_failed(now, write.block);
        }
        transfer
            .download
            .set_paused(now, false, &mut transfer.outputs);
        self.say(DownloadEvent::Resumed);
    }

    /// The hash of the whole file is known.
    pub(super) fn on_whole(&mut self, found: Result<Urn, StoreError>) {
        let now = self.now();
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.whole = None;
        match found {
            Ok(urn) if self.settings.urn.agrees(&urn) => {
                let path = transfer.path();
                if let Some(liar) = transfer.doubt.liar(&transfer.hosts) {
                    self.ban(liar, now);
                }
                self.complete(path);
            }
            Ok(_) => self.on_wrong_whole(now),
            Err(error) => self.end(Ended::System(error.to_string())),
        }
    }
}
