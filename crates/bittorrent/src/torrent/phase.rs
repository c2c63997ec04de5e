//! From info-hash to metadata to exchanging pieces.

use super::peer::Peer;
use super::{
    CloseReason, Output, Phase, RangeSourceId, SourceOwner, Torrent, range_key, send, wake,
};
use crate::extension::Extension;
use crate::metadata::{MetadataFetch, MetadataMessage, MetadataOutput};
use crate::wire::Message;
use shoal_base::{Bitfield, Time};
use shoal_content::download::{Download, DownloadConfig, SourceId, SourceKind, SourceOptions};
use shoal_content::picker::Priority;
use shoal_content::{Block, Info};
use std::ops::Range;

/// What is on disk when a torrent becomes active.
#[derive(Debug, Default)]
pub struct OnDisk {
    /// Verified pieces.
    pub have: Bitfield,
    /// Blocks written of pieces not yet verified.
    pub partial: Vec<(u32, Bitfield)>,
    /// For each piece, whether it is wanted; none: all are.
    pub wanted: Option<Bitfield>,
}

impl Torrent {
    /// The driver has opened the files and knows what is on disk: start exchanging pieces.
    pub fn activate(&mut self, now: Time, on_disk: OnDisk, out: &mut Vec<Output>) {
        let phase = std::mem::replace(
            &mut self.phase,
            Phase::Metadata(Box::new(MetadataFetch::new(self.info_hash))),
        );
        let Phase::Loading(info) = phase else {
            self.phase = phase;
            return;
        };
        let config = DownloadConfig::default();
        let mut download = Download::new(info.geometry(), on_disk.have, config, self.rng.fork());
        download.set_mode(self.config.mode);
        for (piece, blocks) in &on_disk.partial {
            download.restore_partial(*piece, blocks);
        }
        self.phase = Phase::Active {
            info,
            download: Box::new(download),
        };
        if let Some(wanted) = on_disk.wanted {
            self.with_download(now, out, |download, effects| {
                let priority = |piece| {
                    if wanted.get(piece) {
                        Priority::Normal
                    } else {
                        Priority::Skip
                    }
                };
                download.set_priorities(now, priority, effects);
            });
        }
        // Completeness at the start is told by the driver's own event, not as a finish.
        self.finished_told = self.is_finished();
        self.book.set_seeding(now, self.finished_told);
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            self.tell_pieces_late(conn, out);
            self.start_source(now, conn, out);
        }
        self.next_tick = now;
    }

    /// Nothing is fetched but what [`Torrent::want`] asks for; to be said before
    /// [`Torrent::activate`], with no piece wanted there.
    pub fn set_on_demand(&mut self) {
        self.on_demand = true;
    }

    /// From now on these pieces are wanted too.
    pub fn want(&mut self, now: Time, pieces: Range<u32>, out: &mut Vec<Output>) {
        self.with_download(now, out, |download, effects| {
            let before: Vec<_> = (0..download.geometry().pieces())
                .map(|piece| download.priority(piece))
                .collect();
            let of = |piece: u32| match before.get(piece as usize) {
                Some(Priority::Skip) if pieces.contains(&piece) => Priority::Normal,
                Some(priority) => *priority,
                None => Priority::Skip,
            };
            download.set_priorities(now, of, effects);
        });
        self.next_tick = self.next_tick.min(now);
    }

    /// A peer connected before we knew what we have: it was told "nothing", so tell it now.
    fn tell_pieces_late(&mut self, conn: u32, out: &mut Vec<Output>) {
        let Phase::Active { download, .. } = &self.phase else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        for piece in download.have().iter() {
            peer.send(&Message::Have(piece));
        }
        wake(conn, peer, out);
    }

    /// Makes the peer a source of the download, with what it announced so far.
    pub(super) fn start_source(&mut self, now: Time, conn: u32, out: &mut Vec<Output>) {
        let Phase::Active { info, download } = &mut self.phase else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if peer.source.is_some() {
            return;
        }
        let Some(bits) = peer.announced_pieces(info.geometry().pieces()) else {
            let why = CloseReason::Protocol("announced pieces that do not exist".into());
            out.push(Output::Close { conn, why });
            return;
        };
        let source = download.add_source(
            now,
            &SourceOptions {
                address: Self::ban_key(peer.identity()),
                kind: SourceKind::Peer,
                fast: peer.fast,
                max_pipeline: peer.reqq,
            },
        );
        peer.source = Some(source);
        let choked = peer.choked;
        self.sources.insert(source, SourceOwner::Peer(conn));
        self.with_download(now, out, |download, effects| {
            if bits.is_full() && !bits.is_empty() {
                download.on_have_all(now, source, effects);
            } else if bits.count() > 0 {
                download.on_bitfield(now, source, &bits, effects);
            }
            if !choked {
                download.on_unchoke(now, source, effects);
            }
        });
    }

    /// Adds a source that is asked for ranges. It has every piece and serves us, unless
    /// [`Torrent::on_range_pieces`] and [`Torrent::on_range_wait`] say otherwise.
    pub fn add_range_source(
        &mut self,
        now: Time,
        number: RangeSourceId,
        kind: SourceKind,
        max_pipeline: u32,
        out: &mut Vec<Output>,
    ) {
        let Phase::Active { download, .. } = &mut self.phase else {
            return;
        };
        let source = download.add_source(
            now,
            &SourceOptions {
                address: range_key(number),
                kind,
                fast: false,
                max_pipeline,
            },
        );
        self.sources.insert(source, SourceOwner::Range(number));
        self.range_sources.insert(number, source);
        self.with_download(now, out, |download, effects| {
            download.on_have_all(now, source, effects);
            download.on_unchoke(now, source, effects);
        });
    }

    /// A range source has these pieces only.
    pub fn on_range_pieces(
        &mut self,
        now: Time,
        number: RangeSourceId,
        pieces: &Bitfield,
        out: &mut Vec<Output>,
    ) {
        if let Some(source) = self.range_sources.get(&number).copied() {
            self.with_download(now, out, |download, effects| {
                download.on_bitfield(now, source, pieces, effects);
            });
        }
    }

    /// A range source makes us wait: what it was asked for goes to others; or it does so no longer.
    pub fn on_range_wait(
        &mut self,
        now: Time,
        number: RangeSourceId,
        waits: bool,
        out: &mut Vec<Output>,
    ) {
        if let Some(source) = self.range_sources.get(&number).copied() {
            self.with_download(now, out, |download, effects| match waits {
                true => download.on_choke(now, source, effects),
                false => download.on_unchoke(now, source, effects),
            });
        }
    }

    /// Blocks that a range source was asked for and does not send.
    pub fn on_range_missed(
        &mut self,
        now: Time,
        number: RangeSourceId,
        blocks: &[Block],
        out: &mut Vec<Output>,
    ) {
        if let Some(source) = self.range_sources.get(&number).copied() {
            self.with_download(now, out, |download, effects| {
                for block in blocks {
                    download.on_reject(now, source, *block, effects);
                }
            });
        }
    }

    /// A range source is gone, or must rest; what it was asked for goes to others.
    pub fn remove_range_source(&mut self, now: Time, number: RangeSourceId, out: &mut Vec<Output>) {
        if let Some(source) = self.range_sources.remove(&number) {
            self.drop_source(now, source, out);
        }
    }

    /// How many range sources are in use.
    pub fn range_source_count(&self) -> usize {
        self.range_sources.len()
    }

    /// Requests open with a range source.
    pub fn range_requests(&self, number: RangeSourceId) -> u32 {
        let source = self.range_sources.get(&number);
        let download = self.download();
        (download.zip(source)).map_or(0, |(download, source)| download.pipeline(*source).0)
    }

    /// Bytes a second that come from a range source.
    pub fn range_rate(&self, number: RangeSourceId) -> u64 {
        let source = self.range_sources.get(&number);
        let download = self.download();
        (download.zip(source)).map_or(0, |(download, source)| download.rate(*source))
    }

    pub(super) fn drop_source(&mut self, now: Time, source: SourceId, out: &mut Vec<Output>) {
        self.sources.remove(&source);
        self.with_download(now, out, |download, effects| {
            download.remove_source(now, source, effects);
        });
    }

    /// Carries out what the metadata exchange asks for.
    pub(super) fn metadata_effects(
        &mut self,
        now: Time,
        effects: Vec<MetadataOutput>,
        out: &mut Vec<Output>,
    ) {
        for effect in effects {
            match effect {
                MetadataOutput::Request { peer, piece } => {
                    self.send_metadata(peer, MetadataMessage::Request { piece }, out);
                }
                MetadataOutput::Done(raw) => self.metadata_complete(now, &raw, out),
                MetadataOutput::Drop { peer } => {
                    let why = CloseReason::Protocol("useless for metadata".into());
                    out.push(Output::Close { conn: peer, why });
                }
                MetadataOutput::Ban { peer } => {
                    if let Some(addr) = self.peers.get(&peer).map(Peer::identity) {
                        self.book.ban(addr);
                        out.push(Output::Close {
                            conn: peer,
                            why: CloseReason::Corrupt,
                        });
                        out.push(Output::Banned(addr));
                    }
                }
            }
        }
    }

    pub(super) fn send_metadata(
        &mut self,
        conn: u32,
        message: MetadataMessage<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        if let Some(id) = peer.ids.get(Extension::Metadata) {
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

    fn metadata_complete(&mut self, now: Time, raw: &[u8], out: &mut Vec<Output>) {
        // The bytes match the info-hash, so what is wrong with them is the torrent's own fault.
        match Info::parse(raw) {
            Ok(info) => {
                self.private = info.private;
                self.phase = Phase::Loading(Box::new(info.clone()));
                out.push(Output::Metadata(Box::new(info)));
            }
            Err(error) => out.push(Output::BadMetadata(error)),
        }
        self.next_tick = self.next_tick.min(now);
    }
}
