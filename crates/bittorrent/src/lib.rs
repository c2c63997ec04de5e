//! The BitTorrent protocols as sans-IO machines and codecs: the peer wire and its extensions,
//! peer discovery, choking.
//!
//! Knows neither sockets, clock nor files, nor which piece to ask for (that is `content`).

pub mod choker;
pub mod extension;
pub mod fast;
pub mod handshake;
pub mod lsd;
pub mod metadata;
pub mod peers;
pub mod pex;
pub mod priority;
pub mod torrent;
pub mod tracker;
pub mod webseed;
pub mod wire;
