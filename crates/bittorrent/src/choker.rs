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
mod tests {
    use super::*;

    fn peer(key: u32) -> ChokePeer {
        ChokePeer {
            key,
            interested: true,
            choked: true,
            upload_only: false,
            rate_down: 0,
            rate_up: 0,
            snubbed: false,
            connected_at: Time::ZERO,
            unchoked_at: None,
            sent_in_turn: 0,
            sent: 0,
        }
    }

    /// A torrent whose unchoked, interested peers share the upload evenly.
    struct World {
        now: Time,
        choker: Choker,
        peers: Vec<ChokePeer>,
        seeding: bool,
        upload: Upload,
    }

    impl World {
        fn new(peers: Vec<ChokePeer>, seeding: bool, limit: Option<u64>) -> Self {
            Self {
                now: Time::from_secs(100),
                choker: Choker::new(Choking::TitForTat, Rng::from_seed(7)),
                peers,
                seeding,
                upload: Upload { limit, rate: 0 },
            }
        }

        fn apply(&mut self, changes: &[ChokeChange]) {
            for change in changes {
                let (key, choked) = match *change {
                    ChokeChange::Choke(key) => (key, true),
                    ChokeChange::Unchoke(key) => (key, false),
                };
                let peer = self.peers.iter_mut().find(|p| p.key == key).unwrap();
                assert_ne!(peer.choked, choked, "no change is said twice");
                peer.choked = choked;
                if !choked {
                    peer.unchoked_at = Some(self.now);
                    peer.sent_in_turn = 0;
                }
            }
        }

        fn round(&mut self) -> Vec<u32> {
            self.now = self.now.max(self.choker.deadline());
            let mut out = Vec::new();
            self.choker
                .on_tick(self.now, &self.peers, self.seeding, self.upload, &mut out);
            self.apply(&out);
            let served = self.served();
            let each = self.upload.limit.unwrap_or(0) * 10 / served.len().max(1) as u64;
            for peer in self.peers.iter_mut().filter(|p| !p.choked) {
                peer.sent += each;
                peer.sent_in_turn += each;
            }
            served
        }

        fn served(&self) -> Vec<u32> {
            let served = self.peers.iter().filter(|p| !p.choked && p.interested);
            served.map(|p| p.key).collect()
        }
    }

    #[test]
    fn slots_grow_with_the_square_root_of_the_capacity() {
        let slots = |limit, rate| Upload { limit, rate }.slots();
        assert_eq!(slots(Some(1), 0), 4);
        assert_eq!(slots(Some(100 * 1024), 0), 7);
        assert_eq!(slots(Some(1024 * 1024), 0), 24);
        assert_eq!(slots(Some(32 << 20), 0), MAX_SLOTS);
        assert_eq!(slots(None, 0), 8);
        assert_eq!(slots(None, 1 << 20), 24);
    }

