//! Gnutella 0.6: scoped flooding among ultrapeers and their leaves, and the HTTP that shares files.
//!
//! The messages ([`message`]) with their extensions ([`ggep`], [`huge`]), query routing ([`qrp`]),
//! what a library must answer ([`shared`]), the handshake ([`handshake`]), hosts to connect to
//! ([`hosts`]), and the node itself ([`node`]).
//!
//! No sockets, no clock and no files: what drives it is in the node.

pub mod ggep;
pub mod guid;
pub mod gwebcache;
pub mod handshake;
pub mod hosts;
pub mod http;
pub mod huge;
pub mod message;
pub mod node;
pub mod overlay;
pub mod qrp;
pub mod shared;
pub mod words;

pub use guid::Guid;
