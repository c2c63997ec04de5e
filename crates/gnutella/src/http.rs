//! How files travel: HTTP between two servents, with the fields that Gnutella added to it.
//!
//! ```text
//! request, response   what is said: head, target, ranges, queue, locations
//! server              who is answered what: slots and queue (parq), the mesh of locations
//! client              one host that a file is fetched from
//! sources             all hosts of one file: whom to try next; head_pings asks them by datagrams before
//! thex, dime          the hash tree as it travels
//! ```
//!
//! Bodies pass by: the cores say which bytes of which file go or come.

pub mod client;
pub mod dime;
pub mod files;
pub mod head;
pub mod head_pings;
pub mod locations;
pub mod parq;
pub mod pushes;
pub mod queue;
pub mod ranges;
pub mod request;
pub mod response;
pub mod server;
pub mod sources;
pub mod target;
pub mod thex;
