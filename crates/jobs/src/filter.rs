//! One phase of a job as a filter from lines to lines: what other engines run as an executable.

use crate::code::{Attempt, Role, Stop};
use crate::engine::attempt::{mapper, reduction};
use crate::side;
use shoal_mapreduce::code::{CodeError, Collect};
use shoal_mapreduce::data::builtin;
use shoal_mapreduce::data::map::count_lines;
use shoal_mapreduce::data::order::KeyOrder;
use shoal_mapreduce::data::split::Lines;
use shoal_mapreduce::data::text::Output;
use shoal_mapreduce::data::{DataError, LineWriter, SortedLines, TaskCounters, reduce_sorted};
use shoal_mapreduce::id::{AttemptId, JobId, TaskId, TaskKind};
use shoal_mapreduce::job::{Code, JobSpec};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Input is read in pieces of this many bytes.
const CHUNK: usize = 256 << 10;

/// Why a filter ended early.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The job has no code for this phase.
    #[error("the job has no {0}")]
    NoCode(&'static str),
    /// The code failed.
    #[error("{what}{}", at(*.line))]
    Code {
        /// How.
        what: String,
        /// At which line of the input, from 1, or before it where code reads ahead.
        line: Option<u64>,
    },
    /// The input cannot be read.
    #[error("the input cannot be read")]
    Read(#[source] io::Error),
    /// Whoever read the output has gone.
    #[error("nobody reads the output any more")]
    Closed,
    /// The input is out of order, or the output cannot be written.
    #[error(transparent)]
    Data(DataError),
}

fn at(line: Option<u64>) -> String {
    line.map(|n| format!("\n  at line {n} of the input or before it"))
        .unwrap_or_default()
}

impl FilterError {
    fn of(error: DataError, line: Option<u64>) -> Self {
        match error {
            DataError::Code(e) => Self::Code { what: e.what, line },
            DataError::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Self::Closed,
            other => Self::Data(other),
        }
    }

    fn code(error: CodeError, line: Option<u64>) -> Self {
        Self::of(DataError::Code(error), line)
    }
}

/// Where a task of another engine runs, and as what.
#[derive(Debug, Clone)]
pub struct Place {
    /// A folder of its own, which exists.
    pub dir: PathBuf,
    /// Where code's standard error and log go.
    pub log: PathBuf,
    /// Which of the engine's tasks it is, from 0.
    pub index: u32,
    /// Ends it from another thread.
    pub stop: Arc<Stop>,
}

/// The file that a map's input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub file: String,
    /// Which of the job's inputs it belongs to.
    pub input: u32,
}

/// A job whose phases can be run as filters.
#[derive(Debug)]
pub struct Filter {
    attempt: Attempt,
}

impl Filter {
    /// Ready to run one phase of a job.
    pub fn new(mut spec: JobSpec, kind: TaskKind, place: Place) -> Self {
        side::needed(&mut spec);
        let files = spec.side_files.iter();
        let side_files = files.map(|file| PathBuf::from(&file.source)).collect();
        Self {
            attempt: Attempt {
                spec: Arc::new(spec),
                id: AttemptId {
                    task: TaskId {
                        job: JobId(0),
                        kind,
                        index: place.index,
                    },
                    number: 0,
                },
                dir: place.dir,
                side_files,
                log: place.log,
                stop: place.stop,
            },
        }
    }

