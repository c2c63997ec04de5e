//! Records in memory and their order: an arena of records and, beside it, sixteen bytes for each:
//! prefix of the key, partition, place in the arena. Sorting moves only the latter.

use super::error::DataError;
use super::native::Sorted;
use super::order::{KeyOrder, prefix};
use super::partition::Partitions;
use super::room::Room;
use crate::batch::{self, HEADER_BYTES};
use bytemuck::{Pod, Zeroable};
use std::cmp::Ordering;
use std::hint::black_box;

/// Bytes of the arena at most: places in it have 32 bits.
const MAX_ARENA_BYTES: usize = u32::MAX as usize;
/// Fewer records of one prefix than this are compared key by key; more get the next eight bytes of
/// their keys as a new prefix.
const FEW: usize = 16;
/// Records that are brought near before they are read.
const AHEAD: usize = 32;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    prefix: u64,
    start: u32,
    partition: u32,
}

/// Collects records and gives them back by partition and key.
#[derive(Debug)]
pub struct Sorter {
    arena: Room<u8>,
    entries: Room<Entry>,
    order: KeyOrder,
    order_values: bool,
}

impl Sorter {
    /// An empty one. Records of equal keys stay in order of arrival, or come in the order of their
    /// values if `order_values`.
    pub const fn new(order: KeyOrder, order_values: bool) -> Self {
        Self {
            arena: Room::new(),
            entries: Room::new(),
            order,
            order_values,
        }
    }

    /// Whether a record of this size still has room beside what is there, in `budget` bytes.
    #[inline]
    pub fn has_room(&self, key_len: usize, value_len: usize, budget: usize) -> bool {
        let arena = self.arena.len() + HEADER_BYTES + key_len + value_len;
        arena <= MAX_ARENA_BYTES && arena + size_of::<Entry>() * (self.entries.len() + 1) <= budget
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`DataError::RecordTooLong`] when the arena cannot hold it.
    #[inline]
    pub fn push(&mut self, partition: u32, key: &[u8], value: &[u8]) -> Result<(), DataError> {
        let too_long = || DataError::RecordTooLong {
            bytes: (key.len() + value.len()) as u64,
            limit: MAX_ARENA_BYTES as u64,
        };
        let start = u32::try_from(self.arena.len()).map_err(|_| too_long())?;
        let header = batch::header(key, value).map_err(|_| too_long())?;
        for part in [&header, key, value] {
            self.arena.extend_from_slice(part);
        }
        self.entries.push(Entry {
            prefix: self.order.prefix(key),
            start,
            partition,
        });
        Ok(())
    }

    /// Bytes of all its records.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sorts by partition, then by key, and gives the records. They stay until [`Sorter::clear`].
    pub fn sorted(&mut self, partitions: &Partitions) -> SortedRecords<'_> {
        let mut entries = std::mem::replace(&mut self.entries, Room::new());
        // Records of equal keys find their order again by their places in the arena.
        partitions.arrange(&mut entries, |entry| entry.partition);
        for bucket in entries.chunk_by_mut(|a, b| a.partition == b.partition) {
            self.sort(bucket);
        }
        self.entries = entries;
        SortedRecords {
            sorter: self,
            next: 0,
            now: None,
        }
    }

    /// Forgets all records, keeping the room.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.arena.clear();
    }

    /// Touches the next records, which lie anywhere in the arena: the processor then waits for all
    /// of them at once.
    fn bring_near(&self, next: usize) {
        let some = self.entries.iter().skip(next).take(AHEAD);
        let byte = |at: usize| self.arena.get(at).copied().unwrap_or(0);
        let touched = some.fold(0, |all, entry| {
            let start = entry.start as usize;
            all ^ byte(start) ^ byte(start + 64)
        });
        black_box(touched);
    }

    fn sort(&self, bucket: &mut [Entry]) {
        bucket.sort_unstable_by_key(|entry| entry.prefix);
        for same in bucket.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            if same.len() == 1 {
            } else if same.len() < FEW || !self.order.is_bytes() {
                same.sort_unstable_by(|a, b| self.compare(a, b));
            } else {
                self.sort_deeper(same, size_of::<u64>());
            }
        }
    }

    /// Sorts records whose keys share their first `depth` bytes, or end before.
    fn sort_deeper(&self, bucket: &mut [Entry], depth: usize) {
        // Keys that differ only in zeros at their end share every prefix: those that have ended
        // come first, by length.
        bucket.sort_unstable_by(|a, b| match (self.ends(a, depth), self.ends(b, depth)) {
            (false, false) => Ordering::Equal,
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (true, true) => self.compare(a, b),
        });
        let ended = bucket.partition_point(|entry| self.ends(entry, depth));
        let Some(longer) = bucket.get_mut(ended..) else {
            return;
        };
        for entry in longer.iter_mut() {
            let key = self.record_key(entry);
            entry.prefix = prefix(key.get(depth..).unwrap_or_default());
        }
        longer.sort_unstable_by_key(|entry| entry.prefix);
        for same in longer.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            if same.len() == 1 {
            } else if same.len() < FEW {
                same.sort_unstable_by(|a, b| self.compare(a, b));
            } else {
                self.sort_deeper(same, depth + size_of::<u64>());
            }
        }
    }

    fn ends(&self, entry: &Entry, depth: usize) -> bool {
        self.record_key(entry).len() <= depth
    }

    fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        let mut order = self.order.compare(self.record_key(a), self.record_key(b));
        if self.order_values {
            order = order.then_with(|| self.record_value(a).cmp(self.record_value(b)));
        }
        order.then(a.start.cmp(&b.start))
    }

    #[inline]
    fn lengths(&self, entry: &Entry) -> (usize, usize) {
        let header = self
            .arena
            .get(entry.start as usize..)
            .and_then(|rest| rest.first_chunk::<HEADER_BYTES>());
        let [a, b, c, d, e, f, g, h] = header.copied().unwrap_or_default();
        (
            u32::from_le_bytes([a, b, c, d]) as usize,
            u32::from_le_bytes([e, f, g, h]) as usize,
        )
    }

    #[inline]
    fn record(&self, entry: &Entry) -> &[u8] {
        let (key, value) = self.lengths(entry);
        let start = entry.start as usize;
        self.arena
            .get(start..start + HEADER_BYTES + key + value)
            .unwrap_or_default()
    }

    #[inline]
    fn record_key(&self, entry: &Entry) -> &[u8] {
        let (key, _) = self.lengths(entry);
        let start = entry.start as usize + HEADER_BYTES;
        self.arena.get(start..start + key).unwrap_or_default()
    }

    fn record_value(&self, entry: &Entry) -> &[u8] {
        let (key, _) = self.lengths(entry);
        self.record(entry)
            .get(HEADER_BYTES + key..)
            .unwrap_or_default()
    }
}

