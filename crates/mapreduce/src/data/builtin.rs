//! The jobs that come with shoal: `wordcount`, `grep`, `sort`, `index`, `join`.
//!
//! | job | mapper | reducer |
//! |---|---|---|
//! | `wordcount` | a word is a longest run of bytes that are not ASCII white space; emits it with 1 | adds |
//! | `grep PATTERN` | emits lines that match, whole and in order; no reduce tasks | |
//! | `sort` | emits lines whole, range-partitioned | passes on |
//! | `index` | emits each word with its file's name | the set of names, in order, commas between |
//! | `join` | emits the rest of a line under its first field, tagged with its side | pairs |
//!
//! Reducers by name also are `sum`, `min`, `max`, `union` and Hadoop Streaming's `aggregate`, for
//! mappers of one's own.

mod aggregate;
mod grep;
mod join;
mod words;

use super::fold;
use super::map::Combine;
use super::native::LineMapper;
use super::reduce::Reduction;
use crate::code::{CodeError, MapCode};
use crate::job::{Code, Fields, JobSpec, Partitioner};

use aggregate::Aggregate;
pub use words::{is_space, words};

/// Names of the jobs.
pub const NAMES: [&str; 5] = ["wordcount", "grep", "sort", "index", "join"];

/// Fills in what a built-in job's name implies: code, combiner, partitioner, order. `args` are the
/// job's own, such as the pattern of `grep`. Inputs, output and limits are the caller's.
///
/// # Errors
/// When there is no such job, or its arguments are wrong.
pub fn fill_in(name: &str, args: &[String], job: &mut JobSpec) -> Result<(), CodeError> {
    let code = Code::Builtin {
        name: name.to_owned(),
        args: args.to_vec(),
    };
    // Says what is wrong with the arguments now, not in the first task.
    mapper(&code, &job.map_fields)?;
    name.clone_into(&mut job.name);
    match name {
        "wordcount" | "index" => {
            job.combiner = Some(code.clone());
            job.reducer = Some(code.clone());
            job.associative = true;
        }
        "grep" => job.reduces = 0,
        "sort" => {
            job.reducer = Some(Code::Identity);
            job.partitioner = Partitioner::Range;
        }
        "join" => {
            job.reducer = Some(code.clone());
            job.order_values = true;
        }
        _ => return Err(unknown(name)),
    }
    job.mapper = code;
    Ok(())
}

fn unknown(name: &str) -> CodeError {
    CodeError {
        what: format!(
            "there is no built-in called {name:?}; there are {}",
            NAMES.join(", ")
        ),
        record: None,
    }
}

/// The mapper of [`Code::Builtin`] and [`Code::Identity`].
///
/// # Errors
/// When there is no such mapper, or its arguments are wrong.
pub fn mapper(code: &Code, fields: &Fields) -> Result<Box<dyn MapCode + Send>, CodeError> {
    let (name, args) = match code {
        Code::Identity => return Ok(Box::new(LineMapper(words::KeyValue(fields.clone())))),
        Code::Builtin { name, args } => (name.as_str(), args.as_slice()),
        Code::Streaming { .. } | Code::Wasm { .. } => return Err(not_built_in()),
    };
    Ok(match name {
        "wordcount" => Box::<words::Count>::default(),
        "grep" => Box::new(grep::Grep::new(args)?),
        "sort" => Box::new(words::WholeLines),
        "index" => Box::<words::Places>::default(),
        "join" => Box::new(LineMapper(join::Tag::new(fields.separator))),
        _ => return Err(unknown(name)),
    })
}

/// The reducer of [`Code::Builtin`] and [`Code::Identity`].
///
/// # Errors
/// When there is no such reducer.
pub fn reduction(code: &Code, fields: &Fields) -> Result<Reduction, CodeError> {
    let name = match code {
        Code::Identity => return Ok(Reduction::Identity),
        Code::Builtin { name, .. } => name.as_str(),
        Code::Streaming { .. } | Code::Wasm { .. } => return Err(not_built_in()),
    };
    if let Some(fold) = fold::by_name(name) {
        return Ok(Reduction::Fold(fold));
    }
    match name {
        "join" => Ok(Reduction::Native(Box::new(join::Pairs::new(
            fields.separator,
        )))),
        "aggregate" => Ok(Reduction::Native(Box::new(Aggregate::reducer()))),
        "sort" | "grep" => Ok(Reduction::Identity),
        _ => Err(unknown(name)),
    }
}

/// The combiner of [`Code::Builtin`]; [`Code::Identity`] combines nothing.
///
/// # Errors
/// When that built-in is no combiner.
pub fn combine(code: &Code) -> Result<Combine, CodeError> {
    match code {
        Code::Identity => Ok(Combine::None),
        Code::Builtin { name, .. } if name == "aggregate" => Ok(Combine::Code(Box::new(|| {
            Ok(Reduction::Native(Box::new(Aggregate::combiner())))
        }))),
        Code::Builtin { name, .. } => {
            fold::by_name(name)
                .map(Combine::Fold)
                .ok_or_else(|| CodeError {
                    what: format!("the built-in {name:?} is not associative: it cannot combine"),
                    record: None,
                })
        }
        Code::Streaming { .. } | Code::Wasm { .. } => Err(not_built_in()),
    }
}

fn not_built_in() -> CodeError {
    CodeError {
        what: "this code is not built in".to_owned(),
        record: None,
    }
}
