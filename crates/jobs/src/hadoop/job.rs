//! From a Streaming command line to a job.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use shoal_mapreduce::job::{Code, Fields, JobSpec, KeyPart, Order, Partitioner};

use super::arguments::{ArgumentError, Arguments, split_commas};
use super::keys;
use super::properties::{Properties, parse_conf};
use super::store::{JobStore, Location, StoreError};
use crate::job_file::side_file;
use crate::{prepare, streaming};

/// A file of properties may be this long, in bytes.
const CONF_MAX: u64 = 16 << 20;

/// A job, and what its command line says beyond it.
#[derive(Debug)]
pub struct StreamingJob {
    /// The job; its output is a path of this machine.
    pub spec: JobSpec,
    /// Where the output goes, as it was written.
    pub output: Location,
    /// Whether the size of splits was asked for.
    pub split_given: bool,
    /// Whether parts without a record are left out.
    pub lazy_output: bool,
    /// What was asked for and changes nothing.
    pub warnings: Vec<String>,
}

/// The last part of a Java class's name.
fn class(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether a command looks like the name of a Java class: `org.example.Mapper`, one word.
fn is_java(command: &str) -> bool {
    let mut parts = command.split('.');
    let word = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_$".contains(c))
    };
    command.contains('.')
        && parts.all(word)
        && command.starts_with(|c: char| c.is_ascii_lowercase())
        && class(command).starts_with(|c: char| c.is_ascii_uppercase())
}

fn no_java(option: &str, name: &str) -> ArgumentError {
    ArgumentError::new(
        format!("{option} {name}"),
        "a Java class, and no Java runs here",
    )
}

fn store_error(option: &str, written: &str, error: &StoreError) -> ArgumentError {
    ArgumentError::new(format!("{option} {written}"), error.to_string())
}

/// Makes a job of arguments. Files of properties (`-conf`) are read; nothing else is touched.
///
/// # Errors
/// For the first argument or property that asks for what cannot be had, or is wrong.
pub fn streaming(arguments: &Arguments, store: &JobStore) -> Result<StreamingJob, ArgumentError> {
    let properties = properties(arguments)?;
    let mut store = store.clone();
    let default = arguments.default_fs.as_deref();
    if let Some(fs) = default.or_else(|| properties.get("fs.defaultFS")) {
        store
            .set_default(fs)
            .map_err(|e| store_error("-fs", fs, &e))?;
    }
    let mut job = Building {
        spec: JobSpec::default(),
        arguments,
        properties,
        store,
        warnings: Vec::new(),
    };
    job.warnings.extend(
        (arguments.ignored.iter())
            .map(|option| format!("{option} is ignored: it changes nothing here")),
    );
    if !arguments.libjars.is_empty() {
        job.warnings
            .push("-libjars is ignored: no Java runs here".to_owned());
    }
    refused(&job.properties)?;
    job.formats()?;
    job.code()?;
    job.keys()?;
    job.limits()?;
    job.files()?;
    let output = job.places()?;
    let split_given = ["minsize", "maxsize"].iter().any(|end| {
        let name = format!("mapreduce.input.fileinputformat.split.{end}");
        job.properties.get(&name).is_some()
    });
    let mut spec = job.spec;
    spec.environment = arguments.environment.iter().cloned().collect();
    // What tasks are told of their job; what the engine is told stands among it.
    let own = std::mem::take(&mut spec.properties);
    spec.properties = job.properties.into_all();
    spec.properties.extend(own);
    Ok(StreamingJob {
        spec,
        output,
        split_given,
        lazy_output: arguments.lazy_output,
        warnings: job.warnings,
    })
}

