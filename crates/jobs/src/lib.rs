//! Runs MapReduce jobs: the driver of `shoal-mapreduce` on threads, files, processes, sandboxes
//! and connections. On one machine the same master and worker run on threads; over TCP they are
//! processes.

pub mod cluster;
pub mod code;
pub mod digest;
pub mod engine;
pub mod filter;
pub mod hadoop;
pub mod input;
pub mod job_file;
pub mod net;
pub mod prepare;
pub mod run;
mod sample;
pub mod side;
pub mod streaming;
pub mod view;
#[cfg(feature = "wasm")]
pub mod wasm;
