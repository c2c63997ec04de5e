//! Fetching the metadata from several peers at once, and finding who lied.
//!
//! All peers that state the same size share the work. If what they sent does not hash to the
//! info-hash, one of them lied, and it is not known who: then each is asked for the whole alone,
//! one after another. The one whose metadata verifies also shows which pieces of the others had
//! been false.

use super::{MAX_METADATA_LEN, METADATA_PIECE_LEN, metadata_piece_len, metadata_pieces};
use sha1::{Digest, Sha1};
use shoal_base::{InfoHash, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request not answered within this time goes to someone else.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that rejected or timed out is not asked again for so long; doubled each time.
const REST: Duration = Duration::from_secs(5);
/// Requests in flight to one peer.
const PIPELINE: usize = 4;
/// Most peers taken part at once.
const MAX_PEERS: usize = 200;
/// Pieces of failed attempts whose senders are remembered.
const MAX_EVIDENCE: usize = 8192;
/// Sizes remembered as having failed with several peers.
const MAX_DISTRUSTED: usize = 32;
/// Messages that nobody asked for, after which a peer is dropped.
const MAX_UNASKED: u32 = 50;

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataOutput {
    /// Send the peer a request for the piece.
    Request {
        /// The caller's name for the peer.
        peer: u32,
        /// The metadata piece.
        piece: u32,
    },
    /// The peer sent false metadata: close the connection and ban its address.
    Ban {
        /// The caller's name for the peer.
        peer: u32,
    },
    /// The peer floods us: close the connection.
    Drop {
        /// The caller's name for the peer.
        peer: u32,
    },
    /// The verified info dictionary. Nothing comes after it.
    Done(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Peer {
    size: u32,
    /// Not asked before this.
    rests_until: Time,
    troubles: u32,
    unasked: u32,
    in_flight: usize,
    /// It gave the whole alone and it was false, or it lied about a piece.
    liar: bool,
}

#[derive(Clone, Debug)]
enum Piece {
    Missing,
    Asked { peer: u32, at: Time },
    Here { peer: u32, data: Box<[u8]> },
}

/// Pieces being gathered, of metadata of one stated size.
#[derive(Debug)]
struct Attempt {
    size: u32,
    pieces: Vec<Piece>,
    missing: usize,
    /// Only this peer is asked, as an attempt with several failed.
    alone: Option<u32>,
}

impl Attempt {
    /// Whether the peer may be asked for its pieces.
    fn takes(&self, key: u32, peer: &Peer) -> bool {
        peer.size == self.size && self.alone.is_none_or(|alone| alone == key)
    }
}

/// Fetches and verifies one info dictionary.
#[derive(Debug)]
pub struct MetadataFetch {
    info_hash: InfoHash,
    peers: BTreeMap<u32, Peer>,
    attempt: Option<Attempt>,
    /// Who sent which piece in attempts that failed: to tell the liars when the truth is known.
    evidence: Vec<Evidence>,
    /// Attempts with several peers failed for this size: from now on one at a time.
    distrusted: Vec<u32>,
    done: bool,
    /// When requests were last given out.
    ticked: Time,
}

#[derive(Debug)]
struct Evidence {
    peer: u32,
    piece: u32,
    size: u32,
    digest: [u8; 20],
}

fn digest(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

impl MetadataFetch {
    /// Fetches the dictionary whose SHA-1 is `info_hash`.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            peers: BTreeMap::new(),
            attempt: None,
            evidence: Vec::new(),
            distrusted: Vec::new(),
            done: false,
            ticked: Time::ZERO,
        }
    }

    /// Whether the dictionary was found.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Pieces that are here, and how many there are, of the attempt under way.
    pub fn progress(&self) -> (u32, u32) {
        self.attempt.as_ref().map_or((0, 0), |a| {
            let all = a.pieces.len();
            ((all - a.missing) as u32, all as u32)
        })
    }

    /// A peer speaks `ut_metadata` and states `size`. May be called again when it states another.
    pub fn on_peer(&mut self, now: Time, peer: u32, size: u32, out: &mut Vec<MetadataOutput>) {
        if self.done || size == 0 || size > MAX_METADATA_LEN {
            return;
        }
        if self
            .peers
            .get(&peer)
            .is_some_and(|known| known.size != size)
        {
            self.on_gone(now, peer, out);
        }
        if self.peers.len() < MAX_PEERS {
            self.peers.entry(peer).or_insert(Peer {
                size,
                rests_until: now,
                troubles: 0,
                unasked: 0,
                in_flight: 0,
                liar: false,
            });
        }
        self.ask(now, out);
    }

    /// The connection has ended.
    pub fn on_gone(&mut self, now: Time, peer: u32, out: &mut Vec<MetadataOutput>) {
        self.peers.remove(&peer);
        // Its name may be given to another.
        self.evidence.retain(|e| e.peer != peer);
        if let Some(attempt) = &mut self.attempt {
            if attempt.alone == Some(peer) {
                self.attempt = None;
            } else {
                for piece in &mut attempt.pieces {
                    if matches!(piece, Piece::Asked { peer: p, .. } if *p == peer) {
                        *piece = Piece::Missing;
                    }
                }
            }
        }
        self.ask(now, out);
    }

    /// A piece has come; `total_size` is zero if the message did not say.
    pub fn on_data(
        &mut self,
        now: Time,
        peer: u32,
        piece: u32,
        total_size: u32,
        data: &[u8],
        out: &mut Vec<MetadataOutput>,
    ) {
        if !self.answered(peer, piece, out) {
            return;
        }
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let fits = data.len() as u32 == metadata_piece_len(attempt.size, piece)
            && (total_size == 0 || total_size == attempt.size);
        if fits {
            if let Some(slot) = attempt.pieces.get_mut(piece as usize) {
                let data = data.into();
                *slot = Piece::Here { peer, data };
                attempt.missing -= 1;
            }
            if let Some(peer) = self.peers.get_mut(&peer) {
                (peer.troubles, peer.unasked) = (0, 0);
            }
        } else {
            self.trouble(now, peer);
        }
        if self.attempt.as_ref().is_some_and(|a| a.missing == 0) {
            self.verify(out);
        }
        self.ask(now, out);
    }

    /// The peer will not give the piece.
    pub fn on_reject(&mut self, now: Time, peer: u32, piece: u32, out: &mut Vec<MetadataOutput>) {
        if self.answered(peer, piece, out) {
            self.trouble(now, peer);
            self.ask(now, out);
        }
    }

    /// Takes back what was not answered in time and asks others. To be called at the deadline.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<MetadataOutput>) {
        let mut late = Vec::new();
        if let Some(attempt) = &mut self.attempt {
            for piece in &mut attempt.pieces {
                if let Piece::Asked { peer, at } = *piece
                    && now.since(at) >= TIMEOUT
                {
                    *piece = Piece::Missing;
                    late.push(peer);
                }
            }
        }
        for peer in &late {
            if let Some(peer) = self.peers.get_mut(peer) {
                peer.in_flight = peer.in_flight.saturating_sub(1);
            }
        }
        late.dedup();
        for peer in late {
            self.trouble(now, peer);
        }
        self.ask(now, out);
    }

    /// When [`MetadataFetch::on_tick`] is due; none while it waits for peers alone.
    pub fn deadline(&self) -> Option<Time> {
        if self.done {
            return None;
        }
        let asked = self.attempt.iter().flat_map(|a| &a.pieces);
        let timeout = asked.filter_map(|p| match p {
            Piece::Asked { at, .. } => Some(*at + TIMEOUT),
            _ => None,
        });
        let rest = self
            .peers
            .values()
            .filter(|p| !p.liar && p.rests_until > self.ticked)
            .map(|p| p.rests_until);
        timeout.chain(rest).min()
    }

    /// Settles the request that an answer belongs to; false if there was none.
    fn answered(&mut self, peer: u32, piece: u32, out: &mut Vec<MetadataOutput>) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else {
            return false;
        };
        let slot = self
            .attempt
            .as_mut()
            .and_then(|a| a.pieces.get_mut(piece as usize))
            .filter(|slot| matches!(**slot, Piece::Asked { peer: p, .. } if p == peer));
        if let Some(slot) = slot {
            *slot = Piece::Missing;
            known.in_flight = known.in_flight.saturating_sub(1);
            return true;
        }
        known.unasked += 1;
        if known.unasked == MAX_UNASKED {
            out.push(MetadataOutput::Drop { peer });
        }
        false
    }

    /// Lets a peer rest after a rejection, a timeout or a piece of the wrong size.
    fn trouble(&mut self, now: Time, peer: u32) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.rests_until = now + REST * 2u32.pow(known.troubles.min(5));
            known.troubles += 1;
        }
    }

    /// Begins an attempt if there is none, or if nobody can serve the one under way and others
    /// could serve another: with the size that most peers state.
    fn begin(&mut self, now: Time) {
        if let Some(attempt) = &self.attempt {
            let (mut goes_on, mut others) = (false, false);
            for (key, peer) in &self.peers {
                let ready = !peer.liar && peer.rests_until <= now;
                let takes_part = attempt.takes(*key, peer);
                goes_on |= takes_part && (ready || peer.in_flight > 0);
                others |= !takes_part && ready;
            }
            if goes_on || !others {
                return;
            }
            self.attempt = None;
            self.peers.values_mut().for_each(|p| p.in_flight = 0);
        }
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        let ready = |p: &&Peer| !p.liar && p.rests_until <= now;
        for peer in self.peers.values().filter(ready) {
            *votes.entry(peer.size).or_default() += 1;
        }
        let distrusted = |size: &u32| self.distrusted.contains(size);
        let best = votes
            .iter()
            .max_by_key(|(size, votes)| (!distrusted(size), **votes, std::cmp::Reverse(**size)));
        let Some((&size, _)) = best else { return };
        let alone = distrusted(&size).then(|| {
            let candidates = self
                .peers
                .iter()
                .filter(|(_, p)| p.size == size && ready(p));
            candidates
                .min_by_key(|(_, p)| p.troubles)
                .map(|(key, _)| *key)
        });
        let pieces = metadata_pieces(size) as usize;
        self.attempt = Some(Attempt {
            size,
            pieces: vec![Piece::Missing; pieces],
            missing: pieces,
            alone: alone.flatten(),
        });
    }

    /// Sends requests to whoever may be asked.
    fn ask(&mut self, now: Time, out: &mut Vec<MetadataOutput>) {
        if self.done {
            return;
        }
        self.ticked = now;
        self.begin(now);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let Attempt {
            size,
            pieces,
            alone,
            ..
        } = attempt;
        let mut missing = pieces
            .iter_mut()
            .zip(0u32..)
            .filter(|(piece, _)| matches!(piece, Piece::Missing));
        // One each in turn, so that all peers share the work.
        for _ in 0..PIPELINE {
            for (key, peer) in &mut self.peers {
                let takes_part = peer.size == *size && alone.is_none_or(|alone| alone == *key);
                let ready = !peer.liar && peer.rests_until <= now;
                if !takes_part || !ready || peer.in_flight >= PIPELINE {
                    continue;
                }
                let Some((slot, piece)) = missing.next() else {
                    return;
                };
                *slot = Piece::Asked {
                    peer: *key,
                    at: now,
                };
                peer.in_flight += 1;
                out.push(MetadataOutput::Request { peer: *key, piece });
            }
        }
    }

    /// All pieces are here: either that is it, or somebody lied.
    fn verify(&mut self, out: &mut Vec<MetadataOutput>) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let mut whole = Vec::with_capacity(attempt.size as usize);
        let mut senders = Vec::new();
        for (piece, n) in attempt.pieces.iter().zip(0u32..) {
            if let Piece::Here { peer, data } = piece {
                whole.extend_from_slice(data);
                senders.push((*peer, n, digest(data)));
            }
        }
        if digest(&whole) == *self.info_hash.as_bytes() {
            self.done = true;
            self.convict(&whole, out);
            out.push(MetadataOutput::Done(whole));
            return;
        }
        let mut several: Vec<u32> = senders.iter().map(|(peer, ..)| *peer).collect();
        several.sort_unstable();
        several.dedup();
        if let [only] = several[..] {
            self.ban(only, out);
            return;
        }
        if !self.distrusted.contains(&attempt.size) {
            self.distrusted.push(attempt.size);
            if self.distrusted.len() > MAX_DISTRUSTED {
                self.distrusted.remove(0);
            }
        }
        let size = attempt.size;
        for (peer, piece, digest) in senders {
            if self.evidence.len() < MAX_EVIDENCE {
                self.evidence.push(Evidence {
                    peer,
                    piece,
                    size,
                    digest,
                });
            }
        }
    }

    /// With the truth at hand, bans who had sent something else.
    fn convict(&mut self, truth: &[u8], out: &mut Vec<MetadataOutput>) {
        let pieces: Vec<_> = truth
            .chunks(METADATA_PIECE_LEN as usize)
            .map(digest)
            .collect();
        for e in std::mem::take(&mut self.evidence) {
            let honest =
                e.size as usize == truth.len() && pieces.get(e.piece as usize) == Some(&e.digest);
            if !honest {
                self.ban(e.peer, out);
            }
        }
    }

    fn ban(&mut self, peer: u32, out: &mut Vec<MetadataOutput>) {
        // A peer that is gone cannot be named any more: its number may be another's.
        if let Some(known) = self.peers.get_mut(&peer)
            && !known.liar
        {
            known.liar = true;
            known.in_flight = 0;
            out.push(MetadataOutput::Ban { peer });
        }
    }
}

#[cfg(test)]
mod tests;
