//! A hash table of keys and folded states: what maps do instead of sorting when the reducer is
//! associative. Keys are sorted once, at the end.
//!
//! Most words of a text are few and frequent, but one in four is none of the ten thousand most
//! frequent, and looking one of those up waits for memory several times. So records are collected
//! by the hundred: first the places of all are touched, which lets the processor wait for many at
//! once, then each is folded.

use super::error::DataError;
use super::fold::{BadValue, Fold};
use super::order::KeyOrder;
use super::partition::Partitions;
use crate::code::Place;
use std::cmp::Ordering;
use std::hint::black_box;
use xxhash_rust::xxh3::xxh3_64;

/// Takes partition, key and value.
pub type Each<'a> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), DataError> + 'a;

/// Keys up to this length stand in their entry and in no arena.
const INLINE: usize = 16;
const FIRST_SLOTS: usize = 1 << 12;
/// Records collected before they are looked up.
pub(super) const BATCH: usize = 256;
/// Tables of fewer keys lie in the processor's cache.
const CACHED_KEYS: usize = 1 << 14;

/// A key's length and first [`INLINE`] bytes, zeros for what is missing: as two numbers that order
/// as the bytes do.
#[derive(Debug, Clone, Copy)]
struct Head {
    first: u64,
    second: u64,
    len: u32,
    /// Where a longer key stands.
    start: u32,
}

impl Head {
    /// Of what a key of `len` bytes begins with; what comes after it is left out without a branch,
    /// since lengths of words are hard to guess.
    #[inline]
    fn new(start: &[u8; INLINE], len: u32) -> Self {
        let beyond = 8 * (INLINE as u32).saturating_sub(len);
        let keep = u128::MAX.checked_shl(beyond).unwrap_or(0);
        let whole = u128::from_be_bytes(*start) & keep;
        Self {
            first: (whole >> 64) as u64,
            second: whole as u64,
            len,
            start: 0,
        }
    }

    fn of(key: &[u8]) -> Self {
        let start = key.first_chunk().copied().unwrap_or_else(|| {
            let mut start = [0; INLINE];
            if let Some(part) = start.get_mut(..key.len()) {
                part.copy_from_slice(key);
            }
            start
        });
        Self::new(&start, key.len() as u32)
    }

    /// Whether the keys are equal as far as can be seen here.
    #[inline]
    const fn looks_like(self, other: Self) -> bool {
        self.first == other.first && self.second == other.second && self.len == other.len
    }

    #[inline]
    const fn is_long(self) -> bool {
        self.len as usize > INLINE
    }

    /// A folded multiplication, as in wyhash. Used in this process only.
    #[inline]
    fn hash(self, key: &[u8]) -> u64 {
        if self.is_long() {
            return xxh3_64(key);
        }
        let a = self.first ^ 0x9e37_79b9_7f4a_7c15;
        let b = self.second ^ self.len as u64 ^ 0xe703_7ed1_a0b4_28db;
        let wide = a as u128 * b as u128;
        (wide >> 64) as u64 ^ wide as u64
    }

    /// The first bytes, to be read as far as the key goes.
    fn bytes(self) -> [u8; INLINE] {
        (u128::from(self.first) << 64 | u128::from(self.second)).to_be_bytes()
    }
}

/// A key and what is known of its values; two in a line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Entry<S> {
    head: Head,
    state: S,
}

/// A record that is not folded yet. Its longer key stands in `waiting_keys`.
#[derive(Debug, Clone, Copy)]
struct Waiting<S> {
    hash: u64,
    head: Head,
    state: S,
}

