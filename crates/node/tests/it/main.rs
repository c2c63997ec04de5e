//! Whole nodes on loopback sockets and real files.

mod transfer;
