//! Streaming executables, as Hadoop Streaming runs them: a process reads lines (a mapper the
//! input's, a reducer `key<TAB>value` in the order of the keys) and writes lines.

pub mod command;
mod environment;
mod folder;
mod process;
pub mod report;
#[cfg(test)]
mod tests;

use crate::code::{Attempt, Role, failed};
use environment::InputPart;
use process::{Ended, Launch, Lines, Process};
use shoal_mapreduce::batch::Records;
use shoal_mapreduce::code::{CodeError, Collect, MapCode, ReduceCode};
use shoal_mapreduce::data::text::key_value;
use shoal_mapreduce::job::{Fields, JobSpec};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of lines that are put together before a reducer's pipe is written.
const CHUNK_BYTES: usize = 128 << 10;

/// A command that runs in an attempt, one process at a time.
#[derive(Debug)]
struct Runner {
    attempt: Attempt,
    /// What it is, for errors and for the name of its folder.
    what: &'static str,
    command: String,
    words: Vec<String>,
    dir: Option<PathBuf>,
    output: Output,
    process: Option<Process>,
    part: Option<InputPart>,
    fed: u64,
    last_key: Vec<u8>,
}

/// The property that lets a process of a mapper see many input files, one after the other.
pub const MANY_FILES: &str = "shoal.streaming.many.files";
/// The property by which a mapper gets the place of each line, in bytes, before it (`false`).
pub const IGNORE_KEY: &str = "stream.map.input.ignoreKey";
/// The property that names what stands between key and value in the job's output.
pub const OUTPUT_SEPARATOR: &str = "mapreduce.output.textoutputformat.separator";

/// What becomes of a line of output.
#[derive(Debug, Clone)]
enum Output {
    /// It is cut into key and value, and goes on.
    Cut(Fields),
    /// It is the job's output as it stands.
    Whole,
    /// It is the job's output once another separator stands between key and value.
    Rejoined {
        fields: Fields,
        separator: u8,
        line: Vec<u8>,
    },
}

impl Output {
    /// The job's output by a process that is a `map` or a `reduce`. Code and output may have
    /// different separators, as Hadoop Streaming and its output format have.
    fn last(spec: &JobSpec, role: &str) -> Self {
        let property = |name: &str| spec.properties.get(name).map(String::as_str);
        let byte = |name: &str| {
            property(name)
                .and_then(|s| s.bytes().next())
                .unwrap_or(b'\t')
        };
        let from = byte(&format!("stream.{role}.output.field.separator"));
        let to = byte(OUTPUT_SEPARATOR);
        if from == to {
            return Self::Whole;
        }
        let count = property(&format!("stream.num.{role}.output.key.fields"));
        Self::Rejoined {
            fields: Fields {
                separator: from,
                key_fields: count.and_then(|n| n.parse().ok()).unwrap_or(1),
            },
            separator: to,
            line: Vec::new(),
        }
    }
}

impl Lines for Output {
    fn line(&mut self, line: &[u8], out: &mut dyn Collect) {
        match self {
            Self::Whole => out.emit(line, b""),
            Self::Cut(fields) => {
                let (key, value) = key_value(line, fields);
                out.emit(key, value);
            }
            Self::Rejoined {
                fields,
                separator,
                line: joined,
            } => {
                let (key, value) = key_value(line, fields);
                joined.clear();
                joined.extend_from_slice(key);
                if key.len() < line.len() {
                    joined.push(*separator);
                    joined.extend_from_slice(value);
                }
                out.emit(joined, b"");
            }
        }
    }
}

impl Runner {
    fn new(
        attempt: &Attempt,
        what: &'static str,
        command: &str,
        output: Output,
    ) -> Result<Self, CodeError> {
        Ok(Self {
            attempt: attempt.clone(),
            what,
            command: command.to_owned(),
            words: command::words(command)?,
            dir: None,
            output,
            process: None,
            part: None,
            fed: 0,
            last_key: Vec::new(),
        })
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.attempt.spec.properties.get(name).map(String::as_str)
    }

