//! Files of Gnutella's users, both ends: a server of what is shared ([`FileServer`]), and a
//! download from many hosts at once ([`Download`]).
//!
//! A thread for each connection: it waits where it reads. What is said is decided in
//! `shoal_gnutella::http`.

mod content;
mod download;
mod hand_over;
mod library;
mod listen;
mod server;
mod source;
mod whole;

pub use download::{Download, DownloadEvent, DownloadSettings, DownloadStats, Ended};
pub use hand_over::HandOver;
pub use library::{LibraryFiles, Openable};
pub use listen::{Incoming, Listener};
pub use server::{FileServer, Upload};
