//! The control half of MapReduce by its rules, in virtual time; whole jobs through map and reduce
//! tasks in memory, against slow references.

mod backup;
mod commit;
mod data;
mod desk;
mod log;
mod messages;
mod placement;
mod recovery;
mod skipping;
mod trust;
mod worker;
