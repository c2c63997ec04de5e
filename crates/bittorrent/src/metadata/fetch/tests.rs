use super::*;
use proptest::prelude::*;
use shoal_base::Rng;

/// How a peer of the test answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Honest,
    /// Sends false bytes in every piece.
    Liar,
    /// Sends false bytes in one piece.
    Sly(u32),
    Rejects,
    Silent,
    /// States another size and sends zeros.
    OtherSize(u32),
}

struct World {
    fetch: MetadataFetch,
    truth: Vec<u8>,
    peers: BTreeMap<u32, Kind>,
    banned: Vec<u32>,
    asked: BTreeMap<u32, u32>,
    done: Option<Vec<u8>>,
    now: Time,
}

impl World {
    fn new(len: usize, peers: &[Kind]) -> Self {
        let mut truth = vec![0; len];
        Rng::from_seed(len as u64).fill(&mut truth);
        Self {
            fetch: MetadataFetch::new(InfoHash(digest(&truth))),
            truth,
            peers: (0..).zip(peers.iter().copied()).collect(),
            banned: Vec::new(),
            asked: BTreeMap::new(),
            done: None,
            now: Time::from_secs(50),
        }
    }

    fn answer(&self, peer: u32, piece: u32) -> Option<Vec<u8>> {
        let start = (piece * METADATA_PIECE_LEN) as usize;
        let len = metadata_piece_len(self.truth.len() as u32, piece) as usize;
        let mut data = self.truth.get(start..start + len).map(<[u8]>::to_vec);
        match self.peers.get(&peer)? {
            Kind::Honest => {}
            Kind::Liar => data.iter_mut().for_each(|d| d[0] ^= 1),
            Kind::Sly(bad) if *bad == piece => data.iter_mut().for_each(|d| d[0] ^= 1),
            Kind::Sly(_) => {}
            Kind::OtherSize(size) => {
                data = Some(vec![0; metadata_piece_len(*size, piece) as usize]);
            }
            Kind::Rejects | Kind::Silent => data = None,
        }
        data
    }

    /// Runs until done or for ten minutes.
    fn run(&mut self) {
        let mut out = Vec::new();
        for (peer, kind) in self.peers.clone() {
            let size = match kind {
                Kind::OtherSize(size) => size,
                _ => self.truth.len() as u32,
            };
            self.fetch.on_peer(self.now, peer, size, &mut out);
        }
        let end = self.now + Duration::from_secs(600);
        loop {
            while !out.is_empty() {
                for output in std::mem::take(&mut out) {
                    self.act(output, &mut out);
                }
            }
            match self.fetch.deadline() {
                Some(at) if at < end => {
                    self.now = self.now.max(at);
                    self.fetch.on_tick(self.now, &mut out);
                    let next = self.fetch.deadline();
                    assert!(next.is_none_or(|next| next > self.now), "no busy loop");
                }
                _ => return,
            }
        }
    }

    fn act(&mut self, output: MetadataOutput, out: &mut Vec<MetadataOutput>) {
        match output {
            MetadataOutput::Request { peer, piece } => {
                assert!(self.done.is_none() && self.peers.contains_key(&peer));
                *self.asked.entry(peer).or_default() += 1;
                self.now += Duration::from_millis(5);
                let size = match self.peers[&peer] {
                    Kind::OtherSize(size) => size,
                    _ => self.truth.len() as u32,
                };
                match self.answer(peer, piece) {
                    Some(data) => self.fetch.on_data(self.now, peer, piece, size, &data, out),
                    None if self.peers[&peer] == Kind::Rejects => {
                        self.fetch.on_reject(self.now, peer, piece, out);
                    }
                    None => {}
                }
            }
            MetadataOutput::Ban { peer } => {
                self.banned.push(peer);
                self.peers.remove(&peer);
                self.fetch.on_gone(self.now, peer, out);
            }
            MetadataOutput::Drop { peer } => panic!("{peer} sent nothing unasked"),
            MetadataOutput::Done(data) => self.done = Some(data),
        }
    }

    fn check(len: usize, peers: &[Kind], banned: &[u32]) -> Self {
        let mut world = Self::new(len, peers);
        world.run();
        assert_eq!(world.done.as_ref(), Some(&world.truth), "{peers:?}");
        world.banned.sort_unstable();
        assert_eq!(world.banned, banned, "{peers:?}");
        assert!(world.fetch.is_done() && world.fetch.deadline().is_none());
        world
    }
}