/// Properties of files, and over them those of the command line.
fn properties(arguments: &Arguments) -> Result<Properties, ArgumentError> {
    let mut all = BTreeMap::new();
    for file in &arguments.conf {
        let bad = |why: String| ArgumentError::new(format!("-conf {file}"), why);
        let place = Location::local(file).map_err(|e| bad(e.to_string()))?;
        let mut text = String::new();
        let read = File::open(&place.real)
            .and_then(|from| from.take(CONF_MAX + 1).read_to_string(&mut text));
        read.map_err(|e| bad(e.to_string()))?;
        if text.len() as u64 > CONF_MAX {
            return Err(bad(format!("longer than {} MiB", CONF_MAX >> 20)));
        }
        all.extend(parse_conf(&text).map_err(bad)?);
    }
    // Both names of one are put out of the way, so that the command line's counts.
    let written = Properties::new(arguments.properties.clone());
    all.extend(written.into_all());
    Ok(Properties::new(all))
}

/// Properties that would change the output and are not heeded.
fn refused(properties: &Properties) -> Result<(), ArgumentError> {
    if properties.flag("mapreduce.output.fileoutputformat.compress")? == Some(true) {
        let name = "mapreduce.output.fileoutputformat.compress";
        return Err(ArgumentError::new(
            format!("-D {name}=true"),
            "output is written as plain text",
        )
        .hint("leave it out and pack the parts afterwards"));
    }
    for name in [
        "stream.map.input",
        "stream.map.output",
        "stream.reduce.input",
        "stream.reduce.output",
    ] {
        if let Some(form) = properties.get(name).filter(|form| *form != "text") {
            return Err(ArgumentError::new(
                format!("-D {name}={form}"),
                "commands read and write lines of text here, nothing else",
            ));
        }
    }
    Ok(())
}

struct Building<'a> {
    spec: JobSpec,
    arguments: &'a Arguments,
    properties: Properties,
    store: JobStore,
    warnings: Vec<String>,
}

