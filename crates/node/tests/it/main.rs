//! Whole nodes on loopback sockets and real files.

mod swarm_files;
mod transfer;