#[test]
fn one_honest_peer_is_enough() {
    World::check(1, &[Kind::Honest], &[]);
    World::check(16_384, &[Kind::Honest], &[]);
    World::check(200_000, &[Kind::Honest], &[]);
}

#[test]
fn several_peers_share_the_work() {
    let world = World::check(1_000_000, &[Kind::Honest; 4], &[]);
    assert_eq!(
        world.asked.values().sum::<u32>(),
        metadata_pieces(1_000_000)
    );
    assert!(world.asked.values().all(|n| *n >= 10), "{:?}", world.asked);
}

#[test]
fn who_rejects_or_says_nothing_is_passed_over() {
    use Kind::{Honest, Rejects, Silent};
    let world = World::check(300_000, &[Silent, Rejects, Honest, Silent], &[]);
    assert!(
        world.now < Time::from_secs(120),
        "took until {:?}",
        world.now
    );
}

#[test]
fn a_liar_alone_is_banned_at_once() {
    let mut world = World::new(100_000, &[Kind::Liar]);
    world.run();
    assert_eq!((world.banned.as_slice(), &world.done), (&[0][..], &None));
}

#[test]
fn liars_among_the_honest_are_found() {
    use Kind::{Honest, Liar, Sly};
    World::check(200_000, &[Liar, Honest, Honest], &[0]);
    World::check(200_000, &[Honest, Honest, Liar], &[2]);
    World::check(200_000, &[Liar, Liar, Liar, Honest], &[0, 1, 2]);
    let world = World::new(400_000, &[Honest, Sly(5), Honest]);
    assert!(world.fetch.progress() == (0, 0));
    World::check(400_000, &[Honest, Sly(5), Honest], &[1]);
}

#[test]
fn false_sizes_do_not_win_against_true_ones_for_long() {
    use Kind::{Honest, OtherSize};
    World::check(100_000, &[OtherSize(50_000), Honest], &[0]);
    let crowd = [
        OtherSize(70_000),
        OtherSize(70_000),
        OtherSize(70_000),
        Honest,
    ];
    let mut world = World::new(100_000, &crowd);
    world.run();
    assert_eq!(world.done.as_ref(), Some(&world.truth));
    let mut fetch = MetadataFetch::new(InfoHash([1; 20]));
    let mut out = Vec::new();
    fetch.on_peer(Time::ZERO, 1, u32::MAX, &mut out);
    fetch.on_peer(Time::ZERO, 2, 0, &mut out);
    assert!(out.is_empty() && fetch.deadline().is_none());
}

#[test]
fn a_peer_that_leaves_is_replaced() {
    let mut world = World::new(100_000, &[]);
    let mut out = Vec::new();
    world.fetch.on_peer(world.now, 9, 100_000, &mut out);
    assert_eq!(out.len(), PIPELINE);
    out.clear();
    world.fetch.on_gone(world.now, 9, &mut out);
    assert!(out.is_empty());
    world.peers.insert(0, Kind::Honest);
    world.run();
    assert_eq!(world.done, Some(world.truth));
}

#[test]
fn a_flood_of_pieces_nobody_asked_for_is_cut() {
    let mut fetch = MetadataFetch::new(InfoHash([1; 20]));
    let mut out = Vec::new();
    let now = Time::from_secs(1);
    fetch.on_peer(now, 1, 16_000, &mut out);
    out.clear();
    for _ in 0..100 {
        fetch.on_data(now, 1, 7, 16_000, &[0; 100], &mut out);
    }
    assert_eq!(out, [MetadataOutput::Drop { peer: 1 }]);
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Honest),
        Just(Kind::Liar),
        (0u32..10).prop_map(Kind::Sly),
        Just(Kind::Rejects),
        Just(Kind::Silent),
        (1u32..200_000).prop_map(Kind::OtherSize),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_one_honest_peer_the_truth_wins(
        mut kinds in prop::collection::vec(any_kind(), 0..6),
        at in any::<prop::sample::Index>(),
        len in 1usize..150_000,
    ) {
        kinds.insert(at.index(kinds.len() + 1), Kind::Honest);
        let mut world = World::new(len, &kinds);
        world.run();
        prop_assert_eq!(world.done.as_ref(), Some(&world.truth));
        for banned in &world.banned {
            let honest = matches!(kinds[*banned as usize], Kind::Honest | Kind::Silent | Kind::Rejects);
            prop_assert!(!honest, "{:?} banned of {:?}", banned, kinds);
        }
    }
}
