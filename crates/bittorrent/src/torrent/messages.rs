//! What peers say, and the beginning and end of a connection.

use super::peer::{Announced, Peer};
use super::{CloseReason, ConnId, Output, Phase, Torrent, wake};
use crate::extension::{
    Extension, ExtensionHandshake, ExtensionIds, OUR_REQUEST_QUEUE, decode_dont_have,
    decode_upload_only,
};
use crate::fast::{ALLOWED_FAST_LEN, allowed_fast_set};
use crate::handshake::Handshake;
use crate::metadata::{MetadataAnswer, MetadataMessage};
use crate::peers::{Ended, PeerRefusal, Sources, keeps_ours};
use crate::pex::PexFlags;
use crate::wire::Message;
use shoal_base::{Bitfield, Time};
use std::net::{IpAddr, SocketAddr};

/// The id of the extension handshake itself (BEP 10).
const EXTENSION_HANDSHAKE: u8 = 0;
/// Harmless nonsense a peer may send before it is dropped.
const MAX_OFFENCES: u32 = 64;
/// HAVEs kept from a peer before the metadata is known.
const MAX_EARLY_HAVES: usize = 4096;

impl Torrent {
    /// A connection finished its handshake. On refusal a [`Output::Close`] follows.
    pub fn on_connected(
        &mut self,
        now: Time,
        conn: ConnId,
        addr: SocketAddr,
        outgoing: bool,
        theirs: &Handshake,
        out: &mut Vec<Output>,
    ) {
        // Two peers may dial each other at once; both must keep the same one of the two connections.
        let ours_stays = keeps_ours(self.our_id, theirs.peer_id);
        let twin = self
            .peers
            .iter()
            .find(|(_, p)| p.id == theirs.peer_id && p.addr.ip() == addr.ip())
            .map(|(old, p)| (*old, p.outgoing != outgoing && outgoing == ours_stays));
        let refusal = if theirs.peer_id == self.our_id {
            self.book.on_self(addr);
            Some(CloseReason::Ourselves)
        } else if self.book.is_banned(addr) {
            Some(CloseReason::Corrupt)
        } else if let Some((old, _)) = twin.filter(|(_, keep_new)| !keep_new) {
            tracing::trace!(conn, old, "a second connection to the same peer");
            Some(CloseReason::Duplicate)
        } else if self.peers.len() >= self.config.max_peers || !self.accepts_connections() {
            Some(CloseReason::Full)
        } else {
            None
        };
        if let Some(why) = refusal {
            if outgoing && why != CloseReason::Ourselves {
                self.book.on_ended(now, addr, Ended::Useless);
            }
            out.push(Output::Close { conn, why });
            return;
        }
        if let Some((conn, _)) = twin {
            let why = CloseReason::Duplicate;
            out.push(Output::Close { conn, why });
        }
        let mut peer = Peer::new(now, addr, outgoing, theirs);
        if outgoing {
            self.book.on_connected(addr);
        }
        if let Phase::Active { download, info } = &self.phase {
            let have = download.have();
            if peer.fast && have.is_full() && !have.is_empty() {
                peer.send(&Message::HaveAll);
            } else if have.count() > 0 {
                peer.send(&Message::Bitfield(have.as_bytes()));
            } else if peer.fast {
                peer.send(&Message::HaveNone);
            }
            if peer.fast && !download.is_finished() {
                let pieces = info.geometry().pieces();
                if let IpAddr::V4(ip) = addr.ip().to_canonical() {
                    peer.allowed = allowed_fast_set(ip, &self.info_hash, pieces, ALLOWED_FAST_LEN);
                }
                peer.allowed.retain(|p| have.get(*p));
                for piece in peer.allowed.clone() {
                    peer.send(&Message::AllowedFast(piece));
                }
            }
        } else if peer.fast {
            peer.send(&Message::HaveNone);
        }
        if let (Some(port), true, false) = (self.dht_port, theirs.reserved.dht, self.private) {
            peer.send(&Message::Port(port));
        }
        if peer.extended {
            let mut payload = Vec::new();
            self.extension_handshake(addr).encode(&mut payload);
            peer.send(&Message::Extended {
                id: EXTENSION_HANDSHAKE,
                payload: &payload,
            });
        }
        wake(conn, &mut peer, out);
        self.peers.insert(conn, peer);
        self.start_source(now, conn, out);
    }

