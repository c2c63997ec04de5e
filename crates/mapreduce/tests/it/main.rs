//! The control half of MapReduce by its rules, in virtual time.

mod backup;
mod commit;
mod desk;
mod log;
mod messages;
mod placement;
mod recovery;
mod skipping;
mod trust;
mod worker;
