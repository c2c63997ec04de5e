//! Gnutella on sockets: one thread with all connections and datagrams of a node
//! ([`GnutellaServer`]).
//!
//! Files move by threads of their own ([`transfer`]).
//!
//! The rules are those of `shoal_gnutella`.

mod connection;
mod handle;
mod server;
mod shelf;
mod tls;
pub mod transfer;
mod webcache;
mod worker;

pub use handle::{Control, SearchEvent, Snapshot};
pub use server::{GnutellaError, GnutellaServer, GnutellaSettings, Incoming};
pub use shelf::Shelf;
#[cfg(test)]
pub(crate) use tls::make as make_certificate;
pub use tls::{Stream, Tls, TlsError};
pub use webcache::{WebCacheServer, WebCaches};
