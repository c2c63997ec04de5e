//! Why an attempt fails, and who is to blame.

use crate::input::InputError;
use shoal_mapreduce::code::CodeError;
use shoal_mapreduce::data::DataError;
use shoal_mapreduce::message::{Blame, Failure, RecordRange};
use std::io;

/// Why an attempt ends early.
pub(super) enum Trouble {
    Data(DataError),
    Input(InputError),
    Disk(io::Error),
    Code(CodeError),
    Stopped,
}

impl From<DataError> for Trouble {
    fn from(e: DataError) -> Self {
        Self::Data(e)
    }
}

impl From<CodeError> for Trouble {
    fn from(e: CodeError) -> Self {
        Self::Code(e)
    }
}

impl From<InputError> for Trouble {
    fn from(e: InputError) -> Self {
        Self::Input(e)
    }
}

/// A failure that is the machine's.
pub(in crate::engine) fn host_failure(what: String) -> Failure {
    Failure {
        what,
        blame: Blame::Host,
        records: None,
    }
}

/// A failure that counts against the task.
pub(in crate::engine) fn code_failure(what: String) -> Failure {
    Failure {
        what,
        blame: Blame::Code,
        records: None,
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let why = e.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        next = e.source();
    }
    text
}

impl Trouble {
    /// `at` is the record that the batch began with at which code failed, `until` the one after the
    /// last that it was given.
    pub(super) fn failure(self, at: u64, until: u64) -> Failure {
        let code = |e: &CodeError| Failure {
            what: e.what.clone(),
            blame: Blame::Code,
            records: Some(match e.record {
                Some(n) => RecordRange {
                    from: at + n,
                    to: at + n + 1,
                },
                // What was given earlier may still have been on its way through the code.
                None => RecordRange { from: 0, to: until },
            })
            .filter(|r| !r.is_empty()),
        };
        match self {
            Self::Code(e) | Self::Data(DataError::Code(e)) => code(&e),
            Self::Data(e @ DataError::RecordTooLong { .. }) => code_failure(chain(&e)),
            Self::Data(e) => host_failure(chain(&e)),
            Self::Input(e) => code_failure(chain(&e)),
            Self::Disk(e) => host_failure(format!("the worker's folder: {e}")),
            Self::Stopped => host_failure("stopped".to_owned()),
        }
    }
}
