//! The picker against a slow model that looks at every piece.

use super::*;
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

#[derive(Clone, Debug)]
enum Op {
    Add(u32),
    Subtract(u32),
    Insert(u32),
    Remove(u32),
    Pick(Vec<u32>, bool),
    Lowest(Vec<u32>),
    Reset(Vec<u8>),
}

const PIECES: u32 = 40;

fn op() -> impl Strategy<Value = Op> {
    let piece = 0..PIECES;
    let set = prop::collection::vec(0..PIECES, 0..20);
    prop_oneof![
        8 => piece.clone().prop_map(Op::Add),
        4 => piece.clone().prop_map(Op::Subtract),
        2 => piece.clone().prop_map(Op::Insert),
        2 => piece.prop_map(Op::Remove),
        4 => (set.clone(), any::<bool>()).prop_map(|(s, all)| Op::Pick(s, all)),
        1 => set.prop_map(Op::Lowest),
        1 => prop::collection::vec(any::<u8>(), PIECES as usize).prop_map(Op::Reset),
    ]
}

struct Model {
    avail: Vec<u32>,
    candidate: Vec<bool>,
    priority: Vec<Priority>,
}

fn bits(pieces: &[u32]) -> Bitfield {
    let mut b = Bitfield::new(PIECES);
    for p in pieces {
        b.set(*p);
    }
    b
}

proptest! {
    #[test]
    fn picks_the_rarest_that_the_source_has(seed in any::<u64>(), ops in prop::collection::vec(op(), 0..200)) {
        let mut rng = Rng::from_seed(seed);
        let mut picker = Picker::new(PIECES, &mut rng);
        let n = PIECES as usize;
        let mut m = Model { avail: vec![0; n], candidate: vec![true; n], priority: vec![Priority::Normal; n] };
        for op in ops {
            match op {
                Op::Add(p) => { picker.add(p); m.avail[p as usize] += 1; }
                Op::Subtract(p) => {
                    picker.subtract(p);
                    m.avail[p as usize] = m.avail[p as usize].saturating_sub(1);
                }
                Op::Insert(p) => {
                    picker.insert(p);
                    m.candidate[p as usize] |= m.priority[p as usize] != Priority::Skip;
                }
                Op::Remove(p) => { picker.remove(p); m.candidate[p as usize] = false; }
                Op::Pick(set, all) => {
                    let held = bits(&set);
                    let has = if all { Has::All } else { Has::Some(&held) };
                    let best = (0..n)
                        .filter(|p| m.candidate[*p] && has.get(*p as u32))
                        .map(|p| (std::cmp::Reverse(m.priority[p]), m.avail[p]))
                        .min();
                    let got = picker
                        .pick(has, Order::Rarest, &mut rng, |_| true)
                        .map(|p| {
                            assert!(m.candidate[p as usize] && has.get(p));
                            (std::cmp::Reverse(m.priority[p as usize]), m.avail[p as usize])
                        });
                    prop_assert_eq!(got, best);
                }
                Op::Lowest(set) => {
                    let held = bits(&set);
                    let got = picker.pick(Has::Some(&held), Order::Lowest, &mut rng, |p| p % 5 != 0);
                    let want = (0..PIECES).find(|p| m.candidate[*p as usize] && held.get(*p) && p % 5 != 0);
                    prop_assert_eq!(got, want);
                }
                Op::Reset(kinds) => {
                    let of = |p: u32| {
                        let k = kinds[p as usize];
                        let priority = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High][(k % 4) as usize];
                        (priority, k & 4 == 0)
                    };
                    picker.reset(&mut rng, of);
                    for p in 0..PIECES {
                        let (priority, c) = of(p);
                        m.priority[p as usize] = priority;
                        m.candidate[p as usize] = c && priority != Priority::Skip;
                    }
                }
            }
            picker.check_invariants();
            for p in 0..PIECES {
                prop_assert_eq!(picker.availability(p), m.avail[p as usize]);
                prop_assert_eq!(picker.candidates().get(p), m.candidate[p as usize]);
            }
        }
    }
}

#[test]
fn ties_are_broken_at_random() {
    let mut rng = Rng::from_seed(1);
    let picker = Picker::new(8, &mut rng);
    let mut seen = [0; 8];
    for _ in 0..800 {
        let p = picker.pick(Has::All, Order::Rarest, &mut rng, |_| true);
        seen[p.expect("a candidate") as usize] += 1;
    }
    assert!(seen.iter().all(|n| (60..140).contains(n)), "{seen:?}");
}

#[test]
fn beyond_the_probe_limit_something_is_still_found() {
    let mut rng = Rng::from_seed(2);
    let n = 50_000;
    let mut picker = Picker::new(n, &mut rng);
    let mut held = Bitfield::new(n);
    held.set(49_999);
    picker.add(49_999);
    for order in [Order::Rarest, Order::Random, Order::Lowest, Order::After(3)] {
        let got = picker.pick(Has::Some(&held), order, &mut rng, |_| true);
        assert_eq!(got, Some(49_999), "{order:?}");
    }
}

#[test]
fn ranges_continue_and_then_take_the_longest_run() {
    let mut rng = Rng::from_seed(3);
    let mut picker = Picker::new(20, &mut rng);
    for p in [4, 5, 15] {
        picker.remove(p);
    }
    let mut pick = |last| picker.pick(Has::All, Order::After(last), &mut rng, |_| true);
    assert_eq!(pick(0), Some(1));
    assert_eq!(pick(3), Some(6));
    assert_eq!(pick(u32::MAX), Some(0));
}

#[test]
fn seeds_cost_no_walk_and_count_for_every_piece() {
    let mut rng = Rng::from_seed(4);
    let mut picker = Picker::new(3, &mut rng);
    picker.add_seed();
    picker.add(1);
    assert_eq!([0, 1, 2].map(|p| picker.availability(p)), [1, 2, 1]);
    picker.remove_seed();
    assert_eq!(picker.availability(0), 0);
}
