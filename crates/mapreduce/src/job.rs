//! What a job is: its input, its code, and how its records are cut, ordered and spread.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// More reduce tasks than any job has: each costs memory before anything of it runs.
pub const REDUCES_MAX: u32 = 100_000;

/// The code of a mapper, combiner or reducer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// Passes records on as they are.
    Identity,
    /// One of the jobs that come with shoal, by name: `wordcount`, `grep`, `sort`, `index`, `join`.
    Builtin {
        /// Its name.
        name: String,
        /// Its arguments, for example the pattern of `grep`.
        #[serde(default)]
        args: Vec<String>,
    },
    /// A command that reads records as lines and writes `key<TAB>value` lines (Hadoop Streaming).
    Streaming {
        /// Split into words as a shell would, but run without one.
        command: String,
    },
    /// A WebAssembly module with the batch interface of `docs/wasm-abi.md`.
    Wasm {
        /// Where the submitter found it; workers get it as a side file of this name.
        module: String,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
    },
}

/// How a text line becomes a key and a value, and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields {
    /// Stands between fields; a tab unless said otherwise.
    pub separator: u8,
    /// How many leading fields are the key (`stream.num.map.output.key.fields`); at least 1.
    pub key_fields: u32,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            separator: b'\t',
            key_fields: 1,
        }
    }
}

/// A part of a key to partition or to order by, as in `sort -k` and
/// `KeyFieldBasedPartitioner`/`KeyFieldBasedComparator`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// First field, from 1.
    pub first: u32,
    /// Last field, inclusive; none for the end of the key.
    #[serde(default)]
    pub last: Option<u32>,
    /// Compared as numbers.
    #[serde(default)]
    pub numeric: bool,
    /// Largest first.
    #[serde(default)]
    pub reverse: bool,
}

/// Which reduce task gets a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// By a hash of the whole key.
    #[default]
    Hash,
    /// By ranges found by sampling, so that all outputs in order are in total order.
    Range,
    /// By a hash of parts of the key.
    Fields(Vec<KeyPart>),
}

/// In which order a reduce task sees its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By the bytes of the key.
    #[default]
    Bytes,
    /// By parts of the key, ties by its bytes.
    Fields(Vec<KeyPart>),
}

/// A file that every attempt finds in its working directory (`-files`, the distributed cache).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// Its name there; one path component.
    pub name: String,
    /// Where the submitter found it.
    pub source: String,
    /// Lower-case hexadecimal SHA-256 of its bytes; workers know it by that.
    #[serde(default)]
    pub sha256: String,
    /// Unpacked into a directory of that name.
    #[serde(default)]
    pub archive: bool,
}

/// What tasks may use, and how much trouble a job may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Sort and merge buffers of one task, in bytes.
    pub memory_bytes: u64,
    /// A split is at least this long unless the input ends, in bytes; small files are combined.
    pub split_bytes: u64,
    /// Attempts that may fail before the job fails, for each task.
    pub attempts_max: u32,
    /// An attempt that reports no progress for this long is killed, in milliseconds.
    pub stalled_ms: u64,
    /// Bad records that may be skipped in the whole job; none by default.
    pub skip_records_max: u64,
    /// Memory of a streaming process or a sandbox, in bytes; 0 for no limit.
    pub code_memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            split_bytes: 128 << 20,
            attempts_max: 4,
            stalled_ms: 600_000,
            skip_records_max: 0,
            code_memory_bytes: 0,
        }
    }
}

/// A whole job as it is submitted, logged and told to workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people.
    pub name: String,
    /// Files, folders, globs, magnet links and URLs, as the submitter wrote them.
    pub inputs: Vec<String>,
    /// A folder.
    pub output: String,
    /// The map function.
    pub mapper: Code,
    /// Reduces the output of one map task before it is shuffled.
    #[serde(default)]
    pub combiner: Option<Code>,
    /// The reduce function; none makes the map output the job's output.
    #[serde(default)]
    pub reducer: Option<Code>,
    /// Reduce tasks; 0 when there is no reducer.
    pub reduces: u32,
    /// Which reduce task gets a key.
    #[serde(default)]
    pub partitioner: Partitioner,
    /// In which order a reduce task sees its keys.
    #[serde(default)]
    pub order: Order,
    /// Whether the values of a key come in the order of their bytes (secondary sort) instead of the
    /// order of the input.
    #[serde(default)]
    pub order_values: bool,
    /// Whether the reducer may be applied to some of a key's values and then to its own output
    /// among the rest. It then also runs in the maps, as a combiner does, so that no key is hot.
    #[serde(default)]
    pub associative: bool,
    /// How lines of map output become key and value.
    #[serde(default)]
    pub map_fields: Fields,
    /// How lines of the reduce output become key and value.
    #[serde(default)]
    pub reduce_fields: Fields,
    /// Files that attempts find in their working directory.
    #[serde(default)]
    pub side_files: Vec<SideFile>,
    /// Environment of streaming processes.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Properties (`-D name=value`), shown to streaming processes as environment.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// What tasks may use, and how much trouble the job may make.
    #[serde(default)]
    pub limits: Limits,
    /// Whether slow tasks get backup tasks.
    #[serde(default = "yes")]
    pub speculative: bool,
    /// Jobs of a higher priority go first; equals share fairly.
    #[serde(default)]
    pub priority: i32,
}

impl JobSpec {
    /// All code of the job.
    pub fn code(&self) -> impl Iterator<Item = &Code> {
        [
            Some(&self.mapper),
            self.combiner.as_ref(),
            self.reducer.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether no code in it could harm a machine or depend on it.
    pub fn is_sandboxed(&self) -> bool {
        self.code().all(|c| !matches!(c, Code::Streaming { .. }))
    }
}

const fn yes() -> bool {
    true
}

impl JobSpec {
    /// The property that names what stands between the fields of a key, one byte.
    pub const KEY_SEPARATOR: &str = "mapreduce.map.output.key.field.separator";

    /// What stands between the fields of a key, for partitioner and order: what stands between key
    /// and value unless a property says otherwise.
    pub fn key_separator(&self) -> u8 {
        let named = self.properties.get(Self::KEY_SEPARATOR);
        match named.map(String::as_bytes) {
            Some([byte]) => *byte,
            _ => self.map_fields.separator,
        }
    }
}

/// A job without a name, input or output whose mapper passes everything on: to fill in.
impl Default for JobSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            inputs: Vec::new(),
            output: String::new(),
            mapper: Code::Identity,
            combiner: None,
            reducer: None,
            reduces: 0,
            partitioner: Partitioner::default(),
            order: Order::default(),
            order_values: false,
            associative: false,
            map_fields: Fields::default(),
            reduce_fields: Fields::default(),
            side_files: Vec::new(),
            environment: BTreeMap::new(),
            properties: BTreeMap::new(),
            limits: Limits::default(),
            speculative: true,
            priority: 0,
        }
    }
}
