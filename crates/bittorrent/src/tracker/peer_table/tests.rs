use super::*;
use proptest::prelude::*;
use shoal_base::Rng;
use std::collections::BTreeMap;

type Table = PeerTable<6, 2>;

fn peer(n: u16) -> [u8; 6] {
    let [a, b] = n.to_be_bytes();
    [10, 0, a, b, 1, 1]
}

fn table(peers: impl Iterator<Item = (u16, bool)>) -> (Table, SipKey) {
    let key = SipKey::generate(&mut Rng::from_seed(5));
    let mut table = Table::default();
    for (n, seeder) in peers {
        table.insert(&key, peer(n), Stamp::new(100, seeder));
    }
    (table, key)
}

fn sample(t: &Table, random: u64, want: usize, seeders: bool) -> Vec<[u8; 6]> {
    let mut out = Vec::new();
    t.sample(random, want, &peer(0), seeders, &mut out);
    out.as_chunks().0.to_vec()
}

proptest! {
    #[test]
    fn behaves_like_a_map(seed: u64, ops in prop::collection::vec((0u8..10, 0u16..80, any::<bool>()), 0..400)) {
        let key = SipKey::generate(&mut Rng::from_seed(seed));
        let (mut table, mut model) = (Table::default(), BTreeMap::new());
        let mut now = 0;
        for (op, n, seeder) in ops {
            match op {
                0..6 => {
                    let stamp = Stamp::new(now, seeder);
                    let old = table.insert(&key, peer(n), stamp);
                    prop_assert_eq!(old, model.insert(peer(n), stamp));
                }
                6..8 => prop_assert_eq!(table.remove(&key, &peer(n)), model.remove(&peer(n))),
                8 => now += u64::from(n) * 4,
                _ => {
                    let stamp = Stamp::new(now, false);
                    let mut gone = 0;
                    table.expire(&key, stamp, 10, |_| gone += 1);
                    let before = model.len();
                    model.retain(|_, s: &mut Stamp| s.age(stamp) <= 10);
                    prop_assert_eq!(gone, before - model.len());
                }
            }
            table.check_invariants(&key);
            prop_assert_eq!(table.len() as usize, model.len());
            prop_assert_eq!(table.get(&key, &peer(n)), model.get(&peer(n)).copied());
        }
    }
}

#[test]
fn slots_are_as_small_as_they_look() {
    assert_eq!(size_of::<Slot<6>>(), 8);
    assert_eq!(size_of::<Slot<18>>(), 20);
    assert!(size_of::<Table>() <= 32);
}

#[test]
fn small_swarms_are_told_whole_and_never_the_asker() {
    for size in [1, 2, 5, 16, 17, 40] {
        let (t, _) = table((0..size).map(|n| (n, false)));
        for random in [0, u64::MAX / 2, u64::MAX] {
            let mut got = sample(&t, random, 50, true);
            got.sort_unstable();
            let want: Vec<_> = (1..size).map(peer).collect();
            assert_eq!(got, want, "{size} peers");
        }
    }
}

#[test]
fn samples_of_large_swarms_are_distinct_and_even() {
    let (t, _) = table((1..=1000).map(|n| (n, false)));
    let mut rng = Rng::from_seed(2);
    let mut hits = BTreeMap::new();
    for _ in 0..10_000 {
        let mut got = sample(&t, rng.next_u64(), 50, true);
        assert_eq!(got.len(), 50);
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len(), 50);
        got.into_iter()
            .for_each(|p| *hits.entry(p).or_insert(0) += 1);
    }
    // 500 hits each on average.
    assert_eq!(hits.len(), 1000);
    // Walking makes peers behind a gap likelier than others, within a factor of two.
    let uneven = hits.values().filter(|n| !(250..1000).contains(*n)).count();
    assert_eq!(uneven, 0);
}

#[test]
fn seeders_are_left_out_for_seeders() {
    for size in [10, 300] {
        let (t, _) = table((1..=size).map(|n| (n, n % 2 == 0)));
        assert_eq!(t.seeders(), u32::from(size / 2));
        let got = sample(&t, 7, 20, false);
        assert_eq!(got.len(), usize::from(size / 2).min(20));
        assert!(got.iter().all(|p| p[3] % 2 == 1));
    }
}

#[test]
fn room_is_given_back_when_a_crowd_leaves() {
    let (mut t, key) = table((0..1000).map(|n| (n, false)));
    for n in 0..3 {
        t.insert(&key, peer(n), Stamp::new(10_000, false));
    }
    t.expire(&key, Stamp::new(10_000, false), 100, |_| ());
    assert_eq!((t.len(), t.slots().len()), (3, 4));
    t.check_invariants(&key);
}

#[test]
fn stamps_wrap() {
    let day = 86_400;
    let (old, new) = (
        Stamp::new(3 * day + 17_000, true),
        Stamp::new(3 * day + 17_800, false),
    );
    assert_eq!(old.age(new), 100);
    assert!(old.is_seeder() && !new.is_seeder());
    assert_eq!(new.age(new), 0);
}
