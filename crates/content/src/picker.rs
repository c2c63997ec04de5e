//! Which piece next: availability of every piece, and the choice among those not yet begun.
//!
//! Knows neither blocks nor time: [`crate::download`] does. A piece is a *candidate* while it is
//! wanted, missing and not open. Candidates are kept sorted by availability, one list per
//! priority, so that a HAVE costs one swap; sources that have everything are only counted.

mod rarity;

use crate::PieceIndex;
use rarity::{NOWHERE, Rarity};
use shoal_base::{Bitfield, Rng};

/// How much a piece is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// Not at all: never asked for.
    Skip,
    /// After everything else.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

/// What a source has.
#[derive(Clone, Copy, Debug)]
pub enum Has<'a> {
    /// Every piece.
    All,
    /// The pieces whose bits are set.
    Some(&'a Bitfield),
}

impl Has<'_> {
    /// Whether `piece` is among them.
    pub fn get(&self, piece: PieceIndex) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits.get(piece),
        }
    }
}

/// By what rule to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The rarest of the highest priority, ties at random.
    Rarest,
    /// Any of the highest priority: the first few pieces, so that there is something to trade.
    Random,
    /// The lowest number.
    Lowest,
    /// The one after this, or else the start of the longest run: for sources that send ranges.
    After(PieceIndex),
}

/// How many pieces are looked at one by one in rarity order before giving up exactness.
const MAX_PROBES: usize = 1024;

/// Availability of all pieces, and the candidates among them.
#[derive(Clone, Debug)]
pub struct Picker {
    avail: Vec<u32>,
    seeds: u32,
    priority: Vec<Priority>,
    pos: Vec<u32>,
    lists: [Rarity; 3],
    candidates: Bitfield,
    epoch: u64,
}

impl Picker {
    /// A picker for `pieces` pieces of normal priority, all candidates, in an order drawn from
    /// `rng`.
    pub fn new(pieces: u32, rng: &mut Rng) -> Self {
        let n = pieces as usize;
        let mut picker = Self {
            avail: vec![0; n],
            seeds: 0,
            priority: vec![Priority::Normal; n],
            pos: vec![NOWHERE; n],
            lists: [Rarity::new(), Rarity::new(), Rarity::new()],
            candidates: Bitfield::new(pieces),
            epoch: 0,
        };
        picker.reset(rng, |_| (Priority::Normal, true));
        picker
    }

    /// Sets every piece's priority and whether it is a candidate (a skipped piece never is).
    pub fn reset(&mut self, rng: &mut Rng, mut of: impl FnMut(PieceIndex) -> (Priority, bool)) {
        let n = self.avail.len() as u32;
        self.candidates = Bitfield::new(n);
        self.pos.fill(NOWHERE);
        let mut members: [Vec<PieceIndex>; 3] = Default::default();
        for p in 0..n {
            let (priority, candidate) = of(p);
            self.priority[p as usize] = priority;
            if let (Some(list), true) = (list_of(priority), candidate) {
                members[list].push(p);
                self.candidates.set(p);
            }
        }
        for (list, pieces) in self.lists.iter_mut().zip(&mut members) {
            rng.shuffle(pieces);
            list.rebuild(pieces, &self.avail, &mut self.pos);
        }
        self.epoch += 1;
    }