    fn extension_handshake(&self, to: SocketAddr) -> ExtensionHandshake {
        ExtensionHandshake {
            ids: ExtensionIds::ours(self.private),
            port: self.config.listen_port,
            metadata_size: self.info().map(|i| i.raw().len() as u32),
            reqq: Some(OUR_REQUEST_QUEUE),
            upload_only: Some(self.is_finished()),
            yourip: Some(to.ip()),
            client: Some(self.config.client.clone()),
            overlay: self.overlay,
            ..ExtensionHandshake::default()
        }
    }

    /// A connection is gone, for whatever reason.
    pub fn on_disconnected(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.remove(&conn) else {
            return;
        };
        if let Phase::Metadata(fetch) = &mut self.phase {
            let mut effects = Vec::new();
            fetch.on_gone(now, conn, &mut effects);
            self.metadata_effects(now, effects, out);
        }
        if let Some(source) = peer.source {
            self.drop_source(now, source, out);
        }
        if let Some(listen) = peer.listen {
            let useful = peer.down.total() > 0 || peer.up.total() > 0;
            let how = if useful {
                Ended::Useful
            } else {
                Ended::Useless
            };
            self.book.on_ended(now, listen, how);
        }
        if !peer.choking {
            self.refill_slots = true;
        }
        self.next_tick = self.next_tick.min(now);
    }

    /// A message other than a piece arrived.
    pub fn on_message(
        &mut self,
        now: Time,
        conn: ConnId,
        message: &Message<'_>,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.received_at = now;
        let source = peer.source;
        let needs_fast = matches!(
            message,
            Message::HaveAll
                | Message::HaveNone
                | Message::Reject(_)
                | Message::AllowedFast(_)
                | Message::Suggest(_)
        );
        if needs_fast && !peer.fast {
            return self.protocol_error(
                conn,
                "fast message without the fast extension".into(),
                out,
            );
        }
        // Meant to be said once, at the start; real clients say it again, but not without end.
        let lists = matches!(
            message,
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone
        );
        let again = lists && std::mem::replace(&mut peer.told_pieces, true);
        match message {
            Message::KeepAlive | Message::Suggest(_) => {}
            Message::Port(port) => {
                let addr = SocketAddr::new(peer.addr.ip(), *port);
                // Once: who changes its port has a new connection to tell it on.
                if !std::mem::replace(&mut peer.told_dht, true) && *port != 0 && !self.private {
                    out.push(Output::DhtNode(addr));
                }
            }
            Message::Choke => {
                peer.choked = true;
                self.with_source(now, source, out, |d, s, e| d.on_choke(now, s, e));
            }
            Message::Unchoke => {
                peer.choked = false;
                self.with_source(now, source, out, |d, s, e| d.on_unchoke(now, s, e));
            }
            Message::Interested => {
                peer.wants = true;
                if peer.choking {
                    // A free slot is filled at once, not at the next turn of the choker.
                    self.refill_slots = true;
                    self.next_tick = self.next_tick.min(now);
                }
            }
            Message::NotInterested => {
                peer.wants = false;
                if !peer.choking {
                    self.refill_slots = true;
                    self.next_tick = self.next_tick.min(now);
                }
            }
            Message::Have(piece) => self.on_have(now, conn, *piece, out),
            Message::Bitfield(bytes) => self.on_bitfield(now, conn, bytes, out),
            Message::HaveAll => match source {
                Some(_) => {
                    self.with_source(now, source, out, |d, s, e| d.on_have_all(now, s, e));
                    self.close_if_both_complete(now, conn, out);
                }
                None => peer.announced = Announced::All,
            },
            Message::HaveNone => {}
            Message::Reject(block) => {
                self.with_source(now, source, out, |d, s, e| d.on_reject(now, s, *block, e));
            }
            Message::AllowedFast(piece) => {
                let piece = *piece;
                self.with_source(now, source, out, |d, s, e| {
                    d.on_allowed_fast(now, s, piece, e);
                });
            }
            Message::Request(block) => self.on_request(conn, *block, out),
            Message::Cancel(block) => self.on_cancel(conn, *block, out),
            Message::Extended { id, payload } => self.on_extended(now, conn, *id, payload, out),
            Message::Piece { .. } => {
                debug_assert!(false, "the driver hands pieces to on_block");
            }
            Message::Unknown { .. } => self.offence(conn, "unknown messages", out),
        }
        if again {
            self.offence(conn, "all its pieces", out);
        }
    }