/// The records of a [`Sorter`] in order.
#[derive(Debug)]
pub struct SortedRecords<'s> {
    sorter: &'s Sorter,
    next: usize,
    now: Option<Entry>,
}

impl SortedRecords<'_> {
    /// Partition of the current record.
    pub fn partition(&self) -> u32 {
        self.now.map_or(0, |entry| entry.partition)
    }

    /// The whole record, laid out as [`crate::batch`] says.
    #[inline]
    pub fn record(&self) -> &[u8] {
        self.now
            .as_ref()
            .map_or(&[], |entry| self.sorter.record(entry))
    }
}

impl Sorted for SortedRecords<'_> {
    #[inline]
    fn advance(&mut self) -> Result<bool, DataError> {
        if self.next.is_multiple_of(AHEAD) {
            self.sorter.bring_near(self.next);
        }
        self.now = self.sorter.entries.get(self.next).copied();
        self.next += 1;
        Ok(self.now.is_some())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.now
            .as_ref()
            .map_or(&[], |entry| self.sorter.record_key(entry))
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.now
            .as_ref()
            .map_or(&[], |entry| self.sorter.record_value(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::Cuts;
    use super::*;
    use crate::job::Partitioner;
    use proptest::prelude::*;

    fn partitions(count: u32) -> Partitions {
        let order = KeyOrder::bytes();
        Partitions::new(&Partitioner::Hash, count, &Cuts::default(), &order, b'\t')
    }

    fn sorted(
        records: &[(Vec<u8>, Vec<u8>)],
        count: u32,
        order_values: bool,
    ) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
        let partitions = partitions(count);
        let mut sorter = Sorter::new(KeyOrder::bytes(), order_values);
        for (key, value) in records {
            sorter.push(partitions.of(key), key, value).expect("short");
        }
        let mut out = Vec::new();
        let mut records = sorter.sorted(&partitions);
        while records.advance().expect("in memory") {
            let (key, value) = (records.key().to_vec(), records.value().to_vec());
            let mut record = Vec::new();
            batch::push(&mut record, &key, &value).expect("short");
            assert_eq!(records.record(), record);
            out.push((records.partition(), key, value));
        }
        sorter.clear();
        assert!(sorter.is_empty());
        out
    }

    proptest! {
        #[test]
        fn records_come_back_in_order(
            // Few bytes, zeros among them, and long common beginnings.
            records in proptest::collection::vec(
                (proptest::collection::vec(0..2u8, 0..30), proptest::collection::vec(0..3u8, 0..2)), 0..200),
            count in 1..4u32,
            order_values: bool,
        ) {
            let partitions = partitions(count);
            let mut slow: Vec<_> = records
                .iter()
                .map(|(key, value)| (partitions.of(key), key.clone(), value.clone()))
                .collect();
            if order_values {
                slow.sort();
            } else {
                slow.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            }
            prop_assert_eq!(sorted(&records, count, order_values), slow);
        }
    }
}
