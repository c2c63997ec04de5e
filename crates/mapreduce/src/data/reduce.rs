//! A reduce task: merges its partition's run of every map, and reduces key after key.

use super::counters::TaskCounters;
use super::error::DataError;
use super::fold::{AnyFold, BadValue};
use super::merge::Merge;
use super::native::{Reducer, Sorted, reduce_groups};
use super::order::KeyOrder;
use super::scratch::Storage;
use super::shuffle::{Codec, Growing, Origin, RunReader, RunsWriter};
use super::text::Output;
use crate::batch;
use crate::code::{CodeError, ReduceCode};
use crate::job::JobSpec;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

/// Batches for [`ReduceCode`] are about this long.
const BATCH_BYTES: usize = 256 << 10;

/// How a reduce task works.
#[derive(Debug, Clone)]
pub struct ReducePlan {
    /// In which order keys come.
    pub order: KeyOrder,
    /// Whether the values of a key come in order, too.
    pub order_values: bool,
    /// Memory for merging, in bytes. More runs than fit are merged in several passes.
    pub memory_bytes: usize,
    /// How scratch files are compressed.
    pub codec: Codec,
}

impl ReducePlan {
    /// As the job says.
    pub fn new(job: &JobSpec) -> Self {
        Self {
            order: KeyOrder::new(&job.order, job.key_separator()),
            order_values: job.order_values,
            memory_bytes: usize::try_from(job.limits.memory_bytes).unwrap_or(usize::MAX),
            codec: Codec::None,
        }
    }
}

/// What is done with the values of a key.
pub enum Reduction {
    /// Records come out as they are.
    Identity,
    /// They are folded into one.
    Fold(Arc<dyn AnyFold>),
    /// Rust.
    Native(Box<dyn Reducer>),
    /// A process or a sandbox.
    Code(Box<dyn ReduceCode + Send>),
}

impl fmt::Debug for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "Identity",
            Self::Fold(_) => "Fold",
            Self::Native(_) => "Native",
            Self::Code(_) => "Code",
        })
    }
}

/// Merges `runs`, each the stored bytes of one map's run in the order of the maps, and writes what
/// `reduction` makes of them. Blocks while a source does.
///
/// # Errors
/// [`DataError::Run`] names the damaged run by its index in `runs`.
pub fn reduce(
    plan: &ReducePlan,
    runs: Vec<Box<dyn Read + Send>>,
    reduction: Reduction,
    storage: &mut dyn Storage,
    out: &mut dyn Output,
    counters: &mut TaskCounters,
) -> Result<(), DataError> {
    let readers = runs
        .into_iter()
        .enumerate()
        .map(|(n, source)| RunReader::new(source, Origin::Map(n)))
        .collect();
    let fold = match &reduction {
        Reduction::Fold(fold) => Some(fold),
        _ => None,
    };
    let readers = narrow(plan, readers, fold, storage, counters)?;
    let mut merge = Merge::new(readers, plan.order.clone(), plan.order_values);
    reduce_sorted(&mut merge, reduction, out, counters)?;
    counters.input_bytes += merge.stored_bytes();
    Ok(())
}

/// How many runs fit into memory at once, and the blocks to write them in.
pub(crate) fn fan_in(memory_bytes: usize) -> (usize, usize) {
    let block = block_bytes(memory_bytes);
    // A block as stored, and as it is.
    ((memory_bytes / (2 * block)).max(2), block)
}

/// Blocks of 128 KiB, smaller where memory is scarce.
pub(crate) fn block_bytes(memory_bytes: usize) -> usize {
    (memory_bytes / 256).clamp(4 << 10, 128 << 10)
}

/// Merges runs in scratch files until so few are left that they can be merged at once.
pub(crate) fn narrow(
    plan: &ReducePlan,
    mut runs: Vec<RunReader>,
    fold: Option<&Arc<dyn AnyFold>>,
    storage: &mut dyn Storage,
    counters: &mut TaskCounters,
) -> Result<Vec<RunReader>, DataError> {
    let (width, block) = fan_in(plan.memory_bytes);
    while runs.len() > width {
        let file = storage.spill().map_err(DataError::Scratch)?;
        let mut writer = RunsWriter::new(storage, Growing::File(file), 0, plan.codec, block);
        let mut rest = runs.into_iter();
        loop {
            // Runs that follow each other, so that equal keys keep their order.
            let some: Vec<_> = rest.by_ref().take(width).collect();
            if some.is_empty() {
                break;
            }
            let mut merge = Merge::new(some, plan.order.clone(), plan.order_values);
            counters.spilled_records += write_merged(&mut merge, fold, &mut writer)?;
            writer.end_partition()?;
            counters.input_bytes += merge.stored_bytes();
        }
        let merged = writer.finish();
        runs = (0..merged.index.entries.len())
            .map(|n| merged.reader(n as u32, Origin::Spill))
            .collect();
    }
    Ok(runs)
}

