//! A map task: lines go through the mapper into a sorter or a hash table, and come out as one run
//! for each reduce task.

use super::aggregate::{Aggregator, BATCH};
use super::counters::{Counters, TaskCounters};
use super::error::DataError;
use super::fold::{AnyFold, Fold};
use super::merge::Merge;
use super::native::Sorted;
use super::order::KeyOrder;
use super::partition::{Cuts, Partitions};
use super::reduce::{
    ReducePlan, Reduction, bad_value, block_bytes, narrow, reduce_sorted, write_merged,
};
use super::scratch::{Scratch, Storage};
use super::shuffle::{Codec, Growing, Index, Origin, Runs, RunsWriter};
use super::sorter::Sorter;
use super::text::Output;
use crate::code::{CodeError, Collect, MapCode, Place};
use crate::job::JobSpec;
use std::fmt;
use std::sync::Arc;

/// Outputs up to this length are served from memory, unless the plan says otherwise.
const SERVED_FROM_MEMORY_BYTES: usize = 32 << 20;

/// How a map task works.
#[derive(Debug, Clone)]
pub struct MapPlan {
    /// Which partition gets a key.
    pub partitions: Partitions,
    /// In which order a run's keys come.
    pub order: KeyOrder,
    /// Whether the values of a key come in order, too.
    pub order_values: bool,
    /// Memory for records, in bytes.
    pub memory_bytes: usize,
    /// How the output is compressed.
    pub codec: Codec,
    /// An output up to this length, as stored, stays in memory.
    pub served_from_memory_bytes: usize,
}

impl MapPlan {
    /// As the job says; `cuts` are for [`crate::job::Partitioner::Range`] alone.
    pub fn new(job: &JobSpec, cuts: &Cuts) -> Self {
        let separator = job.key_separator();
        let order = KeyOrder::new(&job.order, separator);
        Self {
            partitions: Partitions::new(&job.partitioner, job.reduces, cuts, &order, separator),
            order,
            order_values: job.order_values,
            memory_bytes: usize::try_from(job.limits.memory_bytes).unwrap_or(usize::MAX),
            codec: Codec::Lz4,
            served_from_memory_bytes: SERVED_FROM_MEMORY_BYTES,
        }
    }
}

/// What is done to a map's records before they are written.
pub enum Combine {
    /// Nothing.
    None,
    /// They are folded as they come.
    Fold(Arc<dyn AnyFold>),
    /// Code reduces what is in memory whenever it is written. Made anew each time.
    Code(Box<dyn FnMut() -> Result<Reduction, CodeError> + Send>),
}

impl fmt::Debug for Combine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fold(_) => "Fold",
            Self::Code(_) => "Code",
        })
    }
}

/// What a map task made.
#[derive(Debug)]
pub struct MapOutput {
    /// One run for each reduce task.
    pub runs: Runs,
    /// What code counted.
    pub counters: Counters,
    /// What the task counted.
    pub task: TaskCounters,
}

/// A map task at work.
pub struct MapTask {
    code: Box<dyn MapCode + Send>,
    sink: Box<dyn Sink>,
    input_bytes: u64,
    input_records: u64,
}

impl fmt::Debug for MapTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapTask")
            .field("input_bytes", &self.input_bytes)
            .finish_non_exhaustive()
    }
}

impl MapTask {
    /// Ready for input.
    pub fn new(
        plan: MapPlan,
        code: Box<dyn MapCode + Send>,
        combine: Combine,
        storage: Box<dyn Storage>,
    ) -> Self {
        let common = Common {
            plan,
            storage,
            spills: Spills::default(),
            counters: Counters::default(),
            task: TaskCounters::default(),
            status: String::new(),
            failed: None,
        };
        let sink = match combine {
            Combine::Fold(fold) => fold.sink(common),
            Combine::None => Box::new(SortSink::new(common, None)),
            Combine::Code(make) => Box::new(SortSink::new(common, Some(make))),
        };
        Self {
            code,
            sink,
            input_bytes: 0,
            input_records: 0,
        }
    }