    /// Maps lines to `key<TAB>value` lines. Counters and status go to `notes` as `reporter:` lines.
    ///
    /// # Errors
    /// When the code fails, or input or output does.
    pub fn map(
        &self,
        source: Option<&Source>,
        mut input: impl Read,
        output: impl Write,
        notes: impl Write,
    ) -> Result<(), FilterError> {
        let spec = &self.attempt.spec;
        let mut code = mapper(&self.attempt).map_err(|e| FilterError::code(e, None))?;
        if let Some(source) = source {
            let begun = code.file(&source.file, source.input);
            begun.map_err(|e| FilterError::code(e, None))?;
        }
        let mut out = Reporting::new(output, notes, spec.map_fields.separator);
        let mut lines = Lines::new(0, u64::MAX, CHUNK);
        let mut seen = 0;
        while !lines.done() {
            let n = match input.read(lines.room()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(FilterError::Read)?,
            };
            let Some((bytes, offset)) = lines.filled(n) else {
                continue;
            };
            let now = count_lines(bytes);
            code.lines(bytes, offset, &mut out).map_err(|e| {
                let line = e.record.map_or(seen + now, |n| seen + n + 1);
                FilterError::code(e, Some(line))
            })?;
            out.check().map_err(|e| FilterError::of(e, None))?;
            seen += now;
        }
        let last = code.finish(&mut out);
        last.map_err(|e| FilterError::code(e, Some(seen)))?;
        out.finish()
    }

    /// Reduces `key<TAB>value` lines in the order of their keys, with the combiner or the reducer.
    ///
    /// # Errors
    /// When the job has no such code or it fails, keys are out of order, or input or output fails.
    pub fn reduce(
        &self,
        role: Role,
        input: impl Read,
        output: impl Write,
        notes: impl Write,
    ) -> Result<(), FilterError> {
        let spec = &self.attempt.spec;
        let (code, separator) = match role {
            Role::Reduce => {
                let code = spec.reducer.as_ref();
                (
                    code.ok_or(FilterError::NoCode("reducer"))?,
                    spec.reduce_fields.separator,
                )
            }
            Role::Combine => {
                let folds = spec.reducer.as_ref().filter(|_| spec.associative);
                let code = spec.combiner.as_ref().or(folds);
                (
                    code.ok_or(FilterError::NoCode("combiner"))?,
                    spec.map_fields.separator,
                )
            }
        };
        let failed = |e| FilterError::code(e, None);
        if role == Role::Combine && matches!(code, Code::Builtin { .. }) {
            // Refuses what does not combine.
            builtin::combine(code).map_err(failed)?;
        }
        let reduction = reduction(code, role, &self.attempt).map_err(failed)?;
        let order = KeyOrder::new(&spec.order, spec.key_separator());
        let input = BufReader::with_capacity(CHUNK, input);
        let mut lines = SortedLines::new(input, spec.map_fields.clone(), order);
        let mut out = Reporting::new(output, notes, separator);
        let reduced = reduce_sorted(
            &mut lines,
            reduction,
            &mut out,
            &mut TaskCounters::default(),
        );
        reduced.map_err(|e| FilterError::of(e, Some(lines.line())))?;
        out.finish()
    }
}

/// Lines out, and what code counts and says as lines that Hadoop Streaming reads.
struct Reporting<W, N> {
    lines: LineWriter<W>,
    notes: N,
}

impl<W: Write, N: Write> Reporting<W, N> {
    fn new(output: W, notes: N, separator: u8) -> Self {
        Self {
            lines: LineWriter::new(output, separator),
            notes,
        }
    }

    fn finish(mut self) -> Result<(), FilterError> {
        let finished = self.lines.finish();
        let (_, counters) = finished.map_err(|e| FilterError::of(e, None))?;
        for (group, name, value) in counters.iter() {
            // Whoever does not listen does without.
            let _ = writeln!(self.notes, "reporter:counter:{group},{name},{value}");
        }
        Ok(())
    }
}

impl<W: Write, N: Write> Collect for Reporting<W, N> {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        self.lines.emit(key, value);
    }

    fn count(&mut self, group: &str, name: &str, by: u64) {
        self.lines.count(group, name, by);
    }

    fn status(&mut self, text: &str) {
        let _ = writeln!(self.notes, "reporter:status:{text}");
    }
}

impl<W: Write, N: Write> Output for Reporting<W, N> {
    fn collect(&mut self) -> &mut dyn Collect {
        self
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.lines.check()
    }
}