/// Writes merged records as they are, or folded. Returns how many.
pub(crate) fn write_merged(
    merge: &mut Merge,
    fold: Option<&Arc<dyn AnyFold>>,
    writer: &mut RunsWriter<'_>,
) -> Result<u64, DataError> {
    let mut count = 0;
    match fold {
        Some(fold) => {
            count = fold_groups(merge, fold, &mut |key, value| writer.push(key, value))?.1;
        }
        None => {
            while merge.advance()? {
                writer.push_record(merge.record())?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Reduces sorted records, wherever they come from.
///
/// # Errors
/// Of the source, the code or the output.
pub fn reduce_sorted<S: Sorted>(
    source: &mut S,
    reduction: Reduction,
    out: &mut dyn Output,
    counters: &mut TaskCounters,
) -> Result<(), DataError> {
    match reduction {
        Reduction::Identity => {
            let mut count = 0u64;
            while source.advance()? {
                out.collect().emit(source.key(), source.value());
                count += 1;
                if count & 0xfff == 0 {
                    out.check()?;
                }
            }
            counters.input_records += count;
        }
        Reduction::Fold(fold) => {
            let mut count = 0u64;
            let (records, groups) = fold_groups(source, &fold, &mut |key, value| {
                out.collect().emit(key, value);
                count += 1;
                if count & 0xfff == 0 {
                    out.check()?;
                }
                Ok(())
            })?;
            counters.input_records += records;
            counters.groups += groups;
        }
        Reduction::Native(mut reducer) => {
            let (records, groups) = reduce_groups(source, reducer.as_mut(), out)?;
            counters.input_records += records;
            counters.groups += groups;
        }
        Reduction::Code(mut code) => in_batches(source, code.as_mut(), out, counters)?,
    }
    out.check()
}

/// Takes a key and its folded value.
type EachGroup<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), DataError> + 'a;

/// Folds the values of each key. Returns how many records and keys there were.
fn fold_groups<S: Sorted>(
    source: &mut S,
    fold: &Arc<dyn AnyFold>,
    each: &mut EachGroup<'_>,
) -> Result<(u64, u64), DataError> {
    let mut group = fold.group();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let (mut records, mut groups) = (0, 0);
    while source.advance()? {
        if records == 0 || source.key() != key {
            if records > 0 {
                value.clear();
                group.end(&mut value);
                each(&key, &value)?;
            }
            key.clear();
            key.extend_from_slice(source.key());
            groups += 1;
        }
        group
            .add(source.value())
            .map_err(|e| bad_value(e, &key, source.value()))?;
        records += 1;
    }
    if records > 0 {
        value.clear();
        group.end(&mut value);
        each(&key, &value)?;
    }
    Ok((records, groups))
}

#[cold]
pub(crate) fn bad_value(error: BadValue, key: &[u8], value: &[u8]) -> DataError {
    let show = |bytes: &[u8]| {
        let short = bytes.get(..60).unwrap_or(bytes);
        String::from_utf8_lossy(short).into_owned()
    };
    DataError::Code(CodeError {
        what: format!("{error}: key {:?}, value {:?}", show(key), show(value)),
        record: None,
    })
}

fn in_batches<S: Sorted>(
    source: &mut S,
    code: &mut (dyn ReduceCode + Send),
    out: &mut dyn Output,
    counters: &mut TaskCounters,
) -> Result<(), DataError> {
    let mut records = Vec::with_capacity(BATCH_BYTES);
    let mut last_key: Option<Vec<u8>> = None;
    loop {
        let there = source.advance()?;
        if !there || records.len() >= BATCH_BYTES {
            if !records.is_empty() {
                code.records(&records, out.collect())?;
                out.check()?;
                records.clear();
            }
            if !there {
                break;
            }
        }
        let (key, value) = (source.key(), source.value());
        batch::push(&mut records, key, value).map_err(|e| DataError::RecordTooLong {
            bytes: e.0 as u64,
            limit: u64::from(u32::MAX),
        })?;
        counters.input_records += 1;
        match &mut last_key {
            Some(last) if last == key => {}
            Some(last) => {
                counters.groups += 1;
                last.clear();
                last.extend_from_slice(key);
            }
            none => {
                counters.groups += 1;
                *none = Some(key.to_vec());
            }
        }
    }
    code.finish(out.collect())?;
    out.check()
}
