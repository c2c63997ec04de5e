//! The store on real files in temporary folders.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod faults;
mod files;
mod harness;
mod library;
mod pool;
mod resume;
