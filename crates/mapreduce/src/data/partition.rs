//! Which reduce task gets a key.

use super::order::{KeyOrder, fields};
use crate::job::{KeyPart, Partitioner};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The cuts between the partitions of a total order: partition *n* holds the keys from cut *n*-1
/// on and before cut *n*.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuts(Vec<Vec<u8>>);

impl Cuts {
    /// Cuts that spread `sample`, keys drawn from the input, evenly over `partitions`. Fewer
    /// distinct keys make fewer cuts: the last partitions then stay empty.
    pub fn from_sample(mut sample: Vec<Vec<u8>>, partitions: u32, order: &KeyOrder) -> Self {
        sample.sort_by(|a, b| order.compare(a, b));
        let len = sample.len() as u64;
        let mut cuts: Vec<Vec<u8>> = (1..u64::from(partitions.max(1)))
            .filter_map(|n| {
                let at = n * len / u64::from(partitions);
                sample.get(usize::try_from(at).ok()?).cloned()
            })
            .collect();
        cuts.dedup();
        Self(cuts)
    }

    /// The cuts as they are, in order.
    pub fn keys(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Cuts at these keys, which are brought into order.
    pub fn new(mut cuts: Vec<Vec<u8>>, order: &KeyOrder) -> Self {
        cuts.sort_by(|a, b| order.compare(a, b));
        cuts.dedup();
        Self(cuts)
    }
}

/// A partitioner, ready for use.
#[derive(Debug, Clone)]
pub struct Partitions {
    count: u32,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Hash,
    Fields {
        parts: Vec<KeyPart>,
        separator: u8,
    },
    Range {
        order: KeyOrder,
        /// Prefixes of the cuts, to compare without touching them.
        prefixes: Vec<u64>,
        cuts: Vec<Vec<u8>>,
    },
}

impl Partitions {
    /// The rule of a job with `count` reduce tasks (at least 1). `cuts` are for
    /// [`Partitioner::Range`] alone; `separator` stands between the fields of keys.
    pub fn new(
        partitioner: &Partitioner,
        count: u32,
        cuts: &Cuts,
        order: &KeyOrder,
        separator: u8,
    ) -> Self {
        let count = count.max(1);
        let rule = match partitioner {
            Partitioner::Hash => Rule::Hash,
            Partitioner::Fields(parts) => Rule::Fields {
                parts: parts.clone(),
                separator,
            },
            Partitioner::Range => {
                let cuts: Vec<_> = cuts.0.iter().take(count as usize - 1).cloned().collect();
                Rule::Range {
                    order: order.clone(),
                    prefixes: cuts.iter().map(|cut| order.prefix(cut)).collect(),
                    cuts,
                }
            }
        };
        Self { count, rule }
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Brings `items` together by partition, in their own room and in no order within one, and
    /// gives where each partition ends. `of` tells the partition of an item.
    pub fn arrange<T>(&self, items: &mut [T], of: impl FnMut(&T) -> u32) -> Vec<usize> {
        if self.count == 1 {
            return vec![items.len()];
        }
        let mut places: Vec<u32> = items.iter().map(of).collect();
        let mut ends = vec![0usize; self.count as usize];
        for place in &places {
            if let Some(end) = ends.get_mut(*place as usize) {
                *end += 1;
            }
        }
        let mut sum = 0;
        // The first item of each partition that is not known to be in its place.
        let mut next = Vec::with_capacity(ends.len());
        for end in &mut ends {
            next.push(sum);
            sum += *end;
            *end = sum;
        }
        for (here, end) in ends.iter().enumerate() {
            while let Some(at) = next.get(here).copied().filter(|at| at < end) {
                let place = places.get(at).map_or(here, |place| *place as usize);
                let Some(to) = next.get_mut(place) else {
                    break;
                };
                items.swap(at, *to);
                places.swap(at, *to);
                *to += 1;
            }
        }
        ends
    }

    /// The partition of a key. The same on every machine.
    #[inline]
    pub fn of(&self, key: &[u8]) -> u32 {
        if self.count == 1 {
            return 0;
        }
        match &self.rule {
            Rule::Hash => scale(xxh3_64(key), self.count),
            Rule::Fields { parts, separator } => {
                let mut hash = Xxh3::new();
                for part in parts {
                    hash.update(fields(key, *separator, part));
                    hash.update(&[*separator]);
                }
                scale(hash.digest(), self.count)
            }
            Rule::Range {
                order,
                prefixes,
                cuts,
            } => {
                let prefix = order.prefix(key);
                let mut at = prefixes.partition_point(|cut| *cut < prefix);
                // Among cuts of the same prefix the keys decide.
                while prefixes.get(at) == Some(&prefix)
                    && cuts
                        .get(at)
                        .is_some_and(|cut| order.compare(cut, key).is_le())
                {
                    at += 1;
                }
                at as u32
            }
        }
    }
}

/// Maps a hash to 0..count evenly, without a division (Lemire's multiply and shift).
#[inline]
const fn scale(hash: u64, count: u32) -> u32 {
    ((hash as u128 * count as u128) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Order;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_are_brought_together(items in proptest::collection::vec(0..7u32, 0..60), count in 1..8u32) {
            let items: Vec<u32> = items.into_iter().map(|n| n % count).collect();
            let none = Cuts::default();
            let table = Partitions::new(&Partitioner::Hash, count, &none, &KeyOrder::bytes(), b'\t');
            let mut arranged = items.clone();
            let ends = table.arrange(&mut arranged, |n| *n);
            let mut sorted = items;
            sorted.sort_unstable();
            prop_assert_eq!(&arranged, &sorted);
            for (place, end) in ends.iter().enumerate() {
                prop_assert_eq!(*end, sorted.partition_point(|n| *n <= place as u32));
            }
        }

        #[test]
        fn ranges_are_in_total_order(
            keys in proptest::collection::vec("[ab]{0,12}", 1..60), partitions in 1..9u32,
        ) {
            let keys: Vec<Vec<u8>> = keys.into_iter().map(String::into_bytes).collect();
            let order = KeyOrder::bytes();
            let cuts = Cuts::from_sample(keys.clone(), partitions, &order);
            let table = Partitions::new(&Partitioner::Range, partitions, &cuts, &order, b'\t');
            let mut sorted = keys;
            sorted.sort();
            let places: Vec<u32> = sorted.iter().map(|key| table.of(key)).collect();
            prop_assert!(places.is_sorted());
            prop_assert!(places.iter().all(|p| *p < partitions));
            for (key, place) in sorted.iter().zip(&places) {
                let slow = cuts.keys().iter().filter(|cut| *cut <= key).count();
                prop_assert_eq!(slow as u32, *place);
            }
        }
    }

    #[test]
    fn a_sample_spreads_evenly() {
        let sample: Vec<Vec<u8>> = (0..1000u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let order = KeyOrder::bytes();
        let cuts = Cuts::from_sample(sample.clone(), 4, &order);
        let table = Partitions::new(&Partitioner::Range, 4, &cuts, &order, b'\t');
        let mut counts = [0; 4];
        for key in &sample {
            counts[table.of(key) as usize] += 1;
        }
        assert_eq!(counts, [250; 4]);
    }

    #[test]
    fn hashes_spread_keys_and_stay_what_they_are() {
        let order = KeyOrder::new(&Order::Bytes, b'\t');
        let table = Partitions::new(&Partitioner::Hash, 10, &Cuts::default(), &order, b'\t');
        let mut counts = [0u32; 10];
        for n in 0..10_000u32 {
            counts[table.of(n.to_string().as_bytes()) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        // Workers of different machines must agree: this is XXH3's value for "word".
        assert_eq!(table.of(b"word"), scale(xxh3_64(b"word"), 10));
    }

    #[test]
    fn only_the_named_fields_decide() {
        let first = KeyPart {
            first: 1,
            last: Some(1),
            numeric: false,
            reverse: false,
        };
        let rule = Partitioner::Fields(vec![first]);
        let table = Partitions::new(&rule, 7, &Cuts::default(), &KeyOrder::bytes(), b'\t');
        for n in 0..100 {
            let (a, b) = (format!("{n}\tx"), format!("{n}\ty\tz"));
            assert_eq!(table.of(a.as_bytes()), table.of(b.as_bytes()));
        }
    }
}
