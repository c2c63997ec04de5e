//! Job files: a [`JobSpec`] in TOML, with defaults for what goes without saying.
//!
//! ```toml
//! name = "requests by host"          # else the file's name
//! inputs = ["logs/*.gz"]
//! output = "by-host"
//! mapper = "cut -f2"                 # a command, as in Hadoop Streaming
//! combiner = "uniq -c"
//! reducer = { builtin = "wordcount" }  # or { wasm = "count.wasm", args = ["x"] }
//! reduces = 4
//! memory = "1GiB"
//!
//! [environment]
//! LC_ALL = "C"
//! ```

use serde::Deserialize;
use shoal_mapreduce::job::{Code, Fields, JobSpec, KeyPart, Limits, Order, Partitioner, SideFile};
use std::collections::BTreeMap;
use std::path::Path;

/// Why text is no job file.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    /// Not TOML, or not the fields of a job; the message shows the line.
    #[error("{0}")]
    Toml(String),
    /// A size that is none.
    #[error("{field}: {text:?} is no size; write 512MiB or 1GiB")]
    Size {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A separator of more than one byte.
    #[error("{field}: a separator is one byte, {text:?} is not")]
    Separator {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// Neither a built-in job nor a mapper.
    #[error("the job has no mapper; set `mapper` or `builtin`")]
    NoMapper,
}

/// Code as it is written in a job file.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum CodeText {
    Command(String),
    Builtin {
        builtin: String,
        #[serde(default)]
        args: Vec<String>,
    },
    Wasm {
        wasm: String,
        #[serde(default)]
        args: Vec<String>,
    },
    Identity {
        #[expect(dead_code, reason = "that it stands there is all it says")]
        identity: bool,
    },
}

