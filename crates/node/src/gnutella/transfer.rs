//! Files of Gnutella's users, both ends: a server of what is shared ([`FileServer`]), and a
//! download from many hosts at once ([`Download`]).
//!
//! A thread for each connection: it waits where it reads. What is said is decided in
//! `shoal_gnutella::http`.

mod browse;
mod content;
mod download;
mod hand_over;
mod head_desk;
mod host_source;
mod library;
mod listen;
mod partial;
mod push_desk;
mod push_proxy;
mod server;
mod source;
mod whole;

pub use browse::{BrowseError, browse};
pub use download::{Download, DownloadEvent, DownloadSettings, DownloadStats, Ended};
pub use hand_over::HandOver;
pub(crate) use host_source::{HostSource, Place};
pub use library::{LibraryFiles, NoFiles, Openable};
pub use listen::{Door, Feeder, Incoming, Listener};
pub use partial::{PartialFile, SharedPart};
pub(crate) use push_desk::PushDesk;
pub use push_proxy::push_by_proxy;
pub use server::{FileServer, Upload};
pub(crate) use source::Dial;