    /// Another file begins, or a range that does not follow the last; see [`MapCode::file`].
    ///
    /// # Errors
    /// The mapper's.
    pub fn file(&mut self, name: &str, input: u32) -> Result<(), DataError> {
        Ok(self.code.file(name, input)?)
    }

    /// Maps whole lines; see [`MapCode::lines`].
    ///
    /// # Errors
    /// The mapper's or combiner's, or of a spill. The attempt is over.
    pub fn lines(&mut self, lines: &[u8], offset: u64) -> Result<(), DataError> {
        self.code.lines(lines, offset, self.sink.collect())?;
        self.input_bytes += lines.len() as u64;
        self.input_records += count_lines(lines);
        self.sink.check()
    }

    /// The mapper's last word on what is going on.
    pub fn status(&self) -> &str {
        &self.sink.common().status
    }

    /// There is no more input.
    ///
    /// # Errors
    /// As for [`MapTask::lines`].
    pub fn finish(mut self) -> Result<MapOutput, DataError> {
        self.code.finish(self.sink.collect())?;
        self.sink.check()?;
        let mut output = self.sink.finish()?;
        output.task.input_bytes = self.input_bytes;
        output.task.input_records = self.input_records;
        Ok(output)
    }
}

/// Lines in whole lines, the last of which may lack its newline.
pub fn count_lines(lines: &[u8]) -> u64 {
    let newlines = memchr::memchr_iter(b'\n', lines).count() as u64;
    newlines + u64::from(lines.last().is_some_and(|b| *b != b'\n'))
}

/// Where a mapper's records go.
pub trait Sink: Output + Send {
    /// What every sink has.
    fn common(&self) -> &Common;

    /// Sorts and writes what is left.
    ///
    /// # Errors
    /// The combiner's, or of the scratch files.
    fn finish(self: Box<Self>) -> Result<MapOutput, DataError>;
}

/// What every sink has.
pub struct Common {
    plan: MapPlan,
    storage: Box<dyn Storage>,
    spills: Spills,
    counters: Counters,
    task: TaskCounters,
    status: String,
    failed: Option<DataError>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("plan", &self.plan)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Runs in a scratch file, several for each partition.
#[derive(Default)]
struct Spills {
    file: Option<Box<dyn Scratch>>,
    len: u64,
    indexes: Vec<Index>,
}

/// Writes records that come by partition.
struct ByPartition<'w> {
    writer: RunsWriter<'w>,
    open: u32,
    records: u64,
}

impl ByPartition<'_> {
    #[inline]
    fn go_to(&mut self, partition: u32) -> Result<(), DataError> {
        self.records += 1;
        while self.open < partition {
            self.writer.end_partition()?;
            self.open += 1;
        }
        Ok(())
    }
}

type Fill<'a> = dyn FnMut(&mut ByPartition<'_>) -> Result<(), DataError> + 'a;