    /// How many sources have `piece`, those that have everything included.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        self.avail.get(piece as usize).copied().unwrap_or(0) + self.seeds
    }

    /// How many sources were counted as having everything.
    pub fn seeds(&self) -> u32 {
        self.seeds
    }

    /// The priority of `piece`; skip past the end.
    pub fn priority(&self, piece: PieceIndex) -> Priority {
        self.priority
            .get(piece as usize)
            .copied()
            .unwrap_or(Priority::Skip)
    }

    /// The pieces that may be begun.
    pub fn candidates(&self) -> &Bitfield {
        &self.candidates
    }

    /// Grows with every piece that becomes a candidate: a source for which [`Picker::pick`] found
    /// nothing need not ask again while this and the source's pieces are unchanged.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A source that has everything came.
    pub fn add_seed(&mut self) {
        self.seeds += 1;
    }

    /// A source that has everything left.
    pub fn remove_seed(&mut self) {
        self.seeds = self.seeds.saturating_sub(1);
    }

    /// One more source has `piece`.
    pub fn add(&mut self, piece: PieceIndex) {
        let Some(avail) = self.avail.get_mut(piece as usize) else {
            return;
        };
        let before = *avail;
        *avail += 1;
        if self.pos[piece as usize] != NOWHERE
            && let Some(list) = list_of(self.priority[piece as usize])
        {
            self.lists[list].up(piece, before, &mut self.pos);
        }
    }

    /// One source fewer has `piece`.
    pub fn subtract(&mut self, piece: PieceIndex) {
        let Some(avail) = self.avail.get_mut(piece as usize) else {
            return;
        };
        let before = *avail;
        if before == 0 {
            return;
        }
        *avail -= 1;
        if self.pos[piece as usize] != NOWHERE
            && let Some(list) = list_of(self.priority[piece as usize])
        {
            self.lists[list].down(piece, before, &mut self.pos);
        }
    }

    /// Makes `piece` a candidate, unless it is skipped.
    pub fn insert(&mut self, piece: PieceIndex) {
        let Some(list) = list_of(self.priority(piece)) else {
            return;
        };
        if self.candidates.set(piece) {
            let a = self.avail[piece as usize];
            self.lists[list].insert(piece, a, &mut self.pos);
            self.epoch += 1;
        }
    }

    /// `piece` is a candidate no longer: it was begun, or is there.
    pub fn remove(&mut self, piece: PieceIndex) {
        if self.candidates.clear(piece)
            && let Some(list) = list_of(self.priority[piece as usize])
        {
            let a = self.avail[piece as usize];
            self.lists[list].remove(piece, a, &mut self.pos);
        }
    }

    /// A candidate that the source has and `allow` admits, by the rule `order`.
    ///
    /// Exact while the answer lies among the first thousand candidates; beyond that the rarest of
    /// a thousand that the source has, found from a random place on.
    pub fn pick(
        &self,
        has: Has<'_>,
        order: Order,
        rng: &mut Rng,
        mut allow: impl FnMut(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        if self.candidates.count() == 0 {
            return None;
        }
        match order {
            Order::Rarest | Order::Random => {
                let random = order == Order::Random;
                match self.walk(has, random, rng, &mut allow) {
                    Walk::Found(p) => Some(p),
                    Walk::End => None,
                    Walk::GaveUp => self.sample(has, random, rng, &mut allow),
                }
            }
            Order::Lowest => self.common(has, 0).find(|p| allow(*p)),
            Order::After(last) => {
                let next = last.wrapping_add(1);
                if self.candidates.get(next) && has.get(next) && allow(next) {
                    return Some(next);
                }
                self.longest_run(has, &mut allow)
            }
        }
    }

    fn walk(
        &self,
        has: Has<'_>,
        random: bool,
        rng: &mut Rng,
        allow: &mut impl FnMut(PieceIndex) -> bool,
    ) -> Walk {
        let mut probes = MAX_PROBES;
        for list in self.lists.iter().rev() {
            let mut probe = |start: usize, end: usize, rng: &mut Rng| {
                // A random place in the bucket, then once around it.
                let first = start + rng.below(end - start);
                for i in (first..end).chain(start..first) {
                    if probes == 0 {
                        return Some(Walk::GaveUp);
                    }
                    probes -= 1;
                    let p = list.at(i);
                    if has.get(p) && allow(p) {
                        return Some(Walk::Found(p));
                    }
                }
                None
            };
            if random && list.len() > 0 {
                if let Some(end) = probe(0, list.len(), rng) {
                    return end;
                }
            } else if !random {
                for (start, end) in list.buckets(&self.avail) {
                    if let Some(end) = probe(start, end, rng) {
                        return end;
                    }
                }
            }
        }
        Walk::End
    }

    /// The best of a bounded number of pieces that the source has, from a random place on.
    fn sample(
        &self,
        has: Has<'_>,
        random: bool,
        rng: &mut Rng,
        allow: &mut impl FnMut(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        let middle = rng.below(self.avail.len()) as u32;
        let all = self
            .common(has, middle)
            .chain(self.common(has, 0).take_while(|p| *p < middle));
        let mut best: Option<(Priority, u32, PieceIndex)> = None;
        for p in all.filter(|p| allow(*p)).take(MAX_PROBES) {
            let (priority, a) = (self.priority[p as usize], self.avail[p as usize]);
            let better = match best {
                None => true,
                Some((bp, ba, _)) => priority > bp || (priority == bp && a < ba && !random),
            };
            if better {
                best = Some((priority, a, p));
            }
        }
        best.map(|(_, _, p)| p)
    }

    fn longest_run(
        &self,
        has: Has<'_>,
        allow: &mut impl FnMut(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        let (mut best, mut run): (Option<(PieceIndex, u32)>, (PieceIndex, u32)) = (None, (0, 0));
        for p in self.common(has, 0) {
            if !allow(p) {
                continue;
            }
            if run.1 > 0 && run.0 + run.1 == p {
                run.1 += 1;
            } else {
                run = (p, 1);
            }
            if best.is_none_or(|b| b.1 < run.1) {
                best = Some(run);
            }
        }
        best.map(|b| b.0)
    }

    /// The candidates a source has, in rising order from `from` on, eight pieces at a step.
    fn common<'a>(&'a self, has: Has<'a>, from: u32) -> impl Iterator<Item = PieceIndex> + 'a {
        common(&self.candidates, has, from)
    }

    /// Panics if the lists, positions and the candidate set disagree. For tests.
    pub fn check_invariants(&self) {
        let mut listed = 0;
        for list in &self.lists {
            list.check(&self.avail, &self.pos);
            listed += list.len();
            for i in 0..list.len() {
                assert!(self.candidates.get(list.at(i)), "listed but no candidate");
            }
        }
        assert_eq!(listed, self.candidates.count() as usize);
        for (p, pos) in self.pos.iter().enumerate() {
            assert_eq!(*pos != NOWHERE, self.candidates.get(p as u32));
        }
    }

    /// The availability, seeds not counted, of the rarest candidate of the highest priority.
    pub fn rarest(&self) -> Option<u32> {
        self.lists.iter().rev().find_map(|l| l.rarest(&self.avail))
    }
}

enum Walk {
    Found(PieceIndex),
    End,
    GaveUp,
}

fn list_of(priority: Priority) -> Option<usize> {
    match priority {
        Priority::Skip => None,
        Priority::Low => Some(0),
        Priority::Normal => Some(1),
        Priority::High => Some(2),
    }
}

/// The bits set both in `bits` and in what a source has, in rising order from `from` on.
pub(crate) fn common<'a>(
    bits: &'a Bitfield,
    has: Has<'a>,
    from: u32,
) -> impl Iterator<Item = u32> + 'a {
    let first = (from / 8) as usize;
    let own = bits.as_bytes().get(first..).unwrap_or(&[]);
    let theirs = match has {
        Has::All => None,
        Has::Some(b) => Some(b.as_bytes().get(first..).unwrap_or(&[])),
    };
    let head = 0xffu8 >> (from % 8);
    own.iter()
        .enumerate()
        .filter_map(move |(i, byte)| {
            let mask = theirs.map_or(0xff, |t| t.get(i).copied().unwrap_or(0));
            let both = byte & mask & if i == 0 { head } else { 0xff };
            (both != 0).then_some(((first + i) as u32 * 8, both))
        })
        .flat_map(|(base, byte)| {
            (0..8)
                .filter(move |bit| byte & (0x80 >> bit) != 0)
                .map(move |bit| base + bit)
        })
}

#[cfg(test)]
mod tests;