    /// Starts the process unless it runs.
    fn start(&mut self) -> Result<(), CodeError> {
        if self.process.is_some() {
            return Ok(());
        }
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                let dir = folder::make(&self.attempt, self.what)?;
                let dir = std::path::absolute(&dir)
                    .map_err(|e| failed(format!("no path to {}: {e}", dir.display())))?;
                self.dir.insert(dir).clone()
            }
        };
        let (name, args) = self
            .words
            .split_first()
            .ok_or_else(|| failed("the command is empty"))?;
        let limits = &self.attempt.spec.limits;
        let seconds = self.property("shoal.task.cpu.seconds");
        let launch = Launch {
            program: folder::program(&dir, name)?,
            args,
            dir: &dir,
            environment: &environment::variables(&self.attempt, self.part.as_ref()),
            log: &self.attempt.log,
            memory_bytes: limits.code_memory_bytes,
            cpu_seconds: seconds.and_then(|s| s.parse().ok()).unwrap_or(0),
            stalled: Duration::from_millis(limits.stalled_ms),
            stop: Arc::clone(&self.attempt.stop),
        };
        self.fed = 0;
        self.last_key.clear();
        match Process::start(&launch) {
            Ok(process) => {
                self.process = Some(process);
                Ok(())
            }
            Err(e) => {
                let hint = match e.kind() {
                    ErrorKind::NotFound => {
                        "; it is neither in the task's working directory nor on the PATH, or the \
                         interpreter in its first line is missing"
                    }
                    ErrorKind::PermissionDenied => "; may it be executed?",
                    _ => "",
                };
                Err(failed(format!(
                    "cannot start the {} {:?}: {e}{hint}",
                    self.what, self.command
                )))
            }
        }
    }

    /// Gives the running process bytes.
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Collect) -> Result<(), CodeError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let fed = process.feed(bytes, &mut self.output, out);
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        match fed {
            Ok(()) if process.reads() => Ok(()),
            // It wants no more: time to hear whether that is a success.
            Ok(()) => self.end(out),
            Err(ended) => Err(self.error(&ended)),
        }
    }

    /// Whether a process runs that has closed its input; it is asked no more.
    fn end(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match process.finish(&mut self.output, out) {
            Ok(()) => {}
            Err(Ended::Code(code))
                if self.property("stream.non.zero.exit.is.failure") == Some("false") =>
            {
                let text = format!(
                    "the {} exited with code {code}, which the job allows",
                    self.what
                );
                process::note(&self.attempt.log, &text);
            }
            Err(ended) => return Err(self.error(&ended)),
        }
        self.process = None;
        Ok(())
    }

    /// The error for people.
    fn error(&mut self, ended: &Ended) -> CodeError {
        let said = self.process.take().map(|p| p.last_lines());
        let said = said.filter(|lines| !lines.is_empty());
        let mut text = format!("the {} `{}` failed: {ended}", self.what, self.command);
        match (&self.part, self.last_key.is_empty()) {
            (Some(part), _) if !part.file.is_empty() => {
                let _ = write!(
                    text,
                    "\n  input: {} bytes of {} from byte {}",
                    self.fed, part.file, part.start
                );
            }
            (_, false) => {
                let shown: String = String::from_utf8_lossy(&self.last_key)
                    .chars()
                    .take(200)
                    .collect();
                let _ = write!(
                    text,
                    "\n  input: {} bytes, up to the key {shown:?}",
                    self.fed
                );
            }
            (_, true) => {
                let _ = write!(text, "\n  input: {} bytes", self.fed);
            }
        }
        match said {
            Some(lines) => {
                let _ = write!(text, "\n  last lines of its standard error:{lines}");
            }
            None => text.push_str("\n  it wrote nothing to its standard error"),
        }
        let _ = write!(text, "\n  to reproduce: {}", self.reproduce());
        CodeError {
            what: text,
            record: None,
        }
    }

    /// A command line that does to the same input what this process did.
    fn reproduce(&self) -> String {
        let mut line = String::new();
        let files: Vec<_> = self
            .attempt
            .spec
            .side_files
            .iter()
            .map(|f| command::quoted(&f.name))
            .collect();
        match &self.part {
            Some(part) if !part.file.is_empty() => {
                let mut file = command::quoted(&part.file);
                if part.file.starts_with("hdfs:") {
                    let _ = write!(line, "hadoop fs -cat {file} | ");
                    "-".clone_into(&mut file);
                }
                if part.start > 0 {
                    let _ = write!(line, "tail -c +{} {file} | ", part.start.saturating_add(1));
                    let _ = write!(line, "head -c {} | ", self.fed);
                } else {
                    let _ = write!(line, "head -c {} {file} | ", self.fed);
                }
                let name = command::quoted(&part.file);
                let _ = write!(line, "mapreduce_map_input_file={name} ");
            }
            _ => {}
        }
        let id = self.attempt.id.task;
        let _ = write!(
            line,
            "mapreduce_task_partition={} {}",
            id.index, self.command
        );
        if self.part.is_none() {
            line.push_str(" < RECORDS_IN_ORDER_OF_KEYS");
        }
        if !files.is_empty() {
            let _ = write!(line, "  (in a folder with {})", files.join(", "));
        }
        line
    }
}

