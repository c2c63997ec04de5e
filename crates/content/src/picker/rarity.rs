//! Pieces sorted by availability, in buckets of one array.
//!
//! ```text
//! order:  [ p7 p2 | p9 p1 p4 |  | p3 ]
//! bounds:   0       2          5  5    6      bucket a is order[bounds[a]..bounds[a + 1]]
//! ```
//!
//! Moving a piece to the next bucket is one swap and one bound; entering and leaving shifts one
//! piece per bucket above.

use crate::PieceIndex;

/// Where a piece is that no list holds.
pub(super) const NOWHERE: u32 = u32::MAX;

/// One sorted list. Positions live in an array shared by all lists, indexed by piece.
#[derive(Clone, Debug)]
pub(super) struct Rarity {
    order: Vec<PieceIndex>,
    bounds: Vec<u32>,
}

impl Rarity {
    pub(super) fn new() -> Self {
        Self {
            order: Vec::new(),
            bounds: vec![0, 0],
        }
    }

    /// Rebuilds the list from `pieces` by a counting sort that keeps their order within a bucket.
    pub(super) fn rebuild(&mut self, pieces: &[PieceIndex], avail: &[u32], pos: &mut [u32]) {
        let max = pieces.iter().map(|p| avail[*p as usize]).max().unwrap_or(0) as usize;
        self.bounds.clear();
        self.bounds.resize(max + 2, 0);
        for p in pieces {
            self.bounds[avail[*p as usize] as usize + 1] += 1;
        }
        for a in 1..self.bounds.len() {
            self.bounds[a] += self.bounds[a - 1];
        }
        self.order.clear();
        self.order.resize(pieces.len(), 0);
        let mut next = self.bounds.clone();
        for p in pieces {
            let slot = &mut next[avail[*p as usize] as usize];
            self.order[*slot as usize] = *p;
            pos[*p as usize] = *slot;
            *slot += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn at(&self, i: usize) -> PieceIndex {
        self.order[i]
    }

    /// The non-empty buckets, rarest first, as ranges of positions.
    pub(super) fn buckets(&self, avail: &[u32]) -> impl Iterator<Item = (usize, usize)> + '_ {
        let rarest = self.rarest(avail).unwrap_or(0) as usize;
        self.bounds[rarest..]
            .windows(2)
            .map(|w| (w[0] as usize, w[1] as usize))
            .filter(|(start, end)| start < end)
    }

    /// Availability of the rarest piece.
    pub(super) fn rarest(&self, avail: &[u32]) -> Option<u32> {
        self.order.first().map(|p| avail[*p as usize])
    }

    fn grow(&mut self, buckets: usize) {
        if self.bounds.len() < buckets + 1 {
            self.bounds.resize(buckets + 1, self.order.len() as u32);
        }
    }

    pub(super) fn insert(&mut self, piece: PieceIndex, a: u32, pos: &mut [u32]) {
        let a = a as usize;
        self.grow(a + 1);
        let mut hole = self.order.len();
        self.order.push(piece);
        let last = self.bounds.len() - 1;
        self.bounds[last] += 1;
        for b in (a + 1..last).rev() {
            let start = self.bounds[b] as usize;
            // An empty bucket moves nothing: its start is the hole itself.
            if start != hole {
                let moved = self.order[start];
                self.order[hole] = moved;
                pos[moved as usize] = hole as u32;
            }
            self.bounds[b] += 1;
            hole = start;
        }
        self.order[hole] = piece;
        pos[piece as usize] = hole as u32;
    }

    pub(super) fn remove(&mut self, piece: PieceIndex, a: u32, pos: &mut [u32]) {
        let mut hole = pos[piece as usize] as usize;
        let last = self.bounds.len() - 1;
        for b in a as usize..last {
            let end = self.bounds[b + 1] as usize - 1;
            // An empty bucket moves nothing: its end is the hole itself.
            if end != hole {
                let moved = self.order[end];
                self.order[hole] = moved;
                pos[moved as usize] = hole as u32;
            }
            self.bounds[b + 1] -= 1;
            hole = end;
        }
        self.order.pop();
        pos[piece as usize] = NOWHERE;
    }

    /// Moves `piece` from bucket `a` to `a + 1`.
    pub(super) fn up(&mut self, piece: PieceIndex, a: u32, pos: &mut [u32]) {
        let a = a as usize;
        self.grow(a + 2);
        self.bounds[a + 1] -= 1;
        let edge = self.bounds[a + 1];
        self.swap(piece, edge, pos);
    }

    /// Moves `piece` from bucket `a` to `a - 1`.
    pub(super) fn down(&mut self, piece: PieceIndex, a: u32, pos: &mut [u32]) {
        let edge = self.bounds[a as usize];
        self.bounds[a as usize] += 1;
        self.swap(piece, edge, pos);
    }

    fn swap(&mut self, piece: PieceIndex, with: u32, pos: &mut [u32]) {
        let at = pos[piece as usize];
        let other = self.order[with as usize];
        self.order[with as usize] = piece;
        self.order[at as usize] = other;
        pos[other as usize] = at;
        pos[piece as usize] = with;
    }

    /// Panics if a piece is in a bucket other than its availability's, or not where `pos` says.
    pub(super) fn check(&self, avail: &[u32], pos: &[u32]) {
        assert_eq!(self.bounds[0], 0);
        assert_eq!(
            self.bounds[self.bounds.len() - 1] as usize,
            self.order.len()
        );
        for (a, w) in self.bounds.windows(2).enumerate() {
            assert!(w[0] <= w[1], "bucket {a} ends before it starts");
            for i in w[0]..w[1] {
                let p = self.order[i as usize];
                assert_eq!(avail[p as usize] as usize, a, "piece {p} is in bucket {a}");
                assert_eq!(pos[p as usize], i, "piece {p} is at {i}");
            }
        }
    }
}
