//! Networks of Mainline nodes in virtual time.

mod hostile;
mod network;
mod world;
