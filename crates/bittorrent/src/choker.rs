//! Whom to serve: tit-for-tat while downloading, taking turns while seeding (BEP 3, "choking").
//!
//! The choker sees one torrent's peers every ten seconds and says whom to choke and unchoke.
//! Slots: at least four, more as the upload can carry more. While downloading they go to the
//! peers that gave most, and one more to each peer in turn (optimistic) for thirty seconds. While
//! seeding, newcomers come first, and whoever has had its share waits behind those who have not.
//! Between rounds free slots are filled at once ([`Choker::fill`]).

use shoal_base::{Rng, Time};
use std::time::Duration;

/// BEP 3: "change choking every ten seconds".
const RECHOKE_EVERY: Duration = Duration::from_secs(10);
/// BEP 3: "optimistic unchokes rotate every 30 seconds".
const OPTIMISTIC_EVERY: Duration = Duration::from_secs(30);
/// BEP 3: "newly connected peers are three times as likely to start as the current optimistic
/// unchoke".
const NEW_PEER_WEIGHT: usize = 3;
/// How long a peer counts as newly connected.
const NEW_PEER_FOR: Duration = Duration::from_secs(60);
/// A peer from whom nothing came for so long, though asked, has snubbed us.
const SNUBBED_AFTER: Duration = Duration::from_secs(60);
/// While seeding, a turn lasts at least this long …
const TURN_TIME: Duration = Duration::from_secs(30);
/// … and this many bytes …
const TURN_BYTES: u64 = 8 * 1024 * 1024;
/// … but no longer than this, however slow the peer.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// Slots when nothing is known of the capacity.
const MIN_SLOTS: usize = 4;
/// Slots to begin with when the upload has no limit.
const UNLIMITED_SLOTS: usize = 8;
/// Most slots, whatever the capacity.
const MAX_SLOTS: usize = 64;

/// Who is served while downloading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choking {
    /// Who gives most (BEP 3).
    #[default]
    TitForTat,
    /// Interested peers drawn anew each round, whatever they give: what tit-for-tat is measured
    /// against. Who gives nothing fares as well as who gives much.
    Random,
}

/// A peer as the choker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokePeer {
    /// The caller's name for it.
    pub key: u32,
    /// It wants something from us.
    pub interested: bool,
    /// We are choking it now.
    pub choked: bool,
    /// It neither downloads nor will (a seed, or upload-only): never served.
    pub upload_only: bool,
    /// Bytes a second received from it, over the last 10-20 s.
    pub rate_down: u64,
    /// Bytes a second sent to it.
    pub rate_up: u64,
    /// We asked and it sends nothing; see [`is_snubbed`].
    pub snubbed: bool,
    /// When the connection was made.
    pub connected_at: Time,
    /// When it was last unchoked; none if never.
    pub unchoked_at: Option<Time>,
    /// Bytes sent to it since then.
    pub sent_in_turn: u64,
    /// Bytes sent to it in all.
    pub sent: u64,
}

/// What the upload can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Upload {
    /// The limit in bytes a second, if there is one.
    pub limit: Option<u64>,
    /// Bytes a second sent now, by this torrent.
    pub rate: u64,
}

