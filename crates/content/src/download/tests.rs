//! The machine in a virtual swarm: sources with rates, delays and bad habits, a disk that knows
//! who wrote what, and time that jumps from event to event.

mod servers;
mod wishes;
mod world;

use super::*;
use crate::{BLOCK_LEN, Block};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;
use world::{Event, Habits, PIECE, World, secs, with_address};

#[test]
fn one_source_gives_every_piece_in_block_order_at_its_rate() {
    let mut w = World::new(1, 200, DownloadConfig::default());
    w.add(&with_address(1), None);
    let took = w.run(60.0);
    let ideal = 200.0 * f64::from(PIECE) / 4e6;
    assert!(took < ideal * 1.05, "{took} s, ideal {ideal}");
    assert_eq!(w.download.waste(), Waste::default());
    assert_eq!(w.in_order, w.arrivals);
}

#[test]
fn several_fast_sources_add_up_and_keep_block_order() {
    let mut w = World::new(2, 1000, DownloadConfig::default());
    for a in 0..5 {
        w.add(&with_address(a), None);
    }
    let took = w.run(60.0);
    let ideal = 1000.0 * f64::from(PIECE) / (5.0 * 4e6);
    assert!(took < ideal * 1.1, "{took} s, ideal {ideal}");
    assert!(
        w.in_order * 100 > w.arrivals * 95,
        "{} of {}",
        w.in_order,
        w.arrivals
    );
    let wasted = w.download.waste().duplicate;
    assert!(
        wasted * 100 < w.download.geometry().total_len(),
        "{wasted} wasted"
    );
}

#[test]
fn the_end_game_does_not_wait_for_a_slow_source() {
    let mut w = World::new(3, 40, DownloadConfig::default());
    w.add(&with_address(1), None);
    let slow = Habits {
        rate: 4e3,
        ..with_address(2)
    };
    w.add(&slow, None);
    let took = w.run(60.0);
    let ideal = 40.0 * f64::from(PIECE) / 4e6;
    assert!(took < ideal + 1.5, "{took} s, ideal {ideal}");
}

#[test]
fn a_stalling_source_frees_its_blocks_and_is_snubbed() {
    let mut w = World::new(4, 100, DownloadConfig::default());
    let habits = Habits {
        stalls_after: 40,
        ..with_address(1)
    };
    let stalls = w.add(&habits, None);
    while w.now < secs(5.0) {
        assert!(w.step());
    }
    let id = w.id(stalls);
    assert!(!w.download.is_finished() && !w.download.is_snubbed(id));
    w.add(&with_address(2), None);
    w.run(60.0);
    while w.now < secs(70.0) && w.step() {}
    assert!(w.download.is_snubbed(id) || w.download.pipeline(id).0 == 0);
}

#[test]
fn a_source_that_owes_blocks_for_a_minute_is_snubbed() {
    let mut w = World::new(4, 100, DownloadConfig::default());
    let habits = Habits {
        stalls_after: 10,
        ..with_address(1)
    };
    let stalls = w.add(&habits, None);
    let id = w.id(stalls);
    while w.now < secs(59.0) {
        assert!(w.step());
        assert!(!w.download.is_snubbed(id));
    }
    while w.now < secs(62.0) {
        assert!(w.step());
    }
    assert!(w.download.is_snubbed(id));
}

#[test]
fn a_corrupt_source_among_honest_ones_is_banned() {
    for seed in 0..20 {
        let mut w = World::new(seed, 100, DownloadConfig::default());
        for a in 0..5 {
            w.add(&with_address(a), None);
        }
        let habits = Habits {
            corrupts: 7,
            ..with_address(66)
        };
        w.add(&habits, None);
        w.run(60.0);
        assert_eq!(w.banned, [66], "seed {seed}");
        assert!(w.download.is_banned(66));
        let g = w.download.geometry();
        assert!(w.download.waste().corrupt <= 12 * u64::from(g.piece_len()));
    }
}

#[test]
fn shared_pieces_convict_only_the_liar() {
    for seed in 0..20 {
        let mut w = World::new(seed, 30, DownloadConfig::default());
        // All so slow that pieces are shared from the start, once rates are known.
        for a in 0..5 {
            let rate = 8e3;
            w.add(
                &Habits {
                    rate,
                    ..with_address(a)
                },
                None,
            );
        }
        let habits = Habits {
            rate: 8e3,
            corrupts: 5,
            ..with_address(66)
        };
        w.add(&habits, None);
        w.run(3600.0);
        assert_eq!(w.banned, [66], "seed {seed}");
    }
}

