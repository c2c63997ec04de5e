//! A hash table of keys and folded states: what maps do instead of sorting when the reducer is
//! associative. Keys are sorted once, at the end.
//!
//! Most words of a text are few and frequent, but one in four is none of the ten thousand most
//! frequent, and looking one of those up waits for memory several times. So records are collected
//! by the hundred: first the places of all are touched, which lets the processor wait for many at
//! once, then each is folded.

use super::error::DataError;
use super::fold::{BadValue, Fold};
use super::order::{KeyOrder, prefix};
use super::partition::Partitions;
use std::cmp::Ordering;
use std::hint::black_box;
use xxhash_rust::xxh3::xxh3_64;

/// Takes partition, key and value.
pub type Each<'a> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), DataError> + 'a;

/// Keys up to this length are all prefix and stand in no arena.
const INLINE: usize = 8;
const FIRST_SLOTS: usize = 1 << 12;
/// Records collected before they are looked up.
const BATCH: usize = 256;
/// Tables of fewer keys lie in the processor's cache.
const CACHED_KEYS: usize = 1 << 14;

/// A key and what is known of its values.
#[derive(Debug, Clone, Copy)]
struct Entry<S> {
    /// The key's first bytes; all of it up to [`INLINE`] bytes.
    prefix: u64,
    /// Where a longer key stands.
    start: u32,
    len: u32,
    state: S,
}

/// A record that is not folded yet. Its longer key stands in `waiting_keys`.
#[derive(Debug, Clone, Copy)]
struct Waiting<S> {
    hash: u64,
    entry: Entry<S>,
}

