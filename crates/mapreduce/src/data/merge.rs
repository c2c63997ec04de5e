//! Merges sorted runs with a tree of losers (Knuth, TAOCP 3, 5.4.1): one comparison for each level
//! and record, most of them of prefixes alone.

use super::error::DataError;
use super::native::Sorted;
use super::order::KeyOrder;
use super::shuffle::RunReader;
use std::cmp::Ordering;

/// Sorted runs as one.
#[derive(Debug)]
pub struct Merge {
    runs: Vec<RunReader>,
    order: KeyOrder,
    order_values: bool,
    /// For each run the prefix of its record and whether it has one.
    heads: Vec<Head>,
    /// Losers of the inner matches by place, the winner at place 0.
    tree: Vec<u32>,
    started: bool,
    records: u64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    prefix: u64,
    ended: bool,
}

impl Merge {
    /// Merges `runs`. Records of equal keys come in the order of their values if `order_values`,
    /// else in the order of the runs.
    pub fn new(runs: Vec<RunReader>, order: KeyOrder, order_values: bool) -> Self {
        Self {
            runs,
            order,
            order_values,
            heads: Vec::new(),
            tree: Vec::new(),
            started: false,
            records: 0,
        }
    }

    /// The whole record, laid out as [`crate::batch`] says.
    #[inline]
    pub fn record(&self) -> &[u8] {
        self.winner().map_or(&[], RunReader::record)
    }

    /// Records so far.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Stored bytes read so far.
    pub fn stored_bytes(&self) -> u64 {
        self.runs.iter().map(RunReader::stored_bytes).sum()
    }

    #[inline]
    fn winner(&self) -> Option<&RunReader> {
        self.runs.get(*self.tree.first()? as usize)
    }

    /// Moves one run on.
    #[inline]
    fn step(&mut self, run: u32) -> Result<(), DataError> {
        let at = run as usize;
        let (Some(reader), Some(head)) = (self.runs.get_mut(at), self.heads.get_mut(at)) else {
            return Ok(());
        };
        head.ended = !reader.advance()?;
        if head.ended {
            return Ok(());
        }
        let before = head.prefix;
        head.prefix = self.order.prefix(reader.key());
        if head.prefix < before {
            return Err(reader.out_of_order());
        }
        Ok(())
    }

    #[cold]
    fn start(&mut self) -> Result<(), DataError> {
        self.started = true;
        let count = self.runs.len();
        self.heads = vec![
            Head {
                prefix: 0,
                ended: true
            };
            count
        ];
        for run in 0..count {
            self.step(run as u32)?;
        }
        // Places count..2*count are the runs; a match at place n is between 2n and 2n+1.
        let mut winners = vec![0u32; 2 * count];
        self.tree = vec![0; count];
        for place in (1..2 * count).rev() {
            let winner = if place >= count {
                (place - count) as u32
            } else {
                let (Some(&a), Some(&b)) = (winners.get(2 * place), winners.get(2 * place + 1))
                else {
                    continue;
                };
                let (winner, loser) = if self.less(a, b) { (a, b) } else { (b, a) };
                if let Some(slot) = self.tree.get_mut(place) {
                    *slot = loser;
                }
                winner
            };
            if let Some(slot) = winners.get_mut(place) {
                *slot = winner;
            }
        }
        if let (Some(top), Some(&winner)) = (self.tree.first_mut(), winners.get(1)) {
            *top = winner;
        }
        Ok(())
    }

    /// Plays the matches from a run's place to the top again.
    #[inline]
    fn replay(&mut self, run: u32) {
        let mut winner = run;
        let mut place = (run as usize + self.runs.len()) / 2;
        while place > 0 {
            let Some(&other) = self.tree.get(place) else {
                return;
            };
            if self.less(other, winner) {
                if let Some(slot) = self.tree.get_mut(place) {
                    *slot = winner;
                }
                winner = other;
            }
            place /= 2;
        }
        if let Some(top) = self.tree.first_mut() {
            *top = winner;
        }
    }

    #[inline]
    fn less(&self, a: u32, b: u32) -> bool {
        let (Some(x), Some(y)) = (self.heads.get(a as usize), self.heads.get(b as usize)) else {
            return a < b;
        };
        if x.ended || y.ended {
            return !x.ended;
        }
        match x.prefix.cmp(&y.prefix) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.less_by_key(a, b),
        }
    }

    fn less_by_key(&self, a: u32, b: u32) -> bool {
        let (Some(x), Some(y)) = (self.runs.get(a as usize), self.runs.get(b as usize)) else {
            return a < b;
        };
        let mut order = self.order.compare(x.key(), y.key());
        if self.order_values {
            order = order.then_with(|| x.value().cmp(y.value()));
        }
        order.then(a.cmp(&b)).is_lt()
    }
}

impl Sorted for Merge {
    #[inline]
    fn advance(&mut self) -> Result<bool, DataError> {
        if self.started {
            let Some(&winner) = self.tree.first() else {
                return Ok(false);
            };
            if self.heads.get(winner as usize).is_none_or(|h| h.ended) {
                return Ok(false);
            }
            self.step(winner)?;
            self.replay(winner);
        } else {
            self.start()?;
        }
        let there = self
            .tree
            .first()
            .and_then(|winner| self.heads.get(*winner as usize))
            .is_some_and(|head| !head.ended);
        self.records += u64::from(there);
        Ok(there)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.winner().map_or(&[], RunReader::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.winner().map_or(&[], RunReader::value)
    }
}
