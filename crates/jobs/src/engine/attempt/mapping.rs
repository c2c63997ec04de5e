//! A map attempt: its split's lines through the mapper, into the sorter or straight into the job's output.

use super::super::outputs::Kept;
use super::trouble::Trouble;
use super::{Finished, Setting, Teller, Work, all_counters, finish_output, mapper, reduction};
use crate::code::{Role, Stop};
use crate::digest::{self, Part};
use crate::input::{Compression, InputError};
use crate::net::data::is_magnet;
use shoal_mapreduce::code::MapCode;
use shoal_mapreduce::data::map::count_lines;
use shoal_mapreduce::data::partition::Cuts;
use shoal_mapreduce::data::shuffle::Codec;
use shoal_mapreduce::data::split::Lines;
use shoal_mapreduce::data::text::Output;
use shoal_mapreduce::data::{
    Combine, LineWriter, MapOutput, MapPlan, MapTask, TaskCounters, builtin,
};
use shoal_mapreduce::id::TaskKind;
use shoal_mapreduce::job::Code;
use shoal_mapreduce::message::{Assignment, JobInfo, Phase, RecordRange, TaskOutput};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Input is read in pieces of this many bytes.
const CHUNK: usize = 1 << 20;
/// Map outputs up to this length stay in memory, if all of the worker's do not take too much.
const IN_MEMORY: u64 = 32 << 20;

/// Which records are left out, or the only ones that are mapped.
pub(super) struct Choice<'a> {
    pub(super) assignment: &'a Assignment,
    /// Number of the next record.
    pub(super) next: u64,
}

impl Choice<'_> {
    pub(super) fn all(&self) -> bool {
        self.assignment.skip.is_empty() && self.assignment.probe.is_none()
    }

    pub(super) fn wants(&self, record: u64) -> bool {
        let within = |r: &RecordRange| (r.from..r.to).contains(&record);
        self.assignment.probe.as_ref().is_none_or(within)
            && !self.assignment.skip.iter().any(within)
    }

    /// The stretches of `lines` that are wanted: number of the first record, place, bytes.
    pub(super) fn pick<'l>(&mut self, lines: &'l [u8]) -> Vec<(u64, usize, &'l [u8])> {
        let mut picked: Vec<(u64, usize, usize)> = Vec::new();
        let mut at = 0;
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let end = at + line.len();
            if self.wants(self.next) {
                match picked.last_mut() {
                    Some((_, _, last)) if *last == at => *last = end,
                    _ => picked.push((self.next, at, end)),
                }
            }
            self.next += 1;
            at = end;
        }
        let part = |(n, from, to)| (n, from, lines.get(from..to).unwrap_or_default());
        picked.into_iter().map(part).collect()
    }
}

/// Where lines go: into a map task with its sorter, or straight into the output.
pub(super) enum Mapping {
    Shuffled(Box<MapTask>),
    Straight {
        code: Box<dyn MapCode + Send>,
        out: LineWriter<File>,
        path: PathBuf,
        task: TaskCounters,
    },
}

impl Mapping {
    pub(super) fn file(&mut self, name: &str, input: u32) -> Result<(), Trouble> {
        match self {
            Self::Shuffled(task) => Ok(task.file(name, input)?),
            Self::Straight { code, .. } => Ok(code.file(name, input)?),
        }
    }

    pub(super) fn lines(&mut self, lines: &[u8], offset: u64) -> Result<(), Trouble> {
        match self {
            Self::Shuffled(task) => Ok(task.lines(lines, offset)?),
            Self::Straight {
                code, out, task, ..
            } => {
                code.lines(lines, offset, out)?;
                task.input_bytes += lines.len() as u64;
                task.input_records += count_lines(lines);
                Ok(out.check()?)
            }
        }
    }
}

/// Runs a map attempt.
pub(in crate::engine) fn map(
    setting: &Setting,
    assignment: &Assignment,
    job: &JobInfo,
    stop: &Arc<Stop>,
) -> Finished {
    let mut at = (0, 0);
    let done = Work::begin(setting, assignment, job, stop).and_then(|work| map_all(&work, &mut at));
    done.unwrap_or_else(|trouble| Finished::Failed(trouble.failure(at.0, at.1)))
}

