//! From what a user asks for to what a master takes: input looked up and cut into splits, side
//! files hashed, keys sampled where outputs shall be in total order.

use crate::code::{Attempt, Stop};
use crate::input::{InputError, InputFile, Inputs};
use crate::sample::sample_keys;
use crate::side;
use shoal_mapreduce::data::order::KeyOrder;
use shoal_mapreduce::data::partition::Cuts;
use shoal_mapreduce::data::split;
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
use shoal_mapreduce::job::{JobSpec, Partitioner, REDUCES_MAX};
use shoal_mapreduce::split::{InputRange, Split, Submission};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Below this many bytes of input one reduce task is enough.
const ONE_REDUCE_BYTES: u64 = 64 << 20;
/// A split is not made smaller than this to keep slots busy.
const SMALL_SPLIT_BYTES: u64 = 4 << 20;
/// Splits that each slot gets, so that a slow one does not hold up all.
const SPLITS_PER_SLOT: u64 = 4;

/// The property that makes a map task of that many lines, whatever their bytes.
pub const SPLIT_LINES: &str = "shoal.split.lines";
/// Map tasks that a count of lines may make.
const LINE_SPLITS_MAX: usize = 100_000;

/// Why a job cannot be submitted.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A side file cannot be read.
    #[error("cannot read the side file {path}")]
    Side {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two side files would have one name, or one has no proper name.
    #[error("the side file name {0:?} cannot be used (twice, or no plain name)")]
    SideName(String),
    /// There would be too many map tasks.
    #[error("{0} lines a map task make more than {LINE_SPLITS_MAX} of them")]
    Splits(u64),
    /// More reduce tasks than a master takes.
    #[error("{0} reduce tasks are too many; the most is {REDUCES_MAX}")]
    Reduces(u32),
    /// The mapper fails on a sample of the input.
    #[error("cannot sample the input: {0}")]
    Sample(String),
}

/// What the caller leaves open.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Tasks that run at once, as far as is known.
    pub parallel: u32,
    /// Whether the number of reduce tasks in the job was asked for.
    pub reduces_given: bool,
    /// Whether the split size in the job was asked for.
    pub split_given: bool,
}

/// Makes a submission of a job. `scratch` is a folder for what sampling needs.
///
/// # Errors
/// When input or side files cannot be read, or the mapper fails on a sample.
pub fn prepare(
    mut spec: JobSpec,
    plan: Plan,
    inputs: &Inputs,
    scratch: &Path,
) -> Result<Submission, PrepareError> {
    side_files(&mut spec)?;
    let mut files = Vec::new();
    for (n, input) in spec.inputs.iter().enumerate() {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let expanded = inputs.expand(std::slice::from_ref(input))?;
        files.extend(expanded.into_iter().map(|file| (n, file)));
    }
    let total: u64 = files.iter().map(|(_, f)| f.bytes).sum();
    if spec.reducer.is_none() {
        spec.reduces = 0;
    } else if !plan.reduces_given {
        spec.reduces = if total < ONE_REDUCE_BYTES {
            1
        } else {
            plan.parallel.max(1)
        };
    }
    if spec.reduces > REDUCES_MAX {
        return Err(PrepareError::Reduces(spec.reduces));
    }
    let slots = u64::from(plan.parallel.max(1));
    let split_bytes = if plan.split_given {
        spec.limits.split_bytes
    } else {
        let even = total / (slots * SPLITS_PER_SLOT);
        // Nor smaller than a piece, which would be fetched by several tasks.
        let piece = files.iter().map(|(_, f)| f.unit).max().unwrap_or(0);
        let small = SMALL_SPLIT_BYTES.max(piece);
        even.clamp(small, spec.limits.split_bytes.max(small))
    };
    let splits = match spec
        .properties
        .get(SPLIT_LINES)
        .and_then(|n| n.parse().ok())
    {
        None => cut(&files, split_bytes),
        Some(lines) => cut_lines(&files, lines, inputs)?,
    };
    let mut cuts = Vec::new();
    if spec.partitioner == Partitioner::Range && spec.reduces > 1 {
        let attempt = sampling(&spec, scratch);
        let keys = sample_keys(inputs, &splits, &attempt);
        let _ = std::fs::remove_dir_all(&attempt.dir);
        let keys = keys.map_err(PrepareError::Sample)?;
        let order = KeyOrder::new(&spec.order, spec.key_separator());
        cuts = Cuts::from_sample(keys, spec.reduces, &order)
            .keys()
            .to_vec();
    }
    Ok(Submission { spec, splits, cuts })
}