impl Common {
    fn note(&mut self, result: Result<(), DataError>) {
        if let Err(e) = result
            && self.failed.is_none()
        {
            self.failed = Some(e);
        }
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Writes sorted records to `out` as one run for each partition.
    fn write(
        &mut self,
        out: Growing,
        start: u64,
        fill: &mut Fill<'_>,
    ) -> Result<(Growing, Index, u64), DataError> {
        let (codec, block) = (self.plan.codec, block_bytes(self.plan.memory_bytes));
        let writer = RunsWriter::new(self.storage.as_mut(), out, start, codec, block);
        let mut runs = ByPartition {
            writer,
            open: 0,
            records: 0,
        };
        fill(&mut runs)?;
        runs.go_to(self.plan.partitions.count())?;
        Ok(runs.writer.into_parts())
    }

    /// Memory is full.
    fn spill(&mut self, fill: &mut Fill<'_>) -> Result<(), DataError> {
        let file = match self.spills.file.take() {
            Some(file) => file,
            None => self.storage.spill().map_err(DataError::Scratch)?,
        };
        let start = self.spills.len;
        let mut written = 0;
        let (out, index, len) = self.write(Growing::File(file), start, &mut |runs| {
            fill(runs)?;
            written = runs.records;
            Ok(())
        })?;
        self.task.spilled_records += written;
        if let Growing::File(file) = out {
            self.spills.file = Some(file);
        }
        self.spills.len = len;
        self.spills.indexes.push(index);
        Ok(())
    }

    /// The last records, of about `bytes`; with what was spilled they become the output.
    fn finish(
        mut self,
        fold: Option<&Arc<dyn AnyFold>>,
        bytes: usize,
        fill: &mut Fill<'_>,
    ) -> Result<MapOutput, DataError> {
        let limit = self.plan.served_from_memory_bytes;
        let runs = if self.spills.indexes.is_empty() {
            // What will not fit into memory goes to a file at once.
            let out = if bytes > limit && self.plan.codec == Codec::None {
                Growing::File(self.storage.output().map_err(DataError::Scratch)?)
            } else {
                Growing::new(limit)
            };
            let (out, index, _) = self.write(out, 0, fill)?;
            out.into_runs(index)
        } else {
            self.spill(fill)?;
            self.merge_spills(fold, limit)?
        };
        Ok(MapOutput {
            runs,
            counters: self.counters,
            task: self.task,
        })
    }

    fn merge_spills(
        &mut self,
        fold: Option<&Arc<dyn AnyFold>>,
        limit: usize,
    ) -> Result<Runs, DataError> {
        let spills = std::mem::take(&mut self.spills);
        let Some(file) = spills.file else {
            return Err(DataError::Index("is missing"));
        };
        let file: Arc<dyn Scratch> = Arc::from(file);
        let spills: Vec<Runs> = spills
            .indexes
            .into_iter()
            .map(|index| Runs::new(file.clone(), index))
            .collect();
        let plan = ReducePlan {
            order: self.plan.order.clone(),
            order_values: self.plan.order_values,
            memory_bytes: self.plan.memory_bytes,
            codec: self.plan.codec,
        };
        let mut task = self.task;
        let mut out = Growing::new(limit);
        let mut index = Index::default();
        let mut len = 0;
        for partition in 0..self.plan.partitions.count() {
            let runs = spills
                .iter()
                .filter(|spill| spill.entry(partition).records > 0)
                .map(|spill| spill.reader(partition, Origin::Spill))
                .collect();
            let runs = narrow(&plan, runs, fold, self.storage.as_mut(), &mut task)?;
            let mut merge = Merge::new(runs, plan.order.clone(), plan.order_values);
            let block = block_bytes(plan.memory_bytes);
            let mut writer = RunsWriter::new(self.storage.as_mut(), out, len, plan.codec, block);
            write_merged(&mut merge, fold, &mut writer)?;
            writer.end_partition()?;
            let (written, part, end) = writer.into_parts();
            (out, len) = (written, end);
            index.entries.extend(part.entries);
        }
        self.task = task;
        Ok(out.into_runs(index))
    }
}

/// Sorts records.
struct SortSink {
    common: Common,
    sorter: Sorter,
    combiner: Option<Box<dyn FnMut() -> Result<Reduction, CodeError> + Send>>,
}

impl SortSink {
    fn new(
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
    fn combine(&mut self) -> Result<(), DataError> {
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

    fn spill(&mut self) -> Result<(), DataError> {
        self.combine()?;
        let Self { common, sorter, .. } = self;
        let partitions = common.plan.partitions.clone();
        common.spill(&mut |runs| write_sorted(sorter, &partitions, runs))
    }
}

fn write_sorted(
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
struct Combined<'c> {
    sorter: Sorter,
    partitions: &'c Partitions,
    counters: &'c mut Counters,
    status: &'c mut String,
    failed: Option<DataError>,
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

/// Aggregates records.
pub(crate) struct FoldSink<F: Fold> {
    common: Common,
    table: Aggregator<F>,
    fold: Arc<dyn AnyFold>,
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
    fn keep_within_budget(&mut self) {
        if self.table.bytes() <= self.common.plan.memory_bytes {
            return;
        }
        let Self { common, table, .. } = self;
        let (partitions, order) = (common.plan.partitions.clone(), common.plan.order.clone());
        let spilled = common.spill(&mut |runs| write_aggregated(table, &partitions, &order, runs));
        self.common.note(spilled);
    }
}

fn write_aggregated<F: Fold>(
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
