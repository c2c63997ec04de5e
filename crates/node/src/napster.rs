//! Napster on sockets: a hub ([`HubServer`]), and the client's side of files and transfers.
//!
//! The rules are those of `shoal_napster`.

mod keeper;
mod password;
mod server;

pub use server::{HubError, HubServer, HubSettings};
