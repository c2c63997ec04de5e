//! What the torrent knows of one connected peer.

use crate::extension::ExtensionIds;
use crate::handshake::Handshake;
use crate::metadata::MetadataServe;
use crate::peers::is_overlay;
use crate::pex::{PexInbox, PexReader, PexState};
use crate::wire::{self, Message};
use shoal_base::{Bitfield, PeerId, RateMeter, Time};
use shoal_content::Block;
use shoal_content::download::SourceId;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a peer said it has, before we know how many pieces there are.
#[derive(Debug, Default)]
pub(super) enum Announced {
    #[default]
    Nothing,
    All,
    /// A BITFIELD payload, checked once the number of pieces is known.
    Bits(Vec<u8>),
}

/// One connection after its handshake.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// Where it can be dialled, as far as known.
    pub(super) listen: Option<SocketAddr>,
    /// Where it says that it is reached by the overlay.
    pub(super) overlay: Option<SocketAddr>,
    pub(super) outgoing: bool,
    pub(super) id: PeerId,
    pub(super) fast: bool,
    pub(super) extended: bool,
    /// The ids it gave our extension messages.
    pub(super) ids: ExtensionIds,
    /// How many requests it lets us queue.
    pub(super) reqq: u32,
    pub(super) client: String,
    pub(super) upload_only: bool,
    pub(super) announced: Announced,
    /// HAVEs that came before we knew the number of pieces; bounded.
    pub(super) early_haves: Vec<u32>,
    pub(super) source: Option<SourceId>,
    /// Whether it has told all its pieces at once (BITFIELD, HAVE_ALL or HAVE_NONE).
    pub(super) told_pieces: bool,
    /// It has told where its node of the DHT listens.
    pub(super) told_dht: bool,

    /// We choke it.
    pub(super) choking: bool,
    /// It chokes us.
    pub(super) choked: bool,
    /// It wants pieces of ours.
    pub(super) wants: bool,
    /// We told it that we want pieces of its.
    pub(super) interested: bool,
    pub(super) unchoked_at: Option<Time>,
    /// Bytes sent since it was last unchoked.
    pub(super) sent_in_turn: u64,
    /// Pieces it may request while choked (BEP 6).
    pub(super) allowed: Vec<u32>,

    /// Encoded control messages not yet taken by the driver.
    pub(super) out: Vec<u8>,
    /// Whether the driver was told that there is something to send.
    pub(super) woken: bool,
    /// Blocks it asked for, in the order to be served.
    pub(super) uploads: VecDeque<Block>,

    pub(super) down: RateMeter,
    pub(super) up: RateMeter,
    pub(super) connected_at: Time,
    pub(super) received_at: Time,
    pub(super) sent_at: Time,
    pub(super) pex: PexState,
    pub(super) pex_inbox: PexInbox,
    /// What of the metadata it may still be sent.
    pub(super) metadata: MetadataServe,
    /// Harmless nonsense counted against it.
    pub(super) offences: u32,
}

impl Peer {
    pub(super) fn new(now: Time, addr: SocketAddr, outgoing: bool, theirs: &Handshake) -> Self {
        Self {
            addr,
            listen: outgoing.then_some(addr),
            overlay: None,
            outgoing,
            id: theirs.peer_id,
            fast: theirs.reserved.fast,
            extended: theirs.reserved.extension,
            ids: ExtensionIds::default(),
            reqq: 250,
            client: String::new(),
            upload_only: false,
            announced: Announced::Nothing,
            early_haves: Vec::new(),
            source: None,
            told_pieces: false,
            told_dht: false,
            choking: true,
            choked: true,
            wants: false,
            interested: false,
            unchoked_at: None,
            sent_in_turn: 0,
            allowed: Vec::new(),
            out: Vec::new(),
            woken: false,
            uploads: VecDeque::new(),
            down: RateMeter::new(now),
            up: RateMeter::new(now),
            connected_at: now,
            received_at: now,
            sent_at: now,
            pex: PexState::new(),
            pex_inbox: PexInbox::new(),
            metadata: MetadataServe::new(),
            offences: 0,
        }
    }

    /// The address it is known by: where it listens if that is known, else where it came from.
    pub(super) fn identity(&self) -> SocketAddr {
        self.listen.unwrap_or(self.addr)
    }

    /// Who it is to peer exchange.
    pub(super) fn pex_reader(&self) -> PexReader {
        let came_by_it = Some(self.identity()).filter(|a| is_overlay(a.ip()));
        PexReader {
            listen: self.listen,
            overlay: self.overlay.or(came_by_it),
        }
    }

    pub(super) fn send(&mut self, message: &Message<'_>) {
        wire::encode(message, &mut self.out);
    }

    /// What it announced, now that the number of pieces is known; none if that was nonsense.
    pub(super) fn announced_pieces(&mut self, pieces: u32) -> Option<Bitfield> {
        let mut bits = match std::mem::take(&mut self.announced) {
            Announced::Nothing => Bitfield::new(pieces),
            Announced::All => Bitfield::full(pieces),
            Announced::Bits(bytes) => Bitfield::from_bytes(&bytes, pieces)?,
        };
        for piece in std::mem::take(&mut self.early_haves) {
            if piece >= pieces {
                return None;
            }
            bits.set(piece);
        }
        Some(bits)
    }

    /// Whether there is anything for the driver to send.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.uploads.is_empty()
    }
}
