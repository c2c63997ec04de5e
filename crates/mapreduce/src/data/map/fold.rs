//! Map output that is added up as it comes, for a combiner that is a fold.

use super::{ByPartition, Common, MapOutput, Sink};
use crate::code::{Collect, Place};
use crate::data::aggregate::{Aggregator, BATCH};
use crate::data::error::DataError;
use crate::data::fold::{AnyFold, Fold};
use crate::data::order::KeyOrder;
use crate::data::partition::Partitions;
use crate::data::reduce::bad_value;
use crate::data::text::Output;
use std::sync::Arc;

/// Aggregates records.
pub(crate) struct FoldSink<F: Fold> {
    pub(super) common: Common,
    pub(super) table: Aggregator<F>,
    pub(super) fold: Arc<dyn AnyFold>,
}

impl<F: Fold> FoldSink<F> {
    pub(crate) fn new(fold: F, common: Common) -> Self {
        Self {
            common,
            fold: Arc::new(fold.clone()),
            table: Aggregator::new(fold),
        }
    }
}

impl<F: Fold> FoldSink<F> {
    pub(super) fn keep_within_budget(&mut self) {
        if self.table.bytes() <= self.common.plan.memory_bytes {
            return;
        }
        let Self { common, table, .. } = self;
        let (partitions, order) = (common.plan.partitions.clone(), common.plan.order.clone());
        let spilled = common.spill(&mut |runs| write_aggregated(table, &partitions, &order, runs));
        self.common.note(spilled);
    }
}

pub(super) fn write_aggregated<F: Fold>(
    table: &mut Aggregator<F>,
    partitions: &Partitions,
    order: &KeyOrder,
    runs: &mut ByPartition<'_>,
) -> Result<(), DataError> {
    table.drain(partitions, order, &mut |partition, key, value| {
        runs.go_to(partition)?;
        runs.writer.push(key, value)
    })
}

impl<F: Fold> Collect for FoldSink<F> {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        let task = &mut self.common.task;
        task.output_records += 1;
        task.output_bytes += (key.len() + value.len()) as u64;
        match self.table.add(key, value) {
            // Memory is looked at now and then.
            Ok(false) => {}
            Ok(true) => self.keep_within_budget(),
            Err(e) => self.common.note(Err(bad_value(e, key, value))),
        }
    }

    fn emit_all(&mut self, text: &[u8], keys: &[Place], value: &[u8]) {
        for some in keys.chunks(BATCH) {
            let task = &mut self.common.task;
            task.output_records += some.len() as u64;
            task.output_bytes += some
                .iter()
                .map(|key| u64::from(key.len) + value.len() as u64)
                .sum::<u64>();
            match self.table.add_all(text, some, value) {
                Ok(()) => self.keep_within_budget(),
                Err(e) => {
                    let key = some.first().map_or(&[][..], |key| key.of(text));
                    self.common.note(Err(bad_value(e, key, value)));
                }
            }
        }
    }

    fn count(&mut self, group: &str, name: &str, by: u64) {
        self.common.counters.add(group, name, by);
    }

    fn status(&mut self, text: &str) {
        text.clone_into(&mut self.common.status);
    }
}

impl<F: Fold> Output for FoldSink<F> {
    fn collect(&mut self) -> &mut dyn Collect {
        self
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.common.check()
    }
}

impl<F: Fold> Sink for FoldSink<F> {
    fn common(&self) -> &Common {
        &self.common
    }

    fn finish(self: Box<Self>) -> Result<MapOutput, DataError> {
        let Self {
            mut common,
            mut table,
            fold,
        } = *self;
        common.task.combined_records = common.task.output_records;
        let (partitions, order) = (common.plan.partitions.clone(), common.plan.order.clone());
        common.finish(Some(&fold), 0, &mut |runs| {
            write_aggregated(&mut table, &partitions, &order, runs)
        })
    }
}