impl CodeText {
    fn code(self) -> Code {
        match self {
            Self::Command(command) => Code::Streaming { command },
            Self::Builtin { builtin, args } => Code::Builtin {
                name: builtin,
                args,
            },
            Self::Wasm { wasm, args } => Code::Wasm { module: wasm, args },
            Self::Identity { .. } => Code::Identity,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum SizeText {
    Bytes(u64),
    Text(String),
}

impl SizeText {
    fn bytes(self, field: &'static str) -> Result<u64, JobFileError> {
        match self {
            Self::Bytes(n) => Ok(n),
            Self::Text(text) => parse_size(&text).ok_or(JobFileError::Size { field, text }),
        }
    }
}

/// `64`, `64KiB`, `64 MB`, `1G`: decimal units with a plain `B`, binary ones otherwise.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PartitionerText {
    Word(PartitionerWord),
    Fields { fields: Vec<KeyPart> },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartitionerWord {
    Hash,
    Range,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FieldsText {
    separator: Option<String>,
    key_fields: Option<u32>,
}

impl FieldsText {
    fn fields(self, field: &'static str) -> Result<Fields, JobFileError> {
        let mut fields = Fields::default();
        if let Some(text) = self.separator {
            let &[byte] = text.as_bytes() else {
                return Err(JobFileError::Separator { field, text });
            };
            fields.separator = byte;
        }
        if let Some(n) = self.key_fields {
            fields.key_fields = n.max(1);
        }
        Ok(fields)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FileText {
    Path(String),
    Named {
        source: String,
        name: Option<String>,
        #[serde(default)]
        archive: bool,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JobText {
    name: Option<String>,
    inputs: Vec<String>,
    output: Option<String>,
    builtin: Option<String>,
    args: Vec<String>,
    mapper: Option<CodeText>,
    combiner: Option<CodeText>,
    reducer: Option<CodeText>,
    reduces: Option<u32>,
    partitioner: Option<PartitionerText>,
    order: Option<Vec<KeyPart>>,
    order_values: bool,
    associative: bool,
    map_fields: FieldsText,
    reduce_fields: FieldsText,
    files: Vec<FileText>,
    environment: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
    memory: Option<SizeText>,
    code_memory: Option<SizeText>,
    split_size: Option<SizeText>,
    max_attempts: Option<u32>,
    skip_bad: Option<u64>,
    stalled_s: Option<u64>,
    speculative: Option<bool>,
    priority: i32,
}

/// What a job file says. What it leaves open (inputs, output, reduce tasks) the caller fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFile {
    /// The job. Its code is [`Code::Identity`] where a built-in job is named.
    pub spec: JobSpec,
    /// A built-in job and its arguments, in place of code.
    pub builtin: Option<(String, Vec<String>)>,
    /// Whether the number of reduce tasks was given.
    pub reduces_given: bool,
}

/// A name for a side file from its path: the last component.
pub fn side_file(source: &str, name: Option<String>, archive: bool) -> SideFile {
    let last = Path::new(source)
        .file_name()
        .map_or_else(|| source.to_owned(), |n| n.to_string_lossy().into_owned());
    SideFile {
        name: name.unwrap_or(last),
        source: source.to_owned(),
        sha256: String::new(),
        archive,
    }
}

/// Reads the text of a job file.
///
/// # Errors
/// When it is not TOML, has unknown fields, or no mapper.
pub fn parse(text: &str) -> Result<JobFile, JobFileError> {
    let job: JobText = toml::from_str(text).map_err(|e| JobFileError::Toml(e.to_string()))?;
    let mut limits = Limits::default();
    let size = |size: Option<SizeText>, field, to: &mut u64| -> Result<(), JobFileError> {
        if let Some(size) = size {
            *to = size.bytes(field)?;
        }
        Ok(())
    };
    size(job.memory, "memory", &mut limits.memory_bytes)?;
    size(
        job.code_memory,
        "code_memory",
        &mut limits.code_memory_bytes,
    )?;
    size(job.split_size, "split_size", &mut limits.split_bytes)?;
    limits.attempts_max = job.max_attempts.unwrap_or(limits.attempts_max).max(1);
    limits.skip_records_max = job.skip_bad.unwrap_or(limits.skip_records_max);
    limits.stalled_ms = job
        .stalled_s
        .map_or(limits.stalled_ms, |s| s.saturating_mul(1000));
    if job.mapper.is_none() && job.builtin.is_none() {
        return Err(JobFileError::NoMapper);
    }
    let reducer = job.reducer.map(CodeText::code);
    let spec = JobSpec {
        name: job.name.unwrap_or_default(),
        inputs: job.inputs,
        output: job.output.unwrap_or_default(),
        mapper: job.mapper.map_or(Code::Identity, CodeText::code),
        combiner: job.combiner.map(CodeText::code),
        reduces: job.reduces.unwrap_or(u32::from(reducer.is_some())),
        reducer,
        partitioner: match job.partitioner {
            None | Some(PartitionerText::Word(PartitionerWord::Hash)) => Partitioner::Hash,
            Some(PartitionerText::Word(PartitionerWord::Range)) => Partitioner::Range,
            Some(PartitionerText::Fields { fields }) => Partitioner::Fields(fields),
        },
        order: job.order.map_or(Order::Bytes, Order::Fields),
        order_values: job.order_values,
        associative: job.associative,
        map_fields: job.map_fields.fields("map_fields.separator")?,
        reduce_fields: job.reduce_fields.fields("reduce_fields.separator")?,
        side_files: job
            .files
            .into_iter()
            .map(|file| match file {
                FileText::Path(path) => side_file(&path, None, false),
                FileText::Named {
                    source,
                    name,
                    archive,
                } => side_file(&source, name, archive),
            })
            .collect(),
        environment: job.environment,
        properties: job.properties,
        limits,
        speculative: job.speculative.unwrap_or(true),
        priority: job.priority,
    };
    Ok(JobFile {
        spec,
        builtin: job.builtin.map(|name| (name, job.args)),
        reduces_given: job.reduces.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_job_file_says_all_that_a_job_is() {
        let job = parse(
            r#"
            name = "n"
            inputs = ["a", "b/*"]
            output = "o"
            mapper = "cut -f1"
            reducer = { wasm = "r.wasm", args = ["1"] }
            reduces = 3
            partitioner = { fields = [{ first = 1, last = 2 }] }
            order = [{ first = 2, numeric = true, reverse = true }]
            memory = "1GiB"
            split_size = 1000
            files = ["lib/words.txt", { source = "x.tar", name = "x", archive = true }]
            [map_fields]
            separator = ","
            key_fields = 2
            [environment]
            LC_ALL = "C"
            "#,
        )
        .expect("a job file");
        let spec = job.spec;
        assert_eq!(
            spec.mapper,
            Code::Streaming {
                command: "cut -f1".into()
            }
        );
        assert!(matches!(spec.reducer, Some(Code::Wasm { .. })));
        assert_eq!((spec.reduces, job.reduces_given), (3, true));
        assert_eq!(
            (spec.map_fields.separator, spec.map_fields.key_fields),
            (b',', 2)
        );
        assert_eq!(spec.limits.memory_bytes, 1 << 30);
        assert_eq!(spec.side_files[0].name, "words.txt");
        assert!(spec.side_files[1].archive);
        assert!(matches!(spec.order, Order::Fields(ref parts) if parts[0].numeric));
    }

    #[test]
    fn mistakes_are_named() {
        let why = |text: &str| parse(text).expect_err("a mistake").to_string();
        assert!(why("mapper = 'x'\nredcues = 3").contains("redcues"));
        assert!(why("mapper = 'x'\nmemory = 'lots'").contains("memory"));
        assert!(why("mapper = 'x'\n[map_fields]\nseparator = 'ab'").contains("separator"));
        assert!(why("name = 'x'").contains("mapper"));
        let builtin = parse("builtin = 'grep'\nargs = ['x']").expect("a built-in job");
        assert_eq!(builtin.builtin, Some(("grep".into(), vec!["x".into()])));
    }

    proptest! {
        #[test]
        fn any_text_is_a_job_or_an_error(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
