//! Finding bad records: when a task failed twice on records, its retries are probes that halve the
//! suspects until one is left, which is left out from then on (OSDI 2004, section 4.6).

use crate::message::RecordRange;

/// Failures that name records before the search begins: code that fails by chance is retried.
const STRIKES: u32 = 2;

/// What a task knows of bad records in its input.
#[derive(Debug, Clone, Default)]
pub(super) struct BadRecords {
    strikes: u32,
    skip: Vec<RecordRange>,
    suspects: Option<RecordRange>,
}

impl BadRecords {
    /// What attempts leave out.
    pub(super) fn skip(&self) -> &[RecordRange] {
        &self.skip
    }

    /// What the next attempt shall try alone: half of the suspects.
    pub(super) fn probe(&self) -> Option<RecordRange> {
        self.suspects.map(|all| halve(all).0)
    }

    /// A failure that names records was counted, now or before a restart.
    pub(super) fn strike(&mut self) {
        self.strikes = self.strikes.saturating_add(1);
    }

    /// A whole attempt failed on one of `records`. Gives the record that is bad, once that is known;
    /// it is to be left out with [`BadRecords::leave_out`]. True if the failure is thereby dealt with
    /// and must not count against the task.
    pub(super) fn failed(&mut self, records: RecordRange) -> (bool, Option<RecordRange>) {
        if self.strikes.saturating_add(1) < STRIKES || records.is_empty() {
            return (false, None);
        }
        (true, self.narrow(records))
    }

    /// A probe failed, on one of `records` if it could tell.
    pub(super) fn probe_failed(
        &mut self,
        probe: RecordRange,
        records: Option<RecordRange>,
    ) -> Option<RecordRange> {
        let within = records
            .map(|r| RecordRange {
                from: r.from.max(probe.from),
                to: r.to.min(probe.to),
            })
            .filter(|r| !r.is_empty());
        self.narrow(within.unwrap_or(probe))
    }

    /// A probe went through: the bad record is among the others.
    pub(super) fn probe_passed(&mut self, probe: RecordRange) -> Option<RecordRange> {
        let all = self.suspects?;
        let (first, second) = halve(all);
        if probe != first || second.is_empty() {
            // A stale answer, or there is no bad record alone: start over.
            self.suspects = None;
            return None;
        }
        self.narrow(second)
    }

    fn narrow(&mut self, records: RecordRange) -> Option<RecordRange> {
        if records.len() == 1 {
            self.suspects = None;
            return Some(records);
        }
        self.suspects = Some(records);
        None
    }

    /// Leaves records out from now on.
    pub(super) fn leave_out(&mut self, records: RecordRange) {
        self.suspects = None;
        // The task has shown that its input is bad: the next failure starts a search at once.
        self.strikes = STRIKES - 1;
        let at = self.skip.partition_point(|r| *r < records);
        self.skip.insert(at, records);
    }
}

fn halve(all: RecordRange) -> (RecordRange, RecordRange) {
    let middle = all.from + all.len().div_ceil(2);
    (
        RecordRange {
            from: all.from,
            to: middle,
        },
        RecordRange {
            from: middle,
            to: all.to,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Code that crashes on one record and can only say which batch it was in.
        #[test]
        fn the_bad_record_is_found_in_as_many_probes_as_it_has_bits(
            records in 1u64..100_000, bad in 0u64..100_000, batch in 1u64..5000,
        ) {
            let bad = bad % records;
            let from = bad / batch * batch;
            let hint = RecordRange { from, to: (from + batch).min(records) };
            let mut known = BadRecords::default();
            prop_assert_eq!(known.failed(hint), (false, None));
            known.strike();
            let (dealt_with, mut found) = known.failed(hint);
            prop_assert!(dealt_with);
            let mut probes = 0;
            while found.is_none() {
                let probe = known.probe().expect("a search is on");
                probes += 1;
                found = match (probe.from..probe.to).contains(&bad) {
                    true => known.probe_failed(probe, None),
                    false => known.probe_passed(probe),
                };
            }
            prop_assert_eq!(found, Some(RecordRange { from: bad, to: bad + 1 }));
            prop_assert!(probes <= hint.len().ilog2() + 1, "{} probes", probes);
        }
    }

    #[test]
    fn a_failure_that_comes_and_goes_ends_the_search() {
        let mut known = BadRecords::default();
        let two = RecordRange { from: 4, to: 6 };
        known.strike();
        assert_eq!(known.failed(two), (true, None));
        let stale = RecordRange { from: 0, to: 9 };
        assert_eq!(known.probe_passed(stale), None);
        assert_eq!(known.probe(), None);
    }
}
