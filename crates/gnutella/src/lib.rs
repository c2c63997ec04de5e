//! Gnutella 0.6: scoped flooding among ultrapeers and their leaves, and the HTTP that shares files.
//!
//! No sockets, no clock and no files: what drives it is in the node.
