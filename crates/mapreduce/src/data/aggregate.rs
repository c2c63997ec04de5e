//! A hash table of keys and folded states: what maps do instead of sorting when the reducer is
//! associative. Keys are sorted once, at the end.

use super::error::DataError;
use super::fold::{BadValue, Fold};
use super::order::{KeyOrder, prefix};
use super::partition::Partitions;
use xxhash_rust::xxh3::xxh3_64;

/// Takes partition, key and value.
pub type Each<'a> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), DataError> + 'a;

/// Keys up to this length are compared without a look at the arena.
const INLINE: usize = 8;
const FIRST_SLOTS: usize = 1 << 12;

#[derive(Debug, Clone, Copy)]
struct Entry<S> {
    /// Of the key, as bytes; all of it up to [`INLINE`] bytes.
    prefix: u64,
    start: u32,
    len: u32,
    state: S,
}

/// The table of one kind of fold: open addressing over numbers of entries, which stand in order of
/// arrival, so that frequent keys, which arrive first, share cache lines.
#[derive(Debug)]
pub struct Aggregator<F: Fold> {
    fold: F,
    /// 0 is free; else the high half of the hash, and the number of the entry plus one.
    slots: Vec<u64>,
    entries: Vec<Entry<F::State>>,
    arena: Vec<u8>,
}

impl<F: Fold> Aggregator<F> {
    /// An empty one.
    pub const fn new(fold: F) -> Self {
        Self {
            fold,
            slots: Vec::new(),
            entries: Vec::new(),
            arena: Vec::new(),
        }
    }

    /// Folds a value into its key's state.
    ///
    /// # Errors
    /// When the value is not one for this fold.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadValue> {
        if self.entries.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let first = prefix(key);
        let hash = quick_hash(first, key);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let Some(slot) = self.slots.get_mut(at) else {
                return Ok(());
            };
            if *slot == 0 {
                let state = self.fold.first(value)?;
                *slot = tag(hash) | (self.entries.len() as u64 + 1);
                self.entries.push(Entry {
                    prefix: first,
                    // The budget keeps the arena below 4 GiB.
                    start: self.arena.len() as u32,
                    len: key.len() as u32,
                    state,
                });
                self.arena.extend_from_slice(key);
                return Ok(());
            }
            if tag(*slot) == tag(hash) {
                let number = (*slot as u32 - 1) as usize;
                if let Some(entry) = self.entries.get_mut(number)
                    && entry.prefix == first
                    && entry.len as usize == key.len()
                    && (key.len() <= INLINE || key_of(&self.arena, entry.start, entry.len) == key)
                {
                    return self.fold.add(&mut entry.state, value);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// How many keys it holds.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes it holds.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.arena.len()
            + self.slots.len() * size_of::<u64>()
            + self.entries.len() * size_of::<Entry<F::State>>()
            + self.fold.bytes()
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
        let mut buckets: Vec<Vec<Entry<F::State>>> = Vec::new();
        buckets.resize_with(partitions.count() as usize, Vec::new);
        for entry in self.entries.drain(..) {
            let place = partitions.of(key_of(&self.arena, entry.start, entry.len));
            if let Some(bucket) = buckets.get_mut(place as usize) {
                bucket.push(entry);
            }
        }
        self.slots.fill(0);
        let arena = &self.arena;
        let mut value = Vec::new();
        for (place, bucket) in buckets.iter_mut().enumerate() {
            let key = |e: &Entry<F::State>| key_of(arena, e.start, e.len);
            if order.is_bytes() {
                bucket.sort_unstable_by(|a, b| {
                    a.prefix.cmp(&b.prefix).then_with(|| key(a).cmp(key(b)))
                });
            } else {
                bucket.sort_unstable_by(|a, b| order.compare(key(a), key(b)));
            }
            for entry in bucket {
                value.clear();
                self.fold.write(&entry.state, &mut value);
                each(place as u32, key(entry), &value)?;
            }
        }
        self.arena.clear();
        self.fold.clear();
        Ok(())
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(FIRST_SLOTS);
        let mut slots = vec![0u64; len];
        let mask = len - 1;
        for (n, entry) in self.entries.iter().enumerate() {
            let key = key_of(&self.arena, entry.start, entry.len);
            let hash = quick_hash(entry.prefix, key);
            let mut at = hash as usize & mask;
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = tag(hash) | (n as u64 + 1);
            }
        }
        self.slots = slots;
    }
}

fn key_of(arena: &[u8], start: u32, len: u32) -> &[u8] {
    let start = start as usize;
    arena.get(start..start + len as usize).unwrap_or_default()
}

const fn tag(hash: u64) -> u64 {
    hash & 0xffff_ffff_0000_0000
}

/// Hashes short keys, most words, from their prefix alone. Used in this process only.
#[inline]
fn quick_hash(prefix: u64, key: &[u8]) -> u64 {
    if key.len() > INLINE {
        return xxh3_64(key);
    }
    let wide = u128::from(prefix ^ (key.len() as u64)) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    (wide >> 64) as u64 ^ wide as u64
}