fn side_files(spec: &mut JobSpec) -> Result<(), PrepareError> {
    side::needed(spec);
    let mut names = std::collections::BTreeSet::new();
    for file in &mut spec.side_files {
        let plain = !file.name.is_empty()
            && !file.name.contains('/')
            && file.name != "."
            && file.name != "..";
        if !plain || !names.insert(file.name.clone()) {
            return Err(PrepareError::SideName(file.name.clone()));
        }
        let read = |source| PrepareError::Side {
            path: file.source.clone(),
            source,
        };
        let path = std::fs::canonicalize(&file.source).map_err(read)?;
        file.sha256 = side::sha256_of(&path).map_err(|source| PrepareError::Side {
            path: file.source.clone(),
            source,
        })?;
        file.source = path.to_string_lossy().into_owned();
    }
    Ok(())
}

fn cut(files: &[(u32, InputFile)], split_bytes: u64) -> Vec<Split> {
    let files: Vec<split::InputFile> = files
        .iter()
        .map(|(input, file)| split::InputFile {
            name: file.name.clone(),
            len: file.bytes,
            splittable: file.splittable,
            input: *input,
            unit: file.unit,
            lead: file.lead,
        })
        .collect();
    split::plan(&files, split_bytes)
}

/// A split for every `count` lines. All input is read for that; what is packed is not cut.
fn cut_lines(
    files: &[(u32, InputFile)],
    count: u64,
    inputs: &Inputs,
) -> Result<Vec<Split>, PrepareError> {
    let mut splits = Vec::new();
    let mut part = |input: &u32, file: &InputFile, offset: u64, end: u64| {
        if end > offset {
            splits.push(Split {
                parts: vec![InputRange {
                    file: file.name.clone(),
                    offset,
                    len: end - offset,
                    input: *input,
                }],
                hosts: Vec::new(),
            });
        }
        if splits.len() > LINE_SPLITS_MAX {
            return Err(PrepareError::Splits(count));
        }
        Ok(())
    };
    let mut chunk = vec![0; 256 << 10];
    for (input, file) in files {
        if !file.splittable {
            part(input, file, 0, file.bytes)?;
            continue;
        }
        let failed = |source| {
            PrepareError::Input(InputError::Io {
                name: file.name.clone(),
                source,
            })
        };
        let mut reader = inputs.open(&file.name, 0, file.bytes, &Arc::default())?;
        let (mut at, mut begun, mut lines) = (0u64, 0u64, 0u64);
        loop {
            let n = match reader.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed)?,
            };
            if n == 0 {
                break;
            }
            for end in memchr::memchr_iter(b'\n', chunk.get(..n).unwrap_or_default()) {
                lines += 1;
                if lines == count.max(1) {
                    let end = at + end as u64 + 1;
                    part(input, file, begun, end)?;
                    (begun, lines) = (end, 0);
                }
            }
            at += n as u64;
        }
        part(input, file, begun, at)?;
    }
    Ok(splits)
}

/// An attempt outside of any master, for code that is asked for a sample.
fn sampling(spec: &JobSpec, scratch: &Path) -> Attempt {
    let dir = scratch.join("sample");
    // The code says what is wrong if this fails.
    let _ = std::fs::create_dir_all(&dir);
    Attempt {
        spec: Arc::new(spec.clone()),
        id: AttemptId {
            task: TaskId {
                job: JobId(0),
                kind: TaskKind::Map,
                index: 0,
            },
            number: 0,
        },
        side_files: spec
            .side_files
            .iter()
            .map(|f| PathBuf::from(&f.source))
            .collect(),
        log: scratch.join("sample.log"),
        dir,
        stop: Arc::new(Stop::default()),
    }
}
