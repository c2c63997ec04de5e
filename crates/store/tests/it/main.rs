//! The store on real files in temporary folders.

mod faults;
mod files;
mod harness;
mod pool;
mod resume;