/// The table of one kind of fold: open addressing over numbers of entries, which stand in order of
/// arrival, so that frequent keys, which arrive first, share cache lines.
#[derive(Debug)]
pub struct Aggregator<F: Fold> {
    fold: F,
    /// 0 is free; else the number of the entry plus one.
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
        let first = prefix(key);
        let start = self.waiting_keys.len() as u32;
        if key.len() > INLINE {
            self.waiting_keys.extend_from_slice(key);
        }
        self.waiting.push(Waiting {
            hash: hash(first, key),
            entry: Entry {
                prefix: first,
                start,
                len: key.len() as u32,
                state,
            },
        });
        // A few long keys are as much as many short ones.
        let full = self.waiting.len() >= BATCH || self.waiting_keys.len() >= 64 * BATCH;
        if full {
            self.settle();
        }
        Ok(full)
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
        if self.entries.len() > CACHED_KEYS {
            let mut numbers = [0u32; BATCH];
            for (number, record) in numbers.iter_mut().zip(&self.waiting) {
                let slot = self.slots.get(record.hash as usize & mask);
                *number = slot.copied().unwrap_or(0);
            }
            let touched = numbers.iter().fold(0, |sum, number| {
                let entry = self.entries.get((*number as usize).wrapping_sub(1));
                entry.map_or(sum, |entry| sum ^ entry.prefix)
            });
            black_box(touched);
        }
        for record in &self.waiting {
            let new = &record.entry;
            let new_key = self
                .waiting_keys
                .get(new.start as usize..)
                .and_then(|rest| rest.get(..new.len as usize));
            let mut at = record.hash as usize & mask;
            while let Some(slot) = self.slots.get_mut(at) {
                let Some(entry) = self.entries.get_mut((*slot as usize).wrapping_sub(1)) else {
                    let mut entry = *new;
                    if new.len as usize > INLINE {
                        // The budget keeps the arena below 4 GiB.
                        entry.start = self.arena.len() as u32;
                        self.arena.extend_from_slice(new_key.unwrap_or_default());
                    }
                    self.entries.push(entry);
                    *slot = self.entries.len() as u32;
                    break;
                };
                if entry.prefix == new.prefix
                    && entry.len == new.len
                    && (entry.len as usize <= INLINE
                        || long_key(&self.arena, entry) == new_key.unwrap_or_default())
                {
                    self.fold.join(&mut entry.state, new.state);
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
            let mut short = [0; INLINE];
            let key = key_of(&self.arena, entry, &mut short);
            let mut at = hash(entry.prefix, key) as usize & mask;
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = n as u32 + 1;
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
        let mut buckets: Vec<Vec<Entry<F::State>>> = Vec::new();
        buckets.resize_with(partitions.count() as usize, Vec::new);
        for entry in self.entries.drain(..) {
            let mut short = [0; INLINE];
            let place = partitions.of(key_of(arena, &entry, &mut short));
            if let Some(bucket) = buckets.get_mut(place as usize) {
                bucket.push(entry);
            }
        }
        self.slots.fill(0);
        let mut value = Vec::new();
        for (place, bucket) in buckets.iter_mut().enumerate() {
            if order.is_bytes() {
                bucket.sort_unstable_by(|a, b| {
                    a.prefix
                        .cmp(&b.prefix)
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
        self.arena.clear();
        self.fold.clear();
        Ok(())
    }
}

/// A key of more than [`INLINE`] bytes; nothing for a shorter one.
#[inline]
fn long_key<'a, S>(arena: &'a [u8], entry: &Entry<S>) -> &'a [u8] {
    if entry.len as usize <= INLINE {
        return &[];
    }
    let start = entry.start as usize;
    arena
        .get(start..start + entry.len as usize)
        .unwrap_or_default()
}

fn key_of<'k, S>(arena: &'k [u8], entry: &Entry<S>, short: &'k mut [u8; INLINE]) -> &'k [u8] {
    if entry.len as usize > INLINE {
        return long_key(arena, entry);
    }
    *short = entry.prefix.to_be_bytes();
    short.get(..entry.len as usize).unwrap_or_default()
}

/// Compares keys of equal prefixes. Of two that differ, the shorter one is the other's beginning
/// unless both are long.
fn compare_tails<S>(arena: &[u8], a: &Entry<S>, b: &Entry<S>) -> Ordering {
    if a.len as usize <= INLINE || b.len as usize <= INLINE {
        return a.len.cmp(&b.len);
    }
    long_key(arena, a).cmp(long_key(arena, b))
}

/// Used in this process only.
#[inline]
fn hash(prefix: u64, key: &[u8]) -> u64 {
    if key.len() > INLINE {
        xxh3_64(key)
    } else {
        short_hash(prefix, key.len())
    }
}

/// A folded multiplication, as in wyhash.
#[inline]
const fn short_hash(prefix: u64, len: usize) -> u64 {
    let wide = (prefix ^ len as u64) as u128 * 0x9e37_79b9_7f4a_7c15;
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::super::fold::Sum;
    use super::super::partition::Cuts;
    use super::*;
    use crate::job::Partitioner;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_table_counts_as_a_map_does(
            // Short and long keys, zeros among their bytes, so that some share prefixes.
            records in proptest::collection::vec(
                (proptest::collection::vec(0..2u8, 0..12), 0..100i64), 0..1500),
            count in 1..4u32,
        ) {
            let order = KeyOrder::bytes();
            let partitions = Partitions::new(&Partitioner::Hash, count, &Cuts::default(), &order, b'\t');
            let mut table = Aggregator::new(Sum);
            // Twice, since a table is used again after a spill.
            for _ in 0..2 {
                let mut slow: BTreeMap<(u32, Vec<u8>), i64> = BTreeMap::new();
                for (key, value) in &records {
                    table.add(key, value.to_string().as_bytes()).expect("a number");
                    *slow.entry((partitions.of(key), key.clone())).or_default() += value;
                }
                let mut got = Vec::new();
                table.drain(&partitions, &order, &mut |place, key, value| {
                    let value = String::from_utf8_lossy(value).parse::<i64>().expect("a number");
                    got.push(((place, key.to_vec()), value));
                    Ok(())
                }).expect("drains");
                prop_assert_eq!(got, slow.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn many_keys_are_found_again() {
        let order = KeyOrder::bytes();
        let partitions = Partitions::new(&Partitioner::Hash, 1, &Cuts::default(), &order, b'\t');
        let mut table = Aggregator::new(Sum);
        for n in 0..200_000u64 {
            let key = (n % 50_000).to_string();
            table.add(key.as_bytes(), b"1").expect("a number");
        }
        let mut keys = 0;
        table
            .drain(&partitions, &order, &mut |_, _, value| {
                assert_eq!(value, b"4");
                keys += 1;
                Ok(())
            })
            .expect("drains");
        assert_eq!(keys, 50_000);
    }
}
