//! The machine in a virtual swarm: sources with rates, delays and bad habits, a disk that knows
//! who wrote what, and time that jumps from event to event.

mod servers;
mod wishes;

use super::*;
use crate::{BLOCK_LEN, Block};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

const PIECE: u32 = 4 * BLOCK_LEN;

/// How a simulated source behaves.
#[derive(Clone, Debug)]
struct Habits {
    kind: SourceKind,
    fast: bool,
    rate: f64,
    delay: f64,
    /// Answers nothing more after so many blocks.
    stalls_after: u32,
    /// Every so manieth block is bad; zero: none.
    corrupts: u32,
    address: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            kind: SourceKind::Peer,
            fast: true,
            rate: 4e6,
            delay: 0.02,
            stalls_after: u32::MAX,
            corrupts: 0,
            address: 0,
        }
    }
}

struct Sim {
    habits: Habits,
    alive: bool,
    pending: Vec<Block>,
    asked: Vec<Block>,
    busy_until: f64,
    sent: u32,
    interested: bool,
    requests: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Block(usize, Block),
    Hashed(PieceIndex),
}

struct World {
    download: Download,
    now: Time,
    rng: Rng,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    count: u64,
    sims: BTreeMap<u32, usize>,
    all: Vec<Sim>,
    /// What each block on the disk is: good (zero), or of which bad sender.
    disk: BTreeMap<Block, u64>,
    banned: Vec<u64>,
    haves: u32,
    finished: u32,
    checked: bool,
    /// Nobody sends what was not asked for.
    orderly: bool,
    arrivals: u32,
    in_order: u32,
    last_block: BTreeMap<PieceIndex, u32>,
}

fn secs(s: f64) -> Time {
    Time::from_micros((s * 1e6) as u64)
}