    fn with_source(
        &mut self,
        now: Time,
        source: Option<shoal_content::download::SourceId>,
        out: &mut Vec<Output>,
        change: impl FnOnce(
            &mut shoal_content::download::Download,
            shoal_content::download::SourceId,
            &mut Vec<shoal_content::download::DownloadOutput>,
        ),
    ) {
        if let Some(source) = source {
            self.with_download(now, out, |download, effects| {
                change(download, source, effects);
            });
        }
    }

    fn on_have(&mut self, now: Time, conn: ConnId, piece: u32, out: &mut Vec<Output>) {
        let pieces = self.download().map(|d| d.geometry().pieces());
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        match (pieces, peer.source) {
            (Some(pieces), _) if piece >= pieces => {
                self.protocol_error(conn, format!("has piece {piece} of {pieces}"), out);
            }
            (Some(_), Some(source)) => {
                self.with_download(now, out, |d, e| d.on_have(now, source, piece, e));
                self.close_if_both_complete(now, conn, out);
            }
            _ if peer.early_haves.len() < MAX_EARLY_HAVES => peer.early_haves.push(piece),
            _ => self.protocol_error(conn, "too many HAVE before the metadata".into(), out),
        }
    }

    fn on_bitfield(&mut self, now: Time, conn: ConnId, bytes: &[u8], out: &mut Vec<Output>) {
        let pieces = self.download().map(|d| d.geometry().pieces());
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let (Some(pieces), Some(source)) = (pieces, peer.source) else {
            peer.announced = Announced::Bits(bytes.to_vec());
            return;
        };
        let Some(bits) = Bitfield::from_bytes(bytes, pieces) else {
            let why = format!(
                "bitfield of {} bytes does not fit {pieces} pieces",
                bytes.len()
            );
            return self.protocol_error(conn, why, out);
        };
        self.with_download(now, out, |d, e| {
            if bits.is_full() && !bits.is_empty() {
                d.on_have_all(now, source, e);
            } else {
                d.on_bitfield(now, source, &bits, e);
            }
        });
        self.close_if_both_complete(now, conn, out);
    }

    fn on_extended(
        &mut self,
        now: Time,
        conn: ConnId,
        id: u8,
        payload: &[u8],
        out: &mut Vec<Output>,
    ) {
        if id == EXTENSION_HANDSHAKE {
            return match ExtensionHandshake::decode(payload) {
                Ok(handshake) => self.on_extension_handshake(now, conn, handshake, out),
                Err(error) => self.protocol_error(conn, error.to_string(), out),
            };
        }
        match Extension::from_id(id) {
            Some(Extension::Metadata) => self.on_metadata(now, conn, payload, out),
            Some(Extension::Pex) => self.on_pex(now, conn, payload, out),
            Some(Extension::DontHave) => match decode_dont_have(payload) {
                Ok(piece) => {
                    let source = self.peers.get(&conn).and_then(|p| p.source);
                    self.with_source(now, source, out, |d, s, e| d.on_lost(now, s, piece, e));
                }
                Err(error) => self.protocol_error(conn, error.to_string(), out),
            },
            Some(Extension::UploadOnly) => match decode_upload_only(payload) {
                Ok(flag) => {
                    if let Some(peer) = self.peers.get_mut(&conn) {
                        peer.upload_only = flag;
                    }
                    self.close_if_both_complete(now, conn, out);
                }
                Err(error) => self.protocol_error(conn, error.to_string(), out),
            },
            None => self.offence(conn, "unknown extension messages", out),
        }
    }

