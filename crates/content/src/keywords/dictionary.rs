//! The words of an index, and for each the ascending list of the records that hold it.

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::hash;

/// New and gone words beside the sorted ones before those are sorted again, at least.
const MIN_UNSORTED: usize = 256;

/// A word and where it occurs. The list begins at `start`; what is before it was cleaned.
#[derive(Debug, Default)]
struct Word {
    text: SmallVec<[u8; 16]>,
    list: SmallVec<[u32; 4]>,
    start: u32,
}

impl Word {
    fn list(&self) -> &[u32] {
        self.list.get(self.start as usize..).unwrap_or_default()
    }

    fn push(&mut self, id: u32) {
        if self.list.len() == self.list.capacity() {
            // A quarter more at a time: lists are most of the memory.
            let more = (self.list.len() / 4).max(4);
            self.list.reserve_exact(more);
        }
        self.list.push(id);
    }

    fn pop_first(&mut self) {
        self.start += 1;
        if self.start as usize * 2 > self.list.len() && self.start >= 8 {
            self.list.drain(..self.start as usize);
            self.start = 0;
            if self.list.len() * 4 < self.list.capacity() {
                self.list.shrink_to_fit();
            }
        }
    }
}

/// The words in order, for searches by their beginnings.
#[derive(Debug, Default)]
struct Sorted {
    order: Vec<u32>,
    /// Words that are not in `order` yet.
    fresh: Vec<u32>,
    /// Words that are in `order` and not in use; their texts stay until they leave it.
    gone: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Dictionary {
    words: Vec<Word>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    sorted: Option<Box<Sorted>>,
}

impl Dictionary {
    /// One that finds words by their beginnings too.
    pub(super) fn sorted() -> Self {
        Self {
            sorted: Some(Box::default()),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_text.len()
    }

    fn text(&self, id: u32) -> &[u8] {
        self.words.get(id as usize).map_or(&[], |w| &w.text)
    }

    pub(super) fn list(&self, id: u32) -> &[u32] {
        self.words.get(id as usize).map_or(&[], Word::list)
    }

    pub(super) fn known(&self, text: &str) -> Option<u32> {
        let text = text.as_bytes();
        let found = self
            .by_text
            .find(hash(&[text]), |id| self.text(*id) == text);
        found.copied()
    }

    /// The number of a word, which is added if it is new.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(id) = self.known(text) {
            return id;
        }
        let word = Word {
            text: SmallVec::from_slice(text.as_bytes()),
            ..Word::default()
        };
        let id = self.free.pop().unwrap_or(self.words.len() as u32);
        match self.words.get_mut(id as usize) {
            Some(slot) => *slot = word,
            None => self.words.push(word),
        }
        let words = &self.words;
        self.by_text
            .insert_unique(hash(&[text.as_bytes()]), id, |id| {
                hash(&[words.get(*id as usize).map_or(&[][..], |w| &w.text)])
            });
        if let Some(sorted) = &mut self.sorted {
            sorted.fresh.push(id);
            self.sort();
        }
        id
    }

    pub(super) fn push(&mut self, word: u32, id: u32) {
        if let Some(word) = self.words.get_mut(word as usize) {
            word.push(id);
        }
    }

    /// Takes `id` out of a word's list, where it is the first if it is there at all; a word that
    /// is nowhere any more goes.
    pub(super) fn pop(&mut self, at: u32, id: u32) {
        let Some(word) = self.words.get_mut(at as usize) else {
            return;
        };
        if word.list().first() == Some(&id) {
            word.pop_first();
        }
        if !word.list().is_empty() {
            return;
        }
        let text = word.text.clone();
        word.list = SmallVec::new();
        word.start = 0;
        if let Ok(found) = self.by_text.find_entry(hash(&[&text]), |i| *i == at) {
            found.remove();
            match &mut self.sorted {
                Some(sorted) => sorted.gone.push(at),
                None => self.free.push(at),
            }
            self.sort();
        }
    }

    /// Puts the words in order again, if many are new or gone.
    fn sort(&mut self) {
        let Some(sorted) = &mut self.sorted else {
            return;
        };
        let unsorted = sorted.fresh.len() + sorted.gone.len();
        if unsorted < MIN_UNSORTED + sorted.order.len() / 16 {
            return;
        }
        let Some(mut sorted) = self.sorted.take() else {
            return;
        };
        sorted.gone.sort_unstable();
        let is_gone = |id: &u32| sorted.gone.binary_search(id).is_ok();
        let mut fresh = std::mem::take(&mut sorted.fresh);
        fresh.retain(|id| !is_gone(id));
        fresh.sort_unstable_by(|a, b| self.text(*a).cmp(self.text(*b)));
        let mut order = Vec::with_capacity(sorted.order.len() + fresh.len());
        let mut fresh = fresh.into_iter().peekable();
        for id in sorted.order.iter().copied().filter(|id| !is_gone(id)) {
            while let Some(new) = fresh.next_if(|new| self.text(*new) < self.text(id)) {
                order.push(new);
            }
            order.push(id);
        }
        order.extend(fresh);
        for id in std::mem::take(&mut sorted.gone) {
            if let Some(slot) = self.words.get_mut(id as usize) {
                *slot = Word::default();
            }
            self.free.push(id);
        }
        sorted.order = order;
        self.sorted = Some(sorted);
    }

    /// Calls `each` with the list of every word that begins with `prefix`, until it returns false.
    /// An index that was not made for that knows the whole word alone.
    pub(super) fn each_beginning<'a>(
        &'a self,
        prefix: &str,
        mut each: impl FnMut(&'a [u32]) -> bool,
    ) {
        let Some(sorted) = &self.sorted else {
            if let Some(id) = self.known(prefix) {
                each(self.list(id));
            }
            return;
        };
        let prefix = prefix.as_bytes();
        let from = sorted.order.partition_point(|id| self.text(*id) < prefix);
        let within = sorted.order.get(from..).unwrap_or_default();
        let within = within
            .iter()
            .take_while(|id| self.text(**id).starts_with(prefix));
        let fresh = sorted
            .fresh
            .iter()
            .filter(|id| self.text(**id).starts_with(prefix));
        for id in within.chain(fresh) {
            let list = self.list(*id);
            if !list.is_empty() && !each(list) {
                return;
            }
        }
    }
}
