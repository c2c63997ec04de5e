//! MapReduce (Dean and Ghemawat, OSDI 2004) without input or output: what a job is, which task
//! runs where and when, and what happens to records between map and reduce.
//!
//! Two halves that meet only in the types of [`job`] and [`id`]:
//!
//! - *control*: the master and the worker as state machines. Messages, events and *now* go in;
//!   messages, log records and the next deadline come out.
//! - *data*: records, partitioning, sorting, aggregation, the shuffle's format, merging, and the
//!   built-in jobs. Bytes go in and bytes come out; where they are kept is the driver's business.
//!
//! The driver (threads, files, processes, sandboxes, connections) is the crate `shoal-jobs`.

pub mod batch;
pub mod code;
pub mod data;
pub mod id;
pub mod job;
pub mod log;
pub mod master;
pub mod message;
pub mod split;
pub mod trust;
pub mod wire;
pub mod worker;