    fn on_extension_handshake(
        &mut self,
        now: Time,
        conn: ConnId,
        theirs: ExtensionHandshake,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.ids.merge(&theirs.ids);
        if let Some(reqq) = theirs.reqq {
            peer.reqq = reqq.max(1);
            let (source, reqq) = (peer.source, peer.reqq);
            self.with_source(now, source, out, |d, s, _| d.set_max_pipeline(s, reqq));
        }
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if let Some(flag) = theirs.upload_only {
            peer.upload_only = flag;
        }
        if let (Some(ours), Some(port)) = (theirs.yourip, self.config.listen_port) {
            self.book.on_yourip(peer.addr.ip(), ours, port);
        }
        if theirs.overlay.is_some() {
            peer.overlay = theirs.overlay;
        }
        if let Some(client) = theirs.client {
            peer.client = client;
        }
        if let (None, Some(port)) = (peer.listen, theirs.port) {
            let listen = SocketAddr::new(peer.addr.ip(), port);
            let id = peer.id;
            match self.book.on_listen_addr(now, listen) {
                Ok(()) => peer.listen = Some(listen),
                Err(PeerRefusal::Banned) => {
                    return out.push(Output::Close {
                        conn,
                        why: CloseReason::Corrupt,
                    });
                }
                // The dial may yet fail, so that what works is not closed for it. If it comes to
                // handshakes, both sides drop the same one of the two.
                Err(PeerRefusal::Connected) if self.book.is_opening(listen) => {
                    if !keeps_ours(self.our_id, id) {
                        self.book.on_connected(listen);
                        peer.listen = Some(listen);
                        out.push(Output::GiveUpDial(listen));
                    }
                }
                Err(PeerRefusal::Connected) if keeps_ours(self.our_id, id) => {
                    return out.push(Output::Close {
                        conn,
                        why: CloseReason::Duplicate,
                    });
                }
                Err(_) => {}
            }
        }
        if let (Phase::Metadata(fetch), Some(size), true) = (
            &mut self.phase,
            theirs.metadata_size,
            theirs.ids.get(Extension::Metadata).is_some(),
        ) {
            let mut effects = Vec::new();
            fetch.on_peer(now, conn, size, &mut effects);
            self.metadata_effects(now, effects, out);
        }
        self.close_if_both_complete(now, conn, out);
    }

    fn on_metadata(&mut self, now: Time, conn: ConnId, payload: &[u8], out: &mut Vec<Output>) {
        let message = match MetadataMessage::decode(payload) {
            Ok(message) => message,
            Err(error) => return self.protocol_error(conn, error.to_string(), out),
        };
        let mut effects = Vec::new();
        match (message, &mut self.phase) {
            (MetadataMessage::Request { piece }, phase) => {
                let info = match phase {
                    Phase::Metadata(_) => None,
                    Phase::Loading(info) | Phase::Active { info, .. } => Some(info.clone()),
                };
                let Some(peer) = self.peers.get_mut(&conn) else {
                    return;
                };
                let raw = info.as_ref().map(|i| i.raw());
                match peer.metadata.on_request(now, piece, raw) {
                    MetadataAnswer::Send(answer) => self.send_metadata(conn, answer, out),
                    MetadataAnswer::Flood => {
                        self.protocol_error(conn, "floods us with metadata requests".into(), out);
                    }
                }
            }
            (
                MetadataMessage::Data {
                    piece,
                    total_size,
                    data,
                },
                Phase::Metadata(fetch),
            ) => {
                fetch.on_data(now, conn, piece, total_size, data, &mut effects);
            }
            (MetadataMessage::Reject { piece }, Phase::Metadata(fetch)) => {
                fetch.on_reject(now, conn, piece, &mut effects);
            }
            _ => {}
        }
        self.metadata_effects(now, effects, out);
    }

    fn on_pex(&mut self, now: Time, conn: ConnId, payload: &[u8], out: &mut Vec<Output>) {
        if self.private {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        match peer.pex_inbox.on_message(now, peer.addr.ip(), payload) {
            Ok(message) => {
                let addrs: Vec<_> = message.added.iter().map(|a| a.addr).collect();
                self.on_peers(now, Sources::PEX, &addrs);
                for added in message.added {
                    self.book
                        .set_seed(added.addr, added.flags.has(PexFlags::SEED));
                }
            }
            Err(fault) => self.protocol_error(conn, fault.to_string(), out),
        }
    }

    pub(super) fn protocol_error(&mut self, conn: ConnId, why: String, out: &mut Vec<Output>) {
        out.push(Output::Close {
            conn,
            why: CloseReason::Protocol(why),
        });
    }

    fn offence(&mut self, conn: ConnId, what: &str, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.offences += 1;
            if peer.offences > MAX_OFFENCES {
                self.protocol_error(conn, format!("keeps sending {what}"), out);
            }
        }
    }
}
