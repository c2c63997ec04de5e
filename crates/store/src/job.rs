//! Files of MapReduce jobs: the execution log, spill files, and the folder of a job's output.

mod log;
mod output;
mod spill;

pub use log::JobLog;
pub use output::{OutputError, OutputFolder};
pub use spill::SpillFile;
