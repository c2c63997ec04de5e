//! Gnutella 0.6: scoped flooding among ultrapeers and their leaves, and the HTTP that shares files.
//!
//! The messages ([`message`]) with their extensions ([`ggep`], [`huge`]),
//! and what a library must answer ([`shared`]).
//!
//! No sockets, no clock and no files: what drives it is in the node.

pub mod ggep;
pub mod guid;
pub mod http;
pub mod huge;
pub mod message;
pub mod shared;

pub use guid::Guid;