/// The table of one kind of fold: open addressing over numbers of entries, which stand in order of
/// arrival, so that frequent keys, which arrive first, share cache lines.
#[derive(Debug)]
pub struct Aggregator<F: Fold> {
    fold: F,
    /// 0 is free; else the number of the entry plus one, and in the bits above those that such
    /// numbers need (there are at least twice as many slots as entries) bits of the key's hash, so
    /// that few entries are looked at in vain.
    slots: Vec<u32>,
    entries: Vec<Entry<F::State>>,
    arena: Vec<u8>,
    waiting: Vec<Waiting<F::State>>,
    waiting_keys: Vec<u8>,
}

impl<F: Fold> Aggregator<F> {
    /// An empty one.
    pub const fn new(fold: F) -> Self {
        Self {
            fold,
            slots: Vec::new(),
            entries: Vec::new(),
            arena: Vec::new(),
            waiting: Vec::new(),
            waiting_keys: Vec::new(),
        }
    }

    /// Folds a value into its key's state. True now and then: time to look at
    /// [`Aggregator::bytes`].
    ///
    /// # Errors
    /// When the value is not one for this fold.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<bool, BadValue> {
        let state = self.fold.read(value)?;
        self.wait(Head::of(key), key, state);
        // A few long keys are as much as many short ones.
        let full = self.waiting.len() >= BATCH || self.waiting_keys.len() >= 64 * BATCH;
        if full {
            self.settle();
        }
        Ok(full)
    }

    /// The same for several keys, which stand in `text`; up to `BATCH` of them.
    ///
    /// # Errors
    /// When the value is not one for this fold.
    pub fn add_all(&mut self, text: &[u8], keys: &[Place], value: &[u8]) -> Result<(), BadValue> {
        let state = self.fold.read(value)?;
        self.settle();
        for place in keys {
            let start = place.start as usize;
            // All but the last keys of a text have as many bytes after their start.
            match text.get(start..).and_then(|rest| rest.first_chunk()) {
                Some(chunk) => self.wait(Head::new(chunk, place.len), place.of(text), state),
                None => self.wait(Head::of(place.of(text)), place.of(text), state),
            }
        }
        self.settle();
        Ok(())
    }

    #[inline]
    fn wait(&mut self, mut head: Head, key: &[u8], state: F::State) {
        if head.is_long() {
            head.start = self.waiting_keys.len() as u32;
            self.waiting_keys.extend_from_slice(key);
        }
        self.waiting.push(Waiting {
            hash: head.hash(key),
            head,
            state,
        });
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.arena.len()
            + self.slots.len() * size_of::<u32>()
            + self.entries.len() * size_of::<Entry<F::State>>()
            + self.fold.bytes()
    }

    /// Looks up and folds what waits.
    fn settle(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        while (self.entries.len() + self.waiting.len()) * 2 > self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let number_bits = mask as u32;
        if self.entries.len() > CACHED_KEYS {
            let mut numbers = [0u32; BATCH];
            for (number, record) in numbers.iter_mut().zip(&self.waiting) {
                let slot = self.slots.get(record.hash as usize & mask);
                *number = slot.copied().unwrap_or(0) & number_bits;
            }
            let touched = numbers.iter().fold(0, |sum, number| {
                let entry = self.entries.get((*number as usize).wrapping_sub(1));
                entry.map_or(sum, |entry| sum ^ entry.head.first)
            });
            black_box(touched);
        }
        for record in &self.waiting {
            let new = record.head;
            let tag = tag(record.hash, number_bits);
            let mut at = record.hash as usize & mask;
            while let Some(slot) = self.slots.get_mut(at) {
                if *slot == 0 {
                    let mut head = new;
                    if new.is_long() {
                        // The budget keeps the arena below 4 GiB.
                        head.start = self.arena.len() as u32;
                        self.arena
                            .extend_from_slice(long_key(&self.waiting_keys, new));
                    }
                    self.entries.push(Entry {
                        head,
                        state: record.state,
                    });
                    *slot = tag | self.entries.len() as u32;
                    break;
                }
                let number = (*slot & number_bits) as usize;
                if (*slot ^ tag) & !number_bits == 0
                    && let Some(entry) = self.entries.get_mut(number.wrapping_sub(1))
                    && entry.head.looks_like(new)
                    && (!new.is_long()
                        || long_key(&self.arena, entry.head) == long_key(&self.waiting_keys, new))
                {
                    self.fold.join(&mut entry.state, record.state);
                    break;
                }
                at = (at + 1) & mask;
            }
        }
        self.waiting.clear();
        self.waiting_keys.clear();
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(FIRST_SLOTS);
        let mut slots = vec![0u32; len];
        let mask = len - 1;
        for (n, entry) in self.entries.iter().enumerate() {
            let hash = entry.head.hash(long_key(&self.arena, entry.head));
            let mut at = hash as usize & mask;
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = tag(hash, mask as u32) | (n as u32 + 1);
            }
        }
        self.slots = slots;
    }

    /// Sorts by partition and key, gives each to `each` with its folded value, and is empty.
    ///
    /// # Errors
    /// The first error of `each`; the rest is lost.
    pub fn drain(
        &mut self,
        partitions: &Partitions,
        order: &KeyOrder,
        each: &mut Each<'_>,
    ) -> Result<(), DataError> {
        self.settle();
        let arena = &self.arena;
        let ends = partitions.arrange(&mut self.entries, |entry| {
            partitions.of(key_of(arena, entry, &mut [0; INLINE]))
        });
        self.slots.fill(0);
        let mut value = Vec::new();
        let mut rest = self.entries.as_mut_slice();
        let mut start = 0;
        for (place, end) in ends.into_iter().enumerate() {
            let Some((bucket, after)) = rest.split_at_mut_checked(end - start) else {
                break;
            };
            (rest, start) = (after, end);
            if order.is_bytes() {
                bucket.sort_unstable_by(|a, b| {
                    let (x, y) = (a.head, b.head);
                    (x.first.cmp(&y.first))
                        .then_with(|| x.second.cmp(&y.second))
                        .then_with(|| compare_tails(arena, a, b))
                });
            } else {
                let (mut x, mut y) = ([0; INLINE], [0; INLINE]);
                bucket.sort_unstable_by(|a, b| {
                    order.compare(key_of(arena, a, &mut x), key_of(arena, b, &mut y))
                });
            }
            for entry in bucket {
                value.clear();
                self.fold.write(&entry.state, &mut value);
                let mut short = [0; INLINE];
                each(place as u32, key_of(arena, entry, &mut short), &value)?;
            }
        }
        self.entries.clear();
        self.arena.clear();
        self.fold.clear();
        Ok(())
    }
}