#[test]
fn choked_without_the_fast_extension_everything_owed_is_asked_of_others() {
    let mut w = World::new(5, 50, DownloadConfig::default());
    let habits = Habits {
        fast: false,
        ..with_address(1)
    };
    let a = w.add(&habits, None);
    let (id, mut out) = (w.id(a), Vec::new());
    assert_eq!(w.download.pipeline(id).0, 32);
    w.download.on_choke(w.now, id, &mut out);
    assert!(out.is_empty());
    assert_eq!(w.download.bytes_outstanding(), 0);
    let block = w.all[a].pending.remove(0);
    let got = w.download.on_block(w.now, id, block, &mut out);
    assert_eq!(got, Arrival::Duplicate);
    w.all[a].pending.clear();
    w.download.check_invariants();
    w.download.on_unchoke(w.now, id, &mut out);
    w.apply(out);
    w.run(60.0);
}

#[test]
fn choked_with_the_fast_extension_requests_stand_until_rejected() {
    let mut w = World::new(6, 50, DownloadConfig::default());
    let a = w.add(&with_address(1), None);
    let (id, mut out) = (w.id(a), Vec::new());
    w.download.on_choke(w.now, id, &mut out);
    assert_eq!(w.download.pipeline(id).0, 32);
    for block in std::mem::take(&mut w.all[a].pending) {
        w.download.on_reject(w.now, id, block, &mut out);
    }
    assert!(out.is_empty());
    assert_eq!(w.download.pipeline(id).0, 0);
    w.download.check_invariants();
    w.download.on_allowed_fast(w.now, id, 7, &mut out);
    assert_eq!(
        out.len(),
        4,
        "the four blocks of the allowed piece: {out:?}"
    );
    w.apply(out);
    w.download.on_unchoke(w.now, id, &mut Vec::new());
    w.add(&with_address(2), None);
    w.run(60.0);
}

#[test]
fn what_a_removed_source_owed_is_asked_of_others() {
    let mut w = World::new(7, 60, DownloadConfig::default());
    let a = w.add(&with_address(1), None);
    w.add(&with_address(2), None);
    for _ in 0..50 {
        w.step();
    }
    w.remove(w.id(a));
    w.download.check_invariants();
    w.run(60.0);
    assert_eq!(w.download.waste(), Waste::default());
}

#[test]
fn a_flood_of_unrequested_blocks_drops_the_source() {
    let mut w = World::new(15, 40, DownloadConfig::default());
    let a = w.add(&with_address(1), None);
    let (id, g, mut out) = (w.id(a), w.download.geometry(), Vec::new());
    for n in 0..80u32 {
        let asked = &w.all[a].pending;
        let block = g.block(n % 40, 1);
        if !asked.contains(&block) {
            w.download.on_block(w.now, id, block, &mut out);
        }
        w.download.on_block(
            w.now,
            id,
            Block {
                piece: n,
                begin: 7,
                len: u32::MAX,
            },
            &mut out,
        );
    }
    let drops = out
        .iter()
        .filter(|o| matches!(o, DownloadOutput::Drop { .. }));
    assert_eq!(drops.count(), 1);
    w.download.check_invariants();
}

