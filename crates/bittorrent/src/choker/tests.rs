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