pub(super) fn map_all(work: &Work<'_>, at: &mut (u64, u64)) -> Result<Finished, Trouble> {
    let spec = work.spec();
    let assignment = work.assignment;
    let mut mapping = begin_map(work)?;
    let read = Arc::new(AtomicU64::new(0));
    let mut teller = Teller {
        worker: work.setting.worker.clone(),
        attempt: assignment.attempt,
        phase: Phase::Map,
        total: assignment.split.len(),
        last: Instant::now(),
    };
    let mut choice = Choice {
        assignment,
        next: 0,
    };
    let count = spec.limits.skip_records_max > 0 || !choice.all();
    let mut lines: Option<Lines> = None;
    let magnets = |i: &&String| !work.setting.sandbox_only || is_magnet(i);
    let inputs: Vec<String> = spec.inputs.iter().filter(magnets).cloned().collect();
    work.setting.inputs.learn(&inputs);
    for part in &assignment.split.parts {
        let whole = Compression::of(&part.file) != Compression::None;
        let (start, len) = if whole {
            (0, u64::MAX)
        } else {
            (part.offset, part.len)
        };
        // One buffer for all parts.
        let lines = match &mut lines {
            Some(lines) => {
                lines.restart(start, len);
                lines
            }
            none => none.insert(Lines::new(start, len, CHUNK)),
        };
        let from = lines.read_from();
        let mut reader = work.setting.inputs.open(&part.file, from, len, &read)?;
        mapping.file(&part.file, part.input)?;
        while !lines.done() {
            work.check_stop()?;
            // Code is given the same batches everywhere where what it makes is compared.
            let fill = assignment.verified;
            let n = read_some(&mut reader, lines.room(), fill).map_err(|source| {
                Trouble::Input(InputError::Io {
                    name: part.file.clone(),
                    source,
                })
            })?;
            if let Some((bytes, offset)) = lines.filled(n) {
                if choice.all() {
                    at.0 = choice.next;
                    if count {
                        choice.next += count_lines(bytes);
                        at.1 = choice.next;
                    }
                    mapping.lines(bytes, offset)?;
                } else {
                    for (record, place, bytes) in choice.pick(bytes) {
                        *at = (record, record + count_lines(bytes));
                        mapping.lines(bytes, offset + place as u64)?;
                    }
                }
            }
            teller.tell(read.load(Ordering::Relaxed));
        }
    }
    finish_map(work, mapping)
}

/// Reads once, or with `fill` until there is no room or no more.
pub(super) fn read_some(from: &mut impl Read, room: &mut [u8], fill: bool) -> io::Result<usize> {
    let mut got = 0;
    loop {
        match from.read(room.get_mut(got..).unwrap_or_default()) {
            Ok(0) => return Ok(got),
            Ok(n) => {
                got += n;
                if !fill || got >= room.len() {
                    return Ok(got);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn begin_map(work: &Work<'_>) -> Result<Mapping, Trouble> {
    let spec = work.spec();
    let code = mapper(&work.attempt)?;
    if spec.reduces == 0 {
        let path = work.output_path()?;
        let file = File::create(&path).map_err(Trouble::Disk)?;
        return Ok(Mapping::Straight {
            code,
            out: LineWriter::new(file, spec.map_fields.separator),
            path,
            task: TaskCounters::default(),
        });
    }
    let combiner = match (&spec.combiner, &spec.reducer) {
        (Some(combiner), _) => Some(combiner),
        (None, Some(reducer)) if spec.associative => Some(reducer),
        _ => None,
    };
    let combine = match combiner {
        None => Combine::None,
        Some(code @ (Code::Identity | Code::Builtin { .. })) => builtin::combine(code)?,
        Some(code) => {
            let (code, attempt) = (code.clone(), work.attempt.clone());
            Combine::Code(Box::new(move || reduction(&code, Role::Combine, &attempt)))
        }
    };
    let order = shoal_mapreduce::data::order::KeyOrder::new(&spec.order, spec.key_separator());
    let cuts = Cuts::new(work.job.cuts.to_vec(), &order);
    let mut plan = MapPlan::new(spec, &cuts);
    // Outputs that are compared with those of other workers are compressed as theirs are.
    plan.codec = match work.assignment.verified {
        true => Codec::Zstd,
        false => work.setting.codec,
    };
    let held = work.setting.outputs.memory_bytes();
    let may_hold = (spec.limits.memory_bytes / 2).saturating_sub(held);
    plan.served_from_memory_bytes = IN_MEMORY.min(may_hold) as usize;
    let task = MapTask::new(plan, code, combine, Box::new(work.storage()));
    Ok(Mapping::Shuffled(Box::new(task)))
}

pub(super) fn finish_map(work: &Work<'_>, mapping: Mapping) -> Result<Finished, Trouble> {
    let probe = work.assignment.probe.is_some();
    match mapping {
        Mapping::Shuffled(task) => {
            let MapOutput {
                runs,
                counters,
                task,
            } = task.finish()?;
            let parts = if work.assignment.verified {
                let count = (0..).take(runs.index.entries.len());
                let parts = count.map(|p| digest::part_of(runs.section(p)));
                parts.collect::<io::Result<Vec<Part>>>()
            } else {
                Ok(Vec::new())
            };
            let parts = parts.map_err(Trouble::Disk)?;
            let output = TaskOutput {
                bytes: runs.index.entries.iter().map(|e| e.stored_len).sum(),
                records: runs.index.entries.iter().map(|e| e.records).sum(),
                digest: match work.assignment.verified {
                    true => digest::of(&parts),
                    false => digest::NONE,
                },
                place: String::new(),
            };
            Ok(Finished::Done {
                output,
                counters: all_counters(&counters, TaskKind::Map, &task),
                kept: (!probe).then_some(Kept::Runs(runs, parts)),
            })
        }
        Mapping::Straight {
            mut code,
            mut out,
            path,
            mut task,
        } => {
            code.finish(&mut out)?;
            out.check()?;
            finish_output(work, out, &path, &mut task, TaskKind::Map)
        }
    }
}