/// A mapper that is a command. A process sees one input file; the next file starts it anew, as
/// every file has a task of its own in Hadoop, unless the job says that a process may see many
/// (`shoal.streaming.many.files=true`).
#[derive(Debug)]
pub(crate) struct StreamMapper {
    runner: Runner,
    many_files: bool,
    /// Whether the place of each line stands before it.
    places: bool,
    placed: Vec<u8>,
    /// A file that began after the process was started.
    next: Option<String>,
    ran: bool,
}

impl StreamMapper {
    pub(crate) fn new(command: &str, attempt: &Attempt) -> Result<Self, CodeError> {
        let output = if attempt.spec.reducer.is_some() && attempt.spec.reduces > 0 {
            Output::Cut(attempt.spec.map_fields.clone())
        } else {
            Output::last(&attempt.spec, "map")
        };
        let runner = Runner::new(attempt, "mapper", command, output)?;
        let many_files = runner.property(MANY_FILES) == Some("true");
        let places = runner.property(IGNORE_KEY) == Some("false");
        Ok(Self {
            runner,
            many_files,
            places,
            placed: Vec::new(),
            next: None,
            ran: false,
        })
    }
}

impl MapCode for StreamMapper {
    fn file(&mut self, name: &str, _input: u32) -> Result<(), CodeError> {
        self.next = Some(name.to_owned());
        Ok(())
    }

    fn lines(&mut self, lines: &[u8], offset: u64, out: &mut dyn Collect) -> Result<(), CodeError> {
        if let Some(file) = self.next.take()
            && !(self.ran && self.many_files)
        {
            self.runner.end(out)?;
            self.runner.part = Some(InputPart {
                file,
                start: offset,
            });
            self.ran = false;
        }
        if !self.ran {
            self.runner.start()?;
            self.ran = true;
        }
        if self.places {
            self.placed.clear();
            let mut at = offset;
            for line in lines.split_inclusive(|b| *b == b'\n') {
                self.placed.extend_from_slice(at.to_string().as_bytes());
                self.placed.push(b'\t');
                self.placed.extend_from_slice(line);
                at = at.saturating_add(line.len() as u64);
            }
            self.runner.feed(&self.placed, out)?;
        } else {
            self.runner.feed(lines, out)?;
        }
        // The last line of a file may lack its line feed; the next file shall not continue it.
        match lines.last() {
            Some(b'\n') | None => Ok(()),
            Some(_) => self.runner.feed(b"\n", out),
        }
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        if !self.ran {
            // Without input it still has a beginning and an end, at which it may write.
            if let Some(file) = self.next.take() {
                self.runner.part = Some(InputPart { file, start: 0 });
            }
            self.runner.start()?;
            self.ran = true;
        }
        self.runner.end(out)
    }
}

/// A reducer or combiner that is a command.
#[derive(Debug)]
pub(crate) struct StreamReducer {
    runner: Runner,
    separator: u8,
    ran: bool,
    chunk: Vec<u8>,
}

impl StreamReducer {
    pub(crate) fn new(command: &str, role: Role, attempt: &Attempt) -> Result<Self, CodeError> {
        let (what, output) = match role {
            Role::Combine => ("combiner", Output::Cut(attempt.spec.map_fields.clone())),
            Role::Reduce => ("reducer", Output::last(&attempt.spec, "reduce")),
        };
        let runner = Runner::new(attempt, what, command, output)?;
        let separator = runner
            .property("stream.reduce.input.field.separator")
            .and_then(|s| s.bytes().next())
            .unwrap_or(b'\t');
        Ok(Self {
            runner,
            separator,
            ran: false,
            chunk: Vec::with_capacity(CHUNK_BYTES),
        })
    }
}

impl ReduceCode for StreamReducer {
    fn records(&mut self, batch: &[u8], out: &mut dyn Collect) -> Result<(), CodeError> {
        if !self.ran {
            self.runner.start()?;
            self.ran = true;
        }
        let mut last: &[u8] = b"";
        for record in Records::new(batch) {
            let (key, value) = record.map_err(|e| failed(e.to_string()))?;
            last = key;
            self.chunk.extend_from_slice(key);
            self.chunk.push(self.separator);
            self.chunk.extend_from_slice(value);
            self.chunk.push(b'\n');
            if self.chunk.len() >= CHUNK_BYTES {
                self.runner.feed(&self.chunk, out)?;
                self.chunk.clear();
            }
        }
        self.runner.last_key.clear();
        self.runner.last_key.extend_from_slice(last);
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Collect) -> Result<(), CodeError> {
        if !self.ran {
            self.runner.start()?;
            self.ran = true;
        }
        self.runner.feed(&self.chunk, out)?;
        self.chunk.clear();
        self.runner.end(out)
    }
}
