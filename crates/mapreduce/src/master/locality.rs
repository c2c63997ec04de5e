//! Which worker holds the input of which map task.

use crate::id::WorkerId;
use crate::split::{Holdings, Split};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A part of a split in its file: first byte, byte after the last, which map task.
type Stretch = (u64, u64, u32);

/// Of one job.
#[derive(Debug, Clone, Default)]
pub(super) struct Locality {
    by_file: BTreeMap<String, Vec<Stretch>>,
    by_host: BTreeMap<String, Vec<u32>>,
    /// Who holds the input of each map task.
    holders: Vec<Vec<WorkerId>>,
    local: Backlogs,
    /// Waiting map tasks that nobody holds.
    unheld: BTreeSet<u32>,
}

impl Locality {
    pub(super) fn new(splits: &[Split]) -> Self {
        let mut all = Self {
            holders: vec![Vec::new(); splits.len()],
            ..Self::default()
        };
        for (map, split) in (0..).zip(splits) {
            for part in &split.parts {
                let stretch = (part.offset, part.offset.saturating_add(part.len), map);
                match all.by_file.get_mut(&part.file) {
                    Some(stretches) => stretches.push(stretch),
                    None => {
                        all.by_file.insert(part.file.clone(), vec![stretch]);
                    }
                }
            }
            for host in &split.hosts {
                all.by_host.entry(host.clone()).or_default().push(map);
            }
        }
        all
    }

    /// A worker came, or holds more. A split counts as held by whoever has more than half of it.
    pub(super) fn add(
        &mut self,
        worker: WorkerId,
        host: &str,
        holds: &Holdings,
        splits: &[Split],
        pending: &BTreeSet<u32>,
    ) {
        let mut maps: BTreeSet<u32> = self
            .by_host
            .get(host)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for (file, ranges) in holds.iter() {
            let Some(stretches) = self.by_file.get(file) else {
                continue;
            };
            for stretch in stretches {
                let after = ranges.partition_point(|(_, to)| *to <= stretch.0);
                if ranges.get(after).is_some_and(|(from, _)| *from < stretch.1) {
                    maps.insert(stretch.2);
                }
            }
        }
        for map in maps {
            let Some(split) = splits.get(map as usize) else {
                continue;
            };
            let whole = split.hosts.iter().any(|h| h == host);
            if !whole && holds.of(split) <= split.len() / 2 {
                continue;
            }
            let Some(holders) = self.holders.get_mut(map as usize) else {
                continue;
            };
            if !holders.contains(&worker) {
                holders.push(worker);
                if pending.contains(&map) {
                    self.unheld.remove(&map);
                    self.local.insert(worker, map);
                }
            }
        }
    }

    /// A worker is gone.
    pub(super) fn remove(&mut self, worker: WorkerId, pending: &BTreeSet<u32>) {
        self.local.forget(worker);
        for (map, holders) in (0..).zip(&mut self.holders) {
            let before = holders.len();
            holders.retain(|h| *h != worker);
            if before > 0 && holders.is_empty() && pending.contains(&map) {
                self.unheld.insert(map);
            }
        }
    }

    /// A map task began or ceased to wait.
    pub(super) fn refresh(&mut self, map: u32, pending: bool) {
        let holders = self
            .holders
            .get(map as usize)
            .map_or(&[][..], Vec::as_slice);
        if pending && holders.is_empty() {
            self.unheld.insert(map);
        } else {
            self.unheld.remove(&map);
        }
        for holder in holders {
            match pending {
                true => self.local.insert(*holder, map),
                false => self.local.remove(*holder, map),
            }
        }
    }

    /// Waiting tasks whose input this worker holds.
    pub(super) fn local(&self, worker: WorkerId) -> impl Iterator<Item = u32> + '_ {
        self.local.of(worker)
    }

    /// Waiting tasks whose input nobody holds.
    pub(super) fn unheld(&self) -> impl Iterator<Item = u32> + '_ {
        self.unheld.iter().copied()
    }

    /// Waiting tasks of others, those of whoever has most to do first, its last ones first.
    pub(super) fn of_others(&self) -> impl Iterator<Item = u32> + '_ {
        self.local.longest_first()
    }

    /// Whether a worker holds a task's input.
    pub(super) fn holds(&self, worker: WorkerId, map: u32) -> bool {
        self.holders
            .get(map as usize)
            .is_some_and(|h| h.contains(&worker))
    }
}

/// Waiting map tasks that each worker holds, in the order of how many they are: thousands of idle
/// workers ask who has most to do, again and again, so nobody may have to sort for the answer.
#[derive(Debug, Clone, Default)]
struct Backlogs {
    /// None is empty.
    tasks: BTreeMap<WorkerId, BTreeSet<u32>>,
    longest: BTreeSet<(Reverse<usize>, WorkerId)>,
}

impl Backlogs {
    fn insert(&mut self, worker: WorkerId, map: u32) {
        let tasks = self.tasks.entry(worker).or_default();
        let before = tasks.len();
        if tasks.insert(map) {
            self.longest.remove(&(Reverse(before), worker));
            self.longest.insert((Reverse(before + 1), worker));
        }
    }

    fn remove(&mut self, worker: WorkerId, map: u32) {
        let Some(tasks) = self.tasks.get_mut(&worker) else {
            return;
        };
        let before = tasks.len();
        if tasks.remove(&map) {
            self.longest.remove(&(Reverse(before), worker));
            match before - 1 {
                0 => {
                    self.tasks.remove(&worker);
                }
                left => {
                    self.longest.insert((Reverse(left), worker));
                }
            }
        }
    }

    fn forget(&mut self, worker: WorkerId) {
        if let Some(tasks) = self.tasks.remove(&worker) {
            self.longest.remove(&(Reverse(tasks.len()), worker));
        }
    }

    fn of(&self, worker: WorkerId) -> impl Iterator<Item = u32> + '_ {
        self.tasks.get(&worker).into_iter().flatten().copied()
    }

    fn longest_first(&self) -> impl Iterator<Item = u32> + '_ {
        let workers = self.longest.iter().map(|(_, worker)| worker);
        workers
            .filter_map(|worker| self.tasks.get(worker))
            .flat_map(|tasks| tasks.iter().rev().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whoever_has_most_to_do_comes_first_whatever_came_and_went(
            steps in prop::collection::vec((0u8..8, 0u64..6, 0u32..12), 0..200),
        ) {
            let mut backlogs = Backlogs::default();
            let mut model: BTreeMap<WorkerId, BTreeSet<u32>> = BTreeMap::new();
            for (what, worker, map) in steps {
                let worker = WorkerId(worker);
                let tasks = model.entry(worker).or_default();
                match what {
                    0 => {
                        backlogs.forget(worker);
                        tasks.clear();
                    }
                    1..4 => {
                        backlogs.remove(worker, map);
                        tasks.remove(&map);
                    }
                    _ => {
                        backlogs.insert(worker, map);
                        tasks.insert(map);
                    }
                }
            }
            let mut sorted: Vec<_> = model.iter().collect();
            sorted.sort_by_key(|(worker, tasks)| (Reverse(tasks.len()), **worker));
            let expected: Vec<u32> = sorted.iter().flat_map(|(_, t)| t.iter().rev().copied()).collect();
            prop_assert_eq!(backlogs.longest_first().collect::<Vec<_>>(), expected);
            for (worker, tasks) in &model {
                prop_assert!(backlogs.of(*worker).eq(tasks.iter().copied()));
            }
        }
    }
}
