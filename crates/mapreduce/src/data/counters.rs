//! Counters of one attempt. They count for the job only if the attempt commits.

use std::collections::BTreeMap;

/// Counters by group and name, as code counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, BTreeMap<String, u64>>);

impl Counters {
    /// Adds to one counter; stops at the largest number rather than wrapping round.
    pub fn add(&mut self, group: &str, name: &str, by: u64) {
        if !self.0.contains_key(group) {
            self.0.insert(group.to_owned(), BTreeMap::new());
        }
        let Some(counters) = self.0.get_mut(group) else {
            return;
        };
        match counters.get_mut(name) {
            Some(value) => *value = value.saturating_add(by),
            None => {
                counters.insert(name.to_owned(), by);
            }
        }
    }

    /// Adds all of another attempt's.
    pub fn add_all(&mut self, other: &Self) {
        for (group, name, value) in other.iter() {
            self.add(group, name, value);
        }
    }

    /// Group, name and value, in order of group and name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().flat_map(|(group, counters)| {
            counters
                .iter()
                .map(move |(name, value)| (group.as_str(), name.as_str(), *value))
        })
    }

    /// The value of one counter, 0 if nobody counted it.
    pub fn get(&self, group: &str, name: &str) -> u64 {
        self.0
            .get(group)
            .and_then(|counters| counters.get(name))
            .copied()
            .unwrap_or(0)
    }
}

/// What every task counts by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounters {
    /// Bytes read: of the input in a map, of runs as stored in a reduce.
    pub input_bytes: u64,
    /// Records read: lines in a map, records of runs in a reduce.
    pub input_records: u64,
    /// Records that code emitted.
    pub output_records: u64,
    /// Bytes of keys and values that code emitted.
    pub output_bytes: u64,
    /// Records that went into a combiner, or that were folded into another.
    pub combined_records: u64,
    /// Records written to scratch files because memory was full.
    pub spilled_records: u64,
    /// Distinct keys that a reduce saw.
    pub groups: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_do_not_wrap() {
        let mut a = Counters::default();
        a.add("g", "n", 2);
        a.add("g", "n", 3);
        let mut b = Counters::default();
        b.add("g", "n", u64::MAX);
        b.add("a", "m", 1);
        b.add_all(&a);
        let all: Vec<_> = b.iter().collect();
        assert_eq!(all, [("a", "m", 1), ("g", "n", u64::MAX)]);
        assert_eq!((a.get("g", "n"), a.get("g", "x")), (5, 0));
    }
}
