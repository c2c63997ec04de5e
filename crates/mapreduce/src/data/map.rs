//! A map task: lines go through the mapper into a sorter or a hash table, and come out as one run
//! for each reduce task.

mod fold;
mod sort;

use super::counters::{Counters, TaskCounters};
use super::error::DataError;
use super::fold::AnyFold;
use super::merge::Merge;
use super::order::KeyOrder;
use super::partition::{Cuts, Partitions};
use super::reduce::{ReducePlan, Reduction, block_bytes, narrow, write_merged};
use super::scratch::{Scratch, Storage};
use super::shuffle::{Codec, Growing, Index, Origin, Runs, RunsWriter};
use super::text::Output;
use crate::code::{CodeError, MapCode};
use crate::job::JobSpec;
pub(crate) use fold::FoldSink;
use sort::SortSink;
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