impl Upload {
    /// How many peers are served at once, optimistic ones included: grows with the square root of
    /// the capacity, so that each slot's share grows too.
    pub fn slots(&self) -> usize {
        let (capacity, least) = match self.limit {
            Some(limit) => (limit, MIN_SLOTS),
            None => (self.rate, UNLIMITED_SLOTS),
        };
        let kib = capacity as f64 / 1024.0;
        ((0.6 * kib).sqrt() as usize).clamp(least, MAX_SLOTS)
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChokeChange {
    /// Stop serving the peer.
    Choke(u32),
    /// Serve the peer.
    Unchoke(u32),
}

/// Whether a peer has snubbed us: requests have been waiting since `asked_at`, and it sent no
/// block for a minute. The caller then gives it fewer requests; the choker no slot but an
/// optimistic one.
pub fn is_snubbed(now: Time, asked_at: Option<Time>, last_block_at: Option<Time>) -> bool {
    asked_at
        .is_some_and(|asked| now.since(asked.max(last_block_at.unwrap_or(asked))) >= SNUBBED_AFTER)
}

/// One torrent's choker.
#[derive(Debug)]
pub struct Choker {
    choking: Choking,
    rng: Rng,
    next_round: Time,
    next_optimistic: Time,
    /// The peer of the optimistic slot.
    optimistic: Option<u32>,
}

impl Choker {
    /// A choker that holds its first round at once.
    pub fn new(choking: Choking, rng: Rng) -> Self {
        Self {
            choking,
            rng,
            next_round: Time::ZERO,
            next_optimistic: Time::ZERO,
            optimistic: None,
        }
    }

    /// When the next round is due.
    pub fn deadline(&self) -> Time {
        self.next_round
    }

    /// Who has the optimistic slot.
    pub fn optimistic(&self) -> Option<u32> {
        self.optimistic
    }

    /// Makes the next round due at once: when the torrent turns from downloading to seeding, or
    /// the limit changes.
    pub fn hurry(&mut self) {
        self.next_round = Time::ZERO;
    }

    /// Holds a round if one is due.
    pub fn on_tick(
        &mut self,
        now: Time,
        peers: &[ChokePeer],
        seeding: bool,
        upload: Upload,
        out: &mut Vec<ChokeChange>,
    ) {
        if now < self.next_round {
            return;
        }
        self.next_round = now + RECHOKE_EVERY;
        let slots = upload.slots();
        let mut ranked: Vec<&ChokePeer> = peers.iter().filter(|p| !p.upload_only).collect();
        // Ties are broken at random, so that no peer is favoured by its place in the list.
        self.rng.shuffle(&mut ranked);
        let mut served: Vec<u32> = if seeding {
            self.optimistic = None;
            ranked.sort_by_key(|p| turn_rank(now, p));
            ranked.iter().take(slots).map(|p| p.key).collect()
        } else {
            self.turn_optimistic(now, &ranked);
            match self.choking {
                Choking::TitForTat => ranked.sort_by_key(|p| trade_rank(p)),
                Choking::Random => ranked.sort_by_key(|p| !p.interested),
            }
            let optimistic = self.optimistic;
            let mut served: Vec<u32> = ranked
                .iter()
                .filter(|p| !p.snubbed && Some(p.key) != optimistic)
                .take(slots.saturating_sub(usize::from(optimistic.is_some())))
                .map(|p| p.key)
                .collect();
            served.extend(optimistic);
            served
        };
        served.sort_unstable();
        let is_served = |key: u32| served.binary_search(&key).is_ok();
        // Chokes first: the freed capacity goes to whom it is given next.
        for peer in peers {
            if !peer.choked && !is_served(peer.key) {
                out.push(ChokeChange::Choke(peer.key));
            }
        }
        for peer in peers {
            if peer.choked && peer.interested && is_served(peer.key) {
                out.push(ChokeChange::Unchoke(peer.key));
            }
        }
    }

    /// Fills slots that are free: to be called when a peer becomes interested, so that it need
    /// not wait for the next round. Peers that are unchoked without being interested give way.
    pub fn fill(
        &mut self,
        peers: &[ChokePeer],
        seeding: bool,
        upload: Upload,
        out: &mut Vec<ChokeChange>,
    ) {
        let slots = upload.slots();
        let unchoked = peers.iter().filter(|p| !p.choked).count();
        let mut idle = peers.iter().filter(|p| !p.choked && !p.interested);
        let mut waiting: Vec<&ChokePeer> = peers
            .iter()
            .filter(|p| p.choked && p.interested && !p.upload_only && (seeding || !p.snubbed))
            .collect();
        if waiting.is_empty() {
            return;
        }
        self.rng.shuffle(&mut waiting);
        if seeding {
            waiting.sort_by_key(|p| p.sent);
        } else if self.choking == Choking::TitForTat {
            waiting.sort_by_key(|p| trade_rank(p));
        }
        let mut free = slots.saturating_sub(unchoked);
        for peer in waiting {
            if free > 0 {
                free -= 1;
            } else if let Some(idle) = idle.next() {
                out.push(ChokeChange::Choke(idle.key));
            } else {
                return;
            }
            out.push(ChokeChange::Unchoke(peer.key));
        }
    }

    /// Gives the optimistic slot to another peer, if its time is over or its holder is gone.
    fn turn_optimistic(&mut self, now: Time, peers: &[&ChokePeer]) {
        let holds = self
            .optimistic
            .is_some_and(|key| peers.iter().any(|p| p.key == key && p.interested));
        if holds && now < self.next_optimistic {
            return;
        }
        let previous = self.optimistic;
        let mut lots = Vec::new();
        for peer in peers.iter().filter(|p| p.interested && p.choked) {
            let new = now.since(peer.connected_at) < NEW_PEER_FOR;
            let weight = if new { NEW_PEER_WEIGHT } else { 1 };
            lots.extend(std::iter::repeat_n(peer.key, weight));
        }
        // Nobody is waiting: who has the slot keeps it.
        self.optimistic = self.rng.pick(&lots).copied().or(previous.filter(|_| holds));
        self.next_optimistic = now + OPTIMISTIC_EVERY;
    }
}

/// Downloading: who gives most is served first; who is not interested takes only what is left.
fn trade_rank(peer: &ChokePeer) -> impl Ord + use<> {
    let keeps = peer.rate_down == 0 && !peer.choked;
    (
        !peer.interested,
        std::cmp::Reverse(peer.rate_down),
        // Before anything was traded, whoever is being served stays: no flapping.
        !keeps,
    )
}

/// Seeding: the order in which peers get their turn.
fn turn_rank(now: Time, peer: &ChokePeer) -> impl Ord + use<> {
    let turn = peer.unchoked_at.map(|at| now.since(at));
    let had_its_turn = !peer.choked
        && turn.is_some_and(|t| {
            t >= LONGEST_TURN || t >= TURN_TIME && peer.sent_in_turn >= TURN_BYTES
        });
    let newcomer = now.since(peer.connected_at) < NEW_PEER_FOR && peer.sent < TURN_BYTES;
    // A turn cut short ends in the middle of a piece, which then helps nobody.
    let in_turn = !peer.choked && turn.is_some_and(|t| t < TURN_TIME);
    let class = match (had_its_turn, in_turn, newcomer, peer.choked) {
        (false, true, ..) => 0,
        (false, _, true, _) => 1,
        (false, _, false, false) => 2,
        (false, _, false, true) => 3,
        (true, ..) => 4,
    };
    // Among those waiting, who waited longest; never unchoked comes first.
    let since = peer.unchoked_at.unwrap_or(Time::ZERO);
    (!peer.interested, class, since, peer.sent)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod swarm;
