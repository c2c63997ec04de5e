//! What one map task reads, and what a worker has of the input already.

use crate::job::JobSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stretch of one input file. Its first and last line may be cut: a map task reads on to the end
/// of the last line and leaves the first one, unless it begins the file, to the task before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputRange {
    /// The file as the submitter resolved it: a path, a URL, or a magnet link with the path within.
    /// [`Holding::file`] names the same file by the same string.
    pub file: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Index of the job's input that it came from ([`JobSpec::inputs`]).
    #[serde(default)]
    pub input: u32,
}

/// The input of one map task: stretches of one file, or several small files together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// In the order in which they are read.
    pub parts: Vec<InputRange>,
    /// Names of hosts that hold all of it, where the submitter knows; replicas are alternatives,
    /// each split is processed once.
    #[serde(default)]
    pub hosts: Vec<String>,
}

impl Split {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len))
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a worker holds of an input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// As in [`InputRange::file`].
    pub file: String,
    /// Stretches in ascending order that do not touch: first byte and the byte after the last.
    pub ranges: Vec<(u64, u64)>,
}

/// Everything a worker holds, ready to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings(BTreeMap<String, Vec<(u64, u64)>>);

impl Holdings {
    /// Takes in what a worker says. Stretches may overlap or be out of order; they are put right.
    pub fn new(told: Vec<Holding>) -> Self {
        let mut all = Self::default();
        all.add(told);
        all
    }

    /// Adds to it.
    pub fn add(&mut self, told: Vec<Holding>) {
        for holding in told {
            self.add_ranges(holding.file, holding.ranges);
        }
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: Self) {
        for (file, ranges) in other.0 {
            self.add_ranges(file, ranges);
        }
    }

    fn add_ranges(&mut self, file: String, more: Vec<(u64, u64)>) {
        {
            let ranges = self.0.entry(file).or_default();
            ranges.extend(more.into_iter().filter(|(from, to)| from < to));
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
            for &(from, to) in ranges.iter() {
                match merged.last_mut() {
                    Some(last) if from <= last.1 => last.1 = last.1.max(to),
                    _ => merged.push((from, to)),
                }
            }
            *ranges = merged;
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Files and their stretches.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[(u64, u64)])> {
        self.0
            .iter()
            .map(|(file, ranges)| (file.as_str(), ranges.as_slice()))
    }

    /// Bytes of a split that are held.
    pub fn of(&self, split: &Split) -> u64 {
        let part = |part: &InputRange| {
            let ranges = self.0.get(&part.file).map_or(&[][..], Vec::as_slice);
            let end = part.offset.saturating_add(part.len);
            let first = ranges.partition_point(|(_, to)| *to <= part.offset);
            ranges
                .iter()
                .skip(first)
                .take_while(|(from, _)| *from < end)
                .map(|(from, to)| (*to).min(end) - (*from).max(part.offset))
                .sum::<u64>()
        };
        split
            .parts
            .iter()
            .fold(0, |sum, p| sum.saturating_add(part(p)))
    }
}

/// A job as it is handed to the master: what to do, its input already cut into splits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What to do.
    pub spec: JobSpec,
    /// One map task each.
    pub splits: Vec<Split>,
    /// For [`crate::job::Partitioner::Range`]: the first keys of partitions 1, 2, … in ascending
    /// order, found by sampling.
    #[serde(default)]
    pub cuts: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(offset: u64, len: u64) -> InputRange {
        InputRange {
            file: "f".into(),
            offset,
            len,
            input: 0,
        }
    }

    proptest! {
        #[test]
        fn what_is_held_of_a_split_is_counted_byte_by_byte(
            ranges in proptest::collection::vec((0u64..60, 0u64..60), 0..8),
            offset in 0u64..50, len in 0u64..30,
        ) {
            let held = |b: u64| ranges.iter().any(|(from, to)| (*from..*to).contains(&b));
            let expected = (offset..offset + len).filter(|b| held(*b)).count() as u64;
            let holdings = Holdings::new(vec![Holding { file: "f".into(), ranges: ranges.clone() }]);
            let split = Split { parts: vec![range(offset, len)], hosts: vec![] };
            prop_assert_eq!(holdings.of(&split), expected);
        }
    }

    #[test]
    fn lengths_beyond_64_bits_saturate() {
        let split = Split {
            parts: vec![range(u64::MAX, u64::MAX), range(1, u64::MAX)],
            hosts: vec![],
        };
        assert_eq!(split.len(), u64::MAX);
        let all = Holding {
            file: "f".into(),
            ranges: vec![(0, u64::MAX)],
        };
        assert_eq!(Holdings::new(vec![all]).of(&split), u64::MAX - 1);
    }
}
