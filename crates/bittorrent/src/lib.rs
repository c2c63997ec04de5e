//! The BitTorrent protocols as sans-IO machines and codecs: the peer wire and its extensions,
//! peer discovery, choking.
//!
//! Knows neither sockets, clock nor files, nor which piece to ask for (that is `content`).

pub mod extension;
pub mod handshake;
pub mod metadata;
pub mod tracker;
pub mod wire;
