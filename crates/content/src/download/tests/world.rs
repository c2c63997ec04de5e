//! Sources with habits, and what they send a download, in virtual time.

use super::*;

pub(super) const PIECE: u32 = 4 * BLOCK_LEN;

/// How a simulated source behaves.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    pub(super) kind: SourceKind,
    pub(super) fast: bool,
    pub(super) rate: f64,
    pub(super) delay: f64,
    /// Answers nothing more after so many blocks.
    pub(super) stalls_after: u32,
    /// Every so manieth block is bad; zero: none.
    pub(super) corrupts: u32,
    pub(super) address: u64,
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

pub(super) struct Sim {
    pub(super) habits: Habits,
    pub(super) alive: bool,
    pub(super) pending: Vec<Block>,
    pub(super) asked: Vec<Block>,
    pub(super) busy_until: f64,
    pub(super) sent: u32,
    pub(super) interested: bool,
    pub(super) requests: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    Block(usize, Block),
    Hashed(PieceIndex),
}

pub(super) struct World {
    pub(super) download: Download,
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    pub(super) count: u64,
    pub(super) sims: BTreeMap<u32, usize>,
    pub(super) all: Vec<Sim>,
    /// What each block on the disk is: good (zero), or of which bad sender.
    pub(super) disk: BTreeMap<Block, u64>,
    pub(super) banned: Vec<u64>,
    pub(super) haves: u32,
    pub(super) finished: u32,
    pub(super) checked: bool,
    /// Nobody sends what was not asked for.
    pub(super) orderly: bool,
    pub(super) arrivals: u32,
    pub(super) in_order: u32,
    pub(super) last_block: BTreeMap<PieceIndex, u32>,
}

pub(super) fn secs(s: f64) -> Time {
    Time::from_micros((s * 1e6) as u64)
}

impl World {
    pub(super) fn new(seed: u64, pieces: u32, config: DownloadConfig) -> Self {
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

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    /// Adds a source that has `bits` (or everything) and unchokes at once.
    pub(super) fn add(&mut self, habits: &Habits, bits: Option<&Bitfield>) -> usize {
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

    pub(super) fn id(&self, key: usize) -> SourceId {
        let found = self.sims.iter().find(|s| *s.1 == key);
        SourceId(*found.expect("the source lives").0)
    }

    pub(super) fn remove(&mut self, id: SourceId) {
        let mut out = Vec::new();
        if let Some(key) = self.sims.remove(&id.0) {
            self.all[key].alive = false;
            self.all[key].pending.clear();
        }
        self.download.remove_source(self.now, id, &mut out);
        self.apply(out);
    }

    pub(super) fn apply(&mut self, out: Vec<DownloadOutput>) {
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

    pub(super) fn serve(&mut self, source: SourceId, block: Block) {
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

    pub(super) fn arrive(&mut self, key: usize, block: Block) {
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

    pub(super) fn hashed(&mut self, piece: PieceIndex) {
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
    pub(super) fn step(&mut self) -> bool {
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

    pub(super) fn run(&mut self, limit: f64) -> f64 {
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

    pub(super) fn random_bits(&mut self, share: f64) -> Bitfield {
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

pub(super) fn with_address(address: u64) -> Habits {
    Habits {
        address,
        ..Habits::default()
    }
}