/// Anything may happen, in any order; afterwards an honest source must be enough.
fn chaos(seed: u64) {
    let mut w = World::new(
        seed,
        24,
        DownloadConfig {
            initial_pipeline: 6,
            max_outstanding: seed.is_multiple_of(3).then_some(30 * u64::from(BLOCK_LEN)),
            ..DownloadConfig::default()
        },
    );
    w.orderly = false;
    let g = w.download.geometry();
    for round in 0..300 {
        let ids: Vec<u32> = w.sims.keys().copied().collect();
        let id = SourceId(w.rng.pick(&ids).copied().unwrap_or(0));
        let piece = w.rng.below(25) as u32;
        let mut out = Vec::new();
        match w.rng.below(22) {
            0 | 1 if ids.len() < 8 => {
                let habits = Habits {
                    kind: match w.rng.below(10) {
                        0 => SourceKind::Web,
                        1 => SourceKind::Stream,
                        _ => SourceKind::Peer,
                    },
                    fast: w.rng.chance(0.5),
                    rate: [1e4, 1e5, 1e6][w.rng.below(3)],
                    delay: w.rng.unit() * 0.3,
                    stalls_after: if w.rng.chance(0.3) { 10 } else { u32::MAX },
                    corrupts: if w.rng.chance(0.2) { 5 } else { 0 },
                    address: 100 + round,
                };
                let bits = w.random_bits(0.5);
                let web = habits.kind.is_ranged();
                w.add(&habits, if web { None } else { Some(&bits) });
            }
            2 if !ids.is_empty() => w.remove(id),
            3 => w.download.on_have(w.now, id, piece.min(23), &mut out),
            4 => w.download.on_lost(w.now, id, piece, &mut out),
            5 | 6 => {
                w.download.on_choke(w.now, id, &mut out);
                if let Some(key) = w.sims.get(&id.0).copied() {
                    let owed = std::mem::take(&mut w.all[key].pending);
                    if w.all[key].habits.fast {
                        for b in owed {
                            w.download.on_reject(w.now, id, b, &mut out);
                        }
                    }
                }
            }
            7 | 8 => w.download.on_unchoke(w.now, id, &mut out),
            9 => w.download.on_allowed_fast(w.now, id, piece, &mut out),
            10 => {
                if let Some(key) = w.sims.get(&id.0).copied()
                    && let Some(b) = w.all[key].pending.pop()
                {
                    w.download.on_reject(w.now, id, b, &mut out);
                }
            }
            11 => {
                let n = w.rng.below(6) as u32;
                let block = Block {
                    piece,
                    begin: n * BLOCK_LEN,
                    len: BLOCK_LEN,
                };
                let asked = w
                    .sims
                    .get(&id.0)
                    .is_some_and(|k| w.all[*k].pending.contains(&block));
                if !asked {
                    let got = w.download.on_block(w.now, id, block, &mut out);
                    // A request that choke or loss voided at the source may stand with us.
                    if got == Arrival::Accept {
                        w.disk.insert(block, 0);
                        w.at(w.now, Event::Hashed(piece));
                    }
                }
            }
            12 => {
                let floor = w.rng.below(24) as u32;
                let of = |p: u32| match p % 5 {
                    _ if p < floor / 2 => Priority::Skip,
                    0 => Priority::Low,
                    1 => Priority::High,
                    _ => Priority::Normal,
                };
                w.download.set_priorities(w.now, of, &mut out);
            }
            13 => w
                .download
                .set_deadline(piece, w.now + Duration::from_secs(1)),
            14 => {
                let paused = w.rng.chance(0.3);
                w.download.set_paused(w.now, paused, &mut out);
            }
            15 => {
                let block = g.block(piece.min(23), w.rng.below(4) as u32);
                let whole = (0..4).all(|n| w.disk.contains_key(&g.block(block.piece, n)));
                if !whole && w.disk.remove(&block).is_some() {
                    w.download.on_write_failed(w.now, block);
                }
            }
            16 if w.download.have().get(piece) => {
                for n in 0..4 {
                    w.disk.remove(&g.block(piece, n));
                }
                w.download.on_piece_lost(w.now, piece, &mut out);
            }
            _ => {
                w.step();
            }
        }
        w.apply(out);
        w.download.check_invariants();
    }
    let mut out = Vec::new();
    w.download.set_paused(w.now, false, &mut out);
    w.download
        .set_priorities(w.now, |_| Priority::Normal, &mut out);
    w.apply(out);
    w.add(&with_address(1), None);
    let limit = w.now + Duration::from_secs(600);
    while !w.download.is_finished() {
        assert!(w.step(), "nothing more happens");
        assert!(w.now < limit, "not finished");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_happens_an_honest_source_completes_it(seed in any::<u64>()) {
        chaos(seed);
    }

    #[test]
    fn mixed_swarms_always_complete(seed in any::<u64>()) {
        let mut w = World::new(seed, 60, DownloadConfig::default());
        w.checked = false;
        w.add(&with_address(1), None);
        for a in 2..8 {
            let habits = Habits {
                fast: w.rng.chance(0.5),
                rate: 10f64.powf(3.5 + w.rng.unit() * 3.5),
                delay: w.rng.unit() * 0.5,
                stalls_after: if w.rng.chance(0.3) { w.rng.below(50) as u32 } else { u32::MAX },
                corrupts: if w.rng.chance(0.2) { 3 } else { 0 },
                ..with_address(a)
            };
            let share = w.rng.unit();
            let bits = w.random_bits(share);
            w.add(&habits, Some(&bits));
        }
        w.run(300.0);
    }
}
