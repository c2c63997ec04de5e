//! Networks of Mainline nodes in virtual time.

mod features;
mod hostile;
mod network;
mod world;