    #[test]
    fn who_gives_most_is_served_and_one_more_in_turn() {
        let mut peers: Vec<_> = (0..10).map(peer).collect();
        for (peer, rate) in peers.iter_mut().zip(0..) {
            peer.rate_down = rate * 1000;
        }
        let mut world = World::new(peers, false, Some(20_000));
        let mut optimistic = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let served = world.round();
            assert_eq!(served.len(), 4);
            let luck = world.choker.optimistic().unwrap();
            assert!(served.contains(&luck));
            optimistic.insert(luck);
            let best = [9, 8, 7, 6].into_iter().filter(|k| *k != luck).take(3);
            assert!(best.into_iter().all(|k| served.contains(&k)));
        }
        assert!(
            optimistic.len() >= 6,
            "everyone gets a chance: {optimistic:?}"
        );
    }

    #[test]
    fn random_choking_serves_who_gives_nothing_as_often_as_who_gives_most() {
        let mut peers: Vec<_> = (0..12).map(peer).collect();
        peers[0].rate_down = 9999;
        let mut world = World::new(peers, false, Some(20_000));
        world.choker = Choker::new(Choking::Random, Rng::from_seed(7));
        let mut turns = [0; 12];
        for _ in 0..900 {
            let served = world.round();
            assert_eq!(served.len(), 4);
            served.iter().for_each(|key| turns[*key as usize] += 1);
        }
        assert!(turns.iter().all(|t| (240..360).contains(t)), "{turns:?}");
    }

    #[test]
    fn the_optimistic_slot_turns_every_thirty_seconds() {
        let mut world = World::new((0..12).map(peer).collect(), false, Some(20_000));
        for p in &mut world.peers[..3] {
            p.rate_down = 9999;
        }
        let holders: Vec<_> = (0..12)
            .map(|_| {
                world.round();
                world.choker.optimistic().unwrap()
            })
            .collect();
        for window in holders.chunks(3) {
            assert!(window.iter().all(|k| *k == window[0]), "{holders:?}");
        }
        assert!(holders.windows(2).filter(|w| w[0] != w[1]).count() >= 3);
    }

    #[test]
    fn newcomers_are_three_times_as_likely_to_be_tried() {
        let mut wins = 0;
        for seed in 0..400 {
            let now = Time::from_secs(1000);
            let mut peers = [peer(0), peer(1)];
            peers[0].connected_at = now;
            let mut choker = Choker::new(Choking::TitForTat, Rng::from_seed(seed));
            let refs: Vec<_> = peers.iter().collect();
            choker.turn_optimistic(now, &refs);
            wins += u32::from(choker.optimistic() == Some(0));
        }
        assert!((260..340).contains(&wins), "{wins} of 400");
    }

    #[test]
    fn a_snubbing_peer_gets_only_the_optimistic_slot() {
        let mut peers: Vec<_> = (0..6).map(peer).collect();
        for p in &mut peers[..3] {
            p.snubbed = true;
            p.rate_down = 1_000_000;
        }
        let mut world = World::new(peers, false, Some(20_000));
        for _ in 0..30 {
            let served = world.round();
            let snubbers = served.iter().filter(|k| **k < 3);
            assert!(snubbers.clone().count() <= 1);
            assert!(
                snubbers
                    .into_iter()
                    .all(|k| Some(*k) == world.choker.optimistic())
            );
        }
        let asked = Some(Time::from_secs(10));
        assert!(!is_snubbed(Time::from_secs(69), asked, None));
        assert!(is_snubbed(Time::from_secs(70), asked, None));
        assert!(!is_snubbed(
            Time::from_secs(90),
            asked,
            Some(Time::from_secs(40))
        ));
        assert!(!is_snubbed(Time::from_secs(900), None, None));
    }

    #[test]
    fn a_crowd_of_newcomers_does_not_cut_each_others_turns_short() {
        // A slow seed needs a turn's time for a piece.
        let mut world = World::new((0..12).map(peer).collect(), true, Some(20_000));
        for p in &mut world.peers {
            p.connected_at = world.now;
        }
        let rounds: Vec<_> = (0..6).map(|_| world.round()).collect();
        assert!(rounds[..3].iter().all(|r| *r == rounds[0]), "{rounds:?}");
        // Then it is others' turn.
        assert!(rounds[3..].iter().all(|r| *r == rounds[3]), "{rounds:?}");
        assert!(
            rounds[3].iter().all(|k| !rounds[0].contains(k)),
            "{rounds:?}"
        );
    }

    #[test]
    fn a_seed_gives_everyone_a_turn() {
        let mut world = World::new((0..20).map(peer).collect(), true, Some(100 * 1024));
        world.upload.limit = Some(8 << 20);
        let slots = world.upload.slots();
        assert!(slots > 20);
        assert_eq!(world.round().len(), 20, "capacity for all");
        let mut world = World::new((0..20).map(peer).collect(), true, Some(60 * 1024));
        let slots = world.upload.slots();
        for _ in 0..200 {
            assert!(world.round().len() <= slots);
        }
        let sent: Vec<u64> = world.peers.iter().map(|p| p.sent).collect();
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(*least * 2 > *most, "{sent:?}");
    }

    #[test]
    fn a_seed_serves_a_newcomer_in_the_next_round() {
        let mut world = World::new((0..20).map(peer).collect(), true, Some(60 * 1024));
        for _ in 0..10 {
            world.round();
        }
        let mut newcomer = peer(99);
        newcomer.connected_at = world.now;
        world.peers.push(newcomer);
        assert!(world.round().contains(&99));
    }

    #[test]
    fn a_free_slot_is_filled_at_once_and_idle_peers_give_way() {
        let mut world = World::new((0..5).map(peer).collect(), true, None);
        let fill = |world: &mut World| {
            let mut out = Vec::new();
            world
                .choker
                .fill(&world.peers, world.seeding, world.upload, &mut out);
            world.apply(&out);
        };
        fill(&mut world);
        assert_eq!(
            world.served().len(),
            5,
            "five leechers need not wait for a round"
        );
        world.peers.extend((5..8).map(peer));
        fill(&mut world);
        world.peers[0].interested = false;
        world.peers.push(peer(8));
        fill(&mut world);
        assert_eq!(world.served(), [1, 2, 3, 4, 5, 6, 7, 8]);
        world.peers.push(peer(9));
        fill(&mut world);
        assert!(world.peers[9].choked, "no slot, nobody idle");
    }

    #[test]
    fn a_peer_that_wants_nothing_is_not_served_before_one_that_does() {
        let mut peers: Vec<_> = (0..6).map(peer).collect();
        for p in &mut peers[..4] {
            p.interested = false;
            p.rate_down = 5000;
            p.choked = false;
        }
        peers[5].upload_only = true;
        let mut world = World::new(peers, false, Some(1));
        assert_eq!(world.round(), [4]);
        assert_eq!(world.peers.iter().filter(|p| !p.choked).count(), 4);
    }
}

#[cfg(test)]
mod swarm;
