//! Napster as OpenNap speaks it: a central directory of who shares what.
//!
//! The messages' framing ([`frame`]), numbers ([`kind`]) and data ([`fields`], [`mod@file`],
//! [`query`]), the index that finds files ([`index::Index`]), the hub ([`hub::Hub`]), and the
//! client's side ([`client`], [`transfer`], [`mp3`]), and another network as a hub's user
//! ([`gateway`]). No sockets, no
//! clock and no files: what drives the hub is in the node.

pub mod client;
pub mod fields;
pub mod file;
pub mod frame;
pub mod gateway;
pub mod hub;
pub mod index;
pub mod kind;
pub mod mp3;
pub mod query;
pub mod transfer;