impl World {
    fn new(seed: u64, pieces: u32, config: DownloadConfig) -> Self {
        let mut rng = Rng::from_seed(seed);
        let total = u64::from(pieces) * u64::from(PIECE) - 100;
        let geometry = Geometry::new(total, PIECE).expect("few pieces");
        Self {
            download: Download::new(geometry, Bitfield::new(pieces), config, rng.fork()),
            now: Time::ZERO,
            rng,
            events: BinaryHeap::new(),
            count: 0,
            sims: BTreeMap::new(),
            all: Vec::new(),
            disk: BTreeMap::new(),
            banned: Vec::new(),
            haves: 0,
            finished: 0,
            checked: true,
            orderly: true,
            arrivals: 0,
            in_order: 0,
            last_block: BTreeMap::new(),
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Adds a source that has `bits` (or everything) and unchokes at once.
    fn add(&mut self, habits: &Habits, bits: Option<&Bitfield>) -> usize {
        let options = SourceOptions {
            address: habits.address,
            kind: habits.kind,
            fast: habits.fast,
            max_pipeline: 500,
        };
        let id = self.download.add_source(self.now, &options);
        let key = self.all.len();
        self.all.push(Sim {
            habits: habits.clone(),
            alive: true,
            pending: Vec::new(),
            asked: Vec::new(),
            busy_until: 0.0,
            sent: 0,
            interested: false,
            requests: 0,
        });
        self.sims.insert(id.0, key);
        let mut out = Vec::new();
        match bits {
            None => self.download.on_have_all(self.now, id, &mut out),
            Some(b) => self.download.on_bitfield(self.now, id, b, &mut out),
        }
        self.download.on_unchoke(self.now, id, &mut out);
        self.apply(out);
        key
    }

    fn id(&self, key: usize) -> SourceId {
        let found = self.sims.iter().find(|s| *s.1 == key);
        SourceId(*found.expect("the source lives").0)
    }

    fn remove(&mut self, id: SourceId) {
        let mut out = Vec::new();
        if let Some(key) = self.sims.remove(&id.0) {
            self.all[key].alive = false;
            self.all[key].pending.clear();
        }
        self.download.remove_source(self.now, id, &mut out);
        self.apply(out);
    }

    fn apply(&mut self, out: Vec<DownloadOutput>) {
        for o in out {
            match o {
                DownloadOutput::Request { source, block } => self.serve(source, block),
                DownloadOutput::Cancel { source, block } => {
                    // Sometimes it is too late, as on a real network.
                    let late = self.rng.chance(0.5);
                    let sim = &mut self.all[self.sims[&source.0]];
                    if !late {
                        sim.pending.retain(|b| *b != block);
                    }
                    if sim.habits.fast && !late {
                        let mut out = Vec::new();
                        self.download.on_reject(self.now, source, block, &mut out);
                        assert!(out.is_empty(), "a cancelled block was rejected: {out:?}");
                    }
                }
                DownloadOutput::Interested { source, interested } => {
                    let sim = &mut self.all[self.sims[&source.0]];
                    assert_ne!(sim.interested, interested, "said twice");
                    sim.interested = interested;
                }
                DownloadOutput::Have(_) => self.haves += 1,
                DownloadOutput::Finished => self.finished += 1,
                DownloadOutput::Ban { address } => {
                    self.banned.push(address);
                    let theirs: Vec<u32> = self
                        .sims
                        .iter()
                        .filter(|s| self.all[*s.1].habits.address == address)
                        .map(|s| *s.0)
                        .collect();
                    for id in theirs {
                        self.remove(SourceId(id));
                    }
                }
                DownloadOutput::Drop { source, .. } => self.remove(source),
            }
        }
    }

    fn serve(&mut self, source: SourceId, block: Block) {
        let now = self.now.as_secs_f64();
        let key = self.sims[&source.0];
        let sim = &mut self.all[key];
        assert!(
            sim.interested || sim.habits.kind.is_ranged(),
            "asked without interest"
        );
        sim.requests += 1;
        sim.asked.push(block);
        sim.pending.push(block);
        sim.busy_until =
            sim.busy_until.max(now + sim.habits.delay) + f64::from(block.len) / sim.habits.rate;
        let at = secs(sim.busy_until);
        if sim.requests <= sim.habits.stalls_after {
            self.at(at, Event::Block(key, block));
        }
    }

    fn arrive(&mut self, key: usize, block: Block) {
        let sim = &mut self.all[key];
        let Some(i) = sim.pending.iter().position(|b| *b == block) else {
            return;
        };
        sim.pending.remove(i);
        sim.sent += 1;
        let bad = sim.habits.corrupts > 0 && sim.sent.is_multiple_of(sim.habits.corrupts);
        let content = if bad { sim.habits.address + 1 } else { 0 };
        let id = self.id(key);
        let mut out = Vec::new();
        let arrival = self.download.on_block(self.now, id, block, &mut out);
        assert!(!self.orderly || arrival != Arrival::Unrequested);
        if arrival == Arrival::Accept {
            self.arrivals += 1;
            let n = block.begin / BLOCK_LEN;
            let before = self.last_block.insert(block.piece, n);
            self.in_order += u32::from(n == 0 || before == Some(n - 1));
            assert_eq!(self.disk.insert(block, content), None, "written twice");
            let g = self.download.geometry();
            let whole = (0..g.blocks(block.piece))
                .all(|n| self.disk.contains_key(&g.block(block.piece, n)));
            if whole {
                let at = self.now + Duration::from_millis(3);
                self.at(at, Event::Hashed(block.piece));
            }
        }
        self.apply(out);
    }

    fn hashed(&mut self, piece: PieceIndex) {
        let g = self.download.geometry();
        let blocks: Vec<Block> = (0..g.blocks(piece)).map(|n| g.block(piece, n)).collect();
        let Some(contents) = blocks
            .iter()
            .map(|b| self.disk.get(b).copied())
            .collect::<Option<Vec<u64>>>()
        else {
            return;
        };
        let digests: Vec<BlockDigest> = contents.iter().map(|c| [*c as u8; 20]).collect();
        let outcome = if contents.iter().all(|c| *c == 0) {
            let digests = self.download.wants_digests(piece).then_some(digests);
            PieceOutcome::Verified { digests }
        } else {
            for b in &blocks {
                self.disk.remove(b);
            }
            PieceOutcome::Corrupt { digests }
        };
        let mut out = Vec::new();
        self.download.on_piece(self.now, piece, &outcome, &mut out);
        self.apply(out);
    }

    /// Handles the next event or deadline; false if there is none.
    fn step(&mut self) -> bool {
        let event = self.events.peek().map(|e| e.0.0);
        let Some(next) = earliest(event, self.download.deadline()) else {
            return false;
        };
        self.now = self.now.max(next);
        if event == Some(next) {
            let Reverse((_, _, event)) = self.events.pop().expect("peeked");
            match event {
                Event::Block(key, block) => self.arrive(key, block),
                Event::Hashed(piece) => self.hashed(piece),
            }
        } else {
            let mut out = Vec::new();
            self.download.on_tick(self.now, &mut out);
            self.apply(out);
        }
        if self.checked {
            self.download.check_invariants();
        }
        true
    }

    fn run(&mut self, limit: f64) -> f64 {
        while !self.download.is_finished() {
            assert!(self.step(), "nothing more happens at {:?}", self.now);
            assert!(self.now < secs(limit), "not finished in {limit} s");
        }
        assert_eq!(self.finished, 1);
        assert_eq!(self.haves, self.download.geometry().pieces());
        assert_eq!(
            self.download.bytes_done(),
            self.download.geometry().total_len()
        );
        self.now.as_secs_f64()
    }

    fn random_bits(&mut self, share: f64) -> Bitfield {
        let n = self.download.geometry().pieces();
        let mut b = Bitfield::new(n);
        for p in 0..n {
            if self.rng.chance(share) {
                b.set(p);
            }
        }
        b
    }
}

fn with_address(address: u64) -> Habits {
    Habits {
        address,
        ..Habits::default()
    }
}

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
