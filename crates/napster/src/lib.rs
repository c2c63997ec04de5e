//! Napster as OpenNap speaks it: a central directory of who shares what.
//!
//! The messages' framing ([`frame`]), numbers ([`kind`]) and data ([`fields`], [`file`],
//! [`query`]), the index that finds files ([`index::Index`]), and the hub ([`hub::Hub`]). No sockets, no
//! clock and no files: what drives the hub is in the node.

pub mod fields;
pub mod file;
pub mod frame;
pub mod hub;
pub mod index;
pub mod kind;
pub mod query;
pub mod words;
