//! Hadoop's command line: `fs` on a job store, and Hadoop-Streaming command lines that become jobs.
//! What it reads and prints is what Hadoop 3's does, as far as programs that drive it look, above
//! all mrjob.

pub mod arguments;
pub mod job;
pub mod keys;
pub mod log;
pub mod properties;
pub mod shell;
pub mod store;
