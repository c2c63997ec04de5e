//! Whole torrents talking to each other in virtual time.

mod swarm;
mod world;
