//! Map output that is sorted, and combined before it is written.

use super::{ByPartition, Common, MapOutput, Sink};
use crate::code::{CodeError, Collect};
use crate::data::counters::{Counters, TaskCounters};
use crate::data::error::DataError;
use crate::data::native::Sorted;
use crate::data::partition::Partitions;
use crate::data::reduce::{Reduction, reduce_sorted};
use crate::data::sorter::Sorter;
use crate::data::text::Output;

/// Sorts records.
pub(super) struct SortSink {
    pub(super) common: Common,
    pub(super) sorter: Sorter,
    pub(super) combiner: Option<Box<dyn FnMut() -> Result<Reduction, CodeError> + Send>>,
}

impl SortSink {
    pub(super) fn new(
        common: Common,
        combiner: Option<Box<dyn FnMut() -> Result<Reduction, CodeError> + Send>>,
    ) -> Self {
        let sorter = Sorter::new(common.plan.order.clone(), common.plan.order_values);
        Self {
            common,
            sorter,
            combiner,
        }
    }

    /// Reduces what is in memory, if there is a combiner. What comes out may be in any order.
    pub(super) fn combine(&mut self) -> Result<(), DataError> {
        let Some(make) = &mut self.combiner else {
            return Ok(());
        };
        if self.sorter.is_empty() {
            return Ok(());
        }
        let plan = &self.common.plan;
        let reduction = make()?;
        let mut combined = Combined {
            sorter: Sorter::new(plan.order.clone(), plan.order_values),
            partitions: &plan.partitions,
            counters: &mut self.common.counters,
            status: &mut self.common.status,
            failed: None,
        };
        let mut seen = TaskCounters::default();
        let mut sorted = self.sorter.sorted(&plan.partitions);
        reduce_sorted(&mut sorted, reduction, &mut combined, &mut seen)?;
        self.common.task.combined_records += seen.input_records;
        self.sorter = combined.sorter;
        Ok(())
    }

    pub(super) fn spill(&mut self) -> Result<(), DataError> {
        self.combine()?;
        let Self { common, sorter, .. } = self;
        let partitions = common.plan.partitions.clone();
        common.spill(&mut |runs| write_sorted(sorter, &partitions, runs))
    }
}

pub(super) fn write_sorted(
    sorter: &mut Sorter,
    partitions: &Partitions,
    runs: &mut ByPartition<'_>,
) -> Result<(), DataError> {
    let mut sorted = sorter.sorted(partitions);
    while sorted.advance()? {
        runs.go_to(sorted.partition())?;
        runs.writer.push_record(sorted.record())?;
    }
    sorter.clear();
    Ok(())
}

impl Collect for SortSink {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        let budget = self.common.plan.memory_bytes;
        if !self.sorter.has_room(key.len(), value.len(), budget) && !self.sorter.is_empty() {
            let spilled = self.spill();
            self.common.note(spilled);
        }
        let partition = self.common.plan.partitions.of(key);
        let pushed = self.sorter.push(partition, key, value);
        if pushed.is_err() {
            self.common.note(pushed);
        }
        self.common.task.output_records += 1;
        self.common.task.output_bytes += (key.len() + value.len()) as u64;
    }

    fn count(&mut self, group: &str, name: &str, by: u64) {
        self.common.counters.add(group, name, by);
    }

    fn status(&mut self, text: &str) {
        text.clone_into(&mut self.common.status);
    }
}

impl Output for SortSink {
    fn collect(&mut self) -> &mut dyn Collect {
        self
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.common.check()
    }
}

impl Sink for SortSink {
    fn common(&self) -> &Common {
        &self.common
    }

    fn finish(mut self: Box<Self>) -> Result<MapOutput, DataError> {
        self.combine()?;
        let partitions = self.common.plan.partitions.clone();
        let mut sorter = self.sorter;
        let bytes = sorter.bytes();
        self.common.finish(None, bytes, &mut |runs| {
            write_sorted(&mut sorter, &partitions, runs)
        })
    }
}

/// Where a combiner's records go.
pub(super) struct Combined<'c> {
    pub(super) sorter: Sorter,
    pub(super) partitions: &'c Partitions,
    pub(super) counters: &'c mut Counters,
    pub(super) status: &'c mut String,
    pub(super) failed: Option<DataError>,
}

impl Collect for Combined<'_> {
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        let partition = self.partitions.of(key);
        if let Err(e) = self.sorter.push(partition, key, value) {
            self.failed.get_or_insert(e);
        }
    }

    fn count(&mut self, group: &str, name: &str, by: u64) {
        self.counters.add(group, name, by);
    }

    fn status(&mut self, text: &str) {
        text.clone_into(self.status);
    }
}

impl Output for Combined<'_> {
    fn collect(&mut self) -> &mut dyn Collect {
        self
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
