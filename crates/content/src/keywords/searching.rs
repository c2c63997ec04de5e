//! Searches: the shortest of the words' lists, looked through for records that all the others have too.

use super::terms::Terms;
use super::{Entry, Facts, Index, before, hash};
use smallvec::SmallVec;

/// How many list positions one search may look at.
const SEARCH_BUDGET: usize = 2_000_000;
/// Positions that the words of one beginning may have in all.
const BEGINNING_BUDGET: usize = 500_000;

impl<F: Facts> Index<F> {
    /// Calls `each` with files whose paths are what `terms` ask for, until it returns false.
    /// `luck` decides where the search begins, so that of many hits not always the same come
    /// first.
    pub fn search(&self, terms: &Terms, luck: usize, mut each: impl FnMut(&Entry<'_, F>) -> bool) {
        let unions: SmallVec<[Vec<u32>; 2]> = terms
            .beginnings
            .iter()
            .map(|b| self.with_beginning(b))
            .collect();
        let mut lists: SmallVec<[&[u32]; 16]> = unions.iter().map(Vec::as_slice).collect();
        for word in &terms.words {
            match self.words.known(word) {
                Some(id) => lists.push(self.words.list(id)),
                None => return,
            }
        }
        lists.sort_by_key(|l| l.len());
        let banned = terms.without.iter();
        let banned = banned.filter_map(|word| self.words.known(word));
        let banned: SmallVec<[&[u32]; 16]> = banned.map(|id| self.words.list(id)).collect();
        let Some((rarest, others)) = lists.split_first() else {
            return;
        };
        let from = luck % rarest.len().max(1);
        let (early, late) = rarest.split_at(from);
        let mut budget = SEARCH_BUDGET;
        for part in [late, early] {
            let mut cursors: SmallVec<[&[u32]; 16]> = SmallVec::from_slice(others);
            let mut bans = banned.clone();
            'ids: for id in part {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                for cursor in &mut cursors {
                    if !advance(cursor, *id) {
                        if cursor.is_empty() {
                            break 'ids;
                        }
                        continue 'ids;
                    }
                }
                if bans.iter_mut().any(|cursor| advance(cursor, *id)) {
                    continue;
                }
                if let Some(entry) = self.entry(*id)
                    && !each(&entry)
                {
                    return;
                }
            }
        }
    }

    /// The records that hold a word with this beginning, ascending. Of a beginning that very many
    /// have, some.
    fn with_beginning(&self, beginning: &str) -> Vec<u32> {
        let mut all = Vec::new();
        self.words.each_beginning(beginning, |list| {
            all.extend_from_slice(list);
            all.len() < BEGINNING_BUDGET
        });
        all.sort_unstable_by_key(|id| id.wrapping_sub(self.head));
        all.dedup();
        all
    }

    /// Calls `each` with the files that have this hash among their [`Facts::hashes`], until it
    /// returns false.
    pub fn with_hash(&self, wanted: &[u8], mut each: impl FnMut(&Entry<'_, F>) -> bool) {
        for (n, table) in self.by_hash.iter().enumerate() {
            for id in table.iter_hash(hash(&[wanted])) {
                if let Some(entry) = self.entry(*id)
                    && entry.facts.hashes().get(n) == Some(&Some(wanted))
                    && !each(&entry)
                {
                    return;
                }
            }
        }
    }

    /// Calls `each` with every file until it returns false.
    pub fn each(&self, mut each: impl FnMut(&Entry<'_, F>) -> bool) {
        let mut id = self.head;
        while id != self.next {
            if let Some(entry) = self.entry(id)
                && !each(&entry)
            {
                return;
            }
            id = id.wrapping_add(1);
        }
    }
}

/// Moves a cursor to the first number that is not before `id`, by doubling steps; whether it is
/// `id`.
fn advance(cursor: &mut &[u32], id: u32) -> bool {
    let list = *cursor;
    let mut step = 1;
    while list.get(step).is_some_and(|n| before(*n, id)) {
        step *= 2;
    }
    let from = step / 2;
    let window = list.get(from..list.len().min(step + 1)).unwrap_or_default();
    let skip = from + window.partition_point(|n| before(*n, id));
    *cursor = list.get(skip..).unwrap_or_default();
    cursor.first() == Some(&id)
}
