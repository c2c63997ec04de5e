//! Whole jobs through map and reduce tasks in memory, against slow references.

mod data;