impl Building<'_> {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.spec.properties.insert(name.to_owned(), value.into());
    }

    /// `-inputformat` and `-outputformat`.
    fn formats(&mut self) -> Result<(), ArgumentError> {
        let arguments = self.arguments;
        match arguments
            .input_format
            .as_deref()
            .map(|name| (class(name), name))
        {
            // A line is a key and a value already, so that it is all the same to a command.
            None | Some(("TextInputFormat" | "KeyValueTextInputFormat", _)) => {}
            Some(("CombineTextInputFormat", _)) => {
                self.set(streaming::MANY_FILES, "true");
            }
            Some(("NLineInputFormat", _)) => {
                let name = "mapreduce.input.lineinputformat.linespermap";
                let lines = self.properties.number(name)?.unwrap_or(1).max(1);
                self.set(prepare::SPLIT_LINES, lines.to_string());
                // Hadoop gives the place of a line before it, for all formats but TextInputFormat.
                if self.properties.get(streaming::IGNORE_KEY).is_none() {
                    self.set(streaming::IGNORE_KEY, "false");
                }
            }
            Some((_, name)) => {
                return Err(no_java("-inputformat", name).hint(
                    "TextInputFormat, KeyValueTextInputFormat, NLineInputFormat and \
                     CombineTextInputFormat are built in; turn other input into lines first",
                ));
            }
        }
        match arguments
            .output_format
            .as_deref()
            .map(|name| (class(name), name))
        {
            None | Some(("TextOutputFormat", _)) => Ok(()),
            Some((_, name)) => Err(no_java("-outputformat", name)
                .hint("TextOutputFormat is built in; leave the option out")),
        }
    }

    /// `-mapper`, `-combiner`, `-reducer` and how many of the last.
    fn code(&mut self) -> Result<(), ArgumentError> {
        let arguments = self.arguments;
        let mapper = arguments.mapper.as_deref().ok_or_else(|| {
            ArgumentError::new("-mapper", "missing").hint("-mapper cat passes lines on")
        })?;
        let reducer = arguments.reducer.as_deref();
        let reduces = self.properties.number("mapreduce.job.reduces")?;
        let reduces = reduces.unwrap_or(1).min(u64::from(u32::MAX)) as u32;
        let none = reducer.is_some_and(|r| r.eq_ignore_ascii_case("NONE"));
        self.spec.reduces = if none { 0 } else { reduces };
        self.spec.mapper = self.mapper(mapper)?;
        if self.spec.reduces == 0 {
            return Ok(());
        }
        self.spec.reducer = Some(match reducer {
            // As Hadoop has it, a job without a reducer is still sorted.
            None => Code::Identity,
            Some(command) => self.reducer("-reducer", command)?,
        });
        self.spec.combiner = match arguments.combiner.as_deref() {
            None if reducer == Some("aggregate") => self.spec.reducer.clone(),
            None => None,
            Some(command) => Some(self.reducer("-combiner", command)?),
        };
        Ok(())
    }

    fn mapper(&self, command: &str) -> Result<Code, ArgumentError> {
        if !is_java(command) {
            return Ok(Code::Streaming {
                command: command.to_owned(),
            });
        }
        if class(command) != "IdentityMapper" {
            return Err(no_java("-mapper", command).hint("name a program or script instead"));
        }
        // With the places of lines as keys it would be of use to nobody.
        if self.arguments.input_format.as_deref().map(class) == Some("KeyValueTextInputFormat") {
            return Ok(Code::Identity);
        }
        Err(ArgumentError::new(
            format!("-mapper {command}"),
            "would put the place of each line before it",
        )
        .hint(
            "-mapper cat passes lines on; so does this with -inputformat KeyValueTextInputFormat",
        ))
    }

    fn reducer(&self, option: &str, command: &str) -> Result<Code, ArgumentError> {
        if command == "aggregate" {
            return Ok(Code::Builtin {
                name: command.to_owned(),
                args: Vec::new(),
            });
        }
        if !is_java(command) {
            return Ok(Code::Streaming {
                command: command.to_owned(),
            });
        }
        match class(command) {
            "IdentityReducer" => Ok(Code::Identity),
            "ValueAggregatorReducer" | "ValueAggregatorCombiner" => {
                self.reducer(option, "aggregate")
            }
            _ => Err(no_java(option, command)
                .hint("name a program or script, or `aggregate`, or IdentityReducer")),
        }
    }

    /// What the key of a line is, which reduce task gets it, and in which order they come.
    fn keys(&mut self) -> Result<(), ArgumentError> {
        let fields = |separator: &str, count: &str| {
            let key_fields = self.properties.number(count)?.unwrap_or(1);
            Ok(Fields {
                separator: self.properties.separator(separator)?.unwrap_or(b'\t'),
                key_fields: key_fields.clamp(1, 1 << 20) as u32,
            })
        };
        self.spec.map_fields = fields(
            "stream.map.output.field.separator",
            "stream.num.map.output.key.fields",
        )?;
        // What the reducer writes is cut by the process; this stands between key and value of others.
        fields(
            "stream.reduce.output.field.separator",
            "stream.num.reduce.output.key.fields",
        )?;
        let output = self.properties.separator(streaming::OUTPUT_SEPARATOR)?;
        self.spec.reduce_fields.separator = output.unwrap_or(b'\t');
        self.properties
            .separator("stream.reduce.input.field.separator")?;
        let within = self.properties.separator(JobSpec::KEY_SEPARATOR)?;
        // A tab unless it is set, whatever stands between key and value.
        self.set(
            JobSpec::KEY_SEPARATOR,
            char::from(within.unwrap_or(b'\t')).to_string(),
        );
        self.spec.partitioner = self.partitioner()?;
        self.spec.order = self.order()?;
        if self
            .properties
            .get("mapreduce.job.output.group.comparator.class")
            .is_some()
        {
            self.warnings.push(
                "the grouping comparator is ignored: a command sees lines, not groups".to_owned(),
            );
        }
        Ok(())
    }

    fn key_parts(&self, name: &str) -> Result<Vec<KeyPart>, ArgumentError> {
        let text = self.properties.get(name).unwrap_or_default();
        keys::parse(text).map_err(|why| ArgumentError::new(format!("-D {name}={text}"), why))
    }

    fn partitioner(&self) -> Result<Partitioner, ArgumentError> {
        let named = self.arguments.partitioner.as_deref();
        let named = named.or_else(|| self.properties.get("mapreduce.job.partitioner.class"));
        let named = named.or_else(|| self.properties.get("mapred.partitioner.class"));
        match named.map(|name| (class(name), name)) {
            None | Some(("HashPartitioner", _)) => Ok(Partitioner::Hash),
            Some(("TotalOrderPartitioner", _)) => Ok(Partitioner::Range),
            Some(("KeyFieldBasedPartitioner", _)) => {
                let options = "mapreduce.partition.keypartitioner.options";
                // Hadoop 0.18's way to say `-k1,N`.
                let count = "num.key.fields.for.partition";
                if let (None, Some(last)) =
                    (self.properties.get(options), self.properties.number(count)?)
                {
                    return Ok(Partitioner::Fields(vec![KeyPart {
                        first: 1,
                        last: Some(last.clamp(1, 1 << 20) as u32),
                        numeric: false,
                        reverse: false,
                    }]));
                }
                Ok(Partitioner::Fields(self.key_parts(options)?))
            }
            Some((_, name)) => Err(no_java("-partitioner", name).hint(
                "HashPartitioner, KeyFieldBasedPartitioner and TotalOrderPartitioner are built in",
            )),
        }
    }

    fn order(&self) -> Result<Order, ArgumentError> {
        let name = "mapreduce.job.output.key.comparator.class";
        match self.properties.get(name).map(|name| (class(name), name)) {
            None => Ok(Order::Bytes),
            Some(("KeyFieldBasedComparator", _)) => {
                let parts = self.key_parts("mapreduce.partition.keycomparator.options")?;
                let plain = matches!(
                    parts.as_slice(),
                    [KeyPart {
                        first: 1,
                        last: None,
                        numeric: false,
                        reverse: false,
                    }]
                );
                Ok(if plain {
                    Order::Bytes
                } else {
                    Order::Fields(parts)
                })
            }
            Some((_, class)) => Err(no_java(&format!("-D {name}"), class).hint(
                "KeyFieldBasedComparator is built in: -D mapreduce.partition.keycomparator.options",
            )),
        }
    }

    /// Sizes, times and counts.
    fn limits(&mut self) -> Result<(), ArgumentError> {
        let number = |name: &str| self.properties.number(name);
        let limits = &mut self.spec.limits;
        let attempts = [
            number("mapreduce.map.maxattempts")?,
            number("mapreduce.reduce.maxattempts")?,
        ];
        if let Some(most) = attempts.into_iter().flatten().max() {
            limits.attempts_max = most.clamp(1, 100) as u32;
        }
        match number("mapreduce.task.timeout")? {
            // For ever, near enough.
            Some(0) => limits.stalled_ms = u64::from(u32::MAX) * 1000,
            Some(ms) => limits.stalled_ms = ms,
            None => {}
        }
        if let Some(most) = number("mapreduce.input.fileinputformat.split.maxsize")? {
            limits.split_bytes = most.max(1);
        }
        if let Some(least) = number("mapreduce.input.fileinputformat.split.minsize")? {
            limits.split_bytes = limits.split_bytes.max(least);
        }
        if let Some(mib) = number("mapreduce.task.io.sort.mb")? {
            limits.memory_bytes = mib.clamp(1, 1 << 20) << 20;
        }
        if let Some(records) = number("mapreduce.map.skip.maxrecords")? {
            limits.skip_records_max = records;
        }
        let speculative = [
            self.properties.flag("mapreduce.map.speculative")?,
            self.properties.flag("mapreduce.reduce.speculative")?,
        ];
        self.spec.speculative = speculative != [Some(false); 2];
        self.spec.priority = match self.properties.get("mapreduce.job.priority") {
            None | Some("NORMAL" | "DEFAULT") => 0,
            Some("VERY_HIGH") => 2,
            Some("HIGH") => 1,
            Some("LOW") => -1,
            Some("VERY_LOW") => -2,
            Some(other) => other.parse().map_err(|_| {
                ArgumentError::new(
                    format!("-D mapreduce.job.priority={other}"),
                    "expected VERY_HIGH, HIGH, NORMAL, LOW, VERY_LOW or a number",
                )
            })?,
        };
        Ok(())
    }

    /// Side files and archives.
    fn files(&mut self) -> Result<(), ArgumentError> {
        let arguments = self.arguments;
        for (option, list, archive, local) in [
            ("-files", &arguments.files, false, true),
            ("-archives", &arguments.archives, true, true),
            ("-cacheFile", &arguments.cache_files, false, false),
            ("-cacheArchive", &arguments.cache_archives, true, false),
        ] {
            for written in list {
                let (path, name) = match written.rsplit_once('#') {
                    Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
                    _ => (written.as_str(), None),
                };
                // Hadoop looks for -files without a scheme here, and for the old -cacheFile there.
                let place = if path.starts_with("hdfs:") || !local {
                    self.store.locate(path)
                } else {
                    Location::local(path)
                };
                let place = place.map_err(|e| store_error(option, written, &e))?;
                let bad = |why: String| ArgumentError::new(format!("{option} {written}"), why);
                let meta = place.real.metadata().map_err(|e| bad(e.to_string()))?;
                if meta.is_dir() {
                    return Err(bad("a folder".to_owned())
                        .hint("pack it into a .tar.gz or .zip and give that to -archives"));
                }
                let source = place.real.to_string_lossy();
                let file = side_file(&source, name, archive);
                if !self.spec.side_files.contains(&file) {
                    self.spec.side_files.push(file);
                }
            }
        }
        Ok(())
    }

    /// Inputs and output.
    fn places(&mut self) -> Result<Location, ArgumentError> {
        let arguments = self.arguments;
        let missing = |option: &str| ArgumentError::new(option, "missing");
        for written in arguments.inputs.iter().flat_map(|list| split_commas(list)) {
            // What is no file system's is an input of ours: a URL, a magnet link.
            let ours = ["http://", "https://", "magnet:"];
            let input = if ours.iter().any(|scheme| written.starts_with(scheme)) {
                written
            } else {
                let place = self.store.locate(&written);
                let place = place.map_err(|e| store_error("-input", &written, &e))?;
                if place.stored && !arguments.inputs.is_empty() {
                    self.hint_if_local(&written, &place)?;
                }
                place.uri()
            };
            self.spec.inputs.push(input);
        }
        if self.spec.inputs.is_empty() {
            return Err(missing("-input"));
        }
        let written = arguments
            .output
            .as_deref()
            .ok_or_else(|| missing("-output"))?;
        let output = self.store.locate(written);
        let output = output.map_err(|e| store_error("-output", written, &e))?;
        self.spec.output = output.real.to_string_lossy().into_owned();
        // Hadoop Streaming's names of parts do not tell maps and reduces apart.
        self.set(crate::engine::publish::PLAIN_PARTS, "true");
        let name = self.properties.get("mapreduce.job.name").map(str::to_owned);
        self.spec.name = name.unwrap_or_else(|| "streamjob".to_owned());
        Ok(output)
    }

    /// Most who meet a store for the first time name a file of their machine.
    fn hint_if_local(&self, written: &str, place: &Location) -> Result<(), ArgumentError> {
        if self.store.find(written).is_ok() || !Path::new(written).exists() {
            return Ok(());
        }
        Err(ArgumentError::new(
            format!("-input {written}"),
            format!("{} does not exist in the job store", place.uri()),
        )
        .hint(format!(
            "{written} exists on this machine: write file://{}, or hadoop fs -put it first",
            std::path::absolute(written).unwrap_or_default().display()
        )))
    }
}

#[cfg(test)]
mod tests;
