//! The store on real files in temporary folders.

#![allow(clippy::print_stdout)]

mod faults;
mod files;
mod harness;
mod pool;
mod resume;