/// The bits of a hash that go into a slot.
#[inline]
const fn tag(hash: u64, number_bits: u32) -> u32 {
    (hash >> 32) as u32 & !number_bits
}

/// A key of more than [`INLINE`] bytes; nothing for a shorter one.
#[inline]
fn long_key(arena: &[u8], head: Head) -> &[u8] {
    if !head.is_long() {
        return &[];
    }
    let start = head.start as usize;
    arena
        .get(start..start + head.len as usize)
        .unwrap_or_default()
}

fn key_of<'k, S>(arena: &'k [u8], entry: &Entry<S>, short: &'k mut [u8; INLINE]) -> &'k [u8] {
    if entry.head.is_long() {
        return long_key(arena, entry.head);
    }
    *short = entry.head.bytes();
    short.get(..entry.head.len as usize).unwrap_or_default()
}

/// Compares keys of equal first bytes. Of two that differ, the shorter one is the other's beginning
/// unless both are long.
fn compare_tails<S>(arena: &[u8], a: &Entry<S>, b: &Entry<S>) -> Ordering {
    if a.head.is_long() && b.head.is_long() {
        long_key(arena, a.head).cmp(long_key(arena, b.head))
    } else {
        a.head.len.cmp(&b.head.len)
    }
}

#[cfg(test)]
mod tests;
