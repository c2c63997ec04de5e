//! The store on real files in temporary folders.

mod harness;
mod pool;
